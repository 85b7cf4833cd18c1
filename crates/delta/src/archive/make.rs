//! The plan of an archive: for each entry where it comes from, found over the entries of all old archives.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use rayon::prelude::*;

use super::form::{Form, Model, Sum};
use super::old::{ArchiveRef, Archives, MAX_PLAIN, Origin};
use super::zip::{DEFLATED, Entry, STORED};
use super::{MAX_DEPTH, deflate, zlib};
use crate::codec::{bidiff, elf};
use crate::content::{Outcome, of_entry};
use crate::progress::Watch;

/// A new archive, or old archives together, longer than this are not opened.
pub(crate) const LIMIT: u64 = 512 << 20;
/// Contents are compared in batches of about this many bytes.
const BATCH: u64 = 48 << 20;

/// An archive as its entries.
pub(super) struct Plan {
    pub(super) form: Form,
    pub(super) base: ArchiveRef,
    pub(super) entries: Vec<Planned>,
    pub(super) prefix: Vec<u8>,
    pub(super) comment: Vec<u8>,
}

/// An entry.
pub(super) struct Planned {
    pub(super) entry: Entry,
    /// Number and values of the entry of the base that its headers come from.
    pub(super) base: Option<(u32, Entry)>,
    pub(super) source: Option<(ArchiveRef, u32)>,
    pub(super) content: Content,
    pub(super) level: u8,
}

/// Where its content comes from; all but `Same` from its source, if there is one.
pub(super) enum Content {
    /// The bytes are the base's.
    Same,
    Raw,
    Plain,
    /// By a codec; with the size of the old content, the size of the new one, and its bytes when the codec carries them.
    Made {
        old: u64,
        new: u64,
        outcome: Outcome,
        bytes: Vec<u8>,
    },
    Archive(Box<Plan>),
    Carried(Vec<u8>),
}

/// Old entries by what they are found by.
#[derive(Default)]
struct Index {
    sums: HashMap<(u32, u32), Vec<(ArchiveRef, u32)>>,
    names: HashMap<Arc<[u8]>, Vec<(ArchiveRef, u32)>>,
    known: BTreeSet<ArchiveRef>,
}

/// What planning may use, and who watches.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// Bytes of memory, about.
    pub memory: u64,
    pub watch: Watch<'a>,
}

impl Bounds<'_> {
    /// The longest new archive that is opened, and most plain bytes of one entry with those that a plan carries: an archive is held, an
    /// entry's content and what is tried for it, and the plan.
    pub(crate) fn longest(&self) -> u64 {
        LIMIT.min(self.memory / 4)
    }

    /// Bytes of memory for comparing entries; one that needs more is carried as it is.
    fn comparing(&self) -> u64 {
        self.memory / 4 * 3
    }
}

/// Plans archives.
pub(crate) struct Planner<'a> {
    pub(super) archives: Archives<'a>,
    bounds: Bounds<'a>,
    /// All old members that look like archives.
    candidates: Vec<Origin>,
    index: Index,
    /// The longest old content that is read, and the longest new one that is made, or directory of an archive.
    longest: (u64, u64),
    /// Old archives in others of which the length is in that.
    opened: BTreeSet<ArchiveRef>,
    /// Plain bytes that the plan in the making carries.
    carried: u64,
}

/// True for a name that archives have.
pub(crate) fn is_named(path: &[u8]) -> bool {
    [".jar", ".war", ".ear", ".zip", ".whl", ".egg", ".aar", ".apk"].iter().any(|end| path.ends_with(end.as_bytes()))
}

struct Work {
    at: usize,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(archives: Archives<'a>, candidates: Vec<Origin>, bounds: Bounds<'a>) -> Self {
        Self { archives, bounds, candidates, index: Index::default(), longest: (0, 0), opened: BTreeSet::new(), carried: 0 }
    }

    /// Bytes of scratch files that applying needs at most: old contents that are open, and of new ones a content and a directory at each depth.
    pub(super) fn scratch(&self) -> u64 {
        let beyond = |len: u64| if len > super::HELD { len } else { 0 };
        let (old, new) = self.longest;
        (super::old::OPEN as u64 + 1) * beyond(old) + 2 * (u64::from(MAX_DEPTH) + 1) * beyond(new)
    }

    pub(super) fn longest(&self) -> u64 {
        self.bounds.longest()
    }

    /// The plan for a content whose old version is probably this; `None` when it has no model or would not become smaller. `told`
    /// becomes the bytes of it of whose progress somebody was told.
    pub(super) fn plan(&mut self, new: &[u8], old: Origin, told: &mut u64) -> io::Result<Option<Plan>> {
        for origin in std::mem::take(&mut self.candidates) {
            self.add(origin)?;
        }
        let Some(base) = self.add(old)? else { return Ok(None) };
        self.carried = 0;
        let plan = self.archive(new, base, 0, told)?;
        Ok(plan.filter(|(_, cost)| *cost < new.len()).map(|(plan, _)| plan))
    }

    /// Takes an old archive and those in it into the index; `None` when it is none.
    fn add(&mut self, origin: Origin) -> io::Result<Option<ArchiveRef>> {
        // One that cannot be mentioned is carried by another codec.
        let Ok(archive) = self.archives.find(origin).map_or_else(|| self.archives.add(origin), Ok) else { return Ok(None) };
        if self.index.known.contains(&archive) {
            return Ok(Some(archive));
        }
        let Some(count) = readable(self.archives.entries(archive))? else { return Ok(None) };
        let form = self.archives.form(archive)?;
        self.index.known.insert(archive);
        for number in 0..count {
            self.bounds.watch.go_on()?;
            let Ok(entry) = self.archives.entry(archive, number) else { continue };
            if matches!(entry.meta.method(), STORED | DEFLATED) {
                self.index.sums.entry((entry.sums.crc, entry.sums.plain)).or_default().push((archive, number));
            }
            if form != Form::Zip {
                // It is found by where it is: names in gzip files say little.
                continue;
            }
            let nested = is_named(&entry.name) && u64::from(entry.sums.plain) <= LIMIT && self.archives.depth(archive) < MAX_DEPTH;
            self.index.names.entry(entry.name.into()).or_default().push((archive, number));
            if nested {
                self.add(Origin::Entry { archive, entry: number })?;
            }
        }
        Ok(Some(archive))
    }

    fn archive(&mut self, new: &[u8], base: ArchiveRef, depth: u8, told: &mut u64) -> io::Result<Option<(Plan, usize)>> {
        let Some(form) = Form::of(new) else { return Ok(None) };
        let Some(Model { entries, prefix, comment }) = form.model(new) else { return Ok(None) };
        let mut plan = Plan { form, base, entries: Vec::with_capacity(entries.len()), prefix, comment };
        let mut work: Vec<Work> = Vec::new();
        let batch = BATCH.min(self.bounds.memory / 12);
        let mut held = 0;
        let mut cost = plan.prefix.len() + plan.comment.len() + 16;
        let mut directory = 0;
        let mut level = 6;
        let mut next = (base, 0);
        for (entry, coded) in entries {
            self.bounds.watch.go_on()?;
            let coded = &coded[..];
            directory += entry.central(0).map_or(0, |head| head.len() as u64);
            if depth == 0 {
                self.bounds.watch.progress.advance(coded.len() as u64);
                *told += coded.len() as u64;
            }
            let same: Vec<_> = self.index.sums.get(&(entry.sums.crc, entry.sums.plain)).into_iter().flatten().copied().collect();
            let named = self.index.names.get(&entry.name[..]).into_iter().flatten().copied().collect::<Vec<_>>();
            let mut head = named.iter().find(|(archive, _)| *archive == base).or_else(|| same.iter().find(|(archive, _)| *archive == base));
            let only = (base, 0);
            if form != Form::Zip && self.archives.entries(base)? > 0 {
                head = Some(&only);
            }
            let head = head.map(|&(_, number)| self.archives.entry(base, number).map(|entry| (number, entry))).transpose()?;
            // Of several with the same content the base's own, then the one after the last.
            let mut same = same;
            let own = head.as_ref().map(|(number, _)| (base, *number));
            same.sort_by_key(|&place| (Some(place) != own, place != next, place.0 != next.0, place));
            let mut planned = Planned { entry, base: head, source: None, content: Content::Same, level };
            if let Some(place) = self.same_raw(&same, &planned.entry, coded)? {
                next = (place.0, place.1 + 1);
                if Some(place) != own {
                    planned.content = Content::Raw;
                    planned.source = Some(place);
                    cost += 2;
                }
                plan.entries.push(planned);
                continue;
            }
            // What is too long to be made plain is carried as it stands.
            let fits = u64::from(planned.entry.sums.plain) <= self.bounds.longest().saturating_sub(self.carried);
            let plain = if fits { plain(form, &planned.entry, coded) } else { None };
            let found = plain.as_ref().and_then(|plain| match planned.entry.meta.method() {
                STORED => Some(level),
                _ => deflate::level(plain, coded, level),
            });
            self.longest.1 = self.longest.1.max(coded.len() as u64);
            let (Some(plain), Some(found)) = (plain, found) else {
                if form != Form::Zip {
                    // Nothing is known of it then: other codecs carry the whole of it as well.
                    return Ok(None);
                }
                cost += coded.len();
                planned.content = Content::Carried(coded.to_vec());
                plan.entries.push(planned);
                continue;
            };
            (level, planned.level) = (found, found);
            if let Some(place) = self.same_plain(&same, &plain)? {
                next = (place.0, place.1 + 1);
                (planned.source, planned.content) = (Some(place), Content::Plain);
                cost += 2;
                plan.entries.push(planned);
                continue;
            }
            planned.source = own.or_else(|| named.first().copied());
            if Form::of(&plain).is_some()
                && depth < MAX_DEPTH
                && let Some((archive, number)) = planned.source
                && let Some(old) = self.add(Origin::Entry { archive, entry: number })?
            {
                self.opens(old)?;
                if let Some((nested, inner)) = self.archive(&plain, old, depth + 1, told)?.filter(|(_, inner)| *inner < coded.len()) {
                    cost += inner;
                    planned.content = Content::Archive(Box::new(nested));
                    plan.entries.push(planned);
                    continue;
                }
            }
            let old = match planned.source {
                Some((archive, number)) if self.may_compare(archive, number, &plain)? => self.old_plain(archive, number)?,
                _ => None,
            };
            if old.is_none() {
                planned.source = None;
            }
            held += (plain.len() + old.as_ref().map_or(0, Vec::len)) as u64;
            work.push(Work { at: plan.entries.len(), old, new: plain });
            plan.entries.push(planned);
            if held >= batch {
                cost += self.finish(&mut plan, std::mem::take(&mut work))?;
                held = 0;
            }
        }
        cost += self.finish(&mut plan, work)?;
        // Whoever applies keeps it until the entries are made.
        self.longest.1 = self.longest.1.max(directory);
        Ok(Some((plan, cost)))
    }

    /// The first of these places whose bytes in the archive are `coded`.
    fn same_raw(&mut self, places: &[(ArchiveRef, u32)], entry: &Entry, coded: &[u8]) -> io::Result<Option<(ArchiveRef, u32)>> {
        for &(archive, number) in places.iter().take(4) {
            let old = self.archives.entry(archive, number)?;
            if old.sums != entry.sums || old.meta.method() != entry.meta.method() {
                continue;
            }
            let mut rest = coded;
            let mut equal = true;
            let read = readable(self.archives.raw(archive, number, &mut |bytes| {
                equal = equal && rest.starts_with(bytes);
                rest = rest.get(bytes.len()..).unwrap_or_default();
                Ok(())
            }))?;
            if equal && read.is_some() {
                self.opens(archive)?;
                return Ok(Some((archive, number)));
            }
        }
        Ok(None)
    }

    /// Whoever applies opens this old archive, and those that it is in.
    fn opens(&mut self, mut archive: ArchiveRef) -> io::Result<()> {
        while let Some(Origin::Entry { archive: outer, entry }) = self.archives.origin(archive) {
            if !self.opened.insert(archive) {
                break;
            }
            self.longest.0 = self.longest.0.max(u64::from(self.archives.entry(outer, entry)?.sums.plain));
            archive = outer;
        }
        Ok(())
    }

    /// The first of these places whose content is `plain`.
    fn same_plain(&mut self, places: &[(ArchiveRef, u32)], plain: &[u8]) -> io::Result<Option<(ArchiveRef, u32)>> {
        for &(archive, number) in places.iter().take(2) {
            if self.old_plain(archive, number)?.is_some_and(|old| old == plain) {
                return Ok(Some((archive, number)));
            }
        }
        Ok(None)
    }

    /// Is there memory to compare a content with an old entry's?
    fn may_compare(&mut self, archive: ArchiveRef, number: u32, new: &[u8]) -> io::Result<bool> {
        let old = self.archives.entry(archive, number)?.sums.plain;
        Ok(need(u64::from(old), new) <= self.bounds.comparing())
    }

    /// Compares what is waiting; about how many bytes it takes.
    fn finish(&mut self, plan: &mut Plan, work: Vec<Work>) -> io::Result<usize> {
        // What needs much memory goes alone.
        let bounds = self.bounds;
        let share = bounds.comparing() / rayon::current_num_threads() as u64;
        let needs = |work: &Work| work.old.as_ref().map_or(0, |old| need(old.len() as u64, &work.new));
        let (shared, alone): (Vec<_>, Vec<_>) = work.into_iter().partition(|work| needs(work) <= share);
        let compare =
            |work: Work| of_entry(work.old.as_deref(), &work.new, bounds.watch.cancel).map(|(cost, outcome)| (work, cost, outcome));
        let mut done = shared.into_par_iter().map(compare).collect::<io::Result<Vec<_>>>()?;
        for work in alone {
            done.push(compare(work)?);
        }
        let mut total = 0;
        for (work, cost, outcome) in done {
            total += cost;
            let (old, new) = (work.old.as_ref().map_or(0, Vec::len) as u64, work.new.len() as u64);
            let bytes = if outcome == Outcome::New { work.new } else { Vec::new() };
            self.carried += bytes.len() as u64;
            plan.entries[work.at].content = Content::Made { old, new, outcome, bytes };
        }
        Ok(total)
    }

    /// An old entry's content; `None` when it cannot be read.
    fn old_plain(&mut self, archive: ArchiveRef, number: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(mut spill) = readable(self.archives.plain(archive, number))? else { return Ok(None) };
        self.longest.0 = self.longest.0.max(spill.len());
        self.opens(archive)?;
        let mut bytes = Vec::new();
        spill.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// An entry's content; `None` when it is not one whole stream of what its headers say.
fn plain(form: Form, entry: &Entry, coded: &[u8]) -> Option<Vec<u8>> {
    let size = u64::from(entry.sums.plain);
    let mut plain = Vec::new();
    match entry.meta.method() {
        STORED => plain.extend_from_slice(coded),
        DEFLATED if size <= MAX_PLAIN => zlib::inflate(coded, coded.len() as u64, size, &mut plain).ok()?,
        _ => return None,
    }
    let mut sum = Sum::new(form);
    sum.update(&plain);
    (plain.len() as u64 == size && sum.get() == entry.sums.crc).then_some(plain)
}

/// Bytes of memory for comparing contents.
fn need(old: u64, new: &[u8]) -> u64 {
    let memory = if elf::is_program(new) { elf::memory } else { bidiff::memory };
    memory(old, new.len() as u64)
}

/// `None` for what cannot be read because it is no archive, or a damaged one; that a disk is full is another thing.
fn readable<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => Ok(None),
        Err(error) => Err(error),
    }
}
