//! Context mixing: many small models guess the next bit, their guesses are mixed by how well they did in a like place, and the bit is
//! coded by arithmetic coding with the mixed probability.
//!
//! [`sparse`] is for differences, which are mostly zero and stand beside old bytes that both sides have; [`bytes`] is for everything
//! else that is short. Both sides run the very same code: a model asks [`Bits`] for the next bit, which the encoder knows and the
//! decoder reads. All arithmetic is in whole numbers, so that every machine has the same probabilities.
//! `docs/formats/codec-mix.md` has the formulas.

mod bits;
pub(super) mod bytes;
mod curve;
mod engine;
pub(super) mod sparse;

use bits::{Bits, Decoder, Encoder};
