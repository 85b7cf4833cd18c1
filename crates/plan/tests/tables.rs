//! What the planner decides, case by case.
#![allow(unreachable_pub)]

mod fleet;

use fleet::{fleet as of, group, image_id, job, node, node_id, settle, submit};
use std::collections::BTreeMap;

use skerry_plan::base::{self, Built, Estimator, NoEstimate};
use skerry_plan::{Fleet, Order, manifest, price, set};
use skerry_wire::api::SetState;
use skerry_wire::job::{Constraint, JobType, Operator};
use skerry_wire::{Digest, ImageId};

fn running(fleet: &Fleet) -> Vec<(String, u64, u32, u8)> {
    let mut list: Vec<_> = fleet
        .allocs
        .values()
        .filter(|a| a.order == Order::Run)
        .map(|a| (a.job.clone(), a.version, a.index, a.node.as_bytes()[0]))
        .collect();
    list.sort();
    list
}

fn entry(job: &str, version: u64, index: u32, node: u8) -> (String, u64, u32, u8) {
    (job.to_owned(), version, index, node)
}

#[test]
fn a_system_job_runs_on_every_node_that_may_have_it_and_on_new_ones() {
    let mut fleet = of([node(1, "default", 0), node(2, "default", 0), node(3, "lab", 0)]);
    submit(&mut fleet, job("a", JobType::System, 50, vec![group("g", 1, 10, &[], 1)]));
    settle(&mut fleet);
    assert_eq!(running(&fleet), [entry("a", 1, 0, 1), entry("a", 1, 0, 2)]);
    fleet.nodes.insert(node_id(4), node(4, "default", 0));
    assert_eq!(settle(&mut fleet).starts.len(), 1);
    let mut everywhere = job("a", JobType::System, 50, vec![group("g", 1, 10, &[], 2)]);
    everywhere.node_pool = "all".to_owned();
    submit(&mut fleet, everywhere);
    let plan = settle(&mut fleet);
    assert_eq!(plan.starts.iter().filter(|s| s.replaces.is_some()).count(), 3);
    assert_eq!(running(&fleet), [1, 2, 3, 4].map(|n| entry("a", 2, 0, n)));
}

#[test]
fn a_service_spreads_stays_where_it_is_and_scales_down() {
    let mut fleet = of((1..=3).map(|n| node(n, "default", 0)));
    submit(&mut fleet, job("a", JobType::Service, 50, vec![group("g", 4, 10, &[], 1)]));
    settle(&mut fleet);
    assert_eq!(running(&fleet), [entry("a", 1, 0, 1), entry("a", 1, 1, 2), entry("a", 1, 2, 3), entry("a", 1, 3, 1)]);
    fleet.nodes.insert(node_id(4), node(4, "default", 0));
    assert!(settle(&mut fleet).is_empty());
    submit(&mut fleet, job("a", JobType::Service, 50, vec![group("g", 2, 10, &[], 2)]));
    let plan = settle(&mut fleet);
    assert_eq!(running(&fleet), [entry("a", 2, 0, 1), entry("a", 2, 1, 2)]);
    assert_eq!(plan.stops.len(), 2);
    assert!(matches!(&plan.stops[0].order, Order::Stop(reason) if reason == "version 2 asks for 2 of group `g`"));
}

#[test]
fn every_node_ruled_out_is_counted_with_its_reason() {
    let mut other = node(5, "default", 0);
    other.fingerprint.attributes.insert("cpu.arch".to_owned(), "amd64".to_owned());
    let mut fleet = of([node(1, "lab", 0), node(2, "default", 50), node(3, "default", 0), node(4, "default", 0), other]);
    let mut wanted = job("a", JobType::Service, 50, vec![group("g", 3, 100, &[80], 1)]);
    wanted.constraints.push(Constraint { attribute: "${attr.cores}".to_owned(), operator: Operator::NotEqual, value: "3".to_owned() });
    submit(&mut fleet, wanted);
    let plan = settle(&mut fleet);
    let failure = &plan.failures["a"][0];
    assert_eq!((failure.group.as_str(), failure.missing), ("g", 2));
    assert_eq!(
        failure.reasons,
        [
            "1 node: constraint `${attr.cores} != 3` is not met",
            "1 node: image `app:1` is for arm64, the node is amd64",
            "1 node: not enough memory: 100 MiB are asked for",
            "1 node: not in node pool `default`",
            "1 node: port 80 is taken by another allocation",
        ]
    );
    assert_eq!(skerry_plan::plan(&of_job("b")).failures["b"][0].reasons, ["no node is enrolled"]);
}

fn of_job(id: &str) -> Fleet {
    let mut fleet = of([]);
    submit(&mut fleet, job(id, JobType::System, 50, vec![group("g", 1, 1, &[], 1)]));
    fleet
}

#[test]
fn the_more_important_job_chooses_first() {
    let mut fleet = of([node(1, "default", 100)]);
    submit(&mut fleet, job("a", JobType::Service, 10, vec![group("g", 1, 80, &[], 1)]));
    submit(&mut fleet, job("b", JobType::Service, 90, vec![group("g", 1, 80, &[], 1)]));
    settle(&mut fleet);
    assert_eq!(running(&fleet), [entry("b", 1, 0, 1)]);
    // What runs is not pushed aside by what is more important.
    submit(&mut fleet, job("c", JobType::Service, 100, vec![group("g", 1, 80, &[], 1)]));
    settle(&mut fleet);
    assert_eq!(running(&fleet), [entry("b", 1, 0, 1)]);
}

#[test]
fn two_jobs_that_swap_a_port_are_both_updated() {
    let mut fleet = of([node(1, "default", 0)]);
    for (id, port) in [("a", 80), ("b", 81)] {
        submit(&mut fleet, job(id, JobType::System, 50, vec![group("g", 1, 1, &[port], 1)]));
    }
    settle(&mut fleet);
    submit(&mut fleet, job("a", JobType::System, 50, vec![group("g", 1, 1, &[81], 2)]));
    submit(&mut fleet, job("b", JobType::System, 50, vec![group("g", 1, 1, &[82], 2)]));
    settle(&mut fleet);
    assert_eq!(running(&fleet), [entry("a", 2, 0, 1), entry("b", 2, 0, 1)]);
}

#[test]
fn only_an_order_stops_what_runs() {
    let mut fleet = of([node(1, "default", 500), node(2, "default", 500)]);
    let version = |memory| job("a", JobType::System, 50, vec![group("g", 1, memory, &[], 1)]);
    submit(&mut fleet, version(100));
    settle(&mut fleet);
    // Facts change, a node is forgotten, the server forgets the job: it goes on.
    fleet.nodes.get_mut(&node_id(1)).unwrap().fingerprint.datacenter = "elsewhere".to_owned();
    fleet.nodes.get_mut(&node_id(1)).unwrap().pool = "lab".to_owned();
    assert!(settle(&mut fleet).is_empty());
    let mut forgetful = fleet.clone();
    (forgetful.jobs, forgetful.nodes) = Default::default();
    assert!(settle(&mut forgetful).is_empty());
    // A version that a node cannot take leaves the old one there; one that does not belong there stops it.
    fleet.nodes.get_mut(&node_id(1)).unwrap().pool = "default".to_owned();
    submit(&mut fleet, version(1000));
    let plan = settle(&mut fleet);
    assert_eq!((running(&fleet).len(), plan.failures["a"][0].missing), (2, 2));
    fleet.nodes.get_mut(&node_id(1)).unwrap().pool = "lab".to_owned();
    submit(&mut fleet, version(200));
    let plan = settle(&mut fleet);
    assert_eq!(running(&fleet), [entry("a", 3, 0, 2)]);
    assert!(matches!(&plan.stops[0].order, Order::Stop(reason) if reason.contains("not in node pool `default`")));
    // An operator's stop.
    fleet.jobs.get_mut("a").unwrap().stopped = Some("job stopped by ada@example.org".to_owned());
    settle(&mut fleet);
    assert!(running(&fleet).is_empty());
    let content = manifest::content(node_id(2), fleet.allocs.values(), |_, _| Some(Digest::new([0; 32])));
    assert_eq!((content.allocs.len(), content.tombstones.len()), (0, 1));
}

#[test]
fn a_set_has_a_row_for_each_image_and_node_and_knows_what_is_there() {
    let mut fleet = of([node(1, "default", 0), node(2, "default", 0)]);
    fleet.nodes.get_mut(&node_id(2)).unwrap().inventory.insert(image_id(1));
    submit(&mut fleet, job("a", JobType::System, 50, vec![group("g", 1, 1, &[], 1), group("h", 1, 1, &[], 2)]));
    settle(&mut fleet);
    let rows = set::rows(&fleet, "a", fleet.allocs.values());
    let states: Vec<_> = rows.values().map(|r| r.state).collect();
    assert_eq!(states, [SetState::Queued, SetState::Queued, SetState::Succeeded, SetState::Queued]);
    let prices = price(&fleet, "a", &Default::default(), &NoEstimate);
    assert_eq!(prices.len(), 3);
    assert_eq!(
        prices.iter().map(|p| (p.node_name.as_str(), p.base)).collect::<Vec<_>>(),
        [("node-1", None), ("node-1", None), ("node-2", Some(image_id(1)))]
    );
}

/// Says what each base saves, in a table.
struct Table(&'static [(&'static [u8], u64)]);

impl Estimator for Table {
    fn estimate(&self, _: &ImageId, bases: &[ImageId]) -> Option<u64> {
        let bases: Vec<u8> = bases.iter().map(|b| b.digest().as_bytes()[0]).collect();
        self.0.iter().find(|(set, _)| *set == bases).map(|(_, bytes)| *bytes)
    }
}

#[test]
fn bases_are_chosen_by_what_they_save_and_shared() {
    let fleet = of([]);
    let mut holder = node(1, "default", 0);
    holder.inventory = [image_id(2), image_id(3)].into();
    let choose = |table: &'static [(&'static [u8], u64)], built: &[Built]| {
        let choice = base::choose(&image_id(1), &holder, &fleet.images, built, &Table(table));
        (choice.bases, choice.bytes, choice.built)
    };
    let far: &[(&[u8], u64)] = &[(&[], 1_000_000), (&[2], 500_000), (&[3], 400_000), (&[2, 3], 395_000)];
    assert_eq!(choose(far, &[]), (vec![image_id(3)], 400_000, false));
    let both: &[(&[u8], u64)] = &[(&[], 1_000_000), (&[2], 500_000), (&[3], 400_000), (&[2, 3], 100_000)];
    assert_eq!(choose(both, &[]), (vec![image_id(2), image_id(3)], 100_000, false));
    let none: &[(&[u8], u64)] = &[(&[], 1_000), (&[2], 1_000), (&[3], 2_000)];
    assert_eq!(choose(none, &[]), (vec![], 1_000, false));
    let built = |n: u8, bytes| [Built { bases: vec![image_id(n)], bytes }];
    assert_eq!(choose(far, &built(2, 430_000)), (vec![image_id(2)], 430_000, true));
    // Another build costs as much as 64 KiB.
    assert_eq!(choose(far, &built(2, 460_000)), (vec![image_id(2)], 460_000, true));
    assert_eq!(choose(far, &built(2, 470_000)), (vec![image_id(3)], 400_000, false));
    assert_eq!(choose(far, &built(4, 10)), (vec![image_id(3)], 400_000, false));
}

#[test]
fn a_fleet_shares_few_bundles() {
    let fleet = of([]);
    let mut holders: Vec<_> = (1..=100).map(|n| node(n, "default", 0)).collect();
    let table: &[(&[u8], u64)] = &[(&[], 1_000_000), (&[2], 100_000), (&[3], 95_000), (&[2, 3], 80_000), (&[4], 900_000)];
    let share = |holders: &[skerry_plan::Node], built: &[Built]| -> BTreeMap<Vec<u8>, usize> {
        let nodes: Vec<_> = holders.iter().collect();
        let choices = base::share(&image_id(1), &nodes, &fleet.images, built, &Table(table));
        assert_eq!(choices.len(), holders.len());
        let mut used = BTreeMap::new();
        for holder in holders {
            let choice = &choices[&holder.id];
            assert!(choice.bases.iter().all(|base| holder.inventory.contains(base)));
            *used.entry(choice.bases.iter().map(|base| base.digest().as_bytes()[0]).collect()).or_default() += 1;
        }
        used
    };
    // Twenty kilobytes a node are worth a build of 64 KiB for ninety nodes, not for three; and the full bundle is for who has nothing.
    for (number, holder) in holders.iter_mut().enumerate() {
        holder.inventory = match number {
            0..90 => [image_id(2), image_id(4)].into(),
            90..93 => [image_id(2), image_id(3)].into(),
            93..99 => [image_id(4)].into(),
            _ => Default::default(),
        };
    }
    assert_eq!(share(&holders, &[]), [(vec![], 1), (vec![2], 93), (vec![4], 6)].into());
    // What is ready costs nothing to build.
    let ready = [Built { bases: vec![image_id(2), image_id(3)], bytes: 80_000 }];
    assert_eq!(share(&holders, &ready), [(vec![], 1), (vec![2], 90), (vec![2, 3], 3), (vec![4], 6)].into());
    for holder in &mut holders[..90] {
        holder.inventory.insert(image_id(3));
    }
    assert_eq!(share(&holders, &[]), [(vec![], 1), (vec![2, 3], 93), (vec![4], 6)].into());
    // Nobody needs the full bundle when all have something.
    assert_eq!(share(&holders[..93], &[]), [(vec![2, 3], 93)].into());
    assert!(base::share(&image_id(9), &[&holders[0]], &fleet.images, &[], &NoEstimate).is_empty(), "a target that nobody knows");
}
