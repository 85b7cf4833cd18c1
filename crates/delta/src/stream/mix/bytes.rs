//! Short streams of any kind: the last bytes, the word, and what followed the last time are the contexts.

use std::io::{self, BufRead, Read};

use super::engine::{Engine, hash};
use super::{Bits, Decoder, Encoder};

/// The longest stream: all of it is kept, to find what it repeats.
pub(in super::super) const LIMIT: u64 = 4 << 20;

const CONTEXTS: usize = 8;
const WEIGHTS: [usize; 2] = [256, 16 * 256];
/// A repetition is looked for by this many bytes, and begins with at least that.
const REPEAT: usize = 5;
/// A repetition's length counts up to this.
const LONG: u32 = 63;

/// Slots, as a power of two, for a stream of this length.
fn slots(len: u64) -> u32 {
    len.saturating_mul(16).max(1).ilog2().clamp(14, 19)
}

/// Places by the hash of the bytes before them, as a power of two.
fn places(len: u64) -> u32 {
    len.max(1).ilog2().clamp(10, 17)
}

/// Bytes of memory of either side.
pub(in super::super) fn memory(len: u64) -> u64 {
    len.saturating_add(4 << places(len)).saturating_add(Engine::<CONTEXTS>::memory(slots(len), WEIGHTS))
}

struct Model {
    engine: Engine<CONTEXTS>,
    history: Vec<u8>,
    /// The last eight bytes; the last one is the lowest.
    last: u64,
    word: u32,
    /// Where the same bytes stood before.
    places: Box<[u32]>,
    /// The repetition that goes on: the place of the byte that it expects, and its length; 0 when there is none.
    repeat: (usize, u32),
}

impl Model {
    fn new(len: u64) -> Self {
        Self {
            engine: Engine::new(slots(len), WEIGHTS, 60),
            history: Vec::new(),
            last: 0,
            word: 0,
            places: vec![0; 1 << places(len)].into(),
            repeat: (0, 0),
        }
    }

    fn byte<B: Bits>(&mut self, bits: &mut B, known: u8) -> io::Result<u8> {
        let order = |n: u32| self.last & ((1 << (8 * n)) - 1);
        let low = |n: u64| u32::try_from(n & u64::from(u32::MAX)).unwrap_or(0);
        let (expected, length) = match self.repeat {
            (_, 0) => (0, 0),
            (at, length) => (u32::from(self.history[at]), length),
        };
        let certainty = if length == 0 { 0 } else { length.ilog2().min(5) + 1 };
        let before = low(order(1));
        let contexts = [
            0,
            hash(1, before),
            hash(2, low(order(2))),
            hash(3, low(order(3))),
            hash(4, low(order(4))),
            hash(hash(5, low(order(4))), low(order(6) >> 32)),
            hash(hash(6, self.word), before),
            // A repetition: what it expects, and how sure that is.
            if length == 0 { hash(7, before) } else { hash(8, expected | length << 8) },
        ];
        let weights = |done: u32| {
            // The next bit as the repetition expects it, if it was right so far in this byte.
            let bits = done.ilog2();
            let expects = length > 0 && (expected | 256) >> (8 - bits) == done;
            let how = if expects { certainty << 1 | expected >> (7 - bits) & 1 } else { 0 };
            [done as usize & 255, (how << 8 | before) as usize]
        };
        let byte = self.engine.byte(bits, &contexts, weights, known)?;
        self.push(byte);
        Ok(byte)
    }

    fn push(&mut self, byte: u8) {
        self.last = self.last << 8 | u64::from(byte);
        self.word = if byte.is_ascii_alphanumeric() { hash(self.word, u32::from(byte)) } else { 0 };
        self.repeat = match self.repeat {
            (at, length) if length > 0 && self.history[at] == byte => (at + 1, (length + 1).min(LONG)),
            _ => (0, 0),
        };
        self.history.push(byte);
        let Some(recent) = self.history.len().checked_sub(REPEAT).map(|start| &self.history[start..]) else { return };
        let key = recent.iter().fold(9, |key, byte| hash(key, u32::from(*byte))) as usize & (self.places.len() - 1);
        if self.repeat.1 == 0 {
            let at = self.places[key] as usize;
            let same = self.history.iter().rev().zip(self.history[..at].iter().rev()).take(LONG as usize).take_while(|(a, b)| a == b);
            let same = same.count();
            if same >= REPEAT {
                self.repeat = (at, u32::try_from(same).unwrap_or(LONG));
            }
        }
        self.places[key] = u32::try_from(self.history.len()).unwrap_or(0);
    }
}

/// Codes all of `bytes`, at most [`LIMIT`].
pub(in super::super) fn encode(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut model = Model::new(bytes.len() as u64);
    let mut encoder = Encoder::new();
    for &byte in bytes {
        model.byte(&mut encoder, byte)?;
    }
    Ok(encoder.finish())
}

/// The reading side.
pub(in super::super) struct Reader<R> {
    model: Model,
    decoder: Decoder<R>,
    left: u64,
}

impl<R: BufRead> Reader<R> {
    /// Of so many bytes, at most [`LIMIT`].
    pub(in super::super) fn new(coded: R, len: u64) -> io::Result<Self> {
        if len > LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a mixed stream of {len} bytes is over the limit of {LIMIT}")));
        }
        Ok(Self { model: Model::new(len), decoder: Decoder::new(coded), left: len })
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        for out in &mut out[..len] {
            *out = self.model.byte(&mut self.decoder, 0)?;
        }
        self.left -= len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(bytes: &[u8]) -> usize {
        let coded = encode(bytes).unwrap();
        let mut back = Vec::new();
        Reader::new(&coded[..], bytes.len() as u64).unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, bytes);
        coded.len()
    }

    #[test]
    fn text_shrinks() {
        let line = b"usr/lib/python3/dist-packages/";
        let text: Vec<u8> = (0..200u32).flat_map(|i| [&line[..], i.to_string().as_bytes(), b".py\n"].concat()).collect();
        assert!(round_trip(&text) < 400, "{}", round_trip(&text));
        assert!(round_trip(&[0; 100_000]) < 60);
        assert_eq!(round_trip(&[]), 0);
    }

    #[test]
    fn too_long_a_stream_is_refused() {
        assert!(Reader::new(&[][..], LIMIT + 1).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600), few in proptest::collection::vec(0u8..3, 0..900)) {
            round_trip(&bytes);
            round_trip(&few);
        }

        #[test]
        fn foreign_bytes_give_something(coded in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut back = Vec::new();
            Reader::new(&coded[..], 3000).unwrap().read_to_end(&mut back).unwrap();
            prop_assert_eq!(back.len(), 3000);
        }
    }
}
