//! The reconstruct itself.

use std::io::{self, Read, Seek};

use ring::digest::{self, SHA256};
use skerry_bundle::make::ADMITTED;
use skerry_bundle::{TargetLayer, Toc, VerifiedToc};
use skerry_delta::apply::{Applier, FIXED_MEMORY, Tally};
use skerry_delta::archive::BoundedScratch;
use skerry_delta::source::Sources;
use skerry_delta::stream::StreamsReader;
use skerry_image::config::ImageConfig;
use skerry_wire::{DiffId, ImageId};

use crate::payload::Shared;
use crate::sink::{ImageSink, LayerInfo};

/// What a reconstruct may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory for windows, buffers and tables.
    pub memory: u64,
    /// Bytes of all new layers together.
    pub output: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: ADMITTED, output: 64 << 30 }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconstructed {
    /// The image.
    pub image_id: ImageId,
    /// Layers that were made.
    pub new_layers: usize,
    /// Their bytes.
    pub new_bytes: u64,
}

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum ReconstructError {
    /// The bundle needs more memory than this node gives.
    #[error("the bundle needs {needed} bytes of memory, this node allows {allowed}: raise the limit or have a bundle made for less")]
    Memory {
        /// What its table of contents says.
        needed: u64,
        /// The limit.
        allowed: u64,
    },
    /// The new layers are longer than this node allows.
    #[error("the bundle makes {size} bytes of new layers, this node allows {allowed}")]
    Output {
        /// What its table of contents says.
        size: u64,
        /// The limit.
        allowed: u64,
    },
    /// A base is not here.
    #[error("base image {image}: {error}")]
    Base {
        /// Which.
        image: ImageId,
        /// What reading its configuration gave.
        error: io::Error,
    },
    /// A base's configuration is not that of its id, or names no layers.
    #[error("base image {image} has a damaged configuration: {reason}")]
    BaseConfig {
        /// Which.
        image: ImageId,
        /// What is wrong.
        reason: String,
    },
    /// A layer of a base cannot be read.
    #[error("old layer {diff_id}: {error}")]
    Layer {
        /// Which.
        diff_id: DiffId,
        /// What reading it gave.
        error: io::Error,
    },
    /// The patch is damaged or does not fit these layers.
    #[error("applying the bundle: {0}")]
    Patch(#[source] io::Error),
    /// The configuration that came out is not the target's.
    #[error("the bundle makes a configuration with another id than {expected}: it does not fit the base images of this node")]
    WrongConfig {
        /// The target.
        expected: ImageId,
    },
    /// The table of contents names other layers than the configuration.
    #[error("the bundle's layers are not those of image {image}")]
    WrongLayers {
        /// The target.
        image: ImageId,
    },
    /// A layer that came out is not the target's.
    #[error("the bundle makes another layer than {expected}: an old layer on this node differs from what its engine says")]
    WrongLayer {
        /// The layer.
        expected: DiffId,
    },
    /// The sink failed.
    #[error("writing the new image: {0}")]
    Sink(#[source] io::Error),
}

/// Makes the target image of a bundle and streams it into `sink`.
pub fn reconstruct(
    bundle: &mut (impl Read + Seek + Send),
    toc: &VerifiedToc,
    sources: &dyn Sources,
    sink: &mut dyn ImageSink,
    limits: &Limits,
) -> Result<Reconstructed, ReconstructError> {
    reconstruct_told(bundle, toc, sources, sink, limits, None)
}

/// The same; `tally` is told of each item of each layer what of the bundle went into it.
pub fn reconstruct_told(
    bundle: &mut (impl Read + Seek + Send),
    toc: &VerifiedToc,
    sources: &dyn Sources,
    sink: &mut dyn ImageSink,
    limits: &Limits,
    tally: Option<&Tally<'_>>,
) -> Result<Reconstructed, ReconstructError> {
    let table = toc.toc();
    let new_bytes = admit(table, limits)?;
    let bases = table.bases.iter().map(|image| base(image, sources)).collect::<Result<Vec<_>, _>>()?;
    let diff_id = |place: skerry_bundle::LayerPlace| {
        let base = &bases[place.base as usize];
        base.diff_ids.get(place.layer as usize).copied().ok_or_else(|| ReconstructError::BaseConfig {
            image: table.bases[place.base as usize],
            reason: format!("it has {} layers, the bundle needs layer {}", base.diff_ids.len(), place.layer),
        })
    };
    // Of the disk that the table asks for, the engine takes twice the new layers; the rest is scratch.
    let scratch_room = table.disk.saturating_sub(new_bytes.saturating_mul(2));
    let scratch = sources.scratch().map(|scratch| BoundedScratch::new(scratch, scratch_room));
    let mut infos = Vec::new();
    for layer in &table.layers {
        infos.push(match *layer {
            TargetLayer::Known(place) => LayerInfo { diff_id: diff_id(place)?, new_size: None },
            TargetLayer::New { diff_id, size } => LayerInfo { diff_id, new_size: Some(size) },
        });
    }
    let mut layers = Vec::new();
    for place in &table.used {
        let diff_id = diff_id(*place)?;
        layers.push(sources.layer(&diff_id).map_err(|error| ReconstructError::Layer { diff_id, error })?);
    }
    let shared = Shared::new(bundle);
    let streams = StreamsReader::open(&table.sections, |index| Ok(Box::new(shared.section(toc.section_range(index)))));
    // Tables, archives and what is kept get what the bundle says beyond its streams, and what the node has beyond streams and buffers. What
    // buffers need is not taken off the former: whoever made the bundle may have counted less for them.
    let streams_need = StreamsReader::memory(&table.sections);
    let [told, given] = [table.memory, limits.memory.saturating_sub(FIXED_MEMORY)].map(|memory| memory.saturating_sub(streams_need));
    let room = told.min(given);
    let mut applier = streams.and_then(|streams| Applier::new(streams, &layers, room)).map_err(ReconstructError::Patch)?;

    if let Some(scratch) = &scratch {
        applier = applier.with_scratch(scratch);
    }
    if let Some(tally) = tally {
        applier = applier.with_tally(tally);
    }
    let known: Vec<_> = infos.iter().map(|info| *info.diff_id.digest().as_bytes()).collect();
    let config = applier.config(bases.first().map(|base| &base.bytes[..]), &known).map_err(ReconstructError::Patch)?;
    if digest::digest(&SHA256, &config).as_ref() != table.target.digest().as_bytes() {
        return Err(ReconstructError::WrongConfig { expected: table.target });
    }
    let named = ImageConfig::parse(&config).map(|config| config.diff_ids).unwrap_or_default();
    if !named.iter().eq(infos.iter().map(|info| &info.diff_id)) {
        return Err(ReconstructError::WrongLayers { image: table.target });
    }
    sink.config(&table.target, &config, &infos).map_err(ReconstructError::Sink)?;
    drop(config);
    for (index, info) in infos.iter().enumerate() {
        let Some(size) = info.new_size else { continue };
        make_layer(&mut applier, index, &info.diff_id, size, sink)?;
    }
    applier.finish().map_err(ReconstructError::Patch)?;
    Ok(Reconstructed { image_id: table.target, new_layers: infos.iter().filter(|info| info.new_size.is_some()).count(), new_bytes })
}

fn make_layer(
    applier: &mut Applier<'_>,
    index: usize,
    diff_id: &DiffId,
    size: u64,
    sink: &mut dyn ImageSink,
) -> Result<(), ReconstructError> {
    sink.layer_start(index, diff_id, size).map_err(ReconstructError::Sink)?;
    let mut context = digest::Context::new(&SHA256);
    let mut failed = None;
    let made = applier.layer(size, &mut |bytes| {
        context.update(bytes);
        sink.layer_bytes(bytes).map_err(|error| {
            let kind = error.kind();
            failed = Some(error);
            kind.into()
        })
    });
    if let Some(error) = failed {
        return Err(ReconstructError::Sink(error));
    }
    made.map_err(ReconstructError::Patch)?;
    if context.finish().as_ref() != diff_id.digest().as_bytes() {
        return Err(ReconstructError::WrongLayer { expected: *diff_id });
    }
    sink.layer_end().map_err(ReconstructError::Sink)
}

/// Compares what the bundle needs with the limits; the bytes of its new layers.
fn admit(toc: &Toc, limits: &Limits) -> Result<u64, ReconstructError> {
    let needed = toc.memory.max(StreamsReader::memory(&toc.sections));
    if needed > limits.memory {
        return Err(ReconstructError::Memory { needed, allowed: limits.memory });
    }
    let sizes = toc.layers.iter().map(|layer| if let TargetLayer::New { size, .. } = layer { *size } else { 0 });
    let size = sizes.fold(0, u64::saturating_add);
    if size > limits.output {
        return Err(ReconstructError::Output { size, allowed: limits.output });
    }
    Ok(size)
}

struct BaseImage {
    bytes: Vec<u8>,
    diff_ids: Vec<DiffId>,
}

fn base(image: &ImageId, sources: &dyn Sources) -> Result<BaseImage, ReconstructError> {
    let bytes = sources.config(image).map_err(|error| ReconstructError::Base { image: *image, error })?;
    let damaged = |reason: String| ReconstructError::BaseConfig { image: *image, reason };
    if digest::digest(&SHA256, &bytes).as_ref() != image.digest().as_bytes() {
        return Err(damaged("its digest is not the image id".to_owned()));
    }
    let config = ImageConfig::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
    Ok(BaseImage { bytes, diff_ids: config.diff_ids })
}
