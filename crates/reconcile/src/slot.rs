//! One place: which version it holds, which one comes next, and what is cleared away.

use std::collections::BTreeSet;

use skerry_wire::job::{Driver, Group, Job, RestartPolicy};
use skerry_wire::manifest::Tombstone;
use skerry_wire::poll::{AllocStatus, Event};
use skerry_wire::{AllocId, Millis};

use crate::decision::{Action, ActionKind, AllocView, Decision, Step};
use crate::facts::{Desired, Instance, Observed, Slot, State};
use crate::gate::{Gate, Want, version_of};
use crate::instance::instance_name;
use crate::making::Making;
use crate::memory::{Backoff, Leaving, Next, Reported, SlotMemory, Version};
use crate::ports::assign_ports;

/// What holds for the whole call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) desired: Desired<'a>,
    pub(crate) observed: &'a Observed<'a>,
    /// Milliseconds of this boot.
    pub(crate) now: u64,
    /// Tasks ended because node or engine went away, not by themselves.
    pub(crate) interrupted: bool,
}

/// The work on one place, collected.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) cx: Context<'a>,
    pub(crate) slot: &'a Slot,
    pub(crate) instances: Vec<&'a Instance>,
    pub(crate) creates: Vec<Action>,
    pub(crate) stops: Vec<Action>,
    pub(crate) starts: Vec<Action>,
    pub(crate) removes: Vec<Action>,
    pub(crate) wake_at: Option<u64>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(cx: Context<'a>, slot: &'a Slot) -> Self {
        let instances = cx.observed.instances.iter().filter(|c| c.labels.slot == *slot).collect();
        Self { cx, slot, instances, creates: vec![], stops: vec![], starts: vec![], removes: vec![], wake_at: None }
    }

    /// Decides everything about the place.
    pub(crate) fn run(
        mut self,
        memory: &mut SlotMemory,
        want: Option<&Want<'a>>,
        tombstones: &[&Tombstone],
        taken: &BTreeSet<u16>,
        out: &mut Decision,
    ) {
        self.note_failures(memory);
        self.bury(memory, want, tombstones);
        let held = self.approach(memory, want, taken);
        self.promote(memory);
        let mut current = self.supervise(memory, out);
        if let (Some((_, reason)), Some(Want { alloc, gate: Gate::Refused(why) })) = (&mut current, want)
            && memory.current.as_ref().is_some_and(|c| c.alloc == alloc.id && c.specification != alloc.specification)
        {
            *reason = format!("{reason}; {why}");
        }
        self.clear(memory);
        self.report(memory, want, held, current, out);
        for list in [self.creates, self.stops, self.starts, self.removes] {
            out.actions.extend(list);
        }
        out.wake_at = out.wake_at.into_iter().chain(self.wake_at).min();
    }

    /// Looks again at `at`.
    pub(crate) fn wake(&mut self, at: u64) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }

    /// The container of one task.
    pub(crate) fn instance(&self, version: &Version, task: &str) -> Option<&'a Instance> {
        self.instances.iter().copied().find(|c| c.labels.alloc == version.born && c.labels.task == task)
    }

    /// Job and group of a version, when its specification is held.
    pub(crate) fn group(&self, version: &Version) -> Option<(&'a Job, &'a Group)> {
        let job = &self.cx.desired.specifications.get(&version.specification)?.job;
        (job.id == self.slot.job).then_some(())?;
        Some((job, job.group(&self.slot.group)?))
    }

    pub(crate) fn action(&self, alloc: AllocId, task: &str, kind: ActionKind, reason: impl Into<String>) -> Action {
        let container = instance_name(&alloc, task);
        Action { slot: self.slot.clone(), alloc, task: task.to_owned(), instance: container, kind, reason: reason.into() }
    }

    pub(crate) fn on(&self, container: &Instance, kind: ActionKind, reason: impl Into<String>) -> Action {
        let labels = &container.labels;
        let (slot, task, name) = (labels.slot.clone(), labels.task.clone(), container.name.clone());
        Action { slot, alloc: labels.alloc, task, instance: name, kind, reason: reason.into() }
    }

    /// Failures that are not the current version's: of the next version, and of clearing away.
    fn note_failures(&mut self, memory: &mut SlotMemory) {
        let now = self.cx.now;
        for failure in self.cx.observed.failures.iter().filter(|f| f.slot == *self.slot) {
            let why = format!("task `{}`: {} failed: {}", failure.task, failure.step, failure.error);
            let backoff = match (failure.step, &mut memory.next) {
                (Step::Stop | Step::Remove, _) => &mut memory.cleanup,
                (_, Some(next)) if next.version.born == failure.alloc => &mut next.backoff,
                _ => continue,
            };
            *backoff = Some(Backoff::after(backoff.as_ref(), now, failure.alloc.as_bytes(), why));
        }
    }

    /// Tombstones: what they name, and what is older in the same place, is done with.
    fn bury(&self, memory: &mut SlotMemory, want: Option<&Want<'a>>, tombstones: &[&Tombstone]) {
        for tombstone in tombstones {
            let new = !memory.leaving.get(&tombstone.id).is_some_and(|l| l.tombstone);
            if new {
                let born = memory.versions().find(|v| v.alloc == tombstone.id).map_or(tombstone.id, |v| v.born);
                let reported = memory.leaving.get(&tombstone.id).is_some_and(|l| l.reported);
                memory.leaving.insert(tombstone.id, Leaving { born, reason: tombstone.reason.clone(), tombstone: true, reported });
            }
            let wanted = want.map(|w| w.alloc.id);
            // An order that was carried out before says nothing about what came after it.
            let ends = |v: &Version| v.alloc == tombstone.id || (new && wanted != Some(v.alloc));
            if memory.current.as_ref().is_some_and(ends) {
                retire(memory, &tombstone.reason, true);
                memory.last_good = None;
            }
            if memory.next.as_ref().is_some_and(|n| ends(&n.version)) {
                abandon_next(memory, &tombstone.reason);
            }
        }
        if self.cx.desired.manifest.is_some() {
            memory.leaving.retain(|id, l| !l.reported || tombstones.iter().any(|t| t.id == *id));
        } else {
            memory.leaving.retain(|_, l| !l.reported || l.tombstone);
        }
    }

    /// Goes on towards what the manifest wants. Answers why it does not, when it does not.
    fn approach(&mut self, memory: &mut SlotMemory, want: Option<&Want<'a>>, taken: &BTreeSet<u16>) -> Option<(AllocStatus, String)> {
        let Some(want) = want else {
            abandon_next(memory, "no longer in the manifest");
            return None;
        };
        let alloc = want.alloc;
        if memory.leaving.get(&alloc.id).is_some_and(|l| l.tombstone) {
            abandon_next(memory, "stopped");
            return Some((AllocStatus::Complete, "stopped by order; an allocation that was stopped does not start again".into()));
        }
        if let Some(current) = &memory.current {
            if current.alloc == alloc.id {
                abandon_next(memory, "no longer in the manifest");
                return None;
            }
            if self.same_work(current, want) {
                adopt(memory, want);
                return None;
            }
        }
        if memory.next.as_ref().is_some_and(|n| n.version.alloc != alloc.id || n.version.specification != alloc.specification) {
            abandon_next(memory, &format!("replaced by version {} before it started", alloc.version));
        }
        let (job, group) = match &want.gate {
            Gate::Open(job, group) => (*job, *group),
            Gate::Waiting(why) => return Some((AllocStatus::Pending, why.clone())),
            Gate::Refused(why) => {
                abandon_next(memory, why);
                return Some((AllocStatus::Failed, why.clone()));
            }
        };
        if memory.next.is_none() {
            let before = memory.current.as_ref().map(|c| c.ports.clone()).unwrap_or_default();
            match assign_ports(group, self.slot, &before, taken) {
                Ok(ports) => memory.next = Some(Next { version: version_of(alloc, group, ports), backoff: None }),
                Err(e) => return Some((AllocStatus::Pending, e.to_string())),
            }
        }
        let next = memory.next.clone()?;
        self.create_next(&next, job, group)
    }

    /// Asks for the containers that the next version still lacks.
    fn create_next(&mut self, next: &Next, job: &Job, group: &Group) -> Option<(AllocStatus, String)> {
        let version = &next.version;
        if let Some(backoff) = next.backoff.as_ref().filter(|b| self.cx.now < b.until) {
            self.wake(backoff.until);
            return Some((AllocStatus::Pending, backoff.why.clone()));
        }
        let Context { observed: Observed { node, policy, .. }, .. } = self.cx;
        let making = Making { node, policy, job, group, slot: self.slot, version };
        for task in &group.tasks {
            if self.instance(version, &task.name).is_some() {
                continue;
            }
            match making.instance(task) {
                Ok(Some(plan)) => {
                    let reason = format!("version {} of job `{}` is ready", version.version, self.slot.job);
                    self.creates.push(self.action(version.born, &task.name, ActionKind::Create(Box::new(plan)), reason));
                }
                Ok(None) => return Some((AllocStatus::Failed, format!("task `{}` has no image", task.name))),
                Err(refusal) => return Some((AllocStatus::Failed, refusal.to_string())),
            }
        }
        let why = next.backoff.as_ref().map_or_else(|| "creates its containers".to_owned(), |b| b.why.clone());
        Some((AllocStatus::Pending, why))
    }

    /// Switches when every container of the next version exists.
    fn promote(&mut self, memory: &mut SlotMemory) {
        let Some(next) = &memory.next else { return };
        let Some((_, group)) = self.group(&next.version) else { return };
        if group.tasks.is_empty() || !group.tasks.iter().all(|t| self.instance(&next.version, &t.name).is_some()) {
            return;
        }
        let version = next.version.clone();
        memory.next = None;
        retire(memory, &format!("replaced by version {}", version.version), false);
        memory.leaving.remove(&version.alloc);
        memory.current = Some(version);
    }

    /// Stops and removes what is neither current nor next, once the current version can take over or an order said so.
    fn clear(&mut self, memory: &mut SlotMemory) {
        let kept: BTreeSet<AllocId> = memory.versions().map(|v| v.born).collect();
        let complete = memory.current.as_ref().is_some_and(|c| match self.group(c) {
            Some((_, group)) => group.tasks.iter().all(|t| self.instance(c, &t.name).is_some()),
            None => true,
        });
        let foreign: Vec<&Instance> = self.instances.iter().copied().filter(|c| !kept.contains(&c.labels.alloc)).collect();
        let ordered = |c: &Instance| memory.leaving.values().any(|l| l.born == c.labels.alloc);
        let tombstoned = memory.current.is_none() && memory.next.is_none() && memory.leaving.values().any(|l| l.tombstone);
        let (doomed, spared): (Vec<&Instance>, Vec<_>) = foreign.into_iter().partition(|c| complete || ordered(c) || tombstoned);
        let running = |list: &[&Instance]| list.iter().any(|c| c.state == State::Running);
        if running(&spared) {
            self.starts.clear(); // Never a mix: they stop once the current version has all its containers.
        }
        if doomed.is_empty() && self.stops.is_empty() {
            memory.cleanup = None;
            return;
        }
        if let Some(until) = memory.cleanup.as_ref().map(|b| b.until).filter(|u| self.cx.now < *u) {
            self.wake(until);
            if running(&doomed) {
                self.starts.clear(); // Never a mix: what should have stopped still runs.
            }
            self.stops.clear();
            return;
        }
        for container in doomed {
            let why = memory.leaving.values().find(|l| l.born == container.labels.alloc).map(|l| l.reason.clone());
            let why = why.unwrap_or_else(|| "belongs to no allocation of this place any more".to_owned());
            if container.state == State::Running {
                self.stops.push(self.on(
                    container,
                    ActionKind::Stop { delay: Millis(0), timeout: container.labels.kill_timeout },
                    why.clone(),
                ));
            }
            self.removes.push(self.on(container, ActionKind::Remove, why));
        }
    }

    /// Does what runs already do the same work as what is wanted?
    fn same_work(&self, current: &Version, want: &Want<'_>) -> bool {
        if current.specification == want.alloc.specification {
            return true;
        }
        let Some((old_job, old_group)) = self.group(current) else { return false };
        let Some(new_job) = self.cx.desired.specifications.get(&want.alloc.specification).map(|s| &s.job) else { return false };
        let Some(new_group) = new_job.group(&self.slot.group).filter(|_| new_job.id == self.slot.job) else { return false };
        let same_job = old_job.name == new_job.name && old_job.meta == new_job.meta;
        same_job && work_of(old_group) == work_of(new_group)
    }

    /// Events and views.
    fn report(
        &self,
        memory: &mut SlotMemory,
        want: Option<&Want<'a>>,
        held: Option<(AllocStatus, String)>,
        current: Option<(AllocStatus, String)>,
        out: &mut Decision,
    ) {
        let restarts = memory.tasks.values().fold(0_u32, |n, t| n.saturating_add(t.restarts));
        if let (Some(version), Some((status, reason))) = (memory.current.clone(), current) {
            tell(memory, version.alloc, status, &reason, restarts, out);
            let ports = version.ports.clone();
            out.allocs.push(self.view(version.alloc, Some(version.version), true, (status, reason), restarts, ports));
        }
        if let (Some(want), Some((status, reason))) = (want, held) {
            let id = want.alloc.id;
            // The switch may just have happened: then the lines above told it.
            if memory.current.as_ref().is_none_or(|c| c.alloc != id) && !memory.leaving.contains_key(&id) {
                tell(memory, id, status, &reason, 0, out);
                let ports = memory.next.as_ref().map(|n| n.version.ports.clone()).unwrap_or_default();
                out.allocs.push(self.view(id, Some(want.alloc.version), false, (status, reason), 0, ports));
            }
        }
        let born_current = memory.current.as_ref().map(|c| c.born);
        let mut gone = vec![];
        for (id, leaving) in &memory.leaving {
            let there = Some(leaving.born) != born_current && self.instances.iter().any(|c| c.labels.alloc == leaving.born);
            if there {
                let reason = format!("stops: {}", leaving.reason);
                out.allocs.push(self.view(*id, None, false, (AllocStatus::Running, reason), 0, Default::default()));
            } else if !leaving.reported {
                gone.push((*id, leaving.reason.clone()));
            }
        }
        for (id, reason) in gone {
            let restarts = memory.reported.get(&id).map_or(0, |r| r.restarts);
            tell(memory, id, AllocStatus::Complete, &reason, restarts, out);
            if let Some(leaving) = memory.leaving.get_mut(&id) {
                leaving.reported = true;
            }
        }
        let manifest = self.cx.desired.manifest;
        memory.leaving.retain(|id, l| !l.reported || l.tombstone && manifest.is_none_or(|m| m.tombstones.iter().any(|t| t.id == *id)));
        let known: BTreeSet<AllocId> =
            memory.versions().map(|v| v.alloc).chain(memory.leaving.keys().copied()).chain(want.map(|w| w.alloc.id)).collect();
        memory.reported.retain(|id, _| known.contains(id));
    }

    fn view(
        &self,
        id: AllocId,
        version: Option<u64>,
        current: bool,
        (status, reason): (AllocStatus, String),
        restarts: u32,
        ports: std::collections::BTreeMap<String, u16>,
    ) -> AllocView {
        let Slot { job, group, index } = self.slot.clone();
        AllocView {
            id,
            job,
            group,
            index,
            version,
            current,
            status,
            reason,
            restarts,
            ports,
            healthy: None,
            until: None,
            decisions: vec![],
        }
    }

    /// The restart policy of a version: its specification's, else the default.
    pub(crate) fn restart_policy(&self, version: &Version) -> RestartPolicy {
        self.group(version).map_or(RestartPolicy::EDGE, |(_, g)| g.restart)
    }
}

/// Reports a state when it differs from what was reported last.
fn tell(memory: &mut SlotMemory, alloc: AllocId, status: AllocStatus, reason: &str, restarts: u32, out: &mut Decision) {
    let reported = Reported { status, reason: reason.to_owned(), restarts };
    if memory.reported.get(&alloc) != Some(&reported) {
        memory.reported.insert(alloc, reported);
        out.events.push(Event::Alloc { alloc, status, reason: reason.to_owned(), restarts, healthy: None, wait: None });
    }
}

/// The current version is done with.
fn retire(memory: &mut SlotMemory, reason: &str, tombstone: bool) {
    if let Some(old) = memory.current.take() {
        let entry = Leaving { born: old.born, reason: reason.to_owned(), tombstone, reported: false };
        memory.leaving.entry(old.alloc).or_insert(entry);
    }
    memory.tasks.clear();
    memory.failed = None;
    memory.up_since = None;
}

/// The next version will not come; what was created of it is cleared away.
fn abandon_next(memory: &mut SlotMemory, reason: &str) {
    if let Some(next) = memory.next.take() {
        let entry = Leaving { born: next.version.born, reason: reason.to_owned(), tombstone: false, reported: false };
        memory.leaving.entry(next.version.alloc).or_insert(entry);
    }
}

/// The current version does the work of the wanted one: it goes on under its name.
fn adopt(memory: &mut SlotMemory, want: &Want<'_>) {
    abandon_next(memory, &format!("version {} runs already", want.alloc.version));
    let Some(current) = &mut memory.current else { return };
    let entry = Leaving {
        born: current.born,
        reason: format!("goes on unchanged as allocation {} of version {}", want.alloc.id.short(), want.alloc.version),
        tombstone: false,
        reported: false,
    };
    let old = std::mem::replace(&mut current.alloc, want.alloc.id);
    current.version = want.alloc.version;
    current.specification = want.alloc.specification;
    memory.leaving.entry(old).or_insert(entry);
    memory.leaving.remove(&want.alloc.id);
}

/// A group without what a running container does not depend on.
fn work_of(group: &Group) -> Group {
    let mut work = group.clone();
    work.count = 0;
    work.constraints.clear();
    work.restart = RestartPolicy::EDGE;
    for task in &mut work.tasks {
        task.constraints.clear();
        if let Driver::Docker(config) = &mut task.driver {
            config.image.clear();
        }
    }
    work
}
