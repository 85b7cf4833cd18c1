//! What runs beyond the manifest: a server that was put back to an older backup does not know of it, and stops nothing of it by that, nor
//! does it bring an older version back in its place.

use std::collections::{BTreeMap, BTreeSet};

use skerry_reconcile::{AllocView, Memory};
use skerry_wire::manifest::{Manifest, ManifestAlloc};
use skerry_wire::node::UnknownAlloc;
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, limits};

/// Allocations of the manifest that are not followed, and why: of their job a newer version runs here than any that the manifest speaks of.
/// Versions only rise, so the server has forgotten that one. Where it speaks of the newest, an older one beside it is meant to go on.
pub(super) fn older(memory: &Memory, manifest: Option<&Manifest>) -> BTreeMap<AllocId, String> {
    let Some(manifest) = manifest else { return BTreeMap::new() };
    let mut said: BTreeMap<&str, u64> = BTreeMap::new();
    let allocs = manifest.allocs.iter().map(|a| (a.job.as_str(), a.version));
    for (job, version) in allocs.chain(manifest.tombstones.iter().map(|t| (t.job.as_str(), t.version))) {
        let newest = said.entry(job).or_default();
        *newest = version.max(*newest);
    }
    let mut forgotten: BTreeMap<&str, u64> = BTreeMap::new();
    for (slot, current) in memory.slots.iter().filter_map(|(slot, m)| Some((slot, m.current.as_ref()?))).filter(|(s, _)| s.run().is_none())
    {
        if said.get(slot.job.as_str()).is_some_and(|newest| *newest < current.version) {
            let version = forgotten.entry(&slot.job).or_default();
            *version = current.version.max(*version);
        }
    }
    // In its own place nothing goes back by itself, whatever is said of other places.
    let own = |a: &ManifestAlloc| {
        let slot = memory.slots.iter().find(|(slot, _)| (&slot.job, &slot.group, slot.index) == (&a.job, &a.group, a.index))?;
        let current = slot.1.current.as_ref().filter(|current| current.version > a.version)?;
        (!manifest.tombstones.iter().any(|t| t.id == current.alloc)).then_some(current.version)
    };
    let why = |version: u64| {
        format!(
            "version {version} of the job runs here, and the server has forgotten it: adopt it (`skerry alloc unknown list`), or submit the job again"
        )
    };
    manifest.allocs.iter().filter_map(|a| Some((a.id, why(forgotten.get(a.job.as_str()).copied().or_else(|| own(a))?)))).collect()
}

/// Allocations in places that the manifest, as it is followed, neither gives to one nor clears. None before there is a manifest.
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

    #[test]
    fn an_older_version_of_a_job_takes_no_place_of_it() {
        let memory = memory(&[("till", 1), ("sign/periodic-4", 3)]);
        assert_eq!(older(&memory, None), BTreeMap::new());
        for (version, refused) in [(2, 1), (3, 0), (4, 0)] {
            // In another place of the job, too: of a job one version runs.
            let mut named = manifest(version, &[("till", Digest::new([8; 32])), ("sign", Digest::new([8; 32]))]);
            named.allocs[0].index = 5;
            let found = older(&memory, Some(&named));
            assert_eq!(found.len(), refused, "{version}");
            assert!(found.iter().all(|(id, why)| *id == named.allocs[0].id && why.contains("version 3")), "{found:?}");
        }
        // The planner leaves an older one where the newer has no room, and says the newer one of the other place, or that it is to stop.
        let mut both = manifest(2, &[("till", Digest::new([8; 32])), ("till", Digest::new([9; 32]))]);
        (both.allocs[0].index, both.allocs[1].version) = (5, 3);
        assert_eq!(older(&memory, Some(&both)), BTreeMap::new());
        let newest = both.allocs.remove(1);
        both.tombstones.push(Tombstone::of(&newest, "drained"));
        assert_eq!(older(&memory, Some(&both)), BTreeMap::new());
        // One of two places of a forgotten version is ordered to stop: the other does not go back to the older one by that.
        (both.allocs[0].index, both.tombstones[0].index, both.tombstones[0].id) = (0, 1, AllocId::new([77; 16]));
        assert_eq!(older(&memory, Some(&both)).len(), 1);
        // The very one that runs there is ordered to stop: its place is free.
        both.tombstones[0].id = AllocId::new([1; 16]);
        assert_eq!(older(&memory, Some(&both)), BTreeMap::new());
    }
}
