//! Checks: which are to be run, which pass, and which restart their task.

use std::collections::BTreeSet;

use skerry_wire::Millis;
use skerry_wire::job::{Check, CheckKind, CheckRestart, Driver, Group, NetworkMode, Service};

use super::{Asked, Part, Role, task};
use crate::decision::{CheckPlan, CheckRun};
use crate::facts::CheckId;
use crate::make::{Making, join_address};
use crate::memory::{SlotMemory, Told, Version};
use crate::place::Work;

/// A check of the current version, with what it is about.
struct Found<'a> {
    service: &'a Service,
    check: &'a Check,
    /// Tasks that must run for it, and are restarted by it.
    tasks: Vec<String>,
}

impl Found<'_> {
    fn key(&self) -> String {
        format!("{}/{}", self.service.name, self.check.name)
    }

    fn restart(&self) -> Option<CheckRestart> {
        self.check.check_restart.or(self.service.check_restart).filter(|r| r.limit > 0)
    }
}

/// All checks of a group. One of a task is about this task, one that names a task about that, any other about the main tasks.
fn all<'a>(group: &'a Group, roles: &[Role]) -> Vec<Found<'a>> {
    let mains: Vec<String> = roles.iter().filter(|r| r.part == Part::Main).map(|r| r.name.clone()).collect();
    let of_tasks = group.tasks.iter().flat_map(|t| t.services.iter().map(move |s| (s, Some(&t.name))));
    let services = group.services.iter().map(|s| (s, None)).chain(of_tasks);
    let found = services.flat_map(|(service, owner)| {
        let mains = &mains;
        service.checks.iter().map(move |check| {
            let named = check.task.as_ref().or(owner).map(|t| vec![t.clone()]);
            Found { service, check, tasks: named.unwrap_or_else(|| mains.clone()) }
        })
    });
    found.collect()
}

impl Work<'_> {
    /// Asks for the checks of what runs, and judges what they found.
    pub(crate) fn ask_checks(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role], asked: &mut Asked) {
        let Some((job, group)) = self.group(current) else { return };
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
        let mut known = BTreeSet::new();
        for found in all(group, roles) {
            let key = found.key();
            known.insert(key.clone());
            let runs = !found.tasks.is_empty()
                && found.tasks.iter().all(|t| self.runs(current, t) && memory.life.tasks.get(t).is_some_and(|t| t.told.is_none()));
            let run = if runs { making.check_run(found.service, found.check, &found.tasks) } else { None };
            let Some(kind) = run else {
                memory.life.passing.remove(&key);
                memory.life.pardoned.remove(&key);
                continue;
            };
            let (service, check) = (found.service.name.clone(), found.check.name.clone());
            let id = CheckId { alloc: current.born, service, check };
            self.judge_check(memory, current, &found, &id);
            let interval = Millis(found.check.interval.0.max(1_000));
            let (timeout, passes) = (Millis(found.check.timeout.0.max(1_000)), found.check.success_before_passing.max(1));
            asked.checks.push(CheckPlan { id, kind, interval, timeout, passes });
        }
        memory.life.passing.retain(|k| known.contains(k));
        memory.life.pardoned.retain(|k, _| known.contains(k));
    }

    fn judge_check(&mut self, memory: &mut SlotMemory, current: &Version, found: &Found<'_>, id: &CheckId) {
        let key = found.key();
        let Some(state) = self.cx.observed.checks.get(id) else { return };
        if state.passed >= found.check.success_before_passing.max(1) {
            memory.life.passing.insert(key.clone());
        } else if state.failed > found.check.failures_before_critical && memory.life.passing.remove(&key) {
            memory.note(self.cx.now, format!("check `{key}` fails: {}", state.output));
        }
        let Some(restart) = found.restart() else { return };
        let starts = found.tasks.iter().filter_map(|t| memory.life.tasks.get(t)?.since);
        let counts_from = starts.max().unwrap_or(self.cx.now).saturating_add(restart.grace.0);
        if state.failed == 0 {
            memory.life.pardoned.remove(&key);
            return;
        }
        if self.cx.now < counts_from {
            memory.life.pardoned.insert(key, state.failed);
            return;
        }
        let pardoned = memory.life.pardoned.get(&key).copied().filter(|p| *p <= state.failed).unwrap_or(0);
        if state.failed - pardoned < restart.limit {
            return;
        }
        let why = format!("check `{key}` failed {} times: {}", restart.limit, state.output);
        memory.note(self.cx.now, format!("restarts: {why}"));
        memory.life.pardoned.remove(&key);
        memory.life.passing.remove(&key);
        for name in &found.tasks {
            task(memory, name).told = Some(Told { why: why.clone(), fault: true });
            self.stop_told(memory, current, name);
        }
    }
}

impl Making<'_> {
    /// What a run of the check does. None when its port or its instance is not there.
    fn check_run(&self, service: &Service, check: &Check, tasks: &[String]) -> Option<CheckRun> {
        let address = |port: &Option<String>| {
            if self.group.network.mode == NetworkMode::None {
                return None;
            }
            let label = port.as_ref().or(service.port.as_ref())?;
            let port = self.version.ports.get(label).copied().or_else(|| label.parse().ok())?;
            Some(join_address(&self.node.address, port))
        };
        Some(match &check.kind {
            CheckKind::Http { port, path, method, headers, body } => CheckRun::Http {
                address: address(port)?,
                method: method.clone(),
                path: path.clone(),
                headers: headers.clone(),
                body: body.clone(),
            },
            CheckKind::Tcp { port } => CheckRun::Tcp { address: address(port)? },
            CheckKind::Script { command, args } => {
                let task = self.group.tasks.iter().find(|t| tasks.first() == Some(&t.name))?;
                let words = std::iter::once(command).chain(args);
                let env = self.task_env(task);
                let nomad = env.nomad();
                let mut command: Vec<String> = words.map(|w| env.fill(&nomad, w)).collect();
                if !matches!(task.driver, Driver::Docker(_)) && !command[0].starts_with('/') {
                    command[0] = format!("{}/{}", self.task_folder(task), command[0]);
                }
                CheckRun::Script { instance: crate::make::instance_name(&self.version.born, &task.name), command }
            }
        })
    }
}
