//! The layers that the server keeps, as sources of the delta engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use skerry_delta::TarLayer;
use skerry_delta::archive::Scratch;
use skerry_delta::index::{LayerIndex, limit};
use skerry_delta::source::{LayerSource, ReadSeek, Segment, Sources};
use skerry_image::frames::FrameReader;
use skerry_wire::{DiffId, Digest, ImageId};

use crate::objects::Objects;
use crate::store::StoredImage;

/// The layers and configurations of some images, read from the object folder.
#[derive(Debug)]
pub struct StoredSources {
    objects: Objects,
    configs: BTreeMap<ImageId, Vec<u8>>,
    layers: BTreeMap<DiffId, Digest>,
    /// Objects of the layers' indexes, of those that are to be believed.
    indexes: BTreeMap<DiffId, Digest>,
}

impl StoredSources {
    /// Those of these images.
    pub fn new<'a>(objects: &Objects, images: impl IntoIterator<Item = &'a StoredImage>) -> Self {
        let (mut configs, mut layers) = (BTreeMap::new(), BTreeMap::new());
        for image in images {
            configs.insert(image.summary.image_id, image.config.clone());
            layers.extend(image.layers.iter().map(|l| (l.diff_id, l.object)));
        }
        Self { objects: objects.clone(), configs, layers, indexes: BTreeMap::new() }
    }

    /// Believes these indexes: contents of their layers are not read to learn their hashes. What is made then has to be proven.
    pub fn believe(self, indexes: BTreeMap<DiffId, Digest>) -> Self {
        Self { indexes, ..self }
    }

    /// The hashes that a layer's index has, if there is one that can be read and may be that of a layer of `size` bytes.
    fn hashes(&self, diff_id: &DiffId, size: u64) -> Option<Vec<u64>> {
        let object = self.indexes.get(diff_id)?;
        let read = || LayerIndex::read(self.objects.open_object(object)?, limit(size));
        match read() {
            Ok(index) if index.size() == size => Some(index.hashes()),
            Ok(index) => {
                tracing::warn!(%diff_id, size, of = index.size(), "the index of a layer is that of another one: it is not used");
                None
            }
            Err(error) => {
                tracing::warn!(%diff_id, %error, "the index of a layer cannot be read: it is not used");
                None
            }
        }
    }
}

impl Sources for StoredSources {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        self.configs
            .get(image)
            .cloned()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no configuration of image {image}")))
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no layer {diff_id}"));
        let object = *self.layers.get(diff_id).ok_or_else(missing)?;
        let diff_id = *diff_id;
        let open = move || open_frames(&self.objects, &diff_id, &object);
        let layer = TarLayer::new(open)?;
        Ok(match self.hashes(&diff_id, layer.size()) {
            Some(hashes) => Box::new(Indexed { layer, hashes }),
            None => Box::new(layer),
        })
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&self.objects)
    }
}

/// A layer, with the hashes that its index has.
struct Indexed<L> {
    layer: L,
    hashes: Vec<u64>,
}

impl<L: LayerSource> LayerSource for Indexed<L> {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        self.layer.segments()
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        self.layer.open(file)
    }

    fn hashes(&self) -> Option<Vec<u64>> {
        Some(self.hashes.clone())
    }
}

/// A layer's object, to be read from the middle.
pub(crate) fn open_frames(objects: &Objects, diff_id: &DiffId, object: &Digest) -> io::Result<FrameReader<File>> {
    let file = objects.open_object(object)?;
    FrameReader::open(file).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("layer {diff_id}: {e}")))
}
