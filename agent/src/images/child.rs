//! The child process that reconstructs an image: `skerry-agent reconstruct`.
//!
//! In: one JSON [`Request`] on standard input. Out: the archive for `docker load` on standard output; on failure one line that says why
//! on standard error and exit code 1, or [`NO_ROOM`]. A bundle that is hostile or wrong can hurt only this process: it has its own memory bound, yields to
//! everything else on the node, and dies with the agent.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use skerry_bundle::VerifiedToc;
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::source::{LayerSource, Segment, Sources};
use skerry_engine::{EngineLayers, SpooledImages};
use skerry_image::Sha256;
use skerry_image::load::{LoadArchiveError, LoadArchiveWriter, LoadLayer};
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, reconstruct};
use skerry_trust::{KeyRing, PublicKey};
use skerry_wire::{DiffId, ImageId};

/// The longest request.
const REQUEST: u64 = 256 * 1024;
/// Memory beside what the bundle's table counts: the program's own, the archive's buffers, stacks.
const BESIDE: u64 = 40 << 20;
/// Bytes handed to the agent at once.
const BUFFER: usize = 64 * 1024;

/// What the agent asks of the child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The agent: when it is gone, so is the reason to go on.
    pub(crate) parent: i32,
    /// The bundle file.
    pub(crate) bundle: PathBuf,
    /// Keys that may sign bundles, hex.
    pub(crate) keys: Vec<String>,
    /// The image that must come out.
    pub(crate) image: ImageId,
    /// The engine's data root.
    pub(crate) data_root: PathBuf,
    /// The engine's storage driver.
    pub(crate) storage_driver: String,
    /// Exports of the base images, where the engine's layers cannot be read in place.
    pub(crate) spools: Vec<PathBuf>,
    /// Whether the archive has all layers, not only those that the engine lacks.
    pub(crate) whole: bool,
    /// Tags that the image gets.
    pub(crate) tags: Vec<String>,
    /// Bytes of memory for windows and buffers.
    pub(crate) memory: u64,
    /// Bytes of new layers.
    pub(crate) output: u64,
}

/// Runs the child to its end.
pub(crate) fn run() -> Result<()> {
    let mut text = Vec::new();
    io::stdin().lock().take(REQUEST).read_to_end(&mut text).context("cannot read the request")?;
    let request: Request = serde_json::from_slice(&text).context("this command is for the agent's own use; its request")?;
    confine(&request)?;
    let out = make(&request, BufWriter::with_capacity(BUFFER, io::stdout().lock())).map_err(|error| explain(error, &request))?;
    out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut out| out.flush()).context("cannot hand the archive over")
}

/// Bytes of memory that the child may have.
pub(super) fn bound(request: &Request) -> u64 {
    request.memory.saturating_add(BESIDE)
}

/// What is said of a child that lacks memory, before what it says itself.
pub(super) fn lacks_memory(bound: u64) -> String {
    format!("the process lacks memory, of which it may have {} MiB", bound >> 20)
}

/// The disk is full under a scratch file: the child ends with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("no room for what is written while an image is made")]
pub(crate) struct NoRoom;

/// Exit code of a child that had [`NoRoom`].
pub(crate) const NO_ROOM: u8 = 4;

/// How zstd says that it got no memory.
const ZSTD_NO_MEMORY: &str = "Allocation error : not enough memory";

/// What the system says alone does not tell that memory has a bound, nor that the bundle is not to blame.
fn explain(error: anyhow::Error, request: &Request) -> anyhow::Error {
    let of = |kind: io::ErrorKind| error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == kind);
    if of(io::ErrorKind::OutOfMemory) || error.chain().any(|e| e.to_string() == ZSTD_NO_MEMORY) {
        error.context(lacks_memory(bound(request)))
    } else if of(io::ErrorKind::StorageFull) || of(io::ErrorKind::QuotaExceeded) {
        error.context(NoRoom)
    } else {
        error
    }
}

/// Dies with the agent, is last in line for the processor, and gets no more memory than its bound.
fn confine(request: &Request) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to end with the agent")?;
    // The agent may have gone before the line above.
    let parent = rustix::process::getppid().map_or(0, |pid| Pid::as_raw_nonzero(pid).get());
    if parent != request.parent {
        bail!("the agent that asked for this is gone");
    }
    // Not being nice is no reason to fail.
    let _ = rustix::process::nice(19);
    let bound = Some(bound(request));
    rustix::process::setrlimit(Resource::Data, Rlimit { current: bound, maximum: bound }).context("cannot bound the memory")
}

/// Makes the image and writes its archive.
fn make<W: Write>(request: &Request, out: W) -> Result<W> {
    let keys = request.keys.iter().map(|key| key.parse::<PublicKey>()).collect::<Result<Vec<_>, _>>().context("keys")?;
    let path = request.bundle.display();
    let mut bundle = BufReader::new(File::open(&request.bundle).with_context(|| format!("{path}"))?);
    let table = VerifiedToc::read(&mut bundle, &KeyRing::new(keys)).with_context(|| format!("{path}"))?;
    if table.toc().target != request.image {
        bail!("{path} makes image {}, not {}", table.toc().target, request.image);
    }
    let scratch = Unnamed(request.bundle.parent().unwrap_or(Path::new(".")).to_owned());
    let sources: Box<dyn Sources> = if table.toc().bases.is_empty() {
        Box::new(Nothing { scratch })
    } else {
        let layers: Box<dyn Sources> = if request.spools.is_empty() {
            Box::new(EngineLayers::open(&request.data_root, &request.storage_driver)?)
        } else {
            Box::new(SpooledImages::open(&request.spools).context("the export of a base image")?)
        };
        Box::new(AtNode { layers, scratch })
    };
    let limits = Limits { memory: request.memory, output: request.output };
    let mut sink = Archive {
        writer: LoadArchiveWriter::new(out),
        tags: request.tags.clone(),
        known: request.whole.then_some(&*sources),
        layers: Vec::new(),
        next: 0,
    };
    reconstruct(&mut bundle, &table, &*sources, &mut sink, &limits)?;
    sink.known_before(sink.layers.len())?;
    Ok(sink.writer.finish()?)
}

/// The sources of a bundle with bases: the engine's layers or exports of its images, and room for scratch files beside the bundle.
struct AtNode {
    layers: Box<dyn Sources>,
    scratch: Unnamed,
}

impl Sources for AtNode {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        self.layers.config(image)
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        self.layers.layer(diff_id)
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&self.scratch)
    }
}

/// Files without a name in a folder: gone with the process, however it ends.
#[derive(Debug)]
struct Unnamed(PathBuf);

impl Scratch for Unnamed {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        let flags = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
        let file = File::options().read(true).write(true).custom_flags(flags).mode(0o600).open(&self.0);
        Ok(Box::new(InFolder { file: file.map_err(|error| scratch_error(&self.0, &error))?, folder: self.0.clone() }))
    }
}

/// One of them, whose errors say where it is.
#[derive(Debug)]
struct InFolder {
    file: File,
    folder: PathBuf,
}

fn scratch_error(folder: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("a scratch file in {}: {error}", folder.display()))
}

impl Read for InFolder {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes).map_err(|error| scratch_error(&self.folder, &error))
    }
}

impl Write for InFolder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| scratch_error(&self.folder, &error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for InFolder {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to).map_err(|error| scratch_error(&self.folder, &error))
    }
}

/// The sources of a full bundle, and room for scratch files beside it.
#[derive(Debug)]
struct Nothing {
    scratch: Unnamed,
}

impl Sources for Nothing {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{image} is no base of a full bundle")))
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{diff_id} is in no base of a full bundle")))
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&self.scratch)
    }
}

/// The new image as an archive for the engine.
struct Archive<'a, W> {
    writer: LoadArchiveWriter<W>,
    tags: Vec<String>,
    /// Where layers come from that are not made, when the engine wants them all the same.
    known: Option<&'a dyn Sources>,
    layers: Vec<LayerInfo>,
    /// The layer that comes next.
    next: usize,
}

impl<W: Write> Archive<'_, W> {
    /// Writes the known layers from the next one on up to this.
    fn known_before(&mut self, index: usize) -> io::Result<()> {
        let Some(known) = self.known else { return Ok(()) };
        while self.next < index {
            let diff_id = self.layers[self.next].diff_id;
            let layer = known.layer(&diff_id)?;
            let mut size = 0;
            for segment in layer.segments()? {
                size += match segment? {
                    Segment::Raw(bytes) => bytes.len() as u64,
                    Segment::File { size } => size,
                };
            }
            self.writer.layer_start(self.next, &diff_id, size).map_err(plain)?;
            let hash = self.copy(&*layer)?;
            self.writer.layer_end().map_err(plain)?;
            if DiffId(hash.digest()) != diff_id {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("layer {diff_id} of a base image is damaged on this node")));
            }
            self.next += 1;
        }
        Ok(())
    }

    fn copy(&mut self, layer: &dyn LayerSource) -> io::Result<Sha256> {
        let (mut hash, mut file, mut piece) = (Sha256::new(), 0, vec![0; BUFFER]);
        for segment in layer.segments()? {
            match segment? {
                Segment::Raw(bytes) => {
                    hash.update(&bytes);
                    self.writer.layer_bytes(&bytes).map_err(plain)?;
                }
                Segment::File { size } => {
                    let mut content = layer.open(file)?.take(size);
                    loop {
                        let n = content.read(&mut piece)?;
                        if n == 0 {
                            break;
                        }
                        hash.update(&piece[..n]);
                        self.writer.layer_bytes(&piece[..n]).map_err(plain)?;
                    }
                    file += 1;
                }
            }
        }
        Ok(hash)
    }
}

impl<W: Write> ImageSink for Archive<'_, W> {
    fn config(&mut self, image_id: &ImageId, bytes: &[u8], layers: &[LayerInfo]) -> io::Result<()> {
        self.layers = layers.to_vec();
        let whole = self.known.is_some();
        let layers: Vec<_> = layers.iter().map(|l| LoadLayer { diff_id: l.diff_id, given: whole || l.new_size.is_some() }).collect();
        self.writer.config(image_id, bytes, &layers, &self.tags).map_err(plain)
    }

    fn layer_start(&mut self, index: usize, diff_id: &DiffId, size: u64) -> io::Result<()> {
        self.known_before(index)?;
        self.next = index + 1;
        self.writer.layer_start(index, diff_id, size).map_err(plain)
    }

    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.layer_bytes(bytes).map_err(plain)
    }

    fn layer_end(&mut self) -> io::Result<()> {
        self.writer.layer_end().map_err(plain)
    }
}

fn plain(error: LoadArchiveError) -> io::Error {
    match error {
        LoadArchiveError::Io(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_want_of_memory_are_told_apart_from_a_bad_bundle() {
        let request = Request {
            parent: 1,
            bundle: PathBuf::new(),
            keys: vec![],
            image: ImageId(skerry_wire::Digest::new([1; 32])),
            data_root: PathBuf::new(),
            storage_driver: String::new(),
            spools: vec![],
            whole: false,
            tags: vec![],
            memory: 24 << 20,
            output: 1,
        };
        let told = |kind: io::ErrorKind| {
            let inner = scratch_error(Path::new("/x"), &kind.into());
            explain(skerry_reconstruct::ReconstructError::Patch(inner).into(), &request)
        };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = told(kind);
            assert!(error.is::<NoRoom>() && format!("{error:#}").contains("a scratch file in /x"), "{error:#}");
        }
        let error = told(io::ErrorKind::OutOfMemory);
        assert!(!error.is::<NoRoom>() && error.to_string().contains("may have 64 MiB"), "{error:#}");
        let of_zstd = skerry_reconstruct::ReconstructError::Patch(io::Error::other(ZSTD_NO_MEMORY));
        assert!(explain(of_zstd.into(), &request).to_string().contains("may have 64 MiB"));
        let error = told(io::ErrorKind::InvalidData);
        assert!(!error.is::<NoRoom>() && error.to_string().starts_with("applying the bundle"), "{error:#}");
    }
}
