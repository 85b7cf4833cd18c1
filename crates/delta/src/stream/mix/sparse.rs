//! Differences beside the old bytes that they are differences to.
//!
//! The differences are cut into blocks of 32. A flag says whether a block has any byte that is not zero; if so, each of its bytes has
//! a flag, and those that are not zero a value. Old bytes say much of both: addresses in code stand after the same few opcodes, and
//! what was added to one value is mostly added to its neighbours, with a carry that the old bytes tell.
//!
//! There are two models. [`STRONG`] asks eight contexts for each bit. [`FAST`] asks four, and only where a flag is not nearly certain
//! by a table of its own: for whoever has little else to do than to decode differences.

use std::io::{self, BufRead};

use super::engine::{Engine, Place, hash};
use super::{Bits, Decoder, Encoder};

const BLOCK: usize = 32;
/// So many past bytes are remembered.
const RING: usize = 256;
/// Contexts of a block's flag.
const BLOCKS: usize = 4;
/// Contexts of a byte's flag and of its value: the two models.
pub(in super::super) const STRONG: usize = 8;
pub(in super::super) const FAST: usize = 4;
const BLOCK_SLOTS: u32 = 14;
/// Slots for flags and values as a power of two; those of the fast model stay near the processor.
const fn slots(contexts: usize) -> [u32; 2] {
    if contexts == FAST { [16, 16] } else { [18, 17] }
}
/// Probabilities for flags, as a power of two, where a first look decides.
const LOOKS: u32 = 14;
/// A flag is nearly certain below this, of 2^16.
const CERTAIN: u32 = 1 << 11;
const BLOCK_WEIGHTS: [usize; 2] = [64, 0];
const FLAG_WEIGHTS: [usize; 2] = [1024, 256];
const VALUE_WEIGHTS: [usize; 2] = [256, 1024];

/// Bytes of memory of either side.
pub(in super::super) const fn memory<const N: usize>() -> u64 {
    Engine::<BLOCKS>::memory(BLOCK_SLOTS, BLOCK_WEIGHTS)
        + Engine::<N>::memory(slots(N)[0], FLAG_WEIGHTS)
        + Engine::<N>::memory(slots(N)[1], VALUE_WEIGHTS)
        + (2 << LOOKS)
}

struct Model<const N: usize> {
    blocks: Engine<BLOCKS>,
    flags: Engine<N>,
    values: Engine<N>,
    /// Of [`FAST`]: the first look at a flag.
    looks: Box<[u16]>,
    looked: u64,
    /// Zero or not, of the last 32 blocks and bytes; the last one is the lowest bit.
    block_history: u32,
    byte_history: u32,
    difference: [u8; RING],
    side: [u8; RING],
    at: usize,
    /// Zeros since the last byte that was not, and before it, and before that one.
    gaps: [u32; 3],
    /// The last four values.
    last: u32,
}

/// A first look before anything is known.
const LOOK: u16 = 1 << 14;

/// A number on a scale that becomes coarser.
fn scale(n: u32) -> u32 {
    if n < 16 { n } else { 12 + (32 - n.leading_zeros()) }
}

impl<const N: usize> Model<N> {
    fn new() -> Self {
        Self {
            blocks: Engine::new(BLOCK_SLOTS, BLOCK_WEIGHTS, 60),
            flags: Engine::new(slots(N)[0], FLAG_WEIGHTS, 60),
            values: Engine::new(slots(N)[1], VALUE_WEIGHTS, 30),
            looks: vec![LOOK; if N == FAST { 1 << LOOKS } else { 0 }].into(),
            looked: 0,
            block_history: 0,
            byte_history: 0,
            difference: [0; RING],
            side: [0; RING],
            at: 0,
            gaps: [0; 3],
            last: 0,
        }
    }

    /// Whether the next block has a byte that is not zero.
    fn block<B: Bits>(&mut self, bits: &mut B, known: bool) -> io::Result<bool> {
        let past = self.block_history;
        let lines = [
            hash(1, past & 0xff),
            hash(2, past & 0xffff),
            hash(3, scale(self.gaps[0]) << 6 | scale(self.gaps[1])),
            hash(4, (past & 0xffff).count_ones() << 6 | past & 3),
        ];
        let weights = [(past & 63) as usize, 0];
        let bit = self.blocks.bit(bits, &Place { lines: &lines, step: None, weights }, known)?;
        self.block_history = past << 1 | u32::from(bit);
        Ok(bit)
    }

    /// A difference some bytes ago.
    fn difference(&self, ago: usize) -> u32 {
        u32::from(self.difference[self.at.wrapping_sub(ago) % RING])
    }

    /// An old byte some bytes ago.
    fn side(&self, ago: usize) -> u32 {
        u32::from(self.side[self.at.wrapping_sub(ago) % RING])
    }

    fn push(&mut self, difference: u8, side: u8) {
        self.difference[self.at % RING] = difference;
        self.side[self.at % RING] = side;
        self.at = self.at.wrapping_add(1);
        self.byte_history = self.byte_history << 1 | u32::from(difference != 0);
        if difference == 0 {
            self.gaps[0] = self.gaps[0].saturating_add(1);
        } else {
            self.gaps = [0, self.gaps[0], self.gaps[1]];
            self.last = self.last << 8 | u32::from(difference);
        }
    }

    /// So many differences of a block that is all zero.
    fn zeros(&mut self, side: &[u8], len: usize) {
        for i in 0..len {
            self.difference[self.at % RING] = 0;
            self.side[self.at % RING] = side.get(i).copied().unwrap_or(0);
            self.at = self.at.wrapping_add(1);
        }
        self.byte_history = if len < 32 { self.byte_history << len } else { 0 };
        self.gaps[0] = self.gaps[0].saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// A flag as the first look has it; `None` when that is not nearly certain. The place is learnt from by [`learn`](Self::learn).
    fn look<B: Bits>(&mut self, bits: &mut B, known: bool) -> io::Result<(usize, Option<bool>)> {
        if N != FAST {
            return Ok((0, None));
        }
        let place = hash(9, self.side(1) | (self.byte_history & 3) << 8 | self.gaps[0].min(15) << 10) as usize & (self.looks.len() - 1);
        let p = u32::from(self.looks[place]);
        if p >= CERTAIN {
            return Ok((place, None));
        }
        self.looked += 1;
        Ok((place, Some(bits.bit(p, known)?)))
    }

    fn learn(&mut self, place: usize, bit: bool) {
        if let Some(look) = self.looks.get_mut(place) {
            let target = if bit { 65_504 } else { 0 };
            let moved = i32::from(*look) + ((target - i32::from(*look)) >> 5);
            *look = u16::try_from(moved.max(24)).unwrap_or(LOOK);
        }
    }

    /// The next difference in a block that has one which is not zero. `certain`: this is the last one and all others were zero.
    fn byte<B: Bits>(&mut self, bits: &mut B, side: u8, certain: bool, known: u8) -> io::Result<u8> {
        let past = self.byte_history;
        let s0 = u32::from(side);
        let [d1, d2, d3, d4, d8] = [1, 2, 3, 4, 8].map(|ago| self.difference(ago));
        let [s1, s2, s3, s4] = [1, 2, 3, 4].map(|ago| self.side(ago));
        let carry = u32::from(s1 + d1 > 255);
        let [gap, gap1, gap2] = self.gaps.map(scale);
        if !certain {
            let (place, looked) = self.look(bits, known != 0)?;
            let bit = match looked {
                Some(bit) => bit,
                None => {
                    let far = [24, 16, 12].iter().fold(0, |far, &ago| far << 1 | u32::from(self.difference(ago) != 0));
                    let near = hash(2, s0 | s1 << 8 | (past & 15) << 16);
                    let before = hash(3, s1 | s2 << 8 | s3 << 16 | (past & 7) << 24);
                    let changes = hash(5, d1 | d2 << 8 | d3 << 16 | carry << 24);
                    let row = hash(7, d8 | d4 << 8 | far << 16 | (past & 7) << 19);
                    let lines = if N == FAST {
                        pick([near, before, changes, row])
                    } else {
                        pick([
                            hash(1, past & 0xfff),
                            near,
                            before,
                            hash(hash(4, s1 | s2 << 8 | s3 << 16 | s4 << 24), s0),
                            changes,
                            hash(6, gap | gap1 << 6 | gap2 << 12),
                            row,
                            hash(8, s0 | s1 << 8 | s2 << 16 | gap.min(15) << 24),
                        ])
                    };
                    let weights = [(past & 1023) as usize, s1 as usize];
                    self.flags.bit(bits, &Place { lines: &lines, step: None, weights }, known != 0)?
                }
            };
            self.learn(place, bit);
            if !bit {
                self.push(0, side);
                return Ok(0);
            }
        }
        let values = hash(13, self.last & 0xffff);
        let here = hash(14, s0 | d1 << 8);
        let before = hash(15, s0 | s1 << 8 | s2 << 16 | (past & 3) << 24);
        let row = hash(17, d8 | d4 << 8 | (past & 7) << 16);
        let contexts = if N == FAST {
            pick([values, here, before, row])
        } else {
            pick([
                hash(11, d1 | carry << 8),
                hash(12, d1 | d2 << 8 | carry << 16),
                values,
                here,
                before,
                hash(hash(16, s0 | s1 << 8 | s2 << 16 | s3 << 24), d1),
                row,
                hash(18, self.last & 0xff | gap << 8 | gap1 << 16),
            ])
        };
        let weights = |done: u32| {
            let bits = done.ilog2();
            let step = if bits < 4 { done } else { done & 15 | 16 };
            [done as usize & 255, ((past & 7) << 7 | bits << 4 | step & 15) as usize]
        };
        let value = self.values.byte(bits, &contexts, weights, known)?;
        self.push(value, side);
        Ok(value)
    }

    fn work(&self) -> u64 {
        self.blocks.work + self.flags.work + self.values.work + self.looked / 4
    }
}

/// As many contexts as a model has, of as many.
#[inline]
fn pick<const N: usize, const M: usize>(contexts: [u32; M]) -> [u32; N] {
    std::array::from_fn(|i| contexts[i % M])
}

/// The writing side.
pub(in super::super) struct Writer<const N: usize> {
    model: Model<N>,
    encoder: Encoder,
    /// Differences and old bytes of a block that is not yet full.
    waiting: Vec<(u8, u8)>,
}

impl<const N: usize> Writer<N> {
    pub(in super::super) fn new() -> Self {
        Self { model: Model::new(), encoder: Encoder::new(), waiting: Vec::with_capacity(BLOCK) }
    }

    /// Appends differences beside old bytes; missing old bytes are zero.
    pub(in super::super) fn put(&mut self, differences: &[u8], side: &[u8]) -> io::Result<()> {
        let side = side.iter().copied().chain(std::iter::repeat(0));
        for pair in differences.iter().copied().zip(side) {
            self.waiting.push(pair);
            if self.waiting.len() == BLOCK {
                self.block()?;
            }
        }
        Ok(())
    }

    fn block(&mut self) -> io::Result<()> {
        let any = self.waiting.iter().any(|(difference, _)| *difference != 0);
        self.model.block(&mut self.encoder, any)?;
        if !any {
            let side: Vec<u8> = self.waiting.drain(..).map(|(_, side)| side).collect();
            self.model.zeros(&side, side.len());
            return Ok(());
        }
        let last = self.waiting.len() - 1;
        let mut zeros = true;
        for (i, (difference, side)) in self.waiting.drain(..).enumerate() {
            self.model.byte(&mut self.encoder, side, zeros && i == last, difference)?;
            zeros &= difference == 0;
        }
        Ok(())
    }

    /// Bits that a reader will decode, as a measure of its time.
    pub(in super::super) fn work(&self) -> u64 {
        self.model.work()
    }

    /// Coded bytes so far.
    pub(in super::super) fn len(&self) -> usize {
        self.encoder.len()
    }

    /// The coded bytes.
    pub(in super::super) fn finish(mut self) -> io::Result<Vec<u8>> {
        if !self.waiting.is_empty() {
            self.block()?;
        }
        Ok(self.encoder.finish())
    }
}

/// The reading side.
pub(in super::super) struct Reader<R, const N: usize> {
    model: Model<N>,
    decoder: Decoder<R>,
    /// Differences not yet read.
    left: u64,
    /// Of them in this block.
    in_block: usize,
    /// This block has a byte that is not zero, and none was met.
    any: bool,
    zeros: bool,
}

impl<R: BufRead, const N: usize> Reader<R, N> {
    /// Of so many differences.
    pub(in super::super) fn new(coded: R, len: u64) -> Self {
        Self { model: Model::new(), decoder: Decoder::new(coded), left: len, in_block: 0, any: false, zeros: true }
    }

    /// Reads as many differences as there are in `out` or still to come, beside these old bytes; missing ones are zero.
    pub(in super::super) fn read(&mut self, out: &mut [u8], side: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            if self.in_block == 0 {
                if self.left == 0 {
                    break;
                }
                self.in_block = usize::try_from(self.left).unwrap_or(usize::MAX).min(BLOCK);
                self.left -= self.in_block as u64;
                self.any = self.model.block(&mut self.decoder, false)?;
                self.zeros = true;
            }
            let len = self.in_block.min(out.len() - done);
            self.in_block -= len;
            if !self.any {
                out[done..done + len].fill(0);
                self.model.zeros(side.get(done..).unwrap_or_default(), len);
                done += len;
                continue;
            }
            for (i, out) in out[done..done + len].iter_mut().enumerate() {
                let side = side.get(done + i).copied().unwrap_or(0);
                let last = self.in_block == 0 && i + 1 == len;
                *out = self.model.byte(&mut self.decoder, side, self.zeros && last, 0)?;
                self.zeros &= *out == 0;
            }
            done += len;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip<const N: usize>(pairs: &[(u8, u8)], step: usize) -> usize {
        let (differences, side): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let mut writer = Writer::<N>::new();
        for (differences, side) in differences.chunks(7).zip(side.chunks(7)) {
            writer.put(differences, side).unwrap();
        }
        let coded = writer.finish().unwrap();
        let mut reader = Reader::<_, N>::new(&coded[..], differences.len() as u64);
        let mut back = vec![1; differences.len()];
        for (back, side) in back.chunks_mut(step).zip(side.chunks(step)) {
            assert_eq!(reader.read(back, side).unwrap(), back.len());
        }
        assert_eq!(back, differences);
        assert_eq!(reader.read(&mut [0], &[0]).unwrap(), 0);
        coded.len()
    }

    #[test]
    fn old_bytes_tell_what_changes() {
        // What follows an 0xe8 changes by 3, everything else stays.
        let noise = (0..40_000u32).map(|i| (hash(i, 5) >> 24).to_le_bytes()[0]);
        let mut last = 0;
        let pairs: Vec<_> = noise.map(|byte| (if std::mem::replace(&mut last, byte) == 0xe8 { 3 } else { 0 }, byte)).collect();
        assert!(round_trip::<STRONG>(&pairs, 1000) < 260);
        assert!(round_trip::<FAST>(&pairs, 1000) < 400);
        assert!(round_trip::<STRONG>(&[(0, 7); 40_000], 333) < 10);
        assert!(round_trip::<FAST>(&[(0, 7); 40_000], 333) < 10);
    }

    proptest! {
        #[test]
        fn any_differences(pairs in proptest::collection::vec((prop_oneof![9 => Just(0u8), 1 => any::<u8>()], 0u8..9), 0..700), step in 1usize..90) {
            round_trip::<STRONG>(&pairs, step);
            round_trip::<FAST>(&pairs, step);
        }

        #[test]
        fn foreign_bytes_give_something(coded in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Reader::<_, STRONG>::new(&coded[..], 5000).read(&mut vec![0; 6000], &[]).unwrap(), 5000);
            prop_assert_eq!(Reader::<_, FAST>::new(&coded[..], 5000).read(&mut vec![0; 6000], &[]).unwrap(), 5000);
        }
    }
}
