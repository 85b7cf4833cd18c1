//! Who has which port of the node.

use std::collections::BTreeSet;

use skerry_reconcile::{Slot, assign_ports};
use skerry_wire::job::{Group, Hook, Job, JobType, Port, RestartMode, RestartPolicy};
use skerry_wire::poll::AllocStatus;

use crate::bed::{Bed, docker, hook};

#[test]
fn one_static_port_for_one() {
    let with = |id: &str| {
        let mut group = Group::new("g", vec![docker("main")]);
        group.network.ports.push(Port { label: "http".into(), fixed: Some(8080), to: None });
        Job { id: id.into(), name: id.into(), ..Job::new(id, JobType::Service, vec![group]) }
    };
    let mut bed = Bed::with(with("z"));
    let alloc = bed.submit(with("a"));
    bed.rest();
    let told = bed.told(alloc);
    assert!(told.status == AllocStatus::Failed && told.reason == "port 8080 of the node is taken by z.g[0]", "{}", told.reason);
    // Two at once: the first by name.
    let mut bed = Bed::new();
    let (_, second) = (bed.submit(with("a")), bed.submit(with("b")));
    bed.rest();
    assert_eq!((bed.told(second).reason.as_str(), bed.running().len()), ("port 8080 of the node is taken by a.g[0]", 1));
}

#[test]
fn ports_are_free_again_when_a_run_is_complete_and_not_before() {
    let with = |id: &str, kind, fixed| {
        let mut group = Group::new("g", vec![docker("main")]);
        group.network.ports.push(Port { label: "http".into(), fixed, to: None });
        Job { id: id.into(), name: id.into(), ..Job::new(id, kind, vec![group]) }
    };
    let mut bed = Bed::with(with("a", JobType::Batch, Some(8080)));
    let other = bed.submit(with("b", JobType::Service, Some(8080)));
    bed.rest();
    assert_eq!(bed.told(other).status, AllocStatus::Failed);
    bed.end("main", 0);
    bed.rest();
    assert!(bed.told(other).current);
    // A port that the node chose is left alone by a static one that comes later, and one that is asked for is not chosen.
    let mut bed = Bed::with(with("a", JobType::Service, None));
    let chosen = bed.view().ports["http"];
    let other = bed.submit(with("b", JobType::Service, Some(chosen)));
    bed.rest();
    assert_eq!(bed.told(other).reason, format!("port {chosen} of the node is taken by a.g[0]"));
    let mut bed = Bed::new();
    bed.images.clear();
    bed.submit(with("b", JobType::Service, Some(chosen)));
    bed.rest();
    bed.images = Bed::new().images;
    bed.submit(with("a", JobType::Service, None));
    bed.rest();
    assert_ne!(bed.view().ports["http"], chosen);
}

#[test]
fn what_failed_and_will_come_again_keeps_its_port_and_so_does_what_ends() {
    let with = |id: &str, kind| {
        let mut group = Group::new("g", vec![docker("main"), hook(Hook::Poststop, false, docker("last"))]);
        group.network.ports.push(Port { label: "http".into(), fixed: Some(8080), to: None });
        group.restart = RestartPolicy { attempts: 0, mode: RestartMode::Fail, ..group.restart };
        Job { id: id.into(), name: id.into(), ..Job::new(id, kind, vec![group]) }
    };
    for (code, status) in [(1, AllocStatus::Failed), (0, AllocStatus::Complete)] {
        let mut bed = Bed::with(with("a", JobType::Batch));
        let first = bed.manifest.allocs[0].id;
        let other = bed.submit(with("b", JobType::Service));
        bed.rest();
        bed.end("main", code);
        bed.rest();
        assert_eq!(bed.running(), ["last"], "its last task runs");
        assert_eq!(bed.told(other).reason, "port 8080 of the node is taken by a.g[0]", "{code}");
        bed.end("last", 0);
        bed.step();
        assert_eq!(bed.told(first).status, status);
        bed.rest();
        assert_eq!(bed.told(other).current, code == 0, "{code}: {}", bed.told(other).reason);
    }
}

#[test]
fn places_spread_over_all_ports() {
    let mut group = Group::new("g", vec![]);
    group.network.ports.push(Port { label: "http".into(), fixed: None, to: None });
    let first =
        |index| assign_ports(&group, &Slot { job: "till".into(), group: "g".into(), index }, &Default::default(), &Default::default());
    let ports: BTreeSet<u16> = (0..2_000).map(|index| first(index).unwrap()["http"]).collect();
    assert!(ports.len() > 1_500 && ports.first() < Some(&20_100) && ports.last() > Some(&31_900), "{}", ports.len());
}

/// The port that a place tries first is by chance that of another: each gets one of its own.
#[test]
fn no_two_places_get_one_dynamic_port() {
    let with = |id: &str| {
        let mut group = Group::new("g", vec![docker("main")]);
        group.network.ports.push(Port { label: "http".into(), fixed: None, to: None });
        Job { id: id.into(), name: id.into(), ..Job::new(id, JobType::Service, vec![group]) }
    };
    let first = |id: &str| {
        let (spec, slot) = (with(id), Slot { job: id.into(), group: "g".into(), index: 0 });
        assign_ports(&spec.groups[0], &slot, &Default::default(), &Default::default()).unwrap()["http"]
    };
    let port = first("till");
    let twin = (0..1_000_000).map(|n| format!("job{n}")).find(|id| first(id) == port).expect("there are fewer ports");
    for order in [["till", twin.as_str()], [twin.as_str(), "till"]] {
        let mut bed = Bed::new();
        for id in order {
            bed.submit(with(id));
        }
        bed.rest();
        let ports: BTreeSet<u16> = bed.decide().allocs.iter().map(|a| a.ports["http"]).collect();
        assert!(ports.len() == 2 && ports.contains(&port), "{ports:?}");
    }
}
