//! Of several allocations for one index of a service or batch group, which goes on, and which may stop now.
//!
//! There are several while one moves to another node, and where a silent node's allocation was replaced. None is stopped before the one
//! that goes on has taken over: the index is never left with nothing that runs.

use skerry_wire::Timestamp;
use skerry_wire::job::Reconcile;
use skerry_wire::poll::AllocStatus;

use crate::model::Alloc;

/// One of several allocations for an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// It.
    pub(crate) alloc: &'a Alloc,
    /// It must not stay where it is: its node is drained, or the job does not belong there any more.
    pub(crate) leaves: bool,
}

/// What holds for the group of the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Who goes on, of the same version.
    pub(crate) reconcile: Reconcile,
    /// The version that is wanted.
    pub(crate) version: u64,
    /// Is the job run by the nodes' clocks? Then it need not run to have taken over.
    pub(crate) periodic: bool,
}

impl Candidate<'_> {
    /// May it be the one that goes on?
    pub(crate) fn present(&self, version: u64) -> bool {
        !self.alloc.lost && !self.leaves && (!self.alloc.complete() || self.alloc.version >= version)
    }
}

/// The one that goes on, of those that are present.
pub(crate) fn survivor<'a>(candidates: &[Candidate<'a>], rules: Rules) -> Option<&'a Alloc> {
    let present = candidates.iter().filter(|c| c.present(rules.version)).map(|c| c.alloc);
    // The oldest is the original. Nodes decide between those of one time: unlike ids they stay when a newer version takes the place.
    let age = |a: &Alloc| (a.placed_at, a.node);
    let since = |a: &Alloc| a.state.running_since.unwrap_or(Timestamp(i64::MAX));
    present.min_by(|a, b| {
        let newest = b.version.cmp(&a.version).then_with(|| b.complete().cmp(&a.complete()));
        newest.then_with(|| match rules.reconcile {
            Reconcile::KeepOriginal => age(a).cmp(&age(b)),
            Reconcile::KeepReplacement => age(b).cmp(&age(a)),
            Reconcile::LongestRunning => since(a).cmp(&since(b)).then_with(|| age(a).cmp(&age(b))),
        })
    })
}

/// Those that stop now, given the one that goes on. A silent node's allocation is left until the node is back: it may be all that runs.
pub(crate) fn losers<'a>(candidates: &[Candidate<'a>], winner: &Alloc, rules: Rules) -> Vec<&'a Alloc> {
    let taken_over = has_taken_over(winner, rules);
    let others = candidates.iter().filter(|c| c.alloc.id != winner.id && !c.alloc.lost);
    others.filter(|c| taken_over || !c.alloc.runs()).map(|c| c.alloc).collect()
}

fn has_taken_over(alloc: &Alloc, rules: Rules) -> bool {
    match alloc.state.status {
        AllocStatus::Running => alloc.state.healthy != Some(false),
        AllocStatus::Complete => alloc.complete(),
        AllocStatus::Pending => rules.periodic && alloc.state.heard,
        AllocStatus::Failed => false,
    }
}
