//! What kinds of archives there are, and what stands around an entry's coded bytes in each.
//!
//! A zip has any number of entries. A gzip file and a PNG picture have exactly one: the deflated text, the deflated picture.

use std::borrow::Cow;
use std::io;

use super::zip::{self, Entry};
use super::{gzip, png};

/// A kind of archive. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Form {
    Zip = 0,
    Gzip = 1,
    Png = 2,
}

/// An archive taken apart.
pub(super) struct Model<'a> {
    pub(super) entries: Vec<(Entry, Cow<'a, [u8]>)>,
    /// Bytes before the first entry and at the end; a zip's only.
    pub(super) prefix: Vec<u8>,
    pub(super) comment: Vec<u8>,
}

impl Form {
    /// The kind of a content that starts like this.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            _ => start.starts_with(&png::MAGIC).then_some(Self::Png),
        }
    }

    pub(super) fn from_number(number: u64) -> Option<Self> {
        [Self::Zip, Self::Gzip, Self::Png].into_iter().find(|form| *form as u64 == number)
    }

    /// The parts of an archive; `None` when they do not give it again, bit for bit.
    pub(super) fn model(self, archive: &[u8]) -> Option<Model<'_>> {
        let (entries, prefix, comment) = match self {
            Self::Zip => {
                let (entries, prefix, comment) = zip::model(archive)?;
                let coded = |(entry, data): (Entry, usize)| {
                    let end = data.checked_add(usize::try_from(entry.sums.coded).ok()?)?;
                    Some((entry, Cow::Borrowed(archive.get(data..end)?)))
                };
                (entries.into_iter().map(coded).collect::<Option<_>>()?, prefix, comment)
            }
            Self::Gzip => (vec![gzip::model(archive)?], Vec::new(), Vec::new()),
            Self::Png => (vec![png::model(archive)?], Vec::new(), Vec::new()),
        };
        Some(Model { entries, prefix, comment })
    }
}

/// The sum of an entry's content: CRC-32, in a PNG Adler-32.
pub(super) enum Sum {
    Crc(flate2::Crc),
    Adler(png::Adler),
}

impl Sum {
    pub(super) fn new(form: Form) -> Self {
        if form == Form::Png { Self::Adler(png::Adler::default()) } else { Self::Crc(flate2::Crc::new()) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(crc) => crc.update(bytes),
            Self::Adler(adler) => adler.update(bytes),
        }
    }

    pub(super) fn get(&self) -> u32 {
        match self {
            Self::Crc(crc) => crc.sum(),
            Self::Adler(adler) => adler.sum(),
        }
    }
}

type Out<'s> = dyn FnMut(&[u8]) -> io::Result<()> + 's;

/// An entry being written: what comes before its coded bytes, they, and what comes after. `None` from a step: a header that is too
/// long, or coded bytes of another length than the entry says.
pub(super) struct Around {
    form: Form,
    frames: Option<png::Frames>,
}

impl Around {
    pub(super) fn begin(form: Form, entry: &Entry, out: &mut Out<'_>) -> io::Result<Self> {
        let head = match form {
            Form::Zip => entry.local(),
            Form::Gzip => gzip::head(entry),
            Form::Png => Some(entry.meta.texts[0].clone()),
        };
        out(&head.ok_or_else(|| invalid("a header that is too long"))?)?;
        let mut frames = None;
        if form == Form::Png {
            frames.insert(png::Frames::new(entry)).put(&entry.meta.words[0].to_be_bytes(), out)?;
        }
        Ok(Self { form, frames })
    }

    pub(super) fn coded(&mut self, bytes: &[u8], out: &mut Out<'_>) -> io::Result<()> {
        match &mut self.frames {
            Some(frames) => frames.put(bytes, out),
            None => out(bytes),
        }
    }

    pub(super) fn end(mut self, entry: &Entry, out: &mut Out<'_>) -> io::Result<()> {
        match (self.form, &mut self.frames) {
            (Form::Gzip, _) => out(&gzip::tail(entry)),
            (Form::Png, Some(frames)) => {
                frames.put(&entry.sums.crc.to_be_bytes(), out)?;
                out(&entry.meta.texts[1])
            }
            _ => out(&entry.descriptor()),
        }
    }
}

/// The whole of an archive of one entry.
pub(super) fn whole(form: Form, entry: &Entry, coded: &[u8]) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    let mut out = |bytes: &[u8]| {
        whole.extend_from_slice(bytes);
        Ok(())
    };
    let mut around = Around::begin(form, entry, &mut out)?;
    around.coded(coded, &mut out)?;
    around.end(entry, &mut out)?;
    Ok(whole)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"))
}
