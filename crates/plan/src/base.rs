//! From which bases a node's missing image is patched, and what that costs.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::{DiffId, ImageId};

use crate::model::{Image, Node};

/// Bases that one bundle may start from. Each further one costs the builder time and makes a bundle fit fewer nodes.
pub const MAX_BASES: usize = 3;

/// Bases that are looked at closely per target; the likeliest by layers, name and size come first.
const CANDIDATES: usize = 64;

/// Predicts the bytes of a bundle from indexes.
pub trait Estimator {
    /// Bytes of a bundle that makes `target` from `bases` (none: a full bundle); `None` when it cannot tell.
    fn estimate(&self, target: &ImageId, bases: &[ImageId]) -> Option<u64>;
}

/// Knows no indexes: every choice goes by layers, names and sizes.
#[derive(Debug, Clone, Copy)]
pub struct NoEstimate;

impl Estimator for NoEstimate {
    fn estimate(&self, _: &ImageId, _: &[ImageId]) -> Option<u64> {
        None
    }
}

/// A bundle that is ready, or on its way through the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its bases, sorted.
    pub bases: Vec<ImageId>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// The bundle that a node is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its bases, sorted; empty for a full bundle.
    pub bases: Vec<ImageId>,
    /// Bytes: exact when `built`, else predicted.
    pub bytes: u64,
    /// Is the file there already?
    pub built: bool,
    /// Most bytes it takes on the node's disk while it is reconstructed, the bundle included.
    pub disk_peak: u64,
}

/// Chooses the bases for a target out of a node's inventory.
///
/// A bundle that is there already is taken when it costs at most a tenth more than the best one predicted: one bundle then serves many
/// nodes.
pub fn choose(target: &ImageId, node: &Node, images: &BTreeMap<ImageId, Image>, built: &[Built], estimator: &dyn Estimator) -> Choice {
    let Some(wanted) = images.get(target) else {
        return Choice { bases: Vec::new(), bytes: 0, built: false, disk_peak: 0 };
    };
    let predict = |bases: &[ImageId]| estimator.estimate(target, bases).unwrap_or_else(|| by_layers(wanted, bases, images));
    let (bases, bytes) = best_set(&candidates(target, wanted, node, images), predict);
    let usable = built.iter().filter(|b| b.bases.iter().all(|base| node.inventory.contains(base)));
    let cheapest = usable.min_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.bases.cmp(&b.bases)));
    let (bases, bytes, built) = match cheapest {
        Some(b) if b.bases == bases || b.bytes <= bytes.saturating_add(bytes / 10) => (b.bases.clone(), b.bytes, true),
        _ => (bases, bytes, false),
    };
    Choice { disk_peak: disk_peak(wanted, node, images, bytes), bases, bytes, built }
}

/// The images of the node that may serve, the likeliest first: shared bytes of layers, then same name, then size like the target's.
fn candidates(target: &ImageId, wanted: &Image, node: &Node, images: &BTreeMap<ImageId, Image>) -> Vec<ImageId> {
    let layers: BTreeMap<DiffId, u64> = wanted.layers.iter().copied().collect();
    let known = node.inventory.iter().filter(|id| *id != target).filter_map(|id| images.get(id).map(|image| (*id, image)));
    let mut ranked: Vec<_> = known
        .map(|(id, image)| {
            let shared: u64 = image.layers.iter().filter_map(|(layer, _)| layers.get(layer)).sum();
            let same_name = image.name() == wanted.name();
            (std::cmp::Reverse(shared), std::cmp::Reverse(same_name), image.size().abs_diff(wanted.size()), id)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().take(CANDIDATES).map(|(.., id)| id).collect()
}

/// Adds base after base while each saves at least a twentieth and 4 KiB of the bytes.
fn best_set(candidates: &[ImageId], predict: impl Fn(&[ImageId]) -> u64) -> (Vec<ImageId>, u64) {
    let (mut bases, mut bytes) = (Vec::new(), predict(&[]));
    while bases.len() < MAX_BASES {
        let with = |id: &ImageId| {
            let mut set: Vec<_> = bases.iter().copied().chain([*id]).collect();
            set.sort();
            (predict(&set), set)
        };
        // Of equal ones the first, which is the likeliest.
        let best = candidates.iter().filter(|c| !bases.contains(c)).map(with).min_by_key(|(bytes, _)| *bytes);
        match best {
            Some((fewer, set)) if fewer.saturating_add(4096).saturating_add(bytes / 20) <= bytes || (bases.is_empty() && fewer < bytes) => {
                (bases, bytes) = (set, fewer);
            }
            _ => break,
        }
    }
    (bases, bytes)
}

/// A guess without indexes: layers that are there cost nothing; the others half of their bytes, or an eighth where a base has the
/// target's name, a quarter where it has not.
fn by_layers(wanted: &Image, bases: &[ImageId], images: &BTreeMap<ImageId, Image>) -> u64 {
    let bases: Vec<_> = bases.iter().filter_map(|id| images.get(id)).collect();
    let there: BTreeSet<_> = bases.iter().flat_map(|b| b.layers.iter().map(|(id, _)| *id)).collect();
    let rest: u64 = wanted.layers.iter().filter(|(id, _)| !there.contains(id)).map(|(_, size)| *size).sum();
    let share = match () {
        () if bases.is_empty() => 2,
        () if bases.iter().any(|b| b.name() == wanted.name()) => 8,
        () => 4,
    };
    rest / share
}

/// The bundle, and the layers that the engine lacks: staged once by the engine and unpacked once. An engine that does not take a part
/// of an image stages all layers.
fn disk_peak(wanted: &Image, node: &Node, images: &BTreeMap<ImageId, Image>, bundle: u64) -> u64 {
    let there: BTreeSet<_> =
        node.inventory.iter().filter_map(|id| images.get(id)).flat_map(|i| i.layers.iter().map(|(id, _)| *id)).collect();
    let new: u64 = wanted.layers.iter().filter(|(id, _)| !there.contains(id)).map(|(_, size)| *size).sum();
    let partial = node.fingerprint.engine.as_ref().is_some_and(|e| e.accepts_partial_load);
    let staged = if partial { new } else { wanted.size() };
    bundle.saturating_add(staged).saturating_add(new)
}
