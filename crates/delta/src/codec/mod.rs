//! The codecs of a member's content, one file each. Their numbers are part of the format.

pub mod bidiff;
pub mod bytecode;
pub mod dictionary;
pub mod elf;
pub(crate) mod related;
mod suffixes;

pub(crate) use suffixes::common;

use crate::stream::Stream;

/// How a content is carried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Codec {
    /// It is an old content.
    Copy,
    /// Its bytes are carried.
    New,
    /// As differences to an old content.
    Bidiff,
    /// As a zstd frame with an old content as its dictionary.
    Dictionary,
    /// As differences to an old program, whose addresses are expected.
    Elf = 4,
    /// As Python bytecode: a time, and an old content or differences to one.
    Bytecode = 5,
    /// As the entries of a zip archive.
    Archive = 6,
}

impl Codec {
    /// The codec with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Copy, Self::New, Self::Bidiff, Self::Dictionary, Self::Elf, Self::Bytecode, Self::Archive]
            .into_iter()
            .find(|codec| *codec as u8 == number)
    }
}

/// Are the bytes in the middle and at the end spread as by chance, as those of anything that is compressed or encrypted, whatever it begins with?
fn is_noise(bytes: &[u8]) -> bool {
    const SAMPLE: usize = 4096;
    const EXPECTED: i64 = SAMPLE as i64 / 256;
    let by_chance = |sample: &[u8; SAMPLE]| {
        let mut counts = [0i64; 256];
        for byte in sample {
            counts[usize::from(*byte)] += 1;
        }
        // Pearson's chi-squared: of noise 255, with a standard deviation of 23; of code and text thousands, of a counter nothing.
        let spread = counts.iter().map(|count| (count - EXPECTED).pow(2)).sum::<i64>() / EXPECTED;
        (150..400).contains(&spread)
    };
    let (middle, end) = (bytes[..bytes.len() / 2].last_chunk(), bytes.last_chunk());
    middle.is_some_and(by_chance) && end.is_some_and(by_chance)
}

/// What new bytes are, which decides with which others they are compressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Text, and bytecode, which has the words of its source in it.
    Text,
    /// Machine code and its data.
    Program,
    /// Anything else that compresses.
    Binary,
    /// What is compressed already.
    Dense,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Text, Self::Program, Self::Binary, Self::Dense].get(usize::from(number)).copied()
    }

    /// The stream for bytes of this kind.
    pub fn stream(self) -> Stream {
        match self {
            Self::Text => Stream::Text,
            Self::Program => Stream::Program,
            Self::Binary => Stream::Binary,
            Self::Dense => Stream::Dense,
        }
    }

    /// The kind of a content that starts like this.
    pub fn of(start: &[u8]) -> Self {
        const DENSE: [&[u8]; 9] =
            [b"PK\x03\x04", b"\x1f\x8b", b"\x89PNG", b"\xff\xd8\xff", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"wOF2", b"OggS"];
        if start.starts_with(b"\x7fELF") || start.starts_with(b"MZ") {
            return Self::Program;
        }
        if bytecode::is_bytecode(start) {
            return Self::Text;
        }
        if DENSE.iter().any(|magic| start.starts_with(magic)) {
            return Self::Dense;
        }
        if is_noise(&start[..start.len().min(64 << 10)]) {
            return Self::Dense;
        }
        let sample = &start[..start.len().min(4096)];
        let odd = sample.iter().filter(|&&b| b < 9 || (14..32).contains(&b) || b == 127).count();
        if odd * 50 > sample.len() { Self::Binary } else { Self::Text }
    }
}
