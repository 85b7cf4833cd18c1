//! Writing the streams of a patch.

use std::io::{self, Write};

use super::coder::{self, Coder, MAX_WINDOW_LOG, Strip};
use super::{Section, Stream};
use crate::varint;

/// A stream of at most this many bytes goes into the pack.
const PACKED: usize = 16 * 1024;
/// The pack's own bound, below what readers accept.
const PACK: usize = 512 * 1024;
/// A stream is kept as it is up to this many bytes, to choose its coder when all of it is known; beyond, it is coded as it comes.
const HELD: usize = 48 << 20;

/// Where the bytes of one stream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSize {
    /// Which stream.
    pub stream: Stream,
    /// Bytes before coding.
    pub raw: u64,
    /// Bytes in the bundle; within the pack, its share by length.
    pub coded: u64,
}

/// The coded streams of a patch.
#[derive(Debug)]
pub struct Written {
    /// The sections, in the order of their bytes.
    pub sections: Vec<Section>,
    /// Their bytes, in the same order.
    pub bytes: Vec<Vec<u8>>,
    /// The size of each stream, for people.
    pub sizes: Vec<StreamSize>,
}

enum Buffer {
    Held(Vec<u8>),
    Coding { encoder: Box<zstd::stream::write::Encoder<'static, Strip<Vec<u8>>>>, raw: u64 },
}

/// The streams of a patch while it is made.
pub struct StreamsWriter {
    buffers: Vec<Buffer>,
}

impl Default for StreamsWriter {
    fn default() -> Self {
        Self { buffers: Stream::ALL.iter().map(|_| Buffer::Held(Vec::new())).collect() }
    }
}

impl StreamsWriter {
    /// Appends bytes to a stream.
    pub fn put(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let buffer = &mut self.buffers[stream as usize];
        if let Buffer::Held(held) = buffer {
            if held.len() + bytes.len() <= HELD {
                held.extend_from_slice(bytes);
                return Ok(());
            }
            let mut encoder = coder::zstd(Strip::new(Vec::new()), 19, MAX_WINDOW_LOG - 1, None)?;
            encoder.write_all(held)?;
            *buffer = Buffer::Coding { raw: held.len() as u64, encoder: Box::new(encoder) };
        }
        if let Buffer::Coding { encoder, raw } = buffer {
            encoder.write_all(bytes)?;
            *raw += bytes.len() as u64;
        }
        Ok(())
    }

    /// Appends a number.
    pub fn number(&mut self, stream: Stream, value: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(10);
        varint::put(&mut bytes, value);
        self.put(stream, &bytes)
    }

    /// Appends a signed number.
    pub fn signed(&mut self, stream: Stream, value: i64) -> io::Result<()> {
        self.number(stream, varint::zigzag(value))
    }

    /// Codes all streams. Their windows together stay within `memory` bytes for whoever reads them.
    pub fn finish(self, memory: u64) -> io::Result<Written> {
        let mut written = Written { sections: Vec::new(), bytes: Vec::new(), sizes: Vec::new() };
        let mut packed = Vec::new();
        let mut alone = Vec::new();
        let mut room = PACK;
        for (buffer, &stream) in self.buffers.into_iter().zip(&Stream::ALL) {
            match buffer {
                Buffer::Held(bytes) if bytes.is_empty() => {}
                Buffer::Held(bytes) if bytes.len() <= PACKED.min(room) => {
                    room -= bytes.len();
                    packed.push((stream, bytes));
                }
                buffer => alone.push((stream, buffer)),
            }
        }
        if !packed.is_empty() {
            let pack = pack(&packed);
            let (coder, bytes) = coder::encode(&pack, window_for(pack.len() as u64))?;
            let share = |len: usize| (len as u64 * bytes.len() as u64) / pack.len() as u64;
            written.sizes.extend(packed.iter().map(|(stream, raw)| StreamSize {
                stream: *stream,
                raw: raw.len() as u64,
                coded: share(raw.len()),
            }));
            written.sections.push(Section { stream: Stream::Pack, coder, raw_len: pack.len() as u64, len: bytes.len() as u64 });
            written.bytes.push(bytes);
        }
        let windows = windows(&alone, memory);
        for ((stream, buffer), window) in alone.into_iter().zip(windows) {
            let (raw_len, coder, bytes) = match buffer {
                Buffer::Held(raw) => {
                    let (coder, bytes) = coder::encode(&raw, window)?;
                    (raw.len() as u64, coder, bytes)
                }
                Buffer::Coding { encoder, raw } => (raw, Coder::Zstd(coder::window_number(MAX_WINDOW_LOG - 1)), encoder.finish()?.inner),
            };
            written.sizes.push(StreamSize { stream, raw: raw_len, coded: bytes.len() as u64 });
            written.sections.push(Section { stream, coder, raw_len, len: bytes.len() as u64 });
            written.bytes.push(bytes);
        }
        Ok(written)
    }
}

/// The smallest window that holds all of a stream, within what is allowed.
fn window_for(len: u64) -> u32 {
    len.max(1).next_power_of_two().ilog2().clamp(10, MAX_WINDOW_LOG)
}

/// A window for each stream: as large as it can use, the longest streams first, while memory lasts.
fn windows(streams: &[(Stream, Buffer)], memory: u64) -> Vec<u32> {
    let len = |buffer: &Buffer| match buffer {
        Buffer::Held(raw) => raw.len() as u64,
        Buffer::Coding { .. } => u64::MAX,
    };
    let mut order: Vec<_> = (0..streams.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(len(&streams[i].1)));
    let mut windows: Vec<u32> =
        streams.iter().map(|(_, buffer)| if matches!(buffer, Buffer::Coding { .. }) { MAX_WINDOW_LOG - 1 } else { 17 }).collect();
    let used = |windows: &[u32]| -> u64 {
        windows.iter().zip(streams).map(|(&w, (_, buffer))| Coder::Zstd(coder::window_number(w)).memory(len(buffer))).sum()
    };
    // Everyone grows by one step in turn, so that a few long streams do not starve the others.
    let mut grown = true;
    while grown {
        grown = false;
        for &i in &order {
            if matches!(streams[i].1, Buffer::Held(_)) && windows[i] < window_for(len(&streams[i].1)) {
                windows[i] += 1;
                if used(&windows) <= memory {
                    grown = true;
                } else {
                    windows[i] -= 1;
                }
            }
        }
    }
    windows
}

fn pack(streams: &[(Stream, Vec<u8>)]) -> Vec<u8> {
    let mut pack = Vec::new();
    for (stream, bytes) in streams {
        pack.push(*stream as u8);
        varint::put(&mut pack, bytes.len() as u64);
    }
    pack.push(0);
    for (_, bytes) in streams {
        pack.extend_from_slice(bytes);
    }
    pack
}

impl std::fmt::Debug for StreamsWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamsWriter").finish_non_exhaustive()
    }
}
