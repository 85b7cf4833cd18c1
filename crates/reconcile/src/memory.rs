//! What was decided before. The caller keeps it on disk, encoded as it likes, before it acts on the decision that it came with.
//!
//! All times are milliseconds of the boot named in [`Memory::boot`]; under another boot they are dropped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, BootId, Digest, ImageId};

use crate::facts::Slot;
use crate::hash::stable;

/// All that the reconciler remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The boot that times count from.
    pub boot: Option<BootId>,
    /// By place.
    pub slots: BTreeMap<Slot, SlotMemory>,
}

/// What is remembered of one place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMemory {
    /// The version that was switched to: it runs, also after a reboot without a server.
    #[serde(default)]
    pub current: Option<Version>,
    /// The version whose containers are being created; it becomes current when all exist.
    #[serde(default)]
    pub next: Option<Next>,
    /// The newest version that ran long enough without an end of any task.
    #[serde(default)]
    pub last_good: Option<Version>,
    /// Restarts of the current version, by task.
    #[serde(default)]
    pub tasks: BTreeMap<String, TaskMemory>,
    /// Why the current version gave up; it is tried again after a reboot, or when the engine was away.
    #[serde(default)]
    pub failed: Option<String>,
    /// Since when all tasks run.
    #[serde(default)]
    pub up_since: Option<u64>,
    /// Stopping or removing failed: when to try again.
    #[serde(default)]
    pub cleanup: Option<Backoff>,
    /// Allocations that ended here and are still to be cleared, reported, or dropped by the server from the tombstones.
    #[serde(default)]
    pub leaving: BTreeMap<AllocId, Leaving>,
    /// What was last reported, by allocation.
    #[serde(default)]
    pub reported: BTreeMap<AllocId, Reported>,
}

/// One version in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The allocation, as the manifest names it now.
    pub alloc: AllocId,
    /// The allocation that its containers are labelled with: differs from `alloc` when an unchanged version was taken over.
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

/// Restarts of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMemory {
    /// When the interval that `attempts` counts in began.
    #[serde(default)]
    pub interval_start: Option<u64>,
    /// Restarts within the interval.
    #[serde(default)]
    pub attempts: u32,
    /// Restarts of this version in all.
    #[serde(default)]
    pub restarts: u32,
    /// It starts not before this.
    #[serde(default)]
    pub not_before: Option<u64>,
    /// The end that was counted last.
    #[serde(default)]
    pub exit: Option<String>,
    /// Why it was down last.
    #[serde(default)]
    pub why: String,
}

/// An allocation that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The allocation that its containers are labelled with.
    pub born: AllocId,
    /// Why it ended.
    pub reason: String,
    /// By an order of the operator: it never starts again.
    pub tombstone: bool,
    /// Was its end reported?
    pub reported: bool,
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
}

impl Memory {
    /// Drops what was measured under another boot. True when there was another, or none: what ended did so with the node.
    pub(crate) fn enter_boot(&mut self, boot: BootId) -> bool {
        if self.boot == Some(boot) {
            return false;
        }
        self.boot = Some(boot);
        for slot in self.slots.values_mut() {
            slot.failed = None;
            slot.up_since = None;
            slot.cleanup = None;
            if let Some(next) = &mut slot.next {
                next.backoff = None;
            }
            for task in slot.tasks.values_mut() {
                task.interval_start = None;
                task.attempts = 0;
                task.not_before = None;
            }
        }
        true
    }

    /// The ports of the node that are taken by places other than `slot`.
    pub(crate) fn ports_of_others(&self, slot: &Slot) -> BTreeSet<u16> {
        self.slots
            .iter()
            .filter(|(other, _)| *other != slot)
            .flat_map(|(_, m)| m.versions().flat_map(|v| v.ports.values().copied()))
            .collect()
    }
}

impl SlotMemory {
    /// Current and next.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.current.iter().chain(self.next.iter().map(|n| &n.version))
    }

    /// Nothing left to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.next.is_none() && self.leaving.is_empty()
    }
}
