//! What the manifest of one node lists.

use std::collections::BTreeMap;

use skerry_wire::manifest::{ManifestAlloc, Tombstone};
use skerry_wire::{Digest, NodeId};

use crate::model::{Alloc, Order};

/// The lists of a manifest, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// What runs, by (job, group, index).
    pub allocs: Vec<ManifestAlloc>,
    /// What stops, by id.
    pub tombstones: Vec<Tombstone>,
}

/// The manifest's lists for a node. `specification` gives the digest of a job version; an allocation without one is left out, since
/// its node could not accept it (it goes on with what it has).
///
/// A stopped allocation is listed until its node has said that it is over; where a newer allocation has its place, that takes it over
/// without a gap, and no order to stop is listed.
pub fn content<'a>(
    node: NodeId,
    allocs: impl IntoIterator<Item = &'a Alloc>,
    specification: impl Fn(&str, u64) -> Option<Digest>,
) -> Content {
    let mut runs: BTreeMap<(&str, &str, u32), &Alloc> = BTreeMap::new();
    let mut stops = Vec::new();
    for alloc in allocs.into_iter().filter(|a| a.node == node) {
        let slot = (alloc.job.as_str(), alloc.group.as_str(), alloc.index);
        match &alloc.order {
            Order::Run => {
                let newest = runs.entry(slot).or_insert(alloc);
                if (alloc.version, alloc.id) > (newest.version, newest.id) {
                    *newest = alloc;
                }
            }
            Order::Stop(reason) if !alloc.ended => stops.push((slot, alloc, reason)),
            Order::Stop(_) | Order::Replaced => {}
        }
    }
    let tombstone = |alloc: &Alloc, reason: &String| Tombstone {
        id: alloc.id,
        job: alloc.job.clone(),
        group: alloc.group.clone(),
        index: alloc.index,
        reason: reason.clone(),
        version: alloc.version,
    };
    let mut tombstones: Vec<_> =
        stops.iter().filter(|(slot, ..)| !runs.contains_key(slot)).map(|(_, alloc, reason)| tombstone(alloc, reason)).collect();
    tombstones.sort();
    let allocs = runs
        .into_values()
        .filter_map(|a| {
            let specification = specification(&a.job, a.version)?;
            let Alloc { job, group, index, id, version, retry, override_lock, .. } = a.clone();
            Some(ManifestAlloc { job, group, index, id, version, specification, retry, override_lock })
        })
        .collect();
    Content { allocs, tombstones }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Claim, State};
    use skerry_wire::{AllocId, Timestamp};

    const NODE: NodeId = NodeId::new([1; 16]);

    fn alloc(id: u8, job: &str, version: u64, order: Order, ended: bool) -> Alloc {
        let (group, claim) = ("web".to_owned(), Claim::default());
        Alloc {
            id: AllocId::new([id; 16]),
            job: job.to_owned(),
            version,
            group,
            index: 0,
            node: NODE,
            order,
            ended,
            claim,
            to_end: false,
            state: State::NEW,
            lost: false,
            placed_at: Timestamp(0),
            covers: false,
            retry: 0,
            override_lock: false,
        }
    }

    fn listed(allocs: &[Alloc]) -> (Vec<AllocId>, Vec<AllocId>) {
        let content = content(NODE, allocs, |_, v| (v != 99).then(|| Digest::new([9; 32])));
        (content.allocs.iter().map(|a| a.id).collect(), content.tombstones.iter().map(|t| t.id).collect())
    }

    #[test]
    fn one_per_slot_and_tombstones_until_ended() {
        let stop = || Order::Stop("job stopped".to_owned());
        let id = |n| AllocId::new([n; 16]);
        let table: [(&[Alloc], Vec<AllocId>, Vec<AllocId>); 6] = [
            (&[alloc(2, "b", 1, Order::Run, false), alloc(1, "c", 1, Order::Run, false)], vec![id(2), id(1)], vec![]),
            (&[alloc(1, "b", 1, Order::Replaced, false), alloc(2, "b", 2, Order::Run, false)], vec![id(2)], vec![]),
            (&[alloc(1, "b", 1, Order::Run, false), alloc(2, "b", 2, Order::Run, false)], vec![id(2)], vec![]),
            (&[alloc(1, "b", 1, stop(), false), alloc(2, "c", 1, stop(), true)], vec![], vec![id(1)]),
            (&[alloc(1, "b", 1, stop(), false), alloc(2, "b", 2, Order::Run, false)], vec![id(2)], vec![]),
            (&[alloc(1, "b", 99, Order::Run, false)], vec![], vec![]),
        ];
        for (allocs, runs, stops) in table {
            assert_eq!(listed(allocs), (runs, stops), "{allocs:?}");
        }
    }
}
