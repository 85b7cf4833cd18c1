//! The agent on a machine that is played, for tests/sim: its own main loop, ledger, uplink and fetching, in virtual time.
//!
//! In: a [`Machine`], a [`Link`], an engine, a data folder. Out: the agent as one future, and a [`View`] of what it holds. The future runs
//! on a current-thread runtime with paused time while [`play`] says whose machine the thread is. What is played instead of the real thing:
//! time since boot, chance, free disk, the network, the engine's disk, the reconstruct process; there are no processes of the node.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use skerry_engine::{Abilities, Engine, Info};
use skerry_reconcile::{Memory, Policy};
use skerry_transfer::{Marks, Rules, Windows};
use skerry_wire::job::OnDeltaFailure;
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::node::Fingerprint;
use skerry_wire::poll::Report;
use skerry_wire::{BootId, ImageId, Timestamp, cbor};
use tokio::sync::{Notify, mpsc, watch};

use crate::checks::Checks;
use crate::clock::{Clock, boottime_ms};
use crate::engine_facts::EngineFacts;
use crate::facts::Facts;
use crate::files;
use crate::fingerprint::with_engine;
use crate::hints;
use crate::images::Images;
use crate::images::admission::Terms;
use crate::ledger::{Ledger, LocalMeta};
use crate::logs::answer::Outputs;
use crate::needed::Needed;
use crate::process::Processes;
use crate::run::Allocator;
use crate::runner::Drivers;
use crate::silence::Silence;
use crate::spending::Spending;
use crate::status::{AllocReport, EngineReport};
use crate::trust::{RootStore, node_key};
use crate::uplink::client::Client;
use crate::uplink::meter::Meter;
use crate::uplink::{self, Contact, Uplink, Wires};

/// Bytes of bundles that are kept, as when nothing is configured.
const KEEP_BUNDLES: u64 = 64 << 20;

/// What a machine gives beside its files.
pub trait Machine: Debug + Send + Sync {
    /// Milliseconds since the kernel started.
    fn boottime_ms(&self) -> u64;
    /// The system's time of day, when its time service vouches for it.
    fn system_time(&self) -> Option<Timestamp>;
    /// A random number.
    fn random(&self) -> u32;
    /// Bytes free on its one disk.
    fn disk_free(&self) -> u64;
    /// Bytes in use on it.
    fn disk_used(&self) -> u64;
    /// What the engine wrote is on the disk.
    fn sync_engine(&self);
    /// What the reconstruct process makes of a bundle for the engine to load, or its last words.
    fn reconstruct(&self, bundle: &Path, image: ImageId) -> Result<Vec<u8>, String>;
}

/// An answer under way.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A body, and the offset at which it begins.
pub type Found = (Box<dyn Body>, u64);

/// The way to the server.
pub trait Link: Debug + Send + Sync {
    /// Posts a body and gives the answer's.
    fn post(&self, path: &str, body: Vec<u8>) -> Answer<Result<Vec<u8>, LinkError>>;
    /// Gets bytes `from..to` of a file: the body and the offset at which it begins.
    fn get(&self, path: &str, from: u64, to: Option<u64>) -> Answer<Result<Found, LinkError>>;
}

/// A body under way.
pub trait Body: Debug + Send {
    /// The next bytes; none at its end.
    fn next(&mut self) -> Answer<Option<Result<Bytes, String>>>;
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum LinkError {
    /// The link broke.
    Broken(String),
    /// The server said no: status and code.
    Refused(u16, &'static str),
}

thread_local! {
    static MACHINE: RefCell<Option<Arc<dyn Machine>>> = const { RefCell::new(None) };
}

/// The machine that this thread plays now.
pub(crate) fn machine() -> Option<Arc<dyn Machine>> {
    MACHINE.with_borrow(Clone::clone)
}

/// Does some work as this machine.
pub fn play<T>(machine: Arc<dyn Machine>, work: impl FnOnce() -> T) -> T {
    /// Gives the thread back, after a panic too.
    struct Back(Option<Arc<dyn Machine>>);
    impl Drop for Back {
        fn drop(&mut self) {
            MACHINE.set(self.0.take());
        }
    }
    let _back = Back(MACHINE.replace(Some(machine)));
    work()
}

/// What an agent starts with.
#[derive(Debug)]
pub struct Parts<E> {
    /// The data folder.
    pub data: PathBuf,
    /// The folder of the allocations.
    pub allocs: PathBuf,
    /// The first root document.
    pub root: PathBuf,
    /// A CA certificate, PEM: the client wants one.
    pub ca: Vec<u8>,
    /// The boot.
    pub boot: BootId,
    /// The enrolment token.
    pub token: String,
    /// What the node says of itself.
    pub facts: Fingerprint,
    /// The engine.
    pub engine: E,
    /// What it is.
    pub info: Info,
    /// The way to the server.
    pub link: Arc<dyn Link>,
    /// The longest time between polls.
    pub poll_interval: Duration,
}

/// What an agent holds. Dropped before the agent is started again.
#[derive(Debug, Clone)]
pub struct View(Ledger);

impl View {
    /// The node's mark.
    pub fn mark(&self) -> Mark {
        self.0.desired().mark
    }

    /// The manifest in force.
    pub fn manifest(&self) -> Option<Manifest> {
        self.0.desired().manifest.clone()
    }

    /// Specifications that the manifest names and that are not held.
    pub fn lacking(&self) -> usize {
        self.0.desired().missing().len()
    }

    /// The reconciler's memory.
    pub fn memory(&self) -> Memory {
        self.0.memory().and_then(|m| cbor::decode(&m, 16 << 20).ok()).unwrap_or_default()
    }

    /// The lower bound of time.
    pub fn time(&self) -> Timestamp {
        self.0.time().at()
    }

    /// The oldest reports that wait.
    pub async fn reports(&self, most: usize) -> Vec<Report> {
        self.0.oldest_reports(most).await.unwrap_or_default()
    }

    /// Images whose bundles are under way, with the bytes of the bundles.
    pub async fn bundles(&self) -> BTreeMap<ImageId, u64> {
        let rows = self.0.bundles().await.unwrap_or_default();
        rows.into_iter().map(|row| (row.image, row.size)).collect()
    }
}

/// Opens everything and gives the agent, which runs until it is dropped. To be called and run as its machine, within its runtime.
pub fn open<E: Engine + Clone + 'static>(parts: Parts<E>) -> Result<(View, impl Future<Output = ()> + Send + 'static)> {
    let clock = Clock::of_boot(parts.boot);
    let ledger = Ledger::open(&parts.data, crate::start::BUILT)?;
    let roots = RootStore::open(&parts.data, &parts.root)?;
    let key = Arc::new(node_key(&parts.data)?);
    let meter = Meter::default();
    let client = Client::new("https://server.example", &parts.ca, 65536, ledger.watch_time(), meter.clone())?;
    let client = client.with_link(Arc::clone(&parts.link));
    let terms = Terms {
        rules: Rules { budget: None, windows: Windows::default(), on_delta_failure: OnDeltaFailure::Full },
        pace: None,
        spending: Spending::new(ledger.clone(), clock.clone(), meter, 1),
        have: Arc::default(),
    };
    files::make_unlisted_folder(&parts.allocs)?;
    let news = Arc::new(Notify::new());
    let processes = Processes::played(&parts.data.join("run"), Arc::clone(&news));
    let silence = Silence::open(&parts.data, parts.boot, boottime_ms())?;
    let abilities = Abilities { layers_in_place: true, accepts_partial_load: true };
    let (_, facts) = Facts::new(with_engine(parts.facts, &parts.info, abilities), LocalMeta::new());
    let (inventory_to, inventory) = watch::channel(None);
    let (unknown_to, unknown) = watch::channel(None);
    let (needed_to, needed) = watch::channel(Arc::new(Needed::default()));
    let (asking_to, asking) = watch::channel(Arc::new(Default::default()));
    let (offers_to, offers) = watch::channel(Arc::new(BTreeMap::new()));
    let (contact_to, _) = watch::channel(Contact::default());
    let (allocs_to, _) = watch::channel(Arc::new(AllocReport::default()));
    let (report_to, _) = watch::channel(EngineReport::default());
    let (progress_to, _) = watch::channel(Arc::new(BTreeMap::new()));
    let (engine_to, engine_facts) = watch::channel(Some(Arc::new(EngineFacts { info: parts.info, abilities })));
    let (hints_to, hints) = mpsc::channel(8);
    let wake = Arc::new(Notify::new());
    let drivers =
        Drivers { engine: parts.engine.clone(), processes, policy: Arc::new(Policy::default()), alloc_folder: Arc::new(parts.allocs) };
    let checks = Checks::default();
    let uplink = Uplink {
        client: client.clone(),
        key,
        clock: clock.clone(),
        silence: silence.clone(),
        token: Some(parts.token),
        poll_interval: parts.poll_interval,
        roots: roots.clone(),
        ledger: ledger.clone(),
        outputs: Outputs { data: parts.data.clone(), engine: None },
        wires: Wires {
            facts: facts.clone(),
            inventory,
            unknown,
            asking,
            wake: Arc::clone(&wake),
            offers: offers_to.clone(),
            hints: hints_to.clone(),
            contact: contact_to,
        },
    };
    let allocator = Allocator {
        drivers: drivers.clone(),
        ledger: ledger.clone(),
        clock,
        facts,
        checks: checks.clone(),
        apply: Windows::default(),
        silence,
        needed: needed_to,
        inventory: inventory_to.clone(),
        unknown: unknown_to,
        hints,
        news: Arc::clone(&news),
        reports: (allocs_to, report_to),
    };
    let images = Images {
        engine: parts.engine.clone(),
        engine_facts,
        ledger: ledger.clone(),
        roots,
        client,
        folder: parts.data.join("bundles"),
        needed,
        offers,
        struck: offers_to,
        asking: asking_to,
        wake,
        inventory: inventory_to,
        progress: progress_to,
        terms,
        marks: Marks::default(),
        keep_bundles: KEEP_BUNDLES,
        trouble: watch::channel(None).0,
    };
    let view = View(ledger.clone());
    let engine = parts.engine;
    let root = images.roots.current().root().version;
    let agent = async move {
        let _engine_facts = engine_to;
        if let Err(error) = ledger.settle_mark(root).await {
            tracing::error!("{error}");
            return;
        }
        tokio::select! {
            biased;
            () = allocator.run() => {}
            () = uplink::run(uplink) => {}
            () = images.run() => {}
            () = hints::follow(engine, ledger, hints_to) => {}
            () = checks.run(drivers, news) => {}
        }
    };
    Ok((view, agent))
}
