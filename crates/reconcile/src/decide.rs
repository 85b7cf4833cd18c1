//! The whole decision, place by place.

use std::collections::BTreeSet;

use skerry_wire::manifest::Tombstone;

use crate::decision::Decision;
use crate::facts::{Desired, Node, Now, Observed, Slot};
use crate::memory::Memory;
use crate::place::{Context, Work};
use crate::want::{fixed_ports, need, rebuild, wants};

/// Decides what to do next. See the crate's promises.
pub fn reconcile(desired: &Desired<'_>, observed: &Observed<'_>, memory: &Memory, now: Now) -> Decision {
    let mut memory = memory.clone();
    let amnesia = memory.boot.is_none();
    let rebooted = memory.enter_boot(now.boot);
    rebuild(&mut memory, observed, desired.manifest);
    // What the server says about the node wins over what the node says.
    let mut node: Node = observed.node.clone();
    node.meta.extend(desired.manifest.iter().flat_map(|m| m.values.meta.clone()));
    let observed = &Observed { node: &node, ..observed.clone() };

    let (wants, mut needed, wanted_images) = wants(desired, observed, &memory);
    let fixed = fixed_ports(desired.manifest, desired);
    let done = std::mem::take(&mut memory.orders);
    let cx = Context { desired: *desired, observed, now: now.ms, wall: now.wall, rebooted, amnesia, orders_done: &done };

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
        // Each run by the clock is an order of its own.
        let over = slot_memory.over().filter(|_| slot.run().is_none()).cloned();
        Work::new(cx, slot).run(&mut slot_memory, &mut memory, wants.get(slot), &ended, &taken, &mut out);
        if let Some(left) = over.filter(|v| slot_memory.current.as_ref().is_none_or(|c| c.born != v.born)) {
            memory.note_over(&left);
        }
        if !slot_memory.is_empty() || !slot_memory.reported.is_empty() {
            memory.slots.insert(slot.clone(), slot_memory);
        }
    }
    memory.trim_over(desired.manifest);
    memory.orders = observed.orders.iter().map(|o| o.id).collect();
    for image in out.needed.drain(..) {
        need(&mut needed, image);
    }
    out.needed = needed.into_values().collect();
    out.needed.sort_by(|a, b| b.priority.cmp(&a.priority).then(a.image.cmp(&b.image)));

    let versions = || memory.slots.values().flat_map(|m| m.versions().chain(&m.last_good));
    out.pins = versions().flat_map(|v| v.images.iter().copied()).chain(wanted_images).collect();
    let labelled = observed.instances.iter().map(|c| c.labels.specification);
    out.specifications = versions().map(|v| v.specification).chain(wants.values().map(|w| w.alloc.specification)).chain(labelled).collect();
    let leaving = memory.slots.values().flat_map(|m| m.leaving.values()).filter(|l| !l.reported).map(|l| l.born);
    out.folders = versions().map(|v| v.born).chain(leaving).chain(observed.instances.iter().map(|c| c.labels.alloc)).collect();
    out.memory = memory;
    out
}
