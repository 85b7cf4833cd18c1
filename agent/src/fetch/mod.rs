//! Fetching: a bundle file from the server, whatever the link does.
//!
//! In: what was offered, and the keys that may sign a bundle. Out: the whole file, its table of contents proven and every chunk checked.
//! The table comes first, so that space and bases can be checked; then one request gets all that is missing. What came is kept over cuts, kills and
//! power cuts, and is not fetched again unless its hash fails.

mod part;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use skerry_bundle::VerifiedToc;
use skerry_transfer::Pace;
use skerry_trust::KeyRing;
use skerry_wire::{Digest, NodeId};
use tokio::sync::{mpsc, oneshot};

use crate::clock::boottime_ms;
use crate::files::FileError;
use crate::uplink::client::{CallError, Client};
use part::{Part, PartError, UNSYNCED};
pub(crate) use part::{is_whole, table_in};

/// Frames between the network and the disk.
const QUEUE: usize = 4;
/// Chunks with wrong bytes that one fetch puts up with.
const BAD_CHUNKS: u32 = 16;

/// A bundle under way cannot be shown whole.
impl std::fmt::Debug for Fetch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetch").field("order", &self.order).finish_non_exhaustive()
    }
}

/// What is to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The bundle file's SHA-256: its name at the server.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
    /// What admits the node.
    pub(crate) capability: String,
    /// The node.
    pub(crate) node: NodeId,
    /// Keys that may sign a bundle.
    pub(crate) keys: KeyRing,
    /// Where the file goes.
    pub(crate) path: PathBuf,
    /// Bytes that may be fetched; see [`FetchError::Allowance`].
    pub(crate) most: u64,
    /// How fast.
    pub(crate) pace: Option<Arc<Mutex<Pace>>>,
}

/// Why a bundle is not here yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The server or the way to it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// The server's file is not the bundle that it should be.
    #[error("the bundle from the server cannot be believed: {0}")]
    Bad(String),
    /// A body ended, and nothing of it was of use.
    #[error("{server}: of the bundle {have} of {size} bytes are here, and what the server sent last added nothing to them")]
    Short {
        /// The server.
        server: String,
        /// Bytes that are here.
        have: u64,
        /// Bytes of the bundle.
        size: u64,
    },
    /// All that could be fetched came, and not all of it is right: the server's copy is wrong, or the way to it.
    #[error("{server}: what it sends of the bundle is wrong: {have} of {size} bytes are here")]
    Wrong {
        /// The server.
        server: String,
        /// Bytes that are here.
        have: u64,
        /// Bytes of the bundle.
        size: u64,
    },
    /// All that it may fetch for now was fetched.
    #[error("all that may be fetched for now was fetched")]
    Allowance,
    /// No thread for the disk.
    #[error("the thread that writes bundles ended unexpectedly")]
    Writer,
}

impl From<PartError> for FetchError {
    fn from(error: PartError) -> Self {
        match error {
            PartError::File(error) => Self::File(error),
            PartError::Bad(reason) => Self::Bad(reason),
        }
    }
}

/// Told how many bytes of the bundle are here.
pub(crate) type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// A bundle under way. Dropping a future of it stops it; what came stays.
pub(crate) struct Fetch<'a> {
    client: &'a Client,
    order: Order,
    progress: Progress,
    /// Bytes that are here, for whoever looks on.
    have: Arc<AtomicU64>,
    /// None only while a writer has it, and after one was lost.
    part: Option<Part>,
    /// Bytes that were here when it was opened.
    had: u64,
    /// It asked the server for something.
    asked: bool,
}

impl<'a> Fetch<'a> {
    /// Finds out what is here already.
    pub(crate) async fn open(client: &'a Client, order: Order, progress: Progress) -> Result<Self, FetchError> {
        let (path, size, keys) = (order.path.clone(), order.size, order.keys.clone());
        let part = off_thread(move || Part::open(&path, size, keys)).await??;
        let have = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&have);
        let progress: Progress = Arc::new(move |now| {
            seen.store(now, Ordering::Relaxed);
            progress(now);
        });
        let had = part.have();
        progress(had);
        Ok(Self { client, order, progress, have, part: Some(part), had, asked: false })
    }

    fn part(&self) -> Result<&Part, FetchError> {
        self.part.as_ref().ok_or(FetchError::Writer)
    }

    /// Bytes that are here.
    pub(crate) fn have(&self) -> u64 {
        self.have.load(Ordering::Relaxed)
    }

    /// The same, while a fetch runs.
    pub(crate) fn have_watch(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.have)
    }

    /// The table of contents; fetched when it is not here.
    pub(crate) async fn table(&mut self) -> Result<Arc<VerifiedToc>, FetchError> {
        loop {
            if let Some(table) = self.part()?.table() {
                return Ok(Arc::clone(table));
            }
            self.advance().await?;
        }
    }

    /// Everything.
    pub(crate) async fn rest(&mut self) -> Result<(), FetchError> {
        while self.part()?.wanted().is_some() {
            self.advance().await?;
        }
        Ok(())
    }

    /// One request for the next run of missing bytes.
    async fn advance(&mut self) -> Result<(), FetchError> {
        if self.order.most == 0 {
            return Err(self.used_up());
        }
        self.asked = true;
        let part = self.part.take().ok_or(FetchError::Writer)?;
        let (have, setbacks, in_chunks) = (part.have(), part.setbacks(), part.table().is_some());
        let fetched = Arc::new(AtomicU64::new(0));
        let ran = self.run(part, Arc::clone(&fetched)).await;
        self.order.most = self.order.most.saturating_sub(fetched.load(Ordering::Relaxed));
        let (part, ended) = ran?;
        let (now, now_bad, now_setbacks) = (part.have(), part.bad_chunks(), part.setbacks());
        self.part = Some(part);
        ended?;
        if now_bad > BAD_CHUNKS {
            return Err(FetchError::Bad(format!("{now_bad} of its chunks came with wrong bytes")));
        }
        // A body that ends well and brings nothing would be asked for again for ever. Before the table is here, less than before means that
        // its beginning was garbled, and is fetched again.
        if now_setbacks == setbacks && (now == have || (in_chunks && now < have)) {
            return Err(if self.order.most == 0 { self.used_up() } else { self.short() });
        }
        Ok(())
    }

    /// All was fetched that may be. When nothing came of it, the next try must not come at once, nor without a word: of a copy with one
    /// wrong chunk, all that is missing would be fetched for ever.
    fn used_up(&self) -> FetchError {
        let have = self.part.as_ref().map_or(0, Part::have);
        if !self.asked || have > self.had {
            return FetchError::Allowance;
        }
        match self.part.as_ref().map_or(0, Part::bad_chunks) {
            0 => self.short(),
            _ => FetchError::Wrong { server: self.client.server().to_owned(), have, size: self.order.size },
        }
    }

    fn short(&self) -> FetchError {
        let have = self.part.as_ref().map_or(0, Part::have);
        FetchError::Short { server: self.client.server().to_owned(), have, size: self.order.size }
    }

    /// Gives the file back with how the request ended.
    async fn run(&self, part: Part, fetched: Arc<AtomicU64>) -> Result<(Part, Result<(), FetchError>), FetchError> {
        let Some(mut wanted) = part.wanted() else { return Ok((part, Ok(()))) };
        wanted.end = wanted.end.min(wanted.start.saturating_add(self.order.most));
        let order = &self.order;
        let path = format!("/agent/v1/objects/{}?n={}&c={}", order.digest.hex(), order.node, order.capability);
        let to = (wanted.end < order.size).then_some(wanted.end);
        let mut download = match self.client.get_range(&path, wanted.start, to).await {
            Ok(download) => download,
            Err(error) => return Ok((part, Err(error.into()))),
        };
        let (frames, queue) = mpsc::channel::<(u64, Bytes)>(QUEUE);
        let (progress, pace) = (Arc::clone(&self.progress), self.order.pace.clone());
        let writer = off_thread_async(move || async move { write(part, queue, &*progress).await });
        let received = async move {
            let mut at = download.from();
            // Past the run that was asked for lies what is here already.
            while at < wanted.end {
                let Some(bytes) = download.next().await? else { return Ok(()) };
                let length = bytes.len() as u64;
                fetched.fetch_add(length, Ordering::Relaxed);
                if frames.send((at, bytes)).await.is_err() {
                    // The writer failed; it says why.
                    return Ok(());
                }
                at = at.saturating_add(length);
                // What is not taken from the connection is not sent: the receive window is small.
                if let Some(pace) = &pace {
                    let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).took(length, boottime_ms());
                    tokio::time::sleep(wait.duration()).await;
                }
            }
            Ok::<(), CallError>(())
        };
        let (received, written) = tokio::join!(received, writer);
        let (part, written) = written?;
        Ok((part, written.map_err(FetchError::from).and(received.map_err(FetchError::from))))
    }
}

/// The disk's side of a request: writes frames as they come and syncs whenever there is a moment, so that on a slow link what came is on
/// the disk before more comes, and on a fast one frames share a sync, up to [`UNSYNCED`].
async fn write(
    mut part: Part,
    mut queue: mpsc::Receiver<(u64, Bytes)>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> (Part, Result<(), PartError>) {
    let mut next = queue.recv().await;
    while let Some((at, bytes)) = next {
        if let Err(error) = part.push(at, &bytes) {
            return (part, Err(error));
        }
        progress(part.have());
        let waiting = queue.try_recv().ok();
        if (waiting.is_none() || part.unsynced() >= UNSYNCED)
            && let Err(error) = part.sync_chunks()
        {
            return (part, Err(error));
        }
        next = match waiting {
            Some(frame) => Some(frame),
            None => queue.recv().await,
        };
    }
    let synced = part.sync();
    (part, synced)
}

/// Runs blocking work on a thread of its own: a long fetch must not take one of the runtime's few.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
    #[cfg(feature = "simulation")]
    if crate::simulate::machine().is_some() {
        // Threads of before that hold the file come first.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        return Ok(work());
    }
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("bundle".to_owned()).spawn(move || drop(answer.send(work())));
    thread.map_err(|source| FileError { path: Path::new("bundle").to_owned(), source })?;
    answered.await.map_err(|_| FetchError::Writer)
}

/// The same for work that waits now and then for what comes from the runtime.
async fn off_thread_async<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T, FetchError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    #[cfg(feature = "simulation")]
    if crate::simulate::machine().is_some() {
        return tokio::spawn(work()).await.map_err(|_| FetchError::Writer);
    }
    let runtime = tokio::runtime::Handle::current();
    off_thread(move || runtime.block_on(work())).await
}

#[cfg(test)]
mod here;
#[cfg(test)]
mod tests;
