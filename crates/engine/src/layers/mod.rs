//! Layers in place: the engine's own folders as old bytes for patches.
//!
//! An engine with a graph driver keeps, per layer, the files (`<driver>/<cache-id>/diff`) and a record of everything in the layer's tar
//! that is not file content (`image/<driver>/layerdb/sha256/<chain>/tar-split.json.gz`). Together they are the tar, bit for bit, so no
//! archive of an old image need be kept.
//!
//! The record is streamed, never held; per file only its path is kept, front-coded, and only once a file is opened. Files come from
//! images, so they are opened strictly beneath their layer's folder, never through a link.

mod beneath;
mod paths;
mod spool;
mod tarsplit;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use skerry_delta::source::{LayerSource, ReadSeek, Segment, Sources};
use skerry_image::sha256;
use skerry_wire::{DiffId, ImageId, limits};

use crate::EngineError;
use beneath::Beneath;
use paths::Paths;
pub use spool::{SpooledImages, spool};
use tarsplit::{Entry, TarSplit};

/// The drivers that keep a layer's own files in a folder of their own.
const DRIVERS: [&str; 2] = ["overlay2", "fuse-overlayfs"];
/// The longest of the engine's small files (digest, cache id).
const SMALL: u64 = 256;

/// All layers of an engine, and the configurations of its images, read in place. Needs the rights to read the engine's data root.
#[derive(Debug)]
pub struct EngineLayers {
    layerdb: PathBuf,
    configs: PathBuf,
    driver: PathBuf,
    /// Folder of a layer in `layerdb`, by diff_id. Any chain that ends in a layer has the same bytes.
    known: Mutex<BTreeMap<DiffId, PathBuf>>,
}

impl EngineLayers {
    /// The layers under an engine's data root.
    pub fn open(data_root: &Path, storage_driver: &str) -> Result<Self, EngineError> {
        if !DRIVERS.contains(&storage_driver) {
            return Err(EngineError::NotInPlace { driver: storage_driver.into() });
        }
        let store = data_root.join("image").join(storage_driver);
        let (layerdb, configs) = (store.join("layerdb/sha256"), store.join("imagedb/content/sha256"));
        let driver = data_root.join(storage_driver);
        fs::read_dir(&driver).map_err(|source| EngineError::Io { path: driver.clone(), source })?;
        let layers = Self { layerdb, configs, driver, known: Mutex::new(BTreeMap::new()) };
        layers.scan().map_err(|source| EngineError::Io { path: layers.layerdb.clone(), source })?;
        Ok(layers)
    }

    /// The diff_ids of all layers that are there now, sorted.
    pub fn diff_ids(&self) -> io::Result<Vec<DiffId>> {
        self.scan()?;
        Ok(self.known().keys().copied().collect())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<DiffId, PathBuf>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Looks at every layer's diff_id.
    fn scan(&self) -> io::Result<()> {
        let mut found = BTreeMap::new();
        let chains = match fs::read_dir(&self.layerdb) {
            Ok(chains) => chains,
            // An engine that never had an image.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.known().clear();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for chain in chains {
            let chain = chain?.path();
            // Half-made and half-removed layers have no readable diff_id.
            let Ok(text) = small(&chain.join("diff")) else { continue };
            if let Ok(diff_id) = text.parse() {
                found.insert(diff_id, chain);
            }
        }
        *self.known() = found;
        Ok(())
    }

    fn find(&self, diff_id: &DiffId) -> io::Result<EngineLayer> {
        let chain = self.known().get(diff_id).cloned().ok_or(io::ErrorKind::NotFound)?;
        let cache_id = small(&chain.join("cache-id"))?;
        if cache_id.is_empty() || !cache_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let path = chain.join("cache-id");
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} does not hold the name of a folder", path.display())));
        }
        let record = chain.join("tar-split.json.gz");
        let folder = Beneath::open(&self.driver.join(cache_id).join("diff"))?;
        File::open(&record)?;
        Ok(EngineLayer { record, folder, paths: Mutex::new(None) })
    }
}

/// A small file of the engine, without the space around it.
fn small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SMALL).read_to_string(&mut text)?;
    Ok(text.trim().to_string())
}

impl Sources for EngineLayers {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        let path = self.configs.join(image.digest().hex());
        let at = |kind, what: String| io::Error::new(kind, format!("configuration of image {image} in {}: {what}", path.display()));
        let file = File::open(&path).map_err(|error| at(error.kind(), error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(limits::IMAGE_CONFIG as u64 + 1).read_to_end(&mut bytes).map_err(|error| at(error.kind(), error.to_string()))?;
        if sha256(&bytes) != *image.digest() {
            return Err(at(io::ErrorKind::InvalidData, "its SHA-256 is not the image id: the engine's files are damaged".into()));
        }
        Ok(bytes)
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let found = match self.find(diff_id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.scan()?;
                self.find(diff_id)
            }
            found => found,
        };
        match found {
            Ok(layer) => Ok(Box::new(layer)),
            Err(error) => Err(io::Error::new(error.kind(), format!("layer {diff_id} under {}: {error}", self.layerdb.display()))),
        }
    }
}

/// One layer of the engine.
#[derive(Debug)]
struct EngineLayer {
    record: PathBuf,
    folder: Beneath,
    /// Paths of the files, in their order; made when the first file is opened.
    paths: Mutex<Option<Paths>>,
}

impl EngineLayer {
    fn split(&self) -> io::Result<TarSplit<File>> {
        Ok(TarSplit::new(File::open(&self.record)?))
    }

    fn at(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.record.display()))
    }

    fn path(&self, file: u32) -> io::Result<Vec<u8>> {
        let mut paths = self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if paths.is_none() {
            let mut made = Paths::default();
            for entry in self.split()? {
                if let Entry::File { name, .. } = entry.map_err(|e| self.at(&e))? {
                    made.push(&name)?;
                }
            }
            *paths = Some(made);
        }
        let known = paths.as_ref().and_then(|paths| paths.get(file));
        known.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no file {file}", self.record.display())))
    }
}

impl LayerSource for EngineLayer {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        let split = self.split()?;
        Ok(Box::new(split.map(|entry| match entry {
            Ok(Entry::Raw(bytes)) => Ok(Segment::Raw(bytes)),
            Ok(Entry::File { size, .. }) => Ok(Segment::File { size }),
            Err(error) => Err(self.at(&error)),
        })))
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        Ok(Box::new(self.folder.file(&self.path(file)?)?))
    }
}
