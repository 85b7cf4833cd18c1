//! Deflate as GNU gzip does it: the bytes of `gzip -1` to `gzip -9` from the plain ones.
//!
//! The search for matches is that of zlib, which has it from gzip. What differs: blocks have twice as many symbols and may end
//! early, more hash chains are short, and at the end of a file bytes beyond it are compared too.
//!
//! In: plain bytes in any steps. Out: one raw deflate stream, the same for the same bytes, level by level. Memory: [`super::zlib::MEMORY`],
//! whatever the bytes are.

mod block;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, Write};

use block::Blocks;

/// Bytes of the window that moves; there is room for two.
const WINDOW: usize = 32 * 1024;
const SHORTEST: usize = 3;
const LONGEST: usize = 258;
/// A match is searched only while there are so many bytes ahead, but at the end.
const AHEAD: usize = LONGEST + SHORTEST + 1;
/// The largest distance.
const FARTHEST: usize = WINDOW - AHEAD;
/// A shortest match is not worth it from farther away than this.
const TOO_FAR: usize = 4096;
const HASHES: usize = 1 << 15;

/// What a level does.
#[derive(Clone, Copy)]
struct Level {
    /// A match before of so many bytes quarters the search.
    good: usize,
    /// After one of so many none is searched; where the first match is taken: one of more bytes is not entered byte by byte.
    lazy: usize,
    /// A match of so many is taken at once.
    nice: usize,
    /// Places that are looked at.
    chain: usize,
    /// Whether the first match is taken, or a longer one from the next byte on may take its place.
    first: bool,
}

const LEVELS: [Level; 9] = [
    Level { good: 4, lazy: 4, nice: 8, chain: 4, first: true },
    Level { good: 4, lazy: 5, nice: 16, chain: 8, first: true },
    Level { good: 4, lazy: 6, nice: 32, chain: 32, first: true },
    Level { good: 4, lazy: 4, nice: 16, chain: 16, first: false },
    Level { good: 8, lazy: 16, nice: 32, chain: 32, first: false },
    Level { good: 8, lazy: 16, nice: 128, chain: 128, first: false },
    Level { good: 8, lazy: 32, nice: 128, chain: 256, first: false },
    Level { good: 32, lazy: 128, nice: 258, chain: 1024, first: false },
    Level { good: 32, lazy: 258, nice: 258, chain: 4096, first: false },
];

/// A deflating stream.
pub(crate) struct Deflater<W: Write> {
    level: Level,
    blocks: Blocks<W>,
    window: Vec<u8>,
    /// For each hash the last place with it, and for each place the one before with the same; 0 is none.
    last: Vec<u16>,
    before: Vec<u16>,
    /// The next byte, and how many there are from it on.
    at: usize,
    ahead: usize,
    /// Bytes that came since the window was last searched, and how many may come.
    came: usize,
    room: usize,
    ended: bool,
    /// Where the block began: it may be out of the window.
    block: isize,
    /// The match at the byte before, where it is; and whether that byte is still to be written.
    length: usize,
    place: usize,
    waits: bool,
    total: u64,
}

impl<W: Write> Deflater<W> {
    /// Deflates into `to` by a level from 1 to 9.
    pub(crate) fn new(to: W, level: u8) -> Self {
        let number = usize::from(level.clamp(1, 9));
        Self {
            level: LEVELS[number - 1],
            blocks: Blocks::new(to, number > 2),
            window: vec![0; 2 * WINDOW],
            last: vec![0; HASHES],
            before: vec![0; WINDOW],
            at: 0,
            ahead: 0,
            came: 0,
            room: 2 * WINDOW,
            ended: false,
            block: 0,
            length: SHORTEST - 1,
            place: 0,
            waits: false,
            total: 0,
        }
    }

    /// How many plain bytes there were.
    pub(crate) fn total_in(&self) -> u64 {
        self.total
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if self.came > 0 {
            self.search()?;
        }
        self.ended = true;
        // Two bytes beyond the end are cleared; the others are those that were there before.
        let end = self.at + self.ahead;
        self.window.iter_mut().skip(end).take(SHORTEST - 1).for_each(|byte| *byte = 0);
        self.search()?;
        if self.waits {
            let (byte, since) = (self.window[self.at - 1], self.since());
            self.blocks.literal(byte, since);
        }
        self.end_block(true)?;
        self.blocks.finish()
    }

    /// Goes over what is there, as far as it can before more must come, and makes room.
    fn search(&mut self) -> io::Result<()> {
        self.ahead += std::mem::take(&mut self.came);
        while self.ahead >= AHEAD || (self.ended && self.ahead > 0) {
            if self.level.first { self.step_first()? } else { self.step_lazy()? }
        }
        if self.ended {
            return Ok(());
        }
        if self.at >= WINDOW + FARTHEST {
            self.window.copy_within(WINDOW.., 0);
            self.at -= WINDOW;
            self.place = self.place.wrapping_sub(WINDOW);
            self.block -= WINDOW.cast_signed();
            for place in self.last.iter_mut().chain(&mut self.before) {
                *place = place.saturating_sub(1 << 15);
            }
        }
        self.room = 2 * WINDOW - self.ahead - self.at;
        Ok(())
    }

    /// Enters the next three bytes; the last place that may have the same ones.
    fn enter(&mut self) -> usize {
        let at = self.at;
        let [a, b, c] = [at, at + 1, at + 2].map(|place| usize::from(self.window[place]));
        let hash = (a << 10 ^ b << 5 ^ c) & (HASHES - 1);
        let before = std::mem::replace(&mut self.last[hash], narrow(at));
        self.before[at % WINDOW] = before;
        usize::from(before)
    }

    /// Whether matches are looked for from this place on.
    fn reaches(&self, place: usize) -> bool {
        place != 0 && self.at - place <= FARTHEST && self.at <= 2 * WINDOW - AHEAD
    }

    /// The longest match from `place` on that is longer than `best`, or `best`. It may go beyond the end.
    fn longest(&mut self, mut place: usize, best: usize) -> usize {
        let mut best = best;
        let mut chain = if best >= self.level.good { self.level.chain / 4 } else { self.level.chain };
        let oldest = self.at.saturating_sub(FARTHEST);
        let scan = &self.window[self.at..self.at + LONGEST];
        loop {
            let with = &self.window[place..place + LONGEST];
            if with[best] == scan[best] && with[best - 1] == scan[best - 1] && with[..2] == scan[..2] {
                let length = common(scan, with);
                if length > best {
                    self.place = place;
                    best = length;
                    if length >= self.level.nice {
                        break;
                    }
                }
            }
            place = usize::from(self.before[place % WINDOW]);
            chain -= 1;
            if place <= oldest || chain == 0 {
                break;
            }
        }
        best
    }

    fn step_first(&mut self) -> io::Result<()> {
        let place = self.enter();
        let length = if self.reaches(place) { self.longest(place, SHORTEST - 1).min(self.ahead) } else { 0 };
        let since = self.since();
        let full = if length >= SHORTEST {
            let full = self.blocks.copy(self.at - self.place, length, since);
            self.ahead -= length;
            if length <= self.level.lazy {
                for _ in 1..length {
                    self.at += 1;
                    self.enter();
                }
                self.at += 1;
            } else {
                self.at += length;
            }
            full
        } else {
            let full = self.blocks.literal(self.window[self.at], since);
            self.ahead -= 1;
            self.at += 1;
            full
        };
        if full { self.end_block(false) } else { Ok(()) }
    }

    fn step_lazy(&mut self) -> io::Result<()> {
        let place = self.enter();
        let (length, from) = (self.length, self.place);
        self.length = SHORTEST - 1;
        if length < self.level.lazy && self.reaches(place) {
            self.length = self.longest(place, length).min(self.ahead);
            if self.length == SHORTEST && self.at.wrapping_sub(self.place) > TOO_FAR {
                self.length -= 1;
            }
        }
        let since = self.since();
        if length >= SHORTEST && self.length <= length {
            let full = self.blocks.copy((self.at - 1).wrapping_sub(from), length, since);
            self.ahead -= length - 1;
            for _ in 2..length {
                self.at += 1;
                self.enter();
            }
            self.at += 1;
            (self.waits, self.length) = (false, SHORTEST - 1);
            return if full { self.end_block(false) } else { Ok(()) };
        }
        if std::mem::replace(&mut self.waits, true) && self.blocks.literal(self.window[self.at - 1], since) {
            self.end_block(false)?;
        }
        self.at += 1;
        self.ahead -= 1;
        Ok(())
    }

    /// Plain bytes since the block began.
    fn since(&self) -> usize {
        usize::try_from(self.at.cast_signed() - self.block).unwrap_or(0)
    }

    fn end_block(&mut self, last: bool) -> io::Result<()> {
        let len = self.since();
        let plain = usize::try_from(self.block).ok().and_then(|start| self.window.get(start..self.at));
        self.block = self.at.cast_signed();
        self.blocks.end(plain, len, last)
    }
}

impl<W: Write> Write for Deflater<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.room - self.came);
        let to = self.at + self.ahead + self.came;
        self.window[to..to + len].copy_from_slice(&bytes[..len]);
        self.came += len;
        self.total += len as u64;
        if self.came == self.room {
            self.search()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many first bytes are the same.
fn common(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let same = words.take_while(|(a, b)| a == b).count() * 8;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

fn narrow(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(0)
}
