//! Building of bundles: a queue in the database and a bounded number of workers.
//!
//! A build is asked for by an offer to a node; here it is taken, made into a temporary object, proven with the code that agents apply
//! it with, put in its place and only then ready. Whatever the process is killed in: what was being built waits again at the next
//! start. No request waits for a build.

mod maker;
mod sources;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skerry_plan::base::Estimator;
use skerry_wire::{DiffId, Digest, Millis};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub use maker::BundleMaker;
pub use sources::StoredSources;
pub(crate) use sources::open_frames;

use crate::app::App;
use crate::background;
use crate::clock;
use crate::objects::NewObject;
use crate::store::{BundleId, ImageRef, StoredImage, TakenBuild};

/// A worker without work looks again after this long: builds that wait for their next try are not announced.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Wait before the second try; doubles with each further one.
const RETRY: Millis = Millis::from_secs(10);

/// What a node must be able to apply, as its facts say it, to be offered a bundle of [`BundleMaker`].
pub const FEATURE: &str = "bundle/1";

/// Why a bundle was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Told to stop.
    #[error("the server is stopping")]
    Cancelled,
    /// It will fail again however often it is tried.
    #[error("{0}")]
    Impossible(String),
    /// It may go better another time.
    #[error("{0}")]
    Failed(String),
}

/// What to make, with everything that is kept of the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeOrder {
    /// The image.
    pub target: StoredImage,
    /// The bases, in the bundle's order.
    pub bases: Vec<StoredImage>,
    /// Objects of the indexes of the bases' layers, of those that have one.
    pub indexes: BTreeMap<DiffId, Digest>,
}

/// Makes and proves bundles. Blocks.
pub trait Maker: Send + Sync + std::fmt::Debug {
    /// Writes the bundle into a new object, proves it, and gives it back; looks at `cancel` often.
    fn make(&self, order: &MakeOrder, cancel: &AtomicBool) -> Result<NewObject, MakeError>;
}

/// The way to the workers.
pub struct Builds {
    work: Notify,
    maker: Arc<dyn Maker>,
    estimator: Arc<dyn Estimator + Send + Sync>,
}

impl std::fmt::Debug for Builds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builds").field("maker", &self.maker).finish_non_exhaustive()
    }
}

impl Builds {
    /// With what makes bundles, and what predicts their size.
    pub fn new(maker: Arc<dyn Maker>, estimator: Arc<dyn Estimator + Send + Sync>) -> Self {
        Self { work: Notify::new(), maker, estimator }
    }

    /// There may be a build to take.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// What predicts the size of bundles; reads from the disk.
    pub fn estimator(&self) -> Arc<dyn Estimator + Send + Sync> {
        Arc::clone(&self.estimator)
    }
}

/// Works until `stop` turns true; a build under way is given up then, and waits at the next start.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    match app.store.requeue_builds().await {
        Ok(0) => {}
        Ok(n) => tracing::info!(builds = n, "builds that were cut off wait again"),
        Err(error) => tracing::error!(%error, "the queue of builds cannot be read"),
    }
    let cancel = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for _ in 0..app.config.builds.workers.max(1) {
        workers.spawn(worker(Arc::clone(&app), Arc::clone(&cancel), stop.clone()));
    }
    // The other end gone is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
    cancel.store(true, Ordering::Relaxed);
    while workers.join_next().await.is_some() {}
}

async fn worker(app: Arc<App>, cancel: Arc<AtomicBool>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        match app.store.take_build(clock::now()).await {
            Ok(Some(build)) => {
                // Another one may wait beside it.
                app.builds.wake();
                one(&app, build, &cancel).await;
            }
            Ok(None) => {
                // Cancel-safe: a wake-up that is missed is made up for by looking again.
                tokio::select! {
                    () = app.builds.work.notified() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    _ = stop.changed() => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, "the queue of builds cannot be read");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

async fn one(app: &Arc<App>, build: TakenBuild, cancel: &Arc<AtomicBool>) {
    let TakenBuild { bundle, attempts } = build;
    let begun = std::time::Instant::now();
    tracing::info!(target_image = %bundle.target, bases = bundle.bases.len(), attempts, "building a bundle");
    let made = match order(app, &bundle).await {
        Ok(order) => {
            let order = Arc::new(order);
            let (maker, stopping) = (Arc::clone(&app.builds.maker), Arc::clone(cancel));
            let (objects, reserve) = (app.objects.clone(), app.config.limits.disk_reserve);
            let asked = Arc::clone(&order);
            let made = background::run(move || {
                // The database needs the rest: what was built must be written down.
                let free = objects.free().map_err(|e| MakeError::Failed(e.to_string()))?;
                if free < reserve.0 {
                    return Err(MakeError::Failed(format!("the server's disk has {free} bytes free, and {reserve} are kept in reserve")));
                }
                maker.make(&asked, &stopping)
            });
            let made = made.await;
            let made = made.unwrap_or_else(|_| Err(MakeError::Impossible("the builder panicked; the server's log has more".to_owned())));
            match made {
                Err(MakeError::Failed(why)) => Err(MakeError::Failed(blamed(app, &order, why).await)),
                Err(MakeError::Impossible(why)) => Err(MakeError::Impossible(blamed(app, &order, why).await)),
                made => made,
            }
        }
        Err(error) => Err(error),
    };
    let kept = match made {
        Ok(object) => keep(app, &bundle, object).await,
        Err(error) => Err(error),
    };
    let failure = match kept {
        Ok(size) => {
            app.metrics.bundles_built.inc();
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            return tracing::info!(target_image = %bundle.target, bases = bundle.bases.len(), size, ms, "built a bundle");
        }
        // It stays taken, and waits again at the next start.
        Err(MakeError::Cancelled) => return,
        Err(failure) => failure,
    };
    let now = clock::now();
    let again = matches!(failure, MakeError::Failed(_)) && attempts < app.config.builds.attempts;
    let wait = Millis(RETRY.0.saturating_mul(1 << attempts.saturating_sub(1).min(10)));
    tracing::warn!(target_image = %bundle.target, error = %failure, again, "a bundle could not be built");
    if !again {
        app.metrics.bundles_failed.inc();
    }
    // A full disk fails the build and this write alike: the build would stay taken for as long as the server runs.
    while let Err(error) = app.store.build_failed(bundle.clone(), failure.to_string(), again.then(|| now.after(wait)), now).await {
        tracing::error!(%error, "the end of a build could not be kept; it is tried again");
        tokio::time::sleep(LOOK_AGAIN).await;
        if cancel.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Looks up the images of a bundle.
async fn order(app: &Arc<App>, bundle: &BundleId) -> Result<MakeOrder, MakeError> {
    let mut images = Vec::new();
    for id in [bundle.target].iter().chain(&bundle.bases) {
        let found = app.store.image(ImageRef::Id(*id)).await.map_err(|e| MakeError::Failed(e.to_string()))?;
        images.push(found.ok_or_else(|| MakeError::Impossible(format!("image {id} is not known to the server any more")))?);
    }
    let bases = images.split_off(1);
    let target = images.pop().ok_or_else(|| MakeError::Impossible("a bundle without a target".to_owned()))?;
    let mut indexes = BTreeMap::new();
    for layer in bases.iter().flat_map(|base| &base.layers) {
        if let Some(object) = app.store.layer_index(layer.diff_id).await.map_err(|e| MakeError::Failed(e.to_string()))? {
            indexes.insert(layer.diff_id, object);
        }
    }
    Ok(MakeOrder { target, bases, indexes })
}

/// Why a build failed, and how that is mended where the file of a layer is to blame.
async fn blamed(app: &App, order: &MakeOrder, why: String) -> String {
    for image in order.bases.iter().chain([&order.target]) {
        for layer in &image.layers {
            // One that cannot be looked at may be whole.
            if let Ok(None) = app.checked.open(&app.objects, layer.object, layer.stored).await {
                return format!(
                    "{why}; layer {} of {}:{} ({}) is damaged on the server's disk: its file {} is garbled, cut short or gone; publish the \
                     image again, which mends it",
                    layer.diff_id,
                    image.summary.name,
                    image.summary.tag,
                    image.summary.image_id,
                    app.objects.path(&layer.object).display()
                );
            }
        }
    }
    why
}

/// Puts the object in its place and makes the bundle ready; gives its bytes.
async fn keep(app: &Arc<App>, bundle: &BundleId, object: NewObject) -> Result<u64, MakeError> {
    let failed = |e: &dyn std::fmt::Display| MakeError::Failed(e.to_string());
    let pin = app.objects.pin().await;
    let kept = tokio::task::spawn_blocking(move || object.keep(&pin).map(|kept| (kept, pin))).await.map_err(|e| failed(&e))?;
    let ((digest, size), pin) = kept.map_err(|e| failed(&e))?;
    let ready = app.store.build_ready(bundle.clone(), digest, size, clock::now()).await;
    drop(pin);
    ready.map_err(|e| failed(&e))?;
    Ok(size)
}
