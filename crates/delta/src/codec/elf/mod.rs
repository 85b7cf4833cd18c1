//! ELF: a program as runs of an old one, whose addresses are expected to be where the runs lead.
//!
//! The streams are those of [`bidiff`](super::bidiff). All runs of a content are read first: they tell what became of old addresses.
//! Wherever old bytes hold an address (a call, a jump, a reference to data, a relocation, a symbol, an unwinding entry), the
//! difference is taken from what that address became, not from the old bytes. What addresses really became is learnt on the way.
//! The first [`HEAD`] bytes have plain differences: the headers in them tell where the new bytes will be in memory.
//!
//! Class data of Java is such a program too, whose words may be addresses.
//!
//! The maker compares contents whose addresses were replaced by marks of what is there, so that runs do not end at each of them.

mod debug;
mod fields;
mod map;
mod normal;
mod program;
mod scan;
mod targets;

use std::io::{self, Cursor, SeekFrom};
use std::sync::atomic::AtomicBool;

use self::debug::Debug;
use self::fields::{AHEAD, Finder};
use self::map::{Map, Run};
use self::program::{HEAD, Part, Program};
use self::scan::{Scan, Way, plain};
use self::targets::Targets;
use super::Kind;
use super::bidiff::{self, Buffers, Difference, steps};
use crate::source::ReadSeek;
use crate::stream::{Stream, StreamsReader};
use crate::varint;

/// Runs of one content: whoever applies holds them all.
const RUNS: usize = 1 << 16;
/// Bytes of memory that applying needs at most beside buffers.
pub const MEMORY: u64 = targets::MEMORY + debug::MEMORY + (RUNS * (size_of::<Run>() + map::MEMORY)) as u64 + (64 << 10);
/// Buffers must be longer than this.
const BUFFER: usize = 2 * AHEAD;

/// Bytes of memory that [`difference`] needs at most, about.
pub fn memory(old: u64, new: u64) -> u64 {
    bidiff::memory(old, new) + 2 * (old + new)
}

/// Whether a content that starts like this may be a program.
pub fn is_program(start: &[u8]) -> bool {
    start.len() > HEAD && Program::parse(&start[..HEAD]).is_some()
}

/// Whether a content that starts like this is class data.
pub(crate) fn is_class_data(start: &[u8]) -> bool {
    start.len() >= HEAD && Program::parse(&start[..HEAD]).is_some_and(|program| program.is_class_data())
}

/// Compares two programs; `None` when they are none, or applying would not give the new one. An error soon after `cancel` is set.
pub fn difference(old: &[u8], new: &[u8], cancel: &AtomicBool) -> io::Result<Option<Difference>> {
    if !is_program(old) || !is_program(new) {
        return Ok(None);
    }
    let (Some(normal_old), Some(normal_new)) = (normal::normal(old)?, normal::normal(new)?) else { return Ok(None) };
    let mut found = bidiff::difference_until(&normal_old, &normal_new, cancel)?;
    drop((normal_old, normal_new));
    let Ok(runs) = read_runs(&mut Parts([&found.add, &found.insert, &found.seek]), old.len() as u64, new.len() as u64) else {
        return Ok(None);
    };
    found.differences.clear();
    found.beside.clear();
    found.new.clear();
    let map = Map::new(&runs);
    let mut cursor = Cursor::new(old);
    let Some(known) = Old::read(&mut cursor, old.len() as u64)? else { return Ok(None) };
    let program = Program::parse(&new[..HEAD]).filter(|program| program.is_like(&known.program));
    let Some(program) = program else { return Ok(None) };
    let mut scan = known.scan(program, &map, Way::Make);
    for (run, next) in runs.iter().zip(runs.iter().skip(1).map(|run| run.new as usize).chain([new.len()])) {
        let (from, at, len) = (run.old as usize, run.new as usize, run.len as usize);
        let start = found.differences.len();
        found.differences.extend_from_slice(&new[at..at + len]);
        let data = &mut found.differences[start..];
        let old = &old[from..from + len];
        found.beside.extend_from_slice(old);
        let head = HEAD.saturating_sub(at).min(len);
        plain(Way::Make, &old[..head], &mut data[..head]);
        scan.start();
        scan.go((from + head) as u64, (at + head) as u64, &old[head..], &mut data[head..], true);
        found.new.extend_from_slice(&new[at + len..next]);
    }
    drop(scan);
    Ok(proven(old, new, &runs, &found)?.then_some(found))
}

/// Whether applying gives the new content.
fn proven(old: &[u8], new: &[u8], runs: &[Run], found: &Difference) -> io::Result<bool> {
    let (mut differences, mut fresh) = (&found.differences[..], &found.new[..]);
    let mut read = |what: What, into: &mut [u8], _: &[u8]| {
        io::Read::read_exact(if what == What::Difference { &mut differences } else { &mut fresh }, into)
    };
    let mut at = 0;
    let mut same = true;
    let mut out = |bytes: &[u8]| {
        same &= new[at..].starts_with(bytes);
        at += bytes.len();
        Ok(())
    };
    let buffers = &mut Buffers::new(4096);
    let done = rebuild(runs, &mut Cursor::new(old), [old.len(), new.len()].map(|len| len as u64), &mut read, buffers, &mut out);
    Ok(done.is_ok() && same && at == new.len())
}

/// Writes `size` bytes made of `old`, of `old_size` bytes, and the streams to `out`, in steps of the buffer's length.
pub fn apply(
    streams: &mut StreamsReader<'_>,
    kind: Kind,
    old: &mut dyn ReadSeek,
    [old_size, size]: [u64; 2],
    buffers: &mut Buffers,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let runs = read_runs(streams, old_size, size)?;
    let mut read = |what: What, into: &mut [u8], old: &[u8]| match what {
        // The old bytes are a part of how differences are coded: both sides must give the same.
        What::Difference => streams.get(Stream::Difference).read_beside(into, old),
        What::New => io::Read::read_exact(streams.get(kind.stream()), into),
    };
    rebuild(&runs, old, [old_size, size], &mut read, buffers, out)
}

/// Which bytes are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Difference,
    New,
}

/// Reads so many bytes; differences stand beside old bytes.
type ReadWhat<'r> = dyn FnMut(What, &mut [u8], &[u8]) -> io::Result<()> + 'r;

fn rebuild(
    runs: &[Run],
    old: &mut dyn ReadSeek,
    [old_size, size]: [u64; 2],
    read: &mut ReadWhat<'_>,
    buffers: &mut Buffers,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    if buffers.new.len() < BUFFER {
        *buffers = Buffers::new(BUFFER);
    }
    let map = Map::new(runs);
    let known = Old::read(old, old_size)?.ok_or_else(|| invalid("addresses of what is no program"))?;
    let mut head = Vec::with_capacity(HEAD);
    let mut scan: Option<Scan<'_>> = None;
    for (index, run) in runs.iter().enumerate() {
        old.seek(SeekFrom::Start(u64::from(run.old)))?;
        if let Some(scan) = &mut scan {
            scan.start();
        }
        let (mut at, mut held) = (0u64, 0);
        let len = u64::from(run.len);
        while at < len {
            let more = usize::try_from(len - at).unwrap_or(usize::MAX).min(buffers.new.len()) - held;
            old.read_exact(&mut buffers.old[held..held + more])?;
            read(What::Difference, &mut buffers.new[held..held + more], &buffers.old[held..held + more])?;
            held += more;
            let (old_at, new_at) = (u64::from(run.old) + at, u64::from(run.new) + at);
            let (old, new) = (&buffers.old[..held], &mut buffers.new[..held]);
            let done = match &mut scan {
                Some(scan) => scan.go(old_at, new_at, old, new, at + held as u64 == len),
                None => {
                    let done = held.min(HEAD - head.len());
                    plain(Way::Apply, &old[..done], &mut new[..done]);
                    head.extend_from_slice(&new[..done]);
                    scan = known.after(&head, &map)?;
                    done
                }
            };
            out(&buffers.new[..done])?;
            buffers.old.copy_within(done..held, 0);
            buffers.new.copy_within(done..held, 0);
            held -= done;
            at += done as u64;
        }
        let next = runs.get(index + 1).map_or(size, |run| u64::from(run.new));
        steps(next - u64::from(run.new) - len, buffers.new.len(), |len| {
            read(What::New, &mut buffers.new[..len], &[])?;
            if scan.is_none() {
                head.extend_from_slice(&buffers.new[..len.min(HEAD - head.len())]);
                scan = known.after(&head, &map)?;
            }
            out(&buffers.new[..len])
        })?;
    }
    Ok(())
}

/// What is known of the old content.
struct Old {
    program: Program,
    parts: Vec<Part>,
    debug: Debug,
}

impl Old {
    fn read(old: &mut dyn ReadSeek, size: u64) -> io::Result<Option<Self>> {
        let mut head = vec![0; usize::try_from(size).unwrap_or(HEAD).min(HEAD)];
        old.seek(SeekFrom::Start(0))?;
        old.read_exact(&mut head)?;
        let Some(program) = Program::parse(&head) else { return Ok(None) };
        let (parts, places) = program.parts(old, size)?;
        let debug = Debug::read(old, places)?;
        Ok(Some(Self { program, parts, debug }))
    }

    fn scan<'a>(&'a self, new: Program, map: &'a Map, way: Way) -> Scan<'a> {
        Scan::new(Targets::new(&self.program, new, map), Finder::new(&self.program, &self.debug), &self.parts, way)
    }

    /// Once the first bytes of the new content are there.
    fn after<'a>(&'a self, head: &[u8], map: &'a Map) -> io::Result<Option<Scan<'a>>> {
        if head.len() < HEAD {
            return Ok(None);
        }
        let new = Program::parse(head).ok_or_else(|| invalid("addresses in what is no program"))?;
        Ok(Some(self.scan(new, map, Way::Apply)))
    }
}

/// Where the numbers of runs come from.
trait Numbers {
    fn number(&mut self, stream: Stream) -> io::Result<u64>;
}

impl Numbers for StreamsReader<'_> {
    fn number(&mut self, stream: Stream) -> io::Result<u64> {
        StreamsReader::number(self, stream)
    }
}

struct Parts<'a>([&'a [u8]; 3]);

impl Numbers for Parts<'_> {
    fn number(&mut self, stream: Stream) -> io::Result<u64> {
        varint::get(&mut self.0[stream as usize - Stream::Add as usize])
    }
}

/// The runs of a content, checked against both sizes.
fn read_runs(numbers: &mut impl Numbers, old_size: u64, size: u64) -> io::Result<Vec<Run>> {
    let too_long = || invalid("a program that is too long");
    u32::try_from(old_size).map_err(|_| too_long())?;
    u32::try_from(size).map_err(|_| too_long())?;
    let short = |n: u64| u32::try_from(n).map_err(|_| too_long());
    let mut runs = Vec::new();
    let (mut old, mut new) = (0u64, 0u64);
    while new < size {
        if !runs.is_empty() {
            let by = varint::unzigzag(numbers.number(Stream::Seek)?);
            old = old.checked_add_signed(by).ok_or_else(|| invalid("a seek outside of the old content"))?;
        }
        let (len, insert) = (numbers.number(Stream::Add)?, numbers.number(Stream::Insert)?);
        if runs.len() == RUNS {
            return Err(invalid("a program in too many runs"));
        }
        runs.push(Run { old: short(old)?, new: short(new)?, len: short(len)? });
        old = old.checked_add(len).filter(|end| *end <= old_size).ok_or_else(|| invalid("a run beyond the end of the old content"))?;
        new = new
            .checked_add(len)
            .and_then(|new| new.checked_add(insert))
            .filter(|end| *end <= size)
            .ok_or_else(|| invalid("a run beyond the end of the new content"))?;
    }
    Ok(runs)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"))
}
#[cfg(test)]
mod tests;
