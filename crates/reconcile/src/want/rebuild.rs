//! Memory from the engine: when nothing is remembered of a place, the labels of its containers say what it was switched to.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::AllocId;
use skerry_wire::manifest::Manifest;

use crate::facts::{Observed, Slot, State};
use crate::memory::{Leaving, Memory, SlotMemory, Version};

/// Fills in places that have containers but no memory. A place that was only ever looked at before the engine answered has none.
pub(crate) fn rebuild(memory: &mut Memory, observed: &Observed<'_>, manifest: Option<&Manifest>) {
    let known = |s: &Slot| memory.slots.get(s).is_some_and(|m| !m.is_empty());
    let unknown: BTreeSet<&Slot> = observed.instances.iter().map(|c| &c.labels.slot).filter(|s| !known(s)).collect();
    let unknown: Vec<Slot> = unknown.into_iter().cloned().collect();
    for slot in unknown {
        let before = memory.slots.remove(&slot).unwrap_or_default();
        memory.slots.insert(slot.clone(), rebuild_slot(before, &slot, observed, manifest));
    }
}

fn rebuild_slot(before: SlotMemory, slot: &Slot, observed: &Observed<'_>, manifest: Option<&Manifest>) -> SlotMemory {
    let containers = || observed.instances.iter().filter(|c| c.labels.slot == *slot);
    let tombstones = || manifest.into_iter().flat_map(|m| &m.tombstones).filter(|t| Slot::from(*t) == *slot);
    let listed = manifest.is_some_and(|m| m.allocs.iter().any(|a| Slot::from(a) == *slot));
    let mut leaving = BTreeMap::new();
    if listed {
        // The place was used again after these orders, so what runs may well be newer than what they stopped.
        for tombstone in tombstones().filter(|t| !containers().any(|c| c.labels.alloc == t.id)) {
            let entry = Leaving { tombstone: true, ..Leaving::new(tombstone.id, &tombstone.reason) };
            leaving.insert(tombstone.id, entry);
        }
    }
    // What runs wins over what ran, and that over what never ran; then the newer version.
    let rank = |alloc: AllocId| {
        let own = || containers().filter(move |c| c.labels.alloc == alloc);
        let running = own().any(|c| c.state == State::Running);
        let ran = own().any(|c| c.state != State::Created);
        (running, ran, own().map(|c| c.labels.version).max(), alloc)
    };
    let best = containers().map(|c| c.labels.alloc).filter(|a| !tombstones().any(|t| t.id == *a)).max_by_key(|a| rank(*a));
    let current = best.and_then(|alloc| {
        let own = || containers().filter(move |c| c.labels.alloc == alloc);
        let first = own().next()?;
        Some(Version {
            alloc,
            born: alloc,
            version: first.labels.version,
            specification: first.labels.specification,
            ports: first.labels.ports.clone(),
            images: own().filter_map(|c| c.image).collect(),
        })
    });
    SlotMemory { current, leaving, ..before }
}
