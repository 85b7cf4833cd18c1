//! Bidiff: a content as runs of an old one with small differences, and new bytes between them.
//!
//! The method is that of bsdiff (C. Percival, *Naive differences of executable code*): exact matches found by a suffix array are
//! grown both ways as long as more than half of the bytes agree. The three numbers of a run (add, insert, seek), the differences and
//! the new bytes are streams of their own.

use std::io::{self, Read, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Kind;
use super::suffixes::{Suffixes, common};
use crate::hashed::cancelled;
use crate::source::ReadSeek;
use crate::stream::{Stream, StreamsReader, StreamsWriter};
use crate::varint;

/// A content of more bytes than this is compared in parts, each with the old bytes around its place.
const PART: usize = 48 << 20;
/// How far around its place a part looks in the old content, in bytes.
const REACH: usize = 24 << 20;
/// A run that continues this far needs no search for a better one.
const LONG_RUN: usize = 48;
/// How many bytes more a match must give than going on in the current run.
const GAIN: usize = 8;

/// Which of the [`Difference::parts`] are the differences themselves.
pub const DIFFERENCES: usize = 3;

/// The difference of two contents.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Difference {
    pub(super) add: Vec<u8>,
    pub(super) insert: Vec<u8>,
    pub(super) seek: Vec<u8>,
    pub(super) differences: Vec<u8>,
    /// The old bytes that they are differences to.
    pub(super) beside: Vec<u8>,
    pub(super) new: Vec<u8>,
}

/// Bytes of memory that [`difference`] needs at most, about.
pub fn memory(old: u64, new: u64) -> u64 {
    let part = old.min((PART + 2 * REACH) as u64);
    old + new + 4 * part + 3 * new
}

/// Compares two contents.
pub fn difference(old: &[u8], new: &[u8]) -> Difference {
    difference_until(old, new, &AtomicBool::new(false)).unwrap_or_default()
}

/// Compares two contents; an error soon after `cancel` is set. Only sorting the old bytes of a part is not interrupted.
pub fn difference_until(old: &[u8], new: &[u8], cancel: &AtomicBool) -> io::Result<Difference> {
    let mut out = Writer { old, new, out: Difference::default(), old_at: 0 };
    if new.len() <= PART && old.len() <= PART + 2 * REACH {
        scan(old, new, &mut |old, new, add, insert| out.run(old, new, add, insert), cancel)?;
    } else {
        for start in (0..new.len()).step_by(PART) {
            let end = (start + PART).min(new.len());
            // The same place relative to the whole: contents grow evenly more often than at their end.
            let centre = |at: usize| usize::try_from(at as u128 * old.len() as u128 / new.len() as u128).unwrap_or(old.len());
            let from = centre(start).saturating_sub(REACH);
            let to = centre(end).saturating_add(REACH).min(old.len());
            scan(&old[from..to], &new[start..end], &mut |old, new, add, insert| out.run(from + old, start + new, add, insert), cancel)?;
        }
    }
    Ok(out.out)
}

/// The runs of `new` that come from `old`: place in both, and length.
pub(crate) fn runs(old: &[u8], new: &[u8], run: &mut dyn FnMut(usize, usize, usize), cancel: &AtomicBool) -> io::Result<()> {
    let mut run = |old, new, add, _| {
        if add > 0 {
            run(old, new, add);
        }
    };
    scan(old, new, &mut run, cancel)
}

/// Collects runs; places are those in the whole contents.
struct Writer<'a> {
    old: &'a [u8],
    new: &'a [u8],
    out: Difference,
    old_at: usize,
}

impl Writer<'_> {
    fn run(&mut self, old_start: usize, new_start: usize, add: usize, insert: usize) {
        if add == 0 && insert == 0 {
            return;
        }
        if self.out.add.is_empty() && add > 0 && old_start != 0 {
            // The first run starts elsewhere: an empty one leads there.
            varint::put(&mut self.out.add, 0);
            varint::put(&mut self.out.insert, 0);
        }
        if !self.out.add.is_empty() {
            let seek = if add == 0 { 0 } else { signed(old_start) - signed(self.old_at) };
            varint::put_signed(&mut self.out.seek, seek);
        }
        if add > 0 {
            self.old_at = old_start;
        }
        varint::put(&mut self.out.add, add as u64);
        varint::put(&mut self.out.insert, insert as u64);
        let pairs = self.old[self.old_at..].iter().zip(&self.new[new_start..]);
        self.out.differences.extend(pairs.take(add).map(|(old, new)| new.wrapping_sub(*old)));
        self.out.beside.extend_from_slice(&self.old[self.old_at..self.old_at + add]);
        self.out.new.extend_from_slice(&self.new[new_start + add..new_start + add + insert]);
        self.old_at += add;
    }
}

fn signed(place: usize) -> i64 {
    i64::try_from(place).expect("contents are shorter than 2^63 bytes")
}

/// Compares `new` with `old`: for each run its place in both, its length, and the new bytes after it.
fn scan(old: &[u8], new: &[u8], run: &mut dyn FnMut(usize, usize, usize, usize), cancel: &AtomicBool) -> io::Result<()> {
    let stop = || if cancel.load(Ordering::Relaxed) { Err(cancelled()) } else { Ok(()) };
    stop()?;
    let suffixes = Suffixes::new(old);
    let agree = |old_at: isize, new_at: usize| usize::try_from(old_at).ok().and_then(|at| old.get(at)) == Some(&new[new_at]);
    // The current run: where it began in both.
    let (mut last_new, mut last_old) = (0usize, 0usize);
    let mut scan = 0usize;
    loop {
        let shift = last_old.cast_signed() - last_new.cast_signed();
        // Search for a place from where another run is better than this one.
        let mut counted = scan;
        let mut score = 0usize;
        let mut found = (0, 0);
        while scan < new.len() {
            let ahead = usize::try_from(scan.cast_signed() + shift).ok().and_then(|at| old.get(at..));
            let along = ahead.map_or(0, |old| common(old, &new[scan..]));
            if along >= LONG_RUN {
                scan += along;
                counted = scan;
                score = 0;
                continue;
            }
            stop()?;
            found = suffixes.longest(&new[scan..]);
            while counted < scan + found.1 {
                score += usize::from(agree(counted.cast_signed() + shift, counted));
                counted += 1;
            }
            if found.1 == score && found.1 != 0 {
                // The match is this run.
                scan += found.1;
                score = 0;
                counted = scan;
                continue;
            }
            if found.1 > score + GAIN {
                break;
            }
            if counted > scan {
                score -= usize::from(agree(scan.cast_signed() + shift, scan));
            } else {
                counted = scan + 1;
            }
            scan += 1;
        }
        let done = scan >= new.len();
        let gap = scan - last_new;
        let forward = grow((0..gap.min(old.len() - last_old)).map(|i| old[last_old + i] == new[last_new + i]));
        let backward = if done { 0 } else { grow((1..=gap.min(found.0)).map(|i| old[found.0 - i] == new[scan - i])) };
        let (forward, backward) = if forward + backward > gap {
            // Both claim some bytes: cut where each side agrees most.
            let overlap = forward + backward - gap;
            let (from_new, from_last, from_found) = (last_new + forward - overlap, last_old + forward - overlap, found.0 - backward);
            let (mut sum, mut most, mut cut) = (0i64, 0i64, 0);
            for i in 0..overlap {
                sum += i64::from(old[from_last + i] == new[from_new + i]) - i64::from(old[from_found + i] == new[from_new + i]);
                if sum > most {
                    (most, cut) = (sum, i + 1);
                }
            }
            (forward - overlap + cut, backward - cut)
        } else {
            (forward, backward)
        };
        run(last_old, last_new, forward, gap - forward - backward);
        if done {
            return Ok(());
        }
        (last_new, last_old) = (scan - backward, found.0 - backward);
        scan += found.1;
    }
}

/// How far to grow: the length at which twice the agreeing bytes exceed the length by most.
fn grow(agrees: impl Iterator<Item = bool>) -> usize {
    let (mut sum, mut most, mut len) = (0i64, 0i64, 0);
    for (i, agrees) in agrees.enumerate() {
        sum += if agrees { 1 } else { -1 };
        if sum > most {
            (most, len) = (sum, i + 1);
        }
    }
    len
}

impl Difference {
    /// Appends the difference to the streams.
    pub fn write(&self, streams: &mut StreamsWriter<'_>, kind: Kind) -> io::Result<()> {
        streams.put(Stream::Add, &self.add)?;
        streams.put(Stream::Insert, &self.insert)?;
        streams.put(Stream::Seek, &self.seek)?;
        streams.put_beside(&self.differences, &self.beside)?;
        streams.put(kind.stream(), &self.new)
    }

    /// The parts, to estimate what they cost; the differences are that with the number [`DIFFERENCES`].
    pub fn parts(&self) -> [&[u8]; 5] {
        [&self.add, &self.insert, &self.seek, &self.differences, &self.new]
    }
}

/// Writes `size` bytes made of `old` and the streams to `out`, in steps of the buffer's length.
pub fn apply(
    streams: &mut StreamsReader<'_>,
    kind: Kind,
    old: &mut dyn ReadSeek,
    size: u64,
    buffers: &mut Buffers,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = size;
    let mut at = 0u64;
    let mut first = true;
    while left > 0 {
        if !first {
            let by = streams.signed(Stream::Seek)?;
            if by != 0 {
                at = at.checked_add_signed(by).ok_or_else(|| invalid("a seek outside of the old content"))?;
                old.seek(SeekFrom::Start(at))?;
            }
        }
        let add = streams.number(Stream::Add)?;
        let insert = streams.number(Stream::Insert)?;
        if !first && add == 0 && insert == 0 {
            // A short section can hold such runs without end.
            return Err(invalid("a run of no bytes"));
        }
        first = false;
        left = left
            .checked_sub(add)
            .and_then(|left| left.checked_sub(insert))
            .ok_or_else(|| invalid("a run beyond the end of the new content"))?;
        at = at.saturating_add(add);
        steps(add, buffers.new.len(), |len| {
            old.read_exact(&mut buffers.old[..len]).map_err(short)?;
            streams.get(Stream::Difference).read_beside(&mut buffers.new[..len], &buffers.old[..len])?;
            for (new, old) in buffers.new[..len].iter_mut().zip(&buffers.old) {
                *new = new.wrapping_add(*old);
            }
            out(&buffers.new[..len])
        })?;
        steps(insert, buffers.new.len(), |len| {
            streams.get(kind.stream()).read_exact(&mut buffers.new[..len])?;
            out(&buffers.new[..len])
        })?;
    }
    Ok(())
}

/// Two buffers of one length.
#[derive(Debug)]
pub struct Buffers {
    /// For old bytes.
    pub old: Vec<u8>,
    /// For new bytes.
    pub new: Vec<u8>,
}

impl Buffers {
    /// Buffers of this length.
    pub fn new(len: usize) -> Self {
        Self { old: vec![0; len], new: vec![0; len] }
    }
}

/// Calls `f` with lengths of at most `step` that add up to `total`.
pub(crate) fn steps(total: u64, step: usize, mut f: impl FnMut(usize) -> io::Result<()>) -> io::Result<()> {
    let mut left = total;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(step);
        f(len)?;
        left -= len as u64;
    }
    Ok(())
}

fn short(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid("a run beyond the end of the old content"),
        _ => error,
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(old: &[u8], new: &[u8]) -> u64 {
        let mut writer = StreamsWriter::default();
        difference(old, new).write(&mut writer, Kind::Binary).unwrap();
        let written = writer.finish(1 << 20).unwrap();
        let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..]))).unwrap();
        let mut made = Vec::new();
        let mut out = |bytes: &[u8]| {
            made.extend_from_slice(bytes);
            Ok(())
        };
        apply(&mut reader, Kind::Binary, &mut io::Cursor::new(old), new.len() as u64, &mut Buffers::new(7), &mut out).unwrap();
        assert_eq!(made, new);
        assert_eq!(reader.unread(), None);
        written.sections.iter().map(|s| s.len).sum()
    }

    #[test]
    fn a_moved_block_costs_little() {
        let noise: Vec<u8> = (0..20_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let moved = [&noise[9000..], &noise[..9000]].concat();
        assert!(round_trip(&noise, &moved) < 100);
        assert!(round_trip(&noise, &noise) < 40);
        round_trip(&[], &noise);
        round_trip(&noise, &noise[..1]);
    }

    #[test]
    fn a_cancelled_comparison_ends() {
        // Nothing in common: every place of the new content is searched for.
        let noise =
            |seed: u64| -> Vec<u8> { (0..400_000u64).map(|i| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect() };
        let (old, new) = (noise(0), noise(1 << 40));
        assert_eq!(difference_until(&old, &new, &AtomicBool::new(true)).unwrap_err().kind(), io::ErrorKind::Interrupted);
        let cancel = AtomicBool::new(false);
        let result = std::thread::scope(|threads| {
            let work = threads.spawn(|| (0..).find_map(|_| difference_until(&old, &new, &cancel).err()));
            std::thread::sleep(std::time::Duration::from_millis(20));
            cancel.store(true, Ordering::Relaxed);
            work.join().unwrap()
        });
        assert_eq!(result.unwrap().kind(), io::ErrorKind::Interrupted);
        assert_eq!(difference_until(&old, &new[..999], &AtomicBool::new(false)).unwrap(), difference(&old, &new[..999]));
    }

    proptest! {
        #[test]
        fn any_pair(old in proptest::collection::vec(0u8..6, 0..400), new in proptest::collection::vec(0u8..6, 0..400)) {
            round_trip(&old, &new);
        }

        #[test]
        fn edited(old in proptest::collection::vec(any::<u8>(), 100..2000), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..40), 0..12)) {
            let mut new = old.clone();
            for (at, byte, len) in edits {
                let at = at.index(new.len());
                if len == 0 { new[at] = byte; } else if len % 2 == 0 { new.splice(at..at, std::iter::repeat_n(byte, len)); } else { new.drain(at..(at + len).min(new.len() - 1)); }
            }
            round_trip(&old, &new);
        }
    }
}
