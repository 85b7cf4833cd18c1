//! The link between a machine and the server: slow, lossy, cut at any byte; and the count of what came over it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use skerry_agent::simulate::{Answer, Body, Found, Link, LinkError};
use skerry_wire::{Digest, Timestamp, limits};

use crate::host::{BEGAN, Fetched, Host};
use crate::library::{self, Bundle};
use crate::server::{Server, manifest_of, reports_of};

/// Bytes that come at once.
const FRAME: usize = 16 * 1024;
/// What one break of a body may cost: the chunk that was under way, and what was on its way to the disk.
pub(crate) const BREAK: u64 = limits::CHUNK as u64;

/// The link of one machine.
#[derive(Clone)]
pub(crate) struct Wires {
    pub(crate) host: Arc<Host>,
    pub(crate) server: Arc<Mutex<Server>>,
}

impl std::fmt::Debug for Wires {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wires").field("host", &self.host.name).finish_non_exhaustive()
    }
}

fn broken<T>() -> Result<T, LinkError> {
    Err(LinkError::Broken("the link is cut".to_owned()))
}

/// Never ends when the power has gone.
async fn alive(host: &Host) {
    if host.is_cut() {
        std::future::pending::<()>().await;
    }
}

impl Wires {
    /// Waits as long as a round trip takes. Is anything lost on the way there, or on the way back?
    async fn trip(&self) -> (bool, bool) {
        alive(&self.host).await;
        let wire = self.host.state().wire;
        let wait = 20 + self.host.draw(200) as u64 + wire.slow;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        alive(&self.host).await;
        let lost = wire.loss > 0 && self.host.draw(1000) < wire.loss;
        (wire.down || lost && self.host.draw(2) == 0, lost)
    }
}

impl Link for Wires {
    fn post(&self, path: &str, body: Vec<u8>) -> Answer<Result<Vec<u8>, LinkError>> {
        let (this, path) = (self.clone(), path.to_owned());
        Box::pin(async move {
            let (lost, unanswered) = this.trip().await;
            if lost {
                return broken();
            }
            let now = this.host.now();
            let answer = {
                let mut server = this.server.lock().expect("no life goes on after a panic");
                if !server.is_up() {
                    return broken();
                }
                server.post(&path, &body, Timestamp(BEGAN + i64::try_from(now).unwrap_or(0)))
            };
            if answer.is_ok() {
                let mut state = this.host.state();
                state.delivered.extend(reports_of(&body).iter().map(|r| r.seq));
            }
            if let Err(LinkError::Refused(status, code)) = &answer {
                this.host.tell(&format!("the server refuses: {status} {code}"));
            }
            if unanswered {
                return broken();
            }
            // One manifest may come on the heels of another: what the first does not name, the second may name again.
            let new = answer.as_ref().ok().filter(|_| path.ends_with("/poll")).and_then(|bytes| manifest_of(bytes));
            new.iter().for_each(|manifest| this.host.forget_unneeded(Some(manifest)));
            answer
        })
    }

    fn get(&self, path: &str, from: u64, to: Option<u64>) -> Answer<Result<Found, LinkError>> {
        let this = self.clone();
        let digest: Option<Digest> = path.split('/').next_back().and_then(|p| p.split('?').next()).and_then(|hex| hex.parse().ok());
        Box::pin(async move {
            if this.trip().await.1 || !this.server.lock().expect("no life goes on after a panic").is_up() {
                return broken();
            }
            let Some((digest, bundle)) = digest.and_then(|d| Some((d, library::by_digest(&d)?))) else {
                return Err(LinkError::Refused(404, "unknown_object"));
            };
            let to = to.unwrap_or(u64::MAX).min(bundle.bytes.len() as u64);
            let reached = {
                let mut state = this.host.state();
                let fetched = state.fetched.entry(digest).or_default();
                fetched.allowed = fetched.allowed.max(bundle.bytes.len() as u64);
                if fetched.unsure { 0 } else { fetched.reached }
            };
            this.host.tell(&format!("fetches bytes {from} to {to} of bundle {}", digest.short()));
            if from < reached {
                this.host.broken("P6", &format!("bundle {} is gone on with at byte {from}, and had come to {reached}", digest.short()));
            }
            let body: Box<dyn Body> = Box::new(Stream { host: Arc::clone(&this.host), digest, bundle, from, at: from, to, cut: false });
            Ok((body, from))
        })
    }
}

/// A body under way.
#[derive(Debug)]
struct Stream {
    host: Arc<Host>,
    digest: Digest,
    bundle: Arc<Bundle>,
    from: u64,
    at: u64,
    to: u64,
    cut: bool,
}

impl Body for Stream {
    fn next(&mut self) -> Answer<Option<Result<Bytes, String>>> {
        let host = Arc::clone(&self.host);
        let wire = host.state().wire;
        if self.cut || wire.down {
            return Box::pin(async move {
                alive(&host).await;
                Some(Err("the link is cut".to_owned()))
            });
        }
        if self.at >= self.to {
            return Box::pin(async { None });
        }
        let left = usize::try_from(self.to - self.at).unwrap_or(FRAME).min(FRAME);
        self.cut = wire.cuts > 0 && host.draw(1000) < wire.cuts;
        // A cut comes at any byte.
        let length = if self.cut { 1 + host.draw(left) } else { left };
        let start = usize::try_from(self.at).unwrap_or(0);
        let bytes = Bytes::copy_from_slice(&self.bundle.bytes[start..start + length]);
        self.at += length as u64;
        let end = self.at;
        let (digest, length_of) = (self.digest, self.bundle.bytes.len() as u64);
        Box::pin(async move {
            alive(&host).await;
            tokio::time::sleep(Duration::from_millis(5 + wire.slow)).await;
            alive(&host).await;
            let host_now = host.now();
            let over = {
                let mut state = host.state();
                // What a full disk does not take has to come again.
                // What begins at an image that vanished comes anew, until the server has heard of it.
                let gone = state
                    .vanished
                    .iter()
                    .any(|(image, at)| host_now.saturating_sub(*at) < 15 * 60_000 && library::begins_at(&digest, image));
                let refused = if state.full || gone { bytes.len() as u64 } else { 0 };
                // A manifest that names its image no more may come while it is fetched.
                let whole = Fetched { allowed: length_of, unsure: true, ..Fetched::default() };
                let fetched = state.fetched.entry(digest).or_insert(whole);
                fetched.bytes += bytes.len() as u64;
                if refused == 0 {
                    fetched.reached = fetched.reached.max(end);
                }
                fetched.allowed += refused;
                fetched.bytes > fetched.allowed
            };
            if over {
                host.broken("P6", &format!("more bytes of bundle {} than its size and a chunk for each break", digest.short()));
            }
            Some(Ok(bytes))
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.cut || self.at < self.to || self.host.is_cut() {
            let whole = Fetched { allowed: self.bundle.bytes.len() as u64, ..Fetched::default() };
            self.host.state().fetched.entry(self.digest).or_insert(whole).allowed += BREAK.min(self.at - self.from);
        }
    }
}
