//! What holds for every fleet and every history.
#![allow(unreachable_pub)]
#![allow(clippy::large_enum_variant, reason = "a few of them are made for each case")]

mod fleet;

use std::collections::{BTreeMap, BTreeSet};

use fleet::{group, image_id, job, node, replaced, settle, submit};
use proptest::prelude::*;
use skerry_plan::base::{self, Built, Estimator};
use skerry_plan::{Alloc, Drain, Fleet, Order, manifest, plan};
use skerry_wire::job::{Constraint, Job, JobType, Operator, Reconcile};
use skerry_wire::poll::AllocStatus;
use skerry_wire::{Digest, ImageId, Millis, NodeId};

/// One thing that happens to a fleet.
#[derive(Debug, Clone)]
enum Happens {
    Enrol(u8, bool, u64),
    Submit(Job),
    Stop(u8),
    Memory(u8, u64),
    Said(usize, u8),
    Lost(u8),
    Back(u8),
    Drain(u8, Option<u64>, bool),
    Eligible(u8, bool),
}

fn any_job() -> impl Strategy<Value = Job> {
    let one = (0u32..5, 0u32..300, prop::collection::vec(80u16..84, 0..2), 1u8..=4);
    let groups = prop::collection::vec(one, 1..3);
    (0u8..3, 0u8..4, 1u8..=100, groups, 0u8..6, 0u8..8).prop_map(|(id, kind, priority, groups, cores, how)| {
        let kind = [JobType::Service, JobType::System, JobType::Batch, JobType::SysBatch][usize::from(kind)];
        let all = how & 1 == 1;
        let rule = [None, Some(Reconcile::KeepOriginal), Some(Reconcile::KeepReplacement), Some(Reconcile::LongestRunning)];
        let rule = rule[usize::from(how >> 1)];
        let groups = groups.into_iter().enumerate().map(|(n, (count, memory, ports, image))| {
            let group = group(&format!("g{n}"), if kind.is_everywhere() { 1 } else { count }, memory, &ports, image);
            rule.map_or(group.clone(), |rule| replaced(rule, group))
        });
        let mut job = job(&format!("job{id}"), kind, priority, groups.collect());
        if all {
            job.node_pool = "all".to_owned();
        }
        let value = cores.to_string();
        job.constraints.push(Constraint { attribute: "${attr.cores}".to_owned(), operator: Operator::NotEqual, value });
        job
    })
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1u8..8, any::<bool>(), 0u64..1000).prop_map(|(n, lab, memory)| Happens::Enrol(n, lab, memory)),
        3 => any_job().prop_map(Happens::Submit),
        1 => (0u8..3).prop_map(Happens::Stop),
        1 => (1u8..8, 0u64..1000).prop_map(|(n, memory)| Happens::Memory(n, memory)),
        8 => (0usize..20, 0u8..6).prop_map(|(n, what)| Happens::Said(n, what)),
        2 => (1u8..8).prop_map(Happens::Lost),
        2 => (1u8..8).prop_map(Happens::Back),
        1 => (1u8..8, prop::option::of(0u64..3), any::<bool>()).prop_map(|(n, deadline, ignore)| Happens::Drain(n, deadline, ignore)),
        1 => (1u8..8, any::<bool>()).prop_map(|(n, eligible)| Happens::Eligible(n, eligible)),
    ]
}

fn step(fleet: &mut Fleet, what: Happens) {
    match what {
        Happens::Enrol(n, lab, memory) => {
            fleet.nodes.entry(fleet::node_id(n)).or_insert_with(|| node(n, if lab { "lab" } else { "default" }, memory));
        }
        Happens::Submit(job) => submit(fleet, job),
        Happens::Stop(n) => {
            if let Some(job) = fleet.jobs.get_mut(&format!("job{n}")) {
                job.stopped = Some("job stopped".to_owned());
            }
        }
        Happens::Memory(n, memory) => {
            if let Some(node) = fleet.nodes.get_mut(&fleet::node_id(n)) {
                node.fingerprint.memory_mib = memory;
            }
        }
        Happens::Said(n, what) => {
            let ids: Vec<_> =
                fleet.allocs.values().filter(|a| !a.ended && !a.complete() && a.order != Order::Replaced).map(|a| a.id).collect();
            let status = [AllocStatus::Pending, AllocStatus::Running, AllocStatus::Complete, AllocStatus::Failed];
            if let Some(id) = ids.get(n) {
                fleet::say(fleet, *id, status[usize::from(what.min(7) % 4)]);
            }
        }
        Happens::Lost(n) => fleet::lose(fleet, n, true),
        Happens::Back(n) => fleet::lose(fleet, n, false),
        Happens::Drain(n, deadline, ignore_system) => {
            let deadline = deadline.map(|d| fleet.now.after(Millis(d)));
            if let Some(node) = fleet.nodes.get_mut(&fleet::node_id(n)) {
                (node.eligible, node.drain) = (false, Some(Drain { deadline, ignore_system }));
            }
        }
        Happens::Eligible(n, eligible) => {
            if let Some(node) = fleet.nodes.get_mut(&fleet::node_id(n)) {
                (node.eligible, node.drain) = (eligible, None);
            }
        }
    }
    fleet::later(fleet, 1);
}

/// The indexes of service and batch groups for which something runs.
fn alive(fleet: &Fleet, or_done: bool) -> BTreeSet<(String, String, u32)> {
    let runs = fleet.allocs.values().filter(|a| a.order == Order::Run && (a.runs() || (or_done && a.complete())));
    runs.map(|a| (a.job.clone(), a.group.clone(), a.index)).collect()
}

/// Is the index wanted still, and nothing of it under a deadline?
fn kept(fleet: &Fleet, (job, group, index): &(String, String, u32)) -> bool {
    let Some(desired) = fleet.jobs.get(job).filter(|j| j.stopped.is_none() && !j.job.kind.is_everywhere()) else { return false };
    let overdue = |a: &Alloc| {
        let drain = fleet.nodes.get(&a.node).and_then(|n| n.drain).and_then(|d| d.deadline);
        drain.is_some_and(|d| fleet.now >= d)
    };
    let own = fleet.allocs.values().filter(|a| (&a.job, &a.group, a.index) == (job, group, *index) && a.order == Order::Run);
    desired.job.group(group).is_some_and(|g| *index < g.count) && !own.into_iter().any(overdue)
}

fn check(fleet: &Fleet) {
    let running: Vec<&Alloc> = fleet.allocs.values().filter(|a| a.order == Order::Run).collect();
    let mut slots = BTreeSet::new();
    let mut ports = BTreeSet::new();
    let mut counts: BTreeMap<(&str, &str), BTreeSet<u32>> = BTreeMap::new();
    for alloc in &running {
        assert!(slots.insert((&alloc.job, &alloc.group, alloc.index, alloc.node)), "two in one slot: {alloc:?}");
        counts.entry((&alloc.job, &alloc.group)).or_default().insert(alloc.index);
        for port in alloc.claim.ports.iter().filter(|_| !alloc.complete()) {
            assert!(ports.insert((alloc.node, port)), "two claim port {port} on {}", alloc.node);
        }
        let desired = &fleet.jobs[&alloc.job];
        assert!(desired.stopped.is_none(), "runs and is stopped: {alloc:?}");
        if !desired.job.kind.is_everywhere() {
            let count = desired.job.group(&alloc.group).map_or(0, |g| g.count);
            assert!(alloc.index < count, "more than {count}: {alloc:?}");
        }
    }
    for node in fleet.nodes.keys() {
        let content = manifest::content(*node, fleet.allocs.values(), |_, _| Some(Digest::new([0; 32])));
        let listed: BTreeSet<_> = content.allocs.iter().map(|a| (&a.job, &a.group, a.index)).collect();
        assert_eq!(listed.len(), content.allocs.len());
        assert!(content.allocs.is_sorted_by_key(|a| (&a.job, &a.group, a.index)));
        let runs: BTreeSet<_> = content.allocs.iter().map(|a| a.id).collect();
        assert!(content.tombstones.iter().all(|t| !runs.contains(&t.id)), "runs and stops at once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(history in prop::collection::vec(happens(), 1..25)) {
        let mut fleet = fleet::fleet([]);
        for what in history {
            step(&mut fleet, what.clone());
            let before = fleet.clone();
            let plan = settle(&mut fleet);
            check(&fleet);
            // Nothing stops for facts that changed.
            for stop in &plan.stops {
                prop_assert!(matches!(stop.order, Order::Stop(_)), "{:?}", stop);
                let facts = matches!(what, Happens::Memory(..) | Happens::Enrol(..));
                let overdue = before.nodes.values().any(|n| n.drain.is_some());
                prop_assert!(!facts || overdue || !before.allocs[&stop.alloc].runs(), "{:?} stopped {:?}", what, stop);
            }
            // The last one that runs of an index is not stopped, but for an operator's order.
            let after = alive(&fleet, true);
            for index in alive(&before, false) {
                prop_assert!(!kept(&before, &index) || after.contains(&index), "{:?} left nothing of {:?}: {:?}", what, index, plan);
            }
            // An operator's stop reaches everything.
            if let Happens::Stop(n) = what {
                let job = format!("job{n}");
                let goes_on = fleet.allocs.values().any(|a| a.job == job && a.order == Order::Run);
                prop_assert!(!goes_on, "{} was stopped", job);
            }
            for start in &plan.starts {
                if let Some(old) = start.replaces {
                    let (old, new) = (&before.allocs[&old], &start.alloc);
                    prop_assert_eq!((&old.job, &old.group, old.index, old.node), (&new.job, &new.group, new.index, new.node));
                    prop_assert!(old.version < new.version);
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_show(jobs in prop::collection::vec(any_job(), 1..5), nodes in prop::collection::vec(1u8..9, 1..9)) {
        let build = |jobs: &mut dyn Iterator<Item = &Job>, nodes: &mut dyn Iterator<Item = &u8>| {
            let mut fleet = fleet::fleet(nodes.map(|n| node(*n, "default", u64::from(*n) * 100)));
            // Of several jobs of one id the one with the least priority, in whichever order they come.
            let mut least: BTreeMap<String, Job> = BTreeMap::new();
            for job in jobs {
                let kept = least.entry(job.id.clone()).or_insert_with(|| job.clone());
                if format!("{job:?}") < format!("{kept:?}") {
                    *kept = job.clone();
                }
            }
            for (_, job) in least {
                submit(&mut fleet, job);
            }
            fleet
        };
        let forward = plan(&build(&mut jobs.iter(), &mut nodes.iter()));
        let backward = plan(&build(&mut jobs.iter().rev(), &mut nodes.iter().rev()));
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn an_image_is_never_its_own_base(inventory in prop::collection::btree_set(1u8..=4, 0..4)) {
        let fleet = fleet::fleet([]);
        let mut holder = node(1, "default", 0);
        holder.inventory = inventory.into_iter().map(image_id).collect();
        let choice = skerry_plan::base::choose(&image_id(1), &holder, &fleet.images, &[], &skerry_plan::base::NoEstimate);
        prop_assert!(!choice.bases.contains(&image_id(1)));
        prop_assert!(choice.bases.iter().all(|b| holder.inventory.contains(b)));
        prop_assert!(choice.bases.is_sorted());
    }

    /// Whatever the prices: a node holds all bases of its bundle, no node pays more than for one that is ready, the
    /// order of the nodes does not show, and all together pay no more, the builds included, than with the full bundle for all.
    #[test]
    fn sharing_is_sound(
        inventories in prop::collection::vec(prop::collection::btree_set(2u8..=4, 0..4), 1..12),
        prices in prop::collection::btree_map(prop::collection::btree_set(2u8..=4, 0..4), 1_000u64..1_000_000, 4..9),
        ready in prop::option::of((prop::collection::btree_set(2u8..=4, 0..3), 1_000u64..1_000_000)),
    ) {
        let fleet = fleet::fleet([]);
        let prices: BTreeMap<Vec<ImageId>, u64> = prices.into_iter().map(|(set, bytes)| (ids(set), bytes)).collect();
        let built: Vec<_> = ready.into_iter().map(|(set, bytes)| Built { bases: ids(set), bytes }).collect();
        let holders: Vec<_> = (1u8..).zip(inventories).map(|(n, inventory)| {
            let mut holder = node(n, "default", 0);
            holder.inventory = ids(inventory).into_iter().collect();
            holder
        }).collect();
        let nodes: Vec<_> = holders.iter().collect();
        let prices = Prices(prices);
        let shared = base::share(&image_id(1), &nodes, &fleet.images, &built, &prices);
        let backwards: Vec<_> = nodes.iter().rev().copied().collect();
        prop_assert_eq!(&base::share(&image_id(1), &backwards, &fleet.images, &built, &prices), &shared);
        prop_assert_eq!(shared.len(), nodes.len());
        for holder in &holders {
            let choice = &shared[&holder.id];
            prop_assert!(choice.bases.iter().all(|base| holder.inventory.contains(base)));
            prop_assert!(choice.bases.is_sorted());
            let mut usable = built.iter().filter(|ready| ready.bases.iter().all(|base| holder.inventory.contains(base)));
            prop_assert!(usable.all(|ready| choice.bytes <= ready.bytes));
            let known = built.iter().find(|ready| ready.bases == choice.bases);
            prop_assert_eq!(choice.built, known.is_some());
            prop_assert_eq!(choice.bytes, known.map_or_else(|| prices.of(&choice.bases), |ready| ready.bytes));
        }
        // At least 64 KiB a build, and a little for the 2 MB of layers.
        let cost = |choices: &BTreeMap<NodeId, base::Choice>| -> u64 {
            let builds: BTreeSet<_> = choices.values().filter(|choice| !choice.built).map(|choice| &choice.bases).collect();
            choices.values().map(|choice| choice.bytes).sum::<u64>() + builds.len() as u64 * 64 * 1024
        };
        let whole = built.iter().find(|ready| ready.bases.is_empty()).map_or_else(|| prices.of(&[]), |ready| ready.bytes);
        let full = holders.len() as u64 * whole + 70_000;
        prop_assert!(cost(&shared) <= full, "{} {full}", cost(&shared));
    }
}

fn ids(set: BTreeSet<u8>) -> Vec<ImageId> {
    set.into_iter().map(image_id).collect()
}

/// What each set of bases costs; one that is not listed costs a megabyte.
struct Prices(BTreeMap<Vec<ImageId>, u64>);

impl Prices {
    fn of(&self, bases: &[ImageId]) -> u64 {
        self.0.get(bases).copied().unwrap_or(1_000_000)
    }
}

impl Estimator for Prices {
    fn estimate(&self, _: &ImageId, bases: &[ImageId]) -> Option<u64> {
        Some(self.of(bases))
    }
}
