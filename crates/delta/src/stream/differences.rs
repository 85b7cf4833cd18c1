//! The stream of differences, coded as they come: beside the old bytes by mixing, and by zstd in case that they are not sparse at all.

use std::io::{self, Read, Write};

use super::coder::{self, Coder, Strip};
use super::mix::sparse;
use super::trial::Coded;

/// The level of zstd.
const LEVEL: i32 = 9;
/// What a bit of mixed differences takes whoever reads it, in nanoseconds, by strong and fast model, and any byte of them.
const STRONG_BIT: u64 = 80;
const FAST_BIT: u64 = 35;
const ZERO_BYTE: u64 = 1;

/// Differences in all ways.
pub(super) struct Differences {
    mix: sparse::Writer<{ sparse::STRONG }>,
    fast: sparse::Writer<{ sparse::FAST }>,
    zstd: zstd::stream::write::Encoder<'static, Strip<Vec<u8>>>,
    raw: u64,
}

impl Differences {
    /// How many ways the differences are coded in at once.
    pub(super) const WAYS: usize = 3;

    /// None yet; `window` is that of zstd, as a power of two.
    pub(super) fn new(window: u32) -> io::Result<Self> {
        let zstd = coder::zstd(Strip::new(Vec::new()), LEVEL, window, None)?;
        Ok(Self { mix: sparse::Writer::new(), fast: sparse::Writer::new(), zstd, raw: 0 })
    }

    /// Appends differences to the bytes in `old`.
    pub(super) fn put(&mut self, differences: &[u8], old: &[u8]) -> io::Result<()> {
        self.mix.put(differences, old)?;
        self.fast.put(differences, old)?;
        self.zstd.write_all(differences)?;
        self.raw += differences.len() as u64;
        Ok(())
    }

    /// Bytes of all ways that are held, about.
    pub(super) fn len(&self) -> usize {
        self.mix.len() + self.fast.len() + self.zstd.get_ref().inner.len()
    }

    /// By mixing if that is shorter and not too slow to read; `time` becomes less by what it takes.
    pub(super) fn finish(self, time: &mut u64) -> io::Result<Coded> {
        let costs = [(Coder::Sparse, self.mix.work() * STRONG_BIT), (Coder::FastSparse, self.fast.work() * FAST_BIT)];
        let (mixed, mut frame) = ([self.mix.finish()?, self.fast.finish()?], self.zstd.finish()?.inner);
        let raw_len = self.raw;
        let plain = Coder::Zstd(coder::window_number(20));
        if raw_len < 1 << 20 {
            // Its length was not known when the frame began, whose window may be longer than all of it: readers refuse that.
            let mut bytes = Vec::new();
            plain.decode(&frame[..], u64::MAX)?.read_to_end(&mut bytes)?;
            let mut again = coder::zstd(Strip::new(Vec::new()), LEVEL, 20, Some(raw_len))?;
            again.write_all(&bytes)?;
            frame = again.finish()?.inner;
        }
        for ((coder, needed), bytes) in costs.into_iter().zip(mixed) {
            let needed = needed + raw_len * ZERO_BYTE;
            if bytes.len() < frame.len() && needed <= *time {
                *time -= needed;
                return Ok(Coded { coder, raw_len, bytes });
            }
        }
        Ok(Coded { coder: plain, raw_len, bytes: frame })
    }
}
