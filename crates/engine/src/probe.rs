//! What the engine at hand can do, found out by doing it once.

use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::stream;
use skerry_delta::source::{Segment, Sources};
use skerry_image::load::{LoadArchiveWriter, LoadLayer};
use skerry_image::{Sha256, sha256};
use skerry_wire::{DiffId, ImageId};

use crate::engine::go_architecture;
use crate::{Engine, EngineError, EngineLayers};

/// What an engine can do beyond the ordinary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Layers can be read in its folders.
    pub layers_in_place: bool,
    /// It takes an archive without the layers that it has.
    pub accepts_partial_load: bool,
}

/// An image of a few bytes.
struct Tiny {
    id: ImageId,
    config: Vec<u8>,
    layers: Vec<(DiffId, Vec<u8>)>,
}

/// Finds out what the engine can do. An engine with containerd's image store is not tried: it can neither. Else two images of one and two
/// tiny layers, made for this, are loaded, the second without the first one's layer, and removed again. The result holds until the engine
/// is updated or configured anew; the caller keeps it.
pub async fn probe(engine: &impl Engine) -> Result<Abilities, EngineError> {
    let info = engine.info().await?;
    if info.containerd_store {
        return Ok(Abilities::default());
    }
    let [lower, both] = tiny_pair(&info.architecture);
    let found = try_out(engine, &info, &lower, &both).await;
    // The upper one first: an image with children is not removed.
    let removed = (engine.remove_image(&both.id).await, engine.remove_image(&lower.id).await);
    let found = found?;
    removed.0.and(removed.1)?;
    Ok(found)
}

async fn try_out(engine: &impl Engine, info: &crate::Info, lower: &Tiny, both: &Tiny) -> Result<Abilities, EngineError> {
    load(engine, lower, 0).await?;
    if !engine.image_present(&lower.id).await? {
        return Err(EngineError::NotLoaded { image_id: lower.id });
    }
    let accepts_partial_load = match load(engine, both, 1).await {
        Ok(()) => engine.image_present(&both.id).await?,
        Err(EngineError::Load { .. }) => false,
        Err(error) => return Err(error),
    };
    // A folder that is not there or not to be read is an answer, not an error.
    let layers_in_place = match EngineLayers::open(&info.data_root, &info.storage_driver) {
        Ok(layers) => layers.layer(&lower.layers[0].0).and_then(|layer| hash(&*layer)).is_ok_and(|found| found == lower.layers[0].0),
        Err(_) => false,
    };
    Ok(Abilities { layers_in_place, accepts_partial_load })
}

/// The diff_id of a layer as it reads.
fn hash(layer: &dyn skerry_delta::source::LayerSource) -> std::io::Result<DiffId> {
    let (mut hash, mut file) = (Sha256::new(), 0);
    for segment in layer.segments()? {
        match segment? {
            Segment::Raw(bytes) => hash.update(&bytes),
            Segment::File { .. } => {
                // These files have a few bytes.
                let mut bytes = Vec::new();
                layer.open(file)?.take(4096).read_to_end(&mut bytes)?;
                hash.update(&bytes);
                file += 1;
            }
        }
    }
    Ok(DiffId(hash.digest()))
}

/// Loads an image without its first `absent` layers.
async fn load(engine: &impl Engine, image: &Tiny, absent: usize) -> Result<(), EngineError> {
    let archive = archive(image, absent).map_err(|error| EngineError::Load { message: error.to_string() })?;
    engine.load(Box::pin(stream::iter([Ok(Bytes::from(archive))]))).await
}

fn archive(image: &Tiny, absent: usize) -> Result<Vec<u8>, skerry_image::load::LoadArchiveError> {
    let mut writer = LoadArchiveWriter::new(Vec::new());
    let layers: Vec<_> =
        image.layers.iter().enumerate().map(|(i, (diff_id, _))| LoadLayer { diff_id: *diff_id, given: i >= absent }).collect();
    writer.config(&image.id, &image.config, &layers, &[])?;
    for (i, (diff_id, bytes)) in image.layers.iter().enumerate().skip(absent) {
        writer.layer_start(i, diff_id, bytes.len() as u64)?;
        writer.layer_bytes(bytes)?;
        writer.layer_end()?;
    }
    writer.finish()
}

/// Images that nobody else has: no other probe at the same time makes the same.
fn tiny_pair(architecture: &str) -> [Tiny; 2] {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let architecture = go_architecture(architecture);
    let layers: Vec<_> = ["lower", "upper"]
        .map(|name| {
            let bytes = skerry_image::load::single_file_layer(name, format!("skerry probe {unique}").as_bytes());
            (DiffId(sha256(&bytes)), bytes)
        })
        .into();
    [1, 2].map(|count| {
        let layers = layers[..count].to_vec();
        let ids: Vec<_> = layers.iter().map(|(diff_id, _)| format!("\"{diff_id}\"")).collect();
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        )
        .into_bytes();
        Tiny { id: ImageId(sha256(&config)), config, layers }
    })
}
