//! One machine: its engine and its disk as they really are, its clocks, its link; and the checks of all that its agent does to it.
//!
//! The agent sees it through [`Machine`] and the engine's trait ([`crate::engine`]). From the moment that the power goes nothing that the
//! agent still does reaches anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skerry_agent::simulate::{Machine, View};
use skerry_engine::ContainerStatus;
use skerry_reconcile::{Labels, Slot};
use skerry_testkit::powercut::{Chance, Watched};
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::{AllocId, BootId, Digest, ImageId, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::book::Book;
use crate::clocks::Clocks;
use crate::library;

/// The true time of day when a life begins, in milliseconds.
pub(crate) const BEGAN: i64 = 1_790_000_000_000;

/// Bytes of a machine's disk.
const DISK: u64 = 16 << 30;

/// An image in the engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// Is it on the disk?
    pub(crate) synced: bool,
    /// Is it whole? A power cut may garble what was not on the disk.
    pub(crate) whole: bool,
}

/// A container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) image: ImageId,
    pub(crate) map: BTreeMap<String, String>,
    pub(crate) labels: Labels,
    pub(crate) status: ContainerStatus,
    pub(crate) started: u64,
    /// It ends by itself at this time.
    pub(crate) ends: Option<u64>,
}

/// The link, as it is now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wire {
    pub(crate) down: bool,
    /// Of 1000 requests, those that are lost, one way or the other.
    pub(crate) loss: usize,
    /// Of 1000 frames of a body, those at which it is cut.
    pub(crate) cuts: usize,
    /// Milliseconds that a frame takes.
    pub(crate) slow: u64,
}

/// What came over the link of one bundle.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fetched {
    pub(crate) bytes: u64,
    pub(crate) allowed: u64,
    /// All before this byte came, and nothing since could cost any of it.
    pub(crate) reached: u64,
    /// Some of what came may be garbled: it is gone on with somewhere before.
    pub(crate) unsure: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    /// Life's time at the beginning of the slice, and the runtime's.
    pub(crate) slice: (u64, Option<Instant>),
    pub(crate) boot: BootId,
    pub(crate) booted: u64,
    pub(crate) chance: Chance,
    /// What the system's clock says more than is true, when its time service vouches for it.
    pub(crate) wall: Option<i64>,
    pub(crate) clocks: Clocks,
    pub(crate) away: bool,
    /// Of 1000 calls, those that the engine refuses; of 1000 loads, those that it lies about.
    pub(crate) failing: usize,
    pub(crate) lying: usize,
    pub(crate) images: BTreeMap<ImageId, Held>,
    /// Tags that pin images.
    pub(crate) pins: BTreeMap<String, ImageId>,
    /// Images that went away behind the agent's back, and when.
    pub(crate) vanished: BTreeMap<ImageId, u64>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) serial: u64,
    /// The specification that each place was switched to.
    pub(crate) switched: BTreeMap<Slot, Digest>,
    /// Tasks that ran to their end: the allocation that they are labelled with, their names, and their places.
    pub(crate) finished: BTreeMap<(AllocId, Digest, String), Slot>,
    /// Those of which the agent has written down that they did.
    pub(crate) noted: BTreeMap<(AllocId, Digest, String), Slot>,
    /// Places in which nothing runs that should, and since when.
    pub(crate) missing: BTreeMap<Slot, u64>,
    pub(crate) wire: Wire,
    pub(crate) free: u64,
    pub(crate) full: bool,
    /// The last time that anything went wrong on this machine.
    pub(crate) disturbed: u64,
    pub(crate) mark: Mark,
    pub(crate) fetched: BTreeMap<Digest, Fetched>,
    /// Reports that were seen in the outbox: sequence, and whether a newer one may take the place.
    pub(crate) pending: BTreeMap<u64, bool>,
    /// Sequences of counts of dropped reports that were seen in the outbox.
    pub(crate) dropped: BTreeSet<u64>,
    /// Sequences that reached the server.
    pub(crate) delivered: std::collections::BTreeSet<u64>,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) book: Arc<Book>,
    state: Mutex<State>,
    /// Told when a container changed.
    pub(crate) changed: Notify,
    watched: Mutex<Option<Watched>>,
    view: Mutex<Option<View>>,
}

impl Host {
    /// The node holds this manifest now: what was fetched of an image that nothing names any more is let go of; should it be named again, it
    /// comes again.
    pub(crate) fn forget_unneeded(&self, manifest: Option<&Manifest>) {
        let named: BTreeSet<ImageId> = {
            let pages = self.book.pages();
            let jobs = manifest.iter().flat_map(|m| &m.allocs).filter_map(|a| pages.specifications.get(&a.specification));
            jobs.flat_map(|job| job.images().filter_map(|c| c.image_id)).collect()
        };
        self.state().fetched.retain(|digest, _| library::target(digest).is_some_and(|image| named.contains(&image)));
    }

    pub(crate) fn new(name: String, book: Arc<Book>, chance: Chance) -> Self {
        let state = State {
            slice: (0, None),
            boot: BootId::new([0; 16]),
            booted: 0,
            chance,
            wall: None,
            clocks: Clocks::Drawn,
            away: false,
            failing: 0,
            lying: 0,
            images: BTreeMap::new(),
            pins: BTreeMap::new(),
            vanished: BTreeMap::new(),
            containers: BTreeMap::new(),
            serial: 0,
            switched: BTreeMap::new(),
            finished: BTreeMap::new(),
            noted: BTreeMap::new(),
            missing: BTreeMap::new(),
            wire: Wire::default(),
            free: 8 << 30,
            full: false,
            disturbed: 0,
            mark: Mark::default(),
            fetched: BTreeMap::new(),
            pending: BTreeMap::new(),
            dropped: BTreeSet::new(),
            delivered: Default::default(),
        };
        Self { name, book, state: Mutex::new(state), changed: Notify::new(), watched: Mutex::default(), view: Mutex::default() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, Option<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Life's time.
    pub(crate) fn now(&self) -> u64 {
        let (began, instant) = self.state().slice;
        began + instant.map_or(0, |i| u64::try_from(Instant::now().duration_since(i).as_millis()).unwrap_or(0))
    }

    /// Has the power gone, so that the agent is one no more?
    pub(crate) fn is_cut(&self) -> bool {
        self.watched().as_ref().is_none_or(Watched::is_cut)
    }

    pub(crate) fn tell(&self, text: &str) {
        self.book.tell(self.now(), &format!("{}: {text}", self.name));
    }

    pub(crate) fn broken(&self, promise: &str, how: &str) {
        self.book.broken(self.now(), promise, &format!("{}: {how}", self.name));
    }

    pub(crate) fn draw(&self, n: usize) -> usize {
        self.state().chance.below(n)
    }

    /// What was accepted, what each place was switched to, and what runs in it; but for runs of the clock.
    pub(crate) fn course(&self) -> String {
        let state = self.state();
        let mut text = format!("{} holds {}", self.name, state.mark);
        for (slot, switched) in state.switched.iter().filter(|(slot, _)| slot.run().is_none()) {
            let running = state.running(slot).count();
            let _ = write!(text, "; {slot} is at {}, {running} run", switched.short());
        }
        text
    }

    /// Something went wrong here, now.
    pub(crate) fn disturb(&self) {
        let now = self.now();
        self.state().disturbed = now;
    }
}

impl State {
    /// Ends what ends by itself. Answers whether anything did.
    pub(crate) fn end_due(&mut self, now: u64) -> bool {
        let mut ended = false;
        for container in self.containers.values_mut() {
            if container.status == ContainerStatus::Running && container.ends.is_some_and(|at| at <= now) {
                container.status = ContainerStatus::Exited { code: 0, out_of_memory: false };
                let Labels { alloc, specification, task, slot, .. } = container.labels.clone();
                self.finished.insert((alloc, specification, task), slot);
                ended = true;
            }
        }
        ended
    }

    /// Everything that runs ends, as when the power goes or the engine does.
    pub(crate) fn end_all(&mut self) {
        for container in self.containers.values_mut().filter(|c| c.status == ContainerStatus::Running) {
            container.status = ContainerStatus::Exited { code: 137, out_of_memory: false };
        }
    }

    /// What a power cut does to the engine's store.
    pub(crate) fn lose_unsynced(&mut self) {
        let unsynced: Vec<ImageId> = self.images.iter().filter(|(_, held)| !held.synced).map(|(id, _)| *id).collect();
        for id in unsynced {
            match self.chance.below(3) {
                0 => drop(self.images.remove(&id)),
                1 => drop(self.images.insert(id, Held { synced: true, whole: true })),
                _ => drop(self.images.insert(id, Held { synced: true, whole: false })),
            }
        }
    }

    pub(crate) fn running(&self, slot: &Slot) -> impl Iterator<Item = &Container> {
        self.containers.values().filter(move |c| c.labels.slot == *slot && c.status == ContainerStatus::Running)
    }
}

impl Machine for Host {
    fn boottime_ms(&self) -> u64 {
        let now = self.now();
        now - self.state().booted.min(now) + 5_000
    }

    fn system_time(&self) -> Option<Timestamp> {
        let now = i64::try_from(self.now()).unwrap_or(0);
        let state = self.state();
        state.clocks.wrong(state.wall, now).map(|wrong| Timestamp(BEGAN + now + wrong))
    }

    fn random(&self) -> u32 {
        u32::try_from(self.draw(1 << 31)).unwrap_or(0) << 1
    }

    fn disk_free(&self) -> u64 {
        self.state().free
    }

    fn disk_used(&self) -> u64 {
        DISK.saturating_sub(self.state().free)
    }

    fn sync_engine(&self) {
        if !self.is_cut() {
            self.tell("the engine's disk is synced");
            for held in self.state().images.values_mut() {
                held.synced = true;
            }
        }
    }

    fn reconstruct(&self, bundle: &Path, image: ImageId) -> Result<Vec<u8>, String> {
        let bytes = std::fs::read(bundle).map_err(|e| e.to_string())?;
        if library::by_digest(&library::sha256(&bytes)).is_none() {
            return Err("a chunk of the bundle is damaged".to_owned());
        }
        Ok(image.digest().as_bytes().to_vec())
    }
}
