//! The images of a node, in memory.

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use skerry_delta::TarLayer;
use skerry_delta::source::{LayerSource, Sources};
use skerry_reconstruct::{ImageSink, LayerInfo};
use skerry_wire::{DiffId, ImageId};

/// An image that comes in.
#[derive(Default)]
pub struct Loaded {
    config: Vec<u8>,
    layers: BTreeMap<DiffId, Vec<u8>>,
    now: Option<DiffId>,
}

impl ImageSink for Loaded {
    fn config(&mut self, _: &ImageId, bytes: &[u8], _: &[LayerInfo]) -> io::Result<()> {
        self.config = bytes.to_vec();
        Ok(())
    }

    fn layer_start(&mut self, _: usize, diff_id: &DiffId, _: u64) -> io::Result<()> {
        self.layers.insert(*diff_id, Vec::new());
        self.now = Some(*diff_id);
        Ok(())
    }

    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.layers.get_mut(&self.now.unwrap()).unwrap().extend(bytes);
        Ok(())
    }

    fn layer_end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a node holds.
#[derive(Default)]
pub struct Images {
    configs: BTreeMap<ImageId, Vec<u8>>,
    layers: BTreeMap<DiffId, Vec<u8>>,
}

impl Images {
    pub fn add(&mut self, image: ImageId, loaded: Loaded) {
        self.configs.insert(image, loaded.config);
        self.layers.extend(loaded.layers);
    }
}

impl Sources for Images {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        self.configs.get(image).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let bytes = self.layers.get(diff_id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(TarLayer::new(move || Ok(Cursor::new(bytes.as_slice())))?))
    }
}
