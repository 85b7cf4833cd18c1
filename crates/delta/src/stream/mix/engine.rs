//! Guessing one bit from several contexts.
//!
//! Each context has a slot: a probability, how often it was met, and a check against others that share its place. The stretched
//! probabilities are added up with weights; two sets of weights are used (with fewer than eight contexts
//! the first only), each chosen by a small number of the
//! caller's, and the guess is between theirs. After the bit is known, slots and weights move towards it.

use std::io;

use super::Bits;
use super::curve::Curve;

/// A slot that was never met: probability one half. A slot has 16 bits of probability, 10 of check and 6 of count.
const FRESH: u32 = 1 << 31;
const COUNT: u32 = 63;
const CHECK: u32 = 0xffc0;
/// Probabilities of slots stay this far from 0 and 2^16.
const EDGE: i32 = 16;
/// Weights are fractions of 2^16; this many bits of an input times an error move one.
const LEARN: u32 = 14;
/// Sums of weighted inputs stay within this.
const SUM: i64 = 4000;

/// Models of `N` contexts.
pub(super) struct Engine<const N: usize> {
    curve: Curve,
    /// How far a slot moves, by its count, as a fraction of 2^16.
    rates: [i32; 64],
    slots: Box<[u32]>,
    weights: [Vec<[i32; N]>; 2],
    limit: u32,
    /// Bits coded.
    pub(super) work: u64,
}

/// Mixes two numbers into one.
#[inline]
pub(super) fn hash(a: u32, b: u32) -> u32 {
    let h = (a.wrapping_mul(0x2c1b_3c6d) ^ b.wrapping_add(0x9e37_79b9)).wrapping_mul(0x297a_2d39);
    h ^ (h >> 15)
}

/// Where a bit's slots are.
pub(super) struct Place<'a, const N: usize> {
    /// A hash for each context.
    pub lines: &'a [u32; N],
    /// Within a line of 16 slots; `None` when each hash has just one slot.
    pub step: Option<u32>,
    /// Which weights of the two sets.
    pub weights: [usize; 2],
}

impl<const N: usize> Engine<N> {
    /// Sets of weights in use.
    const SETS: usize = if N < 8 { 1 } else { 2 };

    /// With two to `slots_log` slots, sets of `weights`, and counts up to `limit`, at most 63.
    pub(super) fn new(slots_log: u32, weights: [usize; 2], limit: u32) -> Self {
        let rates = std::array::from_fn(|count| (2 << 16) / (2 * i32::try_from(count).unwrap_or(0) + 3));
        Self {
            curve: Curve::new(),
            rates,
            slots: vec![FRESH; 1 << slots_log].into(),
            weights: weights.map(|len| vec![[1 << 14; N]; len]),
            limit,
            work: 0,
        }
    }

    /// Bytes of memory of such an engine.
    pub(super) const fn memory(slots_log: u32, weights: [usize; 2]) -> u64 {
        (4 << slots_log) + ((weights[0] + weights[1]) * N * 4) as u64 + (24 << 10)
    }

    /// Codes one bit.
    #[inline]
    pub(super) fn bit<B: Bits>(&mut self, bits: &mut B, place: &Place<'_, N>, known: bool) -> io::Result<bool> {
        let table = &mut self.slots[..];
        let mut places = [0usize; N];
        let mut slots = [0u32; N];
        let mut inputs = [0i32; N];
        for i in 0..N {
            let hash = place.lines[i];
            let at = match place.step {
                Some(step) => hash & !15 | step & 15,
                None => hash,
            };
            places[i] = at as usize & (table.len() - 1);
            let check = (hash >> 16) & CHECK;
            let slot = table[places[i]];
            slots[i] = if slot & CHECK == check { slot } else { FRESH | check };
            // What was never met has nothing to say.
            inputs[i] = if slots[i] & COUNT == 0 { 0 } else { self.curve.stretch(slots[i] >> 16) };
        }
        let mut sums = [0i32; 2];
        for (sum, (weights, &which)) in sums.iter_mut().zip(self.weights.iter().zip(&place.weights)).take(Self::SETS) {
            let weighted = weights[which].iter().zip(&inputs).map(|(weight, input)| i64::from(*weight) * i64::from(*input));
            *sum = i32::try_from((weighted.sum::<i64>() >> 16).clamp(-SUM, SUM)).unwrap_or(0);
        }
        let p = self.curve.squash(if Self::SETS == 2 { (sums[0] + sums[1]) >> 1 } else { sums[0] });
        let bit = bits.bit(p.unsigned_abs(), known)?;
        self.work += 1;
        let target = if bit { 65_535 } else { 0 };
        for (sum, (weights, &which)) in sums.iter().zip(self.weights.iter_mut().zip(&place.weights)).take(Self::SETS) {
            let error = target - self.curve.squash(*sum);
            for (weight, input) in weights[which].iter_mut().zip(&inputs) {
                *weight = weight.wrapping_add((input * error + (1 << (LEARN - 1))) >> LEARN);
            }
        }
        for (slot, at) in slots.iter().zip(places) {
            let count = slot & COUNT;
            let p = i32::from(u16::try_from(slot >> 16).unwrap_or(0));
            let moved = (i64::from(target - p) * i64::from(self.rates[count as usize])) >> 16;
            let p = (p + i32::try_from(moved).unwrap_or(0)).clamp(EDGE, 65_535 - EDGE).unsigned_abs();
            table[at & (table.len() - 1)] = p << 16 | slot & CHECK | (count + 1).min(self.limit);
        }
        Ok(bit)
    }

    /// Codes one byte, from its highest bit. `weights` chooses the weights for a step from the bits so far (with a one before them).
    #[inline]
    pub(super) fn byte<B: Bits>(
        &mut self,
        bits: &mut B,
        contexts: &[u32; N],
        weights: impl Fn(u32) -> [usize; 2],
        known: u8,
    ) -> io::Result<u8> {
        let mut done = 1u32;
        let mut lines = [0; N];
        let mut step = 1;
        for i in 0..8 {
            if i == 0 || i == 4 {
                lines = contexts.map(|context| hash(context, done + (i << 10)));
                step = 1;
            }
            let bit = self.bit(bits, &Place { lines: &lines, step: Some(step), weights: weights(done) }, known >> (7 - i) & 1 == 1)?;
            done = done << 1 | u32::from(bit);
            step = step << 1 | u32::from(bit);
        }
        Ok(done.to_le_bytes()[0])
    }
}
