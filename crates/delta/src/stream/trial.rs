//! The best coder for a stream, found by trying.

use std::io;

use super::Stream;
use super::coder::{self, Coder, window_number};
use super::lzma::{self, Filter, Setting};
use super::mix::bytes;
use crate::progress::Watch;

/// Longer streams are not mixed: it would take too long to read them.
const MIXED: usize = 1 << 20;
/// Settings are compared on three samples of this many bytes.
const SAMPLE: usize = 384 << 10;
/// What compresses to no less than this share, in percent, is not worth the time that LZMA takes to read it.
const DENSE: usize = 90;

/// A stream, coded.
#[derive(Debug)]
pub(super) struct Coded {
    pub coder: Coder,
    pub raw_len: u64,
    pub bytes: Vec<u8>,
}

impl Coded {
    /// About how long reading takes, in nanoseconds on a small machine.
    pub(super) fn time(&self) -> u64 {
        const MIX_BYTE: u64 = 800;
        const LZMA_BYTE: u64 = 80;
        match self.coder {
            Coder::Raw => 0,
            Coder::Zstd(_) => self.raw_len * 2,
            Coder::Lzma(..) => self.bytes.len() as u64 * LZMA_BYTE + self.raw_len,
            Coder::Mix => self.raw_len * MIX_BYTE,
            // Counted when it is chosen.
            Coder::Sparse | Coder::FastSparse => 0,
        }
    }
}

/// The settings to try for a stream; none when LZMA is not for it.
fn settings(stream: Stream) -> &'static [Setting] {
    match stream {
        Stream::Dense | Stream::Frame | Stream::Difference => &[],
        Stream::Text | Stream::PathText | Stream::Link | Stream::Extras => &[(Filter::None, 4, 0), (Filter::None, 3, 0)],
        Stream::Program => &[
            (Filter::X86, 4, 0),
            (Filter::X86, 3, 2),
            (Filter::Arm64, 2, 2),
            (Filter::None, 4, 0),
            (Filter::None, 3, 2),
            (Filter::None, 1, 3),
        ],
        _ => &[(Filter::None, 4, 0), (Filter::None, 3, 0), (Filter::None, 3, 2), (Filter::None, 1, 3)],
    }
}

/// Codes all of `bytes` by zstd or LZMA with a window of at most two to `window_log`, or keeps them.
pub(super) fn best(stream: Stream, bytes: &[u8], window_log: u32, watch: Watch<'_>) -> io::Result<Coded> {
    let raw_len = bytes.len() as u64;
    if stream == Stream::Dense {
        let (coder, bytes) = coder::dense(bytes, window_log, watch)?;
        return Ok(Coded { coder, raw_len, bytes });
    }
    let setting = if bytes.len() < 64 { None } else { setting(settings(stream), bytes, window_log, watch)? };
    let mut best = match setting {
        // A long stream is not coded twice.
        Some(_) if bytes.len() > 4 << 20 => (Coder::Raw, bytes.to_vec()),
        _ => coder::plain(bytes, window_log, watch)?,
    };
    if let Some(setting) = setting {
        let coded = lzma::encode(bytes, window_log, setting, watch)?;
        if coded.len() < best.1.len() {
            best = (Coder::Lzma(setting.0, window_number(window_log)), coded);
        }
    }
    Ok(Coded { coder: best.0, raw_len, bytes: best.1 })
}

/// The best setting for samples of `bytes`; `None` when LZMA is not worth it.
fn setting(settings: &[Setting], bytes: &[u8], window_log: u32, watch: Watch<'_>) -> io::Result<Option<Setting>> {
    let Some(&first) = settings.first() else { return Ok(None) };
    let samples = if bytes.len() <= 3 * SAMPLE {
        bytes.to_vec()
    } else {
        // Whole instructions of four bytes stay at their places.
        let starts = [0, bytes.len() / 2, bytes.len() - SAMPLE].map(|start| start & !15);
        starts.map(|start| &bytes[start..start + SAMPLE]).concat()
    };
    let mut best = (usize::MAX, first);
    for &setting in settings {
        best = best.min((lzma::encode(&samples, window_log, setting, watch)?.len(), setting));
    }
    Ok((best.0 < samples.len() / 100 * DENSE || bytes.len() <= 4096).then_some(best.1))
}

/// Codes a short stream by mixing; `None` when it is too long.
pub(super) fn mixed(bytes: &[u8]) -> io::Result<Option<Coded>> {
    if bytes.len() > MIXED || bytes.len() as u64 > bytes::LIMIT {
        return Ok(None);
    }
    Ok(Some(Coded { coder: Coder::Mix, raw_len: bytes.len() as u64, bytes: bytes::encode(bytes)? }))
}
