//! What runs beyond the manifest: a server that was put back to an older backup does not know of it, and stops nothing of it by that.

use std::collections::BTreeSet;

use skerry_reconcile::{AllocView, Memory};
use skerry_wire::limits;
use skerry_wire::manifest::Manifest;
use skerry_wire::node::UnknownAlloc;
use skerry_wire::poll::AllocStatus;

/// Allocations in places that the manifest neither gives to one nor clears. None before there is a manifest.
pub(super) fn unknown(memory: &Memory, allocs: &[AllocView], manifest: Option<&Manifest>) -> Vec<UnknownAlloc> {
    let Some(manifest) = manifest else { return Vec::new() };
    let placed: BTreeSet<_> = manifest.allocs.iter().map(|a| (a.job.as_str(), a.group.as_str(), a.index)).collect();
    let stopped = |id| manifest.tombstones.iter().any(|t| t.id == id);
    // A run by the clock is its job's.
    let places = memory.slots.iter().filter(|(slot, _)| slot.run().is_none());
    let kept = places.filter(|(slot, _)| !placed.contains(&(slot.job.as_str(), slot.group.as_str(), slot.index)));
    let mut unknown: Vec<_> = kept
        .filter_map(|(slot, memory)| {
            let current = memory.current.as_ref().filter(|current| !stopped(current.alloc))?;
            let status = allocs.iter().find(|a| a.id == current.alloc).map_or(AllocStatus::Pending, |a| a.status);
            Some(UnknownAlloc {
                id: current.alloc,
                job: slot.job.clone(),
                group: slot.group.clone(),
                index: slot.index,
                version: current.version,
                specification: current.specification,
                status,
            })
        })
        .collect();
    unknown.sort();
    unknown.truncate(limits::ALLOCS_PER_NODE);
    unknown
}

#[cfg(test)]
mod tests {
    use skerry_reconcile::{Slot, SlotMemory, Version};
    use skerry_wire::manifest::Tombstone;
    use skerry_wire::{AllocId, Digest};

    use super::*;
    use crate::ledger::samples::manifest;

    /// One allocation of group `g` in a place of each job.
    fn memory(jobs: &[(&str, u8)]) -> Memory {
        let slots = jobs.iter().map(|(job, id)| {
            let alloc = AllocId::new([*id; 16]);
            let specification = Digest::new([9; 32]);
            let current = Version { alloc, born: alloc, version: 3, specification, ports: Default::default(), images: Default::default() };
            let slot = Slot { job: (*job).to_owned(), group: "g".to_owned(), index: 0 };
            (slot, SlotMemory { current: Some(current), ..SlotMemory::default() })
        });
        Memory { slots: slots.collect(), ..Memory::default() }
    }

    #[test]
    fn only_what_the_manifest_says_nothing_of() {
        let memory = memory(&[("till", 1), ("sign", 2), ("sign/periodic-4", 3), ("pump", 4), ("lamp", 5)]);
        assert_eq!(unknown(&memory, &[], None), []);
        // `till` is named, another version of it too; `pump` is to stop.
        let mut named = manifest(7, &[("till", Digest::new([8; 32]))]);
        let pump = AllocId::new([4; 16]);
        named.tombstones.push(Tombstone { id: pump, job: "pump".into(), group: "g".into(), index: 0, reason: String::new(), version: 3 });
        let ids: Vec<_> = unknown(&memory, &[], Some(&named)).into_iter().map(|a| (a.job, a.id, a.version, a.status)).collect();
        let expected = [("sign", 2), ("lamp", 5)].map(|(job, id)| (job.to_owned(), AllocId::new([id; 16]), 3, AllocStatus::Pending));
        assert_eq!(ids, expected);
    }
}
