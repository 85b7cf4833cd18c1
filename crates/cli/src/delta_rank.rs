//! `skerry image rank`: which base makes the smallest bundle, told from indexes alone.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde_json::json;
use skerry_delta::Progress;
use skerry_delta::index::{IndexedLayer, LayerIndex, Target};
use skerry_wire::DiffId;

use crate::delta::interruptible;
use crate::delta_args::RankArgs;
use crate::delta_image::{Check, LocalImage, LocalLayer, find};
use crate::output;
use crate::publish::bar;

/// One base and what it would cost.
struct Ranked {
    name: String,
    image: String,
    bytes: u64,
    shared: usize,
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn stage(&self, _: &'static str, _: u64) {
        // There is one, whose length is known from the start.
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// `skerry image rank`
pub(crate) async fn rank(args: RankArgs, json: bool) -> Result<()> {
    let target = find(&args.target, &args.engine.docker).await?;
    let mut bases = Vec::new();
    for base in &args.bases {
        bases.push(find(base, &args.engine.docker).await?);
    }
    let (full, mut ranked, seconds) = interruptible(move |cancel| {
        let target = LocalImage::open(target, Check::Later, cancel)?;
        let bases = bases.into_iter().map(|base| LocalImage::open(base, Check::Later, cancel)).collect::<Result<Vec<_>>>()?;
        let indexes = index(bases.iter().chain([&target]), cancel)?;
        Ok(compare(&target, &bases, &indexes))
    })
    .await?;
    ranked.sort_by(|a, b| (a.bytes, &a.name).cmp(&(b.bytes, &b.name)));
    if json {
        let bases: Vec<_> = ranked
            .iter()
            .map(|r| json!({ "base": r.name, "image": r.image, "predicted_bytes": r.bytes, "layers_shared": r.shared }))
            .collect();
        return output::json(&json!({ "target": args.target, "full_bytes": full, "bases": bases, "seconds": seconds }));
    }
    let rows = ranked.iter().map(|r| vec![r.name.clone(), output::bytes(r.bytes), r.shared.to_string()]);
    let rows = rows.chain([vec!["(none: a full bundle)".to_owned(), output::bytes(full), "0".to_owned()]]);
    output::print(&output::table(&["BASE", "PREDICTED", "LAYERS SHARED"], &["PREDICTED", "LAYERS SHARED"], rows))
}

/// The index of every layer, each read once.
fn index<'a>(images: impl Iterator<Item = &'a LocalImage>, cancel: &AtomicBool) -> Result<BTreeMap<DiffId, Arc<LayerIndex>>> {
    let layers: BTreeMap<DiffId, &LocalLayer> = images.flat_map(|image| &image.layers).map(|(id, layer)| (*id, layer)).collect();
    let bar = bar("Indexing", layers.values().map(|layer| layer.size()).sum());
    let progress = Bar(bar.clone());
    let layers: Vec<_> = layers.into_iter().collect();
    let indexes = layers.into_par_iter().with_max_len(1).map(|(id, layer)| {
        let index: io::Result<LayerIndex> = LayerIndex::build(layer, &progress, cancel);
        index.map(|index| (id, Arc::new(index))).with_context(|| format!("indexing layer {id}"))
    });
    let indexes = indexes.collect::<Result<_>>();
    bar.finish_and_clear();
    indexes
}

fn compare(target: &LocalImage, bases: &[LocalImage], indexes: &BTreeMap<DiffId, Arc<LayerIndex>>) -> (u64, Vec<Ranked>, f64) {
    let of = |image: &LocalImage| -> Vec<IndexedLayer> {
        image
            .layers
            .iter()
            .filter_map(|(id, _)| indexes.get(id).map(|index| IndexedLayer { diff_id: *id, index: Arc::clone(index) }))
            .collect()
    };
    let begun = Instant::now();
    let prepared = Target::new(of(target));
    let ranked = bases.par_iter().map(|base| Ranked {
        name: base.name.clone(),
        image: base.id.to_string(),
        bytes: prepared.estimate(&of(base)),
        shared: target.layers.iter().filter(|(id, _)| base.layers.iter().any(|(other, _)| id == other)).count(),
    });
    let ranked = ranked.collect();
    (prepared.estimate(&[]), ranked, begun.elapsed().as_secs_f64())
}
