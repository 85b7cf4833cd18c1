//! Archives made from their entries.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::deflate::{Deflate, is_level};
use super::form::{Around, Form, Sum};
use super::old::{ArchiveRef, Archives, MAX_PLAIN, Origin};
use super::spill::{Room, Spill};
use super::zip::{DEFLATED, Entry, Meta, STORED, Sums, end};
use super::{Expect, MAX_DEPTH, NextSources, Way, archives_memory, flag};
use crate::apply::too_much;
use crate::codec::bidiff::{Buffers, steps};
use crate::codec::{Kind, bidiff, dictionary, elf};
use crate::old::OldRef;
use crate::predict::codec;
use crate::source::LayerSource;
use crate::stream::{Stream, StreamsReader};
use crate::varint::unzigzag;

type Out<'s> = dyn FnMut(&[u8]) -> io::Result<()> + 's;

/// What of archives lasts from one to the next.
pub(crate) struct State<'a> {
    pub archives: Archives<'a>,
    room: Room<'a>,
    sources: NextSources,
    last_source: ArchiveRef,
    /// How deep archives were so far, and whether one of them was a zip.
    depth: u8,
    zips: bool,
}

impl<'a> State<'a> {
    pub(crate) fn new(layers: Vec<&'a dyn LayerSource>, room: Room<'a>) -> Self {
        Self { archives: Archives::new(layers, room), room, sources: NextSources::default(), last_source: 0, depth: 0, zips: false }
    }

    /// Bytes of memory that the archives so far need, by the rule by which whoever made the patch told them.
    pub(crate) fn memory(&self) -> u64 {
        archives_memory(self.archives.len(), self.depth, self.zips || self.archives.zips())
    }
}

/// Makes archives; borrows the parts of the applier.
pub(crate) struct Maker<'m, 'a> {
    pub streams: &'m mut StreamsReader<'a>,
    pub buffers: &'m mut Buffers,
    pub state: &'m mut State<'a>,
    /// Resolves an old member: layer and file.
    pub file: &'m dyn Fn(OldRef) -> io::Result<(usize, u32)>,
    /// Bytes that the archive has, and so any entry of it as it is coded.
    pub limit: u64,
    /// Bytes of memory that all archives may need.
    pub spare: u64,
}

impl<'a> Maker<'_, 'a> {
    /// Makes the content of a member.
    pub(crate) fn member(&mut self, source: OldRef, out: &mut Out<'_>) -> io::Result<()> {
        let (layer, file) = (self.file)(source)?;
        let origin = Origin::Member { number: source, layer, file };
        let archives = &mut self.state.archives;
        let base = archives.find(origin).map_or_else(|| archives.add(origin), Ok)?;
        self.archive(base, 0, out)
    }

    fn archive(&mut self, base: ArchiveRef, depth: u8, out: &mut Out<'_>) -> io::Result<()> {
        let form = Form::from_number(self.streams.number(Stream::EntryNumber)?).ok_or_else(|| invalid("an unknown kind of archive"))?;
        self.state.depth = self.state.depth.max(depth);
        self.state.zips |= form == Form::Zip;
        self.check()?;
        let mut expect = Expect { level: 6, ..Expect::default() };
        if form != Form::Zip {
            return self.entry((form, base), depth, &mut expect, out).map(drop);
        }
        let count = u16::try_from(self.streams.number(Stream::EntryNumber)?).map_err(|_| invalid("too many entries"))?;
        let prefix = self.text()?;
        let comment = self.text()?;
        out(&prefix)?;
        let mut at = prefix.len() as u64;
        let mut directory = Spill::new(self.state.room, u64::from(u32::MAX));
        for _ in 0..count {
            let offset = u32::try_from(at).map_err(|_| invalid("an archive that is too long"))?;
            let entry = self.entry((form, base), depth, &mut expect, &mut |bytes: &[u8]| {
                at += bytes.len() as u64;
                out(bytes)
            })?;
            directory.write_all(&entry.central(offset).ok_or_else(|| invalid("a header that is too long"))?)?;
        }
        let start = u32::try_from(at).map_err(|_| invalid("an archive that is too long"))?;
        let size = u32::try_from(directory.len()).map_err(io::Error::other)?;
        pour(&mut directory, out)?;
        out(&end(count, size, start, &comment).ok_or_else(|| invalid("a comment that is too long"))?)
    }

    /// Fails when archives need more memory than they may.
    fn check(&mut self) -> io::Result<()> {
        let state = &mut self.state;
        // Opening one reads its directory at once.
        state.archives.may_open_zips = archives_memory(state.archives.len(), state.depth, true) <= self.spare;
        if self.state.memory() <= self.spare { Ok(()) } else { Err(too_much(self.spare)) }
    }

    /// An entry of an archive of this form, whose base is this.
    fn entry(&mut self, (form, base): (Form, ArchiveRef), depth: u8, expect: &mut Expect, out: &mut Out<'_>) -> io::Result<Entry> {
        // Old archives may have been opened or mentioned by the entry before.
        self.check()?;
        let flags = self.streams.byte(Stream::Entries)?;
        let has = |bit: u8| flags & bit != 0;
        let number = if has(flag::NEXT) {
            Some(expect.next)
        } else {
            match self.streams.number(Stream::EntrySource)? {
                0 => None,
                folded => Some(moved(expect.next, unzigzag(folded - 1))?),
            }
        };
        let old = number.map(|number| self.state.archives.entry(base, number)).transpose()?;
        let name = match (has(flag::NAME), &old) {
            (true, Some(old)) => old.name.clone(),
            (true, None) => return Err(invalid("a name of no entry")),
            (false, _) => {
                let shared = usize::try_from(self.streams.number(Stream::EntryNumber)?).map_err(io::Error::other)?;
                let mut name = expect.name.get(..shared).ok_or_else(|| invalid("a name longer than the last one"))?.to_vec();
                name.extend(self.text()?);
                name
            }
        };
        let mut entry = Entry { name, ..Entry::default() };
        entry.time = expect.time(old.as_ref().map(|old| old.time));
        if !has(flag::TIME) {
            let by = self.streams.signed(Stream::EntryTime)?;
            entry.time =
                i64::from(entry.time).checked_add(by).and_then(|t| u32::try_from(t).ok()).ok_or_else(|| invalid("a wrong time"))?;
        }
        entry.meta = match (has(flag::META), &old) {
            (true, Some(old)) => old.meta.clone(),
            (true, None) => expect.meta.clone(),
            (false, _) => Meta::read(self.streams.get(Stream::EntryText))?,
        };
        if has(flag::CONTENT) {
            let (Some(old), Some(number)) = (&old, number) else { return Err(invalid("a content of no entry")) };
            entry.sums = old.sums;
            self.raw(form, &entry, (base, number), out)?;
        } else {
            self.content(form, &mut entry, number.map(|number| (base, number)), (depth, expect), out)?;
        }
        expect.saw(number.zip(old.map(|old| old.time)), &entry);
        Ok(entry)
    }

    fn raw(&mut self, form: Form, entry: &Entry, (archive, number): (ArchiveRef, u32), out: &mut Out<'_>) -> io::Result<()> {
        let mut around = Around::begin(form, entry, out)?;
        self.state.archives.raw(archive, number, &mut |bytes| around.coded(bytes, out))?;
        around.end(entry, out)
    }

    fn content(
        &mut self,
        form: Form,
        entry: &mut Entry,
        base: Option<(ArchiveRef, u32)>,
        (depth, expect): (u8, &mut Expect),
        out: &mut Out<'_>,
    ) -> io::Result<()> {
        let byte = self.streams.byte(Stream::EntryCodec)?;
        let way = Way::from_number(byte & codec::MASK).ok_or_else(|| invalid("an unknown codec of an entry"))?;
        let kind = Kind::from_number(byte >> codec::KIND & 3).ok_or_else(|| invalid("an unknown kind of content"))?;
        let source = if byte & codec::NAMED != 0 { Some(self.source()?) } else { base };
        if let Some((archive, number)) = source {
            self.state.sources.saw(archive, number);
        }
        let known = || source.ok_or_else(|| invalid("a source of no entry"));
        match way {
            Way::Raw => {
                let (archive, number) = known()?;
                entry.sums = self.state.archives.entry(archive, number)?.sums;
                return self.raw(form, entry, (archive, number), out);
            }
            Way::Carried => {
                let size = |value: u64| u32::try_from(value).map_err(|_| invalid("an entry that is too long"));
                let coded = size(self.streams.number(Stream::EntryNumber)?)?;
                let plain = size(self.streams.number(Stream::EntryNumber)?)?;
                let mut crc = [0; 4];
                self.streams.get(Stream::EntryText).read_exact(&mut crc)?;
                entry.sums = Sums { crc: u32::from_le_bytes(crc), coded, plain };
                let mut around = Around::begin(form, entry, out)?;
                pass(self.streams, Stream::Dense, u64::from(coded), self.buffers, &mut |bytes| around.coded(bytes, out))?;
                return around.end(entry, out);
            }
            _ => {}
        }
        // An archive in another that is deflated may be longer than that, and so may its entries.
        let coded = Spill::new(self.state.room, if depth == 0 { self.limit } else { MAX_PLAIN });
        let mut coder = match entry.meta.method() {
            STORED => Coder::Stored(coded),
            DEFLATED => {
                expect.level = self.streams.byte(Stream::EntryCodec)?;
                if !is_level(expect.level) {
                    return Err(invalid("an unknown level of deflate"));
                }
                Coder::Deflated(Deflate::new(coded, expect.level))
            }
            _ => return Err(invalid("an entry of an unknown method")),
        };
        let mut sum = Sum::new(form);
        let mut plain = |bytes: &[u8]| {
            sum.update(bytes);
            coder.write(bytes)
        };
        match way {
            Way::Archive => {
                let (archive, number) = known()?;
                if depth >= MAX_DEPTH {
                    return Err(invalid("archives in archives too deep"));
                }
                let origin = Origin::Entry { archive, entry: number };
                let archives = &mut self.state.archives;
                let base = archives.find(origin).map_or_else(|| archives.add(origin), Ok)?;
                self.archive(base, depth + 1, &mut plain)?;
            }
            Way::Plain => {
                let (archive, number) = known()?;
                pour(&mut self.state.archives.plain(archive, number)?, &mut plain)?;
            }
            _ => {
                let expected = match source {
                    Some((archive, number)) => self.state.archives.entry(archive, number)?.sums.plain,
                    None => 0,
                };
                let size = self.streams.signed(Stream::EntryNumber)?;
                let size = i64::from(expected).checked_add(size).and_then(|size| u64::try_from(size).ok());
                let size = size.filter(|size| *size <= u64::from(u32::MAX)).ok_or_else(|| invalid("an impossible size"))?;
                match way {
                    Way::New => pass(self.streams, kind.stream(), size, self.buffers, &mut plain)?,
                    _ => {
                        let (archive, number) = known()?;
                        let mut old = self.state.archives.plain(archive, number)?;
                        match way {
                            Way::Bidiff => bidiff::apply(self.streams, kind, &mut old, size, self.buffers, &mut plain)?,
                            Way::Elf => {
                                let sizes = [old.len(), size];
                                elf::apply(self.streams, kind, &mut old, sizes, self.buffers, &mut plain)?;
                            }
                            _ => dictionary::apply(self.streams, &mut old, size, &mut plain)?,
                        }
                    }
                }
            }
        }
        let (mut coded, plain) = coder.finish()?;
        let size = |value: u64| u32::try_from(value).map_err(|_| invalid("an entry that is too long"));
        entry.sums = Sums { crc: sum.get(), coded: size(coded.len())?, plain: size(plain)? };
        let mut around = Around::begin(form, entry, out)?;
        pour(&mut coded, &mut |bytes| around.coded(bytes, out))?;
        around.end(entry, out)
    }

    /// A source that is named: its archive, which may be new to the list, and its entry.
    fn source(&mut self) -> io::Result<(ArchiveRef, u32)> {
        let by = self.streams.signed(Stream::EntrySource)?;
        let mut archive = moved(self.state.last_source, by)?;
        let known = self.state.archives.len();
        if archive as usize > known {
            return Err(invalid("a source in an archive that was not mentioned"));
        }
        if archive as usize == known {
            archive = self.mention(0)?;
        }
        self.state.last_source = archive;
        let by = self.streams.signed(Stream::EntrySource)?;
        Ok((archive, moved(self.state.sources.get(archive), by)?))
    }

    /// Adds an archive to the list, after the one that it is in if that is new too.
    fn mention(&mut self, depth: u8) -> io::Result<ArchiveRef> {
        if depth > MAX_DEPTH {
            return Err(invalid("archives in archives too deep"));
        }
        let narrow = |value: u64| u32::try_from(value).map_err(|_| invalid("an impossible source"));
        let parent = match self.streams.number(Stream::EntrySource)? {
            0 => {
                let number = narrow(self.streams.number(Stream::EntrySource)?)?;
                let (layer, file) = (self.file)(number)?;
                return self.state.archives.add(Origin::Member { number, layer, file });
            }
            1 => self.mention(depth + 1)?,
            known => narrow(known - 2)?,
        };
        let entry = narrow(self.streams.number(Stream::EntrySource)?)?;
        self.state.archives.add(Origin::Entry { archive: parent, entry })
    }

    /// A text of at most 65535 bytes.
    fn text(&mut self) -> io::Result<Vec<u8>> {
        let len = self.streams.number(Stream::EntryNumber)?;
        self.streams.bytes(Stream::EntryText, len, u64::from(u16::MAX))
    }
}

enum Coder<'s> {
    Stored(Spill<'s>),
    Deflated(Deflate<Spill<'s>>),
}

impl<'s> Coder<'s> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stored(spill) => spill.write_all(bytes),
            Self::Deflated(deflate) => deflate.write_all(bytes),
        }
    }

    /// The coded bytes, and how many plain ones there were.
    fn finish(self) -> io::Result<(Spill<'s>, u64)> {
        match self {
            Self::Stored(spill) => {
                let len = spill.len();
                Ok((spill, len))
            }
            Self::Deflated(deflate) => deflate.finish(),
        }
    }
}

fn moved(from: u32, by: i64) -> io::Result<u32> {
    i64::from(from).checked_add(by).and_then(|number| u32::try_from(number).ok()).ok_or_else(|| invalid("an impossible entry"))
}

/// Hands on all bytes of a spill.
fn pour(spill: &mut Spill<'_>, out: &mut Out<'_>) -> io::Result<()> {
    spill.seek(SeekFrom::Start(0))?;
    let mut buffer = [0; 16 * 1024];
    steps(spill.len(), buffer.len(), |len| {
        spill.read_exact(&mut buffer[..len])?;
        out(&buffer[..len])
    })
}

/// Hands on bytes of a stream.
fn pass(streams: &mut StreamsReader<'_>, stream: Stream, len: u64, buffers: &mut Buffers, out: &mut Out<'_>) -> io::Result<()> {
    steps(len, buffers.new.len(), |len| {
        streams.get(stream).read_exact(&mut buffers.new[..len])?;
        out(&buffers.new[..len])
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"))
}
