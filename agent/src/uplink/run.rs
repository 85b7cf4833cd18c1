//! The uplink's loop: when to enrol and when to poll.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skerry_wire::ImageId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::{self, after_failures, jittered, random};
use super::client::CallError;
use super::exchange::{ExchangeError, Next, Session};
use super::reach::counts;
use super::{Uplink, enrol};
use crate::clock::boottime_ms;
use crate::run::Hint;

/// What comes in quick succession goes into one poll.
const COALESCE: Duration = Duration::from_millis(200);
/// After a change of the network, until addresses and routes have come, too.
const SETTLE: Duration = Duration::from_millis(300);
/// Between tries of something that only a person can mend: a token that is used up.
const SLOW: Duration = Duration::from_secs(60);
/// The server's word for a node that it has no record of.
const UNKNOWN_NODE: &str = "unknown_node";

/// Runs the uplink until the future is dropped.
pub(crate) async fn run(mut uplink: Uplink) {
    uplink.wires.contact.send_modify(|c| {
        c.server = uplink.client.server().to_owned();
        c.node = uplink.ledger.node();
    });
    let mut state = State::default();
    loop {
        match turn(&mut uplink, &mut state).await {
            Ok(()) => (state.failures, state.slowed) = (0, 0),
            Err(error) => {
                let mut opened = uplink.client.reach().opened();
                let own = matches!(error, ExchangeError::Ledger(_));
                if !own {
                    uplink.silence.missed(boottime_ms());
                }
                state.failures = state.failures.saturating_add(1);
                state.slowed = state.slowed.saturating_add(1);
                let wait = wait_after(&error, state.slowed, uplink.poll_interval);
                let text = error.to_string();
                // A server may be away for months: the log gets each reason once, `status` shows the count.
                if uplink.wires.contact.borrow().error.as_ref() != Some(&text) {
                    tracing::warn!("{text}; tries again until it works, first in {} s", wait.as_secs().max(1));
                }
                uplink.wires.contact.send_modify(|c| {
                    (c.error, c.own) = (Some(text), own);
                    c.failures = state.failures;
                });
                // Cancel-safe: a watch keeps its change, and the sleep is made anew.
                tokio::select! {
                    biased;
                    () = sleep(wait) => {}
                    () = counts(&mut opened) => {
                        sleep(SETTLE).await;
                        state.slowed = 0;
                    }
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// Failures in a row since the way to the server may have opened again: waits grow with them.
    slowed: u32,
    /// What goes on from poll to poll; made with the first.
    session: Option<Session>,
    /// The server does not know the node any more.
    enrol_again: bool,
}

/// Errors of the link pass by themselves; a token that is refused, or missing, waits for a person.
fn wait_after(error: &ExchangeError, failures: u32, poll_interval: Duration) -> Duration {
    match error {
        ExchangeError::NoToken => jittered(SLOW, random()),
        ExchangeError::Call(CallError::Refused { status: 400..=403, error, .. }) if error.code != UNKNOWN_NODE => jittered(SLOW, random()),
        ExchangeError::Call(call) if call.retry_after().is_some() => {
            call.retry_after().unwrap_or_default() + after_failures(failures, backoff::longest(poll_interval), random())
        }
        _ => after_failures(failures, backoff::longest(poll_interval), random()),
    }
}

/// Enrols if need be, polls once, and waits until the next poll is due.
async fn turn(uplink: &mut Uplink, state: &mut State) -> Result<(), ExchangeError> {
    let node = match uplink.ledger.node() {
        Some(node) if !state.enrol_again => node,
        _ => enrol::enrol(uplink).await?,
    };
    state.enrol_again = false;
    let session = match &mut state.session {
        Some(session) => session,
        none => none.insert(Session::new(uplink).await?),
    };
    // Whatever changed until now goes into this poll; what changes from now on calls for the next.
    uplink.wires.asking.mark_unchanged();
    let urgent = uplink.ledger.watch_outbox().borrow().urgent;
    let next = session.poll(uplink, node).await.inspect_err(|error| {
        state.enrol_again = matches!(error, ExchangeError::Call(call) if call.code() == UNKNOWN_NODE);
    })?;
    uplink.silence.answered(boottime_ms());
    if state.failures > 0 {
        // What stopped for its silence may start again.
        let _ = uplink.wires.hints.try_send(Hint::Look);
    }
    let (last, reports) = (uplink.ledger.time().at(), uplink.ledger.watch_outbox().borrow().pending);
    uplink.wires.contact.send_modify(|c| {
        c.node = Some(node);
        c.last = Some(last);
        (c.error, c.own) = (None, false);
        c.failures = 0;
        c.reports = reports;
    });
    wait(uplink, next, urgent).await;
    Ok(())
}

/// Until the next poll is due: by the server's word, or because there is something to say or to ask for.
async fn wait(uplink: &mut Uplink, next: Next, urgent: u64) {
    let due = Instant::now() + jittered(next.after.min(uplink.poll_interval), random());
    let mut outbox = uplink.ledger.watch_outbox();
    let wires = &mut uplink.wires;
    if !next.at_once {
        // Each arm is cancel-safe: `changed` and `notified` keep what they have not given out, and the timer is absolute.
        tokio::select! {
            biased;
            () = sleep_until(due) => return,
            () = wires.wake.notified() => {}
            () = met(&mut outbox, |o| o.urgent > urgent) => {}
            () = asks(&mut wires.asking) => {}
        }
    }
    sleep_until(due.min(Instant::now() + COALESCE)).await;
}

/// Until the value meets the condition; for ever when it never can any more.
async fn met<T>(watched: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) {
    if watched.wait_for(condition).await.is_err() {
        std::future::pending().await
    }
}

/// Until there is something new to ask for.
async fn asks(asking: &mut watch::Receiver<Arc<BTreeSet<ImageId>>>) {
    while asking.changed().await.is_ok() {
        if !asking.borrow().is_empty() {
            return;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use skerry_wire::api::ApiError;

    use super::*;

    fn busy(retry_after_s: u64) -> ExchangeError {
        let error = ApiError { code: "busy".to_owned(), message: "too much to write".to_owned(), hint: None };
        let retry_after = Some(Duration::from_secs(retry_after_s));
        ExchangeError::Call(CallError::Refused { server: "https://server".to_owned(), status: 503, error, retry_after })
    }

    /// A fleet that a busy server sent away: no node comes before it was told to, and those that were told the same come apart, the more
    /// so the more often it happens.
    #[test]
    fn a_wait_that_the_server_tells_is_kept_to_and_spread() {
        let interval = Duration::from_secs(60);
        for told_s in [0, 2, 7, 21, 3600] {
            let told = Duration::from_secs(told_s);
            let mut spread_before = Duration::ZERO;
            for failures in [1, 3, 5, 40] {
                let waits: BTreeSet<_> = (0..200).map(|_| wait_after(&busy(told_s), failures, interval)).collect();
                let (first, last) = (*waits.first().unwrap(), *waits.last().unwrap());
                assert!(first >= told + backoff::MIN, "told {told_s} s: {first:?}");
                assert!(last <= told + backoff::longest(interval), "told {told_s} s: {last:?}");
                assert!(waits.len() > 150, "told {told_s} s after {failures}: {} of 200 nodes wait differently", waits.len());
                assert!(last - first > backoff::MIN / 2, "told {told_s} s after {failures}: all come within {:?}", last - first);
                assert!(last - first > spread_before / 2, "the spread shrinks");
                spread_before = last - first;
            }
            assert!(spread_before > Duration::from_secs(15), "a long trouble: {spread_before:?}");
        }
    }
}
