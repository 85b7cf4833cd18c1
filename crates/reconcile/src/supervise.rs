//! Keeps the current version of a place running: counts ends, starts again, gives up when the policy says so.

use std::collections::BTreeSet;

use skerry_wire::Millis;
use skerry_wire::job::Driver;
use skerry_wire::poll::AllocStatus;

use crate::decision::{ActionKind, Decision, NeededImage, Step};
use crate::facts::{Instance, Observed, State};
use crate::making::Making;
use crate::memory::{SlotMemory, Version};
use crate::plan::InstancePlan;
use crate::reconcile::MIN_HEALTHY_MS;
use crate::restart::{Verdict, after_end};
use crate::slot::Work;

impl Work<'_> {
    /// Decides about the current version, and answers its status and why.
    pub(crate) fn supervise(&mut self, memory: &mut SlotMemory, out: &mut Decision) -> Option<(AllocStatus, String)> {
        let current = memory.current.clone()?;
        if self.cx.interrupted {
            // An engine that goes down ends its containers first: that was no fault of theirs.
            memory.failed = None;
        }
        let tasks = self.tasks_of(&current);
        memory.tasks.retain(|name, _| tasks.contains(name));
        for name in &tasks {
            if self.cx.interrupted
                && let Some(task) = memory.tasks.get_mut(name)
            {
                task.not_before = None;
            }
            self.count_end(memory, &current, name);
        }
        if let Some(why) = memory.failed.clone() {
            memory.up_since = None;
            let running = self.own(&current).filter(|c| c.state == State::Running);
            let stop = |c: &Instance| ActionKind::Stop { delay: Millis(0), timeout: c.labels.kill_timeout };
            let stops: Vec<_> = running.map(|c| self.on(c, stop(c), format!("its group failed: {why}"))).collect();
            self.stops.extend(stops);
            return Some((AllocStatus::Failed, why));
        }
        let mut down = None;
        for name in &tasks {
            let why = self.keep_up(memory, &current, name, out);
            down = down.or(why);
        }
        if let Some(why) = down {
            memory.up_since = None;
            return Some((AllocStatus::Pending, why));
        }
        let since = *memory.up_since.get_or_insert(self.cx.now);
        if memory.last_good.as_ref() != Some(&current) {
            let good_at = since.saturating_add(MIN_HEALTHY_MS);
            if self.cx.now >= good_at {
                memory.last_good = Some(current);
            } else {
                self.wake(good_at);
            }
        }
        Some((AllocStatus::Running, "all tasks run".to_owned()))
    }

    /// Names of the version's tasks: from its specification, else from its containers.
    fn tasks_of(&self, version: &Version) -> BTreeSet<String> {
        match self.group(version) {
            Some((_, group)) => group.tasks.iter().map(|t| t.name.clone()).collect(),
            None => self.own(version).map(|c| c.labels.task.clone()).collect(),
        }
    }

    fn own(&self, version: &Version) -> impl Iterator<Item = &Instance> {
        self.instances.iter().copied().filter(|c| c.labels.alloc == version.born)
    }

    /// Counts what happened to a task since the last call: an end, or a failed create or start.
    fn count_end(&mut self, memory: &mut SlotMemory, current: &Version, name: &str) {
        let state = self.instance(current, name).map(|c| &c.state);
        let task = memory.tasks.entry(name.to_owned()).or_default();
        let ended = match state {
            Some(State::Exited { code, out_of_memory, mark }) if task.exit.as_ref() != Some(mark) => {
                task.exit = Some(mark.clone());
                let why = match (*out_of_memory, *code) {
                    (true, _) => "was killed for want of memory".to_owned(),
                    (false, Some(code)) => format!("ended with exit code {code}"),
                    (false, None) => "ended while the agent was away".to_owned(),
                };
                Some(format!("task `{name}` {why}"))
            }
            _ => None,
        };
        let failed =
            self.cx.observed.failures.iter().rev().find(|f| {
                f.slot == *self.slot && f.alloc == current.born && f.task == name && matches!(f.step, Step::Create | Step::Start)
            });
        let why = match (failed, ended) {
            (Some(f), _) => format!("task `{name}`: {} failed: {}", f.step, f.error),
            (None, Some(_)) if self.cx.interrupted => {
                task.why = "the node or its engine restarted".to_owned();
                return;
            }
            (None, Some(why)) => why,
            (None, None) => return,
        };
        task.why.clone_from(&why);
        let policy = self.restart_policy(current);
        if after_end(task, &policy, self.cx.now, &current.born, name) == Verdict::GiveUp && memory.failed.is_none() {
            memory.failed = Some(format!("{why}; all {} restarts within {} are spent", policy.attempts, policy.interval));
        }
    }

    /// Starts a task that is down and may start. Answers why it is down.
    fn keep_up(&mut self, memory: &mut SlotMemory, current: &Version, name: &str, out: &mut Decision) -> Option<String> {
        let container = self.instance(current, name);
        if container.is_some_and(|c| c.state == State::Running) {
            return None;
        }
        let task = memory.tasks.entry(name.to_owned()).or_default();
        let why = if task.why.is_empty() { format!("task `{name}` starts") } else { task.why.clone() };
        if let Some(at) = task.not_before.filter(|at| self.cx.now < *at) {
            self.wake(at);
            return Some(why);
        }
        let Observed { node, policy, images, .. } = self.cx.observed;
        let known = self.group(current);
        if let Some((job, group)) = known {
            let making = Making { node, policy, job, group, slot: self.slot, version: current };
            let Some(wanted) = group.tasks.iter().find(|t| t.name == name) else { return Some(why) };
            let plan = match making.instance(wanted) {
                Ok(Some(plan)) => plan,
                Ok(None) => return Some(format!("task `{name}` has no image")),
                Err(refusal) => return Some(refusal.to_string()),
            };
            if container.is_none() {
                if let (InstancePlan::Container(plan), Driver::Docker(config)) = (&plan, &wanted.driver)
                    && !images.contains(&plan.image)
                {
                    out.needed.push(NeededImage::of(plan.image, &config.image, job));
                    return Some(format!("container and image {} of task `{name}` are gone; fetches the image again", config.image));
                }
                let reason = format!("the container of task `{name}` is gone");
                self.creates.push(self.action(current.born, name, ActionKind::Create(Box::new(plan)), reason));
            }
        } else if container.is_none() {
            return Some(format!("the container of task `{name}` is gone and its specification is not held"));
        }
        self.starts.push(self.action(current.born, name, ActionKind::Start, why.clone()));
        Some(why)
    }
}
