//! What is remembered of the current version's life.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Backoff;

/// How the current version goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// By task.
    pub tasks: BTreeMap<String, TaskMemory>,
    /// Since when it may start: the deadline of its health counts from here.
    pub since: Option<u64>,
    /// Since when nothing is amiss.
    pub up_since: Option<u64>,
    /// Was it healthy? None until it is judged.
    pub healthy: Option<bool>,
    /// It ended, or gave up.
    pub end: Option<End>,
    /// It is made anew.
    pub again: Again,
    /// When this run began.
    pub run_since: Option<u64>,
    /// Boots of the node before it was healthy.
    pub boots: u32,
    /// Checks that pass, as `service/check`.
    pub passing: BTreeSet<String>,
    /// Failures of checks that do not count, as `service/check`: those within the grace.
    pub pardoned: BTreeMap<String, u32>,
}

/// The end of an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Did it fail?
    pub failed: bool,
    /// Why, for people.
    pub why: String,
    /// All its tasks have stopped, poststop tasks included.
    pub settled: bool,
}

/// Making a failed allocation anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Again {
    /// Times within the interval.
    pub count: u32,
    /// When the interval that `count` counts in began.
    pub interval_start: Option<u64>,
    /// The last two waits, newer first.
    pub waits: (u64, u64),
    /// When it is made anew.
    pub at: Option<u64>,
    /// All tries are spent: it stays as it is until an order, or another version.
    pub spent: bool,
    /// Its instances are being removed and created again.
    pub remaking: bool,
}

/// What is remembered of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskMemory {
    /// When the interval that `attempts` counts in began.
    pub interval_start: Option<u64>,
    /// Restarts within the interval.
    pub attempts: u32,
    /// Intervals in a row whose attempts were spent.
    pub spent: u32,
    /// Restarts of this version in all.
    pub restarts: u32,
    /// It starts not before this.
    pub not_before: Option<u64>,
    /// The end that was counted last.
    pub exit: Option<String>,
    /// Why it was down last.
    pub why: String,
    /// Since when it runs.
    pub since: Option<u64>,
    /// It ran in this life of the allocation.
    pub reached: bool,
    /// It is done for this life of the allocation: with success, or not.
    pub ended: Option<bool>,
    /// It was told to stop.
    pub told: Option<Told>,
    /// What was written from its templates: a digest by path.
    pub files: BTreeMap<String, u64>,
    /// Digest of the environment that templates gave its instance.
    pub made_env: Option<u64>,
    /// A signal that may not have arrived.
    pub signal: Option<String>,
    /// Nobody knows whether its files were written.
    pub unsure: bool,
    /// Writing or signalling failed.
    pub write: Option<Backoff>,
}

/// Why a task of the current version was told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Why, for people.
    pub why: String,
    /// Does its end count as a fault?
    pub fault: bool,
}
