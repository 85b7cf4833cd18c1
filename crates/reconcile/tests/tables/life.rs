//! The life of an allocation: its order, its ends, its restarts.

use skerry_reconcile::{Order, OrderKind, Step};
use skerry_wire::Millis;
use skerry_wire::job::{Check, CheckKind, CheckRestart, Hook, JobType, Port, Reschedule, RestartMode, RestartPolicy, Service, Task};
use skerry_wire::poll::AllocStatus;

use crate::bed::{Bed, docker, hook, job};

fn fails(attempts: u32) -> RestartPolicy {
    RestartPolicy { attempts, interval: Millis(600_000), delay: Millis(1_000), mode: RestartMode::Fail }
}

fn whole() -> Vec<Task> {
    vec![
        hook(Hook::Poststop, false, docker("last")),
        docker("main"),
        hook(Hook::Poststart, true, docker("after")),
        hook(Hook::Prestart, false, docker("one")),
        hook(Hook::Prestart, true, docker("proxy")),
        hook(Hook::Prestart, false, docker("two")),
        Task { leader: true, ..docker("boss") },
    ]
}

#[test]
fn tasks_start_and_stop_in_the_order_of_life() {
    let mut bed = Bed::with(job(JobType::Service, whole()));
    let starts = |bed: &mut Bed| -> Vec<String> { bed.said().into_iter().filter(|s| s.starts_with("start")).collect() };
    assert_eq!(starts(&mut bed), ["start one"]);
    assert_eq!(bed.view().reason, "task `one` runs");
    bed.end("one", 0);
    bed.rest();
    assert_eq!(starts(&mut bed), ["start proxy", "start two"]);
    bed.end("two", 0);
    bed.rest();
    assert_eq!(starts(&mut bed), ["start main", "start boss", "start after"]);
    assert_eq!((bed.view().status, bed.view().reason.as_str()), (AllocStatus::Running, "all tasks run"));

    // The leader first, sidecars last, then what comes after; nothing is told twice to stop.
    bed.obedient = false;
    bed.bury();
    bed.step();
    assert_eq!(bed.said(), ["stop boss"]);
    assert!(bed.step().actions.is_empty(), "a stop is under way");
    bed.end("boss", 0);
    bed.step();
    assert_eq!(bed.said(), ["stop main"]);
    bed.end("main", 143);
    bed.step();
    let mut said = bed.said();
    said.sort();
    assert_eq!(said, ["stop after", "stop proxy"]);
    bed.end("after", 0);
    assert!(bed.step().actions.is_empty());
    bed.end("proxy", 0);
    bed.step();
    assert_eq!(bed.said(), ["start last"]);
    assert!(bed.step().actions.is_empty());
    bed.end("last", 0);
    bed.rest();
    assert!(bed.instances.is_empty() && bed.memory.slots.values().all(|m| m.current.is_none()));
}

#[test]
fn a_last_task_that_hangs_or_does_not_start_holds_nothing_up() {
    let mut bed = Bed::with(job(JobType::Service, vec![docker("main"), hook(Hook::Poststop, false, docker("last"))]));
    bed.bury();
    bed.rest();
    assert_eq!(bed.running(), ["last"]);
    bed.pass(5 * 60_000 - 2);
    assert_eq!(bed.running(), ["last"]);
    bed.pass(3);
    assert!(bed.instances.is_empty(), "{:?}", bed.done);

    let mut bed = Bed::with(job(JobType::Service, vec![docker("main"), hook(Hook::Poststop, false, docker("last"))]));
    bed.bury();
    bed.step();
    let decision = bed.decide();
    bed.fail(&decision.actions[0].clone(), Step::Start);
    bed.rest();
    assert!(bed.instances.is_empty(), "{:?}", bed.done);
}

#[test]
fn what_runs_to_its_end_is_done_once() {
    for kind in [JobType::Batch, JobType::SysBatch] {
        let mut bed = Bed::with(job(kind, vec![docker("a"), docker("b"), hook(Hook::Poststop, false, docker("last"))]));
        assert_eq!(bed.running(), ["a", "b"]);
        bed.end("a", 0);
        bed.rest();
        assert_eq!(bed.running(), ["b"]);
        // Cut off: only what was not done runs again.
        bed.reboot();
        bed.rest();
        assert_eq!(bed.running(), ["b"]);
        bed.end("b", 0);
        bed.rest();
        assert_eq!(bed.running(), ["last"]);
        bed.end("last", 0);
        bed.rest();
        assert_eq!((bed.view().status, bed.view().reason.as_str()), (AllocStatus::Complete, "all its tasks are done"));
        bed.said();
        bed.reboot();
        bed.rest();
        bed.interrupted = true;
        bed.rest();
        assert!(bed.said().is_empty());
        // A new version of the same work is a new order to run.
        bed.submit(job(kind, vec![docker("a"), docker("b"), hook(Hook::Poststop, false, docker("last"))]));
        bed.rest();
        assert_eq!(bed.running(), ["a", "b"]);
    }
}

#[test]
fn a_run_that_ended_well_before_the_memory_was_lost_is_not_run_again() {
    let mut bed = Bed::with(job(JobType::Batch, vec![docker("a")]));
    bed.end("a", 0);
    bed.rest();
    bed.memory = Default::default();
    bed.said();
    bed.rest();
    assert!(bed.said().is_empty());
    assert_eq!(bed.view().status, AllocStatus::Complete);
}

#[test]
fn the_leaders_end_is_the_end() {
    let leader = Task { leader: true, ..docker("boss") };
    let mut bed = Bed::with(job(JobType::Batch, vec![leader, docker("main")]));
    bed.end("boss", 0);
    bed.rest();
    assert!(bed.running().is_empty());
    assert_eq!(bed.view().reason, "its leader is done");
}

#[test]
fn a_run_may_take_so_long() {
    let mut spec = job(JobType::Batch, vec![docker("a")]);
    spec.groups[0].max_run_duration = Some(Millis(60_000));
    spec.groups[0].reschedule = Reschedule { attempts: 0, ..Reschedule::BATCH };
    let mut bed = Bed::with(spec);
    bed.pass(59_000);
    assert_eq!(bed.running(), ["a"]);
    bed.pass(1_100);
    assert!(bed.running().is_empty());
    let view = bed.view();
    assert!(view.status == AllocStatus::Failed && view.reason.contains("ran for 1m, longer than it may"), "{}", view.reason);
}

#[test]
fn what_failed_is_made_anew_with_new_instances_as_often_as_it_may() {
    let mut spec = job(JobType::Batch, vec![Task { restart: Some(fails(1)), ..docker("a") }]);
    spec.groups[0].reschedule = Reschedule { attempts: 1, delay: Millis(5_000), ..Reschedule::BATCH };
    let mut bed = Bed::with(spec);
    bed.end("a", 1);
    bed.pass(1_300);
    assert_eq!(bed.said(), ["create a", "start a", "start a"], "a restart in place");
    bed.end("a", 1);
    bed.rest();
    let view = bed.view();
    assert!(view.status == AllocStatus::Failed && view.reason.contains("all 1 restarts within 10m are spent"), "{}", view.reason);
    assert!(view.until.is_some());
    bed.pass(6_000);
    assert_eq!(bed.said(), ["remove a", "create a", "start a"]);
    assert_eq!(bed.view().restarts, 2, "in place and anew");
    for _ in 0..2 {
        bed.end("a", 1);
        bed.pass(1_300);
    }
    assert!(bed.view().reason.contains("as often as it may be"), "{}", bed.view().reason);
    bed.said();
    // It stays failed over a reboot, until an order.
    bed.reboot();
    bed.pass(60_000);
    assert_eq!(bed.said(), [""; 0]);
    let alloc = bed.manifest.allocs[0].id;
    bed.orders.push(Order { id: 7, alloc, kind: OrderKind::Retry });
    bed.rest();
    assert_eq!(bed.said(), ["remove a", "create a", "start a"]);
    assert!(bed.memory.orders.contains(&7));
    // Told again, it is not carried out again.
    bed.end("a", 0);
    bed.rest();
    assert!(bed.running().is_empty());
    bed.orders.clear();
    bed.rest();
    assert!(bed.memory.orders.is_empty());
}

fn with_check(limit: u32, grace: u64, tasks: Vec<Task>) -> skerry_wire::job::Job {
    let mut spec = job(JobType::Service, tasks);
    let check_restart = Some(CheckRestart { limit, grace: Millis(grace) });
    let kind = CheckKind::Tcp { port: None };
    let (interval, timeout) = (Millis(5_000), Millis(500));
    let check = Check {
        name: "up".into(),
        kind,
        interval,
        timeout,
        success_before_passing: 0,
        failures_before_critical: 2,
        check_restart,
        task: None,
    };
    let service = Service { name: "web".into(), port: Some("http".into()), tags: vec![], checks: vec![check], check_restart: None };
    spec.groups[0].network.ports.push(Port { label: "http".into(), fixed: Some(8080), to: None });
    spec.groups[0].services.push(service);
    spec
}

#[test]
fn a_check_that_fails_restarts_its_task_after_its_grace() {
    let mut bed = Bed::with(with_check(3, 20_000, vec![docker("main")]));
    bed.pass(15_000);
    assert_eq!(bed.view().healthy, Some(true));
    bed.said();
    // Within the grace failures do not count.
    bed.checks = (0, 4);
    bed.rest();
    assert!(bed.said().is_empty() && bed.view().reason.contains("`web/up` does not pass"), "{}", bed.view().reason);
    bed.pass(6_000);
    bed.checks = (0, 6);
    bed.rest();
    assert!(bed.said().is_empty());
    bed.checks = (0, 7);
    bed.rest();
    assert_eq!(bed.said(), ["stop main"]);
    assert!(bed.view().reason.contains("check `web/up` failed 3 times: HTTP 503"), "{}", bed.view().reason);
    assert!(bed.decide().checks.is_empty(), "what does not run is not checked");
    bed.checks = (1, 0);
    bed.pass(20_000);
    assert_eq!(bed.said(), ["start main"]);
    assert_eq!((bed.view().restarts, bed.view().reason.as_str()), (1, "all tasks run"));
}

#[test]
fn what_is_taken_away_while_it_is_stopped_is_made_anew_when_the_stop_has_ended() {
    let mut bed = Bed::with(with_check(1, 0, vec![docker("main")]));
    bed.pass(15_000);
    bed.said();
    bed.obedient = false;
    bed.checks = (0, 9);
    bed.rest();
    assert_eq!(bed.said(), ["stop main"]);
    bed.instances.clear();
    bed.rest();
    assert!(bed.said().is_empty(), "the stop would end the new one");
    bed.pass(20_000);
    assert_eq!((bed.said(), bed.view().reason), (vec![], "waits until task `main` is stopped".to_owned()));
    bed.stopping.clear();
    bed.checks = (1, 0);
    bed.rest();
    assert_eq!(bed.said(), ["create main", "start main"]);
}

#[test]
fn a_check_passes_and_fails_by_its_thresholds() {
    let mut bed = Bed::with(with_check(0, 0, vec![docker("main")]));
    for (found, passes) in [((1, 0), true), ((0, 1), true), ((0, 2), true), ((0, 3), false), ((0, 1), false), ((1, 0), true)] {
        bed.checks = found;
        bed.rest();
        assert_eq!(bed.view().reason == "all tasks run", passes, "{found:?}");
    }
}

#[test]
fn the_dead_mans_switch() {
    let mut spec = job(JobType::Service, vec![docker("main")]);
    spec.groups[0].disconnect.stop_on_client_after = Some(Millis(60_000));
    let mut bed = Bed::with(spec);
    bed.silent = Some(Millis(59_000));
    let decision = bed.rest();
    assert!(bed.running() == ["main"] && decision.wake_at <= Some(bed.ms + 1_000));
    bed.silent = Some(Millis(60_000));
    bed.rest();
    assert!(bed.running().is_empty());
    assert_eq!(
        (bed.view().status, bed.view().reason.as_str()),
        (AllocStatus::Pending, "no word from the server for 1m; starts again when it answers")
    );
    bed.reboot();
    bed.rest();
    assert!(bed.running().is_empty());
    bed.silent = Some(Millis(0));
    bed.rest();
    assert_eq!((bed.running(), bed.view().restarts), (vec!["main".to_owned()], 0));
}

#[test]
fn what_the_dead_mans_switch_stopped_begins_its_life_again_and_what_was_done_stays_done() {
    for (kind, again) in [(JobType::Service, vec!["start one", "start main"]), (JobType::Batch, vec!["start one", "start main"])] {
        let mut spec = job(kind, vec![hook(Hook::Prestart, false, docker("one")), docker("main"), docker("other")]);
        spec.groups[0].disconnect.stop_on_client_after = Some(Millis(60_000));
        let mut bed = Bed::with(spec);
        bed.end("one", 0);
        bed.rest();
        let done = kind == JobType::Batch;
        if done {
            bed.end("other", 0);
            bed.rest();
        }
        bed.silent = Some(Millis(60_000));
        bed.rest();
        assert!(bed.running().is_empty(), "{kind:?}");
        bed.said();
        bed.silent = Some(Millis(0));
        bed.rest();
        assert_eq!(bed.running(), ["one"], "{kind:?}: what comes before comes again");
        bed.end("one", 0);
        bed.rest();
        let mut expected = again;
        expected.extend((!done).then_some("start other"));
        assert_eq!(bed.said(), expected, "{kind:?}");
    }
}

#[test]
fn a_report_says_how_long_its_state_will_last() {
    use skerry_wire::poll::Event;
    let mut bed = Bed::with(job(JobType::Service, vec![docker("main")]));
    bed.end("main", 1);
    bed.events.clear();
    bed.rest();
    let [Event::Alloc { wait, .. }] = &bed.events[..] else { panic!("{:?}", bed.events) };
    assert_eq!(*wait, bed.view().until.map(|at| Millis(at - bed.ms)));
    assert!(wait.is_some_and(|w| w.0 > 0));
}

#[test]
fn an_engine_that_was_away_is_no_fault() {
    let mut bed = Bed::with(job(JobType::Service, vec![Task { restart: Some(fails(0)), ..docker("main") }]));
    bed.end("main", 137);
    bed.interrupted = true;
    bed.rest();
    assert_eq!((bed.running(), bed.view().restarts), (vec!["main".to_owned()], 0));
    // A process of the node does not end with the engine.
    let mut bed = Bed::with(job(JobType::Service, vec![Task { restart: Some(fails(0)), ..crate::bed::process("main", "/bin/true") }]));
    bed.end("main", 137);
    bed.interrupted = true;
    bed.rest();
    assert_eq!(bed.view().status, AllocStatus::Failed);
}

#[test]
fn a_limit_that_does_not_hold_is_told() {
    let told = "all tasks run; its memory and processor are not bounded: the node has no control groups for them";
    let tasks = || [docker("main"), crate::bed::process("main", "/bin/true")];
    for (bounds, expected) in [("v2", [false, false]), ("v1", [false, false]), ("v2-no-limits", [false, true]), ("none", [false, true])] {
        for (task, expected) in tasks().into_iter().zip(expected) {
            let mut bed = Bed::new();
            bed.node.attributes.insert("cgroup".into(), bounds.into());
            bed.submit(job(JobType::Service, vec![task]));
            bed.rest();
            assert_eq!(bed.view().reason, if expected { told } else { "all tasks run" }, "{bounds}");
            bed.pass(20_000);
            assert_eq!(bed.view().healthy, Some(true), "it runs all the same");
        }
    }
}

#[test]
fn waits_for_being_made_anew_grow_and_begin_again_after_a_good_time() {
    let mut spec = job(JobType::Service, vec![Task { restart: Some(fails(0)), ..docker("main") }]);
    spec.groups[0].update.auto_revert = false;
    let mut bed = Bed::with(spec);
    let wait = |bed: &mut Bed| {
        bed.end("main", 1);
        bed.rest();
        let wait = bed.view().until.expect("it is made anew") - bed.ms;
        bed.pass(wait + 10);
        assert_eq!(bed.running(), ["main"]);
        wait
    };
    for base in [30_000, 60_000, 120_000] {
        let wait = wait(&mut bed);
        assert!((base..=base + base / 8).contains(&wait), "{base}: {wait}");
    }
    // Healthy, and not for as long as it waited.
    bed.pass(20_000);
    assert_eq!(bed.view().healthy, Some(true));
    assert!(wait(&mut bed) >= 240_000);
    bed.pass(300_000);
    assert!(wait(&mut bed) < 40_000);
}
