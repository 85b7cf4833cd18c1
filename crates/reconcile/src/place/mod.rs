//! One place: which version it holds, which one comes next, and what is cleared away.
//!
//! The way of a decision through [`Work::run`]: failures are noted, tombstones and orders carried out ([`orders`]), what the manifest wants is
//! approached ([`approach`]), switched to ([`switch`], where ports change hands [`handover`]), what left is cleared away ([`clear`]), the current version lives
//! ([`crate::life`]), and all that is told ([`report`]).

mod approach;
mod clear;
mod handover;
mod orders;
mod report;
mod switch;

pub(crate) use switch::{abandon_next, retire};

use std::collections::BTreeSet;

use skerry_wire::AllocId;
use skerry_wire::job::{Group, Job};
use skerry_wire::manifest::{Tombstone, Values};
use skerry_wire::poll::AllocStatus;

use crate::decision::{Action, ActionKind, Decision, Step};
use crate::facts::{Desired, Instance, Observed, Slot};
use crate::life::Asked;
use crate::make::instance_name;
use crate::memory::{Backoff, Memory, SlotMemory, Version};
use crate::want::{Gate, Want};

/// What holds for the whole call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) desired: Desired<'a>,
    pub(crate) observed: &'a Observed<'a>,
    /// Milliseconds of this boot.
    pub(crate) now: u64,
    /// The time of day, when it is known.
    pub(crate) wall: Option<skerry_wire::Timestamp>,
    /// The node restarted, or nothing is remembered: tasks ended with it, not by themselves.
    pub(crate) rebooted: bool,
    /// Nothing was remembered.
    pub(crate) amnesia: bool,
    /// Orders that were carried out before.
    pub(crate) orders_done: &'a BTreeSet<u64>,
}

impl<'a> Context<'a> {
    /// What the server gives to templates.
    pub(crate) fn values(&self) -> Option<&'a Values> {
        self.desired.manifest.map(|m| &m.values)
    }
}

/// A status with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) status: AllocStatus,
    pub(crate) reason: String,
    /// What it waits for ends by itself at this time.
    pub(crate) until: Option<u64>,
}

impl Status {
    pub(crate) fn new(status: AllocStatus, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), until: None }
    }

    pub(crate) fn until(self, at: u64) -> Self {
        Self { until: Some(at), ..self }
    }
}

/// The work on one place, collected.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) cx: Context<'a>,
    pub(crate) slot: &'a Slot,
    pub(crate) instances: Vec<&'a Instance>,
    pub(crate) creates: Vec<Action>,
    pub(crate) writes: Vec<Action>,
    pub(crate) stops: Vec<Action>,
    pub(crate) starts: Vec<Action>,
    pub(crate) removes: Vec<Action>,
    pub(crate) wake_at: Option<u64>,
    /// Why nothing of the current version may start: something else of the place still runs.
    pub(crate) blocked: Option<String>,
    /// Something was to be stopped or removed.
    pub(crate) untidy: bool,
    /// That failed a moment ago; not again before this.
    pub(crate) cleanup_until: Option<u64>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(cx: Context<'a>, slot: &'a Slot) -> Self {
        Self {
            cx,
            slot,
            instances: cx.observed.instances.iter().filter(|c| c.labels.slot == *slot).collect(),
            creates: vec![],
            writes: vec![],
            stops: vec![],
            starts: vec![],
            removes: vec![],
            wake_at: None,
            blocked: None,
            untidy: false,
            cleanup_until: None,
        }
    }

    /// Decides everything about the place. `others`: what is remembered of the other places.
    pub(crate) fn run(
        mut self,
        memory: &mut SlotMemory,
        others: &mut Memory,
        want: Option<&Want<'a>>,
        tombstones: &[&Tombstone],
        taken: &BTreeSet<u16>,
        out: &mut Decision,
    ) {
        self.note_failures(memory);
        self.cleanup_until = memory.cleanup.as_ref().map(|b| b.until);
        self.bury(memory, want, tombstones);
        self.obey(memory, want);
        self.end_run(memory, others);
        let over = want.is_some_and(|w| others.is_over(w.alloc));
        let held = self.approach(memory, want, over, taken);
        let held = self.switch(memory, others, want).or(held);
        self.clear(memory);
        let mut asked = Asked::default();
        let mut current =
            if self.is_periodic(memory.current.as_ref()) { self.by_the_clock(memory, others) } else { self.supervise(memory, &mut asked) };
        if let (Some(status), Some(Want { alloc, gate: Gate::Refused(why) })) = (&mut current, want)
            && memory.current.as_ref().is_some_and(|c| c.alloc == alloc.id && c.specification != alloc.specification)
        {
            status.reason = format!("{}; {why}", status.reason);
        }
        if !self.untidy {
            memory.cleanup = None;
        }
        self.note_actions(memory);
        let parent = self.slot.parent().and_then(|p| others.slots.get(&p)?.current.as_ref().map(|c| c.alloc));
        self.report(memory, parent, want, held, current, out);
        out.checks.append(&mut asked.checks);
        out.needed.append(&mut asked.needed);
        for list in [self.creates, self.writes, self.stops, self.starts, self.removes] {
            out.actions.extend(list);
        }
        out.wake_at = out.wake_at.into_iter().chain(self.wake_at).min();
    }

    /// Looks again at `at`.
    pub(crate) fn wake(&mut self, at: u64) {
        // A look at this very moment would be the one that is made.
        let at = at.max(self.cx.now.saturating_add(1));
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }

    /// The instance of one task.
    pub(crate) fn instance(&self, version: &Version, task: &str) -> Option<&'a Instance> {
        self.instances.iter().copied().find(|c| c.labels.alloc == version.born && c.labels.task == task)
    }

    /// Job and group of a version, when its specification is held.
    pub(crate) fn group(&self, version: &Version) -> Option<(&'a Job, &'a Group)> {
        self.group_of(&version.specification)
    }

    /// The place's group in a specification that is held.
    pub(crate) fn group_of(&self, specification: &skerry_wire::Digest) -> Option<(&'a Job, &'a Group)> {
        let job = &self.cx.desired.specifications.get(specification)?.job;
        (job.id == self.slot.job_id()).then_some(())?;
        Some((job, job.group(&self.slot.group)?))
    }

    /// Does the place hold a periodic job? Its runs have places of their own.
    pub(crate) fn is_periodic(&self, version: Option<&Version>) -> bool {
        self.slot.run().is_none() && version.and_then(|v| self.group(v)).is_some_and(|(job, _)| job.periodic.is_some())
    }

    pub(crate) fn action(&self, alloc: AllocId, task: &str, kind: ActionKind, reason: impl Into<String>) -> Action {
        let instance = instance_name(&alloc, task);
        Action { slot: self.slot.clone(), alloc, task: task.to_owned(), instance, kind, reason: reason.into() }
    }

    pub(crate) fn on(&self, instance: &Instance, kind: ActionKind, reason: impl Into<String>) -> Action {
        let labels = &instance.labels;
        let (slot, task, name) = (labels.slot.clone(), labels.task.clone(), instance.name.clone());
        Action { slot, alloc: labels.alloc, task, instance: name, kind, reason: reason.into() }
    }

    /// Failures that are not the current version's: of the next version, and of clearing away.
    fn note_failures(&mut self, memory: &mut SlotMemory) {
        let now = self.cx.now;
        for failure in self.cx.observed.failures.iter().filter(|f| f.slot == *self.slot) {
            let why = format!("task `{}`: {} failed: {}", failure.task, failure.step, failure.error);
            let current = memory.current.as_ref().is_some_and(|c| c.born == failure.alloc);
            if failure.step == Step::Start
                && !current
                && let Some(leaving) = memory.leaving.values_mut().find(|l| l.born == failure.alloc)
            {
                // Nothing of it starts but poststop tasks, and one that does not start must not hold up what comes after it.
                leaving.no_poststop = true;
                memory.note(now, why);
                continue;
            }
            let backoff = match (failure.step, &mut memory.next) {
                (Step::Stop | Step::Remove, _) => &mut memory.cleanup,
                (_, Some(next)) if next.version.born == failure.alloc => &mut next.backoff,
                _ => continue,
            };
            *backoff = Some(Backoff::after(backoff.as_ref(), now, failure.alloc.as_bytes(), why));
        }
    }

    /// Keeps what is about to be done for people.
    fn note_actions(&self, memory: &mut SlotMemory) {
        let all = [&self.creates, &self.writes, &self.stops, &self.starts, &self.removes];
        for action in all.into_iter().flatten() {
            memory.note(self.cx.now, format!("{} `{}`: {}", action.step(), action.task, action.reason));
        }
    }
}
