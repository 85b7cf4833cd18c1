//! What comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use skerry_wire::job::{Group, Job, OnDeltaFailure};
use skerry_wire::poll::{AllocStatus, Event};
use skerry_wire::{AllocId, Digest, ImageId, Millis};

use crate::facts::CheckId;
use crate::facts::Slot;
use crate::make::{File, InstancePlan};
use crate::memory::Memory;

/// What to do, what to remember, when to look again, what to tell.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// To be done in this order, after `memory` is on disk. When one fails, the rest of the same slot is left for the next decision.
    pub actions: Vec<Action>,
    /// To be kept before anything is done.
    pub memory: Memory,
    /// Look again at this time of the boot, in milliseconds, if nothing else happens before.
    pub wake_at: Option<u64>,
    /// To be reported, in this order; kept in the same transaction as `memory`.
    pub events: Vec<Event>,
    /// Images to be fetched, most urgent first.
    pub needed: Vec<NeededImage>,
    /// Images that must stay in the engine.
    pub pins: BTreeSet<ImageId>,
    /// Specifications that must stay in the ledger.
    pub specifications: BTreeSet<Digest>,
    /// Allocations whose folders must stay, as their containers are labelled.
    pub folders: BTreeSet<AllocId>,
    /// Checks to be run from now on; those not named here stop, and what they found is forgotten.
    pub checks: Vec<CheckPlan>,
    /// Every allocation with its status and why, for people; sorted by slot.
    pub allocs: Vec<AllocView>,
}

/// An image that the engine lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeededImage {
    /// The image.
    pub image: ImageId,
    /// As the jobspec writes it, for people.
    pub reference: String,
    /// Highest priority among the jobs that need it.
    pub priority: u8,
    /// A job that needs it, for people.
    pub job: String,
    /// What follows a failed patch: the most careful of what the groups that need it say; none when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delta_failure: Option<OnDeltaFailure>,
}

impl NeededImage {
    /// The image that a job writes as `reference`.
    pub(crate) fn of(image: ImageId, reference: &str, job: &Job, group: &Group) -> Self {
        let on_delta_failure = group.update.on_delta_failure;
        Self { image, reference: reference.to_owned(), priority: job.priority, job: job.id.clone(), on_delta_failure }
    }
}

/// A check to be run at its interval, the first time one interval after it was first asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPlan {
    /// Which one.
    pub id: CheckId,
    /// What is done.
    pub kind: CheckRun,
    /// From the start of one run to the start of the next.
    pub interval: Millis,
    /// The longest that one run may take; then it failed.
    pub timeout: Millis,
    /// Runs in a row after which it counts as passing: more of them change nothing.
    pub passes: u32,
}

/// What a run of a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckRun {
    /// A request; a status from 200 to 299 passes.
    Http {
        /// `address:port`.
        address: String,
        /// `GET`, `HEAD`, `POST`, `PUT`.
        method: String,
        /// Path with query.
        path: String,
        /// Headers beside `Host`.
        headers: BTreeMap<String, String>,
        /// Body.
        body: String,
    },
    /// A connection; that it opens passes.
    Tcp {
        /// `address:port`.
        address: String,
    },
    /// A program in an instance; exit code 0 passes.
    Script {
        /// Name of the instance.
        instance: String,
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// One step on one instance. Each may be repeated: what is done already is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The place.
    pub slot: Slot,
    /// The allocation that the container is labelled with.
    pub alloc: AllocId,
    /// The task.
    pub task: String,
    /// Name of the instance.
    pub instance: String,
    /// What to do.
    pub kind: ActionKind,
    /// Why, for people.
    pub reason: String,
}

/// What an [`Action`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionKind {
    /// Make the instance and its files, do not start it.
    Create(Box<InstancePlan>),
    /// Start it.
    Start,
    /// Ask it to end, and kill it after the span. Takes as long as that; until then its name is in [`crate::Observed::stopping`].
    Stop {
        /// Wait before the signal.
        delay: Millis,
        /// From the signal to the kill.
        timeout: Millis,
    },
    /// Write files that became other ones, whether it runs or not.
    Write(Vec<File>),
    /// Send a signal: `SIGHUP`.
    Signal(String),
    /// Remove it; it does not run.
    Remove,
}

impl Action {
    /// The step that this action is.
    pub fn step(&self) -> Step {
        match self.kind {
            ActionKind::Create(_) => Step::Create,
            ActionKind::Start => Step::Start,
            ActionKind::Stop { .. } => Step::Stop,
            ActionKind::Write(_) => Step::Write,
            ActionKind::Signal(_) => Step::Signal,
            ActionKind::Remove => Step::Remove,
        }
    }
}

/// Names of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Make the container.
    Create,
    /// Start it.
    Start,
    /// End it.
    Stop,
    /// Write its files.
    Write,
    /// Send it a signal.
    Signal,
    /// Remove it.
    Remove,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Write => "write",
            Self::Signal => "signal",
            Self::Remove => "remove",
        })
    }
}

/// One allocation, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocView {
    /// The allocation.
    pub id: AllocId,
    /// Job id.
    pub job: String,
    /// Group.
    pub group: String,
    /// Index.
    pub index: u32,
    /// Version of the job; none when only its end is known.
    pub version: Option<u64>,
    /// Is it what the place was switched to?
    pub current: bool,
    /// Client status.
    pub status: AllocStatus,
    /// Why.
    pub reason: String,
    /// Restarts of its tasks so far.
    pub restarts: u32,
    /// The node's ports, by label.
    pub ports: BTreeMap<String, u16>,
    /// The node's judgement of its health, once there is one.
    #[serde(default)]
    pub healthy: Option<bool>,
    /// What it waits for ends by itself at this time of the boot, in milliseconds.
    #[serde(default)]
    pub until: Option<u64>,
    /// The last decisions about its place, oldest first: when, in milliseconds of the boot, and what and why.
    #[serde(default)]
    pub decisions: Vec<(u64, String)>,
}
