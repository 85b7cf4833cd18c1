//! Uncompressed bytes in, frames out.

use std::fmt;
use std::io::{self, Write};

use skerry_wire::{DiffId, limits};

use super::{FRAME, FRAMES, FrameError, FrameSummary, HEADER, STORED_MAX, table};
use crate::Sha256;

/// Writes a layer in frames. Takes about 4 MiB of memory at the default level, whatever the layer's size.
pub struct FrameWriter<W> {
    out: W,
    compressor: zstd::bulk::Compressor<'static>,
    content: Vec<u8>,
    frame: Vec<u8>,
    sizes: Vec<u32>,
    hash: Sha256,
    size: u64,
    stored: u64,
}

impl<W> fmt::Debug for FrameWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter").field("size", &self.size).field("stored", &self.stored).finish_non_exhaustive()
    }
}

impl<W: Write> FrameWriter<W> {
    /// Writes to `out` with zstd's `level`, 1 (fast) to 19 (small).
    pub fn new(mut out: W, level: i32) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(level.clamp(1, 19))?;
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            compressor,
            content: Vec::with_capacity(FRAME),
            frame: Vec::with_capacity(STORED_MAX),
            sizes: Vec::new(),
            hash: Sha256::new(),
            size: 0,
            stored: HEADER.len() as u64,
        })
    }

    /// Ends the layer: writes the last frame and the index, flushes, and gives the output back.
    pub fn finish(mut self) -> Result<(W, FrameSummary), FrameError> {
        if !self.content.is_empty() {
            self.flush_frame()?;
        }
        let index = table(&self.sizes, self.size);
        self.out.write_all(&index)?;
        self.out.flush()?;
        let stored = self.stored + index.len() as u64;
        Ok((self.out, FrameSummary { diff_id: DiffId(self.hash.digest()), size: self.size, stored }))
    }

    fn flush_frame(&mut self) -> io::Result<()> {
        if self.sizes.len() >= FRAMES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, FrameError::TooLarge { limit: limits::LAYER }));
        }
        self.frame.clear();
        let n = self.compressor.compress_to_buffer(self.content.as_slice(), &mut self.frame)?;
        self.out.write_all(&self.frame[..n])?;
        self.sizes.push(u32::try_from(n).expect("at most STORED_MAX"));
        self.hash.update(&self.content);
        self.size += self.content.len() as u64;
        self.stored += n as u64;
        self.content.clear();
        Ok(())
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.content.len() == FRAME {
            self.flush_frame()?;
        }
        let n = buf.len().min(FRAME - self.content.len());
        self.content.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    /// Flushes what is compressed; a frame that is not full yet stays in memory until [`FrameWriter::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
