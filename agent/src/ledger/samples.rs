//! Signed manifests and specifications for tests.

use std::collections::BTreeMap;

use skerry_trust::{PublicKey, Role, RoleKeys, Root, SigningKey, TrustedRoot, envelope, sign_root};
use skerry_wire::job::{DockerConfig, Driver, Group, Job, JobType, Network, Resources, RestartPolicy, Task};
use skerry_wire::manifest::{Manifest, ManifestAlloc, Mark};
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, Digest, ImageId, Millis, NodeId, Timestamp};

use super::sha256;

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
        let config = DockerConfig { image: "till:1".to_owned(), image_id, command: None, args: vec![], ports: vec![], volumes: vec![] };
        let task = Task {
            name: "t".to_owned(),
            driver: Driver::Docker(config),
            env: BTreeMap::new(),
            meta: BTreeMap::new(),
            constraints: vec![],
            resources: Resources { cpu: 100, memory: 64, memory_max: None },
            kill_timeout: Millis::from_secs(5),
        };
        let group = Group {
            name: "g".to_owned(),
            count: 1,
            constraints: vec![],
            network: Network::default(),
            restart: RestartPolicy::EDGE,
            meta: BTreeMap::new(),
            tasks: vec![task],
        };
        let job = Job {
            id: name.to_owned(),
            name: name.to_owned(),
            kind: JobType::Service,
            priority: 50,
            node_pool: "default".to_owned(),
            datacenters: vec!["*".to_owned()],
            constraints: vec![],
            meta: BTreeMap::new(),
            groups: vec![group],
        };
        let content = Specification { job, signed_at: Timestamp(5) };
        let bytes = envelope::seal(&self.release, Specification::PURPOSE, &content);
        (sha256(&bytes), bytes, content)
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
        })
        .collect();
    Manifest { node: node(), mark: mark(counter), issued_at: Timestamp(2000), allocs, tombstones: vec![] }
}
