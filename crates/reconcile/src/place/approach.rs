//! Goes on towards what the manifest wants, or back to the last good version.

use std::collections::BTreeSet;

use skerry_wire::job::{Driver, Group, Job, RestartPolicy};
use skerry_wire::poll::AllocStatus;

use super::switch::{abandon_next, adopt};
use super::{Status, Work};
use crate::decision::ActionKind;
use crate::facts::State;
use crate::make::{Making, assign_ports};
use crate::memory::{Next, SlotMemory, Version};
use crate::want::{Gate, Want, version_of};

impl<'a> Work<'a> {
    /// Answers why what is wanted is not there, when it is not. `over`: it ran to its end before, and left the place.
    pub(super) fn approach(
        &mut self,
        memory: &mut SlotMemory,
        want: Option<&Want<'a>>,
        over: bool,
        taken: &BTreeSet<u16>,
    ) -> Option<Status> {
        if self.slot.run().is_some() {
            let next = memory.next.clone()?;
            let (job, group) = self.group(&next.version)?;
            return self.create_next(&next, job, group);
        }
        let Some(want) = want else {
            if !self.go_back(memory) {
                abandon_next(memory, "no longer in the manifest");
            }
            return None;
        };
        let alloc = want.alloc;
        if memory.leaving.get(&alloc.id).is_some_and(|l| l.tombstone) {
            abandon_next(memory, "stopped");
            return Some(Status::new(AllocStatus::Complete, "stopped by order; an allocation that was stopped does not start again"));
        }
        if over && memory.current.as_ref().is_none_or(|c| c.alloc != alloc.id) {
            abandon_next(memory, "ran to its end before");
            return Some(Status::new(
                AllocStatus::Complete,
                "ran to its end before, and does not run again; `skerry job run --again` orders another run",
            ));
        }
        if let Some(why) = memory.bad.get(&alloc.specification).cloned() {
            if !self.go_back(memory) {
                abandon_next(memory, &why);
            }
            return Some(Status::new(AllocStatus::Failed, why));
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
            Gate::Waiting(why) => {
                self.go_back(memory);
                return Some(Status::new(AllocStatus::Pending, why));
            }
            Gate::Refused(why) => {
                abandon_next(memory, why);
                self.go_back(memory);
                return Some(Status::new(AllocStatus::Failed, why));
            }
        };
        if memory.next.is_none() {
            let before = memory.current.as_ref().map(|c| c.ports.clone()).unwrap_or_default();
            let ports = if job.periodic.is_some() { Ok(Default::default()) } else { assign_ports(group, self.slot, &before, taken) };
            match ports {
                Ok(ports) => memory.next = Some(Next { version: version_of(alloc, group, ports), backoff: None, reverts: false }),
                Err(e) => return Some(Status::new(AllocStatus::Pending, e.to_string())),
            }
        }
        let next = memory.next.clone()?;
        self.create_next(&next, job, group)
    }

    /// Goes back to the last good version, when the current one is to be left. Answers whether it does.
    fn go_back(&mut self, memory: &mut SlotMemory) -> bool {
        if !memory.reverts() {
            return false;
        }
        let Some(good) = memory.refuge().cloned() else { return false };
        let Some((job, group)) = self.group(&good) else {
            memory.note_state(self.cx.now, format!("cannot go back to version {}: its specification is not held", good.version));
            return false;
        };
        if memory.next.as_ref().is_none_or(|n| n.version.born != good.born) {
            abandon_next(memory, "the version before comes back");
            memory.next = Some(Next { version: good, backoff: None, reverts: true });
        }
        if let Some(next) = memory.next.clone()
            && let Some(status) = self.create_next(&next, job, group)
        {
            memory.note_state(self.cx.now, format!("goes back: {}", status.reason));
        }
        true
    }

    /// Asks for the instances that the next version still lacks.
    fn create_next(&mut self, next: &Next, job: &Job, group: &Group) -> Option<Status> {
        let version = &next.version;
        if job.periodic.is_some() && self.slot.run().is_none() {
            return None;
        }
        if let Some(backoff) = next.backoff.as_ref().filter(|b| self.cx.now < b.until) {
            self.wake(backoff.until);
            return Some(Status::new(AllocStatus::Pending, &backoff.why).until(backoff.until));
        }
        if self.clear_earlier_try(version) {
            return Some(Status::new(AllocStatus::Pending, "waits until what is left of an earlier try is gone"));
        }
        let observed = self.cx.observed;
        let making =
            Making { node: observed.node, policy: observed.policy, values: self.cx.values(), job, group, slot: self.slot, version };
        for task in &group.tasks {
            if self.instance(version, &task.name).is_some() {
                continue;
            }
            if self.is_stopping_unseen(version, &task.name) {
                return Some(Status::new(AllocStatus::Pending, format!("waits until task `{}` is stopped", task.name)));
            }
            match making.instance(task) {
                Ok(Some(plan)) => {
                    let reason = format!("version {} of job `{}` is ready", version.version, self.slot.job);
                    self.creates.push(self.action(version.born, &task.name, ActionKind::Create(Box::new(plan)), reason));
                }
                Ok(None) => return Some(Status::new(AllocStatus::Failed, format!("task `{}` has no image", task.name))),
                Err(refusal) => return Some(Status::new(AllocStatus::Failed, refusal.to_string())),
            }
        }
        let why = next.backoff.as_ref().map_or_else(|| "creates its instances".to_owned(), |b| b.why.clone());
        Some(Status::new(AllocStatus::Pending, why))
    }

    /// A version that is tried again gets new instances. Answers whether old ones are still there.
    fn clear_earlier_try(&mut self, version: &Version) -> bool {
        let why = "left of an earlier try";
        let old: Vec<_> = self.instances.iter().copied().filter(|c| c.labels.alloc == version.born && c.state != State::Created).collect();
        for instance in &old {
            if instance.state == State::Running {
                self.stop(instance, skerry_wire::Millis(0), instance.labels.kill_timeout, why);
            } else {
                self.remove(instance, why);
            }
        }
        !old.is_empty()
    }

    /// Does what runs already do the same work as what is wanted?
    fn same_work(&self, current: &Version, want: &Want<'_>) -> bool {
        if current.specification == want.alloc.specification {
            return true;
        }
        let Some((old_job, old_group)) = self.group(current) else { return false };
        let Some((new_job, new_group)) = self.group_of(&want.alloc.specification) else { return false };
        let same_job = old_job.name == new_job.name
            && old_job.meta == new_job.meta
            && old_job.kind == new_job.kind
            && old_job.periodic.is_some() == new_job.periodic.is_some();
        // A run to an end that is ordered anew is to run anew.
        same_job && !(new_job.kind.runs_to_end() && new_job.periodic.is_none()) && work_of(old_group) == work_of(new_group)
    }
}

/// A group without what a running instance does not depend on.
fn work_of(group: &Group) -> Group {
    let mut work = group.clone();
    work.count = 0;
    work.constraints.clear();
    work.restart = RestartPolicy::EDGE;
    work.reschedule = Default::default();
    work.update = Default::default();
    work.disconnect = Default::default();
    work.shutdown_delay = Default::default();
    for task in &mut work.tasks {
        task.constraints.clear();
        task.restart = None;
        task.shutdown_delay = Default::default();
        if let Driver::Docker(config) = &mut task.driver {
            config.image.clear();
        }
    }
    work
}
