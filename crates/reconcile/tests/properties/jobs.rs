//! The jobs of the model.

use std::collections::BTreeMap;

use skerry_wire::job::{
    Check, CheckKind, DockerConfig, Driver, Group, Hook, Job, JobType, Lifecycle, MissedRun, Network, Periodic, Port, Reschedule,
    RestartMode, RestartPolicy, Service, Task, UnknownTime, Update,
};
use skerry_wire::{Digest, ImageId, Millis};

pub(crate) const JOBS: u8 = 5;
pub(crate) const IMAGES: u8 = 4;
/// What is made of it never passes its checks.
pub(crate) const SICK: u8 = 3;
/// Tasks of this name, and of `main` in jobs that run to an end, end by themselves.
pub(crate) const ONCE: [&str; 2] = ["before", "after"];

pub(crate) fn image(n: u8) -> ImageId {
    ImageId(Digest::new([n; 32]))
}

pub(crate) fn job_name(n: u8) -> String {
    format!("job{n}")
}

fn task(name: &str, image_number: u8) -> Task {
    let config = DockerConfig {
        image: format!("image:{image_number}"),
        image_id: Some(image(image_number)),
        ports: vec!["http".to_owned()],
        ..DockerConfig::default()
    };
    Task::new(name, Driver::Docker(config))
}

fn in_life(hook: Hook, sidecar: bool, task: Task) -> Task {
    Task { lifecycle: Some(Lifecycle { hook, sidecar }), ..task }
}

fn check() -> Service {
    let kind = CheckKind::Tcp { port: None };
    let (interval, timeout) = (Millis(5_000), Millis(1_000));
    let check = Check {
        name: "up".into(),
        kind,
        interval,
        timeout,
        success_before_passing: 2,
        failures_before_critical: 1,
        check_restart: None,
        task: None,
    };
    Service { name: "web".into(), port: Some("http".into()), tags: vec![], checks: vec![check], check_restart: None }
}

/// Job 0 has two groups; job 1 has a whole life, and checks; job 2 gives up; job 3 runs to its end; job 4 does so by the clock.
pub(crate) fn job(n: u8, image_number: u8) -> Job {
    let mode = if n >= 2 { RestartMode::Fail } else { RestartMode::Delay };
    let group = |name: &str, tasks| Group {
        network: Network { ports: vec![Port { label: "http".into(), fixed: None, to: Some(80) }], ..Network::default() },
        restart: RestartPolicy { attempts: 2, interval: Millis(60_000), delay: Millis(1_000), mode },
        ..Group::new(name, tasks)
    };
    let mut groups = vec![group("a", vec![task("main", image_number)])];
    let mut kind = JobType::Service;
    let mut periodic = None;
    match n {
        0 => {
            groups[0].tasks.push(task("side", (image_number + 1) % IMAGES));
            // This one is the same whatever the version: it must not restart with it.
            groups.push(group("b", vec![task("main", 0)]));
        }
        1 => {
            groups[0].tasks.insert(0, in_life(Hook::Poststop, false, task("after", 0)));
            groups[0].tasks.push(in_life(Hook::Prestart, false, task("before", 0)));
            groups[0].tasks.push(in_life(Hook::Prestart, true, task("proxy", 0)));
            groups[0].services = vec![check()];
            groups[0].update = Update { healthy_deadline: Millis(120_000), ..Update::default() };
        }
        2 => groups[0].reschedule = Reschedule { attempts: 1, interval: Millis(600_000), unlimited: false, ..Reschedule::SERVICE },
        3 => {
            kind = JobType::Batch;
            groups[0].tasks.push(in_life(Hook::Poststop, false, task("after", 0)));
            groups[0].reschedule = Reschedule::BATCH;
            groups[0].max_run_duration = Some(Millis(3_600_000));
        }
        _ => {
            kind = JobType::SysBatch;
            groups[0].reschedule = Reschedule::BATCH;
            periodic = Some(Periodic {
                crons: vec!["0 */6 * * *".into()],
                time_zone: "Europe/Lisbon".into(),
                prohibit_overlap: true,
                enabled: true,
                missed: MissedRun::Once,
                unknown_time: UnknownTime::Interval,
            });
        }
    }
    Job { priority: 50 + n, periodic, meta: BTreeMap::new(), ..Job::new(&job_name(n), kind, groups) }
}
