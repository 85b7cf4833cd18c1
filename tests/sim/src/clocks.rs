//! What the clocks of the machines say, and P7: the same life with other clocks is the same life.

use anyhow::Result;

use crate::host::BEGAN;
use crate::life::{Rules, play};

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
    /// All with which a life must be the same.
    pub const ALL: [Self; 5] = [Self::Right, Self::Unknown, Self::At1970, Self::At2038, Self::Jumping];

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

/// Plays the life of a seed with every kind of clocks, without jobs that are timed by their nature. Gives how P7 is broken.
///
/// # Errors
/// When the machine that plays it fails.
pub fn other_clocks(seed: u64) -> Result<Vec<String>> {
    let mut first: Option<(Clocks, String)> = None;
    for clocks in Clocks::ALL {
        let outcome = play(seed, Rules { tell: true, clocks, untimed: true })?;
        if !outcome.broken.is_empty() {
            return Ok(outcome.broken.into_iter().map(|how| format!("{how} (with clocks {clocks:?})")).collect());
        }
        let story = outcome.story.unwrap_or_default();
        let Some((other, expected)) = &first else {
            first = Some((clocks, story));
            continue;
        };
        if story != *expected {
            let differ = expected.lines().zip(story.lines()).find(|(a, b)| a != b).unwrap_or(("more", "less"));
            return Ok(vec![format!("P7 broken: with clocks {other:?} `{}`, with {clocks:?} `{}`", differ.0, differ.1)]);
        }
    }
    Ok(vec![])
}
