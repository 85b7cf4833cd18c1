//! Placement: which allocations start, which stop, and why a group could not be placed.
//!
//! Steps, each over all jobs: orders to stop; of several allocations for one index those that may stop now; newer versions in the place
//! of older ones; new places, a replacement's among them. What stops gives room to what was refused before it, so the steps are repeated
//! until nothing moves; planning again changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::api::PlacementFailure;
use skerry_wire::job::Group;
use skerry_wire::{AllocId, NodeId};

use crate::alloc_id::alloc_id;
use crate::feasible::{Ruling, Taken, claim, wanted};
use crate::leaving::{Leaving, Why};
use crate::model::{Alloc, Claim, Fleet, JobVersion, Node, Order, State};
use crate::survivor::{Candidate, Rules, losers, survivor};

/// What to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Allocations that are new, sorted by (job, group, index, node).
    pub starts: Vec<Start>,
    /// Allocations that stop, sorted by id.
    pub stops: Vec<Stop>,
    /// By job: groups that could not be placed as often as asked.
    pub failures: BTreeMap<String, Vec<PlacementFailure>>,
}

/// An allocation that is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// It.
    pub alloc: Alloc,
    /// The allocation of the same (job, group, index) on the same node whose place it takes.
    pub replaces: Option<AllocId>,
}

/// An allocation that stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// It.
    pub alloc: AllocId,
    /// Its new order: [`Order::Stop`], or [`Order::Replaced`] where a newer one has its place already.
    pub order: Order,
}

impl Plan {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.stops.is_empty()
    }

    /// The allocations as they are once the plan is carried out.
    pub fn apply(&self, allocs: &mut BTreeMap<AllocId, Alloc>) {
        for stop in &self.stops {
            if let Some(alloc) = allocs.get_mut(&stop.alloc) {
                alloc.order = stop.order.clone();
            }
        }
        for start in &self.starts {
            if let Some(old) = start.replaces.and_then(|id| allocs.get_mut(&id)) {
                old.order = Order::Replaced;
            }
            allocs.insert(start.alloc.id, start.alloc.clone());
        }
    }

    /// The nodes whose manifest changes.
    pub fn touched(&self, allocs: &BTreeMap<AllocId, Alloc>) -> BTreeSet<NodeId> {
        let stopped = self.stops.iter().filter_map(|s| allocs.get(&s.alloc)).map(|a| a.node);
        self.starts.iter().map(|s| s.alloc.node).chain(stopped).collect()
    }
}

/// Plans all jobs over all nodes.
pub fn plan(fleet: &Fleet) -> Plan {
    let mut planner = Planner::new(fleet);
    planner.stop();
    loop {
        let before = planner.plan.starts.len();
        planner.refused.clear();
        planner.settle();
        planner.update();
        planner.place();
        // A replacement that has just found its place lets go of what never ran, and that is room for others; and what could not be
        // updated where it is may have one by now.
        let settled = planner.settle();
        if !settled && planner.plan.starts.len() == before {
            return planner.finish();
        }
    }
}

/// Where an allocation belongs: (job, group, index, node).
type Slot = (String, String, u32, NodeId);

struct Planner<'a> {
    fleet: &'a Fleet,
    /// Jobs in the order in which they choose: highest priority first, then by id.
    jobs: Vec<&'a JobVersion>,
    /// Allocations that run, by slot, as planned so far.
    running: BTreeMap<Slot, Alloc>,
    taken: BTreeMap<NodeId, Taken>,
    plan: Plan,
    /// By (job, group): why a node has not got it, each reason with its nodes; and how many allocations are missing.
    refused: BTreeMap<(String, String), Refused>,
    leaving: Leaving<'a>,
    /// Nodes with a lost allocation: no place for a replacement.
    lost: BTreeSet<NodeId>,
}

#[derive(Default)]
struct Refused {
    missing: u32,
    reasons: BTreeMap<String, u32>,
}

impl Refused {
    fn count(&mut self, reason: &str) {
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// A further index that found no node: the nodes and their reasons are those of the last one.
    fn join(&mut self, next: Self) {
        self.missing += next.missing;
        self.reasons = next.reasons;
    }
}

impl<'a> Planner<'a> {
    fn new(fleet: &'a Fleet) -> Self {
        let mut jobs: Vec<_> = fleet.jobs.values().collect();
        jobs.sort_by(|a, b| b.job.priority.cmp(&a.job.priority).then_with(|| a.job.id.cmp(&b.job.id)));
        let lost = fleet.allocs.values().filter(|a| a.lost && a.order != Order::Replaced).map(|a| a.node).collect();
        Self {
            fleet,
            jobs,
            running: BTreeMap::new(),
            taken: BTreeMap::new(),
            plan: Plan::default(),
            refused: BTreeMap::new(),
            leaving: Leaving::new(fleet),
            lost,
        }
    }

    /// Step 1: what must not run any more; everything else takes its room.
    fn stop(&mut self) {
        // The newest first, so that of two in one slot the newest stays.
        let mut allocs: Vec<_> = self.fleet.allocs.values().filter(|a| a.order == Order::Run).collect();
        allocs.sort_by(|a, b| b.version.cmp(&a.version).then_with(|| (a.node, a.id).cmp(&(b.node, b.id))));
        for alloc in allocs {
            let slot = (alloc.job.clone(), alloc.group.clone(), alloc.index, alloc.node);
            let order = if self.running.contains_key(&slot) { Some(Order::Replaced) } else { self.stop_order(alloc).map(Order::Stop) };
            match order {
                Some(order) => self.plan.stops.push(Stop { alloc: alloc.id, order }),
                None => {
                    self.take(alloc);
                    self.running.insert(slot, alloc.clone());
                }
            }
        }
    }

    /// The room of an allocation; what has run to its end has none.
    fn take(&mut self, alloc: &Alloc) {
        if !alloc.complete() {
            self.taken.entry(alloc.node).or_default().add(&alloc.claim);
        }
    }

    fn give(&mut self, alloc: &Alloc) {
        if !alloc.complete() {
            self.taken.entry(alloc.node).or_default().remove(&alloc.claim);
        }
    }

    /// Why a running allocation must stop, if it must. What the server has no record of is no reason.
    fn stop_order(&self, alloc: &Alloc) -> Option<String> {
        let desired = self.fleet.jobs.get(&alloc.job)?;
        if let Some(reason) = &desired.stopped {
            return Some(reason.clone());
        }
        if alloc.version < desired.version {
            let Some(group) = desired.job.group(&alloc.group) else {
                return Some(format!("version {} has no group `{}`", desired.version, alloc.group));
            };
            if alloc.index >= wanted_count(desired, group) {
                return Some(format!("version {} asks for {} of group `{}`", desired.version, wanted_count(desired, group), group.name));
            }
        }
        match self.leaving.why(desired, alloc)? {
            Why::Now(reason) => Some(reason),
            Why::WhenReplaced(_) => None,
        }
    }

    /// Of several allocations for one index: those that stop now, as the one that goes on has taken over. Did any?
    fn settle(&mut self) -> bool {
        let mut by_index: BTreeMap<(&str, &str, u32), Vec<&Alloc>> = BTreeMap::new();
        for alloc in self.running.values() {
            by_index.entry((&alloc.job, &alloc.group, alloc.index)).or_default().push(alloc);
        }
        let mut stops = Vec::new();
        for ((job, group, index), allocs) in by_index.into_iter().filter(|(_, allocs)| allocs.len() > 1) {
            let Some(desired) = self.fleet.jobs.get(job).filter(|j| !j.job.kind.is_everywhere()) else { continue };
            let Some(group) = desired.job.group(group) else { continue };
            let rules = Rules { reconcile: group.disconnect.reconcile, version: desired.version, periodic: desired.job.periodic.is_some() };
            let why = |a: &Alloc| self.leaving.why(desired, a);
            let candidates: Vec<_> = allocs.iter().map(|a| Candidate { alloc: a, leaves: why(a).is_some() }).collect();
            let Some(winner) = survivor(&candidates, rules) else { continue };
            let name = self.fleet.nodes.get(&winner.node).map_or("another node", |n| n.fingerprint.name.as_str());
            for loser in losers(&candidates, winner, rules) {
                let reason = match why(loser) {
                    Some(why) => format!("{}; index {index} goes on on {name}", why.reason()),
                    None => format!("index {index} goes on on {name}"),
                };
                stops.push((loser.clone(), reason));
            }
        }
        for (alloc, reason) in &stops {
            self.give(alloc);
            self.running.remove(&(alloc.job.clone(), alloc.group.clone(), alloc.index, alloc.node));
            self.plan.stops.push(Stop { alloc: alloc.id, order: Order::Stop(reason.clone()) });
        }
        !stops.is_empty()
    }

    /// Is the index of this allocation in better hands elsewhere, so that this one is not updated?
    fn stands_back(&self, desired: &JobVersion, alloc: &Alloc) -> bool {
        if desired.job.kind.is_everywhere() {
            return self.leaving.why(desired, alloc).is_some();
        }
        let present = |a: &Alloc| !a.lost && self.leaving.why(desired, a).is_none();
        if self.leaving.why(desired, alloc).is_some() {
            return true;
        }
        let better = |a: &Alloc| a.id != alloc.id && present(a) && (alloc.lost || a.version > alloc.version);
        self.slots(&alloc.job, Some(&alloc.group)).any(|(slot, a)| slot.2 == alloc.index && better(a))
    }

    /// Step 2: newer versions take the place of older ones, on the same node.
    fn update(&mut self) {
        loop {
            let mut moved = false;
            let mut refused = Vec::new();
            for desired in self.jobs.clone() {
                for slot in self.outdated(desired) {
                    match self.replace(desired, &slot) {
                        Ok(()) => moved = true,
                        Err(ruling) => refused.push((slot.0, slot.1, ruling)),
                    }
                }
            }
            // What gave up a port may have made room for what was refused before it.
            if moved && !refused.is_empty() {
                continue;
            }
            for (job, group, ruling) in refused {
                let entry = self.refused.entry((job, group)).or_default();
                entry.missing += 1;
                entry.count(ruling.reason());
            }
            return;
        }
    }

    fn outdated(&self, desired: &JobVersion) -> Vec<Slot> {
        let of_job = self.slots(&desired.job.id, None).filter(|(_, a)| a.version < desired.version);
        of_job.filter(|(_, a)| !self.stands_back(desired, a)).map(|(slot, _)| slot.clone()).collect()
    }

    /// The running allocations of a job, or of one group of it.
    fn slots<'b>(&'b self, job: &'b str, group: Option<&'b str>) -> impl Iterator<Item = (&'b Slot, &'b Alloc)> {
        let from: Slot = (job.to_owned(), group.unwrap_or_default().to_owned(), 0, NodeId::new([0; 16]));
        self.running.range(from..).take_while(move |(s, _)| s.0 == job && group.is_none_or(|g| s.1 == g))
    }

    fn replace(&mut self, desired: &JobVersion, slot: &Slot) -> Result<(), Ruling> {
        let unknown = || Ruling::Unable("the node is not known to the server".to_owned());
        let node = self.fleet.nodes.get(&slot.3).ok_or_else(unknown)?;
        let group = desired.job.group(&slot.1).ok_or_else(|| Ruling::Unable(format!("no group `{}`", slot.1)))?;
        wanted(&desired.job, group, node, &self.fleet.images)?;
        let new = claim(group);
        let old = self.running[slot].clone();
        self.give(&old);
        if let Err(ruling) = self.room(slot.3).room_for(&new, node) {
            self.take(&old);
            return Err(ruling);
        }
        self.start(desired, slot.clone(), new, Some(&old));
        Ok(())
    }

    fn start(&mut self, desired: &JobVersion, slot: Slot, claim: Claim, old: Option<&Alloc>) {
        let (job, group, index, node) = slot.clone();
        let id = alloc_id(&job, desired.version, &group, index, &node);
        // Stopped, and wanted again before its node knew: it goes on.
        let known = self.fleet.allocs.get(&id).filter(|k| !k.ended);
        let alloc = Alloc {
            id,
            job,
            version: desired.version,
            group,
            index,
            node,
            order: Order::Run,
            ended: false,
            claim,
            to_end: desired.job.kind.runs_to_end(),
            state: known.map_or(State::NEW, |k| k.state),
            lost: old.or(known).is_some_and(|o| o.lost),
            placed_at: old.map_or(self.fleet.now, |o| o.placed_at),
            covers: old.is_some_and(Alloc::runs) || known.is_some_and(|k| k.covers),
            retry: old.or(known).map_or(0, |o| o.retry),
            override_lock: false,
        };
        self.take(&alloc);
        self.running.insert(slot, alloc.clone());
        self.plan.starts.push(Start { alloc, replaces: old.map(|o| o.id) });
    }

    /// Step 3: new places.
    fn place(&mut self) {
        for desired in self.jobs.clone() {
            if desired.stopped.is_some() {
                continue;
            }
            for group in &desired.job.groups {
                if desired.job.kind.is_everywhere() {
                    self.place_everywhere(desired, group);
                } else {
                    self.place_count(desired, group);
                }
            }
        }
    }

    /// One allocation on every node that may have it.
    fn place_everywhere(&mut self, desired: &'a JobVersion, group: &'a Group) {
        if wanted_count(desired, group) == 0 {
            return;
        }
        let claim = claim(group);
        let mut refused = Refused::default();
        let mut placed = false;
        for node in self.fleet.nodes.values() {
            let slot = (desired.job.id.clone(), group.name.clone(), 0, node.id);
            if self.running.contains_key(&slot) {
                placed = true;
                continue;
            }
            let ruling = wanted(&desired.job, group, node, &self.fleet.images)
                .and_then(|()| open(node))
                .and_then(|()| self.room(node.id).room_for(&claim, node));
            match ruling {
                Ok(()) => {
                    self.start(desired, slot, claim.clone(), None);
                    placed = true;
                }
                Err(ruling) => {
                    refused.missing += u32::from(matches!(ruling, Ruling::Unable(_)));
                    refused.count(ruling.reason());
                }
            }
        }
        if !placed {
            refused.missing = refused.missing.max(1);
        }
        self.refuse(desired, group, refused);
    }

    /// `count` allocations over all nodes that may have one, the emptiest first.
    fn place_count(&mut self, desired: &'a JobVersion, group: &'a Group) {
        let mut here: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut held = BTreeSet::new();
        let mut taken: BTreeSet<(u32, NodeId)> = BTreeSet::new();
        for (slot, alloc) in self.slots(&desired.job.id, Some(&group.name)) {
            *here.entry(slot.3).or_default() += 1;
            taken.insert((slot.2, slot.3));
            let replaced = alloc.lost && group.disconnect.replace && !alloc.complete();
            // What ran to its end under an older version and may not be updated there is to run elsewhere.
            if !replaced && self.leaving.why(desired, alloc).is_none() {
                held.insert(slot.2);
            }
        }
        let missing: Vec<u32> = (0..wanted_count(desired, group)).filter(|i| !held.contains(i)).collect();
        if missing.is_empty() {
            return;
        }
        let claim = claim(group);
        let ruling = |n: &Node| {
            wanted(&desired.job, group, n, &self.fleet.images)?;
            open(n)?;
            if self.lost.contains(&n.id) {
                return Err(Ruling::Unable("the node is lost".to_owned()));
            }
            Ok(())
        };
        let rulings: Vec<_> = self.fleet.nodes.values().map(|n| (n, ruling(n))).collect();
        let mut missing_in_vain: Option<Refused> = None;
        for index in missing {
            let best = rulings
                .iter()
                .filter(|(node, ruling)| ruling.is_ok() && !taken.contains(&(index, node.id)))
                .filter(|(node, _)| self.room(node.id).room_for(&claim, node).is_ok())
                .min_by_key(|(node, _)| (here.get(&node.id).copied().unwrap_or(0), self.room(node.id).allocs, node.id));
            let Some((node, _)) = best else {
                let mut refused = Refused { missing: 1, ..Refused::default() };
                for (node, ruling) in &rulings {
                    match ruling.clone().and_then(|()| self.room(node.id).room_for(&claim, node)) {
                        Err(ruling) => refused.count(ruling.reason()),
                        Ok(()) => refused.count("it has this index already"),
                    }
                }
                missing_in_vain.get_or_insert_with(Refused::default).join(refused);
                continue;
            };
            *here.entry(node.id).or_default() += 1;
            self.start(desired, (desired.job.id.clone(), group.name.clone(), index, node.id), claim.clone(), None);
        }
        if let Some(refused) = missing_in_vain {
            self.refuse(desired, group, refused);
        }
    }

    fn room(&self, node: NodeId) -> &Taken {
        static NOTHING: Taken = Taken { memory: 0, ports: BTreeMap::new(), allocs: 0 };
        self.taken.get(&node).unwrap_or(&NOTHING)
    }

    fn refuse(&mut self, desired: &JobVersion, group: &Group, refused: Refused) {
        if refused.missing == 0 {
            return;
        }
        let entry = self.refused.entry((desired.job.id.clone(), group.name.clone())).or_default();
        entry.missing += refused.missing;
        for (reason, nodes) in refused.reasons {
            *entry.reasons.entry(reason).or_default() += nodes;
        }
    }

    fn finish(mut self) -> Plan {
        for ((job, group), refused) in self.refused {
            let mut reasons: Vec<_> = refused.reasons.into_iter().collect();
            reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let mut reasons: Vec<_> =
                reasons.into_iter().map(|(r, n)| format!("{n} {}: {r}", if n == 1 { "node" } else { "nodes" })).collect();
            if reasons.is_empty() {
                reasons.push("no node is enrolled".to_owned());
            }
            self.plan.failures.entry(job).or_default().push(PlacementFailure { group, missing: refused.missing, reasons });
        }
        let key = |a: &Alloc| (a.job.clone(), a.group.clone(), a.index, a.node);
        self.plan.starts.sort_by_cached_key(|s| key(&s.alloc));
        self.plan.stops.sort_by_key(|s| s.alloc);
        self.plan
    }
}

/// May new allocations come to the node?
fn open(node: &Node) -> Result<(), Ruling> {
    match node {
        Node { drain: Some(_), .. } => Err(Ruling::Excluded("the node is drained".to_owned())),
        Node { eligible: false, .. } => Err(Ruling::Excluded("the node is not eligible".to_owned())),
        Node { .. } => Ok(()),
    }
}

/// Allocations that a group asks for: over the fleet for a service, on each node (0 or 1) for a system job.
fn wanted_count(desired: &JobVersion, group: &Group) -> u32 {
    if desired.job.kind.is_everywhere() { group.count.min(1) } else { group.count }
}
