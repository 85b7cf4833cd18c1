//! Static ports that change hands between the groups of a job.

use std::collections::BTreeMap;

use skerry_reconcile::State;
use skerry_wire::job::{Group, Job, JobType, Port};
use skerry_wire::manifest::Tombstone;
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, Millis};

use crate::bed::{Bed, docker};

/// A job of one group for each task, with the static ports that are given.
fn with(groups: &[(&str, Option<u16>)]) -> Job {
    let group = |(name, fixed): &(&str, Option<u16>)| {
        let mut group = Group::new(name, vec![docker(name)]);
        group.network.ports.extend(fixed.map(|n| Port { label: "http".into(), fixed: Some(n), to: None }));
        group.update.lock_limit = Millis(0);
        group
    };
    Job::new("till", JobType::Service, groups.iter().map(group).collect())
}

/// Steps until nothing is done; no two instances ever run with the same port.
fn settle(bed: &mut Bed) -> Vec<String> {
    for _ in 0..50 {
        let before = (bed.memory.clone(), bed.instances.clone());
        bed.step();
        let mut holders: BTreeMap<u16, &str> = BTreeMap::new();
        for i in bed.instances.values().filter(|i| i.state == State::Running) {
            for port in i.labels.ports.values() {
                let other = holders.insert(*port, &i.name);
                assert_eq!(other, None, "{} has port {port} too: {:?}", i.name, bed.done);
            }
        }
        if before == (bed.memory.clone(), bed.instances.clone()) {
            return bed.said();
        }
    }
    panic!("does not come to rest: {:?}", bed.done)
}

/// Version and state of each group, as the labels of what runs say.
fn running(bed: &Bed) -> Vec<(String, u64)> {
    let running = bed.instances.values().filter(|i| i.state == State::Running);
    let mut all: Vec<_> = running.map(|i| (i.labels.task.clone(), i.labels.version)).collect();
    all.sort();
    all
}

fn both(version: u64) -> Vec<(String, u64)> {
    vec![("a".into(), version), ("b".into(), version)]
}

#[test]
fn a_port_moves_between_groups_of_one_job() {
    for (before, after) in [
        ([("a", Some(8080)), ("b", None)], [("a", None), ("b", Some(8080))]),
        ([("a", None), ("b", Some(8080))], [("a", Some(8080)), ("b", None)]),
        ([("a", Some(8080)), ("b", Some(9090))], [("a", Some(9090)), ("b", Some(8080))]),
    ] {
        let mut bed = Bed::with(with(&before));
        bed.said();
        bed.submit(with(&after));
        let done = settle(&mut bed);
        assert_eq!(running(&bed), both(2), "{before:?} to {after:?}: {done:?}");
    }
}

#[test]
fn a_port_of_a_group_that_is_taken_out_is_free_once_it_has_stopped() {
    for order in [["a", "b"], ["b", "a"]] {
        let mut bed = Bed::with(with(&[(order[0], Some(8080))]));
        let old = bed.manifest.allocs[0].clone();
        bed.said();
        bed.submit(with(&[(order[1], Some(8080))]));
        bed.manifest.tombstones.push(Tombstone::of(&old, "the group is gone"));
        bed.obedient = false;
        settle(&mut bed);
        assert_eq!(running(&bed), [(order[0].to_owned(), 1)], "it does not end yet");
        let waits = bed.told(AllocId::new([32; 16]));
        assert_eq!(waits.reason, format!("waits until till.{}[0] has let go of a port of the node", order[0]));
        bed.end(order[0], 0);
        settle(&mut bed);
        assert_eq!(running(&bed), [(order[1].to_owned(), 2)]);
    }
}

#[test]
fn who_gets_a_port_goes_on_until_the_other_can_let_go() {
    // The group that has the port holds its update lock.
    let mut bed = Bed::with(with(&[("a", Some(8080)), ("b", None)]));
    bed.locked = bed.manifest.allocs[..1].iter().map(|a| a.id).collect();
    bed.said();
    bed.submit(with(&[("a", None), ("b", Some(8080))]));
    settle(&mut bed);
    assert_eq!(running(&bed), both(1));
    let b = bed.told(AllocId::new([33; 16]));
    assert_eq!((b.status, b.reason.as_str()), (AllocStatus::Pending, "waits until till.a[0] can give up port 8080 of the node"));
    bed.locked.clear();
    settle(&mut bed);
    assert_eq!(running(&bed), both(2));

    // Both hold theirs, and swap: the order to override one is not enough, both are.
    let mut bed = Bed::with(with(&[("a", Some(8080)), ("b", Some(9090))]));
    bed.locked = bed.manifest.allocs.iter().map(|a| a.id).collect();
    bed.submit(with(&[("a", Some(9090)), ("b", Some(8080))]));
    settle(&mut bed);
    bed.manifest.allocs[0].override_lock = true;
    settle(&mut bed);
    assert_eq!(running(&bed), both(1));
    bed.manifest.allocs[1].override_lock = true;
    settle(&mut bed);
    assert_eq!(running(&bed), both(2));

    // A limit ends both locks at once.
    let limited = |ports: [(&str, Option<u16>); 2]| {
        let mut job = with(&ports);
        job.groups.iter_mut().for_each(|g| g.update.lock_limit = Millis(60_000));
        job
    };
    let mut bed = Bed::with(limited([("a", Some(8080)), ("b", Some(9090))]));
    bed.locked = bed.manifest.allocs.iter().map(|a| a.id).collect();
    bed.submit(limited([("a", Some(9090)), ("b", Some(8080))]));
    settle(&mut bed);
    assert_eq!(running(&bed), both(1));
    bed.ms += 60_000;
    settle(&mut bed);
    assert_eq!(running(&bed), both(2));
}

#[test]
fn a_port_that_is_kept_is_not_given_away() {
    // The other group of the new version asks for it as well: its own switch waits for nothing, and neither runs anew.
    let mut bed = Bed::with(with(&[("a", Some(8080)), ("b", None)]));
    bed.said();
    bed.submit(with(&[("a", Some(8080)), ("b", Some(8080))]));
    settle(&mut bed);
    assert_eq!(running(&bed), both(1));
    assert_eq!(bed.told(AllocId::new([33; 16])).reason, "port 8080 of the node is taken by till.a[0]");
}
