//! The layers that the server keeps, as sources of the delta engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use skerry_delta::TarLayer;
use skerry_delta::archive::Scratch;
use skerry_delta::source::{LayerSource, Sources};
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
}

impl StoredSources {
    /// Those of these images.
    pub fn new<'a>(objects: &Objects, images: impl IntoIterator<Item = &'a StoredImage>) -> Self {
        let (mut configs, mut layers) = (BTreeMap::new(), BTreeMap::new());
        for image in images {
            configs.insert(image.summary.image_id, image.config.clone());
            layers.extend(image.layers.iter().map(|l| (l.diff_id, l.object)));
        }
        Self { objects: objects.clone(), configs, layers }
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
        Ok(Box::new(TarLayer::new(open)?))
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&self.objects)
    }
}

/// A layer's object, to be read from the middle.
pub(crate) fn open_frames(objects: &Objects, diff_id: &DiffId, object: &Digest) -> io::Result<FrameReader<File>> {
    let file = objects.open_object(object)?;
    FrameReader::open(file).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("layer {diff_id}: {e}")))
}
