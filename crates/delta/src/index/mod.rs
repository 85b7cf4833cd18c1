//! The index of a layer: what is in it, small enough to keep beside it for ever and to rank bases by without reading any layer again.
//!
//! In: a [`LayerSource`], read once from start to end. Out: a [`LayerIndex`], with a form of its own for storage
//! (`docs/formats/index.md`), and from the indexes of a target and of bases a prediction of the bytes of their patch ([`estimate`]).
//!
//! What it promises: the same layer gives the same index. Foreign bytes that claim to be an index never panic, and cost at most the
//! limit that the reader gives. A prediction decides which bundle is built, never what an image is: it may be wrong by some percent.

mod estimate;
mod form;
mod sketch;

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use ring::digest;

pub use estimate::{IndexedLayer, Target, estimate};
pub use form::{MAGIC, limit};

use crate::codec::Kind;
use crate::hashed::cancelled;
use crate::matching::{name, unversioned};
use crate::progress::Progress;
use crate::source::LayerSource;
use crate::tar::{Item, Items};
use sketch::{Sketch, Sketcher};

/// Contents are read in steps of this many bytes, and their cost is tried in pieces of as many.
const STEP: usize = 256 * 1024;

/// What is in a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerIndex {
    /// Bytes of the layer's tar.
    size: u64,
    /// Members without content: folders, links, empty files.
    bare: u64,
    /// Bytes that are not modelled, compressed.
    raw: u64,
    files: Vec<File>,
}

/// A file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    path: Vec<u8>,
    /// Bytes of content.
    size: u64,
    /// The first eight bytes of its SHA-256.
    hash: u64,
    /// Bytes of it when compressed by itself, quickly.
    cost: u64,
    kind: Kind,
    sketch: Sketch,
    keys: Keys,
}

/// What a file is looked up by; follows from the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Keys {
    path: u64,
    unversioned: u64,
    name: u64,
}

impl Keys {
    fn of(path: &[u8]) -> Self {
        Self { path: mix(path), unversioned: mix(&unversioned(path)), name: mix(&unversioned(name(path))) }
    }
}

/// A hash for tables in memory, by FNV-1a over words.
fn mix(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for word in bytes.chunks(8) {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(padded)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash ^ bytes.len() as u64
}

impl LayerIndex {
    /// Reads a layer from start to end.
    pub fn build(layer: &dyn LayerSource, progress: &dyn Progress, cancel: &AtomicBool) -> io::Result<Self> {
        let mut index = Self::default();
        let mut buffer = vec![0; STEP];
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        for item in Items::new(layer.segments()?) {
            if cancel.load(Ordering::Relaxed) {
                return Err(cancelled());
            }
            let (path, file, size) = match item? {
                Item::Raw(bytes) => {
                    index.size += bytes.len() as u64;
                    let body = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
                    index.raw += if body > 0 { compressor.compress(&bytes[..body])?.len() as u64 } else { 0 };
                    continue;
                }
                Item::Bare { file, size } => (Vec::new(), Some(file), size),
                Item::Member { member, file } => {
                    let content = member.content();
                    index.size += member.render().map_or(0, |header| header.len() as u64);
                    index.size += if member.form.padded { crate::tar::padding(content) as u64 } else { 0 };
                    (member.path, file, content)
                }
            };
            let Some(file) = file else {
                index.bare += 1;
                continue;
            };
            index.size += size;
            index.files.push(read(layer, file, path, size, &mut buffer, &mut compressor)?);
            progress.advance(size);
        }
        Ok(index)
    }

    /// Bytes of the layer's tar.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Files with content.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// For each file in the order of the layer the first eight bytes of the SHA-256 of its content, as a big-endian number: what
    /// [`LayerSource::hashes`] gives.
    pub fn hashes(&self) -> Vec<u64> {
        self.files.iter().map(|file| u64::from_be_bytes(file.hash.to_le_bytes())).collect()
    }

    /// Bytes of memory that it needs, about.
    pub fn memory(&self) -> u64 {
        let of = |file: &File| (size_of::<File>() + file.path.len() + file.sketch.len() * 4) as u64;
        self.files.iter().map(of).sum()
    }
}

/// The level that costs are tried at: fast, since only their proportions count.
const LEVEL: i32 = 1;

fn read(
    layer: &dyn LayerSource,
    file: u32,
    path: Vec<u8>,
    size: u64,
    buffer: &mut [u8],
    compressor: &mut zstd::bulk::Compressor<'_>,
) -> io::Result<File> {
    let mut content = layer.open(file)?.take(size);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut sketcher = Sketcher::new(size);
    let (mut left, mut cost, mut kind) = (size, 0, None);
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..len];
        content.read_exact(piece)?;
        context.update(piece);
        sketcher.push(piece);
        kind.get_or_insert_with(|| Kind::of(piece));
        cost += compressor.compress(piece)?.len().min(len) as u64;
        left -= len as u64;
    }
    let hash = context.finish().as_ref()[..8].try_into().map(u64::from_le_bytes).expect("a SHA-256 has 32 bytes");
    let keys = Keys::of(&path);
    Ok(File { path, size, hash, cost, kind: kind.unwrap_or(Kind::Binary), sketch: sketcher.finish(), keys })
}
