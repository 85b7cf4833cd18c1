//! Batch jobs that are done, nodes that are silent or drained, services that move.
#![allow(unreachable_pub)]

mod fleet;

use fleet::{fleet as of, group, job, later, lose, node, node_id, replaced, runs, say, settle, submit};
use skerry_plan::{Alloc, Drain, Fleet, Order};
use skerry_wire::Millis;
use skerry_wire::job::{Constraint, Job, JobType, MissedRun, Operator, Periodic, Reconcile, UnknownTime};
use skerry_wire::poll::AllocStatus;

/// What is ordered to run, as `node/version`.
fn ordered(fleet: &Fleet) -> Vec<String> {
    let run = fleet.allocs.values().filter(|a| a.order == Order::Run);
    let mut list: Vec<_> = run.map(|a| format!("{}/{}", a.node.as_bytes()[0], a.version)).collect();
    list.sort();
    list
}

fn on(fleet: &Fleet, n: u8) -> &Alloc {
    fleet.allocs.values().find(|a| a.node == node_id(n) && a.order == Order::Run).expect("one that runs there")
}

fn reason(fleet: &Fleet, n: u8) -> String {
    let stopped = fleet.allocs.values().filter(|a| a.node == node_id(n));
    stopped.filter_map(|a| if let Order::Stop(reason) = &a.order { Some(reason.clone()) } else { None }).next().expect("one that stops")
}

fn three() -> Fleet {
    of((1..=3).map(|n| node(n, "default", 0)))
}

#[test]
fn what_ran_to_its_end_is_not_placed_again() {
    for kind in [JobType::Batch, JobType::SysBatch] {
        let mut fleet = of([node(1, "default", 100)]);
        submit(&mut fleet, job("a", kind, 50, vec![group("g", 1, 80, &[80], 1)]));
        settle(&mut fleet);
        let first = on(&fleet, 1).id;
        say(&mut fleet, first, AllocStatus::Complete);
        assert!(settle(&mut fleet).is_empty());
        // Its room is free, and its node may be drained: nothing is left to move.
        submit(&mut fleet, job("b", JobType::System, 50, vec![group("g", 1, 80, &[80], 1)]));
        settle(&mut fleet);
        assert_eq!(ordered(&fleet), ["1/1", "1/1"]);
        fleet.nodes.get_mut(&node_id(1)).unwrap().drain = Some(Drain { deadline: Some(fleet.now), ignore_system: true });
        assert!(settle(&mut fleet).is_empty());
        fleet.nodes.get_mut(&node_id(1)).unwrap().drain = None;
        // A new version runs, once there is room again.
        fleet.jobs.get_mut("b").unwrap().stopped = Some("job stopped".to_owned());
        submit(&mut fleet, job("a", kind, 50, vec![group("g", 1, 70, &[80], 1)]));
        settle(&mut fleet);
        assert_eq!(ordered(&fleet), ["1/2"]);
        assert!(!on(&fleet, 1).runs(), "{kind:?}: nothing runs before it starts");
    }
}

#[test]
fn a_lost_allocation_is_replaced_only_where_the_job_asks_for_it() {
    for replace in [false, true] {
        let mut fleet = three();
        let mut wanted = replaced(Reconcile::KeepOriginal, group("g", 1, 10, &[], 1));
        wanted.disconnect.replace = replace;
        submit(&mut fleet, job("a", JobType::Service, 50, vec![wanted]));
        settle(&mut fleet);
        runs(&mut fleet, &[1]);
        lose(&mut fleet, 1, true);
        settle(&mut fleet);
        assert_eq!(ordered(&fleet), if replace { vec!["1/1", "2/1"] } else { vec!["1/1"] });
        // A replacement that is lost in its turn is replaced; while all are lost there is no place left.
        lose(&mut fleet, 2, true);
        lose(&mut fleet, 3, true);
        settle(&mut fleet);
        lose(&mut fleet, 3, true);
        let plan = settle(&mut fleet);
        assert_eq!(ordered(&fleet).len(), if replace { 3 } else { 1 });
        assert_eq!(plan.failures.len(), usize::from(replace), "{plan:?}");
    }
}

#[test]
fn who_goes_on_when_a_node_comes_back() {
    use AllocStatus::{Pending, Running};
    use Reconcile::*;
    // Rule, state of the replacement, how long the replacement runs compared with the original; who is left.
    for (rule, state, younger, left) in [
        (KeepOriginal, Running, true, vec!["1/1"]),
        (KeepOriginal, Pending, true, vec!["1/1"]),
        (KeepReplacement, Running, true, vec!["2/1"]),
        (KeepReplacement, Pending, true, vec!["1/1", "2/1"]),
        (LongestRunning, Running, true, vec!["1/1"]),
        (LongestRunning, Running, false, vec!["2/1"]),
        (LongestRunning, Pending, true, vec!["1/1"]),
    ] {
        let mut fleet = three();
        submit(&mut fleet, job("a", JobType::Service, 50, vec![replaced(rule, group("g", 1, 10, &[], 1))]));
        settle(&mut fleet);
        runs(&mut fleet, &[1]);
        later(&mut fleet, 1000);
        lose(&mut fleet, 1, true);
        settle(&mut fleet);
        let replacement = on(&fleet, 2).id;
        say(&mut fleet, replacement, state);
        assert!(settle(&mut fleet).is_empty(), "both run until the node is back");
        later(&mut fleet, 1000);
        if !younger {
            // The original was restarted while it was away.
            let original = on(&fleet, 1).id;
            fleet.allocs.get_mut(&original).unwrap().state.running_since = Some(fleet.now);
        }
        lose(&mut fleet, 1, false);
        settle(&mut fleet);
        assert_eq!(ordered(&fleet), left, "{rule:?} {state:?}");
        if left == ["2/1"] {
            assert_eq!(reason(&fleet, 1), "index 0 goes on on node-2");
        }
        // In the end one is left, whoever was slow.
        runs(&mut fleet, &[1, 2]);
        settle(&mut fleet);
        assert_eq!(ordered(&fleet).len(), 1, "{rule:?} {state:?}");
    }
}

#[test]
fn the_newest_version_wins_whatever_the_rule() {
    for rule in [Reconcile::KeepOriginal, Reconcile::KeepReplacement, Reconcile::LongestRunning] {
        let mut fleet = three();
        let version = |image| job("a", JobType::Service, 50, vec![replaced(rule, group("g", 1, 10, &[], image))]);
        submit(&mut fleet, version(1));
        settle(&mut fleet);
        runs(&mut fleet, &[1]);
        lose(&mut fleet, 1, true);
        settle(&mut fleet);
        runs(&mut fleet, &[2]);
        submit(&mut fleet, version(2));
        settle(&mut fleet);
        assert_eq!(ordered(&fleet), ["1/1", "2/2"], "what is lost and replaced is not updated");
        lose(&mut fleet, 1, false);
        settle(&mut fleet);
        assert_eq!(ordered(&fleet), ["1/1", "2/2"], "the new version does not run yet");
        runs(&mut fleet, &[2]);
        settle(&mut fleet);
        assert_eq!(ordered(&fleet), ["2/2"], "{rule:?}");
    }
}

#[test]
fn a_new_version_that_moves_stops_the_old_one_only_when_it_runs() {
    let mut fleet = three();
    submit(&mut fleet, job("a", JobType::Service, 50, vec![group("g", 1, 10, &[], 1)]));
    settle(&mut fleet);
    runs(&mut fleet, &[1]);
    let mut elsewhere = job("a", JobType::Service, 50, vec![group("g", 1, 10, &[], 2)]);
    elsewhere.constraints.push(Constraint { attribute: "${attr.cores}".to_owned(), operator: Operator::NotEqual, value: "1".to_owned() });
    submit(&mut fleet, elsewhere);
    settle(&mut fleet);
    assert_eq!(ordered(&fleet), ["1/1", "2/2"]);
    let new = on(&fleet, 2).id;
    for status in [AllocStatus::Pending, AllocStatus::Failed] {
        say(&mut fleet, new, status);
        assert!(settle(&mut fleet).is_empty(), "{status:?}");
    }
    let mut unhealthy = fleet.clone();
    say(&mut unhealthy, new, AllocStatus::Running);
    unhealthy.allocs.get_mut(&new).unwrap().state.healthy = Some(false);
    assert!(settle(&mut unhealthy).is_empty());
    let mut stopped = fleet.clone();
    stopped.jobs.get_mut("a").unwrap().stopped = Some("job stopped".to_owned());
    settle(&mut stopped);
    assert!(ordered(&stopped).is_empty(), "an operator's stop waits for nothing");
    say(&mut fleet, new, AllocStatus::Running);
    settle(&mut fleet);
    assert_eq!(ordered(&fleet), ["2/2"]);
    assert_eq!(
        reason(&fleet, 1),
        "version 2 does not belong on this node: constraint `${attr.cores} != 1` is not met; index 0 goes on on node-2"
    );
}

#[test]
fn a_drained_node_empties_system_jobs_last() {
    let mut fleet = of((1..=2).map(|n| node(n, "default", 0)));
    submit(&mut fleet, job("service", JobType::Service, 50, vec![group("g", 1, 10, &[], 1)]));
    submit(&mut fleet, job("system", JobType::System, 50, vec![group("g", 1, 10, &[], 1)]));
    settle(&mut fleet);
    runs(&mut fleet, &[1, 2]);
    let drained = |ignore_system, fleet: &Fleet| {
        let mut fleet = fleet.clone();
        let deadline = Some(fleet.now.after(Millis(1000)));
        let node = fleet.nodes.get_mut(&node_id(1)).unwrap();
        (node.eligible, node.drain) = (false, Some(Drain { deadline, ignore_system }));
        fleet
    };
    let mut fleet_a = drained(false, &fleet);
    settle(&mut fleet_a);
    assert_eq!(ordered(&fleet_a), ["1/1", "1/1", "2/1", "2/1"], "the replacement comes first");
    runs(&mut fleet_a, &[2]);
    settle(&mut fleet_a);
    assert_eq!(ordered(&fleet_a), ["1/1", "2/1", "2/1"], "the service has moved, the system job waits for its end");
    let moved = fleet_a.allocs.values().find(|a| a.node == node_id(1) && a.order != Order::Run).unwrap().id;
    say(&mut fleet_a, moved, AllocStatus::Complete);
    settle(&mut fleet_a);
    assert_eq!(ordered(&fleet_a), ["2/1", "2/1"]);
    // Given back, it gets its system job again, and no service.
    let node = fleet_a.nodes.get_mut(&node_id(1)).unwrap();
    (node.eligible, node.drain) = (true, None);
    settle(&mut fleet_a);
    assert_eq!(ordered(&fleet_a), ["1/1", "2/1", "2/1"]);
    // At the deadline nothing is waited for.
    let mut late = drained(false, &fleet);
    settle(&mut late);
    later(&mut late, 1000);
    settle(&mut late);
    assert_eq!(ordered(&late), ["2/1", "2/1"]);
    assert!(reason(&late, 1).ends_with("is drained, and the deadline has passed"));
    let mut ignored = drained(true, &fleet);
    settle(&mut ignored);
    later(&mut ignored, 1000);
    settle(&mut ignored);
    assert_eq!(ordered(&ignored), ["1/1", "2/1", "2/1"]);
}

#[test]
fn a_run_that_was_begun_is_let_end_on_a_drained_node() {
    let mut fleet = of((1..=2).map(|n| node(n, "default", 0)));
    submit(&mut fleet, job("a", JobType::Batch, 50, vec![group("g", 2, 10, &[], 1)]));
    settle(&mut fleet);
    runs(&mut fleet, &[1]);
    for n in [1, 2] {
        fleet.nodes.get_mut(&node_id(n)).unwrap().drain = Some(Drain { deadline: Some(fleet.now.after(Millis(5))), ignore_system: false });
    }
    fleet.nodes.insert(node_id(3), node(3, "default", 0));
    settle(&mut fleet);
    assert_eq!(ordered(&fleet), ["1/1", "3/1"], "what had not begun is begun elsewhere");
    later(&mut fleet, 5);
    settle(&mut fleet);
    assert_eq!(ordered(&fleet), ["3/1", "3/1"]);
}

#[test]
fn an_ineligible_node_keeps_what_it_has_and_gets_its_updates() {
    let mut fleet = of((1..=2).map(|n| node(n, "default", 0)));
    submit(&mut fleet, job("a", JobType::System, 50, vec![group("g", 1, 10, &[], 1)]));
    settle(&mut fleet);
    fleet.nodes.get_mut(&node_id(1)).unwrap().eligible = false;
    assert!(settle(&mut fleet).is_empty());
    submit(&mut fleet, job("a", JobType::System, 50, vec![group("g", 1, 10, &[], 2)]));
    submit(&mut fleet, job("b", JobType::System, 50, vec![group("g", 1, 10, &[], 1)]));
    submit(&mut fleet, job("c", JobType::Service, 50, vec![group("g", 2, 10, &[], 1)]));
    let plan = settle(&mut fleet);
    assert_eq!(ordered(&fleet), ["1/2", "2/1", "2/1", "2/1", "2/2"]);
    assert!(plan.failures.is_empty(), "{plan:?}");
    for n in [1, 2] {
        fleet.nodes.get_mut(&node_id(n)).unwrap().eligible = false;
    }
    submit(&mut fleet, job("d", JobType::Service, 50, vec![group("g", 2, 10, &[], 1)]));
    let failure = settle(&mut fleet).failures["d"][0].clone();
    assert_eq!((failure.missing, failure.reasons), (2, vec!["2 nodes: the node is not eligible".to_owned()]));
}

#[test]
fn a_replacement_does_not_go_to_another_lost_node() {
    let mut fleet = three();
    let group = || replaced(Reconcile::KeepOriginal, group("g", 1, 10, &[], 1));
    submit(&mut fleet, job("a", JobType::Service, 50, vec![group()]));
    submit(&mut fleet, job("b", JobType::System, 50, vec![group()]));
    settle(&mut fleet);
    lose(&mut fleet, 1, true);
    lose(&mut fleet, 2, true);
    settle(&mut fleet);
    let of_a = fleet.allocs.values().filter(|a| a.job == "a" && a.order == Order::Run);
    assert_eq!(of_a.map(|a| a.node.as_bytes()[0]).collect::<std::collections::BTreeSet<_>>(), [1, 3].into());
}

#[test]
fn a_periodic_job_has_moved_when_its_new_node_knows_it() {
    let mut fleet = of((1..=2).map(|n| node(n, "default", 0)));
    let periodic = Periodic {
        crons: vec!["0 3 * * *".to_owned()],
        time_zone: "UTC".to_owned(),
        prohibit_overlap: true,
        enabled: true,
        missed: MissedRun::Skip,
        unknown_time: UnknownTime::Interval,
    };
    submit(&mut fleet, Job { periodic: Some(periodic), ..job("a", JobType::Batch, 50, vec![group("g", 1, 10, &[], 1)]) });
    settle(&mut fleet);
    runs(&mut fleet, &[1]);
    fleet.nodes.get_mut(&node_id(1)).unwrap().drain = Some(Drain { deadline: None, ignore_system: false });
    settle(&mut fleet);
    assert_eq!(ordered(&fleet), ["1/1", "2/1"], "it moves, unlike a run that ends");
    assert!(settle(&mut fleet).is_empty());
    let new = on(&fleet, 2).id;
    say(&mut fleet, new, AllocStatus::Pending);
    settle(&mut fleet);
    assert_eq!(ordered(&fleet), ["2/1"]);
}
