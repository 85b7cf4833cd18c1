//! `skerry delta apply`: the target image of a bundle, made from its bases, as an archive for `docker load`.
//!
//! The archive is written under a temporary name and put in its place when every layer's digest was right.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde_json::json;
use skerry_bundle::{TargetLayer, VerifiedToc};
use skerry_image::Sha256;
use skerry_image::load::{LoadArchiveWriter, LoadLayer};
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, Reconstructed, reconstruct};
use skerry_trust::KeyRing;
use skerry_wire::{DiffId, ImageId};

use crate::delta::{beside, interruptible, keep};
use crate::delta_args::ApplyArgs;
use crate::delta_image::{Check, Found, LocalImage, LocalSources, find};
use crate::output;
use crate::publish::bar;

/// Bytes copied at once from a base.
const PIECE: usize = 64 * 1024;

/// `skerry delta apply`
pub(crate) async fn run(args: ApplyArgs, json: bool) -> Result<()> {
    let keys = args.trust.ring()?;
    let mut found = Vec::new();
    for base in &args.bases {
        found.push(find(base, &args.engine.docker).await?);
    }
    let out = args.out.clone();
    let begun = Instant::now();
    let done = interruptible(move |cancel| apply(&args, &keys, found, cancel)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    if json {
        return output::json(&json!({
            "image": done.image_id.to_string(), "layers_made": done.new_layers, "bytes_made": done.new_bytes, "seconds": seconds,
        }));
    }
    output::print(&format!(
        "Wrote {}: {}, {} layers of {} made in {seconds:.1} s\n",
        out.display(),
        done.image_id,
        done.new_layers,
        output::bytes(done.new_bytes)
    ))
}

fn apply(args: &ApplyArgs, keys: &KeyRing, bases: Vec<Found>, cancel: &AtomicBool) -> Result<Reconstructed> {
    let named = || format!("bundle {}", args.bundle.display());
    let mut bundle = BufReader::new(File::open(&args.bundle).with_context(named)?);
    let toc = VerifiedToc::read(&mut bundle, keys).with_context(named)?;
    let bases = bases.into_iter().map(|base| LocalImage::open(base, Check::Later, cancel)).collect::<Result<Vec<_>>>()?;
    let sources = LocalSources(bases);
    let sizes = toc.toc().layers.iter().map(|layer| if let TargetLayer::New { size, .. } = layer { *size } else { 0 });
    let mut sink = ArchiveSink {
        sources: &sources,
        tags: &args.tags,
        out: Some(LoadArchiveWriter::new(BufWriter::new(beside(&args.out)?))),
        layers: Vec::new(),
        next: 0,
        bar: bar("Applying", sizes.sum()),
        cancel,
    };
    let limits = Limits { memory: args.memory << 20, ..Limits::default() };
    let done = reconstruct(&mut bundle, &toc, &sources, &mut sink, &limits).with_context(named)?;
    let last = sink.layers.len();
    sink.copy_until(last).with_context(|| format!("writing {}", args.out.display()))?;
    sink.bar.finish_and_clear();
    let writer = sink.out.take().context("the image was not begun")?;
    let mut file = writer.finish().with_context(|| format!("writing {}", args.out.display()))?;
    file.flush().with_context(|| format!("writing {}", args.out.display()))?;
    keep(file.into_inner().map_err(|e| e.into_error())?, &PathBuf::from(&args.out))?;
    Ok(done)
}

/// Writes the archive; layers that a base has are copied from it in between.
struct ArchiveSink<'a, W> {
    sources: &'a LocalSources,
    tags: &'a [String],
    out: Option<LoadArchiveWriter<W>>,
    layers: Vec<LayerInfo>,
    /// The layer that comes next.
    next: usize,
    bar: ProgressBar,
    cancel: &'a AtomicBool,
}

impl<W: Write> ArchiveSink<'_, W> {
    fn out(&mut self) -> io::Result<&mut LoadArchiveWriter<W>> {
        self.out.as_mut().ok_or_else(|| io::Error::other("the archive is written already"))
    }

    /// Copies known layers up to this one.
    fn copy_until(&mut self, index: usize) -> io::Result<()> {
        while self.next < index {
            let diff_id = self.layers[self.next].diff_id;
            let sources = self.sources;
            let layer = sources.find(&diff_id).ok_or_else(|| io::Error::other(format!("no base has layer {diff_id}")))?;
            let (mut tar, size) = layer.tar()?;
            let next = self.next;
            self.out()?.layer_start(next, &diff_id, size).map_err(io::Error::other)?;
            let mut hash = Sha256::new();
            let mut piece = vec![0; PIECE];
            loop {
                self.check()?;
                let n = tar.read(&mut piece)?;
                if n == 0 {
                    break;
                }
                hash.update(&piece[..n]);
                self.out()?.layer_bytes(&piece[..n]).map_err(io::Error::other)?;
            }
            self.out()?.layer_end().map_err(io::Error::other)?;
            if hash.digest() != *diff_id.digest() {
                return Err(io::Error::other(format!("layer {diff_id} of a base is damaged: save the base image again")));
            }
            self.next += 1;
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(io::Error::other("interrupted")) } else { Ok(()) }
    }
}

impl<W: Write> ImageSink for ArchiveSink<'_, W> {
    fn config(&mut self, image_id: &ImageId, bytes: &[u8], layers: &[LayerInfo]) -> io::Result<()> {
        self.layers = layers.to_vec();
        let given: Vec<_> = layers.iter().map(|layer| LoadLayer { diff_id: layer.diff_id, given: true }).collect();
        let tags = self.tags;
        self.out()?.config(image_id, bytes, &given, tags).map_err(io::Error::other)
    }

    fn layer_start(&mut self, index: usize, diff_id: &DiffId, size: u64) -> io::Result<()> {
        self.copy_until(index)?;
        self.next = index + 1;
        self.out()?.layer_start(index, diff_id, size).map_err(io::Error::other)
    }

    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.bar.inc(bytes.len() as u64);
        self.out()?.layer_bytes(bytes).map_err(io::Error::other)
    }

    fn layer_end(&mut self) -> io::Result<()> {
        self.out()?.layer_end().map_err(io::Error::other)
    }
}
