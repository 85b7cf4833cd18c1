//! The life of the current version of a place: what ended, what starts, what is made anew, is it healthy.
//!
//! The way through [`Work::supervise`]: ends are counted ([`ends`]), the end of the whole is judged ([`end`]), an ended allocation is
//! wound down and perhaps made anew ([`again`]); else what is down starts ([`start`]), files follow their templates ([`files`]), checks
//! are asked for and judged ([`checks`]), and health follows ([`health`]).

mod again;
mod checks;
mod end;
mod ends;
mod files;
mod health;
mod restart;
mod roles;
mod start;
mod stop;

use skerry_wire::Millis;
use skerry_wire::job::{Driver, Task};
use skerry_wire::poll::AllocStatus;

use crate::decision::{CheckPlan, NeededImage};
use crate::facts::{Instance, State};
use crate::memory::{SlotMemory, TaskMemory, Version};
use crate::place::{Status, Work};

pub(crate) use roles::{Part, Role, roles};

/// Told where a limit of the jobspec does not hold.
const UNBOUNDED: &str = "; its memory and processor are not bounded: the node has no control groups for them";

/// What is asked for beside actions.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) needed: Vec<NeededImage>,
    pub(crate) checks: Vec<CheckPlan>,
}

impl Work<'_> {
    /// Decides about the current version, and answers its status.
    pub(crate) fn supervise(&mut self, memory: &mut SlotMemory, asked: &mut Asked) -> Option<Status> {
        let current = memory.current.clone()?;
        let roles = self.roles_of(&current);
        memory.life.tasks.retain(|name, _| roles.iter().any(|r| r.name == *name));
        for role in &roles {
            memory.life.tasks.entry(role.name.clone()).or_default();
        }
        self.forgive(memory, &roles);
        self.take_ends(memory, &current, &roles);
        self.judge_end(memory, &current, &roles);
        if let Some(status) = self.dead_man(memory, &current, &roles) {
            return Some(status);
        }
        if memory.life.end.is_some() {
            return Some(self.wind_down(memory, &current, &roles));
        }
        if memory.life.again.remaking
            && let Some(status) = self.clear_for_remaking(memory, &current, &roles)
        {
            return Some(status);
        }
        let down = self.keep_up(memory, &current, &roles, asked);
        self.ask_checks(memory, &current, &roles, asked);
        let mut status = self.judge_health(memory, &current, &roles, down, &asked.checks);
        if status.status == AllocStatus::Running && self.is_unbounded(&current) {
            status.reason.push_str(UNBOUNDED);
        }
        Some(status)
    }

    /// Do programs of it run on a node that cannot bound them?
    fn is_unbounded(&self, version: &Version) -> bool {
        let bounds = self.cx.observed.node.attributes.get("cgroup").map(String::as_str);
        let program = |t: &Task| matches!(t.driver, Driver::Exec(_) | Driver::RawExec(_));
        matches!(bounds, Some("none" | "v2-no-limits")) && self.group(version).is_some_and(|(_, g)| g.tasks.iter().any(program))
    }

    /// The roles of a version's tasks: from its specification, else from its instances.
    pub(crate) fn roles_of(&self, version: &Version) -> Vec<Role> {
        match self.group(version) {
            Some((job, group)) => roles(job.kind, group),
            None => self.own(version).map(Role::unknown).collect(),
        }
    }

    pub(crate) fn own(&self, version: &Version) -> impl Iterator<Item = &Instance> {
        self.instances.iter().copied().filter(|c| c.labels.alloc == version.born)
    }

    /// Is the task's instance running?
    pub(crate) fn runs(&self, version: &Version, task: &str) -> bool {
        self.instance(version, task).is_some_and(|c| c.state == State::Running)
    }

    /// The job's own dead man's switch: the group stops when the server was silent for too long.
    fn dead_man(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role]) -> Option<Status> {
        let silent = self.cx.observed.silent?;
        let limit = self.group(current).and_then(|(_, g)| g.disconnect.stop_on_client_after)?;
        if silent < limit {
            self.wake(self.cx.now.saturating_add(limit.0 - silent.0));
            return None;
        }
        let complete = memory.life.end.as_ref().is_some_and(|e| e.settled);
        if complete {
            return None;
        }
        let why = format!("no word from the server for {limit}; starts again when it answers");
        self.stop_all(memory, current, roles, &why);
        let life = &mut memory.life;
        life.up_since = None;
        life.run_since = None;
        for role in roles.iter().filter(|r| r.part != Part::Main || r.forever) {
            let task = life.tasks.entry(role.name.clone()).or_default();
            (task.reached, task.ended, task.not_before) = (false, None, None);
        }
        Some(Status::new(AllocStatus::Pending, why))
    }
}

/// What is remembered of a task, made when there is nothing.
pub(crate) fn task<'m>(memory: &'m mut SlotMemory, name: &str) -> &'m mut TaskMemory {
    memory.life.tasks.entry(name.to_owned()).or_default()
}

/// Nothing remembered counts as nothing.
pub(crate) fn ended(memory: &SlotMemory, name: &str) -> Option<bool> {
    memory.life.tasks.get(name).and_then(|t| t.ended)
}

/// The span that is left until `at`.
pub(crate) fn left(now: u64, at: u64) -> Millis {
    Millis(at.saturating_sub(now))
}
