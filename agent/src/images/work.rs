//! One image from its offer into the engine. Every step may be repeated; what is done already is found done.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use skerry_bundle::{TargetLayer, VerifiedToc};
use skerry_engine::{Engine, EngineError, spool};
use skerry_reconstruct::Limits;
use skerry_transfer::Admission;
use skerry_trust::Role;
use skerry_wire::ImageId;
use skerry_wire::node::Inventory;
use skerry_wire::poll::Event;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::admission::Asks;
use super::child::Request;
use super::parent::{self, MakeError};
use super::space::{Lack, copies_of, disk_of, export_of, lacking, scratch_of};
use super::{Images, show};
use crate::blocking;
use crate::engine_facts::EngineFacts;
use crate::fetch::{Fetch, FetchError, Order};
use crate::files::{self, FileError};
use crate::ledger::{BundleRow, LedgerError};
use crate::steps::{self, Step};

/// Between two reports of progress.
const REPORT: Duration = Duration::from_secs(30);
/// Storage drivers, Docker's and containerd's, that keep every layer as a folder of its own, with all that is below it.
const SHARE_NOTHING: [&str; 2] = ["vfs", "native"];

/// Why an image is not in the engine yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    /// The bundle.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The reconstruct or the load.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// It may not be fetched now.
    #[error("it may not be fetched now")]
    Waits,
    /// No room.
    #[error("{why}", why = .0.why)]
    Space(Lack),
    /// The bundle makes another image.
    #[error("the bundle that the server gave makes image {found}, not {expected}")]
    OtherImage {
        /// What was asked for.
        expected: ImageId,
        /// What the bundle says.
        found: ImageId,
    },
    /// A base went away after the bundle was made.
    #[error("base image {0} of its bundle is not in the engine any more: asks the server for another bundle")]
    BaseGone(ImageId),
    /// The engine has no way to take this bundle.
    #[error("{0}")]
    CannotApply(String),
    /// The engine did not answer yet.
    #[error("the container engine has not answered since the agent began")]
    NoEngine,
    /// The node is not enrolled.
    #[error("the node has not enrolled yet")]
    NotEnrolled,
}

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes by itself: the link.
    Link,
    /// Try the same again.
    Keep,
    /// Ask the server anew; what is here of the bundle may serve again.
    Renew,
    /// Ask the server for another bundle.
    Replace,
}

impl WorkError {
    /// May the bundle be to blame? Not where the link, the engine, the disk or somebody's signal came between.
    pub(super) fn blames_the_bundle(&self) -> bool {
        match self {
            Self::Make(made) => matches!(made, MakeError::Failed(_)),
            // A file of it that the disk does not give is as bad as a wrong one.
            Self::Fetch(FetchError::File(file)) => file.source.kind() != std::io::ErrorKind::StorageFull,
            Self::Fetch(error) => matches!(error, FetchError::Bad(_)),
            Self::CannotApply(_) | Self::BaseGone(_) | Self::OtherImage { .. } => true,
            _ => false,
        }
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Fetch(FetchError::Call(call)) => call.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Fetch(FetchError::Call(call)) => match call.code() {
                "not_admitted" | "unknown_object" => Verdict::Renew,
                _ => Verdict::Link,
            },
            Self::Fetch(FetchError::Short { .. }) | Self::NoEngine | Self::NotEnrolled => Verdict::Link,
            Self::Engine(EngineError::Unreachable { .. }) | Self::Make(MakeError::Engine(EngineError::Unreachable { .. })) => Verdict::Link,
            Self::Fetch(FetchError::Bad(_)) | Self::OtherImage { .. } | Self::BaseGone(_) => Verdict::Replace,
            _ => Verdict::Keep,
        }
    }
}

/// How far one try is, for whoever looks on.
#[derive(Debug)]
pub(super) struct Stage {
    /// An earlier try failed.
    again: bool,
    /// What the jobs say of the image.
    asks: Asks,
    /// Bytes that may be fetched.
    most: u64,
    reconstructing: AtomicBool,
    transit: AtomicBool,
    /// Bytes of the bundle came.
    grew: Arc<AtomicBool>,
}

impl Stage {
    pub(super) fn new(again: bool, asks: Asks, most: u64) -> Self {
        let [reconstructing, transit] = [AtomicBool::new(false), AtomicBool::new(false)];
        Self { again, asks, most, reconstructing, transit, grew: Arc::default() }
    }

    /// What the jobs say of the image.
    pub(super) fn asks(&self) -> Asks {
        self.asks
    }

    /// Nothing is lost when it is dropped now.
    pub(super) fn is_fetching(&self) -> bool {
        !self.reconstructing.load(Ordering::Relaxed)
    }

    /// Did bytes of the bundle come?
    pub(super) fn grew(&self) -> bool {
        self.grew.load(Ordering::Relaxed)
    }

    /// Was the server told that the image is on its way?
    pub(super) fn told_transit(&self) -> bool {
        self.transit.load(Ordering::Relaxed)
    }
}

/// Brings the image of `row` into the engine.
pub(super) async fn work<E: Engine>(images: &Images<E>, row: &BundleRow, stage: &Stage) -> Result<(), WorkError> {
    let image = row.image;
    let facts = images.engine_facts.borrow().clone().ok_or(WorkError::NoEngine)?;
    if facts.info.containerd_store {
        // Containerd exports an image from what came, not from the files that it unpacked: those may never have reached the disk.
        drop_name(images, &image).await?;
    }
    let present = images.engine.images().await?;
    if present.contains(&image) && !images.engine.is_whole(&image).await? {
        // It was loaded, and the power went before the engine's disk was synced.
        tracing::warn!("image {} is in the engine and damaged: it is removed and made again", image.digest().short());
        images.engine.unpin(&image.digest().hex()).await?;
        images.engine.remove_image(&image).await?;
    }
    let present = images.engine.images().await?;
    if !present.contains(&image) {
        files::make_folder(&images.folder)?;
        let (bundle, table) = get(images, row, &facts, stage).await?;
        stage.reconstructing.store(true, Ordering::Relaxed);
        show(&images.progress, image, Some("is being reconstructed and loaded into the engine".to_owned()));
        tracing::info!("image {}: the bundle of {} bytes is here; reconstructing", image.digest().short(), row.size);
        make(images, row, &facts, bundle, &table).await?;
    }
    // From here on it is let to its end.
    stage.reconstructing.store(true, Ordering::Relaxed);
    if facts.info.containerd_store {
        // Somebody else's name kept it: it has its own again.
        images.engine.pin(&image, &image.digest().hex()).await?;
    }
    finish(images, row, &facts).await
}

/// Takes the name away that an image was loaded under. With its last name it goes; one that somebody else has a name for, or a container
/// of, stays.
async fn drop_name<E: Engine>(images: &Images<E>, image: &ImageId) -> Result<(), EngineError> {
    match images.engine.unpin(&image.digest().hex()).await {
        Ok(()) | Err(EngineError::InUse { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Fetches the bundle; space and bases are checked as soon as its table is here.
async fn get<E: Engine>(
    images: &Images<E>,
    row: &BundleRow,
    facts: &EngineFacts,
    stage: &Stage,
) -> Result<(std::path::PathBuf, Arc<VerifiedToc>), WorkError> {
    let (image, size) = (row.image, row.size);
    let path = images.path(&image, &row.digest);
    let order = Order {
        digest: row.digest,
        size,
        capability: row.capability.clone(),
        node: images.ledger.node().ok_or(WorkError::NotEnrolled)?,
        keys: images.roots.current().keys(Role::Director),
        path: path.clone(),
        most: stage.most,
        pace: images.terms.pace.clone(),
    };
    let progress = images.progress.clone();
    let all = Arc::clone(&images.terms.have);
    let (grew, first) = (Arc::clone(&stage.grew), AtomicU64::new(u64::MAX));
    let told = move |have: u64| {
        all.lock().unwrap_or_else(PoisonError::into_inner).insert(image, have);
        // What was here when it was opened is told first. A chunk that comes and turns out wrong is no growth in the end.
        let first = first.compare_exchange(u64::MAX, have, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|told| told);
        grew.store(have > first, Ordering::Relaxed);
        show(&progress, image, Some(format!("{have} of {size} bytes of its bundle are here")));
        steps::fetched(have, size);
    };
    let mut fetch = Fetch::open(&images.client, order, Arc::new(told)).await?;
    // A try that only finds the same obstacle again is no progress: the server goes on showing why the image is not here.
    if !stage.again {
        in_transit(images, row, fetch.have(), stage).await?;
        images.wake.notify_one();
    }
    let table = images.terms.spending.kept_beside(fetch.table()).await??;
    steps::reached(Step::TableHere);
    // Now it is known whether it is a patch.
    if matches!(images.admission(stage.asks, row), Admission::Wait { .. }) {
        return Err(WorkError::Waits);
    }
    // The table may have taken long.
    let present = images.engine.images().await?;
    let exports = exports(images, facts, &present, &table).await?;
    let copies = copies(images, facts, &present, &table).await?;
    let admitted = admit(images, row, facts, &present, &table, (fetch.have(), exports, copies));
    if let Err(WorkError::BaseGone(_)) = admitted {
        // The server offers by what it was told that is here.
        images.inventory.send_replace(Some(Inventory { images: present, ..Inventory::default() }));
    }
    admitted?;
    if stage.again && fetch.have() < row.size {
        in_transit(images, row, fetch.have(), stage).await?;
    }
    // The bases, and with them the layers that the patch reads, must not be pruned while the bundle is on its way.
    for base in &table.toc().bases {
        images.engine.pin(base, &base.digest().hex()).await?;
    }
    steps::reached(Step::BasesPinned);
    let mut ticks = interval(REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let have = fetch.have_watch();
    let mut reported = fetch.have();
    let rest = images.terms.spending.kept_beside(fetch.rest());
    tokio::pin!(rest);
    loop {
        tokio::select! {
            biased;
            done = &mut rest => break done??,
            _ = ticks.tick() => {
                let now = have.load(Ordering::Relaxed);
                if now != reported {
                    reported = now;
                    in_transit(images, row, now, stage).await?;
                }
            }
        }
    }
    // Before the reconstruct, which may take minutes.
    images.terms.spending.keep(false).await?;
    steps::reached(Step::Fetched);
    Ok((path, table))
}

async fn in_transit<E>(images: &Images<E>, row: &BundleRow, have: u64, stage: &Stage) -> Result<(), LedgerError> {
    stage.transit.store(true, Ordering::Relaxed);
    images.ledger.push_events(vec![Event::ImageInTransit { image: row.image, have, size: row.size }]).await
}

/// May the bundle be fetched and applied on this node?
fn admit<E>(
    images: &Images<E>,
    row: &BundleRow,
    facts: &EngineFacts,
    present: &[ImageId],
    table: &VerifiedToc,
    (have, exports, copies): (u64, u64, u64),
) -> Result<(), WorkError> {
    let toc = table.toc();
    if toc.target != row.image {
        return Err(WorkError::OtherImage { expected: row.image, found: toc.target });
    }
    if let Some(gone) = toc.bases.iter().find(|b| !present.contains(b)) {
        return Err(WorkError::BaseGone(*gone));
    }
    let limit = Limits::default().memory;
    if toc.memory > limit {
        return Err(WorkError::CannotApply(format!("its bundle needs {} bytes of memory, this node gives {limit}", toc.memory)));
    }
    let ours = disk_of(&images.folder).map_err(FileError::at(&images.folder))?;
    // An engine whose folder is not to be seen from here judges its space itself.
    let root = &facts.info.data_root;
    let theirs = disk_of(root).unwrap_or(super::space::Disk { device: u64::MAX, free: u64::MAX });
    // An engine that wants all layers stages and keeps those of the bases once more.
    let again = if loads_whole(facts, table) { exports.saturating_mul(2) } else { 0 };
    // Scratch files lie beside the bundle.
    let scratch = scratch_of(toc.disk, new_layers(table));
    let here = row.size.saturating_sub(have).saturating_add(exports).saturating_add(scratch);
    match lacking(here, (&images.folder, ours), (toc.disk - scratch).saturating_add(again).saturating_add(copies), (root, theirs)) {
        Some(lack) => Err(WorkError::Space(lack)),
        None => Ok(()),
    }
}

/// Does the engine want layers that it has? One that takes no archive without them does.
fn loads_whole(facts: &EngineFacts, table: &VerifiedToc) -> bool {
    !facts.abilities.accepts_partial_load && table.toc().layers.iter().any(|l| matches!(l, TargetLayer::Known(_)))
}

/// Bytes that exports of the bases take, where layers cannot be read in place. An image that is not here any more takes none: the
/// missing base is told of by itself.
async fn exports<E: Engine>(images: &Images<E>, facts: &EngineFacts, present: &[ImageId], table: &VerifiedToc) -> Result<u64, EngineError> {
    let mut bytes = 0u64;
    if !facts.abilities.layers_in_place || loads_whole(facts, table) {
        for base in table.toc().bases.iter().filter(|base| present.contains(base)) {
            bytes = bytes.saturating_add(export_of(images.engine.image_size(base).await?));
        }
    }
    Ok(bytes)
}

/// Bytes of the new layers, lowest first.
fn new_layers(table: &VerifiedToc) -> impl Iterator<Item = u64> {
    table.toc().layers.iter().filter_map(|layer| match layer {
        TargetLayer::New { size, .. } => Some(*size),
        TargetLayer::Known(_) => None,
    })
}

/// Bytes that the engine copies between layers, where its storage driver shares nothing.
async fn copies<E: Engine>(images: &Images<E>, facts: &EngineFacts, present: &[ImageId], table: &VerifiedToc) -> Result<u64, EngineError> {
    if !SHARE_NOTHING.contains(&facts.info.storage_driver.as_str()) {
        return Ok(0);
    }
    let mut below = 0u64;
    for base in table.toc().bases.iter().filter(|base| present.contains(base)) {
        below = below.saturating_add(images.engine.image_size(base).await?);
    }
    Ok(copies_of(below, new_layers(table)))
}

/// Has the engine export the bases, unless their layers can be read in place. An export lies beside the bundle, under a name that begins
/// with the same image, and goes when the bundle goes.
async fn spools<E: Engine>(images: &Images<E>, facts: &EngineFacts, table: &VerifiedToc) -> Result<Vec<std::path::PathBuf>, EngineError> {
    let mut spools = Vec::new();
    if !facts.abilities.layers_in_place {
        for base in &table.toc().bases {
            let path = images.folder.join(format!("{}-{}.spool", table.toc().target.digest().hex(), base.digest().hex()));
            let size = spool(&images.engine, base, &path).await?;
            tracing::info!("base image {}: {size} bytes exported", base.digest().short());
            spools.push(path);
        }
    }
    Ok(spools)
}

/// Reconstructs and loads.
async fn make<E: Engine>(
    images: &Images<E>,
    row: &BundleRow,
    facts: &EngineFacts,
    bundle: std::path::PathBuf,
    table: &VerifiedToc,
) -> Result<(), WorkError> {
    let limits = Limits::default();
    let keys = images.roots.current().root().roles.get(&Role::Director).map(|r| r.keys.clone()).unwrap_or_default();
    let request = Request {
        parent: i32::try_from(std::process::id()).unwrap_or(0),
        bundle,
        keys: keys.iter().map(ToString::to_string).collect(),
        image: row.image,
        data_root: facts.info.data_root.clone(),
        storage_driver: facts.info.storage_driver.clone(),
        spools: spools(images, facts, table).await?,
        whole: loads_whole(facts, table),
        // Tagged from the first moment on: nothing prunes it before it runs.
        tags: vec![format!("skerry-pin:{}", row.image.digest().hex())],
        memory: limits.memory,
        output: limits.output,
    };
    let began = Instant::now();
    if let Err(error) = parent::make(&images.engine, &request).await {
        // Containerd's store keeps the name of an image that it did not unpack.
        if facts.info.containerd_store
            && let Err(error) = drop_name(images, &row.image).await
        {
            tracing::warn!("what is left of image {} stays until the next try: {error}", row.image.digest().short());
        }
        return Err(error.into());
    }
    steps::reached(Step::LoadDone);
    if !images.engine.image_present(&row.image).await? {
        return Err(EngineError::NotLoaded { image_id: row.image }.into());
    }
    let new = table.toc().layers.iter().filter(|l| matches!(l, TargetLayer::New { .. })).count();
    tracing::info!("image {}: {new} new layers loaded in {:.1} s", row.image.digest().short(), began.elapsed().as_secs_f64());
    Ok(())
}

/// The image is in the engine: onto the disk with it, then it counts.
async fn finish<E: Engine>(images: &Images<E>, row: &BundleRow, facts: &EngineFacts) -> Result<(), WorkError> {
    let image = row.image;
    let root = facts.info.data_root.clone();
    blocking::run(move || blocking::sync_engine(&root))
        .await
        .map_err(|e| FileError::at(&facts.info.data_root)(std::io::Error::other(e)))??;
    steps::reached(Step::EngineSynced);
    images.ledger.end_bundle(image, vec![Event::ImagePresent { image }]).await?;
    steps::reached(Step::ImageRecorded);
    images.terms.have.lock().unwrap_or_else(PoisonError::into_inner).remove(&image);
    // The bundle itself may be kept, to mend the image with.
    let (hex, kept) = (image.digest().hex(), images.path(&image, &row.digest));
    let keeps = row.size <= images.keep_bundles;
    images.remove_files(|name| name.starts_with(&hex) && (!keeps || kept.file_name().is_none_or(|f| f != name)));
    steps::reached(Step::BundleTidied);
    // Nothing may fail any more. Those who need it look at the engine when they are told, which they must be when it was listed before, too.
    images.inventory.send_modify(|inventory| {
        if let Some(inventory) = inventory.as_mut().filter(|i| !i.images.contains(&image)) {
            inventory.images.push(image);
            inventory.images.sort_unstable();
        }
    });
    tracing::info!("image {} is in the engine and on the disk", image.digest().short());
    Ok(())
}
