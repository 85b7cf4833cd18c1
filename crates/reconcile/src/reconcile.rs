//! The whole decision, place by place.

use std::collections::BTreeSet;

use skerry_wire::manifest::Tombstone;

use crate::decision::Decision;
use crate::facts::{Desired, Now, Observed, Slot};
use crate::gate::{fixed_ports, need, wants};
use crate::memory::Memory;
use crate::rebuild::rebuild;
use crate::slot::{Context, Work};

/// A version is good when all its tasks ran for this many milliseconds without an end.
pub const MIN_HEALTHY_MS: u64 = 10_000;

/// Decides what to do next. See the crate's promises.
pub fn reconcile(desired: &Desired<'_>, observed: &Observed<'_>, memory: &Memory, now: Now) -> Decision {
    let mut memory = memory.clone();
    let rebooted = memory.enter_boot(now.boot);
    rebuild(&mut memory, observed, desired.manifest);
    let (wants, mut needed, wanted_images) = wants(desired, observed, &memory);
    let fixed = fixed_ports(desired.manifest, desired);
    let cx = Context { desired: *desired, observed, now: now.ms, interrupted: rebooted || observed.interrupted };

    let mut out = Decision::default();
    let tombstones: Vec<(Slot, &Tombstone)> =
        desired.manifest.into_iter().flat_map(|m| &m.tombstones).map(|t| (Slot::from(t), t)).collect();
    let slots: BTreeSet<Slot> =
        memory.slots.keys().cloned().chain(wants.keys().cloned()).chain(tombstones.iter().map(|(s, _)| s.clone())).collect();
    for slot in &slots {
        let ended: Vec<&Tombstone> = tombstones.iter().filter(|(s, _)| s == slot).map(|(_, t)| *t).collect();
        let mut taken = memory.ports_of_others(slot);
        taken.extend(&fixed);
        let mut slot_memory = memory.slots.remove(slot).unwrap_or_default();
        Work::new(cx, slot).run(&mut slot_memory, wants.get(slot), &ended, &taken, &mut out);
        if !slot_memory.is_empty() || !slot_memory.reported.is_empty() {
            memory.slots.insert(slot.clone(), slot_memory);
        }
    }
    for image in out.needed.drain(..) {
        need(&mut needed, image);
    }
    out.needed = needed.into_values().collect();
    out.needed.sort_by(|a, b| b.priority.cmp(&a.priority).then(a.image.cmp(&b.image)));

    let versions = || memory.slots.values().flat_map(|m| m.versions().chain(&m.last_good));
    out.pins = versions().flat_map(|v| v.images.iter().copied()).chain(wanted_images).collect();
    out.specifications = versions().map(|v| v.specification).chain(wants.values().map(|w| w.alloc.specification)).collect();
    out.folders = versions().map(|v| v.born).chain(observed.instances.iter().map(|c| c.labels.alloc)).collect();
    out.memory = memory;
    out
}
