//! Runs by the clock.

use skerry_wire::job::{Job, JobType, MissedRun, Periodic, Reschedule, UnknownTime};
use skerry_wire::manifest::Tombstone;
use skerry_wire::poll::{AllocStatus, Event};
use skerry_wire::{AllocId, Millis, Timestamp};

use crate::bed::{Bed, docker, job};

const HOUR: u64 = 3_600_000;

fn hourly(prohibit_overlap: bool) -> Job {
    let periodic = Periodic {
        crons: vec!["0 * * * *".into()],
        time_zone: "UTC".into(),
        prohibit_overlap,
        enabled: true,
        missed: MissedRun::Skip,
        unknown_time: UnknownTime::Interval,
    };
    let mut spec = job(JobType::Batch, vec![docker("main")]);
    spec.groups[0].tasks[0].restart = Some(skerry_wire::job::RestartPolicy { attempts: 0, ..skerry_wire::job::RestartPolicy::BATCH });
    spec.groups[0].reschedule.unlimited = false;
    Job { periodic: Some(periodic), ..spec }
}

/// Half past midnight.
fn bed(prohibit_overlap: bool) -> Bed {
    let mut bed = Bed::new();
    bed.wall = Some(Timestamp(1_767_225_600_000 + 1_800_000));
    bed.submit(hourly(prohibit_overlap));
    bed.rest();
    bed
}

fn runs(bed: &Bed) -> Vec<(u64, AllocStatus)> {
    let run = |e: &Event| match e {
        Event::Run { run, status, .. } if *status != AllocStatus::Pending => Some((*run, *status)),
        _ => None,
    };
    bed.events.iter().filter_map(run).collect()
}

#[test]
fn runs_come_and_end_and_the_last_ones_are_kept() {
    let mut bed = bed(true);
    assert!(bed.said().is_empty());
    assert_eq!((bed.view().reason.as_str(), bed.view().until), ("runs by the clock", Some(bed.ms + 1_800_000)));
    bed.pass(1_800_000);
    assert_eq!(bed.said(), ["create main", "start main"]);
    let env = bed.instances.values().next().unwrap().labels.slot.to_string();
    assert_eq!(env, "till/periodic-1.g[0]");
    bed.end("main", 0);
    bed.rest();
    assert_eq!(runs(&bed), [(1, AllocStatus::Running), (1, AllocStatus::Complete)]);
    for n in 2..=5_u64 {
        bed.pass(HOUR);
        assert_eq!(bed.running().len(), 1, "run {n}");
        bed.end("main", i64::from(n == 3));
        bed.rest();
    }
    assert!(runs(&bed).contains(&(3, AllocStatus::Failed)));
    let kept: Vec<_> = bed.memory.slots.keys().filter_map(|s| s.run()).collect();
    assert_eq!(kept, [3, 4, 5]);
    assert_eq!(bed.instances.len(), 3);
    // No run is told of the job itself.
    assert!(bed.events.iter().all(|e| !matches!(e, Event::Alloc { alloc, .. } if *alloc != bed.manifest.allocs[0].id)));
}

#[test]
fn a_run_is_left_out_while_one_runs_unless_they_may_overlap() {
    for (prohibit, expected) in [(true, 1), (false, 3)] {
        let mut bed = bed(prohibit);
        bed.pass(3 * HOUR);
        assert_eq!(bed.running().len(), expected);
        assert_eq!(bed.place().decisions.iter().any(|(_, d)| d.contains("the one before still runs")), prohibit);
    }
}

#[test]
fn it_comes_back_after_a_reboot_offline_with_and_without_the_time() {
    let mut bed = bed(true);
    bed.pass(1_800_000);
    bed.reboot();
    bed.rest();
    assert_eq!(bed.running(), ["main"], "what was cut off runs again");
    bed.end("main", 0);
    bed.rest();
    bed.wall = None;
    bed.reboot();
    bed.pass(HOUR - 100);
    assert!(bed.running().is_empty());
    assert_eq!(bed.view().reason, "runs by the clock", "by the interval, as long as the time is not known");
    bed.pass(200);
    assert_eq!(bed.running(), ["main"], "an hour after boot");
    bed.end("main", 0);
    bed.pass(HOUR);
    assert_eq!(bed.running(), ["main"], "an hour after the last");
}

#[test]
fn each_run_is_an_allocation_of_its_own_with_ports_of_its_own() {
    let mut spec = hourly(false);
    spec.groups[0].network.ports.push(skerry_wire::job::Port { label: "http".into(), fixed: None, to: None });
    let mut bed = Bed::new();
    bed.wall = Some(Timestamp(1_767_225_600_000 + 1_800_000));
    bed.submit(spec);
    bed.pass(2 * HOUR);
    let runs: Vec<_> = bed.memory.slots.iter().filter(|(s, _)| s.run().is_some()).filter_map(|(_, m)| m.current.clone()).collect();
    let labels: Vec<_> = bed.instances.values().map(|i| (i.labels.alloc, i.labels.ports["http"])).collect();
    assert_eq!((runs.len(), labels.len()), (2, 2));
    assert!(labels[0].0 != labels[1].0 && labels[0].1 != labels[1].1, "{labels:?}");
    for run in runs {
        assert!(run.alloc == run.born && run.alloc != bed.manifest.allocs[0].id, "{run:?}");
        assert!(labels.contains(&(run.alloc, run.ports["http"])), "{run:?}");
    }
}

#[test]
fn a_stopped_job_stops_its_runs() {
    let mut bed = bed(false);
    bed.pass(2 * HOUR);
    assert_eq!(bed.running().len(), 2);
    bed.bury();
    bed.pass(3 * HOUR);
    assert!(bed.instances.is_empty());
    assert!(bed.memory.slots.keys().all(|s| s.run().is_none()), "{:?}", bed.memory.slots.keys());
}

/// The job itself has no container: after a lost memory only its run is known, and whose version that is.
#[test]
fn a_run_without_its_job_stops_by_an_order_that_is_not_older_than_it() {
    for (ordered, stops) in [(0, true), (1, false), (2, true), (3, true)] {
        let mut bed = bed(true);
        bed.submit(hourly(true));
        bed.pass(1_800_000);
        assert_eq!(bed.instances.values().next().map(|i| i.labels.version), Some(2));
        bed.bury();
        bed.manifest.tombstones[0].version = ordered;
        bed.memory = Default::default();
        bed.rest();
        assert_eq!(bed.running().is_empty(), stops, "ordered for version {ordered}");
    }
}

#[test]
fn orders_for_others_stop_no_run() {
    // For a version of the job that was replaced long ago, from a server put back to a backup; and, without any memory, for another job.
    for amnesia in [false, true] {
        let mut bed = bed(true);
        bed.submit(hourly(true));
        bed.pass(1_800_000);
        let named = if amnesia { "other" } else { "till" };
        let stone = Tombstone {
            id: AllocId::new([77; 16]),
            job: named.into(),
            group: "g".into(),
            index: 0,
            reason: "stopped by ada".into(),
            version: u64::from(!amnesia),
        };
        bed.manifest.allocs.clear();
        bed.manifest.tombstones.push(stone);
        if amnesia {
            bed.memory = Default::default();
        }
        bed.rest();
        assert_eq!(bed.running(), ["main"], "memory lost: {amnesia}");
    }
}

#[test]
fn a_run_is_over_when_all_of_it_is() {
    let left_out = |bed: &Bed| bed.place().decisions.iter().any(|(_, d)| d.contains("the one before still runs"));
    // Its last task runs on.
    let mut spec = hourly(true);
    spec.groups[0].tasks.push(crate::bed::hook(skerry_wire::job::Hook::Poststop, false, docker("last")));
    let mut bed = bed(true);
    bed.submit(spec);
    bed.pass(1_800_000);
    bed.end("main", 0);
    bed.pass(HOUR);
    assert_eq!((bed.running(), left_out(&bed)), (vec!["last".to_owned()], true));
    // It failed, and will be made anew.
    let mut spec = hourly(true);
    spec.groups[0].reschedule = Reschedule { attempts: 1, delay: Millis(2 * HOUR), unlimited: false, ..Reschedule::BATCH };
    let mut bed = self::bed(true);
    bed.submit(spec);
    bed.pass(1_800_000);
    bed.end("main", 1);
    bed.pass(HOUR);
    assert_eq!((bed.running().len(), left_out(&bed)), (0, true));
    bed.pass(HOUR + HOUR / 2);
    assert_eq!(bed.running(), ["main"], "made anew");
    bed.end("main", 1);
    bed.pass(HOUR);
    let run = bed.instances.values().filter(|i| i.state == skerry_reconcile::State::Running).map(|i| i.labels.slot.run()).next();
    assert!(run.flatten() > Some(1), "what failed for good holds nothing up: {run:?}");
}

#[test]
fn a_new_version_leaves_the_run_alone_and_takes_the_next() {
    let mut bed = bed(true);
    bed.pass(1_800_000);
    let mut spec = hourly(true);
    spec.groups[0].tasks[0].env.insert("NEW".into(), "1".into());
    bed.submit(spec);
    bed.rest();
    assert_eq!(bed.running(), ["main"]);
    bed.end("main", 0);
    bed.pass(HOUR);
    let version = bed.instances.values().find(|i| i.labels.slot.run() == Some(2)).map(|i| i.labels.version);
    assert_eq!(version, Some(2));
}

#[test]
fn what_is_not_enabled_or_closed_without_the_time_does_not_run() {
    let mut spec = hourly(true);
    spec.periodic.as_mut().unwrap().enabled = false;
    let mut bed = Bed::with(spec.clone());
    bed.pass(5 * HOUR);
    assert_eq!((bed.running().len(), bed.view().reason.as_str()), (0, "is not enabled to run"));
    let periodic = spec.periodic.as_mut().unwrap();
    (periodic.enabled, periodic.unknown_time) = (true, UnknownTime::Closed);
    let mut bed = Bed::with(spec.clone());
    bed.pass(5 * HOUR);
    assert_eq!((bed.running().len(), bed.view().reason.as_str()), (0, "waits until the time is known"));
    spec.periodic.as_mut().unwrap().crons = vec!["nonsense".into()];
    let bed = Bed::with(spec);
    assert_eq!(bed.view().status, AllocStatus::Failed);
    let _ = Millis(0);
}

#[test]
fn no_more_than_eight_run_at_once() {
    let mut bed = bed(false);
    bed.pass(12 * HOUR);
    assert_eq!(bed.running().len(), 8);
    assert!(bed.place().decisions.iter().any(|(_, d)| d.contains("8 of them still run")));
}
