//! A lower bound of the present time that needs no clock: it only moves up, by times that trusted keys signed.

use serde::{Deserialize, Serialize};
use skerry_wire::Timestamp;

/// "It is at least this late": the highest of the build's time, the signed times seen, and what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeBound(Timestamp);

impl TimeBound {
    /// The bound at start: the later of when this program was built and what was stored.
    pub fn new(built: Timestamp, stored: Option<Timestamp>) -> Self {
        Self(stored.map_or(built, |s| s.max(built)))
    }

    /// The bound after a signed time was seen. A time above the root's `cap` moves it no further than the cap, so one wrong future
    /// date poisons nothing that a newer root could not mend.
    #[must_use]
    pub fn seen(self, signed: Timestamp, cap: Timestamp) -> Self {
        Self(self.0.max(signed.min(cap)))
    }

    /// The bound as a time.
    pub fn at(self) -> Timestamp {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_up_and_never_over_the_cap() {
        let bound = TimeBound::new(Timestamp(100), Some(Timestamp(50)));
        assert_eq!(bound.at(), Timestamp(100));
        assert_eq!(bound.seen(Timestamp(90), Timestamp(1000)).at(), Timestamp(100));
        assert_eq!(bound.seen(Timestamp(200), Timestamp(1000)).at(), Timestamp(200));
        assert_eq!(bound.seen(Timestamp(i64::MAX), Timestamp(1000)).at(), Timestamp(1000));
    }
}
