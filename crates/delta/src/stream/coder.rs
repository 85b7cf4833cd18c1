//! The coders of streams.

use std::io::{self, BufRead, Cursor, Read, Write};

use super::lzma::{self, Filter};
use super::mix::{bytes, sparse};
use crate::progress::Watch;

/// The largest window that a reader may need, as a power of two: 8 MiB.
pub const MAX_WINDOW_LOG: u32 = 23;
/// The smallest.
const MIN_WINDOW_LOG: u32 = 10;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How the bytes of a stream are coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coder {
    /// As they are.
    Raw,
    /// One zstd frame without its magic number, whose window is at most two to this power.
    Zstd(u8),
    /// LZMA behind a filter, with such a window.
    Lzma(Filter, u8),
    /// Context mixing, of short streams.
    Mix,
    /// Context mixing of differences beside old bytes.
    Sparse,
    /// The same with fewer contexts, faster.
    FastSparse,
}

/// Numbers of LZMA coders begin here, by filter; the window's logarithm is added.
const LZMA: [(u8, Filter); 3] = [(32, Filter::None), (64, Filter::X86), (96, Filter::Arm64)];
const MIX: u8 = 128;
const SPARSE: u8 = 129;
const FAST_SPARSE: u8 = 130;

impl Coder {
    /// The coder with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        let windows = MIN_WINDOW_LOG..=MAX_WINDOW_LOG;
        match number {
            0 => Some(Self::Raw),
            MIX => Some(Self::Mix),
            SPARSE => Some(Self::Sparse),
            FAST_SPARSE => Some(Self::FastSparse),
            _ if windows.contains(&u32::from(number)) => Some(Self::Zstd(number)),
            _ => LZMA.iter().find_map(|&(first, filter)| {
                let window = number.checked_sub(first).filter(|window| windows.contains(&u32::from(*window)))?;
                Some(Self::Lzma(filter, window))
            }),
        }
    }

    /// Its number: 0 for raw, the window's logarithm for zstd, that plus 32, 64 or 96 for LZMA by filter, 128 to 130 for mixing.
    pub fn number(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd(window) => window,
            Self::Lzma(filter, window) => window + LZMA.iter().find(|(_, known)| *known == filter).map_or(0, |(first, _)| *first),
            Self::Mix => MIX,
            Self::Sparse => SPARSE,
            Self::FastSparse => FAST_SPARSE,
        }
    }

    /// Bytes of memory that reading needs.
    pub fn memory(self, raw_len: u64) -> u64 {
        match self {
            Self::Raw => 0,
            // The window, a block on either side, and the decoder's tables.
            Self::Zstd(window) => (1u64 << window).min(raw_len) + (2 * (128 << 10)).min(raw_len.saturating_mul(2)) + (160 << 10),
            Self::Lzma(_, window) => lzma::memory(window, raw_len),
            Self::Mix => bytes::memory(raw_len),
            Self::Sparse => sparse::memory::<{ sparse::STRONG }>(),
            Self::FastSparse => sparse::memory::<{ sparse::FAST }>(),
        }
    }

    /// A reader of the `raw_len` decoded bytes. Differences are not read like this: the sparse coders are refused.
    pub(super) fn decode<'a>(self, coded: impl BufRead + Send + 'a, raw_len: u64) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Raw => Box::new(coded),
            Self::Zstd(window) => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(Cursor::new(MAGIC).chain(coded))?.single_frame();
                // The frame says its window itself: memory for one that is longer than the bytes was not counted.
                decoder.window_log_max(u32::from(window).min(window_for(raw_len)))?;
                Box::new(decoder)
            }
            Self::Lzma(filter, window) => lzma::decode(coded, raw_len, window, filter)?,
            Self::Mix => Box::new(bytes::Reader::new(coded, raw_len)?),
            Self::Sparse | Self::FastSparse => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a stream is coded as differences that has none"));
            }
        })
    }
}

/// Codes all of `bytes` by zstd, or keeps them as they are when that is no longer.
pub(super) fn plain(bytes: &[u8], window_log: u32, watch: Watch<'_>) -> io::Result<(Coder, Vec<u8>)> {
    let mut best = (Coder::Raw, bytes.to_vec());
    // The strongest levels cost the most time per byte; beyond this length they gain nothing that is worth it.
    let levels: &[i32] = if bytes.len() <= 1 << 20 { &[19, 22] } else { &[19] };
    for &level in levels {
        let frame = encode(bytes, level, window_log, watch)?;
        if frame.len() < best.1.len() {
            best = (Coder::Zstd(window_number(window_log)), frame);
        }
    }
    Ok(best)
}

/// Codes what hardly compresses: by a quick level, and only where that finds something as thoroughly as anything else.
pub(super) fn dense(bytes: &[u8], window_log: u32, watch: Watch<'_>) -> io::Result<(Coder, Vec<u8>)> {
    const QUICK: i32 = 3;
    const SHORT: usize = 256 << 10;
    if bytes.len() < SHORT {
        return plain(bytes, window_log, watch);
    }
    let frame = encode(bytes, QUICK, window_log, watch)?;
    if frame.len() < bytes.len() - bytes.len() / 64 {
        return plain(bytes, window_log, watch);
    }
    let smaller = frame.len() < bytes.len();
    Ok(if smaller { (Coder::Zstd(window_number(window_log)), frame) } else { (Coder::Raw, bytes.to_vec()) })
}

/// One frame of zstd, without its magic number.
fn encode(bytes: &[u8], level: i32, window_log: u32, watch: Watch<'_>) -> io::Result<Vec<u8>> {
    let mut frame = Strip::new(Vec::new());
    let mut encoder = zstd(&mut frame, level, window_log, Some(bytes.len() as u64))?;
    watch.feed(bytes, &mut encoder)?;
    encoder.finish()?;
    Ok(frame.inner)
}

/// A zstd encoder as every stream uses it.
pub(super) fn zstd<W: Write>(
    to: W,
    level: i32,
    window_log: u32,
    size: Option<u64>,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    use zstd::zstd_safe::CParameter;
    let mut encoder = zstd::stream::write::Encoder::new(to, level)?;
    encoder.include_checksum(false)?;
    encoder.set_pledged_src_size(size)?;
    encoder.set_parameter(CParameter::WindowLog(window_log))?;
    Ok(encoder)
}

/// The smallest window that holds so many bytes, within what is allowed.
pub(super) fn window_for(len: u64) -> u32 {
    len.clamp(1, 1 << MAX_WINDOW_LOG).next_power_of_two().ilog2().clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG)
}

pub(super) fn window_number(window_log: u32) -> u8 {
    u8::try_from(window_log.clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG)).expect("clamped to two digits")
}

/// Leaves out the magic number at the start of a frame.
pub(super) struct Strip<W> {
    pub(super) inner: W,
    skipped: usize,
}

impl<W> Strip<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, skipped: 0 }
    }
}

impl<W: Write> Write for Strip<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let skip = (MAGIC.len() - self.skipped).min(buf.len());
        self.skipped += skip;
        self.inner.write_all(&buf[skip..])?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_any_length_is_a_number() {
        for coder in (0..=u8::MAX).filter_map(Coder::from_number) {
            let (short, long) = (coder.memory(1000), coder.memory(u64::MAX));
            assert!(short <= long, "{coder:?}: {short} {long}");
        }
    }

    #[test]
    fn a_frame_takes_no_longer_window_than_its_bytes_need() {
        // A level that looks at all of the window, and no word of the length.
        let mut frame = Strip::new(Vec::new());
        let mut encoder = zstd(&mut frame, 9, 20, None).unwrap();
        encoder.write_all(&[1; 40_000]).unwrap();
        encoder.finish().unwrap();
        let read = |raw_len: u64| {
            let mut bytes = Vec::new();
            Coder::Zstd(20).decode(&frame.inner[..], raw_len).unwrap().read_to_end(&mut bytes).map(|_| bytes.len())
        };
        assert!(read(40_000).is_err());
        assert_eq!(read(1 << 20).unwrap(), 40_000);
    }

    #[test]
    fn numbers_come_back() {
        let known: Vec<_> = (0..=u8::MAX).filter_map(|number| Coder::from_number(number).map(|coder| (number, coder))).collect();
        assert_eq!(known.len(), 1 + 14 * 4 + 3);
        assert!(known.iter().all(|(number, coder)| coder.number() == *number));
    }
}
