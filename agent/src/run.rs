//! The main loop: look, decide, remember, act, until nothing is left to do; then wait for a reason to look again.
//!
//! In: what is desired (from the ledger), what is there (engine, processes, checks, locks). Out: instances as they should be, events in the
//! outbox, the images that are needed, and what `status` shows. It promises that a decision is on the disk before it is acted on, and that
//! neither a slow step of one place nor an engine that is away keeps it from supervising the others. Hints only say "look again"; they
//! carry nothing that is decided on.

mod round;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skerry_engine::Engine;
use skerry_reconcile::{AllocView, Decision, Memory};
use skerry_transfer::Windows;
use skerry_wire::node::{Fingerprint, Inventory, UnknownAlloc};
use skerry_wire::{AllocId, ImageId, cbor};
use tokio::sync::{Notify, mpsc, watch};

use crate::blocking;
use crate::checks::Checks;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::look::Look;
use crate::needed::Needed;
use crate::runner::Drivers;
use crate::silence::Silence;
use crate::status::{AllocReport, EngineReport};
use crate::work::Work;

/// The longest memory that is read back: hundreds of allocations.
const MEMORY_LIMIT: usize = 16 << 20;
/// How often to look without any reason: hints may be lost.
const LOOK: Duration = Duration::from_secs(60);
/// How often to look while an update lock holds up a switch: nobody says when it is let go.
const LOCKED: Duration = Duration::from_secs(5);
/// First and longest wait for a disk that does not take decisions.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Rounds without a pause; more than a switch ever needs.
const ROUNDS: u32 = 16;
/// How long a decision waits for what the one before began; then the others are looked after.
const SETTLE: Duration = Duration::from_secs(1);

/// A word from the engine's event stream, or from the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Something happened.
    Look,
    /// The stream broke: the engine may have gone away, and containers with it.
    Interrupted,
}

/// What the loop works with.
#[derive(Debug)]
pub(crate) struct Allocator<E> {
    /// Engine and processes.
    pub(crate) drivers: Drivers<E>,
    /// The ledger.
    pub(crate) ledger: Ledger,
    /// The clock.
    pub(crate) clock: Clock,
    /// Facts of the node.
    pub(crate) facts: watch::Receiver<Arc<Fingerprint>>,
    /// The checks.
    pub(crate) checks: Checks,
    /// When a newer version may take the place of one that runs.
    pub(crate) apply: Windows,
    /// How long the server is silent.
    pub(crate) silence: Silence,
    /// Where the needed images go.
    pub(crate) needed: watch::Sender<Arc<Needed>>,
    /// The engine's images: told at every look. Those who fetch tell it too when one came.
    pub(crate) inventory: watch::Sender<Option<Inventory>>,
    /// What is kept beyond the manifest; none before the first decision.
    pub(crate) unknown: watch::Sender<Option<Arc<Vec<UnknownAlloc>>>>,
    /// Words from the engine.
    pub(crate) hints: mpsc::Receiver<Hint>,
    /// Told when a process ended, a check turned, a step was done.
    pub(crate) news: Arc<Notify>,
    /// What `status` shows.
    pub(crate) reports: (watch::Sender<Arc<AllocReport>>, watch::Sender<EngineReport>),
}

/// What the loop itself carries from round to round.
#[derive(Debug)]
struct Carried<E> {
    memory: Memory,
    committed: Vec<u8>,
    look: Look<E>,
    work: Work<E>,
    /// The engine went away since the last commit.
    interrupted: bool,
    /// An update lock holds up a switch.
    locked: bool,
    pinned: BTreeSet<ImageId>,
    /// The folders that were left when they were looked at last, and whether the engine had answered then.
    folders: Option<(bool, BTreeSet<AllocId>)>,
    /// Allocations that this agent refused, as reported.
    refused: BTreeMap<AllocId, String>,
    trouble: u32,
}

impl<E: Engine + Clone + 'static> Allocator<E> {
    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut carried = self.remembered();
        let mut desired = self.ledger.watch_desired();
        let mut arrivals = self.inventory.subscribe();
        let mut node = self.ledger.watch_node();
        let mut orders = self.ledger.watch_orders();
        let mut facts = self.facts.clone();
        let news = Arc::clone(&self.news);
        let mut facts_change = true;
        loop {
            node.mark_unchanged();
            desired.mark_unchanged();
            arrivals.mark_unchanged();
            orders.mark_unchanged();
            facts.mark_unchanged();
            let wait = self.rounds(&mut carried).await;
            // All arms are cancel safe: a watch keeps its change, the queue its hint, a word of news stays until it is heard, and the
            // sleep is made anew.
            tokio::select! {
                biased;
                hint = self.hints.recv() => match hint {
                    Some(hint) => self.take_hints(hint, &mut carried),
                    None => tokio::time::sleep(wait).await,
                },
                () = news.notified() => {}
                changed = node.changed() => if changed.is_err() { return },
                changed = desired.changed() => if changed.is_err() { return },
                changed = orders.changed() => if changed.is_err() { return },
                changed = arrivals.changed() => if changed.is_err() { return },
                changed = facts.changed(), if facts_change => facts_change = changed.is_ok(),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One hint, and all that wait behind it.
    fn take_hints(&mut self, first: Hint, carried: &mut Carried<E>) {
        let mut next = Some(first);
        let before = carried.interrupted;
        while let Some(hint) = next {
            carried.interrupted |= hint == Hint::Interrupted;
            next = self.hints.try_recv().ok();
        }
        if carried.interrupted && !before {
            self.reports.1.send_modify(|r| r.interruptions += 1);
        }
    }

    /// The memory from the ledger. One that cannot be read is rebuilt from the instances' labels.
    fn remembered(&self) -> Carried<E> {
        let committed = self.ledger.memory().unwrap_or_default();
        let mut memory: Memory = match cbor::decode(&committed, MEMORY_LIMIT) {
            Ok(memory) => memory,
            Err(_) if committed.is_empty() => Memory::default(),
            Err(error) => {
                tracing::warn!("the reconciler's memory is broken and is made anew from the instances' labels: {error}");
                Memory::default()
            }
        };
        // What an agent before this one was told to write or to signal may not have happened.
        memory.after_restart();
        Carried {
            memory,
            committed,
            look: Look::new(self.drivers.engine.clone(), Arc::clone(&self.news)),
            work: Work::new(self.drivers.clone(), Arc::clone(&self.news)),
            interrupted: false,
            locked: false,
            pinned: BTreeSet::new(),
            folders: None,
            refused: BTreeMap::new(),
            trouble: 0,
        }
    }

    /// Rounds until nothing is left to do. Answers how long to wait.
    async fn rounds(&mut self, carried: &mut Carried<E>) -> Duration {
        // Nothing of this node can be there before it has a name.
        let Some(node) = self.ledger.node() else { return LOOK };
        for _ in 0..ROUNDS {
            match self.round(node, carried).await {
                Ok(Some(wait)) => {
                    carried.trouble = 0;
                    let longest = if carried.locked { LOCKED } else { LOOK };
                    return wait.min(longest).min(carried.look.retry_in().unwrap_or(longest)) + Duration::from_millis(2);
                }
                Ok(None) => {}
                Err(error) => {
                    let wait = RETRY.0.saturating_mul(1 << carried.trouble.min(10)).min(RETRY.1);
                    let text = format!("nothing is started or stopped, because decisions cannot be kept: {error}");
                    if carried.trouble == 0 {
                        tracing::error!("{text}; tries again until it works");
                    }
                    carried.trouble = carried.trouble.saturating_add(1);
                    self.tell_engine(Some(text));
                    return wait;
                }
            }
        }
        tracing::warn!("decisions did not settle; looks again in {LOOK:?}");
        LOOK
    }

    /// Shows what keeps the loop from its work.
    fn tell_engine(&self, error: Option<String>) {
        self.reports.1.send_if_modified(|r| {
            let changed = r.error != error;
            r.error = error;
            changed
        });
    }

    /// Shows the decision to those who fetch images, to those who run checks, and to `status`. `ended` bundles had ended when the engine was
    /// looked at; none when it never answered.
    fn publish(&self, decision: &Decision, allocs: Vec<AllocView>, ended: Option<u64>, suspects: BTreeSet<ImageId>) {
        // What an engine lacks that never answered is not known: nothing is fetched for it.
        let lacking = if ended.is_some() { decision.needed.clone() } else { vec![] };
        let (known, ended) = (ended.is_some(), ended.unwrap_or(0));
        replace(&self.needed, Arc::new(Needed { known, ended, images: lacking.clone(), suspects, pins: decision.pins.clone() }));
        self.checks.set(&decision.checks);
        replace(&self.reports.0, Arc::new(AllocReport { allocs, needed: lacking }));
    }

    /// Tags the images that must stay. That is no reason to hold anything up.
    async fn pin(&self, decision: &Decision, carried: &mut Carried<E>) {
        for image in decision.pins.difference(&carried.pinned.clone()) {
            match self.drivers.engine.pin(image, &image.digest().hex()).await {
                Ok(()) => {
                    carried.pinned.insert(*image);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::warn!("image {image} could not be tagged to stay: {error}"),
            }
        }
    }

    /// Lets go of specifications and folders that nobody needs any more. Until the engine has answered, containers that are not seen may
    /// need them: then only folders that this agent saw the end of are removed.
    async fn tidy(&self, decision: &Decision, carried: &mut Carried<E>) {
        let known = carried.look.seen().is_some();
        if known
            && self.ledger.desired().specifications.keys().any(|held| !decision.specifications.contains(held))
            && let Err(error) = self.ledger.retain(decision.specifications.clone()).await
        {
            tracing::warn!("old specifications could not be dropped: {error}");
        }
        if carried.folders.as_ref() != Some(&(known, decision.folders.clone())) {
            let (folder, kept) = (PathBuf::clone(&self.drivers.alloc_folder), decision.folders.clone());
            let before = carried.folders.take().map(|(_, folders)| folders).unwrap_or_default();
            let ended = move |id: &AllocId| !kept.contains(id) && (known || before.contains(id));
            // There may be many files in them: polls and fetches go on meanwhile.
            if blocking::run(move || remove_folders(&folder, ended)).await.is_ok() {
                carried.folders = Some((known, decision.folders.clone()));
            }
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
fn remove_folders(folder: &std::path::Path, ended: impl Fn(&AllocId) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let id: Option<AllocId> = entry.file_name().to_str().and_then(|n| n.parse().ok());
        if id.is_some_and(|id| ended(&id))
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!("folder {} of an ended allocation could not be removed: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests;
