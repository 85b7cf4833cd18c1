//! Ledgers, signed manifests and specifications for tests.

use std::collections::BTreeMap;
use std::path::Path;

use skerry_trust::{PublicKey, Role, RoleKeys, Root, SigningKey, TrustedRoot, envelope, sign_root};
use skerry_wire::job::{DockerConfig, Driver, Group, Job, JobType, Task};
use skerry_wire::manifest::{Manifest, ManifestAlloc, Mark};
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, Digest, ImageId, NodeId, Timestamp};

use super::{Ledger, sha256};

/// The keys of a small fleet.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) director: SigningKey,
    pub(crate) release: SigningKey,
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap()
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { director: key(), release: key() }
    }

    pub(crate) fn root_file(&self) -> Vec<u8> {
        let only = |key: PublicKey| RoleKeys { keys: vec![key], threshold: 1 };
        let root = key();
        let roles = BTreeMap::from([
            (Role::Root, only(root.public())),
            (Role::Release, only(self.release.public())),
            (Role::Director, only(self.director.public())),
        ]);
        sign_root(&Root { version: 1, roles, time_cap: Timestamp(i64::MAX) }, &[&root])
    }

    pub(crate) fn root(&self) -> TrustedRoot {
        TrustedRoot::first(&self.root_file()).unwrap()
    }

    /// A job of this name with one group `g` of one task.
    pub(crate) fn specification(&self, name: &str, image_id: Option<ImageId>) -> (Digest, Vec<u8>, Specification) {
        let config = DockerConfig { image: "till:1".to_owned(), image_id, ..DockerConfig::default() };
        let job = Job::new(name, JobType::Service, vec![Group::new("g", vec![Task::new("t", Driver::Docker(config))])]);
        let content = Specification { job, signed_at: Timestamp(5) };
        let bytes = envelope::seal(&self.release, Specification::PURPOSE, &content);
        (sha256(&bytes), bytes, content)
    }
}

/// The ledger in this folder.
pub(crate) fn open(folder: &Path) -> Ledger {
    Ledger::open(folder, Timestamp(1000)).unwrap()
}

/// Waits until the thread has closed the file: the next open must not meet the old connection.
pub(crate) async fn close(ledger: Ledger, folder: &Path) {
    let Ledger { queue, .. } = ledger;
    drop(queue);
    while folder.join("ledger.sqlite-wal").exists() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn node() -> NodeId {
    NodeId::new([1; 16])
}

pub(crate) fn mark(counter: u64) -> Mark {
    Mark { root: 1, epoch: 1, counter }
}

/// A manifest with one allocation of group `g` per job.
pub(crate) fn manifest(counter: u64, jobs: &[(&str, Digest)]) -> Manifest {
    let allocs = jobs
        .iter()
        .zip(1u8..)
        .map(|((job, specification), n)| ManifestAlloc {
            job: (*job).to_owned(),
            group: "g".to_owned(),
            index: 0,
            id: AllocId::new([n; 16]),
            version: counter,
            specification: *specification,
            retry: 0,
            override_lock: false,
        })
        .collect();
    Manifest { node: node(), mark: mark(counter), issued_at: Timestamp(2000), allocs, tombstones: vec![], values: Default::default() }
}
