//! The rules for what a node does by itself: restarts, re-creation, updates, without a server, by the clock.

use std::ops::RangeInclusive;

use skerry_wire::Millis;
use skerry_wire::job::{
    Check, DelayFunction, Disconnect, Group, HealthCheck, Hook, Job, JobType, Logs, Periodic, Reconcile, Reschedule, RestartPolicy, Update,
};

use crate::clock::{bad_cron, bad_zone};
use crate::rules::{ATTEMPTS, At, MOST_ITEMS, Rules};

/// Files of a task's log.
pub const FILES: RangeInclusive<u32> = 1..=100;
/// MiB of one of them.
pub const FILE_SIZE: RangeInclusive<u32> = 1..=1024;
/// Longer than this no span of a job is.
const YEAR: Millis = Millis::from_secs(366 * 24 * 3600);
/// Longer than this nobody waits for a stop, or for health.
pub(crate) const DAY: Millis = Millis::from_secs(24 * 3600);
/// Attempts are counted in no less, and re-creations are no closer together: an edge node has one disk to wear out.
const LEAST: Millis = Millis::from_secs(5);
/// A node that polls once a minute is silent for this long without any fault.
const SILENCE: Millis = Millis::from_secs(2 * 60);

impl Rules {
    /// A span of at most so long.
    pub(crate) fn bounded(&mut self, at: &At, span: Millis, most: Millis) {
        if span > most {
            self.error(at, format!("{span} is longer than {most}"), "check the unit: \"30s\", \"10m\", \"12h\"");
        }
    }

    pub(crate) fn periodic(&mut self, root: &At, job: &Job) {
        let Some(Periodic { crons, time_zone, .. }) = &job.periodic else { return };
        let at = root.field("periodic");
        if !job.kind.runs_to_end() {
            let help = "use type = \"sysbatch\" for a run on every node, or \"batch\"";
            self.error(&at, "a job that runs for ever cannot run by the clock", help);
        }
        let list = at.field("crons");
        if crons.is_empty() {
            self.error(&list, "no cron expression", "write for example [\"30 3 * * *\"]");
        }
        self.at_most(&list, crons.len(), MOST_ITEMS, "cron expressions");
        for (i, cron) in crons.iter().enumerate().take(MOST_ITEMS) {
            let at = list.field(&i.to_string());
            if let Some((message, help)) = bad_cron(cron) {
                self.error(&at, message, &help);
            } else if cron.split_ascii_whitespace().count() == 6 {
                let help = "in Nomad the sixth field is the year; write five fields if that was meant";
                self.warning(&at, "six fields: the first is the second", help);
            }
        }
        if let Some((message, help)) = bad_zone(time_zone) {
            self.error(&at.field("time_zone"), message, &help);
        }
    }

    /// Everything of a group that its node decides by.
    pub(crate) fn policies(&mut self, at: &At, group: &Group, kind: JobType) {
        self.restart(&at.field("restart"), &group.restart);
        self.reschedule(&at.field("reschedule"), &group.reschedule);
        self.update(&at.field("update"), &group.update);
        self.disconnect(&at.field("disconnect"), &group.disconnect, kind);
        self.bounded(&at.field("shutdown_delay"), group.shutdown_delay, DAY);
        if let Some(most) = group.max_run_duration {
            let at = at.field("max_run_duration");
            if !kind.runs_to_end() {
                self.error(&at, "max_run_duration in a job that runs for ever", "remove it, or use type = \"batch\" or \"sysbatch\"");
            } else if most.0 < 1000 {
                self.error(&at, format!("{most} is shorter than 1s"), "the longest that one run may take");
            }
            self.bounded(&at, most, YEAR);
        }
        self.lifecycles(at, group);
        self.checks_in_time(at, group);
    }

    pub(crate) fn restart(&mut self, at: &At, restart: &RestartPolicy) {
        for (name, span) in [("interval", restart.interval), ("delay", restart.delay)] {
            if span > YEAR {
                self.error(&at.field(name), format!("{span} is longer than a year"), "");
            }
        }
        if restart.attempts > 0 && restart.interval < LEAST {
            let message = format!("interval {} is shorter than 5s", restart.interval);
            self.error(&at.field("interval"), message, "attempts are counted in this time; 30m is the default");
        } else if restart.delay.0.saturating_mul(restart.attempts.into()) > restart.interval.0 {
            let (n, delay, interval) = (restart.attempts, restart.delay, restart.interval);
            let message = format!("{n} attempts {delay} apart do not fit into {interval}, so they are never used up");
            self.warning(at, message, "make the interval longer");
        }
        self.attempts(&at.field("attempts"), restart.attempts, "mode = \"delay\" never gives up");
    }

    fn attempts(&mut self, at: &At, attempts: u32, help: &str) {
        if !ATTEMPTS.contains(&attempts) {
            self.error(at, format!("{attempts} attempts are more than {}", ATTEMPTS.end()), help);
        }
    }

    fn reschedule(&mut self, at: &At, reschedule: &Reschedule) {
        let Reschedule { attempts, interval, delay, delay_function, max_delay, unlimited } = *reschedule;
        self.attempts(&at.field("attempts"), attempts, "unlimited = true never gives up");
        for (name, span) in [("interval", interval), ("delay", delay), ("max_delay", max_delay)] {
            self.bounded(&at.field(name), span, YEAR);
        }
        if unlimited && attempts > 0 {
            self.error(&at.field("attempts"), "attempts beside unlimited = true", "remove one of them");
        } else if !unlimited && attempts > 0 && interval < LEAST {
            let message = format!("{attempts} attempts in an interval of {interval}");
            self.error(&at.field("interval"), message, "say in which time they count, for example interval = \"1h\"");
        }
        if !unlimited && attempts == 0 {
            return;
        }
        if delay < LEAST {
            self.error(&at.field("delay"), format!("delay {delay} is shorter than 5s"), "30s is the default");
        }
        if delay_function != DelayFunction::Constant && max_delay < delay {
            self.error(&at.field("max_delay"), format!("max_delay {max_delay} is shorter than delay {delay}"), "1h is the default");
        }
    }

    fn update(&mut self, at: &At, update: &Update) {
        let Update { min_healthy_time, healthy_deadline, lock_limit, .. } = *update;
        self.bounded(&at.field("min_healthy_time"), min_healthy_time, DAY);
        self.bounded(&at.field("healthy_deadline"), healthy_deadline, YEAR);
        self.bounded(&at.field("lock_limit"), lock_limit, YEAR);
        if healthy_deadline <= min_healthy_time {
            let message = format!("healthy_deadline {healthy_deadline} is not after min_healthy_time {min_healthy_time}");
            self.error(&at.field("healthy_deadline"), message, "no version could become healthy; 10s and 5m are the defaults");
        }
    }

    fn disconnect(&mut self, at: &At, disconnect: &Disconnect, kind: JobType) {
        let Disconnect { lost_after, replace, reconcile, stop_on_client_after } = *disconnect;
        for (name, span) in [("lost_after", lost_after), ("stop_on_client_after", stop_on_client_after)] {
            let Some(span) = span else { continue };
            let at = at.field(name);
            self.bounded(&at, span, YEAR);
            if span < SILENCE {
                self.warning(&at, format!("a node may be silent for {span} without any fault"), "use 5m or more");
            }
        }
        if lost_after.is_some() && stop_on_client_after.is_some() {
            let help = "lost_after goes on elsewhere while the node keeps running; stop_on_client_after stops on the node: choose one";
            self.error(&at.field("stop_on_client_after"), "stop_on_client_after beside lost_after", help);
        }
        if replace && lost_after.is_none() {
            let help = "say after which time, for example lost_after = \"12h\"";
            self.error(&at.field("replace"), "replace without lost_after: nothing is ever lost", help);
        } else if replace && kind.is_everywhere() {
            self.warning(&at.field("replace"), "replace has no effect: the job is on every node that fits already", "remove it");
        }
        if reconcile != Reconcile::default() && !replace {
            self.warning(&at.field("reconcile"), "reconcile has no effect without a replacement", "write replace = true, or remove it");
        }
    }

    fn lifecycles(&mut self, at: &At, group: &Group) {
        if !group.tasks.is_empty() && group.tasks.iter().all(|t| t.lifecycle.is_some()) {
            self.error(
                at,
                "a group without a main task: each has a lifecycle",
                "remove the lifecycle block of the task that does the work",
            );
        }
        let mut leader: Option<&str> = None;
        for (i, task) in group.tasks.iter().enumerate() {
            let at = at.item("tasks", i, "task", &task.name);
            if let Some(lifecycle) = task.lifecycle
                && lifecycle.hook == Hook::Poststop
                && lifecycle.sidecar
            {
                self.error(&at.field("lifecycle").field("sidecar"), "a poststop task cannot be a sidecar", "remove sidecar");
            }
            if !task.leader {
                continue;
            }
            let at = at.field("leader");
            if task.lifecycle.is_some() {
                self.error(&at, "the leader must be a main task", "remove leader, or the lifecycle block");
            } else if group.tasks.len() == 1 {
                self.warning(&at, "leader has no effect: the group has one task", "remove it");
            }
            if let Some(other) = leader {
                self.error(&at, format!("a second leader beside task {other:?}"), "one task leads");
            }
            leader = Some(&task.name);
        }
    }

    /// A check that comes later than the deadline says nothing in time.
    fn checks_in_time(&mut self, at: &At, group: &Group) {
        let Update { health_check, healthy_deadline, .. } = group.update;
        if health_check != HealthCheck::Checks {
            return;
        }
        let late = |check: &Check| check.interval >= healthy_deadline;
        let own = group.services.iter().enumerate().map(|(s, service)| (at.item("services", s, "service", &service.name), service));
        let tasks = group.tasks.iter().enumerate().flat_map(|(t, task)| {
            let at = at.item("tasks", t, "task", &task.name);
            task.services.iter().enumerate().map(move |(s, service)| (at.item("services", s, "service", &service.name), service))
        });
        let found: Vec<At> = own
            .chain(tasks)
            .flat_map(|(at, service)| {
                let late = service.checks.iter().enumerate().filter(|(_, c)| late(c));
                late.map(|(c, check)| at.item("checks", c, "check", &check.name).field("interval")).collect::<Vec<_>>()
            })
            .take(MOST_ITEMS)
            .collect();
        for at in found {
            let message = format!("the check may first run after healthy_deadline {healthy_deadline}");
            self.warning(&at, message, "shorten the interval, or make healthy_deadline in update longer");
        }
    }

    pub(crate) fn logs(&mut self, at: &At, logs: Logs) {
        for (name, value, range) in [("max_files", logs.max_files, &FILES), ("max_file_size", logs.max_file_size, &FILE_SIZE)] {
            if !range.contains(&value) {
                let message = format!("{name} {value} is not from {} to {}", range.start(), range.end());
                self.error(&at.field(name), message, "to keep nothing write disabled = true");
            }
        }
    }
}
