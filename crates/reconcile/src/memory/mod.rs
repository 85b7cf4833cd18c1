//! What was decided before. The caller keeps it on disk, encoded as it likes, before it acts on the decision that it came with.
//!
//! All times are milliseconds of the boot named in [`Memory::boot`]; under another boot they are dropped.

mod boot;
mod life;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skerry_wire::manifest::{Manifest, ManifestAlloc};
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, BootId, Digest, ImageId, Timestamp};

pub use life::{Again, End, Life, TaskMemory, Told};

use crate::facts::Slot;
use crate::hash::stable;

/// Decisions that are kept for people, per place.
pub const DECISIONS: usize = 10;
/// Allocations that ran to their end and left their place, of which that is remembered.
pub const OVER: usize = 128;
/// Bad specifications that are remembered, per place.
const BAD: usize = 8;

/// All that the reconciler remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The boot that times count from.
    pub boot: Option<BootId>,
    /// By place.
    pub slots: BTreeMap<Slot, SlotMemory>,
    /// Orders of [`crate::Observed::orders`] that were carried out. The caller need not tell them again.
    pub orders: BTreeSet<u64>,
    /// What ran to its end and has left its place since, the latest last: at most [`OVER`], and what the manifest names.
    pub over: Vec<Over>,
}

/// An allocation that ran to its end, and what it was made from: a server that forgot it may give the same name to another order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// The allocation.
    pub alloc: AllocId,
    /// Digest of its specification.
    pub specification: Digest,
}

/// What is remembered of one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotMemory {
    /// The version that was switched to: it runs, also after a reboot without a server.
    pub current: Option<Version>,
    /// How it goes.
    pub life: Life,
    /// The version whose instances are being created; it becomes current when all exist.
    pub next: Option<Next>,
    /// The newest version that was healthy.
    pub last_good: Option<Version>,
    /// Specifications that were not healthy, and why. They are not tried again by themselves.
    pub bad: BTreeMap<Digest, String>,
    /// The allocation whose orders to retry were counted last, and how many there were.
    pub retried: Option<(AllocId, u32)>,
    /// The update lock of what runs.
    pub lock: LockMemory,
    /// Stopping or removing failed: when to try again.
    pub cleanup: Option<Backoff>,
    /// Allocations that ended here and are still to be cleared, reported, or dropped by the server from the tombstones.
    pub leaving: BTreeMap<AllocId, Leaving>,
    /// What was last reported, by allocation.
    pub reported: BTreeMap<AllocId, Reported>,
    /// Runs by the clock; of a periodic job only.
    pub schedule: ScheduleMemory,
    /// The last decisions, oldest first: when, in milliseconds of the boot (0 under an earlier one), and what and why.
    pub decisions: Vec<(u64, String)>,
}

/// One version in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The allocation, as the manifest names it now.
    pub alloc: AllocId,
    /// The allocation that its instances are labelled with: differs from `alloc` when an unchanged version was taken over.
    pub born: AllocId,
    /// Version of the job.
    pub version: u64,
    /// Digest of its specification.
    pub specification: Digest,
    /// The node's ports, by label.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// Its images.
    #[serde(default)]
    pub images: BTreeSet<ImageId>,
}

/// A version on its way to become current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// It.
    pub version: Version,
    /// Creating failed: when to try again.
    #[serde(default)]
    pub backoff: Option<Backoff>,
    /// The version before is gone back to: no lock puts that off.
    #[serde(default)]
    pub reverts: bool,
}

/// The update lock of what runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockMemory {
    /// Since when a switch is possible and put off.
    pub since: Option<u64>,
    /// The operator overrode it for the next switch.
    pub overridden: bool,
}

/// Runs of a periodic job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleMemory {
    /// Number of the last run; runs count from 1.
    pub run: u64,
    /// Everything up to this time of day was run or left out.
    pub until: Option<Timestamp>,
    /// When the last run began.
    pub last_ms: Option<u64>,
}

/// When something that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Failures in a row.
    pub failures: u32,
    /// Not before this.
    pub until: u64,
    /// What failed.
    pub why: String,
}

impl Backoff {
    const FIRST_MS: u64 = 5_000;
    const LONGEST_MS: u64 = 300_000;

    /// The wait after one more failure: 5 s, doubled each time up to 5 min, and up to a quarter more so that nodes spread.
    pub(crate) fn after(previous: Option<&Self>, now: u64, seed: &[u8], why: String) -> Self {
        let failures = previous.map_or(0, |b| b.failures).saturating_add(1);
        let wait = Self::FIRST_MS.saturating_mul(1 << (failures - 1).min(6)).min(Self::LONGEST_MS);
        let jitter = stable(&[seed, &failures.to_le_bytes()]) % (wait / 4 + 1);
        Self { failures, until: now.saturating_add(wait).saturating_add(jitter), why }
    }
}

/// An allocation that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The allocation that its instances are labelled with.
    pub born: AllocId,
    /// Why it ended.
    pub reason: String,
    /// By an order of the operator: it never starts again.
    pub tombstone: bool,
    /// Was its end reported?
    pub reported: bool,
    /// Did it fail?
    #[serde(default)]
    pub failed: bool,
    /// May it have containers? Then it is not over before the engine says that there are none.
    #[serde(default)]
    pub containers: bool,
    /// Its poststop tasks are stopped at this time.
    #[serde(default)]
    pub poststop_until: Option<u64>,
    /// Its poststop tasks could not be started, or were left out.
    #[serde(default)]
    pub no_poststop: bool,
}

impl Leaving {
    pub(crate) fn new(born: AllocId, reason: &str) -> Self {
        let reason = reason.to_owned();
        Self { born, reason, tombstone: false, reported: false, failed: false, containers: true, poststop_until: None, no_poststop: false }
    }

    pub(crate) fn of(version: &Version, reason: &str) -> Self {
        Self { containers: !version.images.is_empty(), ..Self::new(version.born, reason) }
    }
}

/// What was last reported of an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Client status.
    pub status: AllocStatus,
    /// Why.
    pub reason: String,
    /// Restarts.
    pub restarts: u32,
    /// Health.
    #[serde(default)]
    pub healthy: Option<bool>,
}

impl Memory {
    /// Remembers what left its place after it had run to its end. A server that was put back to a backup may order it once more.
    pub(crate) fn note_over(&mut self, version: &Version) {
        for alloc in BTreeSet::from([version.born, version.alloc]) {
            let over = Over { alloc, specification: version.specification };
            self.over.retain(|known| *known != over);
            self.over.push(over);
        }
    }

    /// Forgets the oldest of them that are too many, but none that the manifest names: it would run.
    pub(crate) fn trim_over(&mut self, manifest: Option<&Manifest>) {
        let mut more = self.over.len().saturating_sub(OVER);
        let named = |o: &Over| manifest.is_some_and(|m| m.allocs.iter().any(|a| o.alloc == a.id && o.specification == a.specification));
        self.over.retain(|over| {
            let goes = more > 0 && !named(over);
            more -= usize::from(goes);
            !goes
        });
    }

    /// Did it run to its end before, and leave its place?
    pub(crate) fn is_over(&self, alloc: &ManifestAlloc) -> bool {
        self.over.iter().any(|o| o.alloc == alloc.id && o.specification == alloc.specification)
    }

    /// The ports of the node that are taken by places other than `slot`.
    pub(crate) fn ports_of_others(&self, slot: &Slot) -> BTreeSet<u16> {
        let others = self.slots.iter().filter(|(other, _)| *other != slot);
        others.flat_map(|(_, m)| m.ports_held()).collect()
    }
}

impl SlotMemory {
    /// Current and next.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.current.iter().chain(self.next.iter().map(|n| &n.version))
    }

    /// The ports that it has; what is complete needs none.
    pub(crate) fn ports_held(&self) -> impl Iterator<Item = u16> {
        self.ports_in_use().chain(self.next.iter().flat_map(|n| n.version.ports.values().copied()))
    }

    /// The ports of the version that was switched to; what is complete needs none.
    pub(crate) fn ports_in_use(&self) -> impl Iterator<Item = u16> {
        let complete = self.life.end.as_ref().is_some_and(|e| e.settled && !e.failed);
        self.current.iter().filter(move |_| !complete).flat_map(|v| v.ports.values().copied())
    }

    /// What was switched to, when it ran to its end and is not to run again. Its poststop tasks may be at work still.
    pub(crate) fn over(&self) -> Option<&Version> {
        self.current.as_ref().filter(|_| self.life.end.as_ref().is_some_and(|e| !e.failed))
    }

    /// Nothing left to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.next.is_none() && self.leaving.is_empty()
    }

    /// Keeps for people what goes on to be so: once, as long as it is among the last.
    pub(crate) fn note_state(&mut self, now: u64, text: String) {
        if !self.decisions.iter().any(|(_, t)| *t == text) {
            self.note(now, text);
        }
    }

    /// Keeps a decision for people; the same one in a row once.
    pub(crate) fn note(&mut self, now: u64, text: String) {
        if self.decisions.last().is_some_and(|(_, last)| *last == text) {
            return;
        }
        self.decisions.push((now, text));
        let over = self.decisions.len().saturating_sub(DECISIONS);
        self.decisions.drain(..over);
    }

    /// The specification is not to be tried again by itself.
    pub(crate) fn condemn(&mut self, specification: Digest, why: String) {
        self.bad.insert(specification, why);
        let good = self.last_good.as_ref().map(|v| v.specification);
        let spare = |d: &Digest| *d != specification && Some(*d) != good;
        while self.bad.len() > BAD
            && let Some(old) = self.bad.keys().copied().find(spare)
        {
            self.bad.remove(&old);
        }
    }

    /// The version to go back to from the current one.
    pub(crate) fn refuge(&self) -> Option<&Version> {
        let current = self.current.as_ref()?;
        let good = self.last_good.as_ref()?;
        let other = good.born != current.born && good.specification != current.specification;
        (other && !self.bad.contains_key(&good.specification)).then_some(good)
    }

    /// Is the current version to be left for the one before?
    pub(crate) fn reverts(&self) -> bool {
        self.current.as_ref().is_some_and(|c| self.bad.contains_key(&c.specification)) && self.refuge().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(born: u8, specification: u8) -> Version {
        let alloc = AllocId::new([born; 16]);
        let specification = Digest::new([specification; 32]);
        Version { alloc, born: alloc, version: 1, specification, ports: BTreeMap::new(), images: BTreeSet::new() }
    }

    #[test]
    fn what_is_gone_back_to_is_another_one_and_not_bad() {
        for (good, bad, refuge, reverts) in [
            (None, &[2][..], false, false),
            (Some(version(1, 1)), &[2], true, true),
            (Some(version(1, 1)), &[], true, false),
            (Some(version(1, 1)), &[1, 2], false, false),
            // It is the same, by its instances or by what is signed.
            (Some(version(2, 1)), &[2], false, false),
            (Some(version(1, 2)), &[2], false, false),
            (Some(version(1, 2)), &[], false, false),
        ] {
            let bad_ones = bad.iter().map(|n| (Digest::new([*n; 32]), String::new())).collect();
            let memory = SlotMemory { current: Some(version(2, 2)), last_good: good.clone(), bad: bad_ones, ..SlotMemory::default() };
            assert_eq!((memory.refuge(), memory.reverts()), (good.as_ref().filter(|_| refuge), reverts), "{good:?} {bad:?}");
        }
        assert!(!SlotMemory { last_good: Some(version(1, 1)), ..SlotMemory::default() }.reverts());
    }

    #[test]
    fn what_was_condemned_last_and_the_last_good_one_are_never_forgotten() {
        let digest = |n: u8| Digest::new([n; 32]);
        for order in [(0..20).collect::<Vec<u8>>(), (0..20).rev().collect()] {
            let mut memory = SlotMemory { last_good: Some(version(1, 3)), ..SlotMemory::default() };
            memory.condemn(digest(3), "it was good once".into());
            for n in order {
                memory.condemn(digest(n), String::new());
                assert!(memory.bad.contains_key(&digest(n)) && memory.bad.contains_key(&digest(3)) && memory.bad.len() <= BAD, "{n}");
            }
        }
    }

    #[test]
    fn what_fails_waits_longer_each_time_and_nodes_spread_over_a_quarter() {
        let mut before: Option<Backoff> = None;
        for (n, wait) in (1..).zip([5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]) {
            let after = |seed: u32| Backoff::after(before.as_ref(), 7, &seed.to_le_bytes(), "no".into());
            let waits: BTreeSet<u64> = (0..40_000).map(|seed| after(seed).until - 7).collect();
            let (least, most) = (*waits.first().expect("there are some"), *waits.last().expect("there are some"));
            assert!(least >= wait && least < wait + wait / 1_000, "failure {n}: {least}");
            assert!(most <= wait + wait / 4 && most > wait + wait / 4 - wait / 1_000, "failure {n}: {most}");
            // Of the shortest wait every millisecond is somebody's, the last one too.
            assert!(n > 1 || waits.len() == 1_251, "{}", waits.len());
            let next = after(1);
            assert_eq!((next.failures, next.why.as_str()), (n, "no"));
            before = Some(next);
        }
    }
}
