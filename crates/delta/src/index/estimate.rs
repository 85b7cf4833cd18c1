//! How many bytes a patch will have, from indexes alone.
//!
//! Each new file is looked up as a patch does it: by content, by path, by path without versions, by name. What it costs follows from its
//! compressed size and from the part of its sketch that the old file has not. The factors are measured, see `docs/bench`.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use skerry_wire::DiffId;

use super::{File, LayerIndex};
use crate::archive::make::is_named;
use crate::codec::Kind;

/// A layer's index and whose it is.
#[derive(Debug, Clone)]
pub struct IndexedLayer {
    /// The layer.
    pub diff_id: DiffId,
    /// Its index.
    pub index: Arc<LayerIndex>,
}

/// The bytes of a bundle that makes an image of layers `target` where the layers `base` are; no base: a full bundle.
pub fn estimate(target: &[IndexedLayer], base: &[IndexedLayer]) -> u64 {
    Target::new(target.to_vec()).estimate(base)
}

/// A target that is compared with many bases.
#[derive(Debug)]
pub struct Target {
    layers: Vec<IndexedLayer>,
    /// Layer and place of every file.
    files: Vec<(usize, usize)>,
    by_hash: HashMap<u64, Vec<u32>>,
    by_path: HashMap<u64, Vec<u32>>,
    by_unversioned: HashMap<u64, Vec<u32>>,
    by_name: HashMap<u64, Vec<u32>>,
}

/// How an old file was found for a new one, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Nothing,
    Name,
    Unversioned,
    Path,
    Content,
    ContentAndPath,
}

/// The best old file known for a new one.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    by: By,
    old: Option<&'a File>,
}

impl<'a> Found<'a> {
    /// The better of the two for `wanted`. Equally found: of names the one with most of the path in common, then the nearest in size; else
    /// the later one, whose layer is higher.
    fn or(self, other: Self, wanted: &File) -> Self {
        let near = |found: &Self| found.old.map(|old| (in_common(&old.path, &wanted.path), Reverse(old.size.abs_diff(wanted.size))));
        let later = match other.by.cmp(&self.by) {
            Ordering::Equal if matches!(self.by, By::Name | By::Unversioned) => near(&other) >= near(&self),
            order => order.is_ge(),
        };
        if later { other } else { self }
    }

    /// Bytes that the patch has for `new`; `again` when the same content is carried already.
    fn cost(&self, new: &File, again: bool) -> f64 {
        let header = match self.by {
            By::Path | By::ContentAndPath => KNOWN_HEADER,
            By::Nothing => NEW_HEADER,
            _ => MOVED_HEADER,
        };
        if self.by >= By::Content {
            return header;
        }
        // A window reaches some of what was there before.
        let whole = float(new.cost) * together(new) * if again { 0.5 } else { 1.0 };
        let Some(old) = self.old else { return header + whole };
        let (missing, judged) = new.sketch.missing(&old.sketch);
        if judged == 0 {
            return header + whole;
        }
        // Of pieces that are not in the sketch some are new too.
        let unseen = if new.sketch.whole && old.sketch.whole { 0.0 } else { 0.3 };
        let share = ((float(missing as u64) + unseen) / float(judged as u64)).min(1.0);
        header + (CHANGE + whole * share * changed(new)).min(whole)
    }
}

/// Head, signature, table of contents without its chunks, and the configuration's difference.
const FIXED: f64 = 700.0;
/// A chunk of 64 KiB has a digest of 16 bytes.
const PER_BYTE: f64 = 1.0 + 16.0 / 65536.0;
/// A header like the last one's neighbour, coded.
const KNOWN_HEADER: f64 = 0.35;
/// A header that comes from one elsewhere.
const MOVED_HEADER: f64 = 6.0;
/// A header of its own.
const NEW_HEADER: f64 = 14.0;
/// A name that more files have says nothing.
const COMMON: usize = 64;
/// What a changed content costs at least: codec, runs, and a place in the streams.
const CHANGE: f64 = 5.0;

/// Bytes that two paths share at their start and at their end.
fn in_common(a: &[u8], b: &[u8]) -> usize {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    start + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Does it not compress, whatever its name says?
fn is_dense(file: &File) -> bool {
    file.cost >= file.size / 20 * 19
}

/// What a file costs in a stream with others, as part of its own cost.
fn together(file: &File) -> f64 {
    match file.kind {
        // What does not compress alone does not compress beside others.
        _ if is_dense(file) => 1.0,
        Kind::Text => 0.62,
        Kind::Program => 0.60,
        Kind::Binary => 0.62,
        Kind::Dense => 0.99,
    }
}

/// What a changed piece costs as part of what it costs when it is new: programs differ in addresses, most of which are expected.
fn changed(file: &File) -> f64 {
    match file.kind {
        // Entry by entry: most of what is compressed again is the same below.
        _ if is_named(&file.path) => 0.1,
        // What does not compress has no structure that a changed piece could keep.
        _ if is_dense(file) => 1.0,
        Kind::Text => 0.25,
        Kind::Program => 0.06,
        Kind::Binary => 0.12,
        Kind::Dense => 1.0,
    }
}

impl Target {
    /// The layers of the target.
    pub fn new(layers: Vec<IndexedLayer>) -> Self {
        let (mut by_hash, mut by_path) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let (mut by_unversioned, mut by_name) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut files = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            for (place, file) in layer.index.files.iter().enumerate() {
                let index = u32::try_from(files.len()).unwrap_or(u32::MAX);
                by_hash.entry(file.hash).or_default().push(index);
                by_path.entry(file.keys.path).or_default().push(index);
                by_unversioned.entry(file.keys.unversioned).or_default().push(index);
                by_name.entry(file.keys.name).or_default().push(index);
                files.push((number, place));
            }
        }
        Self { layers, files, by_hash, by_path, by_unversioned, by_name }
    }

    fn file(&self, (layer, place): (usize, usize)) -> &File {
        &self.layers[layer].index.files[place]
    }

    /// The bytes of the bundle that makes it where these layers are.
    pub fn estimate(&self, base: &[IndexedLayer]) -> u64 {
        let there: BTreeSet<_> = base.iter().map(|layer| layer.diff_id).collect();
        let mut new = vec![true; self.layers.len()];
        let mut bytes = FIXED;
        for (layer, new) in self.layers.iter().zip(&mut new) {
            *new = !there.contains(&layer.diff_id);
            bytes += if *new { 40.0 + float(layer.index.raw) } else { 3.0 };
        }
        let mut seen = BTreeSet::new();
        for (&at, found) in self.files.iter().zip(self.find(base, &new)) {
            if new[at.0] {
                let file = self.file(at);
                bytes += found.cost(file, !seen.insert(file.hash));
            }
        }
        for (layer, _) in self.layers.iter().zip(&new).filter(|(_, new)| **new) {
            bytes += float(layer.index.bare) * if base.is_empty() { NEW_HEADER / 2.0 } else { KNOWN_HEADER * 2.0 };
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of sizes, never negative")]
        let bytes = (bytes * PER_BYTE) as u64;
        bytes
    }

    /// For each file of a new layer the best old one.
    fn find<'b>(&self, base: &'b [IndexedLayer], new: &[bool]) -> Vec<Found<'b>> {
        let mut found = vec![Found { by: By::Nothing, old: None }; self.files.len()];
        let mut read = BTreeSet::new();
        for old in base.iter().filter(|layer| read.insert(layer.diff_id)).flat_map(|layer| &layer.index.files) {
            let keys = &old.keys;
            let mut offer = |numbers: Option<&Vec<u32>>, by: &dyn Fn(&File) -> By| {
                for &number in numbers.into_iter().flatten() {
                    let at = self.files[number as usize];
                    if new[at.0] {
                        let (wanted, best) = (self.file(at), &mut found[number as usize]);
                        *best = best.or(Found { by: by(wanted), old: Some(old) }, wanted);
                    }
                }
            };
            offer(self.by_hash.get(&old.hash), &|new| match (new.size == old.size, new.keys.path == keys.path) {
                (true, true) => By::ContentAndPath,
                (true, false) => By::Content,
                _ => By::Nothing,
            });
            offer(self.by_path.get(&keys.path), &|_| By::Path);
            offer(self.by_unversioned.get(&keys.unversioned), &|_| By::Unversioned);
            let named = self.by_name.get(&keys.name).filter(|numbers| numbers.len() <= COMMON);
            offer(named, &|new| if old.size / 4 <= new.size && new.size / 4 <= old.size { By::Name } else { By::Nothing });
        }
        found
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files, and a prediction")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
