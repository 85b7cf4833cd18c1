//! Blocks of deflate: symbols are collected, and written with the cheapest of the three ways that there are.

use std::io::{self, Write};

use super::tree::{Alphabet, Code, MOST, codes};

/// A block ends when it has so many symbols less one, or so many matches.
const SYMBOLS: usize = 0x8000;
/// Whether it is better to end it is asked each time when there are so many more.
const LOOK: usize = 0x1000;
/// The shortest match.
const SHORTEST: usize = 3;
const DISTANCES: usize = 30;
const END: usize = 256;
/// Coded bytes are handed on from so many on.
const STEP: usize = 4096;

const LITERALS: Alphabet =
    Alphabet { symbols: 286, longest: 15, extra: |symbol| LENGTHS[symbol.saturating_sub(END)].1, fixed: Some(fixed) };
const PLACES: Alphabet = Alphabet { symbols: DISTANCES, longest: 15, extra: |symbol| STEPS[symbol].1, fixed: Some(|_| 5) };
/// Lengths of codes, and three symbols for several of one length.
const RUNS: Alphabet =
    Alphabet { symbols: 19, longest: 7, extra: |symbol| [2, 3, 7].get(symbol.wrapping_sub(16)).copied().unwrap_or(0), fixed: None };
/// In this order they stand at the start of a block.
const RUN_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

fn fixed(symbol: usize) -> u8 {
    match symbol {
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    }
}

/// For each symbol after the end of block: the first length, less the shortest, and how many bits follow. Index 0 is that end.
const LENGTHS: [(u16, u8); 30] = {
    let mut table = [(0, 0); 30];
    let (mut symbol, mut from) = (1, 0);
    while symbol < 29 {
        let extra = if symbol < 9 { 0 } else { (symbol - 5) / 4 };
        table[symbol] = (from, [0, 1, 2, 3, 4, 5][extra]);
        from += 1 << extra;
        symbol += 1;
    }
    // The longest has a symbol of its own.
    table[29] = (255, 0);
    table
};

/// For each symbol of a distance: the first one, less 1, and how many bits follow.
const STEPS: [(u16, u8); DISTANCES] = {
    let mut table = [(0, 0); DISTANCES];
    let (mut symbol, mut from) = (0, 0u16);
    while symbol < DISTANCES {
        let extra = if symbol < 4 { 0 } else { symbol / 2 - 1 };
        table[symbol] = (from, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13][extra]);
        from = from.wrapping_add(1 << extra);
        symbol += 1;
    }
    table
};

/// The symbol, from [`END`] on, of each length less the shortest.
const LENGTH_SYMBOLS: [usize; 256] = {
    let mut table = [0; 256];
    let (mut length, mut symbol) = (0, 1);
    while length < 256 {
        while symbol < 29 && LENGTHS[symbol + 1].0 as usize <= length {
            symbol += 1;
        }
        table[length] = END + symbol;
        length += 1;
    }
    table
};

/// The symbol of a distance less 1.
fn step_symbol(distance: u16) -> usize {
    if distance < 4 {
        return usize::from(distance);
    }
    let log = distance.ilog2() as usize;
    2 * log + usize::from(distance >> (log - 1) & 1)
}

/// The block that is being collected, and what was written.
pub(super) struct Blocks<W> {
    out: W,
    /// Bits that are no whole byte yet, and how many.
    bits: u64,
    filled: u32,
    coded: Vec<u8>,
    /// For each symbol a byte or a length less the shortest, and a distance, 0 for a byte.
    bytes: Vec<u8>,
    distances: Vec<u16>,
    matches: usize,
    literal_counts: [u32; LITERALS.symbols],
    place_counts: [u32; DISTANCES],
    /// Whether blocks may end early.
    looks: bool,
}

impl<W: Write> Blocks<W> {
    pub(super) fn new(out: W, looks: bool) -> Self {
        let mut blocks = Self {
            out,
            bits: 0,
            filled: 0,
            coded: Vec::with_capacity(STEP + 64),
            bytes: Vec::with_capacity(SYMBOLS),
            distances: Vec::with_capacity(SYMBOLS),
            matches: 0,
            literal_counts: [0; LITERALS.symbols],
            place_counts: [0; DISTANCES],
            looks,
        };
        blocks.literal_counts[END] = 1;
        blocks
    }

    /// Takes a byte. `since` tells how many plain bytes there are since the last block. True when the block must end now.
    pub(super) fn literal(&mut self, byte: u8, since: usize) -> bool {
        self.literal_counts[usize::from(byte)] += 1;
        self.bytes.push(byte);
        self.distances.push(0);
        self.ends(since)
    }

    /// Takes a match.
    pub(super) fn copy(&mut self, distance: usize, length: usize, since: usize) -> bool {
        let length = u8::try_from(length - SHORTEST).unwrap_or(u8::MAX);
        let distance = u16::try_from(distance).unwrap_or(u16::MAX);
        self.literal_counts[LENGTH_SYMBOLS[usize::from(length)]] += 1;
        self.place_counts[step_symbol(distance - 1)] += 1;
        self.bytes.push(length);
        self.distances.push(distance);
        self.matches += 1;
        self.ends(since)
    }

    fn ends(&self, since: usize) -> bool {
        let symbols = self.bytes.len();
        if self.looks && symbols.is_multiple_of(LOOK) {
            // Many bytes for few matches: what comes may be of another kind.
            let counts = self.place_counts.iter().zip(&STEPS);
            let bits = counts.fold(symbols * 8, |bits, (&count, &(_, extra))| bits + count as usize * (5 + usize::from(extra)));
            if self.matches < symbols / 2 && bits / 8 < since / 2 {
                return true;
            }
        }
        symbols == SYMBOLS - 1 || self.matches == SYMBOLS
    }

    /// Ends a block, which is the last one or not. `plain` are its bytes if they are still there, `len` how many there are.
    pub(super) fn end(&mut self, plain: Option<&[u8]>, len: usize, last: bool) -> io::Result<()> {
        let literals = Code::of(&LITERALS, &self.literal_counts);
        let places = Code::of(&PLACES, &self.place_counts);
        let runs = runs(&[&literals.lens[..=literals.last], &places.lens[..=places.last]]);
        let mut run_counts = [0; RUNS.symbols];
        runs.iter().for_each(|&(symbol, _)| run_counts[usize::from(symbol)] += 1);
        let run_code = Code::of(&RUNS, &run_counts);
        let run_lens = RUN_ORDER.iter().rposition(|&symbol| run_code.lens[symbol] > 0).unwrap_or(3).max(3) + 1;

        let own = (literals.cost + places.cost + run_code.cost + 3 * run_lens as u64 + 5 + 5 + 4 + 3).div_ceil(8);
        let fixed_cost = (literals.fixed_cost + places.fixed_cost + 3).div_ceil(8);
        let best = own.min(fixed_cost);
        let stored = plain.filter(|plain| plain.len() as u64 + 4 <= best);
        let last = u64::from(last);
        if let Some(plain) = stored {
            self.put(last, 3)?;
            self.align()?;
            let len = u16::try_from(len).map_err(io::Error::other)?;
            self.coded.extend(len.to_le_bytes());
            self.coded.extend((!len).to_le_bytes());
            self.hand_on(0)?;
            self.out.write_all(plain)?;
        } else if fixed_cost <= own {
            self.put(1 << 1 | last, 3)?;
            let mut lens = [[0; MOST], [5; MOST]];
            lens[0].iter_mut().enumerate().for_each(|(symbol, len)| *len = fixed(symbol));
            let codes = [codes(&lens[0]), codes(&lens[1][..DISTANCES])];
            self.symbols((&lens[0], &codes[0]), (&lens[1], &codes[1]))?;
        } else {
            self.put(2 << 1 | last, 3)?;
            self.put(literals.last as u64 - 256, 5)?;
            self.put(places.last as u64, 5)?;
            self.put(run_lens as u64 - 4, 4)?;
            for &symbol in &RUN_ORDER[..run_lens] {
                self.put(u64::from(run_code.lens[symbol]), 3)?;
            }
            for (symbol, more) in runs {
                let symbol = usize::from(symbol);
                self.put(u64::from(run_code.codes[symbol]), run_code.lens[symbol])?;
                self.put(u64::from(more), (RUNS.extra)(symbol))?;
            }
            self.symbols((&literals.lens, &literals.codes), (&places.lens, &places.codes))?;
        }
        self.bytes.clear();
        self.distances.clear();
        self.matches = 0;
        self.literal_counts.fill(0);
        self.place_counts.fill(0);
        self.literal_counts[END] = 1;
        Ok(())
    }

    fn symbols(
        &mut self,
        (lens, codes): (&[u8; MOST], &[u16; MOST]),
        (place_lens, place_codes): (&[u8; MOST], &[u16; MOST]),
    ) -> io::Result<()> {
        for at in 0..self.bytes.len() {
            let (byte, distance) = (self.bytes[at], self.distances[at]);
            if distance == 0 {
                let symbol = usize::from(byte);
                self.put(u64::from(codes[symbol]), lens[symbol])?;
                continue;
            }
            let symbol = LENGTH_SYMBOLS[usize::from(byte)];
            let (from, extra) = LENGTHS[symbol - END];
            self.put(u64::from(codes[symbol]), lens[symbol])?;
            self.put(u64::from(u16::from(byte) - from), extra)?;
            let symbol = step_symbol(distance - 1);
            let (from, extra) = STEPS[symbol];
            self.put(u64::from(place_codes[symbol]), place_lens[symbol])?;
            self.put(u64::from(distance - 1 - from), extra)?;
        }
        self.put(u64::from(codes[END]), lens[END])
    }

    /// Appends bits, the lowest first.
    fn put(&mut self, bits: u64, len: u8) -> io::Result<()> {
        self.bits |= bits << self.filled;
        self.filled += u32::from(len);
        if self.filled >= 32 {
            let [a, b, c, d, ..] = self.bits.to_le_bytes();
            self.coded.extend([a, b, c, d]);
            self.bits >>= 32;
            self.filled -= 32;
            self.hand_on(STEP)?;
        }
        Ok(())
    }

    /// Fills the last byte.
    fn align(&mut self) -> io::Result<()> {
        let bytes = self.filled.div_ceil(8) as usize;
        self.coded.extend(&self.bits.to_le_bytes()[..bytes]);
        (self.bits, self.filled) = (0, 0);
        self.hand_on(STEP)
    }

    /// Writes coded bytes when there are so many.
    fn hand_on(&mut self, from: usize) -> io::Result<()> {
        if self.coded.len() >= from {
            self.out.write_all(&self.coded)?;
            self.coded.clear();
        }
        Ok(())
    }

    /// The end, after the last block.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.align()?;
        self.hand_on(0)?;
        Ok(self.out)
    }
}

/// Lengths of codes as symbols, each with the value that follows it. Runs do not go on from one code to the next.
fn runs(codes: &[&[u8]]) -> Vec<(u8, u8)> {
    let mut runs = Vec::new();
    for lens in codes {
        let mut before = None;
        let mut rest = *lens;
        while let Some(&len) = rest.first() {
            let most = match len {
                0 => 138,
                // One that is new stands for itself before it is repeated: seven are one and six.
                _ if before == Some(len) => 6,
                _ => 7,
            };
            let count = rest.iter().take(most).take_while(|other| **other == len).count();
            rest = &rest[count..];
            let fresh = before != Some(len);
            before = Some(len);
            let repeat = |symbol: u8, count: usize, from: usize| (symbol, u8::try_from(count - from).unwrap_or(0));
            match (len, count) {
                (0, 11..) => runs.push(repeat(18, count, 11)),
                (0, 3..) => runs.push(repeat(17, count, 3)),
                (0, _) => runs.extend(std::iter::repeat_n((0, 0), count)),
                (_, 4..) if fresh => runs.extend([(len, 0), repeat(16, count - 1, 3)]),
                (_, 3..) if !fresh => runs.push(repeat(16, count, 3)),
                _ => runs.extend(std::iter::repeat_n((len, 0), count)),
            }
        }
    }
    runs
}
