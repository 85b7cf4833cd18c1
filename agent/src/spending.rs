//! What the month took so far: counted on the wire, kept in the ledger.
//!
//! It goes to the disk with every quarter of a mebibyte, and of less once an hour: a power cut forgets at most so much.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skerry_transfer::Spent;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError};
use crate::uplink::meter::Meter;

/// Bytes that are worth a write.
const WORTH: u64 = 256 * 1024;
/// After so long, any are.
const AT_LEAST: Duration = Duration::from_secs(3600);

/// What the month took. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Spending {
    ledger: Ledger,
    clock: Clock,
    meter: Meter,
    /// Day on which the month begins.
    day: u8,
    /// What of the meter is in the ledger, and since when.
    kept: Arc<Mutex<(u64, Instant)>>,
}

impl Spending {
    pub(crate) fn new(ledger: Ledger, clock: Clock, meter: Meter, day: u8) -> Self {
        Self { ledger, clock, meter, day, kept: Arc::new(Mutex::new((0, Instant::now()))) }
    }

    /// The time of day, when it is known.
    pub(crate) fn wall(&self) -> Option<skerry_wire::Timestamp> {
        self.clock.now(self.ledger.time().at()).wall
    }

    fn kept(&self) -> (u64, Instant) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the month took, up to now.
    pub(crate) fn spent(&self) -> Spent {
        let more = self.meter.total().saturating_sub(self.kept().0);
        self.ledger.keep().spent.at(self.day, self.wall()).plus(more)
    }

    /// Brings it onto the disk when that is worth a write, or all of it.
    pub(crate) async fn keep(&self, all: bool) -> Result<(), LedgerError> {
        let (total, (kept, at)) = (self.meter.total(), self.kept());
        let more = total.saturating_sub(kept);
        if more == 0 || more < WORTH && !all && at.elapsed() < AT_LEAST {
            return Ok(());
        }
        let (day, wall) = (self.day, self.wall());
        self.ledger.change_keep(move |keep| keep.spent = keep.spent.at(day, wall).plus(more)).await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = (total, Instant::now());
        Ok(())
    }
}
