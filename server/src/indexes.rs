//! Indexes of layers: made in the background when a layer has come in, and used to predict the size of bundles.
//!
//! Nothing waits for an index: while one is missing the choice of a base goes by layers, names and sizes. Killed at any instant, the layers
//! without an index are found again at the next start.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skerry_delta::Silent;
use skerry_delta::TarLayer;
use skerry_delta::index::{IndexedLayer, LayerIndex, Target, limit};
use skerry_plan::base::Estimator;
use skerry_wire::{DiffId, ImageId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::app::App;
use crate::background;
use crate::builds::open_frames;
use crate::clock;
use crate::objects::{NewObject, Objects};
use crate::store::{ImageRef, Store, StoredLayer};

/// Layers looked up at once.
const BATCH: u32 = 16;
/// Wait after a failure that may pass: a full disk, a database that is busy.
const RETRY: Duration = Duration::from_secs(30);
/// Bytes of indexes kept in memory.
const MEMORY: u64 = 32 << 20;
/// Targets that are kept ready to be compared.
const TARGETS: usize = 2;
/// Predictions that are remembered.
const ANSWERS: usize = 16_384;

/// Wakes the worker.
#[derive(Debug, Default)]
pub struct Indexes {
    work: Notify,
}

impl Indexes {
    /// A layer has come in.
    pub fn wake(&self) {
        self.work.notify_one();
    }
}

/// Indexes layers until `stop` turns true; what was under way then is done again at the next start.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let cancel = Arc::new(AtomicBool::new(false));
    let working = async {
        loop {
            match app.store.layers_without_index(BATCH).await {
                Ok(layers) if layers.is_empty() => app.indexes.work.notified().await,
                Ok(layers) => {
                    for layer in layers {
                        if let Err(error) = one(&app, layer, &cancel).await {
                            tracing::warn!(%error, "a layer could not be indexed; it is tried again");
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the layers without an index cannot be read");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        () = working => {}
        _ = stop.wait_for(|stop| *stop) => cancel.store(true, Ordering::Relaxed),
    }
}

/// Indexes a layer. An error is one that may pass; that a layer cannot be indexed at all is kept with it.
async fn one(app: &Arc<App>, layer: StoredLayer, cancel: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let (objects, stopping) = (app.objects.clone(), Arc::clone(cancel));
    let (diff_id, size) = (layer.diff_id, layer.size);
    let made = background::run(move || make(&objects, &layer, &stopping)).await?;
    let object = match made {
        Ok(object) => object,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%diff_id, %error, "a layer cannot be indexed: bases for it are chosen by layers, names and sizes");
            return Ok(app.store.put_layer_index(diff_id, Err(error.to_string()), clock::now()).await?);
        }
        Err(error) => return Err(error.into()),
    };
    let pin = app.objects.pin().await;
    let (kept, pin) = tokio::task::spawn_blocking(move || object.keep(&pin).map(|kept| (kept, pin))).await??;
    app.store.put_layer_index(diff_id, Ok(kept), clock::now()).await?;
    drop(pin);
    tracing::info!(%diff_id, size, index = kept.1, "indexed a layer");
    Ok(())
}

fn make(objects: &Objects, layer: &StoredLayer, cancel: &AtomicBool) -> io::Result<NewObject> {
    let source = TarLayer::new(|| open_frames(objects, &layer.diff_id, &layer.object))?;
    let index = LayerIndex::build(&source, &Silent, cancel)?;
    let mut object = objects.begin()?;
    index.write(&mut object)?;
    Ok(object)
}

/// Predicts the size of bundles from indexes. To be asked on a thread that may block, of the runtime that it was made on.
pub struct IndexEstimator {
    store: Arc<dyn Store>,
    objects: Objects,
    runtime: Handle,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    indexes: BTreeMap<DiffId, Arc<LayerIndex>>,
    bytes: u64,
    targets: Vec<(ImageId, Arc<Target>)>,
    answers: BTreeMap<(ImageId, Vec<ImageId>), u64>,
}

impl std::fmt::Debug for IndexEstimator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexEstimator").finish_non_exhaustive()
    }
}

impl IndexEstimator {
    /// Over what the server keeps.
    pub fn new(store: Arc<dyn Store>, objects: Objects, runtime: Handle) -> Self {
        Self { store, objects, runtime, memory: Mutex::default() }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The indexes of an image's layers; `None` while one is missing.
    fn layers(&self, image: &ImageId) -> anyhow::Result<Option<Vec<IndexedLayer>>> {
        let Some(image) = self.runtime.block_on(self.store.image(ImageRef::Id(*image)))? else { return Ok(None) };
        let mut layers = Vec::new();
        for layer in &image.layers {
            let Some(index) = self.index(layer)? else { return Ok(None) };
            layers.push(IndexedLayer { diff_id: layer.diff_id, index });
        }
        Ok(Some(layers))
    }

    fn index(&self, layer: &StoredLayer) -> anyhow::Result<Option<Arc<LayerIndex>>> {
        if let Some(index) = self.memory().indexes.get(&layer.diff_id) {
            return Ok(Some(Arc::clone(index)));
        }
        let Some(object) = self.runtime.block_on(self.store.layer_index(layer.diff_id))? else { return Ok(None) };
        let index = Arc::new(LayerIndex::read(self.objects.open_object(&object)?, limit(layer.size))?);
        let mut memory = self.memory();
        if memory.bytes > MEMORY {
            memory.indexes.clear();
            memory.bytes = 0;
        }
        memory.bytes += index.memory();
        memory.indexes.insert(layer.diff_id, Arc::clone(&index));
        Ok(Some(index))
    }

    fn target(&self, image: &ImageId) -> anyhow::Result<Option<Arc<Target>>> {
        if let Some((_, target)) = self.memory().targets.iter().find(|(id, _)| id == image) {
            return Ok(Some(Arc::clone(target)));
        }
        let Some(layers) = self.layers(image)? else { return Ok(None) };
        let target = Arc::new(Target::new(layers));
        let mut memory = self.memory();
        memory.targets.insert(0, (*image, Arc::clone(&target)));
        memory.targets.truncate(TARGETS);
        Ok(Some(target))
    }

    fn predict(&self, target: &ImageId, bases: &[ImageId]) -> anyhow::Result<Option<u64>> {
        let Some(prepared) = self.target(target)? else { return Ok(None) };
        let mut layers = Vec::new();
        for base in bases {
            let Some(more) = self.layers(base)? else { return Ok(None) };
            layers.extend(more);
        }
        Ok(Some(prepared.estimate(&layers)))
    }
}

impl Estimator for IndexEstimator {
    fn estimate(&self, target: &ImageId, bases: &[ImageId]) -> Option<u64> {
        let asked = (*target, bases.to_vec());
        if let Some(bytes) = self.memory().answers.get(&asked) {
            return Some(*bytes);
        }
        let bytes = match self.predict(target, bases) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(%target, error = format!("{error:#}"), "the indexes of an image cannot be read");
                return None;
            }
        };
        let mut memory = self.memory();
        if memory.answers.len() >= ANSWERS {
            memory.answers.clear();
        }
        memory.answers.insert(asked, bytes);
        Some(bytes)
    }
}
