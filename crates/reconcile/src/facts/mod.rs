//! What goes in: what is wanted, what is there, and the time since boot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use skerry_wire::manifest::{Manifest, ManifestAlloc, Tombstone};
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, BootId, Digest, ImageId, Millis, NodeId, Timestamp};

use crate::decision::Step;
use crate::make::Labels;

mod policy;

pub use policy::{Policy, Refusal};
pub(crate) use policy::{climbs, names_a_folder};

/// A place that an allocation takes on a node. At any time at most one version runs in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Job id.
    pub job: String,
    /// Group name.
    pub group: String,
    /// Index.
    pub index: u32,
}

impl Slot {
    /// The place of one run of a periodic job: `job/periodic-3`.
    pub(crate) fn of_run(&self, run: u64) -> Self {
        Self { job: format!("{}/periodic-{run}", self.job), ..self.clone() }
    }

    /// Number of the run, when it is the place of one.
    pub fn run(&self) -> Option<u64> {
        self.job.split_once("/periodic-")?.1.parse().ok()
    }

    /// Id of the job, of which a run is a part. No job's id contains `/`.
    pub fn job_id(&self) -> &str {
        self.job.split_once('/').map_or(&self.job, |(id, _)| id)
    }

    /// The place of the periodic job that this is a run of.
    pub(crate) fn parent(&self) -> Option<Self> {
        self.run()?;
        Some(Self { job: self.job_id().to_owned(), ..self.clone() })
    }
}

impl fmt::Display for Slot {
    /// As Nomad names an allocation: `job.group[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}[{}]", self.job, self.group, self.index)
    }
}

impl From<&ManifestAlloc> for Slot {
    fn from(alloc: &ManifestAlloc) -> Self {
        Self { job: alloc.job.clone(), group: alloc.group.clone(), index: alloc.index }
    }
}

impl From<&Tombstone> for Slot {
    fn from(tombstone: &Tombstone) -> Self {
        Self { job: tombstone.job.clone(), group: tombstone.group.clone(), index: tombstone.index }
    }
}

/// Time since the kernel started, the only time that decisions use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The boot that `ms` counts from; times of another boot mean nothing.
    pub boot: BootId,
    /// Milliseconds, suspend included (`CLOCK_BOOTTIME`).
    pub ms: u64,
    /// The time of day, when the node has reason to trust it: a fresh signed answer of the server in this boot, or a synchronised
    /// system clock. Only what is timed by its nature looks at it.
    pub wall: Option<Timestamp>,
}

/// What is wanted: everything here was signed by keys that the node trusts.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// The newest manifest; none before the first, or when all marks were lost.
    pub manifest: Option<&'a Manifest>,
    /// The specifications that the node holds, by digest of their envelope.
    pub specifications: &'a BTreeMap<Digest, Specification>,
}

/// What is there.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// Facts of the node that go into environments and paths.
    pub node: &'a Node,
    /// What the node's owner allows.
    pub policy: &'a Policy,
    /// Images in the engine that are checked and on disk.
    pub images: BTreeSet<ImageId>,
    /// Containers and processes of this node's agent, whatever their state.
    pub instances: Vec<Instance>,
    /// Actions that failed since the last call.
    pub failures: Vec<Failure>,
    /// The engine has not answered since the agent started: which containers there are is not known, and none being named here says nothing.
    pub blind: bool,
    /// The engine was away since the last call: containers ended with it, not by themselves.
    pub interrupted: bool,
    /// Names of the instances that a stop is under way for.
    pub stopping: BTreeSet<String>,
    /// What the checks of [`crate::Decision::checks`] found.
    pub checks: BTreeMap<CheckId, CheckState>,
    /// Allocations, as their instances are labelled, whose update lock (`update.lock` in the shared folder) is held.
    pub locked: BTreeSet<AllocId>,
    /// The apply window is closed, until this time of the boot if that is known: what runs is not switched to another version.
    pub apply_closed: Option<Closed>,
    /// How long no answer came from the server, over restarts and reboots; none before the first enrolment.
    pub silent: Option<Millis>,
    /// Orders of an operator on the node, not yet carried out; told again until they are in [`crate::Memory::orders`].
    pub orders: Vec<Order>,
    /// Bytes free in the folder of the allocations.
    pub disk_free: u64,
    /// Paths of the devices, among those that the held specifications name, that are there.
    pub devices: BTreeSet<String>,
}

/// A window that is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Until then, in milliseconds of the boot; none while the time of day is not known.
    pub until: Option<u64>,
}

/// One check of one task or group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckId {
    /// The allocation, as its instances are labelled.
    pub alloc: AllocId,
    /// The service.
    pub service: String,
    /// The check.
    pub check: String,
}

/// What a check found, since it was first asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckState {
    /// Runs in a row that passed; 0 when the last one failed.
    pub passed: u32,
    /// Runs in a row that failed; 0 when the last one passed.
    pub failed: u32,
    /// When the last run ended, in milliseconds of the boot.
    pub at: u64,
    /// The last run's first words, for people: `HTTP 503`, `connection refused`.
    pub output: String,
}

/// An order of an operator on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Tells it from every other one.
    pub id: u64,
    /// The allocation that it is for.
    pub alloc: AllocId,
    /// What is wanted.
    pub kind: OrderKind,
}

/// What an [`Order`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// Try again what failed.
    Retry,
    /// Switch in spite of the update lock.
    OverrideLock,
}

/// Facts of the node that go into environments and paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node.
    pub id: NodeId,
    /// Name for people.
    pub name: String,
    /// Site.
    pub datacenter: String,
    /// Node pool, as given at enrolment; empty when not known.
    pub pool: String,
    /// Address that the node is reached by on its own network.
    pub address: String,
    /// `${attr.*}`
    pub attributes: BTreeMap<String, String>,
    /// `${meta.*}`
    pub meta: BTreeMap<String, String>,
    /// Absolute path of the folder that holds one folder per allocation.
    pub alloc_folder: String,
    /// Memory of the node in MiB.
    pub memory_mib: u64,
}

/// A container or process as engine or kernel see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name, as [`crate::instance_name`] made it.
    pub name: String,
    /// What its labels say.
    pub labels: Labels,
    /// The image it was made from, when the engine says it.
    pub image: Option<ImageId>,
    /// Its state.
    pub state: State,
}

/// State of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Never started.
    Created,
    /// Its process runs (or is paused).
    Running,
    /// Its process ended.
    Exited {
        /// Exit code, 128 + signal when killed; none when the agent was not there to see it (a process that outlived its agent).
        code: Option<i64>,
        /// Killed for want of memory?
        out_of_memory: bool,
        /// Tells this end from every other one of the same container; only compared for equality.
        mark: String,
    },
}

/// An action that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The place it was for.
    pub slot: Slot,
    /// The allocation that the container is labelled with.
    pub alloc: AllocId,
    /// The task.
    pub task: String,
    /// What was tried.
    pub step: Step,
    /// What the engine said.
    pub error: String,
}
