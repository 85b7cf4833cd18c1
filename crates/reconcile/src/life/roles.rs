//! What each task of a version is there for.

use skerry_wire::Millis;
use skerry_wire::job::{Driver, Group, Hook, JobType, RestartPolicy, Task};

use crate::facts::Instance;

/// A part of an allocation's life, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Prestart,
    Main,
    Poststart,
    Poststop,
}

/// A task, seen from its allocation's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) part: Part,
    pub(crate) sidecar: bool,
    pub(crate) leader: bool,
    /// It is to run for ever: its end is a fault, whatever its exit code.
    pub(crate) forever: bool,
    pub(crate) policy: RestartPolicy,
    /// Does it end with its engine?
    pub(crate) container: bool,
    pub(crate) delay: Millis,
    pub(crate) timeout: Millis,
}

impl Role {
    fn of(task: &Task, kind: JobType, group: &Group) -> Self {
        let (part, sidecar) = match task.lifecycle {
            None => (Part::Main, false),
            Some(l) => {
                let part = match l.hook {
                    Hook::Prestart => Part::Prestart,
                    Hook::Poststart => Part::Poststart,
                    Hook::Poststop => Part::Poststop,
                };
                (part, l.sidecar && part != Part::Poststop)
            }
        };
        Self {
            name: task.name.clone(),
            part,
            sidecar,
            leader: task.leader && part == Part::Main,
            forever: sidecar || (part == Part::Main && !kind.runs_to_end()),
            policy: task.restart.unwrap_or(group.restart),
            container: matches!(task.driver, Driver::Docker(_)),
            delay: Millis(group.shutdown_delay.0.saturating_add(task.shutdown_delay.0)),
            timeout: task.kill_timeout,
        }
    }

    /// Of an instance whose specification is not held: it is kept running.
    pub(crate) fn unknown(instance: &Instance) -> Self {
        Self {
            name: instance.labels.task.clone(),
            part: Part::Main,
            sidecar: false,
            leader: false,
            forever: true,
            policy: RestartPolicy::EDGE,
            container: instance.image.is_some(),
            delay: Millis(0),
            timeout: instance.labels.kill_timeout,
        }
    }

    /// When it is stopped: the leader first, sidecars last.
    pub(crate) fn stage(&self) -> u8 {
        match (self.leader, self.sidecar) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        }
    }
}

/// The roles of a group's tasks: by their part, then as they are written.
pub(crate) fn roles(kind: JobType, group: &Group) -> Vec<Role> {
    let mut roles: Vec<Role> = group.tasks.iter().map(|t| Role::of(t, kind, group)).collect();
    roles.sort_by_key(|r| r.part);
    roles
}
