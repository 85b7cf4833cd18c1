//! What all who use the server know of the way to it: whether it may be open again, and whether the address that connections have is gone.
//!
//! In: answers and failures of requests, changes of the machine's network. Out: a word to whoever waits after a failure, so that a link
//! that is back is used at once and not after a back-off; and a word to whoever waits on a connection that nothing can come over any more.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::network::Change;

/// Shared by all who use the server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Counts how often the way may have opened again.
    opened: watch::Sender<u64>,
    /// Counts how often the connections' address went away.
    lost: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The node's address of the connection that answered last.
    local: Option<IpAddr>,
    /// The last request failed for want of a link.
    failing: bool,
}

impl Reach {
    pub(super) fn new() -> Self {
        let shared = Shared { opened: watch::Sender::new(0), lost: watch::Sender::new(0), state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Changes when the way to the server may be open again; what was before is seen already.
    pub(crate) fn opened(&self) -> watch::Receiver<u64> {
        self.shared.opened.subscribe()
    }

    /// Changes when the address of the connections is gone; what was before is seen already.
    pub(super) fn lost(&self) -> watch::Receiver<u64> {
        self.shared.lost.subscribe()
    }

    /// The server answered over a connection from this address.
    pub(super) fn answered(&self, local: Option<IpAddr>) {
        let mut state = self.state();
        state.local = local.or(state.local);
        if std::mem::take(&mut state.failing) {
            drop(state);
            add_one(&self.shared.opened);
        }
    }

    /// A request failed for want of a link.
    pub(super) fn failed(&self) {
        self.state().failing = true;
    }

    /// The machine's network changed.
    pub(super) fn changed(&self, change: Change) {
        match change {
            Change::Gone(address) => {
                let mut state = self.state();
                if state.local == Some(address) {
                    state.local = None;
                    drop(state);
                    tracing::info!("this node's address {address} is gone: connects to the server anew");
                    add_one(&self.shared.lost);
                }
            }
            Change::Back => add_one(&self.shared.opened),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_one(counter: &watch::Sender<u64>) {
    counter.send_modify(|n| *n = n.wrapping_add(1));
}

/// Until the counter counts on; for ever when it never can any more.
pub(crate) async fn counts(counter: &mut watch::Receiver<u64>) {
    if counter.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_once_it_is_worth_it() {
        let reach = Reach::new();
        let (mut opened, mut lost) = (reach.opened(), reach.lost());
        let mut told = || {
            let both = (opened.has_changed().unwrap(), lost.has_changed().unwrap());
            opened.mark_unchanged();
            lost.mark_unchanged();
            both
        };
        let (here, other): (IpAddr, IpAddr) = ("10.0.0.2".parse().unwrap(), "10.0.0.9".parse().unwrap());
        reach.answered(Some(here));
        assert_eq!(told(), (false, false), "nothing had failed");
        reach.failed();
        assert_eq!(told(), (false, false));
        reach.answered(Some(here));
        assert_eq!(told(), (true, false));
        reach.changed(Change::Gone(other));
        assert_eq!(told(), (false, false), "no connection has that address");
        reach.changed(Change::Gone(here));
        assert_eq!(told(), (false, true));
        reach.changed(Change::Gone(here));
        assert_eq!(told(), (false, false), "known already");
        reach.changed(Change::Back);
        assert_eq!(told(), (true, false));
    }
}
