//! Which allocations must leave their node: because an operator drains it, or because a newer version of the job does not belong there.

use std::collections::BTreeSet;

use skerry_wire::NodeId;

use crate::feasible::{Ruling, wanted};
use crate::model::{Alloc, Fleet, JobVersion, Order};

/// Why an allocation must leave, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// It stops at once.
    Now(String),
    /// It stops once it runs elsewhere.
    WhenReplaced(String),
}

impl Why {
    /// The sentence for people.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Now(reason) | Self::WhenReplaced(reason) => reason,
        }
    }
}

/// What leaves in one planning.
pub(crate) struct Leaving<'a> {
    fleet: &'a Fleet,
    /// Drained nodes that still have something of jobs that move elsewhere: system jobs stop after those.
    busy: BTreeSet<NodeId>,
}

impl<'a> Leaving<'a> {
    pub(crate) fn new(fleet: &'a Fleet) -> Self {
        let drained = |a: &&Alloc| fleet.nodes.get(&a.node).is_some_and(|n| n.drain.is_some());
        let moves = |a: &&Alloc| !fleet.jobs.get(&a.job).is_some_and(|j| j.job.kind.is_everywhere());
        let there = |a: &&Alloc| match a.order {
            Order::Run => !a.complete(),
            Order::Stop(_) => !a.ended,
            Order::Replaced => false,
        };
        let busy = fleet.allocs.values().filter(drained).filter(moves).filter(there).map(|a| a.node).collect();
        Self { fleet, busy }
    }

    /// Why this allocation of the job must leave its node, if it must. A node that the server does not know is no reason.
    pub(crate) fn why(&self, desired: &JobVersion, alloc: &Alloc) -> Option<Why> {
        self.drained(desired, alloc).or_else(|| self.excluded(desired, alloc))
    }

    fn drained(&self, desired: &JobVersion, alloc: &Alloc) -> Option<Why> {
        let node = self.fleet.nodes.get(&alloc.node)?;
        let drain = node.drain?;
        // What ran to its end is nobody's work any more, unless a newer version is to run.
        if alloc.complete() && alloc.version >= desired.version {
            return None;
        }
        let everywhere = desired.job.kind.is_everywhere();
        if everywhere && drain.ignore_system {
            return None;
        }
        let name = &node.fingerprint.name;
        if drain.deadline.is_some_and(|deadline| self.fleet.now >= deadline) {
            return Some(Why::Now(format!("node {name} is drained, and the deadline has passed")));
        }
        let reason = format!("node {name} is drained");
        // A run that was begun is let end; a periodic job has no end.
        let to_end = desired.job.kind.runs_to_end() && desired.job.periodic.is_none() && alloc.version >= desired.version;
        match (to_end && alloc.runs(), everywhere) {
            (true, _) => None,
            (false, false) => Some(Why::WhenReplaced(reason)),
            (false, true) => (!self.busy.contains(&alloc.node)).then_some(Why::Now(reason)),
        }
    }

    fn excluded(&self, desired: &JobVersion, alloc: &Alloc) -> Option<Why> {
        if alloc.version >= desired.version {
            return None;
        }
        let node = self.fleet.nodes.get(&alloc.node)?;
        let group = desired.job.group(&alloc.group)?;
        let Err(Ruling::Excluded(reason)) = wanted(&desired.job, group, node, &self.fleet.images) else { return None };
        let reason = format!("version {} does not belong on this node: {reason}", desired.version);
        Some(if desired.job.kind.is_everywhere() { Why::Now(reason) } else { Why::WhenReplaced(reason) })
    }
}
