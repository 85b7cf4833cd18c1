//! What this node cannot run, whatever the policy says: too much memory or disk, a device that is not there, a port that is taken.

use std::collections::BTreeMap;

use skerry_wire::job::{Group, Hook, Task};
use skerry_wire::manifest::ManifestAlloc;

use super::{Gate, is_settled};
use crate::facts::{Desired, Observed, Slot};
use crate::memory::{Memory, Version};

/// Why the group is more than the node has. What the node does not know of itself (0) holds nothing up.
///
/// Reasons name no figure that moves: a reason that changes is reported anew.
pub(super) fn beyond_the_node(group: &Group, observed: &Observed<'_>) -> Option<String> {
    let has = observed.node.memory_mib;
    let beside = |t: &&Task| t.lifecycle.is_none_or(|l| l.sidecar || l.hook == Hook::Poststart);
    let together: u64 = group.tasks.iter().filter(beside).map(|t| u64::from(t.resources.memory)).sum();
    let alone = group.tasks.iter().map(|t| u64::from(t.resources.memory)).max().unwrap_or(0);
    let needs = together.max(alone);
    if has > 0 && needs > has {
        return Some(format!("group `{}` needs {needs} MiB of memory, the node has {has}", group.name));
    }
    let disk: u64 = group.tasks.iter().map(|t| u64::from(t.resources.disk)).sum();
    if disk > 0 && disk.saturating_mul(1 << 20) > observed.disk_free {
        return Some(format!("group `{}` needs {disk} MiB of disk, more than is free on the node", group.name));
    }
    let mut ports = BTreeMap::new();
    for port in &group.network.ports {
        if let Some(fixed) = port.fixed
            && let Some(other) = ports.insert(fixed, &port.label)
        {
            return Some(format!("port {fixed} is asked for twice, as `{other}` and as `{}`", port.label));
        }
    }
    let devices = group.images().flat_map(|c| &c.devices);
    let gone = devices.map(|d| &d.host_path).find(|p| !observed.devices.contains(*p))?;
    Some(format!("device {gone} is not on the node"))
}

/// Refuses what asks for a static port that another place has, or that one before it in the manifest asks for. A port that its place gives
/// up in the same step, by order or by the same version of the job, is free: who gets it starts when it is let go of.
pub(super) fn ports_taken(resolved: &mut [(&ManifestAlloc, Gate<'_>)], desired: &Desired<'_>, memory: &Memory) {
    let mut owners: BTreeMap<u16, Slot> = BTreeMap::new();
    for (slot, held) in &memory.slots {
        owners.extend(held.ports_held().map(|p| (p, slot.clone())));
    }
    let listed: Vec<&ManifestAlloc> = resolved.iter().map(|(alloc, _)| *alloc).collect();
    for (alloc, gate) in resolved {
        let slot = Slot::from(*alloc);
        let Gate::Open(_, group) = gate else { continue };
        // What was switched to holds its ports already, or is complete and holds none.
        if is_settled(alloc, memory) {
            continue;
        }
        let fixed: Vec<u16> = group.network.ports.iter().filter_map(|p| p.fixed).collect();
        let own = |s: &Slot| *s == slot || s.parent().as_ref() == Some(&slot);
        let given_up = |s: &Slot, port: u16| {
            let current = memory.slots.get(s).and_then(|m| m.current.as_ref());
            let buried = |c: &Version| desired.manifest.is_some_and(|m| m.tombstones.iter().any(|t| t.id == c.alloc));
            let follows = |a: &&&ManifestAlloc| Slot::from(**a) == *s && (&a.job, a.version) == (&alloc.job, alloc.version);
            let other = listed.iter().find(follows).filter(|a| current.is_some_and(|c| c.alloc != a.id));
            let group = other.and_then(|a| desired.specifications.get(&a.specification)?.job.group(&a.group));
            current.is_some_and(buried) || group.is_some_and(|g| g.network.ports.iter().all(|p| p.fixed != Some(port)))
        };
        let held = |p: &u16| owners.get(p).filter(|s| !own(s) && !given_up(s, *p)).map(|s| (*p, s.clone()));
        if let Some((port, other)) = fixed.iter().find_map(held) {
            *gate = Gate::Refused(format!("port {port} of the node is taken by {other}"));
            continue;
        }
        owners.extend(fixed.into_iter().map(|p| (p, slot.clone())));
    }
}
