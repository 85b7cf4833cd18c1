//! The uncompressed bytes, from any position.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::{ENTRY, FOOTER, FOOTER_MAGIC, FRAME, FRAMES, FrameError, HEADER, HEADER_SIZE, STORED_MAX, TABLE_MAGIC};

/// Reads a layer in frames. Holds one frame (1 MiB) and the index (8 bytes per MiB of the layer).
///
/// The index is checked when it is opened and each frame by its checksum when it is read; that the content is the right one is not
/// checked here ([`super::FrameVerifier`] did it when the layer came in).
pub struct FrameReader<R> {
    inner: R,
    /// Where each frame starts in the file, and where the last one ends.
    starts: Vec<u64>,
    size: u64,
    position: u64,
    decompressor: zstd::bulk::Decompressor<'static>,
    stored: Vec<u8>,
    content: Vec<u8>,
    /// The frame in `content`.
    cached: Option<usize>,
}

impl<R> fmt::Debug for FrameReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader").field("size", &self.size).field("position", &self.position).finish_non_exhaustive()
    }
}

impl<R: Read + Seek> FrameReader<R> {
    /// Reads the index.
    pub fn open(mut inner: R) -> Result<Self, FrameError> {
        let end = inner.seek(SeekFrom::End(0))?;
        if end < (HEADER.len() + 8 + ENTRY + FOOTER) as u64 {
            return Err(FrameError::Truncated { have: end });
        }
        let mut header = [0; HEADER.len()];
        inner.seek(SeekFrom::Start(0))?;
        inner.read_exact(&mut header)?;
        if header != HEADER {
            return Err(FrameError::Header);
        }
        let mut footer = [0; FOOTER];
        inner.seek(SeekFrom::Start(end - FOOTER as u64))?;
        inner.read_exact(&mut footer)?;
        if word(&footer, 5) != FOOTER_MAGIC {
            return Err(FrameError::Truncated { have: end });
        }
        let damaged = |at, what| FrameError::Damaged { at, what };
        let entries = word(&footer, 0) as usize;
        if footer[4] != 0 || entries == 0 || entries > FRAMES + 1 {
            return Err(damaged(end - FOOTER as u64, "its index has flags or a number of entries that version 1 has not"));
        }
        let length = entries * ENTRY + FOOTER;
        let table_at = end.checked_sub(length as u64 + 8).ok_or(FrameError::Truncated { have: end })?;
        let mut bytes = vec![0; length + 8];
        inner.seek(SeekFrom::Start(table_at))?;
        inner.read_exact(&mut bytes)?;
        if word(&bytes, 0) != TABLE_MAGIC || word(&bytes, 4) as usize != length || word(&bytes, 8) != HEADER_SIZE || word(&bytes, 12) != 0 {
            return Err(damaged(table_at, "its index does not begin where its length says"));
        }
        let (mut at, mut size) = (u64::from(HEADER_SIZE), 0);
        let mut starts = Vec::with_capacity(entries);
        for i in 1..entries {
            let (stored, content) = (word(&bytes, 8 + i * ENTRY) as usize, word(&bytes, 12 + i * ENTRY) as usize);
            let full = if i + 1 == entries { (1..=FRAME).contains(&content) } else { content == FRAME };
            if !full || stored == 0 || stored > STORED_MAX {
                return Err(damaged(table_at, "an entry of its index has a size that no frame has"));
            }
            starts.push(at);
            at += stored as u64;
            size += content as u64;
        }
        starts.push(at);
        if at != table_at {
            return Err(damaged(table_at, "the frames of its index are not those of the file"));
        }
        let (decompressor, stored, content) = (zstd::bulk::Decompressor::new()?, Vec::new(), Vec::new());
        Ok(Self { inner, starts, size, position: 0, decompressor, stored, content, cached: None })
    }

    /// Bytes of content.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn load(&mut self, frame: usize) -> io::Result<()> {
        self.cached = None;
        let (start, end) = (self.starts[frame], self.starts[frame + 1]);
        let expected = (self.size - (frame * FRAME) as u64).min(FRAME as u64);
        self.stored.resize(usize::try_from(end - start).expect("at most STORED_MAX"), 0);
        self.inner.seek(SeekFrom::Start(start))?;
        self.inner.read_exact(&mut self.stored)?;
        self.content.clear();
        self.content.reserve(FRAME);
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, FrameError::Damaged { at: start, what });
        let n = self
            .decompressor
            .decompress_to_buffer(&self.stored, &mut self.content)
            .map_err(|_| damaged("a frame cannot be decompressed"))?;
        if n as u64 != expected {
            return Err(damaged("a frame has not the content that the index says"));
        }
        self.cached = Some(frame);
        Ok(())
    }
}

impl<R: Read + Seek> Read for FrameReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size || buf.is_empty() {
            return Ok(0);
        }
        let frame = usize::try_from(self.position / FRAME as u64).expect("at most FRAMES");
        if self.cached != Some(frame) {
            self.load(frame)?;
        }
        let from = usize::try_from(self.position % FRAME as u64).expect("less than FRAME");
        let n = buf.len().min(self.content.len() - from);
        buf[..n].copy_from_slice(&self.content[from..from + n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl<R: Read + Seek> Seek for FrameReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.size.checked_add_signed(n),
            SeekFrom::Current(n) => self.position.checked_add_signed(n),
        };
        self.position = position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the start"))?;
        Ok(self.position)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
