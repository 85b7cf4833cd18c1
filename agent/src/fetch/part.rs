//! A bundle file under way: which of its bytes are here and proven, and what is still to be had.
//!
//! Bytes are written where they belong as they come, so the file itself is the journal: on opening, every chunk in it is hashed again,
//! and what holds is there, whatever a kill or a power cut did in between. That costs reading, once per start, and no writing.
//!
//! A chunk begun and not finished is gone on with, so that it comes on a link that never carries a whole one between two cuts. At the end of
//! the file its bytes go as far as the file does. Within the file, where a power cut garbled it, it is overwritten with zeros before it
//! comes again, so its bytes go as far as the last one that is not zero; a run of zeros longer than one try carries would not come, and in
//! what is compressed there is none. When the bytes were garbled too, what comes in their place wins, or its hash fails and it begins anew.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skerry_bundle::{TocError, VerifiedToc, head};
use skerry_trust::KeyRing;
use skerry_wire::limits;

use crate::files::{self, FileError};
use crate::steps::{self, Step};

/// Bytes of a chunk; the last of a bundle may be shorter.
const CHUNK: u64 = limits::CHUNK as u64;

/// What the first request asks for: the table of a small bundle, or the whole of a tiny one.
pub(crate) const FIRST: u64 = CHUNK;

/// Why a file under way cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// What came is not the bundle.
    #[error("the bundle from the server cannot be believed: {0}")]
    Bad(String),
}

/// Bytes that may wait for a sync while more come: a power cut costs them.
pub(super) const UNSYNCED: u64 = 4 * CHUNK;

/// A bundle file under way.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    /// Bytes of the whole file, as offered.
    size: u64,
    /// Bytes of the file as it is on the disk.
    length: u64,
    keys: KeyRing,
    state: State,
    /// Bytes that were written since the last sync.
    unsynced: u64,
    /// Bytes of whole chunks that are on the disk for certain.
    synced: u64,
    /// The first bytes are from an earlier start: a power cut may have garbled them.
    inherited: bool,
}

#[derive(Debug)]
enum State {
    /// The first bytes, until they hold the table.
    Head(Vec<u8>),
    /// The table, and what is missing.
    Chunks { table: Arc<VerifiedToc>, missing: Missing },
}

/// Which chunks are not here.
#[derive(Debug, Default)]
struct Missing {
    /// `true` for chunks that are here and proven.
    here: Vec<bool>,
    /// The first chunk that is not here.
    first: usize,
    /// Bytes of the chunks that are here.
    bytes: u64,
    /// The chunk being received.
    current: Option<Current>,
    /// Chunks that came with the wrong bytes.
    bad: u32,
    /// Chunks that came out wrong once, with bytes that the file held before: those are as likely to blame as the server.
    forgiven: BTreeSet<u32>,
}

/// A chunk being received.
#[derive(Debug)]
struct Current {
    chunk: u32,
    /// Its bytes so far.
    bytes: Vec<u8>,
    /// Some of them were found in the file.
    found: bool,
}

impl Part {
    /// Opens the file, makes it when there is none, and finds out what is in it. Blocks while it hashes.
    pub(crate) fn open(path: &Path, size: u64, keys: KeyRing) -> Result<Self, PartError> {
        let new = !path.exists();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(FileError::at(path))?;
        if new {
            // What is synced of the file is of no use without its name.
            files::sync_folder_of(path)?;
            steps::reached(Step::BundleNamed);
        }
        // The writer of a fetch that was dropped may still be at it.
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|e| FileError::at(path)(e.into()))?;
        let (path_of, state) = (path.to_owned(), State::Head(Vec::new()));
        let length = file.metadata().map_err(FileError::at(path))?.len().min(size);
        let mut part = Self { path: path_of, file, size, length, keys, state, unsynced: 0, synced: 0, inherited: false };
        let mut first = part.read_at(0, length.min(FIRST))?;
        if let Head::Needs(needs) = read_head(&first, &part.keys)
            && length > FIRST
        {
            first = part.read_at(0, needs.min(length))?;
        }
        match read_head(&first, &part.keys) {
            Head::Table(table) => {
                part.begin_chunks(table)?;
                part.find_chunks(length)?;
            }
            Head::Needs(needs) if needs <= size => {
                part.inherited = !first.is_empty();
                part.state = State::Head(first);
            }
            Head::Needs(needs) => return Err(part.begin_anew(format!("its table takes {needs} bytes, offered were {size}"))),
            Head::Bad(reason) => {
                // Garbled here or wrong from the start: fetching it again tells which.
                tracing::warn!("{}: begun anew: {reason}", path.display());
                part.file.set_len(0).map_err(FileError::at(path))?;
                part.length = 0;
            }
        }
        Ok(part)
    }

    /// From here on chunks are received.
    fn begin_chunks(&mut self, table: VerifiedToc) -> Result<(), PartError> {
        if table.size() != self.size {
            return Err(self.begin_anew(format!("by its table it has {} bytes, offered were {}", table.size(), self.size)));
        }
        let here = vec![false; usize::try_from(table.chunk_count()).unwrap_or(usize::MAX)];
        self.state = State::Chunks { table: Arc::new(table), missing: Missing { here, ..Missing::default() } };
        Ok(())
    }

    /// Hashes the chunks within the first `length` bytes, and goes on with the first that is not here.
    fn find_chunks(&mut self, length: u64) -> Result<(), PartError> {
        let Some(table) = self.table().map(Arc::clone) else { return Ok(()) };
        for chunk in 0..table.chunk_count() {
            let range = table.chunk_range(chunk);
            if range.end > length {
                break;
            }
            let bytes = self.read_at(range.start, range.end - range.start)?;
            let State::Chunks { missing, .. } = &mut self.state else { return Ok(()) };
            if table.verify_chunk(chunk, &bytes).is_ok() {
                missing.put(chunk, &range);
            }
        }
        self.begin_first()
    }

    /// Goes on with the first chunk that is not here.
    fn begin_first(&mut self) -> Result<(), PartError> {
        let State::Chunks { table, missing } = &self.state else { return Ok(()) };
        let current = missing.first_of(table).map(|chunk| self.begin(chunk, &table.chunk_range(chunk))).transpose()?;
        if let State::Chunks { missing, .. } = &mut self.state {
            missing.current = current;
        }
        Ok(())
    }

    /// A chunk that is not here, with what the file holds of it, as far as that can be told.
    fn begin(&self, chunk: u32, range: &Range<u64>) -> Result<Current, PartError> {
        let end = range.end.min(self.length);
        let mut bytes = if range.start < end { self.read_at(range.start, end - range.start)? } else { Vec::new() };
        if range.end <= self.length {
            let last = filled(&bytes);
            // Filled to its end and wrong: which of its bytes are wrong, nobody can tell.
            bytes.truncate(if last == bytes.len() { 0 } else { last });
        }
        Ok(Current { chunk, found: !bytes.is_empty(), bytes })
    }

    fn read_at(&self, at: u64, length: u64) -> Result<Vec<u8>, PartError> {
        let length = usize::try_from(length).map_err(|_| PartError::Bad("its table is too long for this machine".to_owned()))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).map_err(FileError::at(&self.path))?;
        Ok(bytes)
    }

    /// The table of contents, once it is here and proven.
    pub(crate) fn table(&self) -> Option<&Arc<VerifiedToc>> {
        match &self.state {
            State::Chunks { table, .. } => Some(table),
            State::Head(_) => None,
        }
    }

    /// Bytes that need not be fetched again, should the file be opened anew; of a chunk that is begun, as far as can be told.
    pub(crate) fn have(&self) -> u64 {
        match &self.state {
            State::Head(head) => len(head),
            State::Chunks { missing, table } => {
                // Of the chunk that the file ends with, when it is not whole.
                let tail = if self.length < self.size { self.length.saturating_sub(table.payload_start()) % CHUNK } else { 0 };
                let within = |current: &&Current| table.chunk_range(current.chunk).end <= self.length;
                let begun = missing.current_first().filter(within).map_or(0, |current| filled(&current.bytes) as u64);
                table.payload_start().saturating_add(missing.bytes).saturating_add(tail).saturating_add(begun)
            }
        }
    }

    /// Bytes that a power cut may cost.
    pub(crate) fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// Chunks that came with wrong bytes since it was opened.
    pub(crate) fn bad_chunks(&self) -> u32 {
        match &self.state {
            State::Head(_) => 0,
            State::Chunks { missing, .. } => missing.bad,
        }
    }

    /// How often since it was opened a chunk came out wrong, whoever is to blame.
    pub(crate) fn setbacks(&self) -> u64 {
        match &self.state {
            State::Head(_) => 0,
            State::Chunks { missing, .. } => u64::from(missing.bad).saturating_add(missing.forgiven.len() as u64),
        }
    }

    /// The next run of bytes to get; none when all are here. The table comes first, with no more than [`FIRST`] bytes beside it.
    pub(crate) fn wanted(&self) -> Option<Range<u64>> {
        match &self.state {
            State::Head(first) => {
                let needs = if let Head::Needs(needs) = read_head(first, &self.keys) { needs } else { FIRST };
                Some(len(first)..needs.max(FIRST).min(self.size))
            }
            State::Chunks { table, missing } => {
                let start = table.chunk_range(missing.first_of(table)?).start;
                let start = start + missing.current_first().map_or(0, |current| len(&current.bytes));
                let run = missing.here.iter().skip(missing.first).take_while(|here| !**here).count();
                let last = u32::try_from(missing.first + run.saturating_sub(1)).ok()?;
                Some(start..table.chunk_range(last).end)
            }
        }
    }

    /// Where what is not here begins; of a chunk that is begun, its first byte.
    fn start(&self) -> Option<u64> {
        match &self.state {
            State::Head(first) => Some(len(first)),
            State::Chunks { table, missing } => Some(table.chunk_range(missing.first_of(table)?).start),
        }
    }

    /// Takes bytes that belong at offset `at`. Bytes that are not wanted there are passed over.
    pub(crate) fn push(&mut self, mut at: u64, mut bytes: &[u8]) -> Result<(), PartError> {
        while !bytes.is_empty() {
            let Some(start) = self.start() else { return Ok(()) };
            if at < start {
                let skip = usize::try_from(start - at).unwrap_or(usize::MAX).min(bytes.len());
                (at, bytes) = (at + u64::try_from(skip).unwrap_or(0), &bytes[skip..]);
                continue;
            }
            let taken = match &self.state {
                State::Head(_) => self.push_head(at, bytes)?,
                State::Chunks { .. } => self.push_chunk(at, bytes)?,
            };
            let Some(taken) = taken else { return Ok(()) };
            (at, bytes) = (at + u64::try_from(taken).unwrap_or(0), &bytes[taken..]);
        }
        Ok(())
    }

    /// Bytes taken; none when they belong elsewhere.
    fn push_head(&mut self, at: u64, bytes: &[u8]) -> Result<Option<usize>, PartError> {
        let State::Head(first) = &mut self.state else { return Ok(None) };
        if at != len(first) {
            return Ok(None);
        }
        first.extend_from_slice(bytes);
        let (table, held) = match read_head(first, &self.keys) {
            Head::Table(table) => (table, len(first)),
            Head::Needs(needs) if needs <= self.size => {
                self.write(at, bytes)?;
                return Ok(Some(bytes.len()));
            }
            Head::Needs(needs) => {
                return self.refuse_head(format!("its table takes {needs} bytes, offered were {}", self.size));
            }
            Head::Bad(reason) => return self.refuse_head(reason),
        };
        // What follows the table is of the first chunks: it goes in like any other bytes.
        let beyond = usize::try_from(held.saturating_sub(table.payload_start())).unwrap_or(usize::MAX).min(bytes.len());
        let taken = bytes.len() - beyond;
        self.write(at, &bytes[..taken])?;
        self.sync()?;
        self.begin_chunks(table)?;
        Ok(Some(taken))
    }

    /// The first bytes make no table. When some of them were here from before, only fetching them all again tells whose fault it is.
    fn refuse_head(&mut self, reason: String) -> Result<Option<usize>, PartError> {
        let error = self.begin_anew(reason);
        if std::mem::take(&mut self.inherited) {
            tracing::warn!("{}: begun anew: {error}", self.path.display());
            return Ok(None);
        }
        Err(error)
    }

    fn begin_anew(&mut self, reason: String) -> PartError {
        self.state = State::Head(Vec::new());
        // Nothing of it is of use. Should this fail, the next opening finds the same and tries again.
        let _ = self.file.set_len(0);
        self.length = 0;
        PartError::Bad(reason)
    }

    fn push_chunk(&mut self, at: u64, bytes: &[u8]) -> Result<Option<usize>, PartError> {
        let State::Chunks { table, missing } = &mut self.state else { return Ok(None) };
        let Some(chunk) = at.checked_sub(table.payload_start()).and_then(|at| u32::try_from(at / CHUNK).ok()) else { return Ok(None) };
        let range = table.chunk_range(chunk);
        let room = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        match missing.here.get(chunk as usize) {
            None => return Ok(None),
            // Past the end of the bundle belongs nothing.
            Some(true) if room == 0 => return Ok(None),
            Some(true) => return Ok(Some(room)),
            Some(false) => {}
        }
        let mut current = match missing.current.take() {
            Some(current) if current.chunk == chunk => current,
            _ => self.begin(chunk, &range)?,
        };
        let taken = self.go_on(&range, &mut current, at, &bytes[..room])?;
        let State::Chunks { table, missing } = &mut self.state else { return Ok(None) };
        if len(&current.bytes) < range.end - range.start {
            missing.current = Some(current);
        } else if table.verify_chunk(chunk, &current.bytes).is_ok() {
            missing.put(chunk, &range);
            self.begin_first()?;
        } else {
            if !current.found || !missing.forgiven.insert(chunk) {
                missing.bad = missing.bad.saturating_add(1);
            }
            // What ends in zeros would look like a chunk that is begun.
            self.blank(&range)?;
        }
        Ok(taken)
    }

    /// Adds to what was received of a chunk, here and in the file. Bytes taken; none when there is a gap before them.
    fn go_on(&mut self, range: &Range<u64>, current: &mut Current, at: u64, bytes: &[u8]) -> Result<Option<usize>, PartError> {
        let next = range.start + len(&current.bytes);
        let Some(again) = next.checked_sub(at).and_then(|again| usize::try_from(again).ok()) else { return Ok(None) };
        let (again, new) = bytes.split_at(again.min(bytes.len()));
        let place = usize::try_from(at - range.start).unwrap_or(usize::MAX);
        if current.bytes.get(place..).is_some_and(|known| known.starts_with(again)) {
            if new.is_empty() {
                return Ok(Some(bytes.len()));
            }
            if current.bytes.is_empty() && range.start < self.length {
                self.blank(range)?;
            }
            self.write(next, new)?;
            current.bytes.extend_from_slice(new);
        } else {
            // What the file held was garbled; what comes is newer.
            current.bytes.truncate(place);
            current.found &= place > 0;
            current.bytes.extend_from_slice(bytes);
            self.blank(range)?;
            self.write(range.start, &current.bytes)?;
        }
        Ok(Some(bytes.len()))
    }

    /// Overwrites a chunk with zeros, so that of what comes after it can be told how far it goes.
    fn blank(&mut self, range: &Range<u64>) -> Result<(), PartError> {
        self.write(range.start, &vec![0; usize::try_from(range.end - range.start).unwrap_or(0)])
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), PartError> {
        if let Err(source) = self.file.write_all_at(bytes, at) {
            return Err(FileError { path: self.path.clone(), source }.into());
        }
        self.unsynced = self.unsynced.saturating_add(len(bytes));
        self.length = self.length.max(at.saturating_add(len(bytes)));
        Ok(())
    }

    /// Brings what came onto the disk when that saves a chunk from a power cut, or much of a long table.
    pub(crate) fn sync_chunks(&mut self) -> Result<(), PartError> {
        match &self.state {
            State::Chunks { missing, .. } if missing.bytes != self.synced => {
                self.synced = missing.bytes;
                self.sync()
            }
            _ if self.unsynced >= UNSYNCED => self.sync(),
            _ => Ok(()),
        }
    }

    /// Brings what came onto the disk.
    pub(crate) fn sync(&mut self) -> Result<(), PartError> {
        if self.unsynced > 0 {
            self.file.sync_data().map_err(FileError::at(&self.path))?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

impl Missing {
    /// The first chunk that is not here.
    fn first_of(&self, table: &VerifiedToc) -> Option<u32> {
        u32::try_from(self.first).ok().filter(|first| *first < table.chunk_count())
    }

    /// The chunk being received, when it is the first that is not here.
    fn current_first(&self) -> Option<&Current> {
        self.current.as_ref().filter(|current| current.chunk as usize == self.first)
    }

    /// The chunk is here.
    fn put(&mut self, chunk: u32, range: &Range<u64>) {
        if let Some(here) = self.here.get_mut(chunk as usize)
            && !*here
        {
            *here = true;
            self.bytes += range.end - range.start;
            while self.here.get(self.first) == Some(&true) {
                self.first += 1;
            }
        }
    }
}

/// What the first bytes of a bundle hold.
enum Head {
    /// The table, proven.
    Table(VerifiedToc),
    /// This many bytes from the start are needed.
    Needs(u64),
    /// No table, or not one that may be believed.
    Bad(String),
}

fn read_head(first: &[u8], keys: &KeyRing) -> Head {
    let range = match head::toc_range(first) {
        Ok(range) => range,
        Err(TocError::Short { .. }) => return Head::Needs(head::LEN as u64),
        Err(error) => return Head::Bad(error.to_string()),
    };
    if range.end > len(first) {
        return Head::Needs(range.end);
    }
    VerifiedToc::open(first, keys).map_or_else(|error| Head::Bad(error.to_string()), Head::Table)
}

/// The table of contents in a bundle file; none when it is not there as a whole, or not to be believed.
pub(crate) fn table_in(path: &Path, keys: &KeyRing) -> Option<VerifiedToc> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let read = |bytes: u64| {
        let mut first = vec![0; usize::try_from(bytes).ok()?];
        file.read_exact_at(&mut first, 0).ok()?;
        Some(first)
    };
    match read_head(&read(length.min(FIRST))?, keys) {
        Head::Table(table) => Some(table),
        Head::Needs(needs) if needs <= length => match read_head(&read(needs)?, keys) {
            Head::Table(table) => Some(table),
            _ => None,
        },
        _ => None,
    }
}

/// Hashes a bundle file: is every chunk of it here?
pub(crate) fn is_whole(path: &Path, keys: &KeyRing) -> bool {
    let Some(table) = table_in(path, keys) else { return false };
    Part::open(path, table.size(), keys.clone()).is_ok_and(|part| part.wanted().is_none())
}

/// Bytes up to the last one that is not zero.
fn filled(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn len(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}
