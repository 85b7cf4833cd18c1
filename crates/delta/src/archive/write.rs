//! Plans of archives as streams.

use std::collections::BTreeMap;
use std::io;

use super::form::Form;
use super::make::{Content, Plan, Planned, Planner};
use super::old::{ArchiveRef, Origin};
use super::{Expect, NextSources, Way, deflate, flag};
use crate::codec::{Kind, dictionary};
use crate::content::Outcome;
use crate::predict::codec;
use crate::stream::{Stream, StreamsWriter};
use crate::varint::zigzag;

/// Plans archives and writes them. Archives have other numbers in a patch than in a plan: there they are counted as they are
/// mentioned.
pub(crate) struct ArchiveWriter<'a> {
    planner: Planner<'a>,
    numbers: BTreeMap<ArchiveRef, ArchiveRef>,
    sources: NextSources,
    last_source: ArchiveRef,
    scratch: u64,
    /// How deep archives are in what was written, and whether a zip is among them or their sources.
    depth: u8,
    zips: bool,
    /// Whether anything is deflated as GNU gzip does it.
    gnu: bool,
    /// Whether a program was none but class data.
    class_data: bool,
}

/// A content ready to be written.
pub(crate) struct Ready(Plan);

impl<'a> ArchiveWriter<'a> {
    pub(crate) fn new(planner: Planner<'a>) -> Self {
        Self {
            planner,
            numbers: BTreeMap::new(),
            sources: NextSources::default(),
            last_source: 0,
            scratch: 0,
            depth: 0,
            zips: false,
            gnu: false,
            class_data: false,
        }
    }

    /// The longest content that is planned.
    pub(crate) fn longest(&self) -> u64 {
        self.planner.longest()
    }

    /// A content as its entries; `None` when it cannot be or is not worth it. `told` becomes the bytes of it of whose progress somebody
    /// was told.
    pub(crate) fn plan(&mut self, new: &[u8], old: Origin, told: &mut u64) -> io::Result<Option<Ready>> {
        Ok(self.planner.plan(new, old, told)?.map(Ready))
    }

    /// Appends a content to the streams.
    pub(crate) fn write(&mut self, streams: &mut StreamsWriter<'_>, ready: Ready) -> io::Result<()> {
        self.scratch = self.scratch.max(self.planner.scratch());
        self.mention(ready.0.base)?;
        self.archive(streams, ready.0, 0)
    }

    /// Gives an archive its number in the patch, if it has none yet.
    fn mention(&mut self, archive: ArchiveRef) -> io::Result<ArchiveRef> {
        let next = u32::try_from(self.numbers.len()).map_err(io::Error::other)?;
        if !self.numbers.contains_key(&archive) {
            self.zips |= self.planner.archives.form(archive)? == Form::Zip;
        }
        Ok(*self.numbers.entry(archive).or_insert(next))
    }

    fn archive(&mut self, streams: &mut StreamsWriter<'_>, plan: Plan, depth: u8) -> io::Result<()> {
        self.depth = self.depth.max(depth);
        self.zips |= plan.form == Form::Zip;
        streams.number(Stream::EntryNumber, plan.form as u64)?;
        if plan.form == Form::Zip {
            streams.number(Stream::EntryNumber, plan.entries.len() as u64)?;
            text(streams, &plan.prefix)?;
            text(streams, &plan.comment)?;
        }
        let mut expect = Expect { level: 6, ..Expect::default() };
        for planned in plan.entries {
            self.entry(streams, (plan.base, depth), planned, &mut expect)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        streams: &mut StreamsWriter<'_>,
        (archive, depth): (ArchiveRef, u8),
        planned: Planned,
        expect: &mut Expect,
    ) -> io::Result<()> {
        let Planned { entry, base, source, content, level } = planned;
        let number = base.as_ref().map(|(number, _)| *number);
        let old = base.as_ref().map(|(_, old)| old);
        let time = expect.time(old.map(|old| old.time));
        let mut flags = 0;
        let mut set = |condition: bool, bit: u8| flags |= if condition { bit } else { 0 };
        set(number == Some(expect.next), flag::NEXT);
        set(old.is_some_and(|old| old.name == entry.name), flag::NAME);
        set(entry.time == time, flag::TIME);
        set(old.map_or(&expect.meta, |old| &old.meta) == &entry.meta, flag::META);
        set(matches!(content, Content::Same), flag::CONTENT);
        streams.put(Stream::Entries, &[flags])?;
        if flags & flag::NEXT == 0 {
            streams.number(Stream::EntrySource, number.map_or(0, |number| 1 + zigzag(i64::from(number) - i64::from(expect.next))))?;
        }
        if flags & flag::NAME == 0 {
            let shared = expect.name.iter().zip(&entry.name).take_while(|(a, b)| a == b).count();
            streams.number(Stream::EntryNumber, shared as u64)?;
            text(streams, &entry.name[shared..])?;
        }
        if flags & flag::TIME == 0 {
            streams.signed(Stream::EntryTime, i64::from(entry.time) - i64::from(time))?;
        }
        if flags & flag::META == 0 {
            streams.put(Stream::EntryText, &entry.meta.write())?;
        }
        let (way, kind) = match &content {
            Content::Same => {
                expect.saw(number.zip(old.map(|old| old.time)), &entry);
                return Ok(());
            }
            Content::Raw => (Way::Raw, Kind::Text),
            Content::Plain => (Way::Plain, Kind::Text),
            Content::Archive(_) => (Way::Archive, Kind::Text),
            Content::Carried(_) => (Way::Carried, Kind::Text),
            Content::Made { outcome: Outcome::Bidiff(kind, _), .. } => (Way::Bidiff, *kind),
            Content::Made { outcome: Outcome::Elf(kind, _), .. } => (Way::Elf, *kind),
            Content::Made { outcome: Outcome::Dictionary(_), .. } => (Way::Dictionary, Kind::Text),
            Content::Made { bytes, .. } => (Way::New, Kind::of(bytes)),
        };
        self.class_data |= way == Way::Elf && kind != Kind::Program;
        // What carries all of its bytes names no source, unless the base stands there anyway.
        let own = number.map(|number| (archive, number));
        let named = source.filter(|_| !matches!(way, Way::New | Way::Carried) && source != own);
        let byte = way as u8 | if named.is_some() { codec::NAMED } else { 0 } | (kind as u8) << codec::KIND;
        streams.put(Stream::EntryCodec, &[byte])?;
        if let Some(place) = named {
            self.source(streams, place)?;
        }
        let used = named.or(own);
        if let Some((archive, number)) = used {
            let archive = self.mention(archive)?;
            self.sources.saw(archive, number);
        }
        if !matches!(way, Way::Raw | Way::Carried) && entry.meta.method() == super::zip::DEFLATED {
            streams.put(Stream::EntryCodec, &[level])?;
            expect.level = level;
            self.gnu |= level > deflate::GNU;
        }
        match content {
            Content::Same | Content::Raw | Content::Plain => {}
            Content::Carried(bytes) => {
                streams.number(Stream::EntryNumber, u64::from(entry.sums.coded))?;
                streams.number(Stream::EntryNumber, u64::from(entry.sums.plain))?;
                streams.put(Stream::EntryText, &entry.sums.crc.to_le_bytes())?;
                streams.put(Stream::Dense, &bytes)?;
            }
            Content::Archive(plan) => {
                self.mention(plan.base)?;
                self.archive(streams, *plan, depth + 1)?;
            }
            Content::Made { new, outcome, bytes, old: old_size } => {
                let expected = if named.is_some() { old_size } else { old.map_or(0, |old| u64::from(old.sums.plain)) };
                streams.signed(Stream::EntryNumber, new.cast_signed() - expected.cast_signed())?;
                match outcome {
                    Outcome::Bidiff(kind, difference) | Outcome::Elf(kind, difference) => difference.write(streams, kind)?,
                    Outcome::Dictionary(frame) => dictionary::write(streams, &frame)?,
                    _ => streams.put(kind.stream(), &bytes)?,
                }
            }
        }
        expect.saw(number.zip(base.map(|(_, old)| old.time)), &entry);
        Ok(())
    }

    /// Names a source: its archive, with where that is when it was not mentioned before, and its entry.
    fn source(&mut self, streams: &mut StreamsWriter<'_>, (archive, entry): (ArchiveRef, u32)) -> io::Result<()> {
        let number = match self.numbers.get(&archive) {
            Some(number) => {
                streams.signed(Stream::EntrySource, i64::from(*number) - i64::from(self.last_source))?;
                *number
            }
            None => {
                let new = i64::try_from(self.numbers.len()).map_err(io::Error::other)?;
                streams.signed(Stream::EntrySource, new - i64::from(self.last_source))?;
                self.introduce(streams, archive)?
            }
        };
        self.last_source = number;
        streams.signed(Stream::EntrySource, i64::from(entry) - i64::from(self.sources.get(number)))
    }

    /// Says where an archive is that was not mentioned before, after the one that it is in if that was not either.
    fn introduce(&mut self, streams: &mut StreamsWriter<'_>, archive: ArchiveRef) -> io::Result<ArchiveRef> {
        match self.planner.archives.origin(archive) {
            Some(Origin::Entry { archive: parent, entry }) => {
                match self.numbers.get(&parent) {
                    Some(parent) => streams.number(Stream::EntrySource, u64::from(*parent) + 2)?,
                    None => {
                        streams.number(Stream::EntrySource, 1)?;
                        self.introduce(streams, parent)?;
                    }
                }
                streams.number(Stream::EntrySource, u64::from(entry))?;
            }
            Some(Origin::Member { number, .. }) => {
                streams.number(Stream::EntrySource, 0)?;
                streams.number(Stream::EntrySource, u64::from(number))?;
            }
            None => return Err(io::Error::other("an archive that was not planned")),
        }
        self.mention(archive)
    }

    /// Bytes of scratch files that whoever applies needs at most for what was written.
    pub(crate) fn scratch(&self) -> u64 {
        self.scratch
    }

    /// Whether whoever applies must deflate as GNU gzip does.
    pub(crate) fn gnu(&self) -> bool {
        self.gnu
    }

    /// Whether whoever applies must know class data.
    pub(crate) fn class_data(&self) -> bool {
        self.class_data
    }

    /// Bytes of memory that whoever applies needs at most for them.
    pub(crate) fn memory(&self) -> u64 {
        super::archives_memory(self.numbers.len(), self.depth, self.zips)
    }
}

fn text(streams: &mut StreamsWriter<'_>, text: &[u8]) -> io::Result<()> {
    streams.number(Stream::EntryNumber, text.len() as u64)?;
    streams.put(Stream::EntryText, text)
}
