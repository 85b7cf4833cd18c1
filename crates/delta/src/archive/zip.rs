//! The model of a zip archive: entries one after the other, then the directory, both made again from the same values.
//!
//! An archive that does not follow it (entries out of order, gaps, values that differ between an entry's two headers, sizes of more
//! than 32 bits, encryption) has no model and is carried like any other content.

use std::io::{self, BufReader, Read, SeekFrom};

use crate::source::ReadSeek;
use crate::varint;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";
const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
/// The bit that says that sizes follow the content.
const FOLLOWS: u16 = 8;

/// An entry's content as it is, and deflated.
pub(crate) const STORED: u16 = 0;
pub(crate) const DEFLATED: u16 = 8;

/// Where an entry's two headers are.
#[derive(Clone, Copy, Debug)]
struct Row {
    local: u32,
    central: u32,
}

/// Where the entries of an archive are.
#[derive(Debug)]
pub(crate) struct Directory {
    rows: Vec<Row>,
    start: u64,
    /// Bytes after the directory's end record.
    pub comment: Vec<u8>,
}

/// What seldom differs between two versions of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Version, flags, method; version of the maker, version in the directory, internal attributes.
    pub words: [u16; 6],
    /// External attributes.
    pub attributes: u32,
    /// Extra fields of the entry and of the directory, and the comment.
    pub texts: [Vec<u8>; 3],
}

/// What follows from a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub crc: u32,
    /// Bytes in the archive.
    pub coded: u32,
    /// Bytes of the content.
    pub plain: u32,
}

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub name: Vec<u8>,
    /// Date and time as they are in the headers, the date above.
    pub time: u32,
    pub meta: Meta,
    pub sums: Sums,
}

impl Meta {
    pub(crate) fn method(&self) -> u16 {
        self.words[2]
    }

    fn follows(&self) -> bool {
        self.words[1] & FOLLOWS != 0
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        out.extend(self.attributes.to_le_bytes());
        for text in &self.texts {
            varint::put(&mut out, text.len() as u64);
            out.extend(text);
        }
        out
    }

    /// Reads what [`write`](Self::write) gave; texts have at most 65535 bytes.
    pub(crate) fn read(from: &mut (impl Read + ?Sized)) -> io::Result<Self> {
        let mut fixed = [0; 16];
        from.read_exact(&mut fixed)?;
        let mut meta = Self { attributes: u32_at(&fixed, 12), ..Self::default() };
        for (index, word) in meta.words.iter_mut().enumerate() {
            *word = u16_at(&fixed, 2 * index);
        }
        for text in &mut meta.texts {
            let len = u16::try_from(varint::get(from)?).map_err(|_| bad("a text that is too long"))?;
            *text = take(from, usize::from(len))?;
        }
        Ok(meta)
    }
}

impl Entry {
    /// The header before the content; `None` when a text is too long for it.
    pub(crate) fn local(&self) -> Option<Vec<u8>> {
        let [version, flags, method, ..] = self.meta.words;
        let sums = if self.meta.follows() { Sums::default() } else { self.sums };
        let mut out = LOCAL.to_vec();
        for word in [version, flags, method] {
            out.extend(word.to_le_bytes());
        }
        for value in [self.time, sums.crc, sums.coded, sums.plain] {
            out.extend(value.to_le_bytes());
        }
        for text in [&self.name, &self.meta.texts[0]] {
            out.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
        }
        out.extend(&self.name);
        out.extend(&self.meta.texts[0]);
        Some(out)
    }

    /// What comes after the content.
    pub(crate) fn descriptor(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.meta.follows() {
            out.extend(DESCRIPTOR);
            for value in [self.sums.crc, self.sums.coded, self.sums.plain] {
                out.extend(value.to_le_bytes());
            }
        }
        out
    }

    /// The header in the directory.
    pub(crate) fn central(&self, offset: u32) -> Option<Vec<u8>> {
        let [_, flags, method, made, version, internal] = self.meta.words;
        let mut out = CENTRAL.to_vec();
        for word in [made, version, flags, method] {
            out.extend(word.to_le_bytes());
        }
        for value in [self.time, self.sums.crc, self.sums.coded, self.sums.plain] {
            out.extend(value.to_le_bytes());
        }
        let texts = [&self.name, &self.meta.texts[1], &self.meta.texts[2]];
        for text in texts {
            out.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
        }
        out.extend([0; 2]);
        out.extend(internal.to_le_bytes());
        out.extend(self.meta.attributes.to_le_bytes());
        out.extend(offset.to_le_bytes());
        for text in texts {
            out.extend(text);
        }
        Some(out)
    }
}

/// The record that ends an archive.
pub(crate) fn end(count: u16, size: u32, start: u32, comment: &[u8]) -> Option<Vec<u8>> {
    let mut out = END.to_vec();
    for word in [0, 0, count, count] {
        out.extend(word.to_le_bytes());
    }
    out.extend(size.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(u16::try_from(comment.len()).ok()?.to_le_bytes());
    out.extend(comment);
    Some(out)
}

impl Directory {
    /// Reads the directory of an archive; `InvalidData` when it has none that the model knows.
    pub(crate) fn read(from: &mut dyn ReadSeek) -> io::Result<Self> {
        let size = from.seek(SeekFrom::End(0))?;
        let tail = size.min((END_LEN + usize::from(u16::MAX)) as u64);
        from.seek(SeekFrom::Start(size - tail))?;
        let mut bytes = Vec::new();
        from.take(tail).read_to_end(&mut bytes)?;
        let found = (0..bytes.len().saturating_sub(END_LEN - 1))
            .rev()
            .find(|&at| bytes[at..].starts_with(&END) && usize::from(u16_at(&bytes, at + 20)) == bytes.len() - at - END_LEN);
        let at = found.ok_or_else(|| bad("no directory"))?;
        let (count, len, start) = (u16_at(&bytes, at + 10), u32_at(&bytes, at + 12), u32_at(&bytes, at + 16));
        let end_at = size - (bytes.len() - at) as u64;
        if count == u16::MAX || u64::from(start) + u64::from(len) != end_at {
            return Err(bad("a directory of another form"));
        }
        from.seek(SeekFrom::Start(u64::from(start)))?;
        let mut reader = BufReader::with_capacity(16 * 1024, from.take(u64::from(len)));
        let mut rows = Vec::with_capacity(usize::from(count));
        let mut central = 0u32;
        for _ in 0..count {
            let mut header = [0; CENTRAL_LEN];
            reader.read_exact(&mut header)?;
            if !header.starts_with(&CENTRAL) {
                return Err(bad("a damaged directory"));
            }
            rows.push(Row { local: u32_at(&header, 42), central });
            let texts: u32 = [28, 30, 32].into_iter().map(|at| u32::from(u16_at(&header, at))).sum();
            io::copy(&mut (&mut reader).take(u64::from(texts)), &mut io::sink())?;
            central = central.checked_add(46 + texts).ok_or_else(|| bad("a directory that is too long"))?;
        }
        if central != len {
            return Err(bad("a directory of another length"));
        }
        Ok(Self { rows, start: u64::from(start), comment: bytes.split_off(at + END_LEN) })
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where the first entry is, or the directory.
    pub(crate) fn first(&self) -> u64 {
        self.rows.first().map_or(self.start, |row| u64::from(row.local))
    }

    /// An entry and where its content begins. `heads` reads the directory, `from` the rest; they are two readers of one archive.
    pub(crate) fn entry(&self, index: usize, from: &mut dyn ReadSeek, heads: &mut dyn ReadSeek) -> io::Result<(Entry, u64)> {
        let row = self.row(index)?;
        let (central, texts) = self.central(row, heads)?;
        local(row, from, &central, texts)
    }

    /// The same with one reader.
    pub(crate) fn entry_of_one(&self, index: usize, from: &mut dyn ReadSeek) -> io::Result<(Entry, u64)> {
        let row = self.row(index)?;
        let (central, texts) = self.central(row, from)?;
        local(row, from, &central, texts)
    }

    fn row(&self, index: usize) -> io::Result<Row> {
        self.rows.get(index).copied().ok_or_else(|| bad("fewer entries than the patch says"))
    }

    fn central(&self, row: Row, from: &mut dyn ReadSeek) -> io::Result<([u8; CENTRAL_LEN], [Vec<u8>; 3])> {
        from.seek(SeekFrom::Start(self.start + u64::from(row.central)))?;
        let mut central = [0; CENTRAL_LEN];
        from.read_exact(&mut central)?;
        let mut texts = [const { Vec::new() }; 3];
        for (text, at) in texts.iter_mut().zip([28, 30, 32]) {
            *text = take(from, usize::from(u16_at(&central, at)))?;
        }
        Ok((central, texts))
    }
}

fn local(row: Row, from: &mut dyn ReadSeek, central: &[u8], texts: [Vec<u8>; 3]) -> io::Result<(Entry, u64)> {
    from.seek(SeekFrom::Start(u64::from(row.local)))?;
    let mut local = [0; LOCAL_LEN];
    from.read_exact(&mut local)?;
    let (name_len, extra_len) = (u16_at(&local, 26), u16_at(&local, 28));
    from.seek(SeekFrom::Current(i64::from(name_len)))?;
    let extra = take(from, usize::from(extra_len))?;
    let [name, central_extra, comment] = texts;
    let words = [u16_at(&local, 4), u16_at(central, 8), u16_at(central, 10), u16_at(central, 4), u16_at(central, 6), u16_at(central, 36)];
    let entry = Entry {
        name,
        time: u32_at(central, 12),
        meta: Meta { words, attributes: u32_at(central, 38), texts: [extra, central_extra, comment] },
        sums: Sums { crc: u32_at(central, 16), coded: u32_at(central, 20), plain: u32_at(central, 24) },
    };
    Ok((entry, u64::from(row.local) + LOCAL_LEN as u64 + u64::from(name_len) + u64::from(extra_len)))
}

/// Entries with the places of their contents, the bytes before the first, the comment.
pub(crate) type Parts = (Vec<(Entry, usize)>, Vec<u8>, Vec<u8>);

/// The entries of an archive with the places of their contents, the bytes before the first and the comment; `None` when they do not
/// give the archive again, bit for bit.
pub(crate) fn model(archive: &[u8]) -> Option<Parts> {
    let mut from = io::Cursor::new(archive);
    let mut heads = io::Cursor::new(archive);
    let directory = Directory::read(&mut from).ok()?;
    let first = usize::try_from(directory.first()).ok().filter(|first| *first <= usize::from(u16::MAX))?;
    let mut entries = Vec::with_capacity(directory.len());
    let mut at = first;
    let mut central = Vec::new();
    for index in 0..directory.len() {
        let (entry, data) = directory.entry(index, &mut from, &mut heads).ok()?;
        central.extend(entry.central(u32::try_from(at).ok()?)?);
        let local = entry.local()?;
        let data = usize::try_from(data).ok()?;
        let after = data.checked_add(usize::try_from(entry.sums.coded).ok()?)?;
        let descriptor = entry.descriptor();
        if archive.get(at..data)? != local || archive.get(after..after.checked_add(descriptor.len())?)? != descriptor {
            return None;
        }
        at = after + descriptor.len();
        entries.push((entry, data));
    }
    let end = end(u16::try_from(entries.len()).ok()?, u32::try_from(central.len()).ok()?, u32::try_from(at).ok()?, &directory.comment)?;
    central.extend(end);
    (archive.get(at..)? == central).then(|| (entries, archive[..first].to_vec(), directory.comment))
}

fn take(from: &mut (impl Read + ?Sized), len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an archive has {what}"))
}
