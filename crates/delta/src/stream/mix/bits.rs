//! Arithmetic coding of single bits.

use std::io::{self, BufRead};

/// One side of the coder.
pub(super) trait Bits {
    /// Codes one bit that is set with probability `p` of 16 bits. The encoder is told it, the decoder finds it.
    fn bit(&mut self, p: u32, known: bool) -> io::Result<bool>;
}

/// The part of a range for a set bit ends here. Both parts have at least one value while the ends differ in their first byte.
#[inline]
fn split(low: u32, high: u32, p: u32) -> u32 {
    let part = (u64::from(high - low) * u64::from(p)) >> 16;
    low + u32::try_from(part).unwrap_or(0)
}

/// The writing side.
pub(super) struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: 0, high: u32::MAX, out: Vec::new() }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// The fewest bytes that say it all; the reader takes zeros for what is missing.
    pub(super) fn finish(mut self) -> Vec<u8> {
        for len in 0..=4u32 {
            let unit = 1u64 << (32 - 8 * len);
            let value = u64::from(self.low).div_ceil(unit) * unit;
            if let Some(value) = u32::try_from(value).ok().filter(|value| *value <= self.high) {
                self.out.extend_from_slice(&value.to_be_bytes()[..len as usize]);
                break;
            }
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

impl Bits for Encoder {
    #[inline]
    fn bit(&mut self, p: u32, bit: bool) -> io::Result<bool> {
        let middle = split(self.low, self.high, p);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push(self.high.to_be_bytes()[0]);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        Ok(bit)
    }
}

/// The reading side.
pub(super) struct Decoder<R> {
    low: u32,
    high: u32,
    at: u32,
    started: bool,
    from: R,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(from: R) -> Self {
        Self { low: 0, high: u32::MAX, at: 0, started: false, from }
    }

    fn next(&mut self) -> io::Result<()> {
        let byte = self.from.fill_buf()?.first().copied();
        if byte.is_some() {
            self.from.consume(1);
        }
        self.at = self.at << 8 | u32::from(byte.unwrap_or(0));
        Ok(())
    }
}

impl<R: BufRead> Bits for Decoder<R> {
    #[inline]
    fn bit(&mut self, p: u32, _: bool) -> io::Result<bool> {
        if !self.started {
            self.started = true;
            for _ in 0..4 {
                self.next()?;
            }
        }
        let middle = split(self.low, self.high, p);
        let bit = self.at <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.next()?;
        }
        Ok(bit)
    }
}
