//! The ledger: what the agent must remember, in one SQLite file with copies beside it.
//!
//! In: a data folder. Out: the newest manifest and specifications that were accepted, the reconciler's memory, the outbox, the bundles
//! under way. One thread owns the one connection; everybody else holds a [`Ledger`] and sends it closures through a bounded queue.
//!
//! What it promises: what a call confirmed is on the disk. A ledger that is garbled is set aside and made anew from the copies: marks
//! in slot files, the manifest and each specification, the node's id and the reconciler's memory as files. Marks never go back.

mod copies;
mod keep;
mod local;
mod mark;
mod open;
mod outbox;
mod reserve;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use skerry_reconcile::Order;
use skerry_trust::TimeBound;
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::poll::{Event, Report};
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, Digest, ImageId, NodeId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use crate::files::FileError;
pub(crate) use copies::sha256;
pub(crate) use keep::{FailedPatch, Keep, Removed};
pub(crate) use local::LocalMeta;
use reserve::Reserve;
use store::State;

/// What a node does that lost all copies of its mark, and what can be done about it; for people.
pub(crate) const MARKS_LOST: &str = "it keeps running what it runs, and takes manifests under a newer root only: \
    make one with `skerry-server renew-root`, or stop the agent, remove what runs and empty its data folder to enrol the node as a new one";

/// Requests that may wait for the ledger's thread.
const QUEUE: usize = 32;

/// Why the ledger did not do what was asked. What was asked for is then not done, in no part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// SQLite refused.
    #[error("ledger {path}: {source}", path = path.display())]
    Sqlite {
        /// The ledger's file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A copy beside the ledger could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A newer agent wrote it.
    #[error("ledger {path} has version {found}; this agent knows {known}: install the newer agent again", path = path.display())]
    TooNew {
        /// The ledger's file.
        path: PathBuf,
        /// Version found.
        found: i64,
        /// Version known.
        known: i64,
    },
    /// Its thread has ended.
    #[error("the ledger is closed")]
    Closed,
}

/// What this node must run: the newest manifest that it accepted, with every specification that it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    /// The node's mark: only a manifest strictly above it is accepted. May be above the manifest's when that was lost.
    pub(crate) mark: Mark,
    /// The manifest in force; none before the first.
    pub(crate) manifest: Option<Manifest>,
    /// Specifications by digest: those of the manifest, and older ones that were retained.
    pub(crate) specifications: BTreeMap<Digest, Specification>,
    /// Specifications that a newer server wrote, and what this agent does not know of them.
    pub(crate) newer: BTreeMap<Digest, String>,
    /// As `newer`, of single allocations of the manifest.
    pub(crate) newer_allocs: BTreeMap<AllocId, String>,
}

impl Desired {
    /// Specifications that the manifest names and that are not here.
    pub(crate) fn missing(&self) -> BTreeSet<Digest> {
        let named = self.manifest.iter().flat_map(|m| m.allocs.iter().map(|a| a.specification));
        named.filter(|d| !self.specifications.contains_key(d)).collect()
    }

    /// Allocations of the manifest that this agent must not run, with the reason: it does not know all that was said of them.
    pub(crate) fn refused(&self) -> BTreeMap<AllocId, String> {
        let allocs = self.manifest.iter().flat_map(|m| &m.allocs);
        let of = |a: &skerry_wire::manifest::ManifestAlloc| self.newer_allocs.get(&a.id).or_else(|| self.newer.get(&a.specification));
        allocs.filter_map(|a| Some((a.id, of(a)?.clone()))).collect()
    }

    /// Every image that a held specification names.
    pub(crate) fn images(&self) -> BTreeSet<ImageId> {
        self.specifications.values().flat_map(|s| s.job.images()).filter_map(|c| c.image_id).collect()
    }
}

/// A manifest whose signatures and contents were checked, with the bytes that prove it.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// Its envelope.
    pub(crate) bytes: Vec<u8>,
    /// Specifications that were not held before: digest, envelope, content.
    pub(crate) specifications: Vec<(Digest, Vec<u8>, Specification)>,
}

/// A bundle that is being fetched or applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleRow {
    /// The image that it makes.
    pub(crate) image: ImageId,
    /// SHA-256 of the bundle file.
    pub(crate) digest: Digest,
    /// Bytes of the bundle file.
    pub(crate) size: u64,
    /// What admits this node to it.
    pub(crate) capability: String,
    /// The envelope of the image's release, checked.
    pub(crate) release: Vec<u8>,
}

/// What waits in the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutboxState {
    /// Reports waiting.
    pub(crate) pending: u64,
    /// Rises when something came that should not wait for the next poll.
    pub(crate) urgent: u64,
}

/// What was confirmed by the server: hashes of the facts, so that a restart need not send them again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// SHA-256 of the encoded fingerprint.
    pub(crate) fingerprint: Option<Digest>,
    /// SHA-256 of the encoded inventory.
    pub(crate) inventory: Option<Digest>,
}

type Work = Box<dyn FnOnce(&mut State) + Send>;

/// A handle to the ledger; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    queue: mpsc::Sender<Work>,
    /// Where time is played, no thread of its own: the work is done by whoever asks.
    #[cfg(feature = "simulation")]
    inline: Option<Arc<std::sync::Mutex<State>>>,
    views: Views,
    ended: Arc<AtomicU64>,
}

/// What can be read without asking the thread.
#[derive(Debug, Clone)]
struct Views {
    desired: watch::Receiver<Arc<Desired>>,
    memory: watch::Receiver<Option<Arc<Vec<u8>>>>,
    outbox: watch::Receiver<OutboxState>,
    orders: watch::Receiver<Arc<Vec<Order>>>,
    keep: watch::Receiver<Arc<Keep>>,
    node: watch::Receiver<Option<NodeId>>,
    time: watch::Receiver<TimeBound>,
}

impl Ledger {
    /// Opens the ledger of a data folder, which must exist; mends or rebuilds what is broken. `built` is the least time it can be.
    pub(crate) fn open(folder: &Path, built: Timestamp) -> Result<Self, LedgerError> {
        let mut reserve = Reserve::new(folder);
        reserve.tend();
        let (mut state, views) = State::open(folder, built)?;
        let (queue, mut requests) = mpsc::channel::<Work>(QUEUE);
        #[cfg(feature = "simulation")]
        if crate::simulate::machine().is_some() {
            return Ok(Self { queue, inline: Some(Arc::new(std::sync::Mutex::new(state))), views, ended: Arc::default() });
        }
        let run = move || {
            while let Some(work) = requests.blocking_recv() {
                reserve.tend();
                work(&mut state);
            }
            state.close();
        };
        std::thread::Builder::new().name("ledger".to_owned()).spawn(run).map_err(|source| FileError { path: folder.to_owned(), source })?;
        Ok(Self {
            queue,
            ended: Arc::default(),
            #[cfg(feature = "simulation")]
            inline: None,
            views,
        })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        #[cfg(feature = "simulation")]
        if let Some(state) = &self.inline {
            return work(&mut state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        }
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |state| {
            // Nobody waits any more: the work is done all the same.
            let _ = answer.send(work(state));
        });
        self.queue.send(work).await.map_err(|_| LedgerError::Closed)?;
        answered.await.map_err(|_| LedgerError::Closed)?
    }

    /// What must run now.
    pub(crate) fn desired(&self) -> Arc<Desired> {
        self.views.desired.borrow().clone()
    }

    /// Changes when a manifest was accepted.
    pub(crate) fn watch_desired(&self) -> watch::Receiver<Arc<Desired>> {
        self.views.desired.clone()
    }

    /// The reconciler's memory as last committed.
    pub(crate) fn memory(&self) -> Option<Vec<u8>> {
        self.views.memory.borrow().as_ref().map(|m| m.as_ref().clone())
    }

    /// The node's id, once it has enrolled.
    pub(crate) fn node(&self) -> Option<NodeId> {
        *self.views.node.borrow()
    }

    /// Changes when the node enrols.
    pub(crate) fn watch_node(&self) -> watch::Receiver<Option<NodeId>> {
        self.views.node.clone()
    }

    /// The lower bound of the present time.
    pub(crate) fn time(&self) -> TimeBound {
        *self.views.time.borrow()
    }

    /// The lower bound as it moves.
    pub(crate) fn watch_time(&self) -> watch::Receiver<TimeBound> {
        self.views.time.clone()
    }

    /// Changes when the outbox does.
    pub(crate) fn watch_outbox(&self) -> watch::Receiver<OutboxState> {
        self.views.outbox.clone()
    }

    /// Keeps the reconciler's memory and puts its events into the outbox, both or neither.
    pub(crate) async fn commit(&self, memory: Vec<u8>, events: Vec<Event>) -> Result<(), LedgerError> {
        self.ask(move |s| s.commit(memory, &events)).await
    }

    /// Puts events into the outbox, all or none.
    pub(crate) async fn push_events(&self, events: Vec<Event>) -> Result<(), LedgerError> {
        self.ask(move |s| s.push_events(&events)).await
    }

    /// The oldest reports, at most `limit`.
    pub(crate) async fn oldest_reports(&self, limit: usize) -> Result<Vec<Report>, LedgerError> {
        self.ask(move |s| s.oldest_reports(limit)).await
    }

    /// The server has every report up to `seq` on its disk.
    pub(crate) async fn acknowledged(&self, seq: u64) -> Result<(), LedgerError> {
        self.ask(move |s| s.acknowledged(seq)).await
    }

    /// Keeps specifications, then the manifest, then its mark, and only then shows it as desired. Does nothing when the mark is not
    /// above the node's.
    pub(crate) async fn accept(&self, accepted: Accepted) -> Result<(), LedgerError> {
        self.ask(move |s| s.accept(accepted)).await
    }

    /// Keeps specifications that the manifest in force names and that had been lost.
    pub(crate) async fn keep_specifications(&self, found: Vec<(Digest, Vec<u8>, Specification)>) -> Result<(), LedgerError> {
        self.ask(move |s| s.keep_specifications(found)).await
    }

    /// The envelopes of those of these specifications that are held.
    pub(crate) async fn specification_bytes(&self, digests: Vec<Digest>) -> Result<Vec<Vec<u8>>, LedgerError> {
        self.ask(move |s| Ok(digests.iter().filter_map(|digest| s.copies.get_specification(digest)).collect())).await
    }

    /// Forgets every specification that neither the manifest nor `needed` names.
    pub(crate) async fn retain(&self, needed: BTreeSet<Digest>) -> Result<(), LedgerError> {
        self.ask(move |s| s.retain(&needed)).await
    }

    /// The id that the server gave to this node.
    pub(crate) async fn enrolled(&self, node: NodeId) -> Result<(), LedgerError> {
        self.ask(move |s| s.enrolled(node)).await
    }

    /// Where opening found all copies of the mark lost, only manifests under a newer root than this one count from now on. To be called before
    /// anything is accepted.
    pub(crate) async fn settle_mark(&self, root: u64) -> Result<(), LedgerError> {
        self.ask(move |s| s.settle_mark(root)).await
    }

    /// The server knows a mark of this node: where none is left here, only manifests under a newer root than this one count from now on.
    pub(crate) async fn lose_mark(&self, root: u64) -> Result<(), LedgerError> {
        self.ask(move |s| s.lose_mark(root)).await
    }

    /// A trusted key signed this time. Moves the bound in memory; `persist` puts it on the disk.
    pub(crate) async fn saw_time(&self, signed: Timestamp, cap: Timestamp, persist: bool) -> Result<(), LedgerError> {
        self.ask(move |s| s.saw_time(signed, cap, persist)).await
    }

    /// The facts that the server confirmed.
    pub(crate) async fn confirmed(&self) -> Result<Confirmed, LedgerError> {
        self.ask(|s| s.confirmed()).await
    }

    /// The server confirmed these facts.
    pub(crate) async fn set_confirmed(&self, confirmed: Confirmed) -> Result<(), LedgerError> {
        self.ask(move |s| s.set_confirmed(confirmed)).await
    }

    /// The bundles under way.
    pub(crate) async fn bundles(&self) -> Result<Vec<BundleRow>, LedgerError> {
        self.ask(|s| s.bundles()).await
    }

    /// Begins, or renews, a bundle.
    pub(crate) async fn put_bundle(&self, row: BundleRow) -> Result<(), LedgerError> {
        self.ask(move |s| s.put_bundle(&row)).await
    }

    /// Ends a bundle and puts the events that say why into the outbox, both or neither.
    pub(crate) async fn end_bundle(&self, image: ImageId, events: Vec<Event>) -> Result<(), LedgerError> {
        let ended = Arc::clone(&self.ended);
        let end = move |s: &mut State| {
            let result = s.end_bundle(image, &events);
            // Here, so that it counts when nobody waits any more. One that could not be written counts, too: that costs another look.
            ended.fetch_add(1, Ordering::Release);
            result
        };
        self.ask(end).await
    }

    /// How many bundles have ended since the ledger was opened: tells whether the engine was looked at before or after the end of one.
    pub(crate) fn bundles_ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod broken;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod power;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
