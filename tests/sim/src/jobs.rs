//! The jobs of the fleet.

use std::collections::BTreeMap;

use skerry_wire::Millis;
use skerry_wire::job::{
    Check, CheckKind, DelayFunction, DockerConfig, Driver, Group, Job, JobType, MissedRun, Periodic, Reschedule, RestartMode,
    RestartPolicy, Service, Task, UnknownTime, Update,
};

use crate::library::{IMAGES, image};

/// Jobs of the fleet.
pub(crate) const JOBS: u8 = 7;

/// The one that the clock runs.
pub(crate) const TIMED: u8 = 5;

/// The name of a job.
pub(crate) fn name(number: u8) -> String {
    format!("job{number}")
}

fn task(name: &str, image_number: u8, variant: u8) -> Task {
    let number = image_number % IMAGES;
    let config = DockerConfig { image: format!("till:{number}"), image_id: Some(image(number)), ..DockerConfig::default() };
    let mut task = Task::new(name, Driver::Docker(config));
    task.env = BTreeMap::from([("V".to_owned(), variant.to_string())]);
    task.resources.memory = 20;
    task.kill_timeout = Millis(3_000);
    task
}

fn checked() -> Service {
    let check = Check {
        name: "up".into(),
        kind: CheckKind::Script { command: "/check".into(), args: vec![] },
        interval: Millis(10_000),
        timeout: Millis(2_000),
        success_before_passing: 1,
        failures_before_critical: 2,
        check_restart: None,
        task: Some("main".into()),
    };
    Service { name: "web".into(), port: None, tags: vec![], checks: vec![check], check_restart: None }
}

/// Job 0: everywhere, two tasks. 1: everywhere, two groups, of which one is the same in every version. 2: three with checks, which go
/// back by themselves. 3: two. 4: everywhere, to its end. 5: everywhere, by the clock. 6: everywhere, alone.
pub(crate) fn job(number: u8, image_number: u8, variant: u8) -> Job {
    let group = |name: &str, tasks| Group {
        restart: RestartPolicy { attempts: 100, interval: Millis(60_000), delay: Millis(1_000), mode: RestartMode::Delay },
        reschedule: Reschedule {
            attempts: 0,
            interval: Millis(0),
            delay: Millis(5_000),
            delay_function: DelayFunction::Constant,
            max_delay: Millis(30_000),
            unlimited: true,
        },
        update: Update { min_healthy_time: Millis(5_000), healthy_deadline: Millis(90_000), ..Update::default() },
        ..Group::new(name, tasks)
    };
    let main = || task("main", image_number, variant);
    let mut groups = vec![group("a", vec![main()])];
    let mut kind = JobType::System;
    let mut periodic = None;
    match number {
        0 => groups[0].tasks.push(task("side", image_number + 1, variant)),
        1 => groups.push(group("b", vec![task("main", 0, 0)])),
        2 => {
            kind = JobType::Service;
            groups[0].count = 3;
            groups[0].services = vec![checked()];
        }
        3 => {
            kind = JobType::Service;
            groups[0].count = 2;
        }
        4 => kind = JobType::SysBatch,
        5 => {
            kind = JobType::SysBatch;
            periodic = Some(Periodic {
                crons: vec!["*/10 * * * *".into()],
                time_zone: "UTC".into(),
                prohibit_overlap: true,
                enabled: true,
                missed: MissedRun::Skip,
                unknown_time: UnknownTime::Interval,
            });
        }
        _ => {}
    }
    if kind.runs_to_end() {
        groups[0].reschedule = Reschedule::BATCH;
        groups[0].restart = RestartPolicy { attempts: 3, interval: Millis(60_000), delay: Millis(1_000), mode: RestartMode::Fail };
    }
    Job { priority: 50 + number, periodic, ..Job::new(&name(number), kind, groups) }
}
