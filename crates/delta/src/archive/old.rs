//! Old archives and the entries in them, read on demand.
//!
//! Archives are counted as they are first mentioned; an archive is a member's content or an entry of another archive. A few are kept
//! open: of each its directory, and an archive that is an entry in memory or in a scratch file.

use std::io::{self, Read, SeekFrom, Write};

use super::form::Form;
use super::spill::{Room, Spill};
use super::zip::{DEFLATED, Directory, Entry, STORED};
use super::{MAX_DEPTH, gzip, png, zlib};
use crate::old::OldRef;
use crate::source::{LayerSource, ReadSeek};

/// Archives kept open.
pub(crate) const OPEN: usize = 4;
/// The longest plain bytes of an old entry that are read.
pub(crate) const MAX_PLAIN: u64 = 1 << 30;

/// Archives that one patch may mention: whoever applies holds the list.
const MOST: usize = 1 << 16;
/// Bytes of memory of each archive in the list, with where its next source is expected.
pub(crate) const LISTED: u64 = 36;
const _: () = assert!(size_of::<(Origin, u8)>() as u64 + 4 <= LISTED, "an archive needs more than it counts");

/// The number of an archive.
pub(crate) type ArchiveRef = u32;

/// Where an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The content of an old member: its number, layer, file.
    Member { number: OldRef, layer: usize, file: u32 },
    /// An entry of another archive.
    Entry { archive: ArchiveRef, entry: u32 },
}

/// Old archives.
pub(crate) struct Archives<'a> {
    layers: Vec<&'a dyn LayerSource>,
    room: Room<'a>,
    list: Vec<(Origin, u8)>,
    open: Vec<Open<'a>>,
    /// Whether a zip was opened.
    zips: bool,
    /// May one be? Whoever applies has not always the memory.
    pub(crate) may_open_zips: bool,
}

struct Open<'a> {
    archive: ArchiveRef,
    from: Box<dyn ReadSeek + 'a>,
    /// A second reader for the directory; an archive in a scratch file has only one.
    heads: Option<Box<dyn ReadSeek + 'a>>,
    holds: Holds,
}

/// What an archive holds.
enum Holds {
    Zip(Directory),
    /// One entry, and where its coded bytes are.
    Gzip(Entry, u64),
    Png(Entry, png::Chunks),
}

impl<'a> Archives<'a> {
    pub(crate) fn new(layers: Vec<&'a dyn LayerSource>, room: Room<'a>) -> Self {
        Self { layers, room, list: Vec::new(), open: Vec::new(), zips: false, may_open_zips: true }
    }

    /// How many archives were mentioned.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Was a zip among those that were opened?
    pub(crate) fn zips(&self) -> bool {
        self.zips
    }

    pub(crate) fn origin(&self, archive: ArchiveRef) -> Option<Origin> {
        self.list.get(archive as usize).map(|(origin, _)| *origin)
    }

    /// How many archives an archive is in.
    pub(crate) fn depth(&self, archive: ArchiveRef) -> u8 {
        self.list.get(archive as usize).map_or(u8::MAX, |(_, depth)| *depth)
    }

    /// The number of an archive that was mentioned.
    pub(crate) fn find(&self, origin: Origin) -> Option<ArchiveRef> {
        self.list.iter().position(|(known, _)| *known == origin).and_then(|at| u32::try_from(at).ok())
    }

    /// Adds an archive that was not mentioned before.
    pub(crate) fn add(&mut self, origin: Origin) -> io::Result<ArchiveRef> {
        let depth = match origin {
            Origin::Member { .. } => 0,
            Origin::Entry { archive, .. } => self.list.get(archive as usize).map_or(u8::MAX, |(_, depth)| depth.saturating_add(1)),
        };
        if depth > MAX_DEPTH {
            return Err(bad("archives in archives too deep"));
        }
        if self.list.len() == MOST {
            return Err(bad("too many archives"));
        }
        self.list.push((origin, depth));
        u32::try_from(self.list.len() - 1).map_err(io::Error::other)
    }

    fn opened(&mut self, archive: ArchiveRef) -> io::Result<&mut Open<'a>> {
        if let Some(at) = self.open.iter().position(|open| open.archive == archive) {
            let open = self.open.remove(at);
            self.open.push(open);
        } else {
            let origin = self.origin(archive).ok_or_else(|| bad("an archive that was not mentioned"))?;
            let (mut from, heads): (Box<dyn ReadSeek + 'a>, _) = match origin {
                Origin::Member { layer, file, .. } => {
                    let layer = *self.layers.get(layer).ok_or_else(|| bad("an archive of no layer"))?;
                    (layer.open(file)?, Some(layer.open(file)?))
                }
                Origin::Entry { archive, entry } => (Box::new(self.plain(archive, entry)?), None),
            };
            let holds = Holds::read(&mut *from, self.may_open_zips)?;
            self.zips |= matches!(holds, Holds::Zip(_));
            if self.open.len() >= OPEN {
                self.open.remove(0);
            }
            self.open.push(Open { archive, from, heads, holds });
        }
        self.open.last_mut().ok_or_else(|| bad("no archive"))
    }

    /// How many entries an archive has.
    pub(crate) fn entries(&mut self, archive: ArchiveRef) -> io::Result<u32> {
        match &self.opened(archive)?.holds {
            Holds::Zip(directory) => u32::try_from(directory.len()).map_err(io::Error::other),
            Holds::Gzip(..) | Holds::Png(..) => Ok(1),
        }
    }

    /// An entry's headers.
    pub(crate) fn entry(&mut self, archive: ArchiveRef, entry: u32) -> io::Result<Entry> {
        Ok(self.opened(archive)?.entry(entry)?.0)
    }

    /// What kind of archive it is.
    pub(crate) fn form(&mut self, archive: ArchiveRef) -> io::Result<Form> {
        Ok(match self.opened(archive)?.holds {
            Holds::Zip(_) => Form::Zip,
            Holds::Gzip(..) => Form::Gzip,
            Holds::Png(..) => Form::Png,
        })
    }

    /// Hands on an entry's bytes as they are in the archive.
    pub(crate) fn raw(&mut self, archive: ArchiveRef, entry: u32, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let open = self.opened(archive)?;
        let (entry, data) = open.entry(entry)?;
        let mut coded = open.coded(data)?;
        let mut buffer = [0; 16 * 1024];
        crate::codec::bidiff::steps(u64::from(entry.sums.coded), buffer.len(), |len| {
            coded.read_exact(&mut buffer[..len])?;
            out(&buffer[..len])
        })
    }

    /// An entry's content.
    pub(crate) fn plain(&mut self, archive: ArchiveRef, entry: u32) -> io::Result<Spill<'a>> {
        let mut spill = Spill::new(self.room, MAX_PLAIN);
        let open = self.opened(archive)?;
        let (entry, data) = open.entry(entry)?;
        let (coded, plain) = (u64::from(entry.sums.coded), u64::from(entry.sums.plain));
        let from = open.coded(data)?;
        match entry.meta.method() {
            STORED if coded == plain => {
                io::copy(&mut from.take(coded), &mut spill)?;
            }
            DEFLATED => zlib::inflate(from, coded, plain, &mut spill)?,
            _ => return Err(bad("an entry of an unknown method")),
        }
        if spill.len() != plain {
            return Err(bad("an entry that ends too early"));
        }
        spill.flush()?;
        io::Seek::seek(&mut spill, SeekFrom::Start(0))?;
        Ok(spill)
    }
}

impl Holds {
    fn read(from: &mut dyn ReadSeek, zips: bool) -> io::Result<Self> {
        let mut start = Vec::new();
        from.seek(SeekFrom::Start(0))?;
        (&mut *from).take(png::MAGIC.len() as u64).read_to_end(&mut start)?;
        Ok(match Form::of(&start) {
            Some(Form::Gzip) => {
                let (entry, data) = gzip::read(from)?;
                Self::Gzip(entry, data)
            }
            Some(Form::Png) => {
                let (entry, chunks) = png::read(from)?;
                Self::Png(entry, chunks)
            }
            // A zip may begin with anything.
            _ if !zips => return Err(bad("a zip for which memory was not asked")),
            _ => Self::Zip(Directory::read(from)?),
        })
    }
}

impl Open<'_> {
    fn entry(&mut self, entry: u32) -> io::Result<(Entry, u64)> {
        let index = entry as usize;
        match (&self.holds, &mut self.heads) {
            (Holds::Zip(directory), Some(heads)) => directory.entry(index, &mut *self.from, &mut **heads),
            (Holds::Zip(directory), None) => directory.entry_of_one(index, &mut *self.from),
            (Holds::Gzip(only, data), _) if entry == 0 => Ok((only.clone(), *data)),
            (Holds::Png(only, _), _) if entry == 0 => Ok((only.clone(), 0)),
            _ => Err(bad("fewer entries than the patch says")),
        }
    }

    /// Reads an entry's coded bytes from their start.
    fn coded(&mut self, data: u64) -> io::Result<Box<dyn Read + '_>> {
        if let Holds::Png(_, chunks) = self.holds {
            return Ok(Box::new(chunks.coded(&mut *self.from)?));
        }
        self.from.seek(SeekFrom::Start(data))?;
        Ok(Box::new(&mut self.from))
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch or an old archive has {what}"))
}
