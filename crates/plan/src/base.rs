//! From which bases a node's missing image is patched, and what that costs.
//!
//! [`choose`] looks at one node; [`share`] at all nodes that lack an image together, and gives few bundles that serve them. Both are pure:
//! what they give follows from what they are given, whatever the order.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::{DiffId, ImageId, NodeId};

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

/// Chooses the bundle for one node: [`share`] of it alone.
pub fn choose(target: &ImageId, node: &Node, images: &BTreeMap<ImageId, Image>, built: &[Built], estimator: &dyn Estimator) -> Choice {
    let nothing = Choice { bases: Vec::new(), bytes: 0, built: false, disk_peak: 0 };
    share(target, &[node], images, built, estimator).remove(&node.id).unwrap_or(nothing)
}

/// What a bundle costs the builder, as bytes over the nodes' links: so many for each build, and one for so many bytes of layers that it
/// has to make. A build of an image of 400 MB is worth it when it saves the nodes 260 KB together.
const BUILD: u64 = 64 << 10;
const BUILD_SHARE: u64 = 2048;

/// Bundles that are looked at for all nodes together; those that save most on the nodes they are best for come first.
const BUNDLES: usize = 48;

/// Chooses bundles for all nodes that lack the target together: few, that cost little to send and to build.
///
/// For each inventory there is a best set of bases. Of these sets, their single bases, what is ready and the full bundle, one after the
/// other is taken that saves most bytes over all nodes that it fits, less what building it costs; at last those that are not missed are
/// given up again. What is ready costs nothing, so a node takes it unless another bundle saves more than its building costs. A node always
/// gets a bundle all of whose bases it holds; nothing is given for a target that is not known.
pub fn share(
    target: &ImageId,
    nodes: &[&Node],
    images: &BTreeMap<ImageId, Image>,
    built: &[Built],
    estimator: &dyn Estimator,
) -> BTreeMap<NodeId, Choice> {
    let Some(wanted) = images.get(target) else { return BTreeMap::new() };
    // Nodes with the same images are one.
    let mut groups: BTreeMap<&BTreeSet<ImageId>, Vec<&Node>> = BTreeMap::new();
    for node in nodes {
        groups.entry(&node.inventory).or_default().push(node);
    }
    let inventories: Vec<(&BTreeSet<ImageId>, u64)> = groups.iter().map(|(held, nodes)| (*held, nodes.len() as u64)).collect();
    let offers = offers(target, wanted, &groups, images, built, estimator);
    let taken = cover(&inventories, &offers);
    let mut choices = BTreeMap::new();
    for nodes in groups.values() {
        for node in nodes {
            let best = cheapest(&node.inventory, taken.iter().map(|&index| &offers[index]));
            let Some(offer) = best else { continue };
            let disk_peak = disk_peak(wanted, node, images, offer.bytes);
            choices.insert(node.id, Choice { bases: offer.bases.clone(), bytes: offer.bytes, built: offer.built, disk_peak });
        }
    }
    choices
}

/// A bundle that nodes could get.
struct Offer {
    bases: Vec<ImageId>,
    bytes: u64,
    built: bool,
    /// What it costs to build, as bytes.
    build: u64,
}

/// Bundles that may be worth building, those that are ready, and the full one, each once.
fn offers(
    target: &ImageId,
    wanted: &Image,
    groups: &BTreeMap<&BTreeSet<ImageId>, Vec<&Node>>,
    images: &BTreeMap<ImageId, Image>,
    built: &[Built],
    estimator: &dyn Estimator,
) -> Vec<Offer> {
    let predict = |bases: &[ImageId]| estimator.estimate(target, bases).unwrap_or_else(|| by_layers(wanted, bases, images));
    // Sets by how many nodes would have them as their best or as a part of it.
    let mut sets: BTreeMap<Vec<ImageId>, u64> = BTreeMap::new();
    for nodes in groups.values() {
        let Some(node) = nodes.first() else { continue };
        let (best, _) = best_set(&candidates(target, wanted, node, images), predict);
        let singles = best.iter().map(|base| vec![*base]);
        for set in singles.chain([best.clone()]).collect::<BTreeSet<_>>() {
            *sets.entry(set).or_default() += nodes.len() as u64;
        }
    }
    sets.remove(&Vec::new());
    let mut sets: Vec<_> = sets.into_iter().collect();
    sets.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut offers = BTreeMap::new();
    for bases in std::iter::once(Vec::new()).chain(sets.into_iter().map(|(set, _)| set).take(BUNDLES)) {
        let there: BTreeSet<_> = bases.iter().filter_map(|id| images.get(id)).flat_map(|i| i.layers.iter().map(|(id, _)| *id)).collect();
        let made: u64 = wanted.layers.iter().filter(|(id, _)| !there.contains(id)).map(|(_, size)| *size).sum();
        let bytes = predict(&bases);
        offers.insert(bases.clone(), Offer { bases, bytes, built: false, build: BUILD + made / BUILD_SHARE });
    }
    for ready in built {
        offers.insert(ready.bases.clone(), Offer { bases: ready.bases.clone(), bytes: ready.bytes, built: true, build: 0 });
    }
    offers.into_values().collect()
}

/// Of some bundles the one with the fewest bytes whose bases are held; of equal ones what is built, then the fewest bases.
fn cheapest<'a>(held: &BTreeSet<ImageId>, offers: impl Iterator<Item = &'a Offer>) -> Option<&'a Offer> {
    offers.filter(|offer| offer.bases.iter().all(|base| held.contains(base))).min_by_key(|offer| (offer.bytes, !offer.built, &offer.bases))
}

/// Numbers of the bundles to have, such that every inventory has one that fits: greedy, which is near the best for sums of savings.
fn cover(inventories: &[(&BTreeSet<ImageId>, u64)], offers: &[Offer]) -> Vec<usize> {
    let cost = |taken: &[usize]| -> Option<u64> {
        let build: u64 = taken.iter().map(|&index| offers[index].build).sum();
        inventories.iter().try_fold(build, |sum, (held, nodes)| {
            let offer = cheapest(held, taken.iter().map(|&index| &offers[index]))?;
            Some(sum.saturating_add(offer.bytes.saturating_mul(*nodes)))
        })
    };
    // What is built costs nothing to have; the full bundle fits every node, so that there is always a cover.
    let mut taken: Vec<usize> = (0..offers.len()).filter(|&index| offers[index].built || offers[index].bases.is_empty()).collect();
    let mut now = cost(&taken).unwrap_or(u64::MAX);
    loop {
        let more = (0..offers.len()).filter(|index| !taken.contains(index)).filter_map(|index| {
            let with: Vec<_> = taken.iter().copied().chain([index]).collect();
            Some((cost(&with)?, index))
        });
        match more.min() {
            Some((fewer, index)) if fewer < now => {
                taken.push(index);
                now = fewer;
            }
            _ => break,
        }
    }
    // A bundle that was worth it at first may be missed by nobody now; the full one most often.
    loop {
        let fewer = (0..taken.len()).filter_map(|place| {
            let without: Vec<_> = taken.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, index)| *index).collect();
            Some((cost(&without)?, without))
        });
        match fewer.min() {
            Some((bytes, without)) if bytes < now => (now, taken) = (bytes, without),
            _ => break,
        }
    }
    taken
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
