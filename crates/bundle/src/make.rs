//! Making a bundle.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

use ring::digest;
use skerry_delta::archive::Scratch;
use skerry_delta::make::{Budget, Input, LayerStats};
use skerry_delta::source::LayerSource;
use skerry_delta::stream::{StreamSize, StreamsReader, Written};
use skerry_delta::{Progress, make as patch};
use skerry_trust::{SigningKey, envelope};
use skerry_wire::{DiffId, Digest, ImageId};

use crate::toc::{CHUNK_DIGEST, CHUNKS, LayerPlace, SECTIONS, TargetLayer, Toc, features};
use crate::{PURPOSE, head};

/// One layer of an image.
pub struct Layer<'a> {
    /// Its digest.
    pub diff_id: DiffId,
    /// Its bytes. Not read for a target's layer that a base has.
    pub source: &'a dyn LayerSource,
}

/// The image to make.
pub struct Target<'a> {
    /// Its configuration.
    pub config: &'a [u8],
    /// Its layers, lowest first.
    pub layers: Vec<Layer<'a>>,
}

/// An image at hand.
pub struct Base<'a> {
    /// Its id.
    pub image_id: ImageId,
    /// Its configuration.
    pub config: &'a [u8],
    /// Its layers, lowest first.
    pub layers: Vec<Layer<'a>>,
}

/// Bytes of memory that nodes admit for applying a bundle.
pub const ADMITTED: u64 = 24 << 20;

/// What making may use.
#[derive(Debug, Clone, Copy)]
pub struct MakeOptions {
    /// Bytes of memory for making, about. With less, fewer and shorter bytes are compared at once and the bundle becomes longer; the
    /// tables of members are needed in any case.
    pub memory: u64,
    /// Bytes of memory for whoever applies: windows, buffers and the table of old members.
    pub apply_memory: u64,
    /// Bytes of memory that whoever applies admits at all: where tables are so long that more would be needed, layers of bases are left out.
    pub admitted_memory: u64,
}

impl Default for MakeOptions {
    fn default() -> Self {
        Self { memory: 1 << 30, apply_memory: 16 << 20, admitted_memory: ADMITTED }
    }
}

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// It was told to stop.
    #[error("making the bundle was cancelled")]
    Cancelled,
    /// A layer could not be read, or the bundle not be written.
    #[error("making the bundle: {0}")]
    Io(#[source] io::Error),
    /// An image of a configuration alone.
    #[error("the image has no layers: a bundle makes at least one")]
    NoLayers,
    /// More than a bundle can hold.
    #[error("a bundle can have {limit} {what}, not {found}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl From<io::Error> for MakeError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::Interrupted { Self::Cancelled } else { Self::Io(error) }
    }
}

/// A bundle that was made.
#[derive(Debug)]
pub struct Made {
    /// Its bytes.
    pub size: u64,
    /// Its SHA-256.
    pub digest: Digest,
    /// Where its bytes are.
    pub stats: Stats,
}

/// Where the bytes of a bundle are.
#[derive(Debug, Default)]
pub struct Stats {
    /// Head, signature and table of contents.
    pub toc: u64,
    /// The payload, by stream.
    pub streams: Vec<StreamSize>,
    /// What became of the contents of each new layer.
    pub layers: BTreeMap<DiffId, LayerStats>,
    /// Layers that a base has.
    pub known: usize,
}

/// Makes the bundle for `target` on nodes that have `bases`, and writes it to `out`. Without bases it is a full bundle.
pub fn make(
    target: &Target<'_>,
    bases: &[Base<'_>],
    options: &MakeOptions,
    progress: &dyn Progress,
    cancel: &AtomicBool,
    sign: &SigningKey,
    out: &mut impl Write,
) -> Result<Made, MakeError> {
    make_spilling(target, bases, options, None, progress, cancel, sign, out)
}

/// The same; with scratch, what is longer than a few parts is not held in memory until the table of contents is written.
#[expect(clippy::too_many_arguments, reason = "those of `make` and one")]
pub fn make_spilling(
    target: &Target<'_>,
    bases: &[Base<'_>],
    options: &MakeOptions,
    scratch: Option<&dyn Scratch>,
    progress: &dyn Progress,
    cancel: &AtomicBool,
    sign: &SigningKey,
    out: &mut impl Write,
) -> Result<Made, MakeError> {
    check(target, bases)?;
    let mut places = BTreeMap::new();
    let mut old = Vec::new();
    for (base_index, base) in (0..).zip(bases) {
        for (layer_index, layer) in (0..).zip(&base.layers) {
            let place = LayerPlace { base: base_index, layer: layer_index };
            if places.insert(layer.diff_id, place).is_none() {
                old.push((layer.diff_id, layer.source));
            }
        }
    }
    // A layer that occurs twice in the target is made once for each place.
    let new: Vec<_> = target.layers.iter().filter(|layer| !places.contains_key(&layer.diff_id)).collect();
    let known: Vec<_> = target.layers.iter().map(|layer| *layer.diff_id.digest().as_bytes()).collect();
    let old_sources: Vec<_> = old.iter().map(|(_, source)| *source).collect();
    let new_sources: Vec<_> = new.iter().map(|layer| layer.source).collect();
    let input = Input {
        config: target.config,
        base_config: bases.first().map(|base| base.config),
        known: &known,
        new: &new_sources,
        old: &old_sources,
    };
    let budget = Budget { make: options.memory, apply: options.apply_memory, admitted: options.admitted_memory };
    let mut patch = patch::make_spilling(&input, budget, scratch, progress, cancel)?;

    if patch.written.sections.len() > SECTIONS {
        return Err(MakeError::TooMany { what: "sections", found: patch.written.sections.len(), limit: SECTIONS });
    }

    let sizes: BTreeMap<_, _> = new.iter().zip(&patch.layers).map(|(layer, stats)| (layer.diff_id, stats.size)).collect();
    let layers = target.layers.iter().map(|layer| match places.get(&layer.diff_id) {
        Some(place) => TargetLayer::Known(*place),
        None => TargetLayer::New { diff_id: layer.diff_id, size: sizes.get(&layer.diff_id).copied().unwrap_or(0) },
    });
    let codecs = patch.layers.iter().flat_map(|layer| layer.codecs.keys().copied());
    let toc = Toc::build(
        features(&patch.written.sections, codecs, &patch.features),
        (ImageId(sha256(target.config)), bases.iter().map(|base| base.image_id).collect()),
        patch.used.iter().filter_map(|&index| places.get(&old[index].0).copied()).collect(),
        layers.collect(),
        &mut patch.written,
        [patch.table, patch.scratch],
    )?;
    let chunks = toc.chunks.len() / CHUNK_DIGEST;
    if chunks > CHUNKS {
        return Err(MakeError::TooMany { what: "chunks of 64 KiB", found: chunks, limit: CHUNKS });
    }
    let toc = envelope::sign(sign, PURPOSE, &toc.encode()?);
    let mut start = head::write(toc.len());
    start.extend(toc);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut size = 0;
    let mut put = |bytes: &[u8]| {
        context.update(bytes);
        size += bytes.len() as u64;
        out.write_all(bytes)
    };
    put(&start)?;
    patch.written.read(&mut put)?;
    out.flush()?;
    let digest = context.finish().as_ref().try_into().map(Digest::new).expect("a SHA-256 has 32 bytes");
    let stats = Stats {
        toc: start.len() as u64,
        streams: patch.written.sizes,
        known: target.layers.len() - new.len(),
        layers: new.iter().map(|layer| layer.diff_id).zip(patch.layers).collect(),
    };
    Ok(Made { size, digest, stats })
}

impl Toc {
    fn build(
        features: Vec<u16>,
        (target, bases): (ImageId, Vec<ImageId>),
        used: Vec<LayerPlace>,
        layers: Vec<TargetLayer>,
        written: &mut Written,
        [table, scratch]: [u64; 2],
    ) -> io::Result<Self> {
        let sections = written.sections.clone();
        let memory = StreamsReader::memory(&sections).saturating_add(table).saturating_add(skerry_delta::apply::FIXED_MEMORY);
        // An engine stages what it loads once before it keeps it.
        let made: u64 = layers.iter().map(|layer| if let TargetLayer::New { size, .. } = layer { *size } else { 0 }).sum();
        Self::new(
            Self {
                features,
                target,
                bases,
                used,
                layers,
                sections,
                memory,
                disk: made.saturating_mul(2).saturating_add(scratch),
                chunks: Vec::new(),
            },
            &mut |out| written.read(out),
        )
    }
}

fn check(target: &Target<'_>, bases: &[Base<'_>]) -> Result<(), MakeError> {
    use skerry_wire::limits;
    let too_many = |what, found, limit| if found > limit { Err(MakeError::TooMany { what, found, limit }) } else { Ok(()) };
    if target.layers.is_empty() {
        return Err(MakeError::NoLayers);
    }
    too_many("bases", bases.len(), crate::toc::BASES)?;
    too_many("target layers", target.layers.len(), limits::LAYERS)?;
    bases.iter().try_for_each(|base| too_many("layers in one base", base.layers.len(), limits::LAYERS))?;
    too_many("bytes of configuration", target.config.len(), limits::IMAGE_CONFIG)
}

fn sha256(bytes: &[u8]) -> Digest {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().map(Digest::new).expect("a SHA-256 has 32 bytes")
}

impl std::fmt::Debug for Layer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("diff_id", &self.diff_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Base<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("image_id", &self.image_id).field("layers", &self.layers).finish_non_exhaustive()
    }
}
