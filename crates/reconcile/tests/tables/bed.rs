//! One node with one job at a time, driven step by step.

use std::collections::{BTreeMap, BTreeSet};

use skerry_reconcile::{
    Action, ActionKind, AllocView, CheckState, Closed, Decision, Desired, Failure, Instance, InstancePlan, Memory, Node, Now, Observed,
    Order, Policy, Slot, State, Step, reconcile,
};
use skerry_wire::job::{DockerConfig, Driver, Group, Hook, Job, JobType, Lifecycle, ProcessConfig, Resources, Task};
use skerry_wire::manifest::{Manifest, ManifestAlloc, Mark, Tombstone, Values};
use skerry_wire::poll::Event;
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, BootId, Digest, ImageId, Millis, NodeId, Timestamp};

pub(crate) fn docker(name: &str) -> Task {
    let image_id = Some(ImageId(Digest::new([1; 32])));
    let task = Task::new(name, Driver::Docker(DockerConfig { image: "app:1".into(), image_id, ..DockerConfig::default() }));
    Task { resources: Resources { memory: 100, ..Resources::default() }, ..task }
}

pub(crate) fn process(name: &str, command: &str) -> Task {
    Task::new(name, Driver::Exec(ProcessConfig { command: command.into(), args: vec![], work_dir: None }))
}

pub(crate) fn hook(hook: Hook, sidecar: bool, task: Task) -> Task {
    Task { lifecycle: Some(Lifecycle { hook, sidecar }), ..task }
}

pub(crate) fn job(kind: JobType, tasks: Vec<Task>) -> Job {
    Job::new("till", kind, vec![Group::new("g", tasks)])
}

pub(crate) struct Bed {
    pub(crate) manifest: Manifest,
    /// The node has lost its manifest.
    pub(crate) manifest_lost: bool,
    pub(crate) specifications: BTreeMap<Digest, Specification>,
    pub(crate) images: BTreeSet<ImageId>,
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) memory: Memory,
    pub(crate) node: Node,
    pub(crate) policy: Policy,
    pub(crate) stopping: BTreeSet<String>,
    pub(crate) failures: Vec<Failure>,
    /// What every check finds: runs in a row that passed, and that failed.
    pub(crate) checks: (u32, u32),
    pub(crate) locked: BTreeSet<AllocId>,
    pub(crate) silent: Option<Millis>,
    pub(crate) orders: Vec<Order>,
    pub(crate) apply_closed: Option<Closed>,
    pub(crate) disk_free: u64,
    pub(crate) devices: BTreeSet<String>,
    pub(crate) interrupted: bool,
    /// The engine has not answered yet: no container is seen.
    pub(crate) blind: bool,
    pub(crate) boot: u8,
    pub(crate) ms: u64,
    pub(crate) wall: Option<Timestamp>,
    pub(crate) events: Vec<Event>,
    /// All that was done: `start web`, in order.
    pub(crate) done: Vec<String>,
    /// Are stops done at once?
    pub(crate) obedient: bool,
    ends: u64,
    version: u8,
    asked: Vec<skerry_reconcile::CheckId>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let node = Node {
            id: NodeId::new([9; 16]),
            name: "n".into(),
            datacenter: "dc1".into(),
            pool: String::new(),
            address: "10.0.0.1".into(),
            attributes: BTreeMap::new(),
            meta: BTreeMap::from([("site".into(), "harbour".into())]),
            alloc_folder: "/srv/alloc".into(),
            memory_mib: 1024,
        };
        let (mark, values) = (Mark::default(), Values::default());
        let manifest = Manifest { node: node.id, mark, issued_at: Timestamp(0), allocs: vec![], tombstones: vec![], values };
        Self {
            manifest,
            manifest_lost: false,
            specifications: BTreeMap::new(),
            images: [ImageId(Digest::new([1; 32]))].into(),
            instances: BTreeMap::new(),
            memory: Memory::default(),
            node,
            policy: Policy { exec: true, raw_exec: true, ..Policy::default() },
            stopping: BTreeSet::new(),
            failures: vec![],
            checks: (9, 0),
            locked: BTreeSet::new(),
            silent: None,
            orders: vec![],
            apply_closed: None,
            disk_free: 1 << 40,
            devices: BTreeSet::new(),
            interrupted: false,
            blind: false,
            boot: 1,
            ms: 1_000,
            wall: None,
            events: vec![],
            done: vec![],
            obedient: true,
            ends: 0,
            version: 0,
            asked: vec![],
        }
    }

    /// A bed on which the job has come to rest.
    pub(crate) fn with(job: Job) -> Self {
        let mut bed = Self::new();
        bed.submit(job);
        bed.rest();
        bed
    }

    /// A new version of the job. Answers its first allocation.
    pub(crate) fn submit(&mut self, job: Job) -> AllocId {
        self.version += 1;
        let (digest, version) = (Digest::new([0xa0 + self.version; 32]), u64::from(self.version));
        self.manifest.allocs.retain(|a| a.job != job.id);
        for (n, group) in (0_u8..).zip(&job.groups) {
            let id = AllocId::new([self.version * 16 + n; 16]);
            let (job, group) = (job.id.clone(), group.name.clone());
            let new = ManifestAlloc { job, group, index: 0, id, version, specification: digest, retry: 0, override_lock: false };
            self.manifest.allocs.push(new);
        }
        self.specifications.insert(digest, Specification { job, signed_at: Timestamp(0) });
        AllocId::new([self.version * 16; 16])
    }

    /// The job is stopped by order.
    pub(crate) fn bury(&mut self) {
        for a in std::mem::take(&mut self.manifest.allocs) {
            self.manifest.tombstones.push(Tombstone::of(&a, "stopped by ada"));
        }
    }

    pub(crate) fn decide(&self) -> Decision {
        let state = || CheckState { passed: self.checks.0, failed: self.checks.1, at: self.ms, output: "HTTP 503".into() };
        let observed = Observed {
            node: &self.node,
            policy: &self.policy,
            images: self.images.clone(),
            instances: self.instances.values().filter(|i| !self.blind || i.image.is_none()).cloned().collect(),
            failures: self.failures.clone(),
            blind: self.blind,
            interrupted: self.interrupted,
            stopping: self.stopping.clone(),
            checks: self.asked.iter().map(|id| (id.clone(), state())).collect(),
            locked: self.locked.clone(),
            silent: self.silent,
            orders: self.orders.clone(),
            apply_closed: self.apply_closed,
            disk_free: self.disk_free,
            devices: self.devices.clone(),
        };
        let desired = Desired { manifest: (!self.manifest_lost).then_some(&self.manifest), specifications: &self.specifications };
        reconcile(&desired, &observed, &self.memory, Now { boot: BootId::new([self.boot; 16]), ms: self.ms, wall: self.wall })
    }

    /// One decision, and what it asks for.
    pub(crate) fn step(&mut self) -> Decision {
        let decision = self.decide();
        self.memory = decision.memory.clone();
        self.failures.clear();
        self.interrupted = false;
        self.asked = decision.checks.iter().map(|c| c.id.clone()).collect();
        self.events.extend(decision.events.iter().cloned());
        // As the shell: what is decided about containers before the engine answers is not done.
        let of_process = |a: &&Action| matches!(&a.kind, ActionKind::Create(p) if matches!(**p, InstancePlan::Process(_)));
        let made = |a: &&Action| self.instances.get(&a.instance).is_some_and(|i| i.image.is_none());
        let done: Vec<_> = decision.actions.iter().filter(|a| !self.blind || of_process(a) || made(a)).cloned().collect();
        for action in &done {
            self.act(action);
        }
        decision
    }

    /// Steps until nothing is done, without time passing.
    pub(crate) fn rest(&mut self) -> Decision {
        for _ in 0..100 {
            let before = self.memory.clone();
            let decision = self.step();
            let again = decision.wake_at == Some(self.ms + 1);
            self.ms += u64::from(again);
            if decision.actions.is_empty() && !again && before == self.memory {
                return decision;
            }
        }
        panic!("does not come to rest: {:?}", self.done);
    }

    /// Time passes, from wake to wake.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.ms + ms;
        loop {
            let decision = self.rest();
            let next = decision.wake_at.unwrap_or(end).min(end).max(self.ms);
            self.wall = self.wall.map(|w| w.after(Millis(next - self.ms)));
            self.ms = next;
            if next == end {
                self.rest();
                return;
            }
        }
    }

    fn act(&mut self, action: &Action) {
        self.done.push(format!("{} {}", action.step(), action.task));
        let name = action.instance.clone();
        match &action.kind {
            ActionKind::Create(plan) => {
                let labels = plan.common().labels.clone();
                let image = match &**plan {
                    InstancePlan::Container(container) => Some(container.image),
                    InstancePlan::Process(_) => None,
                };
                self.instances.insert(name.clone(), Instance { name, labels, image, state: State::Created });
            }
            ActionKind::Start => self.instances.get_mut(&name).expect("it was made").state = State::Running,
            ActionKind::Stop { .. } => {
                if self.obedient {
                    self.end(&action.task, 0);
                } else {
                    self.stopping.insert(name);
                }
            }
            ActionKind::Remove => drop(self.instances.remove(&name)),
            ActionKind::Write(_) | ActionKind::Signal(_) => {}
        }
    }

    /// A task's running instance ends.
    pub(crate) fn end(&mut self, task: &str, code: i64) {
        self.ends += 1;
        let mark = self.ends.to_string();
        let running = self.instances.values_mut().find(|i| i.labels.task == task && i.state == State::Running);
        let running = running.unwrap_or_else(|| panic!("{task} does not run"));
        self.stopping.remove(&running.name);
        running.state = State::Exited { code: Some(code), out_of_memory: false, mark };
    }

    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        self.ms = 10;
        self.memory.after_restart();
        for task in self.running() {
            self.end(&task, 137);
        }
    }

    /// The step fails: the instance is as it was before.
    pub(crate) fn fail(&mut self, action: &Action, step: Step) {
        let (slot, alloc, task) = (action.slot.clone(), action.alloc, action.task.clone());
        self.failures.push(Failure { slot, alloc, task, step, error: "no".into() });
    }

    /// Names of the tasks that run, sorted.
    pub(crate) fn running(&self) -> Vec<String> {
        let mut names: Vec<String> = self.instances.values().filter(|i| i.state == State::Running).map(|i| i.labels.task.clone()).collect();
        names.sort();
        names
    }

    /// What was done since this was asked last.
    pub(crate) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.done)
    }

    pub(crate) fn view(&self) -> AllocView {
        let mut all = self.decide().allocs;
        assert!(!all.is_empty(), "nothing is known");
        all.remove(0)
    }

    /// What is wanted, as it is told when it is not current.
    pub(crate) fn told(&self, alloc: AllocId) -> AllocView {
        self.decide().allocs.into_iter().find(|a| a.id == alloc).expect("it is told about")
    }

    pub(crate) fn place(&self) -> &skerry_reconcile::SlotMemory {
        &self.memory.slots[&Slot { job: "till".into(), group: "g".into(), index: 0 }]
    }
}
