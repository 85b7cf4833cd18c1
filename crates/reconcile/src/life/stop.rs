//! Stops, in the order of life: the leader, then the others, sidecars last. Stops of one stage run side by side.

use skerry_wire::{AllocId, Millis};

use super::{Part, Role, task};
use crate::decision::ActionKind;
use crate::facts::{Instance, State};
use crate::make::instance_name;
use crate::memory::{SlotMemory, Told, Version};
use crate::place::Work;

impl<'a> Work<'a> {
    /// Stops all of the current version but its poststop tasks. Answers whether something still runs.
    pub(crate) fn stop_all(&mut self, memory: &mut SlotMemory, version: &Version, roles: &[Role], why: &str) -> bool {
        let running = self.running(version.born, roles);
        for (role, _) in &running {
            task(memory, &role.name).told = Some(Told { why: why.to_owned(), fault: false });
        }
        self.stop_stage(&running, why)
    }

    /// What runs of an allocation, but its poststop tasks.
    pub(crate) fn running<'r>(&self, born: AllocId, roles: &'r [Role]) -> Vec<(&'r Role, &'a Instance)> {
        let own = self.instances.iter().copied().filter(|c| c.labels.alloc == born && c.state == State::Running);
        let role = |c: &Instance| roles.iter().find(|r| r.name == c.labels.task && r.part != Part::Poststop);
        own.filter_map(|c| Some((role(c)?, c))).collect()
    }

    /// Stops those of the lowest stage. Answers whether there are any.
    pub(crate) fn stop_stage(&mut self, running: &[(&Role, &Instance)], why: &str) -> bool {
        let Some(stage) = running.iter().map(|(r, _)| r.stage()).min() else { return false };
        for (role, instance) in running.iter().filter(|(r, _)| r.stage() == stage) {
            self.stop(instance, role.delay, role.timeout, why);
        }
        true
    }

    /// Stops one instance, unless that is under way, or failed a moment ago.
    pub(crate) fn stop(&mut self, instance: &Instance, delay: Millis, timeout: Millis, why: &str) {
        self.untidy = true;
        if instance.state == State::Running && !self.is_stopping(instance) && !self.held_back() {
            let action = self.on(instance, ActionKind::Stop { delay, timeout }, why);
            self.stops.push(action);
        }
    }

    /// Removes one instance that does not run.
    pub(crate) fn remove(&mut self, instance: &Instance, why: &str) {
        self.untidy = true;
        if instance.state != State::Running && !self.is_stopping(instance) && !self.held_back() {
            let action = self.on(instance, ActionKind::Remove, why);
            self.removes.push(action);
        }
    }

    /// Is a stop of it under way?
    pub(crate) fn is_stopping(&self, instance: &Instance) -> bool {
        self.cx.observed.stopping.contains(&instance.name)
    }

    /// Is a stop under way of an instance that somebody took away meanwhile? Until it ends, the next one of that name would be stopped by it.
    pub(crate) fn is_stopping_unseen(&self, version: &Version, task: &str) -> bool {
        self.instance(version, task).is_none() && self.cx.observed.stopping.contains(&instance_name(&version.born, task))
    }

    /// Did a stop or removal fail a moment ago? Looks again when it may be tried again.
    fn held_back(&mut self) -> bool {
        let until = self.cleanup_until.filter(|until| self.cx.now < *until);
        if let Some(until) = until {
            self.wake(until);
        }
        until.is_some()
    }
}
