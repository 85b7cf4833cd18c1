//! Everything one node must run, by digest: signed by the director, ordered by its mark.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AllocId, Digest, NodeId, Timestamp, limits};

/// The place of a manifest in the order of all manifests of a node. A node accepts only a mark strictly above its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Version of the root document in force when it was signed.
    pub root: u64,
    /// Generation of the server's memory; moves only under a newer root, and with each.
    pub epoch: u64,
    /// Counts up with every manifest of the node.
    pub counter: u64,
}

impl Mark {
    /// What a node holds that had a mark and lost all copies of it: above every mark under this root, so that no old manifest comes into
    /// force again, and below every one under a newer root.
    pub fn lost(root: u64) -> Self {
        Self { root, epoch: limits::COUNTER, counter: limits::COUNTER }
    }

    /// Does it stand for a mark that was lost? Then it says nothing of how far the node's manifests had come.
    pub fn is_lost(&self) -> bool {
        self.counter >= limits::COUNTER
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_lost() {
            return write!(f, "{}.lost", self.root);
        }
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
    /// Values that templates and `${meta.*}` see, beside the node's own.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    pub values: Values,
}

/// Values that the server gives a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// Variables by path: `nomad/jobs/till` holds `{ "rate": "3" }`. Only those that the node's jobs read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, BTreeMap<String, String>>,
    /// Node meta set on the server; it wins over the node's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

impl Values {
    /// Nothing is given.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty() && self.meta.is_empty()
    }
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
    /// Counts the operator's orders to try again what failed on the node: a higher number than before is one more try.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry: u32,
    /// The switch does not wait for the update lock of what runs: the operator overrides it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub override_lock: bool,
}

/// Serde asks by reference.
fn is_zero<N: Default + PartialEq>(n: &N) -> bool {
    *n == N::default()
}

/// Serde asks by reference.
fn is_false(b: &bool) -> bool {
    !*b
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
    /// Version of the allocation's job: what has a version as high or higher is not older, and goes on. A server put back to an old backup
    /// knows no more than it knew then. 0 is said by servers that do not know of this, and makes all others of the place older.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u64,
}

impl Tombstone {
    /// The order to stop an allocation of a manifest.
    pub fn of(alloc: &ManifestAlloc, reason: &str) -> Self {
        let ManifestAlloc { id, job, group, index, version, .. } = alloc.clone();
        Self { id, job, group, index, reason: reason.to_owned(), version }
    }

    /// Is a version of the same place older than what this stops?
    pub fn is_above(&self, version: u64) -> bool {
        self.version == 0 || version < self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    /// As agents and servers before it wrote and read it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        id: AllocId,
        job: String,
        group: String,
        index: u32,
        reason: String,
    }

    #[test]
    fn a_lost_mark_is_above_its_root_and_below_the_next() {
        let lost = Mark::lost(3);
        assert!(lost.is_lost() && lost > Mark { root: 3, epoch: 3, counter: limits::COUNTER - 1 });
        assert!(lost < Mark { root: 4, epoch: 0, counter: 0 });
        assert_eq!((lost.to_string(), Mark { root: 3, epoch: 2, counter: 1 }.to_string()), ("3.lost".into(), "3.2.1".into()));
    }

    #[test]
    fn an_order_to_stop_without_a_version_is_read_and_one_with_it_by_those_before() {
        let alloc = ManifestAlloc {
            job: "till".into(),
            group: "web".into(),
            index: 2,
            id: AllocId::new([3; 16]),
            version: 7,
            specification: Digest::new([9; 32]),
            retry: 0,
            override_lock: false,
        };
        let new = Tombstone::of(&alloc, "stopped");
        let before = Before { id: alloc.id, job: "till".into(), group: "web".into(), index: 2, reason: "stopped".into() };
        assert_eq!(cbor::decode::<Before>(&cbor::encode(&new), 999).unwrap(), before);
        assert_eq!(cbor::decode::<Tombstone>(&cbor::encode(&new), 999).unwrap(), new);
        let old: Tombstone = cbor::decode(&cbor::encode(&before), 999).unwrap();
        assert_eq!(old, Tombstone { version: 0, ..new.clone() });
        assert_eq!(cbor::encode(&old), cbor::encode(&before), "a version that is not known costs no byte");
        for (of, above) in [(6, true), (7, false), (8, false)] {
            assert_eq!((new.is_above(of), old.is_above(of)), (above, true), "{of}");
        }
    }
}
