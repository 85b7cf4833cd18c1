//! What the month took so far: counted on the wire, kept in the ledger.
//!
//! It goes to the disk with every quarter of a mebibyte, which is looked at once a second while a bundle comes, and of less once an hour.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skerry_transfer::Spent;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError};
use crate::uplink::meter::Meter;

/// Bytes that are worth a write.
const WORTH: u64 = 256 * 1024;
/// Between two looks while a bundle comes.
const LOOK: Duration = Duration::from_secs(1);
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
        let (day, wall, now) = (self.day, self.wall(), Instant::now());
        let (before, after) = (self.clone(), self.clone());
        // Where the ledger writes, not here: it writes also when nobody waits for it any more, and then the same bytes must not be added again.
        self.ledger
            .change_keep_and(
                move |keep| keep.spent = keep.spent.at(day, wall).plus(total.saturating_sub(before.kept().0)),
                move || {
                    let mut kept = after.kept.lock().unwrap_or_else(PoisonError::into_inner);
                    *kept = (total.max(kept.0), now);
                },
            )
            .await
    }

    /// Does `work`, and meanwhile writes down once a second what it takes of the month.
    pub(crate) async fn kept_beside<T>(&self, work: impl Future<Output = T>) -> Result<T, LedgerError> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            error = self.keep_on() => Err(error),
        }
    }

    /// Ends with the first failure.
    async fn keep_on(&self) -> LedgerError {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            ticks.tick().await;
            if let Err(error) = self.keep(false).await {
                return error;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use skerry_wire::Timestamp;

    use super::*;

    fn spending(folder: &std::path::Path) -> (Spending, Ledger, Meter) {
        let (ledger, meter) = (Ledger::open(folder, Timestamp(0)).unwrap(), Meter::default());
        (Spending::new(ledger.clone(), Clock::new().unwrap(), meter.clone(), 1), ledger, meter)
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let (spending, ledger, meter) = spending(folder.path());
        meter.count(300_000);
        // As when a transfer is put off while its bytes are written down.
        let mut first = Box::pin(spending.keep(false));
        poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_ready())).await;
        drop(first);
        meter.count(50);
        spending.keep(true).await.unwrap();
        assert_eq!(ledger.keep().spent.bytes, 300_050);
        assert_eq!(spending.spent().bytes, 300_050);
    }

    #[tokio::test]
    async fn what_is_worth_a_write_is_written_beside_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let (spending, ledger, meter) = spending(folder.path());
        let mut work = pin!(spending.kept_beside(pending::<()>()));
        for (bytes, total) in [(WORTH, WORTH), (5 * WORTH, 6 * WORTH)] {
            meter.count(usize::try_from(bytes).unwrap());
            let written = async {
                while ledger.keep().spent.bytes != total {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                _ = &mut work => panic!("the work has no end"),
                written = tokio::time::timeout(Duration::from_secs(60), written) => written.expect("it is written"),
            }
        }
    }
}
