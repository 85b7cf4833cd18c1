//! An image on this machine as a source of the delta engine: its layers can be read from the middle.
//!
//! Layers that stand uncompressed in a file are read where they are; others are unpacked into temporary files first.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use skerry_delta::TarLayer;
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::source::{LayerSource, ReadSeek, Segment, Sources};
use skerry_image::archive::{Archive, ArchiveLayer};
use skerry_image::part::{Part, PartReader};
use skerry_wire::{DiffId, ImageId};
use tempfile::NamedTempFile;

use crate::engine_source;
use crate::publish::bar;
use crate::stop;

/// Bytes copied at once.
const PIECE: usize = 256 * 1024;

/// Where an image was found.
pub(crate) struct Found {
    path: PathBuf,
    /// The export of an engine's image; gone when this is dropped.
    _spool: Option<NamedTempFile>,
    /// As the operator named it.
    pub(crate) name: String,
}

/// Finds a file, a folder, or an image of the engine, which is exported.
pub(crate) async fn find(name: &str, socket: &str) -> Result<Found> {
    // Said so, it is an image of the engine even where a file has the same name.
    let (name, said) = name.strip_prefix("docker:").map_or((name, false), |reference| (reference, true));
    let path = Path::new(name);
    if !said && path.exists() {
        return Ok(Found { path: path.to_owned(), _spool: None, name: name.to_owned() });
    }
    let (spool, _) = stop::guarded(engine_source::export(socket, name)).await?;
    Ok(Found { path: spool.path().to_owned(), _spool: Some(spool), name: name.to_owned() })
}

/// How carefully an image is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Every layer is read and must give its diff_id: a bundle must not be made of damaged bytes.
    Layers,
    /// What is made of it is checked by its digests later.
    Later,
}

/// An image that is open.
pub(crate) struct LocalImage {
    /// Its id.
    pub(crate) id: ImageId,
    /// Its configuration.
    pub(crate) config: Vec<u8>,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<(DiffId, LocalLayer)>,
    /// As the operator named it.
    pub(crate) name: String,
    _found: Found,
}

type Open = Box<dyn Fn() -> io::Result<PartReader> + Send + Sync>;

/// A layer of it.
pub(crate) struct LocalLayer {
    source: TarLayer<Open, PartReader>,
    place: Part,
    _spool: Option<NamedTempFile>,
}

impl LocalImage {
    /// Opens the only image of the archive. Blocks.
    pub(crate) fn open(found: Found, check: Check, cancel: &AtomicBool) -> Result<Self> {
        let mut archive = Archive::open(&found.path).with_context(|| format!("image {}", found.name))?;
        let image = archive.choose(None).with_context(|| format!("image {}", found.name))?.clone();
        let bar = bar("Reading", image.layers.iter().map(|l| l.stored).sum());
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push((layer.diff_id, open(&mut archive, &found.path, layer, check, cancel)?));
            bar.inc(layer.stored);
        }
        bar.finish_and_clear();
        Ok(Self { id: image.image_id, config: image.config_bytes, layers, name: found.name.clone(), _found: found })
    }
}

fn open(archive: &mut Archive<File>, path: &Path, layer: &ArchiveLayer, check: Check, cancel: &AtomicBool) -> Result<LocalLayer> {
    let plain = archive.plain(layer)?;
    let mut spool = None;
    if plain.is_none() || check == Check::Layers {
        let mut out =
            plain.is_none().then(|| NamedTempFile::new().context("a temporary file for a layer; TMPDIR says where")).transpose()?;
        let mut reader = archive.layer(layer)?;
        let mut piece = vec![0; PIECE];
        loop {
            if cancel.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let n = reader.read(&mut piece)?;
            if n == 0 {
                break;
            }
            if let Some(out) = &mut out {
                out.write_all(&piece[..n])
                    .with_context(|| format!("writing {}; TMPDIR says where temporary files go", out.path().display()))?;
            }
        }
        spool = out;
    }
    let place = match (plain, &spool) {
        (Some(plain), _) => Part { path: plain.file.unwrap_or_else(|| path.to_owned()), start: plain.offset, size: plain.size },
        (None, Some(spool)) => Part { path: spool.path().to_owned(), start: 0, size: spool.as_file().metadata()?.len() },
        (None, None) => bail!("layer {} of {} was not unpacked", layer.diff_id, path.display()),
    };
    let part = place.clone();
    let open: Open = Box::new(move || part.open());
    Ok(LocalLayer { source: TarLayer::new(open).with_context(|| format!("layer {}", layer.diff_id))?, place, _spool: spool })
}

impl LayerSource for LocalLayer {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        self.source.segments()
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        self.source.open(file)
    }
}

/// A borrowed layer.
struct Borrowed<'a>(&'a LocalLayer);

impl LayerSource for Borrowed<'_> {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        self.0.segments()
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        self.0.open(file)
    }
}

/// All images that were given as bases.
pub(crate) struct LocalSources(pub(crate) Vec<LocalImage>);

impl LocalSources {
    /// A layer by its diff_id.
    pub(crate) fn find(&self, diff_id: &DiffId) -> Option<&LocalLayer> {
        self.0.iter().flat_map(|image| &image.layers).find(|(id, _)| id == diff_id).map(|(_, layer)| layer)
    }
}

impl LocalLayer {
    /// Bytes of its tar.
    pub(crate) fn size(&self) -> u64 {
        self.source.size()
    }

    /// The whole tar, and its size.
    pub(crate) fn tar(&self) -> io::Result<(PartReader, u64)> {
        Ok((self.place.open()?, self.place.size))
    }
}

impl Sources for LocalSources {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        self.0.iter().find(|i| i.id == *image).map(|i| i.config.clone()).ok_or_else(|| {
            let given: Vec<_> = self.0.iter().map(|i| format!("{} ({})", i.name, i.id)).collect();
            let given = if given.is_empty() { "none was given".to_owned() } else { format!("given were {}", given.join(", ")) };
            io::Error::new(io::ErrorKind::NotFound, format!("it is not among the images of --base; {given}"))
        })
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let layer = self.find(diff_id).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no image of --base has it"))?;
        Ok(Box::new(Borrowed(layer)))
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&Temporary)
    }
}

/// Scratch files without a name in the folder for temporary files.
pub(crate) struct Temporary;

impl Scratch for Temporary {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(tempfile::tempfile()?))
    }
}
