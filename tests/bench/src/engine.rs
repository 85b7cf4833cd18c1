//! Skerry's side: making, applying and checking a bundle, and indexing an image, each as a process of its own so that its time and memory
//! are its own.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail, ensure};
use skerry_bundle::VerifiedToc;
use skerry_bundle::make::{Base, Layer, MakeOptions, Target, make as make_bundle};
use skerry_delta::Silent;
use skerry_delta::index::{LayerIndex, limit};
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, reconstruct};
use skerry_trust::{KeyRing, PublicKey, SigningKey};
use skerry_wire::{DiffId, ImageId};

use crate::image::{Image, LayerFile, Old};

/// No base.
pub const NOTHING: &str = "-";

fn open_old(old: &Path) -> Result<Vec<Image>> {
    if old.as_os_str() == NOTHING { Ok(Vec::new()) } else { Ok(vec![Image::open(old)?]) }
}

/// The public key beside a bundle.
fn key_beside(bundle: &Path) -> PathBuf {
    bundle.with_extension("key")
}

/// The index of a layer in a folder of indexes.
fn index_in(folder: &Path, layer: &LayerFile) -> PathBuf {
    folder.join(format!("{}.ski", layer.diff_id.digest().hex()))
}

/// Reads the index of a layer.
pub fn read_index(folder: &Path, layer: &LayerFile) -> Result<LayerIndex> {
    let path = index_in(folder, layer);
    let file = File::open(&path).with_context(|| format!("{}: run `index` first", path.display()))?;
    LayerIndex::read(file, limit(layer.place.size)).with_context(|| path.display().to_string())
}

/// Writes the index of every layer into a folder; those that are there stay.
pub fn index(archive: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for layer in &Image::open(archive)?.layers {
        let path = index_in(folder, layer);
        if path.exists() {
            continue;
        }
        let index = LayerIndex::build(layer, &Silent, &AtomicBool::new(false))?;
        let mut out = tempfile::NamedTempFile::new_in(folder)?;
        index.write(&mut out)?;
        out.persist(&path)?;
    }
    Ok(())
}

/// Makes the bundle from `old` to `new`, with the public key of its signature beside it.
pub fn make(old: &Path, new: &Path, bundle: &Path, indexes: Option<&Path>) -> Result<()> {
    let key = SigningKey::from_pkcs8(&SigningKey::generate(&ring::rand::SystemRandom::new())?)?;
    let mut bases = open_old(old)?;
    if let Some(folder) = indexes {
        for layer in bases.iter_mut().flat_map(|base| &mut base.layers) {
            let index = read_index(folder, layer)?;
            layer.with_index(&index);
        }
    }
    let target = Image::open(new)?;
    let bases: Vec<_> = bases.iter().map(|base| Base { image_id: base.id, config: &base.config, layers: list(base) }).collect();
    let mut out = BufWriter::new(File::create(bundle)?);
    let target = Target { config: &target.config, layers: list(&target) };
    make_bundle(&target, &bases, &MakeOptions::default(), &Silent, &AtomicBool::new(false), &key, &mut out)?;
    out.flush()?;
    fs::write(key_beside(bundle), key.public().to_string())?;
    Ok(())
}

fn list(image: &Image) -> Vec<Layer<'_>> {
    image.layers.iter().map(|layer| Layer { diff_id: layer.diff_id, source: layer }).collect()
}

/// Applies the bundle; with a target every byte that comes out is compared with it, without one the digests alone are.
pub fn apply(old: &Path, bundle: &Path, target: Option<&Path>) -> Result<()> {
    let key: PublicKey = fs::read_to_string(key_beside(bundle))?.parse()?;
    let bases = open_old(old)?;
    let target = target.map(Image::open).transpose()?;
    let mut bundle = BufReader::new(File::open(bundle)?);
    let toc = VerifiedToc::read(&mut bundle, &KeyRing::from(key))?;
    let mut sink = Compare { target: target.as_ref(), now: None, layers: 0 };
    let done = reconstruct(&mut bundle, &toc, &Old(&bases), &mut sink, &Limits::default())?;
    ensure!(sink.layers == done.new_layers, "{} of {} layers came out", sink.layers, done.new_layers);
    if let Some(target) = &target {
        let there = |layer: &&LayerFile| bases.iter().flat_map(|base| &base.layers).any(|old| old.diff_id == layer.diff_id);
        let known = target.layers.iter().filter(there).count();
        ensure!(target.layers.len() == known + done.new_layers, "{} layers are missing", target.layers.len() - known - done.new_layers);
    }
    Ok(())
}

/// Compares what comes out with the target, if there is one.
struct Compare<'a> {
    target: Option<&'a Image>,
    now: Option<Box<dyn Read + 'a>>,
    layers: usize,
}

fn differs(what: &str) -> io::Error {
    io::Error::other(format!("the result differs from the target: {what}"))
}

impl ImageSink for Compare<'_> {
    fn config(&mut self, id: &ImageId, config: &[u8], _: &[LayerInfo]) -> io::Result<()> {
        match self.target {
            Some(target) if target.id != *id || target.config != config => Err(differs("its configuration")),
            _ => Ok(()),
        }
    }

    fn layer_start(&mut self, index: usize, diff_id: &DiffId, size: u64) -> io::Result<()> {
        self.now = None;
        if let Some(target) = self.target {
            let wanted = target.layers.get(index).filter(|layer| layer.diff_id == *diff_id && layer.place.size == size);
            self.now = Some(Box::new(wanted.ok_or_else(|| differs("its layers"))?.place.open()?));
        }
        Ok(())
    }

    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(reader) = &mut self.now {
            let mut wanted = vec![0; bytes.len()];
            reader.read_exact(&mut wanted)?;
            if wanted != bytes {
                return Err(differs(&format!("the bytes of layer {}", self.layers)));
            }
        }
        Ok(())
    }

    fn layer_end(&mut self) -> io::Result<()> {
        self.layers += 1;
        Ok(())
    }
}

/// Fails unless two files have the same bytes.
pub fn same(a: &mut impl Read, b: &mut impl Read) -> Result<()> {
    let (mut left, mut right) = (vec![0; 1 << 20], Vec::with_capacity(1 << 20));
    let mut at = 0;
    loop {
        let read = a.read(&mut left)?;
        right.clear();
        b.by_ref().take(if read == 0 { 1 } else { read as u64 }).read_to_end(&mut right)?;
        if left[..read] != right[..] {
            bail!("the result differs from the target after byte {at}");
        }
        if read == 0 {
            return Ok(());
        }
        at += read as u64;
    }
}
