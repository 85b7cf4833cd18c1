//! Everything one node must run, by digest: signed by the director, ordered by its mark.

use serde::{Deserialize, Serialize};

use crate::{AllocId, Digest, NodeId, Timestamp};

/// The place of a manifest in the order of all manifests of a node. A node accepts only a mark strictly above its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Version of the root document in force when it was signed.
    pub root: u64,
    /// Generation of the server's memory; moves only under a newer root.
    pub epoch: u64,
    /// Counts up with every manifest of the node.
    pub counter: u64,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.root, self.epoch, self.counter)
    }
}

/// Everything one node must run. Travels as an envelope with purpose [`Manifest::PURPOSE`].
///
/// An allocation that is not listed is not thereby stopped: only a [`Tombstone`] stops one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The node it is for.
    pub node: NodeId,
    /// Its place in the order.
    pub mark: Mark,
    /// The director's clock when it was signed: a lower bound of time for the node.
    pub issued_at: Timestamp,
    /// What runs, sorted by (job, group, index).
    pub allocs: Vec<ManifestAlloc>,
    /// What stops, sorted by allocation id; kept until the node has reported it stopped.
    #[serde(default)]
    pub tombstones: Vec<Tombstone>,
}

impl Manifest {
    /// Purpose string of the envelope.
    pub const PURPOSE: &'static str = "skerry/manifest/1";
}

/// One allocation of a manifest. Of one (job, group, index) a manifest lists one allocation; a newer one takes its place on the
/// node once its images are there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestAlloc {
    /// Job id.
    pub job: String,
    /// Group name.
    pub group: String,
    /// Index among the group's `count`, from 0.
    pub index: u32,
    /// The allocation.
    pub id: AllocId,
    /// Version of the job, for people and for ordering.
    pub version: u64,
    /// Digest of the signed specification (the bytes of its envelope).
    pub specification: Digest,
}

/// An explicit order to stop and forget.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tombstone {
    /// The allocation to stop. Older allocations of the same (job, group, index) stop with it.
    pub id: AllocId,
    /// Job id.
    pub job: String,
    /// Group name.
    pub group: String,
    /// Index.
    pub index: u32,
    /// Why, for people: `job stopped by ada@example.org`.
    pub reason: String,
}
