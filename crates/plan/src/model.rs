//! What the planner looks at: nodes, jobs, allocations and images as the store knows them.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::job::Job;
use skerry_wire::node::Fingerprint;
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, DiffId, ImageId, NodeId, Timestamp};

/// An enrolled node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its node pool, given by the token that it enrolled with.
    pub pool: String,
    /// What it last said of itself.
    pub fingerprint: Fingerprint,
    /// The images that its engine holds.
    pub inventory: BTreeSet<ImageId>,
    /// May it get new allocations? What it has it keeps.
    pub eligible: bool,
    /// Work is taken off it.
    pub drain: Option<Drain>,
}

/// An operator's order to take the work off a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When what has not moved is stopped all the same; none: never.
    pub deadline: Option<Timestamp>,
    /// Do system and sysbatch jobs go on?
    pub ignore_system: bool,
}

/// A job at its current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobVersion {
    /// Counts up with every submit that changes the job.
    pub version: u64,
    /// The job, images resolved.
    pub job: Job,
    /// Why it must not run any more, when an operator stopped it: `job stopped by ada@example.org`.
    pub stopped: Option<String>,
}

/// An allocation that has been placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alloc {
    /// Its id, see [`crate::alloc_id`].
    pub id: AllocId,
    /// Job id.
    pub job: String,
    /// Version of the job.
    pub version: u64,
    /// Group.
    pub group: String,
    /// Index among the group's `count`.
    pub index: u32,
    /// The node.
    pub node: NodeId,
    /// What the server wants of it.
    pub order: Order,
    /// Has the node said that it is over (complete or failed for good)?
    pub ended: bool,
    /// What the group reserves on its node.
    pub claim: Claim,
    /// Is its job done when its tasks have ended?
    pub to_end: bool,
    /// What its node last said of it.
    pub state: State,
    /// The server has not heard of its node for longer than the group's `lost_after`.
    pub lost: bool,
    /// When it was placed: of several for one index the oldest is the original.
    pub placed_at: Timestamp,
    /// It took the place of an allocation that runs until this one does.
    pub covers: bool,
    /// Counts the operator's orders to try again; goes on when a newer version takes the place.
    pub retry: u32,
    /// The operator overrides the update lock of what runs in its place.
    pub override_lock: bool,
}

/// What a node last said of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Client status.
    pub status: AllocStatus,
    /// The node's judgement, once there is one.
    pub healthy: Option<bool>,
    /// Has the node said anything?
    pub heard: bool,
    /// Since when it runs without a restart, on the server's clock; none while it does not run.
    pub running_since: Option<Timestamp>,
}

impl State {
    /// Of an allocation that its node has not heard of.
    pub const NEW: Self = Self { status: AllocStatus::Pending, healthy: None, heard: false, running_since: None };
}

impl Alloc {
    /// Did it run to its end? It takes no room, and is not placed again.
    pub fn complete(&self) -> bool {
        self.to_end && self.state.status == AllocStatus::Complete
    }

    /// Does anything run in its place, as far as the server knows: it, or what it is to take over from?
    pub fn runs(&self) -> bool {
        self.state.status == AllocStatus::Running || (self.covers && self.state.status != AllocStatus::Complete)
    }
}

/// What the server wants of an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// It runs.
    Run,
    /// A newer allocation of the same (job, group, index) on the same node takes its place; no order to stop goes out for it.
    Replaced,
    /// It stops at once; the reason is for people.
    Stop(String),
}

/// What a group reserves on a node, whatever version of its job it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Memory in MiB.
    pub memory: u64,
    /// Ports of the node.
    pub ports: BTreeSet<u16>,
}

/// What the planner knows of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// `name:tag` of its newest release.
    pub reference: String,
    /// Architecture as Docker names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Its layers, lowest first, each with its bytes uncompressed.
    pub layers: Vec<(DiffId, u64)>,
}

impl Image {
    /// Bytes of the uncompressed layers together.
    pub fn size(&self) -> u64 {
        self.layers.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size))
    }

    /// `name` of `name:tag`.
    pub fn name(&self) -> &str {
        self.reference.rsplit_once(':').map_or(self.reference.as_str(), |(name, _)| name)
    }
}

/// Everything that one planning looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The enrolled nodes.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The jobs, each at its current version, stopped ones too while they have allocations.
    pub jobs: BTreeMap<String, JobVersion>,
    /// The allocations that the node has not forgotten yet, by id.
    pub allocs: BTreeMap<AllocId, Alloc>,
    /// The images that the server knows.
    pub images: BTreeMap<ImageId, Image>,
    /// The server's clock.
    pub now: Timestamp,
}
