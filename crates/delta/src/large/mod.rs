//! Bidiff of contents that are too long to be compared in memory at once.
//!
//! In: an old and a new content that can be read from the middle. Out: the runs of [`bidiff`](crate::codec::bidiff), found in two
//! steps. [`seeds`] finds long equal bytes anywhere in both by the hashes of blocks. What lies between them is compared by sorting,
//! in pieces, each with those old bytes that its neighbourhood points to. Memory is bounded whatever the lengths; only how much is
//! found becomes less when there is little.

mod pages;
mod seeds;

use std::io::{self, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};

use self::pages::Pages;
use self::seeds::Seed;
use crate::codec::{Kind, bidiff};
use crate::hashed::cancelled;
use crate::source::ReadSeek;
use crate::stream::{Stream, StreamsWriter};

/// Contents from this length on are compared like this.
pub(crate) const LARGE: u64 = 24 << 20;

/// Bytes that come from a place in the old content, nearly or exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    new: u64,
    old: u64,
    len: u64,
}

/// The runs of a content, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<Run>);

/// How contents are compared.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Bytes of memory.
    memory: u64,
    /// Bytes of a block whose hash is remembered, at least.
    block: usize,
    /// Equal bytes from this length on are taken for granted.
    anchor: u64,
    /// So much of their ends is compared again with what lies between, which then joins on.
    margin: u64,
    /// How far around a place in the old content it is searched.
    reach: u64,
    /// New bytes compared at once.
    piece: u64,
    /// Old bytes sorted at once.
    gather: u64,
}

impl Sizes {
    fn within(memory: u64) -> Self {
        // Sorting takes five bytes per old one.
        let gather = (memory / 12).clamp(1 << 20, 64 << 20);
        Self { memory, block: 32, anchor: 1 << 10, margin: 64, reach: 64 << 10, piece: gather / 2, gather }
    }
}

/// Compares two contents with about `memory` bytes. Little in common gives no runs at all.
pub(crate) fn compare(
    (old, old_size): (&mut dyn ReadSeek, u64),
    (new, new_size): (&mut dyn ReadSeek, u64),
    memory: u64,
    cancel: &AtomicBool,
) -> io::Result<Runs> {
    compare_by((old, old_size), (new, new_size), Sizes::within(memory), cancel)
}

fn compare_by(
    (old, old_size): (&mut dyn ReadSeek, u64),
    (new, new_size): (&mut dyn ReadSeek, u64),
    sizes: Sizes,
    cancel: &AtomicBool,
) -> io::Result<Runs> {
    let mut old = Pages::new(old, old_size, sizes.memory / 8);
    let seeds = seeds::find(&mut old, new, new_size, &sizes, cancel)?;
    let mut between = Between { anchors: Vec::new(), hints: Vec::new(), free: Vec::new(), old_size, sizes };
    for seed in seeds {
        if seed.len >= sizes.anchor { between.anchors.push(seed) } else { between.hints.push(seed) }
    }
    between.free = free(&between.anchors, old_size);
    let mut runs: Vec<Run> = between.anchors.iter().filter_map(|anchor| inner(anchor, sizes.margin)).collect();
    for batch in between.batches(new_size) {
        if cancel.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        compare_batch(&batch, &mut old, new, &mut runs, cancel)?;
    }
    runs.sort_by_key(|run| run.new);
    let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last) if last.new + last.len == run.new && last.old + last.len == run.old => last.len += run.len,
            _ => joined.push(run),
        }
    }
    Ok(Runs(joined))
}

/// An anchor without what is compared again.
fn inner(anchor: &Seed, margin: u64) -> Option<Run> {
    let len = anchor.len.checked_sub(2 * margin).filter(|len| *len > 0)?;
    Some(Run { new: anchor.new + margin, old: anchor.old + margin, len })
}

/// Old bytes that no anchor comes from.
fn free(anchors: &[Seed], old_size: u64) -> Vec<(u64, u64)> {
    let mut taken: Vec<_> = anchors.iter().map(|anchor| (anchor.old, anchor.old + anchor.len)).collect();
    taken.sort_unstable();
    let mut free = Vec::new();
    let mut at = 0;
    for (from, to) in taken {
        if from > at {
            free.push((at, from));
        }
        at = at.max(to);
    }
    if at < old_size {
        free.push((at, old_size));
    }
    free
}

/// What lies between anchors.
struct Between {
    anchors: Vec<Seed>,
    /// Shorter equal bytes.
    hints: Vec<Seed>,
    free: Vec<(u64, u64)>,
    old_size: u64,
    sizes: Sizes,
}

/// New and old bytes to be compared, as ranges of the contents.
#[derive(Debug, Default)]
struct Batch {
    new: Vec<(u64, u64)>,
    old: Vec<(u64, u64)>,
}

impl Between {
    fn batches(&self, new_size: u64) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        let (mut new_room, mut old_room) = (self.sizes.piece, self.sizes.gather);
        let mut from = 0;
        for index in 0..=self.anchors.len() {
            let next = self.anchors.get(index);
            let to = next.map_or(new_size, |next| next.new + self.sizes.margin.min(next.len));
            let last = index.checked_sub(1).and_then(|last| self.anchors.get(last));
            while from < to {
                let end = to.min(from + self.sizes.piece);
                let around = self.around((from, end), last, next);
                let old_bytes: u64 = around.iter().map(|(from, to)| to - from).sum();
                if !batch.new.is_empty() && (end - from > new_room || old_bytes > old_room) {
                    batches.push(self.filled(std::mem::take(&mut batch), old_room));
                    (new_room, old_room) = (self.sizes.piece, self.sizes.gather);
                }
                batch.new.push((from, end));
                batch.old.extend(around);
                new_room = new_room.saturating_sub(end - from);
                old_room = old_room.saturating_sub(old_bytes);
                from = end;
            }
            from = next.map_or(to, |next| next.new + next.len - self.sizes.margin.min(next.len));
        }
        if !batch.new.is_empty() {
            batches.push(self.filled(batch, old_room));
        }
        batches
    }

    /// Where in the old content bytes between two anchors probably are; no more than is sorted at once.
    fn around(&self, (from, to): (u64, u64), last: Option<&Seed>, next: Option<&Seed>) -> Vec<(u64, u64)> {
        let reach = self.sizes.reach;
        let mut room = self.sizes.gather;
        let mut found = Vec::new();
        let mut add = |from: u64, to: u64| {
            let (from, to) = (from.min(self.old_size), to.min(self.old_size));
            let to = to.min(from.saturating_add(room));
            if from < to {
                room -= to - from;
                found.push((from, to));
            }
        };
        if let Some(last) = last {
            // On the way that the last anchor leads.
            let place = (last.old + last.len).saturating_add(from.saturating_sub(last.new + last.len));
            add(place.saturating_sub(reach.min(1 << 12)), place.saturating_add(to - from + reach));
        } else {
            add(from.saturating_sub(reach), to.saturating_add(reach));
        }
        if let Some(next) = next {
            let place = next.old.saturating_sub(next.new.saturating_sub(from.min(next.new)));
            add(place.saturating_sub(reach), next.old.saturating_add(self.sizes.margin));
        }
        let first = self.hints.partition_point(|hint| hint.new + hint.len <= from);
        for hint in self.hints[first..].iter().take_while(|hint| hint.new < to) {
            add(hint.old.saturating_sub(reach / 16), hint.old + hint.len + reach / 16);
        }
        union(found)
    }

    /// The batch with as much of the old bytes that no anchor comes from as there is room for, those at about the same place first.
    fn filled(&self, mut batch: Batch, mut room: u64) -> Batch {
        let middle = batch.old.get(batch.old.len() / 2).map_or(0, |(from, _)| *from);
        let at = self.free.partition_point(|(from, _)| *from < middle);
        let (before, after) = self.free.split_at(at);
        let (mut before, mut after) = (before.iter().rev().copied(), after.iter().copied());
        loop {
            let some = [after.next(), before.next()];
            if room == 0 || some == [None, None] {
                break;
            }
            for (from, to) in some.into_iter().flatten() {
                let len = (to - from).min(room);
                room -= len;
                batch.old.push((from, from + len));
            }
        }
        batch.old = union(batch.old);
        batch
    }
}

/// Ranges in order, those that touch made one.
fn union(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ if from < to => joined.push((from, to)),
            _ => {}
        }
    }
    joined
}

/// Ranges of a content put one after the other.
struct Gathered {
    bytes: Vec<u8>,
    /// Where each range begins, there and in the content.
    places: Vec<(usize, u64)>,
}

impl Gathered {
    fn read(ranges: &[(u64, u64)], mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let mut gathered = Self { bytes: Vec::new(), places: Vec::with_capacity(ranges.len()) };
        for &(from, to) in ranges {
            let start = gathered.bytes.len();
            gathered.places.push((start, from));
            gathered.bytes.resize(start + usize::try_from(to - from).map_err(io::Error::other)?, 0);
            read(from, &mut gathered.bytes[start..])?;
        }
        Ok(gathered)
    }

    /// Where in the content this byte is, and how many follow it there.
    fn place(&self, at: usize) -> (u64, usize) {
        let index = self.places.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        let (start, from) = self.places[index];
        let end = self.places.get(index + 1).map_or(self.bytes.len(), |(next, _)| *next);
        (from + (at - start) as u64, end - at)
    }
}

fn compare_batch(batch: &Batch, old: &mut Pages<'_>, new: &mut dyn ReadSeek, runs: &mut Vec<Run>, cancel: &AtomicBool) -> io::Result<()> {
    let old = Gathered::read(&batch.old, |at, into| old.read(at, into))?;
    let new = Gathered::read(&batch.new, |at, into| {
        new.seek(SeekFrom::Start(at))?;
        new.read_exact(into)
    })?;
    let mut take = |mut old_at, mut new_at, mut len: usize| {
        // Neither side of a run goes on behind the end of a range.
        while len > 0 {
            let ((old_place, old_left), (new_place, new_left)) = (old.place(old_at), new.place(new_at));
            let step = len.min(old_left).min(new_left);
            runs.push(Run { new: new_place, old: old_place, len: step as u64 });
            (old_at, new_at, len) = (old_at + step, new_at + step, len - step);
        }
    };
    bidiff::runs(&old.bytes, &new.bytes, &mut take, cancel)
}

impl Runs {
    /// How many bytes come from the old content.
    pub(crate) fn covered(&self) -> u64 {
        self.0.iter().map(|run| run.len).sum()
    }

    /// Appends the difference to the streams.
    pub(crate) fn write(
        &self,
        streams: &mut StreamsWriter<'_>,
        kind: Kind,
        old: &mut dyn ReadSeek,
        (new, new_size): (&mut dyn ReadSeek, u64),
    ) -> io::Result<()> {
        let mut place = 0u64;
        new.seek(SeekFrom::Start(0))?;
        let mut buffers = bidiff::Buffers::new(64 << 10);
        let mut first = true;
        // What comes before the first run: a run of no old bytes.
        let start = self.0.first().map_or(new_size, |run| run.new);
        let empty = Run { new: 0, old: 0, len: 0 };
        let lead = (start > 0 || self.0.first().is_some_and(|run| run.old > 0)).then_some(empty);
        let runs = || lead.iter().chain(&self.0);
        let ends = runs().skip(1).map(|run| run.new).chain([new_size]);
        for (run, end) in runs().zip(ends) {
            if !first {
                streams.signed(Stream::Seek, run.old.cast_signed() - place.cast_signed())?;
            }
            first = false;
            let insert = end - run.new - run.len;
            streams.number(Stream::Add, run.len)?;
            streams.number(Stream::Insert, insert)?;
            old.seek(SeekFrom::Start(run.old))?;
            bidiff::steps(run.len, buffers.new.len(), |len| {
                let (old_bytes, new_bytes) = (&mut buffers.old[..len], &mut buffers.new[..len]);
                old.read_exact(old_bytes)?;
                new.read_exact(new_bytes)?;
                for (new, old) in new_bytes.iter_mut().zip(&*old_bytes) {
                    *new = new.wrapping_sub(*old);
                }
                streams.put_beside(new_bytes, old_bytes)
            })?;
            place = run.old + run.len;
            bidiff::steps(insert, buffers.new.len(), |len| {
                new.read_exact(&mut buffers.new[..len])?;
                streams.put(kind.stream(), &buffers.new[..len])
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
