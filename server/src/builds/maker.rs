//! Makes bundles from the layers that the server keeps, and proves them with the code that agents apply them with.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skerry_bundle::VerifiedToc;
use skerry_bundle::make::{Base, Layer, MakeError as BundleError, MakeOptions, Target, make_spilling};
use skerry_delta::Silent;
use skerry_delta::source::{LayerSource, Sources};
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, reconstruct};
use skerry_trust::KeyRing;
use skerry_wire::{DiffId, Digest, ImageId};

use super::{MakeError, MakeOrder, Maker, StoredSources};
use crate::config::Builds;
use crate::director::Director;
use crate::objects::{NewObject, Objects};
use crate::store::StoredImage;

/// Makes bundles from the layers that the server keeps.
#[derive(Debug)]
pub struct BundleMaker {
    objects: Objects,
    director: Arc<Director>,
    options: MakeOptions,
}

impl BundleMaker {
    /// For workers that share the memory for making.
    pub fn new(objects: Objects, director: Arc<Director>, builds: &Builds) -> Self {
        let options = MakeOptions { memory: builds.memory_of_each(), ..MakeOptions::default() };
        Self { objects, director, options }
    }
}

impl Maker for BundleMaker {
    fn make(&self, order: &MakeOrder, cancel: &AtomicBool) -> Result<NewObject, MakeError> {
        match self.attempt(order, order.indexes.clone(), cancel) {
            // The proof tells a wrong bundle; that its index is wrong is one reason.
            Err(error) if !order.indexes.is_empty() && !matches!(error, MakeError::Cancelled) => {
                tracing::warn!(target_image = %order.target.summary.image_id, %error, "a bundle is made again without indexes");
                self.attempt(order, BTreeMap::new(), cancel)
            }
            other => other,
        }
    }
}

impl BundleMaker {
    /// Makes the bundle, where it believes these indexes, and proves it with the layers alone.
    fn attempt(&self, order: &MakeOrder, indexes: BTreeMap<DiffId, Digest>, cancel: &AtomicBool) -> Result<NewObject, MakeError> {
        let mut object = self.objects.begin().map_err(|e| failed("beginning the bundle", &e))?;
        {
            let sources = StoredSources::new(&self.objects, order.bases.iter().chain([&order.target])).believe(indexes);
            let layers = open_layers(&sources, order)?;
            let target = Target { config: &order.target.config, layers: pick(&layers, &order.target) };
            let bases: Vec<_> = order
                .bases
                .iter()
                .map(|base| Base { image_id: base.summary.image_id, config: &base.config, layers: pick(&layers, base) })
                .collect();
            make_spilling(&target, &bases, &self.options, sources.scratch(), &Silent, cancel, self.director.key(), &mut object).map_err(
                |error| match error {
                    BundleError::Cancelled => MakeError::Cancelled,
                    BundleError::Io(_) => MakeError::Failed(error.to_string()),
                    BundleError::TooMany { .. } | BundleError::NoLayers => MakeError::Impossible(error.to_string()),
                },
            )?;
        }
        let file = object.reopen().map_err(|e| failed("reading the bundle back", &e))?;
        // Only the bases, as on a node.
        let bases = StoredSources::new(&self.objects, &order.bases);
        prove(BufReader::new(file), &order.target.summary.image_id, &bases, &self.director.key().public().into(), cancel)?;
        Ok(object)
    }
}

fn failed(what: &str, error: &io::Error) -> MakeError {
    MakeError::Failed(format!("{what}: {error}"))
}

/// Every layer once: those of the bases, and those of the target that no base has.
fn open_layers<'a>(sources: &'a StoredSources, order: &MakeOrder) -> Result<BTreeMap<DiffId, Box<dyn LayerSource + 'a>>, MakeError> {
    let mut layers = BTreeMap::new();
    for layer in order.bases.iter().chain([&order.target]).flat_map(|image| &image.layers) {
        if let Entry::Vacant(place) = layers.entry(layer.diff_id) {
            place.insert(sources.layer(&layer.diff_id).map_err(|e| failed(&format!("layer {}", layer.diff_id), &e))?);
        }
    }
    Ok(layers)
}

fn pick<'a>(layers: &'a BTreeMap<DiffId, Box<dyn LayerSource + '_>>, image: &StoredImage) -> Vec<Layer<'a>> {
    let opened = image.layers.iter().filter_map(|l| layers.get(&l.diff_id).map(|source| (l.diff_id, source)));
    opened.map(|(diff_id, source)| Layer { diff_id, source: source.as_ref() }).collect()
}

/// Checks signature and chunks, and makes the image from the bases: digests are compared on the way.
fn prove(mut bundle: BufReader<File>, target: &ImageId, bases: &dyn Sources, keys: &KeyRing, cancel: &AtomicBool) -> Result<(), MakeError> {
    let wrong = |e: String| MakeError::Impossible(format!("the finished bundle does not stand the proof: {e}"));
    let toc = VerifiedToc::read(&mut bundle, keys).map_err(|e| wrong(e.to_string()))?;
    if toc.toc().target != *target {
        return Err(wrong(format!("it makes {}", toc.toc().target)));
    }
    let read_back = |e: &io::Error| failed("reading the bundle back", e);
    let mut chunk = Vec::new();
    bundle.seek(SeekFrom::Start(toc.payload_start())).map_err(|e| read_back(&e))?;
    for index in 0..toc.chunk_count() {
        let range = toc.chunk_range(index);
        chunk.clear();
        Read::by_ref(&mut bundle).take(range.end - range.start).read_to_end(&mut chunk).map_err(|e| read_back(&e))?;
        toc.verify_chunk(index, &chunk).map_err(|e| wrong(e.to_string()))?;
    }
    let mut sink = Proof { cancel };
    match reconstruct(&mut bundle, &toc, bases, &mut sink, &Limits::default()) {
        Ok(_) => Ok(()),
        Err(_) if cancel.load(Ordering::Relaxed) => Err(MakeError::Cancelled),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Throws the image away: its digests were compared on the way.
struct Proof<'a> {
    cancel: &'a AtomicBool,
}

impl ImageSink for Proof<'_> {
    fn config(&mut self, _: &ImageId, _: &[u8], _: &[LayerInfo]) -> io::Result<()> {
        Ok(())
    }

    fn layer_start(&mut self, _: usize, _: &DiffId, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn layer_bytes(&mut self, _: &[u8]) -> io::Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(io::Error::other("the server is stopping")) } else { Ok(()) }
    }

    fn layer_end(&mut self) -> io::Result<()> {
        Ok(())
    }
}
