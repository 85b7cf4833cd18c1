//! A model of one node: an engine that does what it is told or fails, a disk that keeps what was persisted, a clock that may jump, and a
//! server that changes its mind.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skerry_reconcile::{
    Action, ActionKind, CheckState, Decision, Desired, Failure, Instance, InstancePlan, Memory, Node, Now, Observed, Order, OrderKind,
    Policy, Slot, State, reconcile,
};
use skerry_wire::job::{Job, JobType};
use skerry_wire::manifest::{Manifest, ManifestAlloc, Mark, Tombstone, Values};
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, BootId, Digest, ImageId, NodeId, Timestamp};

use crate::jobs::{IMAGES, JOBS, ONCE, SICK, image, job, job_name};

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
    /// The operator orders to try again what failed: through the manifest, or on the node.
    Retry {
        job: u8,
        on_node: bool,
    },
    /// The server drops tombstones that were answered.
    DropTombstones,
    ImageArrives(u8),
    ImageVanishes(u8),
    Crash(u8),
    /// What runs to an end ends well.
    Finish(u8),
    /// Stops that are under way are done.
    StopsEnd,
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
    /// The time of day is put ahead or back, or is not known.
    Clock(Option<i32>),
    /// An application takes its update lock, or lets go of it.
    Lock(u8, bool),
    Reboot,
    EngineRestart,
    LoseMemory,
    LoseManifest,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let round = (0..6_u8, proptest::option::weighted(0.2, 0..6_u8), proptest::bool::weighted(0.2));
    prop_oneof![
        5 => (0..JOBS, 0..IMAGES).prop_map(|(job, image)| Op::Submit { job, image }),
        1 => (0..JOBS).prop_map(|job| Op::Resubmit { job }),
        1 => (0..JOBS).prop_map(|job| Op::Stop { job }),
        1 => (0..JOBS).prop_map(|job| Op::Forget { job }),
        1 => (0..JOBS, any::<bool>()).prop_map(|(job, on_node)| Op::Retry { job, on_node }),
        1 => Just(Op::DropTombstones),
        5 => (0..IMAGES).prop_map(Op::ImageArrives),
        1 => (0..IMAGES).prop_map(Op::ImageVanishes),
        3 => any::<u8>().prop_map(Op::Crash),
        4 => any::<u8>().prop_map(Op::Finish),
        4 => Just(Op::StopsEnd),
        1 => any::<u8>().prop_map(Op::RemoveContainer),
        18 => round.prop_map(|(done, fail, cut)| Op::Round { done, fail, cut }),
        1 => Just(Op::LostRound),
        4 => (0..180_000_u32).prop_map(Op::Advance),
        1 => (0..20_000_000_u32).prop_map(Op::Advance),
        1 => proptest::option::of(any::<i32>()).prop_map(Op::Clock),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(n, held)| Op::Lock(n, held)),
        1 => Just(Op::Reboot),
        1 => Just(Op::EngineRestart),
        1 => Just(Op::LoseMemory),
        1 => Just(Op::LoseManifest),
    ]
}

pub(crate) struct World {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) specifications: BTreeMap<Digest, Specification>,
    pub(crate) images: BTreeSet<ImageId>,
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) memory: Memory,
    pub(crate) stopping: BTreeSet<String>,
    pub(crate) locked: BTreeSet<AllocId>,
    orders: Vec<Order>,
    asked: Vec<skerry_reconcile::CheckId>,
    failures: Vec<Failure>,
    interrupted: bool,
    pub(crate) boot: u8,
    pub(crate) ms: u64,
    wall: Option<i64>,
    counter: u64,
    ends: u64,
    /// Allocations whose run was complete.
    done: BTreeSet<AllocId>,
    node: Node,
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
            memory_mib: 4096,
        };
        Self {
            manifest: None,
            specifications: BTreeMap::new(),
            images: BTreeSet::new(),
            instances: BTreeMap::new(),
            memory: Memory::default(),
            stopping: BTreeSet::new(),
            locked: BTreeSet::new(),
            orders: vec![],
            asked: vec![],
            failures: vec![],
            interrupted: false,
            boot: 1,
            ms: 1_000,
            wall: Some(1_767_225_600_000),
            counter: 0,
            ends: 0,
            done: BTreeSet::new(),
            node,
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
            Op::Retry { job, on_node } => self.retry(*job, *on_node),
            Op::DropTombstones => {
                if let Some(m) = &mut self.manifest {
                    let told = |t: &Tombstone| self.memory.slots.values().any(|s| s.leaving.get(&t.id).is_some_and(|l| l.reported));
                    m.tombstones.retain(|t| !told(t));
                }
            }
            Op::ImageArrives(n) => drop(self.images.insert(image(*n))),
            Op::ImageVanishes(n) => {
                // An engine does not remove an image that a container uses, and an agent does not ask for one that is pinned.
                let last_good = self.memory.slots.values().flat_map(|m| m.last_good.iter()).any(|v| v.images.contains(&image(*n)));
                if !last_good && !self.instances.values().any(|c| c.image == Some(image(*n))) {
                    self.images.remove(&image(*n));
                }
            }
            Op::Crash(n) => self.end_one(*n, 1, |_| true),
            Op::Finish(n) => self.end_one(*n, 0, runs_once),
            Op::StopsEnd => self.finish_stops(),
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
                    self.stopping.clear();
                    self.memory.after_restart();
                }
            }
            Op::LostRound => drop(self.decide()),
            Op::Advance(ms) => self.advance(u64::from(*ms)),
            Op::Clock(jump) => self.wall = jump.map(|s| 1_767_225_600_000 + i64::from(s) * 1000),
            Op::Lock(n, held) => {
                let all: Vec<AllocId> = self.instances.values().filter(|c| c.state == State::Running).map(|c| c.labels.alloc).collect();
                match all.get(usize::from(*n) % all.len().max(1)) {
                    Some(alloc) if *held => drop(self.locked.insert(*alloc)),
                    _ => self.locked.clear(),
                }
            }
            Op::Reboot => {
                self.boot += 1;
                self.ms = 500;
                self.failures.clear();
                self.stopping.clear();
                self.locked.clear();
                self.memory.after_restart();
                self.end_all();
            }
            Op::EngineRestart => {
                self.end_all();
                self.stopping.clear();
                self.interrupted = true;
            }
            Op::LoseMemory => {
                self.memory = Memory::default();
                self.done.clear();
            }
            Op::LoseManifest => self.manifest = None,
        }
    }

    pub(crate) fn advance(&mut self, ms: u64) {
        self.ms += ms;
        self.wall = self.wall.map(|w| w + ms as i64);
    }

    fn retry(&mut self, n: u8, on_node: bool) {
        let name = job_name(n);
        let Some(alloc) = self.manifest.as_mut().and_then(|m| m.allocs.iter_mut().find(|a| a.job == name)) else { return };
        if on_node {
            self.counter += 1;
            self.orders.push(Order { id: self.counter, alloc: alloc.id, kind: OrderKind::Retry });
        } else {
            alloc.retry += 1;
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
        let (node, mark) = (self.node.id, Mark::default());
        let empty = Manifest { node, mark, issued_at: Timestamp(0), allocs: vec![], tombstones: vec![], values: Values::default() };
        let manifest = self.manifest.get_or_insert(empty);
        manifest.allocs.retain(|a| a.job != name);
        let groups: Vec<String> = self.specifications[&digest].job.groups.iter().map(|g| g.name.clone()).collect();
        for group in groups {
            self.counter += 1;
            let mut id = [0x11; 16];
            id[..8].copy_from_slice(&self.counter.to_le_bytes());
            let (job, id) = (name.clone(), AllocId::new(id));
            let new = ManifestAlloc { job, group, index: 0, id, version, specification: digest, retry: 0, override_lock: false };
            manifest.allocs.push(new);
        }
        manifest.mark.counter += 1;
    }

    fn drop_job(&mut self, n: u8, tombstone: bool) {
        let Some(manifest) = &mut self.manifest else { return };
        let name = job_name(n);
        let gone: Vec<ManifestAlloc> = manifest.allocs.iter().filter(|a| a.job == name).cloned().collect();
        manifest.allocs.retain(|a| a.job != name);
        if tombstone {
            let stone = |a: ManifestAlloc| Tombstone::of(&a, "stopped");
            manifest.tombstones.extend(gone.into_iter().map(stone));
        }
    }

    fn names(&self, wanted: impl Fn(&Instance) -> bool) -> Vec<String> {
        self.instances.values().filter(|c| wanted(c)).map(|c| c.name.clone()).collect()
    }

    fn end_one(&mut self, n: u8, code: i64, which: impl Fn(&Instance) -> bool) {
        let running: Vec<String> = self.names(|c| c.state == State::Running && which(c));
        if let Some(name) = running.get(usize::from(n) % running.len().max(1)).cloned() {
            self.end(&name, code);
        }
    }

    fn end(&mut self, name: &str, code: i64) {
        self.ends += 1;
        let mark = self.ends.to_string();
        if let Some(instance) = self.instances.get_mut(name) {
            instance.state = State::Exited { code: Some(code), out_of_memory: false, mark };
        }
    }

    fn end_all(&mut self) {
        for name in self.names(|c| c.state == State::Running) {
            self.end(&name, 137);
        }
    }

    /// All that was told to stop has stopped.
    pub(crate) fn finish_stops(&mut self) {
        for name in std::mem::take(&mut self.stopping) {
            if self.instances.get(&name).is_some_and(|c| c.state == State::Running) {
                self.end(&name, 0);
            }
        }
    }

    /// All that ends by itself has ended.
    pub(crate) fn finish_runs(&mut self) -> bool {
        let names = self.names(|c| c.state == State::Running && runs_once(c));
        names.iter().for_each(|n| self.end(n, 0));
        !names.is_empty()
    }

    /// Decides, twice: the same must come out.
    pub(crate) fn decide(&self) -> Decision {
        let sick = |alloc: AllocId| {
            let own = self.instances.values().find(|c| c.labels.alloc == alloc && c.labels.task == "main");
            own.is_some_and(|c| c.image == Some(image(SICK)))
        };
        let state = |n: (u32, u32)| CheckState { passed: n.0, failed: n.1, at: self.ms, output: "x".into() };
        let checks = self.asked.iter().map(|id| (id.clone(), state(if sick(id.alloc) { (0, 9) } else { (9, 0) })));
        let observed = Observed {
            node: &self.node,
            policy: &Policy::default(),
            images: self.images.clone(),
            instances: self.instances.values().cloned().collect(),
            failures: self.failures.clone(),
            blind: false,
            interrupted: self.interrupted,
            stopping: self.stopping.clone(),
            checks: checks.collect(),
            locked: self.locked.clone(),
            silent: None,
            orders: self.orders.clone(),
            apply_closed: None,
            disk_free: 1 << 40,
            devices: BTreeSet::new(),
        };
        let decide = || {
            let desired = Desired { manifest: self.manifest.as_ref(), specifications: &self.specifications };
            let now = Now { boot: BootId::new([self.boot; 16]), ms: self.ms, wall: self.wall.map(Timestamp) };
            reconcile(&desired, &observed, &self.memory, now)
        };
        let decision = decide();
        let again = decide();
        assert_eq!((&decision.actions, &decision.memory), (&again.actions, &again.memory), "not deterministic");
        assert_eq!((&decision.events, decision.wake_at), (&again.events, again.wake_at), "not deterministic");
        self.check_decision(&decision);
        decision
    }

    /// Does it ask for a check that was not asked for before?
    pub(crate) fn asks_more(&self, decision: &Decision) -> bool {
        decision.checks.iter().any(|c| !self.asked.contains(&c.id))
    }

    pub(crate) fn persist(&mut self, decision: &Decision) {
        for (slot, new) in &decision.memory.slots {
            let old = self.memory.slots.get(slot);
            let switched = |c: &skerry_reconcile::Version| old.is_none_or(|o| o.current.as_ref().is_none_or(|v| v.born != c.born));
            if let Some(current) = new.current.as_ref().filter(|c| switched(c)) {
                assert!(!new.bad.contains_key(&current.specification), "{slot} switches to a version that is known to be bad");
            }
            if let Some(current) = &new.current
                && new.life.end.as_ref().is_some_and(|e| e.settled && !e.failed)
            {
                self.done.insert(current.born);
            }
        }
        self.memory = decision.memory.clone();
        self.asked = decision.checks.iter().map(|c| c.id.clone()).collect();
        self.orders.retain(|o| !decision.memory.orders.contains(&o.id));
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
        assert!(!self.stopping.contains(name), "{action:?} while it is being stopped");
        match &action.kind {
            ActionKind::Create(plan) => {
                let InstancePlan::Container(container) = &**plan else { panic!("only containers here") };
                if !self.images.contains(&container.image) {
                    return Err("no such image".into());
                }
                let common = plan.common();
                assert_eq!(&common.name, name);
                let image = Some(container.image);
                let new = Instance { name: name.clone(), labels: common.labels.clone(), image, state: State::Created };
                self.instances.entry(name.clone()).or_insert(new);
            }
            ActionKind::Start => {
                let instance = self.instances.get_mut(name).ok_or("no such container")?;
                let rerun = instance.labels.task == "main" && self.done.contains(&action.alloc);
                assert!(!rerun, "{} was complete and runs again", action.slot);
                instance.state = State::Running;
            }
            ActionKind::Stop { .. } => {
                self.check_stop(name);
                if self.instances.get(name).is_some_and(|c| c.state == State::Running) {
                    self.stopping.insert(name.clone());
                }
            }
            ActionKind::Write(_) | ActionKind::Signal(_) => {}
            ActionKind::Remove => {
                let running = self.instances.get(name).is_some_and(|c| c.state == State::Running);
                assert!(!running, "{name} is removed while it runs");
                self.instances.remove(name);
            }
        }
        Ok(())
    }

    /// A group never runs two versions at once.
    fn check_no_mix(&self) {
        let mut running: BTreeMap<&Slot, AllocId> = BTreeMap::new();
        for instance in self.instances.values().filter(|c| c.state == State::Running) {
            let alloc = *running.entry(&instance.labels.slot).or_insert(instance.labels.alloc);
            assert_eq!(alloc, instance.labels.alloc, "two versions run in {}", instance.labels.slot);
        }
    }

    /// What runs stops only for a version that has all its instances, by order, or by its own policy.
    fn check_stop(&self, name: &str) {
        let Some(instance) = self.instances.get(name).filter(|c| c.state == State::Running) else { return };
        let labels = &instance.labels;
        let slot = &labels.slot;
        let ordered = self.manifest.as_ref().is_some_and(|m| m.tombstones.iter().any(|t| t.job == slot.job_id()));
        let memory = self.memory.slots.get(slot).expect("a place with an action is remembered");
        let is_current = |c: &skerry_reconcile::Version| c.born == labels.alloc;
        let replaced = memory.current.as_ref().is_some_and(|c| !is_current(c) && self.instances.values().any(|k| k.labels.alloc == c.born));
        let left = memory.leaving.values().any(|l| l.born == labels.alloc);
        let life = &memory.life;
        let policy = life.end.is_some() || life.again.remaking || life.tasks.get(&labels.task).is_some_and(|t| t.told.is_some());
        let earlier = memory.next.as_ref().is_some_and(|n| n.version.born == labels.alloc);
        assert!(ordered || left || replaced || policy || earlier, "{slot} stopped without a reason");
    }

    fn check_decision(&self, decision: &Decision) {
        let stones: BTreeSet<AllocId> = self.manifest.iter().flat_map(|m| m.tombstones.iter().map(|t| t.id)).collect();
        for memory in decision.memory.slots.values() {
            for version in memory.current.iter().chain(&memory.last_good) {
                assert!(!stones.contains(&version.alloc), "a stopped allocation is remembered as one to run");
                assert!(decision.pins.is_superset(&version.images), "the images of what runs or was good must stay");
                assert!(decision.specifications.contains(&version.specification));
                assert!(decision.folders.contains(&version.born), "the folder of what runs or was good must stay");
            }
            assert!(memory.decisions.len() <= skerry_reconcile::DECISIONS);
        }
        for action in &decision.actions {
            assert!(!action.reason.is_empty(), "{action:?} has no reason");
            let memory = &decision.memory.slots[&action.slot];
            let current = memory.current.as_ref().map(|c| c.born);
            if let ActionKind::Create(plan) = &action.kind
                && current != Some(action.alloc)
                && action.slot.run().is_none()
                && memory.next.as_ref().is_some_and(|n| !n.reverts)
            {
                let job: &Job = &self.specifications[&plan.common().labels.specification].job;
                let there = job.images().all(|c| c.image_id.is_some_and(|i| self.images.contains(&i)));
                assert!(there, "{} goes on before every image of its job is there", action.slot);
            }
            if action.kind == ActionKind::Start {
                let last = action.task == "after" && memory.leaving.values().any(|l| l.born == action.alloc);
                assert!(current == Some(action.alloc) || last, "only what was switched to starts: {action:?}");
                assert!(last || !stones.contains(&action.alloc), "what was stopped starts");
            }
        }
    }

    /// Does the job run to an end?
    pub(crate) fn is_batch(&self, slot: &Slot) -> bool {
        let kind = |s: &Specification| s.job.id == slot.job_id() && s.job.kind != JobType::Service;
        self.specifications.values().any(kind)
    }
}

fn runs_once(instance: &Instance) -> bool {
    let job = instance.labels.slot.job_id();
    ONCE.contains(&instance.labels.task.as_str()) || job == job_name(3) || job == job_name(4)
}
