//! Starts what is down and may start, in the order of life.

use skerry_wire::Millis;
use skerry_wire::job::{Driver, Group, Job, Task};
use skerry_wire::poll::AllocStatus;

use super::{Asked, Part, Role, ended, task};
use crate::decision::{ActionKind, NeededImage};
use crate::facts::{Refusal, State};
use crate::make::Making;
use crate::memory::{SlotMemory, Version};
use crate::place::{Status, Work};

/// Why not everything runs that should.
#[derive(Debug, Clone)]
pub(crate) struct Down {
    pub(crate) why: String,
    pub(crate) until: Option<u64>,
}

impl Down {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), until: None }
    }

    pub(crate) fn status(self) -> Status {
        Status { status: AllocStatus::Pending, reason: self.why, until: self.until }
    }
}

impl Work<'_> {
    /// Goes through the tasks in the order of life. Answers the first reason why not all is as it should be.
    pub(crate) fn keep_up(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role], asked: &mut Asked) -> Option<Down> {
        if self.blocked.is_none() {
            memory.life.since.get_or_insert(self.cx.now);
        }
        let mut down: Option<Down> = None;
        for role in roles.iter().filter(|r| r.part != Part::Poststop) {
            let why = self.keep_task_up(memory, current, roles, role, asked);
            down = down.or(why);
        }
        self.keep_poststop(memory, current, roles, asked);
        down
    }

    /// What must be before the task may start.
    fn waits_for(&self, memory: &SlotMemory, current: &Version, roles: &[Role], role: &Role) -> Option<String> {
        let met = |r: &Role| {
            if r.sidecar { memory.life.tasks.get(&r.name).is_some_and(|t| t.reached) } else { ended(memory, &r.name) == Some(true) }
        };
        let before = match role.part {
            Part::Prestart => roles.iter().take_while(|r| r.name != role.name).find(|r| !met(r)),
            Part::Main => roles.iter().find(|r| r.part == Part::Prestart && !met(r)),
            _ => roles.iter().find(|r| r.part == Part::Main && !self.runs(current, &r.name) && ended(memory, &r.name).is_none()),
        };
        before.map(|r| format!("waits for task `{}`", r.name))
    }

    fn keep_task_up(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role], role: &Role, asked: &mut Asked) -> Option<Down> {
        let name = &role.name;
        if self.runs(current, name) {
            self.follow_files(memory, current, name, true);
            if task(memory, name).told.is_some() {
                self.stop_told(memory, current, name);
                return Some(Down::new(task(memory, name).told.as_ref().map(|t| t.why.clone()).unwrap_or_default()));
            }
            return (!role.forever && role.part == Part::Prestart).then(|| Down::new(format!("task `{name}` runs")));
        }
        if ended(memory, name).is_some() {
            return None;
        }
        if let Some(why) = self.blocked.clone() {
            return Some(Down::new(why));
        }
        let waits = self.waits_for(memory, current, roles, role);
        let task = task(memory, name);
        let why = if task.why.is_empty() { format!("task `{name}` starts") } else { task.why.clone() };
        if let Some(at) = task.not_before.filter(|at| self.cx.now < *at) {
            self.wake(at);
            return Some(Down { why, until: Some(at) });
        }
        if let Err(down) = self.have_instance(memory, current, name, asked) {
            return Some(down);
        }
        if let Some(waits) = waits {
            return Some(Down::new(waits));
        }
        if self.instance(current, name).is_some_and(|i| self.is_stopping(i)) {
            return Some(Down::new(why));
        }
        if self.instance(current, name).is_some() && !self.follow_files(memory, current, name, false) {
            let why = super::task(memory, name).write.as_ref().map(|b| (b.why.clone(), b.until));
            return Some(why.map_or_else(|| Down::new("its files are written"), |(why, until)| Down { why, until: Some(until) }));
        }
        let start = self.action(current.born, name, ActionKind::Start, why.clone());
        self.starts.push(start);
        Some(Down::new(why))
    }

    /// Poststop tasks are there before they are needed: then nothing may be.
    fn keep_poststop(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role], asked: &mut Asked) {
        for role in roles.iter().filter(|r| r.part == Part::Poststop) {
            if let Some(State::Exited { .. }) = self.instance(current, &role.name).map(|i| &i.state) {
                // It ran at an end that is no end any more: it has to be able to run again.
                task(memory, &role.name).ended = None;
                let instance = self.instance(current, &role.name);
                instance.into_iter().for_each(|i| self.remove(i, "it ran at an end that is no end any more"));
                continue;
            }
            let _ = self.have_instance(memory, current, &role.name, asked);
        }
    }

    /// Is there an instance that may start? Asks for one when there is none, or when its environment is another one by now.
    fn have_instance(&mut self, memory: &mut SlotMemory, current: &Version, name: &str, asked: &mut Asked) -> Result<(), Down> {
        let there = self.instance(current, name);
        let Some((job, group)) = self.group(current) else {
            let gone = format!("the instance of task `{name}` is gone and its specification is not held");
            return if there.is_some() { Ok(()) } else { Err(Down::new(gone)) };
        };
        let Some(wanted) = group.tasks.iter().find(|t| t.name == name) else { return Ok(()) };
        if self.is_stopping_unseen(current, name) {
            return Err(Down::new(format!("waits until task `{name}` is stopped")));
        }
        if self.cx.observed.blind && there.is_none() && matches!(wanted.driver, Driver::Docker(_)) {
            return Err(Down::new("the engine has not answered yet"));
        }
        // Without a manifest the values of the server are not known: what was made starts with what it was made of.
        if there.is_some() && self.cx.desired.manifest.is_none() {
            return Ok(());
        }
        let observed = self.cx.observed;
        let making = Making {
            node: observed.node,
            policy: observed.policy,
            values: self.cx.values(),
            job,
            group,
            slot: self.slot,
            version: current,
        };
        let plan = match making.instance(wanted) {
            Ok(Some(made)) => made,
            Ok(None) => return Err(Down::new(format!("task `{name}` has no image"))),
            // What was made before starts with what it was made of.
            Err(Refusal::Template { .. }) if there.is_some() => return Ok(()),
            Err(refusal) => return Err(Down::new(refusal.to_string())),
        };
        let env = making.template_env(wanted);
        let task = task(memory, name);
        if let Some(instance) = there {
            let made = *task.made_env.get_or_insert(env);
            if made == env {
                return Ok(());
            }
            self.remove(instance, "its environment is another one by now");
            return Err(Down::new(format!("task `{name}` is made anew with its new environment")));
        }
        if let Some(down) = self.lacks_image(wanted, (job, group), asked) {
            return Err(down);
        }
        task.made_env = Some(env);
        task.files = making.digests(wanted).unwrap_or_default();
        task.unsure = false;
        let create = self.action(current.born, name, ActionKind::Create(Box::new(plan)), format!("task `{name}` has no instance"));
        self.creates.push(create);
        Ok(())
    }

    fn lacks_image(&self, wanted: &Task, (job, group): (&Job, &Group), asked: &mut Asked) -> Option<Down> {
        let Driver::Docker(config) = &wanted.driver else { return None };
        let image = config.image_id.filter(|i| !self.cx.observed.images.contains(i))?;
        asked.needed.push(NeededImage::of(image, &config.image, job, group));
        Some(Down::new(format!("instance and image {} of task `{}` are gone; fetches the image again", config.image, wanted.name)))
    }

    /// Stops a task that was told to stop.
    pub(crate) fn stop_told(&mut self, memory: &SlotMemory, current: &Version, name: &str) {
        let why = memory.life.tasks.get(name).and_then(|t| t.told.as_ref()).map(|t| t.why.clone());
        let (Some(instance), Some(why)) = (self.instance(current, name), why) else { return };
        if !self.stops.iter().any(|a| a.instance == instance.name) {
            self.stop(instance, Millis(0), instance.labels.kill_timeout, &why);
        }
    }
}
