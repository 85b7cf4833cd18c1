//! The form of a member: how its values are laid out in header blocks. Members written by one tool share few forms.

use std::io::{self, Read};

use super::block::Shape;
use crate::varint;

/// How the name and prefix fields follow from the path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NameRule {
    /// The path is the name.
    Plain,
    /// The path is split at its last slash that leaves at most 155 bytes of prefix.
    Split,
    /// The first hundred ASCII bytes of the path.
    Cut,
    /// Both are carried.
    Carried,
}

/// How the link field follows from the link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LinkRule {
    /// The link is the field.
    Plain,
    /// The first hundred ASCII bytes of the link.
    Cut,
    /// The field is carried.
    Carried,
}

/// How the name of an extended header is made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExtName {
    /// Folder of the path, this word, last part of the path; cut to a hundred bytes.
    Joined(Vec<u8>),
    /// The same with `.` for no folder.
    Dotted(Vec<u8>),
    /// Always this.
    Fixed(Vec<u8>),
    /// Carried per member.
    Carried,
}

/// The time in an extended header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExtTime {
    /// Zero.
    Zero,
    /// That of the member.
    Same,
    /// Carried per member.
    Carried,
}

/// Where the value of a PAX record comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RecordValue {
    /// The member's path.
    Path,
    /// The member's link.
    Link,
    /// Carried per member.
    Carried,
}

/// The data of an extended header.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExtData {
    /// PAX records with these keys.
    Records(Vec<(Vec<u8>, RecordValue)>),
    /// The path and a NUL.
    Path,
    /// The link and a NUL.
    Link,
    /// Carried per member.
    Carried,
}

/// The form of an extended header.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ExtForm {
    /// Its block.
    pub shape: Shape,
    /// Its name.
    pub name: ExtName,
    /// Its time.
    pub time: ExtTime,
    /// Its data.
    pub data: ExtData,
}

/// Bytes of memory that a form and an extended header of it count beside their words and keys. On both sides the same, whatever machine
/// they are.
const FORM: u64 = 160;
const EXT: u64 = 192;
const _: () = assert!(size_of::<Form>() as u64 <= FORM && size_of::<ExtForm>() as u64 <= EXT, "a form needs more than it counts");

/// The form of a member.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Form {
    /// The member's own block.
    pub shape: Shape,
    /// Its name.
    pub name: NameRule,
    /// Its link.
    pub link: LinkRule,
    /// Whether zeros fill the last block of the content.
    pub padded: bool,
    /// Extended headers before it.
    pub exts: Vec<ExtForm>,
}

impl Form {
    /// Extended headers that one member can have.
    pub const MAX_EXTS: usize = 16;
    const MAX_RECORDS: u64 = 1024;
    /// Bytes of all words and keys of one form, and [`RECORD`](Self::RECORD) more for each record.
    const MAX_TEXT: u64 = 64 * 1024;
    const RECORD: u64 = 32;

    /// Appends the form as a patch carries it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.shape.to_bytes());
        out.push(self.name as u8 | (self.link as u8) << 2 | u8::from(self.padded) << 4);
        out.push(u8::try_from(self.exts.len()).expect("at most MAX_EXTS"));
        for ext in &self.exts {
            ext.write(out);
        }
    }

    /// Reads a form; `InvalidData` when it is none.
    pub fn read<R: Read + ?Sized>(from: &mut R) -> io::Result<Self> {
        let shape = read_shape(from)?;
        let rules = byte(from)?;
        let name = match rules & 3 {
            0 => NameRule::Plain,
            1 => NameRule::Split,
            2 => NameRule::Cut,
            _ => NameRule::Carried,
        };
        let link = match rules >> 2 & 3 {
            0 => LinkRule::Plain,
            1 => LinkRule::Cut,
            2 => LinkRule::Carried,
            _ => return Err(invalid("rule of a link")),
        };
        let count = usize::from(byte(from)?);
        if count > Self::MAX_EXTS {
            return Err(invalid("number of extended headers"));
        }
        let mut room = Self::MAX_TEXT;
        let exts = (0..count).map(|_| ExtForm::read(from, &mut room)).collect::<io::Result<_>>()?;
        Ok(Self { shape, name, link, padded: rules & 16 != 0, exts })
    }

    /// True when it is short enough to be carried.
    pub(super) fn is_modest(&self) -> bool {
        self.text() <= Self::MAX_TEXT && self.exts.iter().all(|ext| ext.records() <= Self::MAX_RECORDS)
    }

    /// Bytes of words and keys, and what records need.
    fn text(&self) -> u64 {
        self.exts.iter().map(ExtForm::text).sum()
    }

    /// Bytes of memory that it needs, about.
    pub(crate) fn memory(&self) -> u64 {
        FORM + self.exts.len() as u64 * EXT + self.text()
    }
}

impl ExtForm {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.shape.to_bytes());
        let (name, word): (u8, &[u8]) = match &self.name {
            ExtName::Joined(word) => (0, word),
            ExtName::Dotted(word) => (1, word),
            ExtName::Fixed(word) => (2, word),
            ExtName::Carried => (3, &[]),
        };
        let data = match &self.data {
            ExtData::Records(_) => 0,
            ExtData::Path => 1,
            ExtData::Link => 2,
            ExtData::Carried => 3,
        };
        out.push(name | (self.time as u8) << 2 | data << 4);
        put_text(out, word);
        if let ExtData::Records(records) = &self.data {
            varint::put(out, records.len() as u64);
            for (key, value) in records {
                out.push(*value as u8);
                put_text(out, key);
            }
        }
    }

    /// Reads it; its texts take from `room`.
    fn read<R: Read + ?Sized>(from: &mut R, room: &mut u64) -> io::Result<Self> {
        let shape = read_shape(from)?;
        let rules = byte(from)?;
        let word = get_text(from, *room)?;
        *room -= word.len() as u64;
        let name = match rules & 3 {
            0 => ExtName::Joined(word),
            1 => ExtName::Dotted(word),
            2 => ExtName::Fixed(word),
            _ => ExtName::Carried,
        };
        let time = match rules >> 2 & 3 {
            0 => ExtTime::Zero,
            1 => ExtTime::Same,
            2 => ExtTime::Carried,
            _ => return Err(invalid("time of an extended header")),
        };
        let data = match rules >> 4 {
            0 => {
                let count = varint::get(from)?;
                if count > Form::MAX_RECORDS {
                    return Err(invalid("number of PAX records"));
                }
                let mut records = Vec::new();
                for _ in 0..count {
                    let value = match byte(from)? {
                        0 => RecordValue::Path,
                        1 => RecordValue::Link,
                        2 => RecordValue::Carried,
                        _ => return Err(invalid("kind of a PAX value")),
                    };
                    *room = room.checked_sub(Form::RECORD).ok_or_else(|| invalid("length of a form"))?;
                    let key = get_text(from, *room)?;
                    *room -= key.len() as u64;
                    records.push((key, value));
                }
                ExtData::Records(records)
            }
            1 => ExtData::Path,
            2 => ExtData::Link,
            3 => ExtData::Carried,
            _ => return Err(invalid("data of an extended header")),
        };
        Ok(Self { shape, name, time, data })
    }

    fn records(&self) -> u64 {
        if let ExtData::Records(records) = &self.data { records.len() as u64 } else { 0 }
    }

    fn text(&self) -> u64 {
        let word = match &self.name {
            ExtName::Joined(word) | ExtName::Dotted(word) | ExtName::Fixed(word) => word.len(),
            ExtName::Carried => 0,
        };
        let keys: usize = match &self.data {
            ExtData::Records(records) => records.iter().map(|(key, _)| key.len()).sum(),
            _ => 0,
        };
        (word + keys) as u64 + self.records() * Form::RECORD
    }
}

/// Appends a text with its length.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Reads a text of at most `limit` bytes.
pub(crate) fn get_text<R: Read + ?Sized>(from: &mut R, limit: u64) -> io::Result<Vec<u8>> {
    let len = varint::get(from)?;
    if len > limit {
        return Err(invalid("length of a text"));
    }
    let mut text = Vec::new();
    if from.take(len).read_to_end(&mut text)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text)
}

fn read_shape<R: Read + ?Sized>(from: &mut R) -> io::Result<Shape> {
    let mut bytes = [0; Shape::LEN];
    from.read_exact(&mut bytes)?;
    Shape::from_bytes(&bytes).ok_or_else(|| invalid("shape of a header"))
}

fn byte<R: Read + ?Sized>(from: &mut R) -> io::Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch has an impossible {what}"))
}
