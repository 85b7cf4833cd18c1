//! The main loop: look, decide, remember, act, until nothing is left to do; then wait for a reason to look again.
//!
//! In: what is desired (from the ledger), what is there (from the engine). Out: containers as they should be, events in the outbox, the
//! images that are needed, and what `status` shows. It promises that a decision is on the disk before it is acted on. Hints from the
//! engine, new manifests, new images and timers only say "look again"; they carry nothing that is decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skerry_engine::{Engine, EngineError};
use skerry_reconcile::{Action, Decision, Desired, Failure, Memory, Node, Observed, Policy, Slot, node_label, reconcile};
use skerry_wire::node::{Fingerprint, Inventory};
use skerry_wire::{AllocId, ImageId, NodeId, cbor};
use tokio::sync::{mpsc, watch};

use crate::clock::{Clock, boottime_ms};
use crate::ledger::Ledger;
use crate::needed::Needed;
use crate::runner::{observe, perform};
use crate::status::{AllocReport, EngineReport};

/// The longest memory that is read back: hundreds of allocations.
const MEMORY_LIMIT: usize = 16 << 20;
/// How often to look without any reason: hints may be lost.
const LOOK: Duration = Duration::from_secs(30);
/// First and longest wait for an engine or a disk that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Rounds without a pause; more than a switch ever needs.
const ROUNDS: u32 = 16;

/// A word from the engine's event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Something happened to a container of ours.
    Look,
    /// The stream broke: the engine may have gone away, and containers with it.
    Interrupted,
}

/// What the loop works with.
#[derive(Debug)]
pub(crate) struct Allocator<E> {
    /// The engine.
    pub(crate) engine: E,
    /// The ledger.
    pub(crate) ledger: Ledger,
    /// The clock.
    pub(crate) clock: Clock,
    /// What the node's owner allows.
    pub(crate) policy: Policy,
    /// Facts of the node.
    pub(crate) facts: watch::Receiver<Arc<Fingerprint>>,
    /// Folder that holds one folder per allocation.
    pub(crate) alloc_folder: PathBuf,
    /// Where the needed images go.
    pub(crate) needed: watch::Sender<Arc<Needed>>,
    /// The engine's images: told at every look. Those who fetch tell it too when one came.
    pub(crate) inventory: watch::Sender<Option<Inventory>>,
    /// Words from the engine.
    pub(crate) hints: mpsc::Receiver<Hint>,
    /// What `status` shows.
    pub(crate) reports: (watch::Sender<Arc<AllocReport>>, watch::Sender<EngineReport>),
}

/// What the loop itself carries from round to round.
#[derive(Debug, Default)]
struct Carried {
    memory: Memory,
    committed: Vec<u8>,
    failures: Vec<Failure>,
    /// The engine went away since the last commit.
    interrupted: bool,
    pinned: BTreeSet<ImageId>,
    folders: Option<BTreeSet<AllocId>>,
    trouble: u32,
}

/// Why a round came to no end.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("nothing is started or stopped, because decisions cannot be kept: {0}")]
    Ledger(#[from] crate::ledger::LedgerError),
}

impl<E: Engine> Allocator<E> {
    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut carried = self.remembered();
        let mut desired = self.ledger.watch_desired();
        let mut arrivals = self.inventory.subscribe();
        let mut node = self.ledger.watch_node();
        loop {
            node.mark_unchanged();
            desired.mark_unchanged();
            arrivals.mark_unchanged();
            let wait = self.rounds(&mut carried).await;
            // All arms are cancel safe: a watch keeps its change, the queue its hint, and the sleep is made anew.
            tokio::select! {
                biased;
                hint = self.hints.recv() => match hint {
                    Some(hint) => self.take_hints(hint, &mut carried),
                    None => tokio::time::sleep(wait).await,
                },
                changed = node.changed() => if changed.is_err() { return },
                changed = desired.changed() => if changed.is_err() { return },
                changed = arrivals.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One hint, and all that wait behind it.
    fn take_hints(&mut self, first: Hint, carried: &mut Carried) {
        let mut next = Some(first);
        while let Some(hint) = next {
            carried.interrupted |= hint == Hint::Interrupted;
            next = self.hints.try_recv().ok();
        }
    }

    /// The memory from the ledger. One that cannot be read is rebuilt from the containers' labels.
    fn remembered(&self) -> Carried {
        let committed = self.ledger.memory().unwrap_or_default();
        let memory = match cbor::decode(&committed, MEMORY_LIMIT) {
            Ok(memory) => memory,
            Err(_) if committed.is_empty() => Memory::default(),
            Err(error) => {
                tracing::warn!("the reconciler's memory is broken and is made anew from the containers' labels: {error}");
                Memory::default()
            }
        };
        Carried { memory, committed, ..Carried::default() }
    }

    /// Rounds until nothing is left to do. Answers how long to wait.
    async fn rounds(&mut self, carried: &mut Carried) -> Duration {
        // Nothing of this node can be there before it has a name.
        let Some(node) = self.ledger.node() else { return LOOK };
        for _ in 0..ROUNDS {
            match self.round(node, carried).await {
                Ok(Some(wait)) => {
                    if carried.trouble > 0 {
                        tracing::info!("the engine answers again");
                    }
                    carried.trouble = 0;
                    return wait;
                }
                Ok(None) => {}
                Err(error) => return self.trouble(carried, &error),
            }
        }
        tracing::warn!("decisions did not settle; looks again in {LOOK:?}");
        LOOK
    }

    /// Notes that a round failed. Answers how long to wait.
    fn trouble(&self, carried: &mut Carried, error: &RoundError) -> Duration {
        if matches!(error, RoundError::Engine(_)) {
            carried.interrupted = true;
        }
        let wait = RETRY.0.saturating_mul(1 << carried.trouble.min(10)).min(RETRY.1);
        if carried.trouble == 0 {
            tracing::error!("{error}; tries again until it works");
        }
        carried.trouble = carried.trouble.saturating_add(1);
        let text = error.to_string();
        self.reports.1.send_if_modified(|r| {
            let changed = r.error.as_ref() != Some(&text);
            r.error = Some(text);
            changed
        });
        wait
    }

    /// Looks, decides, remembers, acts. `None` when there was something to do, else how long to wait.
    async fn round(&mut self, node: NodeId, carried: &mut Carried) -> Result<Option<Duration>, RoundError> {
        let found = self.engine.containers(&node_label(&node)).await?;
        let mut images: BTreeSet<ImageId> = self.engine.images().await?.into_iter().collect();
        self.reports.1.send_if_modified(|r| r.error.take().is_some());
        replace(&self.inventory, Some(Inventory { images: images.iter().copied().collect() }));
        // An image whose bundle is still under way may be in the engine and not yet on the disk.
        for row in self.ledger.bundles().await? {
            images.remove(&row.image);
        }
        let desired = self.ledger.desired();
        let decision = {
            let facts = self.node(node);
            let facts_disk = self.facts.borrow().disk_free;
            let observed = Observed {
                node: &facts,
                policy: &self.policy,
                images,
                instances: found.iter().filter_map(observe).collect(),
                failures: carried.failures.clone(),
                interrupted: carried.interrupted,
                stopping: BTreeSet::new(),
                checks: BTreeMap::new(),
                locked: BTreeSet::new(),
                silent: None,
                orders: Vec::new(),
                disk_free: facts_disk,
                devices: BTreeSet::new(),
            };
            let wanted = Desired { manifest: desired.manifest.as_ref(), specifications: &desired.specifications };
            reconcile(&wanted, &observed, &carried.memory, self.clock.now())
        };
        self.commit(&decision, carried).await?;
        self.publish(&decision);
        self.pin(&decision, carried).await;
        let acted = !decision.actions.is_empty();
        self.act(&decision.actions, carried).await;
        if acted {
            return Ok(None);
        }
        self.tidy(&decision, carried).await;
        let wake = decision.wake_at.map(|at| Duration::from_millis(at.saturating_sub(boottime_ms())));
        // A timer of the runtime may be a little early; then the next round finds that it is not yet time, and waits again.
        Ok(Some(wake.map_or(LOOK, |w| w.min(LOOK)) + Duration::from_millis(2)))
    }

    /// Keeps the decision before anything is done.
    async fn commit(&self, decision: &Decision, carried: &mut Carried) -> Result<(), RoundError> {
        if decision.memory != carried.memory || !decision.events.is_empty() || carried.committed.is_empty() {
            let bytes = cbor::encode(&decision.memory);
            self.ledger.commit(bytes.clone(), decision.events.clone()).await?;
            carried.committed = bytes;
        }
        carried.memory = decision.memory.clone();
        carried.failures.clear();
        carried.interrupted = false;
        Ok(())
    }

    /// Shows the decision to those who fetch images and to `status`.
    fn publish(&self, decision: &Decision) {
        let needed = Arc::new(Needed { images: decision.needed.clone(), pins: decision.pins.clone() });
        replace(&self.needed, needed);
        let allocs = decision.allocs.clone();
        replace(&self.reports.0, Arc::new(AllocReport { allocs, needed: decision.needed.clone() }));
    }

    /// Tags the images that must stay. That is no reason to hold anything up.
    async fn pin(&self, decision: &Decision, carried: &mut Carried) {
        for image in decision.pins.difference(&carried.pinned.clone()) {
            match self.engine.pin(image, &image.digest().hex()).await {
                Ok(()) => {
                    carried.pinned.insert(*image);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!("image {image} could not be tagged to stay: {error}"),
            }
        }
    }

    /// Performs actions in order. After a failure the rest of the same place waits for the next decision.
    async fn act(&self, actions: &[Action], carried: &mut Carried) {
        let mut failed: BTreeSet<&Slot> = BTreeSet::new();
        for action in actions {
            if failed.contains(&action.slot) {
                continue;
            }
            let step = action.step();
            match perform(&self.engine, &self.policy, &self.alloc_folder, action).await {
                Ok(()) => tracing::info!("{}: {step} {}: {}", action.slot, action.instance, action.reason),
                Err(error) => {
                    tracing::warn!("{}: {step} {} failed: {error}", action.slot, action.instance);
                    failed.insert(&action.slot);
                    // An engine that is away is no fault of the task.
                    if error.engine_is_away() {
                        return;
                    }
                    let (slot, alloc, task) = (action.slot.clone(), action.alloc, action.task.clone());
                    carried.failures.push(Failure { slot, alloc, task, step, error: error.to_string() });
                }
            }
        }
    }

    /// Lets go of specifications and folders that nobody needs any more.
    async fn tidy(&self, decision: &Decision, carried: &mut Carried) {
        if self.ledger.desired().specifications.keys().any(|held| !decision.specifications.contains(held))
            && let Err(error) = self.ledger.retain(decision.specifications.clone()).await
        {
            tracing::warn!("old specifications could not be dropped: {error}");
        }
        if carried.folders.as_ref() != Some(&decision.folders) {
            let (folder, kept) = (self.alloc_folder.clone(), decision.folders.clone());
            // There may be many files in them: polls and fetches go on meanwhile.
            if tokio::task::spawn_blocking(move || remove_folders(&folder, &kept)).await.is_ok() {
                carried.folders = Some(decision.folders.clone());
            }
        }
    }

    fn node(&self, id: NodeId) -> Node {
        let facts = self.facts.borrow();
        Node {
            id,
            name: facts.name.clone(),
            datacenter: facts.datacenter.clone(),
            pool: String::new(),
            address: facts.attributes.get("unique.network.ip-address").cloned().unwrap_or_else(|| "127.0.0.1".to_owned()),
            attributes: facts.attributes.clone(),
            meta: facts.meta.clone(),
            alloc_folder: self.alloc_folder.to_string_lossy().into_owned(),
            memory_mib: facts.memory_mib,
        }
    }
}

/// Sends a value when it differs.
fn replace<T: PartialEq>(channel: &watch::Sender<T>, new: T) {
    channel.send_if_modified(|old| {
        let changed = *old != new;
        *old = new;
        changed
    });
}

/// Removes the folders of allocations that are gone. A folder that is not named like an allocation is left alone.
fn remove_folders(folder: &std::path::Path, kept: &BTreeSet<AllocId>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let id: Option<AllocId> = entry.file_name().to_str().and_then(|n| n.parse().ok());
        if id.is_some_and(|id| !kept.contains(&id))
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!("folder {} of an ended allocation could not be removed: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests;
