//! What the fuzz targets share: the old layers of the fixed vectors, and patches against them as bytes that a fuzzer can change.
//!
//! `scripts/fuzz TARGET SECONDS` builds and runs a target; `seeds` writes what it begins with.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skerry_delta::TarLayer;
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::source::LayerSource;
use skerry_delta::stream::{Coder, Section, Stream};

/// The old layer.
pub const OLD: &[u8] = include_bytes!("../../crates/reconstruct/tests/vector/old.tar");
/// The layer that the seeds make.
pub const NEW: &[u8] = include_bytes!("../../crates/reconstruct/tests/vector/new.tar");
/// The old layer of archives, bytecode and a program.
pub const OLD_ARCHIVES: &[u8] = include_bytes!("../../crates/reconstruct/tests/vector/archives/old.tar");
/// The layer that the seeds of archives make.
pub const NEW_ARCHIVES: &[u8] = include_bytes!("../../crates/reconstruct/tests/vector/archives/new.tar");
/// The configurations.
pub const CONFIGS: [&[u8]; 2] =
    [include_bytes!("../../crates/reconstruct/tests/vector/old.json"), include_bytes!("../../crates/reconstruct/tests/vector/new.json")];
/// The key that signs.
pub const KEY: &str = include_str!("../../crates/reconstruct/tests/vector/key.txt");

/// A layer of these bytes.
pub fn layer(tar: &'static [u8]) -> io::Result<Box<dyn LayerSource>> {
    Ok(Box::new(TarLayer::new(move || Ok(Cursor::new(tar)))?))
}

/// Both old layers, in the order in which patches name them.
pub fn olds() -> io::Result<Vec<Box<dyn LayerSource>>> {
    [OLD, OLD_ARCHIVES].into_iter().map(layer).collect()
}

/// Scratch files in memory, of so many bytes together.
#[derive(Debug)]
pub struct Bounded(Arc<AtomicUsize>);

impl Bounded {
    /// With room for these bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }
}

impl Scratch for Bounded {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(BoundedFile { bytes: Cursor::default(), room: Arc::clone(&self.0) }))
    }
}

struct BoundedFile {
    bytes: Cursor<Vec<u8>>,
    room: Arc<AtomicUsize>,
}

impl Read for BoundedFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buf)
    }
}

impl Write for BoundedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = |room: usize| room.checked_sub(bytes.len());
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| io::ErrorKind::StorageFull)?;
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for BoundedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// Bytes of a section that stand in a patch.
const HEAD: usize = 6;

/// Writes a section: stream, coder, the bytes before coding beyond those that follow, the bytes that follow, those.
pub fn put(out: &mut Vec<u8>, stream: Stream, coder: Coder, raw_len: u64, coded: &[u8]) {
    for coded in coded.chunks(usize::from(u16::MAX)) {
        out.push(stream as u8);
        out.push(coder.number());
        out.extend(u16::try_from(raw_len.saturating_sub(coded.len() as u64)).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(u16::try_from(coded.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(coded);
    }
}

/// Reads the sections, of coders that `takes` names; others are taken as plain bytes, so that few changes are without effect.
pub fn sections(mut data: &[u8], takes: impl Fn(Coder) -> bool) -> (Vec<Section>, Vec<&[u8]>) {
    let (mut sections, mut bytes) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = data.split_first_chunk::<HEAD>() {
        let [stream, coder, more_low, more_high, len_low, len_high] = *head;
        let len = usize::from(u16::from_le_bytes([len_low, len_high])).min(rest.len());
        let (coded, after) = rest.split_at(len);
        let stream = Stream::from_number(stream % 32).unwrap_or(Stream::Flags);
        let coder = Coder::from_number(coder).filter(|coder| takes(*coder)).unwrap_or(Coder::Raw);
        let more = if coder == Coder::Raw { 0 } else { u64::from(u16::from_le_bytes([more_low, more_high])) };
        sections.push(Section { stream, coder, raw_len: len as u64 + more, len: len as u64 });
        bytes.push(coded);
        data = after;
    }
    (sections, bytes)
}
