//! An image in a `docker save` archive as a source of the delta engine.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use skerry_delta::TarLayer;
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::index::LayerIndex;
use skerry_delta::source::{LayerSource, ReadSeek, Segment, Sources};
use skerry_image::archive::Archive;
use skerry_image::part::{Part, PartReader};
use skerry_wire::{DiffId, ImageId};

/// An image.
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its layers, lowest first.
    pub layers: Vec<LayerFile>,
}

/// A layer, uncompressed in the archive.
pub struct LayerFile {
    /// Its digest.
    pub diff_id: DiffId,
    /// Where its tar is.
    pub place: Part,
    source: TarLayer<Box<dyn Fn() -> io::Result<PartReader> + Send + Sync>, PartReader>,
    /// What its index says, when it is at hand.
    hashes: Option<Vec<u64>>,
}

impl Image {
    /// Opens the only image of an archive.
    pub fn open(path: &Path) -> Result<Self> {
        let mut archive = Archive::open(path).with_context(|| path.display().to_string())?;
        let image = archive.choose(None)?.clone();
        let mut layers = Vec::new();
        for layer in &image.layers {
            let plain = archive.plain(layer)?.with_context(|| format!("layer {} of {} is compressed", layer.diff_id, path.display()))?;
            let place = Part { path: plain.file.unwrap_or_else(|| path.to_owned()), start: plain.offset, size: plain.size };
            let part = place.clone();
            let open: Box<dyn Fn() -> io::Result<PartReader> + Send + Sync> = Box::new(move || part.open());
            layers.push(LayerFile { diff_id: layer.diff_id, place, source: TarLayer::new(open)?, hashes: None });
        }
        Ok(Self { id: image.image_id, config: image.config_bytes, layers })
    }

    /// Bytes of its layers.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.place.size).sum()
    }
}

impl LayerFile {
    /// Takes the hashes of the contents from the layer's index.
    pub fn with_index(&mut self, index: &LayerIndex) {
        self.hashes = Some(index.hashes());
    }
}

impl LayerSource for LayerFile {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        self.source.segments()
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        self.source.open(file)
    }

    fn hashes(&self) -> Option<Vec<u64>> {
        self.hashes.clone()
    }
}

/// The old image, as applying reads it.
#[derive(Debug)]
pub struct Old<'a>(pub &'a [Image]);

impl Sources for Old<'_> {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        self.0.iter().find(|i| i.id == *image).map(|i| i.config.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let mut layers = self.0.iter().flat_map(|image| &image.layers);
        let layer = layers.find(|layer| layer.diff_id == *diff_id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Borrowed(layer)))
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&Temporary)
    }
}

struct Borrowed<'a>(&'a LayerFile);

impl LayerSource for Borrowed<'_> {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        self.0.segments()
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        self.0.open(file)
    }
}

/// Scratch files without a name in the folder for temporary files.
struct Temporary;

impl Scratch for Temporary {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(tempfile::tempfile()?))
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("id", &self.id).field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LayerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerFile").field("diff_id", &self.diff_id).field("place", &self.place).finish_non_exhaustive()
    }
}
