//! What the planner looks at: nodes, jobs, allocations and images as the store knows them.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::job::Job;
use skerry_wire::node::Fingerprint;
use skerry_wire::{AllocId, DiffId, ImageId, NodeId};

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
}
