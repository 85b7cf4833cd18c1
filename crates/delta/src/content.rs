//! Changed contents: every codec is tried, several members at a time, and the smallest result is kept.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::archive::form::Form;
use crate::codec::bidiff::{self, Difference};
use crate::codec::bytecode::{self, Bytecode};
use crate::codec::related::related;
use crate::codec::{Kind, dictionary, elf};
use crate::hashed::{Hashed, cancelled};
use crate::large::{self, Runs};
use crate::matching::{Choice, Content};
use crate::old::OldMembers;
use crate::progress::Progress;
use crate::repeats::Repeats;
use crate::source::LayerSource;
use crate::stream::StreamsWriter;

/// A new content and an old one that is probably like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    /// The number of the new member.
    pub number: u32,
    pub new_layer: usize,
    pub new_file: u32,
    pub new_size: u64,
    pub old_layer: usize,
    pub old_file: u32,
    pub old_size: u64,
}

/// The changed contents, and apart from them those that may be archives.
pub(crate) fn jobs(
    new: &Hashed,
    layers: &[&dyn LayerSource],
    choices: &[Choice],
    table: &OldMembers,
    repeats: &Repeats,
    old_layers: usize,
) -> io::Result<(Vec<Job>, BTreeMap<u32, Job>)> {
    let (mut jobs, mut late) = (Vec::new(), BTreeMap::new());
    for ((number, member), choice) in new.members.iter().zip(choices) {
        let Content::Like(source) = choice.content else { continue };
        let repeated = source.checked_sub(table.len()).and_then(|kept| repeats.member(kept));
        // New layers come after the old ones.
        let old = match repeated {
            Some(number) => new.members.get(number).map(|old| (old, old_layers)),
            None => table.get(source).map(|old| (old, 0)),
        };
        let (Some((old, layer)), Some(new_file)) = (old, member.file) else { continue };
        let Some(old_file) = old.file else { continue };
        let job = Job {
            number,
            new_layer: usize::from(member.layer),
            new_file,
            new_size: member.size,
            old_layer: layer + usize::from(old.layer),
            old_file,
            old_size: old.size,
        };
        // What is kept of this patch cannot be an archive's source.
        if repeated.is_none() && Form::of(&start(layers[job.new_layer], new_file)?).is_some() {
            late.insert(number, job);
        } else {
            jobs.push(job);
        }
    }
    Ok((jobs, late))
}

/// The first bytes of a file.
fn start(layer: &dyn LayerSource, file: u32) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    layer.open(file)?.take(8).read_to_end(&mut start)?;
    Ok(start)
}

/// The best way found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    New,
    Bidiff(Kind, Difference),
    Dictionary(Vec<u8>),
    Bytecode(Bytecode),
    Elf(Kind, Difference),
    /// As [`Outcome::Bidiff`], of contents that are read again when it is written.
    Large(Kind, Runs, Job),
}

/// Results are worked out ahead of their use for about this many bytes of new content.
const AHEAD: u64 = 96 << 20;

/// The results of all jobs, in order, worked out in batches.
pub(crate) struct Contents<'a> {
    jobs: Vec<Job>,
    /// Jobs that are worked out only when they are asked for.
    late: BTreeMap<u32, Job>,
    next: usize,
    ready: BTreeMap<u32, Outcome>,
    new: &'a [&'a dyn LayerSource],
    old: &'a [&'a dyn LayerSource],
    memory: u64,
    progress: &'a dyn Progress,
    cancel: &'a AtomicBool,
}

impl<'a> Contents<'a> {
    pub(crate) fn new(
        (jobs, late): (Vec<Job>, BTreeMap<u32, Job>),
        new: &'a [&'a dyn LayerSource],
        old: &'a [&'a dyn LayerSource],
        memory: u64,
        progress: &'a dyn Progress,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self { jobs, late, next: 0, ready: BTreeMap::new(), new, old, memory, progress, cancel }
    }

    /// True for a member that may be an archive.
    pub(crate) fn is_late(&self, number: u32) -> bool {
        self.late.contains_key(&number)
    }

    /// The result for this member; `told` are the bytes of it of whose progress somebody was told before.
    pub(crate) fn take(&mut self, number: u32, told: u64) -> io::Result<Outcome> {
        if let Some(job) = self.late.remove(&number) {
            let outcome = self.compare(&job, self.memory)?;
            self.progress.advance(job.new_size.saturating_sub(told));
            return Ok(outcome);
        }
        if !self.ready.contains_key(&number) {
            self.batch()?;
        }
        Ok(self.ready.remove(&number).unwrap_or(Outcome::New))
    }

    fn batch(&mut self) -> io::Result<()> {
        let mut end = self.next;
        let mut bytes = 0;
        while end < self.jobs.len() && (end == self.next || bytes + self.jobs[end].new_size <= AHEAD.min(self.memory / 6)) {
            bytes += self.jobs[end].new_size;
            end += 1;
        }
        let mut batch: Vec<_> = self.jobs[self.next..end].to_vec();
        self.next = end;
        // Long ones first, so that no core waits for one at the end. Those that need much memory go one at a time.
        batch.sort_by_key(|job| (std::cmp::Reverse(job.new_size), job.number));
        let share = self.memory / 2 / rayon::current_num_threads() as u64;
        let (shared, alone): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|job| job.new_size.max(job.old_size) < large::LARGE && need(job) <= share);
        for job in alone {
            let outcome = self.work(&job, self.memory)?;
            self.ready.insert(job.number, outcome);
        }
        let this = &*self;
        let results = shared
            .into_par_iter()
            .with_max_len(1)
            .map(|job| this.work(&job, share).map(|outcome| (job.number, outcome)))
            .collect::<io::Result<Vec<_>>>()?;
        self.ready.extend(results);
        Ok(())
    }

    fn work(&self, job: &Job, memory: u64) -> io::Result<Outcome> {
        let outcome = self.compare(job, memory)?;
        self.progress.advance(job.new_size);
        Ok(outcome)
    }

    fn compare(&self, job: &Job, memory: u64) -> io::Result<Outcome> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        if need(job) > memory || (job.new_size.max(job.old_size) >= large::LARGE && !self.is_program(job)?) {
            return self.large(job, memory);
        }
        let old = read(self.old[job.old_layer], job.old_file, job.old_size)?;
        let new = read(self.new[job.new_layer], job.new_file, job.new_size)?;
        best(&old, &new, memory, self.cancel)
    }

    fn is_program(&self, job: &Job) -> io::Result<bool> {
        let mut start = Vec::new();
        self.new[job.new_layer].open(job.new_file)?.take(START).read_to_end(&mut start)?;
        Ok(elf::is_program(&start))
    }

    /// The difference of contents that are not held in memory.
    fn large(&self, job: &Job, memory: u64) -> io::Result<Outcome> {
        let mut old = self.old[job.old_layer].open(job.old_file)?;
        let mut new = self.new[job.new_layer].open(job.new_file)?;
        let mut start = Vec::new();
        (&mut new).take(START).read_to_end(&mut start)?;
        let runs = large::compare((&mut *old, job.old_size), (&mut *new, job.new_size), memory, self.cancel)?;
        // Little in common does not pay for the runs.
        Ok(if runs.covered() >= job.new_size / 32 { Outcome::Large(Kind::of(&start), runs, *job) } else { Outcome::New })
    }

    /// Appends such a difference to the streams.
    pub(crate) fn write_large(&self, job: &Job, kind: Kind, runs: &Runs, streams: &mut StreamsWriter<'_>) -> io::Result<()> {
        let mut old = self.old[job.old_layer].open(job.old_file)?;
        let mut new = self.new[job.new_layer].open(job.new_file)?;
        runs.write(streams, kind, &mut *old, (&mut *new, job.new_size))
    }
}

/// So many first bytes tell what a content is.
const START: u64 = 64 << 10;

/// A shorter content is compared whatever it is.
const LONG: usize = 64 << 10;

/// Bytes of memory that comparing in memory needs.
fn need(job: &Job) -> u64 {
    elf::memory(job.old_size, job.new_size)
}

/// The smallest of what the codecs give, made with at most about `memory` bytes.
fn best(old: &[u8], new: &[u8], memory: u64, cancel: &AtomicBool) -> io::Result<Outcome> {
    let kind = Kind::of(new);
    if let Some(same) = bytecode::separate(old, new, false) {
        return Ok(Outcome::Bytecode(same));
    }
    let mut best = (cost(new)?, Outcome::New);
    // Compressed or encrypted anew: nothing to be found, and the search for it takes longest of all.
    if new.len() >= LONG && kind == Kind::Dense && best.0 >= new.len() - new.len() / 64 && !related(old, new) {
        return Ok(best.1);
    }
    // A program's runs are found better among marks than among addresses: plain differences are not tried as well. Of 118 programs of the
    // workloads S4 and S9 they looked smaller for two, by 4 %; with those the bundle of S4 was larger, 909,301 bytes instead of 906,024.
    let program = if elf::memory(old.len() as u64, new.len() as u64) <= memory { elf::difference(old, new, cancel)? } else { None };
    let (difference, wrap): (_, fn(Kind, Difference) -> Outcome) = match program {
        Some(difference) => (difference, Outcome::Elf),
        None => (bidiff::difference_until(old, new, cancel)?, Outcome::Bidiff),
    };
    let as_difference = cost_of(&difference)?;
    if as_difference <= best.0 {
        best = (as_difference, wrap(kind, difference));
    }
    if let Some(code) = bytecode::separate(old, new, true) {
        let as_code = code.difference().map_or(Ok(0), cost_of)?;
        if as_code <= best.0 {
            best = (as_code, Outcome::Bytecode(code));
        }
    }
    // A frame of its own cannot share statistics with other members: it must be clearly smaller.
    if let Some(frame) = dictionary::compress(old, new)?.filter(|frame| frame.len() + frame.len() / 8 + 16 < best.0) {
        best = (frame.len(), Outcome::Dictionary(frame));
    }
    Ok(best.1)
}

/// The smallest of the codecs for an entry of an archive, and about how many bytes it takes.
pub(crate) fn of_entry(old: Option<&[u8]>, new: &[u8], cancel: &AtomicBool) -> io::Result<(usize, Outcome)> {
    let mut best = (cost(new)?, Outcome::New);
    let Some(old) = old else { return Ok(best) };
    let (difference, wrap): (_, fn(Kind, Difference) -> Outcome) = match elf::difference(old, new, cancel)? {
        Some(difference) => (difference, Outcome::Elf),
        None => (bidiff::difference_until(old, new, cancel)?, Outcome::Bidiff),
    };
    let as_difference = cost_of(&difference)?;
    if as_difference <= best.0 {
        best = (as_difference, wrap(Kind::of(new), difference));
    }
    if let Some(frame) = dictionary::compress(old, new)?.filter(|frame| frame.len() + frame.len() / 8 + 16 < best.0) {
        best = (frame.len(), Outcome::Dictionary(frame));
    }
    Ok(best)
}

/// About how many bytes a difference adds to the streams.
fn cost_of(difference: &Difference) -> io::Result<usize> {
    let mut total = 0;
    for (index, part) in difference.parts().into_iter().enumerate() {
        // Beside their old bytes differences become about half as long as zstd makes them.
        total += cost(part)? >> u32::from(index == bidiff::DIFFERENCES);
    }
    Ok(total)
}

/// About how many bytes these add to a stream.
fn cost(bytes: &[u8]) -> io::Result<usize> {
    const FRAME: usize = 12;
    if bytes.len() <= FRAME {
        return Ok(bytes.len());
    }
    let level = if bytes.len() < 256 << 10 { 12 } else { 3 };
    Ok(zstd::bulk::compress(bytes, level)?.len().saturating_sub(FRAME).max(1).min(bytes.len()))
}

fn read(layer: &dyn LayerSource, file: u32, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(io::Error::other)?);
    layer.open(file)?.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("file {file} of a layer has fewer than its {size} bytes")));
    }
    Ok(bytes)
}
