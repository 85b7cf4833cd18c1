//! What ended since the last look: by a fault, as it should, by the node, or because it was told to.

use skerry_wire::job::JobType;

use super::restart::{Verdict, after_end};
use super::{Part, Role, ended, task};
use crate::decision::Step;
use crate::facts::State;
use crate::memory::{Backoff, End, SlotMemory, Version};
use crate::place::Work;

impl Work<'_> {
    /// Did the node or the engine take this task down?
    fn cut_off(&self, role: &Role) -> bool {
        self.cx.rebooted || (self.cx.observed.interrupted && role.container)
    }

    /// What node or engine took down is no fault: what gave up is tried again, and what comes before the main tasks comes again.
    pub(crate) fn forgive(&mut self, memory: &mut SlotMemory, roles: &[Role]) {
        if !self.cx.rebooted && !self.cx.observed.interrupted {
            return;
        }
        let Some(current) = memory.current.clone() else { return };
        for role in roles.iter().filter(|r| self.cut_off(r)) {
            task(memory, &role.name).not_before = None;
        }
        let forever = self.group(&current).is_none_or(|(job, _)| !job.kind.runs_to_end());
        if forever && memory.life.end.as_ref().is_some_and(|e| e.failed) && roles.iter().any(|r| self.cut_off(r)) {
            memory.life.end = None;
            (memory.life.again.at, memory.life.again.spent) = (None, false);
            for role in roles {
                task(memory, &role.name).ended = None;
            }
        }
        let lost = |r: &Role| r.part == Part::Main && ended(memory, &r.name).is_none() && !self.runs(&current, &r.name);
        if memory.life.end.is_none() && roles.iter().any(|r| self.cut_off(r) && lost(r)) {
            for role in roles.iter().filter(|r| r.part != Part::Main) {
                let task = task(memory, &role.name);
                (task.ended, task.reached) = (None, false);
            }
        }
    }

    /// Counts what happened to each task since the last call.
    pub(crate) fn take_ends(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role]) {
        for role in roles {
            self.take_files(memory, current, role);
            self.take_end(memory, current, role);
        }
    }

    /// A write or a signal that failed is tried again later; one that did not fail has arrived.
    fn take_files(&mut self, memory: &mut SlotMemory, current: &Version, role: &Role) {
        let now = self.cx.now;
        let failed = self.failure(current, &role.name, &[Step::Write, Step::Signal]);
        let task = task(memory, &role.name);
        match failed {
            Some(why) => {
                task.unsure = true;
                task.write = Some(Backoff::after(task.write.as_ref(), now, current.born.as_bytes(), why));
            }
            None if !task.unsure => {
                task.signal = None;
                task.write = None;
            }
            None => {}
        }
    }

    /// Why the newest of these steps failed, if one did.
    fn failure(&self, version: &Version, task: &str, steps: &[Step]) -> Option<String> {
        let own = self.cx.observed.failures.iter().rev();
        let found = own.filter(|f| f.slot == *self.slot && f.alloc == version.born && f.task == task).find(|f| steps.contains(&f.step))?;
        Some(format!("task `{task}`: {} failed: {}", found.step, found.error))
    }

    fn take_end(&mut self, memory: &mut SlotMemory, current: &Version, role: &Role) {
        let (name, now) = (&role.name, self.cx.now);
        let failed = self.failure(current, name, &[Step::Create, Step::Start]);
        let instance = self.instance(current, name).map(|c| &c.state);
        let task = task(memory, name);
        let ended = match instance {
            Some(State::Exited { code, out_of_memory, mark }) if task.exit.as_ref() != Some(mark) => {
                task.exit = Some(mark.clone());
                Some((*code, *out_of_memory))
            }
            Some(State::Running) => {
                task.since.get_or_insert(now);
                task.reached = true;
                None
            }
            _ => None,
        };
        if instance != Some(&State::Running) {
            task.since = None;
        }
        let success = ended.is_some_and(|(code, oom)| code == Some(0) && !oom);
        let told = if ended.is_some() || instance.is_none() { task.told.take() } else { None };
        let why = match (failed, ended) {
            (Some(why), _) => why,
            (None, None) => return,
            (None, Some(_)) if told.as_ref().is_some_and(|t| !t.fault) => {
                task.why = told.map(|t| t.why).unwrap_or_default();
                // What was stopped before its time has not ended.
                if role.part == Part::Poststop {
                    task.ended = Some(false);
                }
                return;
            }
            (None, Some(_)) if told.is_some() => told.map(|t| t.why).unwrap_or_default(),
            // Without any memory a run that ended well is not taken for one that was cut off.
            (None, Some(_)) if self.cut_off(role) && !(self.cx.amnesia && success && !role.forever) => {
                task.why = "the node or its engine restarted".to_owned();
                return;
            }
            (None, Some(_)) if success && !role.forever => {
                task.ended = Some(true);
                task.why = format!("task `{name}` is done");
                return;
            }
            (None, Some((_, true))) => format!("task `{name}` was killed for want of memory"),
            (None, Some((Some(code), _))) => format!("task `{name}` ended with exit code {code}"),
            (None, Some((None, _))) => format!("task `{name}` ended while the agent was away"),
        };
        task.why.clone_from(&why);
        if role.part == Part::Poststop {
            task.ended = Some(false);
            return;
        }
        if memory.life.end.is_some() {
            return;
        }
        let policy = role.policy;
        let task = super::task(memory, name);
        if after_end(task, &policy, now, &current.born, name) == Verdict::GiveUp {
            task.ended = Some(false);
            let why = format!("{why}; all {} restarts within {} are spent", policy.attempts, policy.interval);
            memory.note(now, format!("gives up: {why}"));
            memory.life.end = Some(End { failed: true, why, settled: false });
        }
    }

    /// Is the run as a whole over?
    pub(crate) fn judge_end(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role]) {
        let Some((job, group)) = self.group(current) else { return };
        let (kind, limit) = (job.kind, group.max_run_duration);
        if memory.life.end.is_some() || memory.life.again.remaking {
            return;
        }
        let mains = || roles.iter().filter(|r| r.part == Part::Main);
        if mains().any(|r| r.leader && ended(memory, &r.name) == Some(true)) {
            let why = "its leader is done".to_owned();
            memory.note(self.cx.now, why.clone());
            memory.life.end = Some(End { failed: false, why, settled: false });
            return;
        }
        if kind.runs_to_end() && mains().next().is_some() && mains().all(|r| ended(memory, &r.name) == Some(true)) {
            let why = "all its tasks are done".to_owned();
            memory.note(self.cx.now, why.clone());
            memory.life.end = Some(End { failed: false, why, settled: false });
            return;
        }
        self.limit_run(memory, current, roles, kind, limit.map(|l| l.0));
    }

    /// A run that takes too long failed.
    fn limit_run(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role], kind: JobType, limit: Option<u64>) {
        let Some(limit) = limit.filter(|_| kind.runs_to_end()) else { return };
        if memory.life.run_since.is_none() && roles.iter().any(|r| self.runs(current, &r.name)) {
            memory.life.run_since = Some(self.cx.now);
        }
        let Some(since) = memory.life.run_since else { return };
        let at = since.saturating_add(limit);
        if self.cx.now < at {
            self.wake(at);
            return;
        }
        let why = format!("ran for {}, longer than it may", skerry_wire::Millis(limit));
        memory.note(self.cx.now, why.clone());
        memory.life.end = Some(End { failed: true, why, settled: false });
    }
}
