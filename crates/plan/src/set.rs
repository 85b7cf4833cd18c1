//! Deployment sets: a row per (node, image) of a job version's placements, moved by what the nodes say.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::api::SetState;
use skerry_wire::{ImageId, NodeId};

use crate::model::{Alloc, Fleet, Order};

/// Where one image is on its way to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowState {
    /// The state.
    pub state: SetState,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
}

impl RowState {
    /// Nothing was fetched yet.
    pub const QUEUED: Self = Self { state: SetState::Queued, reason: None };

    /// Does it still move?
    pub fn finished(&self) -> bool {
        matches!(self.state, SetState::Succeeded | SetState::Failed)
    }
}

/// What was learnt about one image on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The node fetches or reconstructs it.
    InTransit,
    /// The node may not fetch it now: what it waits for.
    Waiting(String),
    /// It is in the node's engine.
    Present,
    /// The node or the builder gave up for now.
    Failed(String),
    /// The job version that asked for it is no longer wanted: superseded by a newer one, or stopped.
    Dropped(String),
}

/// The row after the news. A success stays; a failure is healed by a later success, or by a new start.
#[must_use]
pub fn step(row: &RowState, news: &News) -> RowState {
    match (row.state, news) {
        (SetState::Succeeded, _) => row.clone(),
        (SetState::Failed, News::Dropped(_)) => row.clone(),
        (_, News::Present) => RowState { state: SetState::Succeeded, reason: None },
        // What it failed of says more than what the next try waits for.
        (SetState::Failed, News::Waiting(_)) => row.clone(),
        (state, News::Waiting(reason)) => RowState { state, reason: Some(reason.clone()) },
        (_, News::InTransit) => RowState { state: SetState::InTransit, reason: None },
        (_, News::Failed(reason) | News::Dropped(reason)) => RowState { state: SetState::Failed, reason: Some(reason.clone()) },
    }
}

/// The state of a set, from the states of its rows. A set without rows has nothing to bring and has succeeded.
pub fn state(rows: impl IntoIterator<Item = SetState>) -> SetState {
    let states: BTreeSet<_> = rows.into_iter().collect();
    let moving = states.contains(&SetState::Queued) || states.contains(&SetState::InTransit);
    match moving {
        true if states.iter().all(|s| *s == SetState::Queued) => SetState::Queued,
        true => SetState::InTransit,
        false if states.contains(&SetState::Failed) => SetState::Failed,
        false => SetState::Succeeded,
    }
}

/// The reason of rows whose version is no longer the newest.
pub fn superseded_by(version: u64) -> String {
    format!("superseded by version {version}")
}

/// The rows that a job's current version needs: each image of each of its running allocations. An image that the node has by its
/// inventory is there at once.
pub fn rows<'a>(fleet: &Fleet, job: &str, allocs: impl IntoIterator<Item = &'a Alloc>) -> BTreeMap<(NodeId, ImageId), RowState> {
    let Some(desired) = fleet.jobs.get(job) else { return BTreeMap::new() };
    let mut rows = BTreeMap::new();
    for alloc in allocs.into_iter().filter(|a| a.job == job && a.version == desired.version && a.order == Order::Run) {
        let inventory = fleet.nodes.get(&alloc.node).map(|n| &n.inventory);
        let images = desired.job.group(&alloc.group).into_iter().flat_map(|g| g.images());
        for image in images.filter_map(|c| c.image_id) {
            let present = inventory.is_some_and(|i| i.contains(&image));
            let row = if present { step(&RowState::QUEUED, &News::Present) } else { RowState::QUEUED };
            rows.insert((alloc.node, image), row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use SetState::*;

    fn row(state: SetState) -> RowState {
        RowState { state, reason: (state == Failed).then(|| "first".to_owned()) }
    }

    #[test]
    fn every_step() {
        let failed = || News::Failed("second".to_owned());
        let waiting = || News::Waiting("second".to_owned());
        let dropped = || News::Dropped(superseded_by(2));
        for (from, news, to, reason) in [
            (Queued, News::InTransit, InTransit, None),
            (Queued, News::Present, Succeeded, None),
            (Queued, failed(), Failed, Some("second")),
            (Queued, dropped(), Failed, Some("superseded by version 2")),
            (InTransit, News::InTransit, InTransit, None),
            (Queued, waiting(), Queued, Some("second")),
            (InTransit, waiting(), InTransit, Some("second")),
            (Succeeded, waiting(), Succeeded, None),
            (Failed, waiting(), Failed, Some("first")),
            (InTransit, News::Present, Succeeded, None),
            (InTransit, failed(), Failed, Some("second")),
            (InTransit, dropped(), Failed, Some("superseded by version 2")),
            (Succeeded, News::InTransit, Succeeded, None),
            (Succeeded, News::Present, Succeeded, None),
            (Succeeded, failed(), Succeeded, None),
            (Succeeded, dropped(), Succeeded, None),
            (Failed, News::InTransit, InTransit, None),
            (Failed, News::Present, Succeeded, None),
            (Failed, failed(), Failed, Some("second")),
            (Failed, dropped(), Failed, Some("first")),
        ] {
            let after = step(&row(from), &news);
            assert_eq!((after.state, after.reason.as_deref()), (to, reason), "{from:?} {news:?}");
            assert_eq!(step(&after, &news), after, "the same news twice");
        }
    }

    #[test]
    fn of_the_whole() {
        for (rows, whole) in [
            (vec![], Succeeded),
            (vec![Queued, Queued], Queued),
            (vec![Queued, Succeeded], InTransit),
            (vec![Queued, Failed], InTransit),
            (vec![InTransit], InTransit),
            (vec![Succeeded, Succeeded], Succeeded),
            (vec![Succeeded, Failed], Failed),
        ] {
            assert_eq!(state(rows.clone()), whole, "{rows:?}");
        }
    }
}
