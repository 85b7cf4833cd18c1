//! Foreign bytes, checked while they pass by.

use std::fmt;
use std::io::{self, Write};

use skerry_wire::{DiffId, limits};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::{FRAME, FRAME_MAGIC, FrameError, FrameSummary, HEADER, STORED_MAX, TABLE_MAGIC, WINDOW_LOG, table};
use crate::Sha256;

/// In the byte after the magic of a frame: a checksum of the content follows it.
const CHECKSUM: u8 = 1 << 2;

/// Takes the bytes of a file that claims to be a layer in frames, passes them on, and checks them against the expected diff_id.
///
/// What it accepts is exactly what [`super::FrameReader`] opens: the header, full frames, the one index that belongs to them, and
/// nothing after it. Memory stays under 2 MiB and the index's size; content beyond `max_size` is refused as soon as it shows.
pub struct FrameVerifier<W> {
    out: W,
    expected: DiffId,
    max_size: u64,
    state: State,
    decoder: Decoder<'static>,
    scratch: Vec<u8>,
    hash: Sha256,
    sizes: Vec<u32>,
    size: u64,
    stored: u64,
}

enum State {
    /// Of the header, this many bytes have come.
    Header(usize),
    /// The first four bytes of the next frame.
    Magic { bytes: [u8; 4], have: usize },
    /// In a frame: bytes of it stored and of content so far.
    Frame { stored: usize, content: usize },
    /// In the index: what it must be, and how much of it has come.
    Table { bytes: Vec<u8>, have: usize },
    /// An error was found; nothing more is taken.
    Broken,
}

impl<W> fmt::Debug for FrameVerifier<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameVerifier").field("size", &self.size).field("stored", &self.stored).finish_non_exhaustive()
    }
}

impl<W: Write> FrameVerifier<W> {
    /// Expects the layer `expected` of at most `max_size` bytes of content (and never more than [`limits::LAYER`]).
    pub fn new(out: W, expected: DiffId, max_size: u64) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Self {
            out,
            expected,
            max_size: max_size.min(limits::LAYER),
            state: State::Header(0),
            decoder,
            scratch: vec![0; 64 * 1024],
            hash: Sha256::new(),
            sizes: Vec::new(),
            size: 0,
            stored: 0,
        })
    }

    /// More bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.step(rest) {
                Ok(used) => {
                    rest = &rest[used..];
                    self.stored += used as u64;
                }
                Err(error) => {
                    self.state = State::Broken;
                    return Err(error);
                }
            }
        }
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// All bytes came: is it the layer, and whole? Flushes the output and gives it back.
    pub fn finish(mut self) -> Result<(W, FrameSummary), FrameError> {
        if !matches!(&self.state, State::Table { bytes, have } if *have == bytes.len()) {
            return Err(FrameError::Truncated { have: self.stored });
        }
        let actual = DiffId(self.hash.digest());
        if actual != self.expected {
            return Err(FrameError::DiffId { expected: self.expected, actual });
        }
        self.out.flush()?;
        Ok((self.out, FrameSummary { diff_id: actual, size: self.size, stored: self.stored }))
    }

    /// Takes some of `bytes`, at least one; says how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let at = self.stored;
        let damaged = |what| FrameError::Damaged { at, what };
        match &mut self.state {
            State::Header(have) => {
                let n = bytes.len().min(HEADER.len() - *have);
                if bytes[..n] != HEADER[*have..*have + n] {
                    return Err(FrameError::Header);
                }
                *have += n;
                if *have == HEADER.len() {
                    self.state = State::Magic { bytes: [0; 4], have: 0 };
                }
                Ok(n)
            }
            State::Magic { bytes: magic, have } => {
                magic[*have] = bytes[0];
                *have += 1;
                if *have == 4 {
                    let magic = *magic;
                    match u32::from_le_bytes(magic) {
                        FRAME_MAGIC => self.begin_frame(&magic)?,
                        TABLE_MAGIC => self.state = State::Table { bytes: table(&self.sizes, self.size), have: 4 },
                        _ => return Err(damaged("neither a frame nor the index")),
                    }
                }
                Ok(1)
            }
            State::Frame { .. } => self.decode(bytes),
            State::Table { bytes: expected, have } => {
                let n = bytes.len().min(expected.len() - *have);
                if n == 0 {
                    return Err(damaged("bytes after the index"));
                }
                if bytes[..n] != expected[*have..*have + n] {
                    return Err(damaged("the index is not that of its frames"));
                }
                *have += n;
                Ok(n)
            }
            State::Broken => Err(damaged("it was refused before")),
        }
    }

    fn begin_frame(&mut self, magic: &[u8; 4]) -> Result<(), FrameError> {
        if !self.size.is_multiple_of(FRAME as u64) {
            return Err(FrameError::Damaged { at: self.stored, what: "a frame that is not the last one is not full" });
        }
        self.decoder.reinit()?;
        self.state = State::Frame { stored: 0, content: 0 };
        self.decode(magic)?;
        Ok(())
    }

    /// Decodes some of `bytes`; says how many were taken.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let at = self.stored;
        let damaged = |what| FrameError::Damaged { at, what };
        let State::Frame { stored, content } = &mut self.state else { return Ok(0) };
        if *stored == FRAME_MAGIC.to_le_bytes().len() && bytes[0] & CHECKSUM == 0 {
            return Err(damaged("a frame without a checksum: damage on the disk would go unseen"));
        }
        let mut input = InBuffer::around(bytes);
        loop {
            let mut output = OutBuffer::around(self.scratch.as_mut_slice());
            let before = input.pos();
            let hint = self.decoder.run(&mut input, &mut output).map_err(|_| damaged("a frame cannot be decompressed"))?;
            let produced = output.pos();
            *stored += input.pos() - before;
            *content += produced;
            self.size += produced as u64;
            self.hash.update(&self.scratch[..produced]);
            if self.size > self.max_size {
                return Err(FrameError::TooLarge { limit: self.max_size });
            }
            if *stored > STORED_MAX || *content > FRAME {
                return Err(damaged("a frame is larger than any of version 1"));
            }
            if hint == 0 {
                if *content == 0 {
                    return Err(damaged("an empty frame"));
                }
                self.sizes.push(u32::try_from(*stored).expect("at most STORED_MAX"));
                self.state = State::Magic { bytes: [0; 4], have: 0 };
                return Ok(input.pos());
            }
            // All input is taken and the scratch was not filled: nothing is held back.
            if input.pos() == bytes.len() && produced < self.scratch.len() {
                return Ok(input.pos());
            }
            if input.pos() == before && produced == 0 {
                return Err(damaged("a frame cannot be decompressed"));
            }
        }
    }
}
