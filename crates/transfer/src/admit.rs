//! May this bundle be fetched now, how many bytes of it, and if not, what does it wait for and until when?
//!
//! What it promises: never more bytes than the month has left for the job's priority; none while the download window is closed; none of a
//! full bundle that takes the place of a failed patch, unless that is allowed. What needs no bytes is always admitted.

use skerry_wire::Timestamp;
use skerry_wire::job::OnDeltaFailure;

use crate::budget::{Budget, Spent};
use crate::window::{Opening, Windows};

/// What is configured.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a month may take; none: as much as it needs.
    pub budget: Option<Budget>,
    /// When bundles may be fetched.
    pub windows: Windows,
    /// What follows a failed patch, where the job does not say.
    pub on_delta_failure: OnDeltaFailure,
}

/// A bundle that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Highest priority among the jobs that need its image.
    pub priority: u8,
    /// Bytes of the bundle.
    pub size: u64,
    /// Of these, bytes that are here.
    pub have: u64,
    /// Has it no bases? None while that is not known.
    pub full: Option<bool>,
    /// What follows a failed patch, by the job.
    pub on_delta_failure: Option<OnDeltaFailure>,
    /// A patch to its image failed here; has no newer manifest come since?
    pub failed: Option<bool>,
}

/// May it be fetched?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Fetch {
        /// Bytes at most before the question is to be asked again.
        most: u64,
        /// The question is to be asked again then.
        until: Option<Timestamp>,
    },
    /// No.
    Wait {
        /// What for.
        why: Wait,
        /// Until then; none when nobody can say.
        until: Option<Timestamp>,
    },
}

/// What a bundle waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The download window.
    Window,
    /// The download window, and the time of day is not known.
    Time,
    /// The next month of the budget.
    Budget {
        /// Bytes that the bundle lacks.
        needs: u64,
        /// Bytes that the month has left for it.
        left: u64,
    },
    /// An order: its patch failed.
    Held,
    /// An order: its patch failed and only a full bundle is to be had.
    FullNotAllowed {
        /// Bytes that it lacks.
        needs: u64,
    },
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Window => f.write_str("waits for the download window"),
            Self::Time => f.write_str("waits for the time of day: while it is not known, the download window counts as closed"),
            Self::Budget { needs, left } => write!(f, "waits for the next month: {needs} bytes are needed, {left} are left of the budget"),
            Self::Held => {
                f.write_str("its patch failed and it is held (`on_delta_failure`): waits for a newer manifest or `skerry alloc retry`")
            }
            Self::FullNotAllowed { needs } => {
                write!(f, "its patch failed, and a full bundle of {needs} bytes is not allowed (`on_delta_failure`): waits for a patch")
            }
        }
    }
}

/// Judges one bundle.
pub fn admit(rules: &Rules, bundle: &Candidate, spent: &Spent, wall: Option<Timestamp>) -> Admission {
    let needs = bundle.size.saturating_sub(bundle.have);
    if needs == 0 {
        return Admission::Fetch { most: 0, until: None };
    }
    let wait = |why, until| Admission::Wait { why, until };
    match (bundle.on_delta_failure.unwrap_or(rules.on_delta_failure), bundle.failed) {
        (OnDeltaFailure::Hold, Some(true)) => return wait(Wait::Held, None),
        (OnDeltaFailure::Hold | OnDeltaFailure::Retry, Some(_)) if bundle.full == Some(true) => {
            return wait(Wait::FullNotAllowed { needs }, None);
        }
        _ => {}
    }
    let until = match rules.windows.at(wall) {
        Opening::Open { until } => until,
        Opening::Closed { until } => return wait(if wall.is_some() { Wait::Window } else { Wait::Time }, until),
    };
    let Some(budget) = &rules.budget else { return Admission::Fetch { most: needs, until } };
    let spent = spent.at(budget.day(), wall);
    let left = budget.left(&spent, bundle.priority);
    // Begun only when the month can end it: half a bundle is of no use until the next. One that no month could end takes what is left.
    if left == 0 || needs > left && needs <= budget.whole(bundle.priority) {
        return wait(Wait::Budget { needs, left }, spent.next_month(budget.day()));
    }
    Admission::Fetch { most: needs.min(left), until }
}
