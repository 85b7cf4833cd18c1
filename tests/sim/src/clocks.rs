//! What the clocks of the machines say, and P7: the same life with other clocks is the same life.

use anyhow::Result;

use crate::host::BEGAN;
use crate::life::{Outcome, Rules, play};

/// What the system's clocks say, where a time service vouches for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clocks {
    /// What the seed says; also that nobody vouches for them.
    #[default]
    Drawn,
    /// The truth.
    Right,
    /// Nothing: nobody vouches for them.
    Unknown,
    /// That each life begins in 1970.
    At1970,
    /// That it begins where 32 bits end.
    At2038,
    /// Another one of these every twenty minutes, and ten years ahead.
    Jumping,
}

/// 32 bits of seconds end here.
const AT_2038: i64 = 2_147_483_647_000;
/// Ten years.
const AHEAD: i64 = 315_576_000_000;

impl Clocks {
    /// Those of the life of a seed that is played again: each kind in turn. `nth` counts such lives.
    pub fn wrong_for(nth: u64) -> Self {
        [Self::Unknown, Self::At1970, Self::At2038, Self::Jumping][(nth % 4) as usize]
    }

    /// What a clock says more than is true, `now` milliseconds after the beginning; `drawn` is what the seed says.
    pub(crate) fn wrong(self, drawn: Option<i64>, now: i64) -> Option<i64> {
        match self {
            Self::Drawn => drawn,
            Self::Right => Some(0),
            Self::Unknown => None,
            Self::At1970 => Some(-BEGAN),
            Self::At2038 => Some(AT_2038 - BEGAN),
            Self::Jumping => match now / 1_200_000 % 5 {
                0 => Some(AHEAD),
                1 => Some(-BEGAN),
                2 => None,
                3 => Some(AT_2038 - BEGAN),
                _ => Some(0),
            },
        }
    }
}

/// Plays the life of a seed twice, without jobs that are timed by their nature: with all clocks right, and with wrong ones of one kind. Of both
/// everything else is drawn alike. Gives how P7 is broken: the first step after which a node held another manifest, was switched to another
/// version or ran something else.
///
/// # Errors
/// When the machine that plays it fails.
pub fn other_clocks(seed: u64, wrong: Clocks) -> Result<Vec<String>> {
    let lived = |clocks| play(seed, Rules { clocks, untimed: true, ..Rules::default() });
    let (right, other) = (lived(Clocks::Right)?, lived(wrong)?);
    for (outcome, clocks) in [(&right, Clocks::Right), (&other, wrong)] {
        if !outcome.broken.is_empty() {
            return Ok(outcome.broken.iter().map(|how| format!("{how} (with clocks {clocks:?}, without timed jobs)")).collect());
        }
    }
    let steps = right.course.len().max(other.course.len());
    let step = |outcome: &Outcome, at: usize| outcome.course.get(at).cloned().unwrap_or_else(|| "its life is over".to_owned());
    let differ = (0..steps).map(|at| (step(&right, at), step(&other, at))).find(|(a, b)| a != b);
    Ok(differ.map(|(a, b)| format!("P7 broken: with right clocks `{a}`, with clocks {wrong:?} `{b}`")).into_iter().collect())
}
