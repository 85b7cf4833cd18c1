//! A model of one node: an engine that does what it is told or fails, a disk that keeps what was persisted, and a server that changes
//! its mind.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skerry_reconcile::{
    Action, ActionKind, Decision, Desired, Failure, Instance, Memory, Node, Now, Observed, Policy, Slot, State, reconcile,
};
use skerry_wire::job::{DockerConfig, Driver, Group, Job, JobType, Network, Port, Resources, RestartMode, RestartPolicy, Task};
use skerry_wire::manifest::{Manifest, ManifestAlloc, Mark, Tombstone};
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, BootId, Digest, ImageId, Millis, NodeId, Timestamp};

pub(crate) const JOBS: u8 = 3;
pub(crate) const IMAGES: u8 = 4;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A new version of a job, made of this image.
    Submit {
        job: u8,
        image: u8,
    },
    /// The same version again under new allocations.
    Resubmit {
        job: u8,
    },
    /// Stopped by order.
    Stop {
        job: u8,
    },
    /// Gone from the manifest without an order.
    Forget {
        job: u8,
    },
    /// The server drops tombstones that were answered.
    DropTombstones,
    ImageArrives(u8),
    ImageVanishes(u8),
    Crash(u8),
    RemoveContainer(u8),
    /// One round: `done` actions are performed, one of them may fail, then the power goes unless `cut` is false.
    Round {
        done: u8,
        fail: Option<u8>,
        cut: bool,
    },
    /// The decision was made and never persisted.
    LostRound,
    Advance(u32),
    Reboot,
    EngineRestart,
    LoseMemory,
    LoseManifest,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let round = (0..6_u8, proptest::option::weighted(0.2, 0..6_u8), proptest::bool::weighted(0.2));
    prop_oneof![
        4 => (0..JOBS, 0..IMAGES).prop_map(|(job, image)| Op::Submit { job, image }),
        1 => (0..JOBS).prop_map(|job| Op::Resubmit { job }),
        1 => (0..JOBS).prop_map(|job| Op::Stop { job }),
        1 => (0..JOBS).prop_map(|job| Op::Forget { job }),
        1 => Just(Op::DropTombstones),
        4 => (0..IMAGES).prop_map(Op::ImageArrives),
        1 => (0..IMAGES).prop_map(Op::ImageVanishes),
        2 => any::<u8>().prop_map(Op::Crash),
        1 => any::<u8>().prop_map(Op::RemoveContainer),
        14 => round.prop_map(|(done, fail, cut)| Op::Round { done, fail, cut }),
        1 => Just(Op::LostRound),
        3 => (0..120_000_u32).prop_map(Op::Advance),
        1 => Just(Op::Reboot),
        1 => Just(Op::EngineRestart),
        1 => Just(Op::LoseMemory),
        1 => Just(Op::LoseManifest),
    ]
}

pub(crate) struct World {
    pub(crate) manifest: Option<Manifest>,
    specifications: BTreeMap<Digest, Specification>,
    pub(crate) images: BTreeSet<ImageId>,
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) memory: Memory,
    failures: Vec<Failure>,
    interrupted: bool,
    pub(crate) boot: u8,
    pub(crate) ms: u64,
    counter: u64,
    ends: u64,
    node: Node,
    policy: Policy,
}

pub(crate) fn image(n: u8) -> ImageId {
    ImageId(Digest::new([n; 32]))
}

fn job_name(n: u8) -> String {
    format!("job{n}")
}

/// Job 0 has two groups, of two tasks and of one; job 1 never gives up; job 2 does.
fn job(n: u8, image_number: u8) -> Job {
    let task = |name: &str, image_number: u8| {
        let config = DockerConfig {
            image: format!("image:{image_number}"),
            image_id: Some(image(image_number)),
            ports: vec!["http".to_owned()],
            ..DockerConfig::default()
        };
        Task::new(name, Driver::Docker(config))
    };
    let mode = if n == 2 { RestartMode::Fail } else { RestartMode::Delay };
    let group = |name: &str, tasks| Group {
        network: Network { ports: vec![Port { label: "http".into(), fixed: None, to: Some(80) }], ..Network::default() },
        restart: RestartPolicy { attempts: 2, interval: Millis(60_000), delay: Millis(1_000), mode },
        ..Group::new(name, tasks)
    };
    let mut groups = vec![group("a", vec![task("main", image_number)])];
    if n == 0 {
        groups[0].tasks.push(task("side", (image_number + 1) % IMAGES));
        // This one is the same whatever the version: it must not restart with it.
        groups.push(group("b", vec![task("main", 0)]));
    }
    Job {
        id: job_name(n),
        name: job_name(n),
        kind: JobType::Service,
        priority: 50 + n,
        node_pool: "default".into(),
        datacenters: vec!["*".into()],
        constraints: vec![],
        meta: BTreeMap::new(),
        groups,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let node = Node {
            id: NodeId::new([9; 16]),
            name: "n".into(),
            datacenter: "dc1".into(),
            pool: String::new(),
            address: "10.0.0.1".into(),
            attributes: BTreeMap::new(),
            meta: BTreeMap::new(),
            alloc_folder: "/alloc".into(),
        };
        Self {
            manifest: None,
            specifications: BTreeMap::new(),
            images: BTreeSet::new(),
            containers: BTreeMap::new(),
            memory: Memory::default(),
            failures: vec![],
            interrupted: false,
            boot: 1,
            ms: 1_000,
            counter: 0,
            ends: 0,
            node,
            policy: Policy::default(),
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Submit { job: n, image } => {
                let digest = self.fresh_digest();
                let content = Specification { job: job(*n, *image), signed_at: Timestamp(0) };
                self.specifications.insert(digest, content);
                self.place(*n, digest);
            }
            Op::Resubmit { job } => {
                let name = job_name(*job);
                let old = self.manifest.as_ref().and_then(|m| m.allocs.iter().find(|a| a.job == name)).map(|a| a.specification);
                if let Some(digest) = old {
                    self.place(*job, digest);
                }
            }
            Op::Stop { job } => self.drop_job(*job, true),
            Op::Forget { job } => self.drop_job(*job, false),
            Op::DropTombstones => {
                if let Some(m) = &mut self.manifest {
                    let told = |t: &Tombstone| self.memory.slots.values().any(|s| s.leaving.get(&t.id).is_some_and(|l| l.reported));
                    m.tombstones.retain(|t| !told(t));
                }
            }
            Op::ImageArrives(n) => drop(self.images.insert(image(*n))),
            Op::ImageVanishes(n) => {
                // An engine does not remove an image that a container uses.
                if !self.instances.values().any(|c| c.image == Some(image(*n))) {
                    self.images.remove(&image(*n));
                }
            }
            Op::Crash(n) => {
                let running: Vec<String> = self.names(|c| c.state == State::Running);
                if let Some(name) = running.get(usize::from(*n) % running.len().max(1)).cloned() {
                    self.end(&name, 1);
                }
            }
            Op::RemoveContainer(n) => {
                let all: Vec<String> = self.names(|_| true);
                if let Some(name) = all.get(usize::from(*n) % all.len().max(1)) {
                    self.instances.remove(name);
                }
            }
            Op::Round { done, fail, cut } => {
                let decision = self.decide();
                self.persist(&decision);
                let limit = if *cut { usize::from(*done) } else { usize::MAX };
                self.perform(&decision.actions, limit, fail.map(usize::from));
                if *cut {
                    self.failures.clear();
                }
            }
            Op::LostRound => drop(self.decide()),
            Op::Advance(ms) => self.ms += u64::from(*ms),
            Op::Reboot => {
                self.boot += 1;
                self.ms = 500;
                self.failures.clear();
                self.end_all();
            }
            Op::EngineRestart => {
                self.end_all();
                self.interrupted = true;
            }
            Op::LoseMemory => self.memory = Memory::default(),
            Op::LoseManifest => self.manifest = None,
        }
    }

    fn fresh_digest(&mut self) -> Digest {
        self.counter += 1;
        let mut bytes = [0xaa; 32];
        bytes[..8].copy_from_slice(&self.counter.to_le_bytes());
        Digest::new(bytes)
    }

    /// A new allocation for every group of the job; what was listed before is replaced.
    fn place(&mut self, n: u8, digest: Digest) {
        self.counter += 1;
        let (version, name) = (self.counter, job_name(n));
        let empty = Manifest { node: self.node.id, mark: Mark::default(), issued_at: Timestamp(0), allocs: vec![], tombstones: vec![] };
        let manifest = self.manifest.get_or_insert(empty);
        manifest.allocs.retain(|a| a.job != name);
        let groups: Vec<String> = self.specifications[&digest].job.groups.iter().map(|g| g.name.clone()).collect();
        for group in groups {
            self.counter += 1;
            let mut id = [0x11; 16];
            id[..8].copy_from_slice(&self.counter.to_le_bytes());
            let (job, id) = (name.clone(), AllocId::new(id));
            manifest.allocs.push(ManifestAlloc { job, group, index: 0, id, version, specification: digest });
        }
        manifest.mark.counter += 1;
    }

    fn drop_job(&mut self, n: u8, tombstone: bool) {
        let Some(manifest) = &mut self.manifest else { return };
        let name = job_name(n);
        let gone: Vec<ManifestAlloc> = manifest.allocs.iter().filter(|a| a.job == name).cloned().collect();
        manifest.allocs.retain(|a| a.job != name);
        if tombstone {
            let stone = |a: ManifestAlloc| Tombstone { id: a.id, job: a.job, group: a.group, index: a.index, reason: "stopped".into() };
            manifest.tombstones.extend(gone.into_iter().map(stone));
        }
    }

    fn names(&self, wanted: impl Fn(&Instance) -> bool) -> Vec<String> {
        self.instances.values().filter(|c| wanted(c)).map(|c| c.name.clone()).collect()
    }

    fn end(&mut self, name: &str, code: i64) {
        self.ends += 1;
        let mark = self.ends.to_string();
        if let Some(container) = self.instances.get_mut(name) {
            container.state = State::Exited { code, out_of_memory: false, mark };
        }
    }

    fn end_all(&mut self) {
        for name in self.names(|c| c.state == State::Running) {
            self.end(&name, 137);
        }
    }

    /// Decides, twice: the same must come out.
    pub(crate) fn decide(&self) -> Decision {
        let decide = || {
            let observed = Observed {
                node: &self.node,
                policy: &self.policy,
                images: self.images.clone(),
                containers: self.instances.values().cloned().collect(),
                failures: self.failures.clone(),
                interrupted: self.interrupted,
            };
            let desired = Desired { manifest: self.manifest.as_ref(), specifications: &self.specifications };
            reconcile(&desired, &observed, &self.memory, Now { boot: BootId::new([self.boot; 16]), ms: self.ms })
        };
        let decision = decide();
        assert_eq!(format!("{decision:?}"), format!("{:?}", decide()), "not deterministic");
        self.check_decision(&decision);
        decision
    }

    pub(crate) fn persist(&mut self, decision: &Decision) {
        self.memory = decision.memory.clone();
        self.failures.clear();
        self.interrupted = false;
        // The ledger keeps what is asked to be kept, and what the manifest names.
        let named: BTreeSet<Digest> = self.manifest.iter().flat_map(|m| m.allocs.iter().map(|a| a.specification)).collect();
        self.specifications.retain(|d, _| decision.specifications.contains(d) || named.contains(d));
    }

    /// Performs actions as the shell does: after a failure the rest of the same place is left.
    pub(crate) fn perform(&mut self, actions: &[Action], limit: usize, fail: Option<usize>) {
        let mut failed: BTreeSet<Slot> = BTreeSet::new();
        for (n, action) in actions.iter().enumerate().take(limit) {
            if failed.contains(&action.slot) {
                continue;
            }
            let result = if fail == Some(n) { Err("told to fail".to_owned()) } else { self.act(action) };
            self.check_no_mix();
            if let Err(error) = result {
                failed.insert(action.slot.clone());
                let (slot, alloc, task) = (action.slot.clone(), action.alloc, action.task.clone());
                self.failures.push(Failure { slot, alloc, task, step: action.step(), error });
            }
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        let name = &action.instance;
        match &action.kind {
            ActionKind::Create(plan) => {
                if !self.images.contains(&plan.image) {
                    return Err("no such image".into());
                }
                assert_eq!(&plan.name, name);
                let new = Instance { name: name.clone(), labels: plan.labels.clone(), image: Some(plan.image), state: State::Created };
                self.instances.entry(name.clone()).or_insert(new);
            }
            ActionKind::Start => self.instances.get_mut(name).ok_or("no such container")?.state = State::Running,
            ActionKind::Stop { .. } => {
                self.check_stop(name);
                if self.instances.get(name).is_some_and(|c| c.state == State::Running) {
                    self.end(name, 0);
                }
            }
            ActionKind::Remove => drop(self.instances.remove(name)),
        }
        Ok(())
    }

    /// A group never runs two versions at once.
    fn check_no_mix(&self) {
        let mut running: BTreeMap<&Slot, AllocId> = BTreeMap::new();
        for container in self.instances.values().filter(|c| c.state == State::Running) {
            let alloc = *running.entry(&container.labels.slot).or_insert(container.labels.alloc);
            assert_eq!(alloc, container.labels.alloc, "two versions run in {}", container.labels.slot);
        }
    }

    /// What runs stops only for a version that has all its containers, by order, or by its own policy.
    fn check_stop(&self, name: &str) {
        let Some(container) = self.instances.get(name).filter(|c| c.state == State::Running) else { return };
        let slot = &container.labels.slot;
        let ordered = self.manifest.as_ref().is_some_and(|m| m.tombstones.iter().any(|t| Slot::from(t) == *slot));
        let memory = self.memory.slots.get(slot).expect("a place with an action is remembered");
        let replaced = memory
            .current
            .as_ref()
            .is_some_and(|c| c.born != container.labels.alloc && self.instances.values().any(|k| k.labels.alloc == c.born));
        let left = memory.leaving.values().any(|l| l.born == container.labels.alloc && l.tombstone);
        assert!(ordered || left || replaced || memory.failed.is_some(), "{slot} stopped without a reason");
    }

    fn check_decision(&self, decision: &Decision) {
        let stones: BTreeSet<AllocId> = self.manifest.iter().flat_map(|m| m.tombstones.iter().map(|t| t.id)).collect();
        for memory in decision.memory.slots.values() {
            if let Some(current) = &memory.current {
                assert!(!stones.contains(&current.alloc), "a stopped allocation is current");
                assert!(decision.pins.is_superset(&current.images), "the images of what runs must stay");
                assert!(decision.specifications.contains(&current.specification));
            }
        }
        for action in &decision.actions {
            let current = decision.memory.slots[&action.slot].current.as_ref().map(|c| c.born);
            if let ActionKind::Create(plan) = &action.kind
                && current != Some(action.alloc)
            {
                let job = &self.specifications[&plan.labels.specification].job;
                let there = |c: &DockerConfig| c.image_id.is_some_and(|i| self.images.contains(&i));
                assert!(job.images().all(there), "{} goes on before every image of its job is there", action.slot);
            }
            if action.kind == ActionKind::Start {
                let memory = &decision.memory.slots[&action.slot];
                assert!(memory.current.as_ref().is_some_and(|c| c.born == action.alloc), "only what was switched to starts");
            }
        }
    }
}
