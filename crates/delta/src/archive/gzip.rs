//! A gzip file as its one entry. The entry's name and time are those of the header.
//!
//! Of the entry's words the first is the flags, the second the byte of extra flags and, above it, that of the system; its texts are
//! the extra field, the comment and the header's own checksum.

use std::borrow::Cow;
use std::io::{self, SeekFrom};

use super::form::{Form, whole};
use super::zip::{DEFLATED, Entry, Meta, Sums};
use crate::source::ReadSeek;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const CHECKSUM: u16 = 2;
const EXTRA: u16 = 4;
const NAME: u16 = 8;
const COMMENT: u16 = 16;
/// Checksum and length of the content.
const TAIL: u64 = 8;

/// What comes before the coded bytes; `None` when a text is too long.
pub(super) fn head(entry: &Entry) -> Option<Vec<u8>> {
    let [flags, bytes, ..] = entry.meta.words;
    let [extra, comment, checksum] = &entry.meta.texts;
    let mut out = MAGIC.to_vec();
    out.push(u8::try_from(flags).ok()?);
    out.extend(entry.time.to_le_bytes());
    out.extend(bytes.to_le_bytes());
    if flags & EXTRA != 0 {
        out.extend(u16::try_from(extra.len()).ok()?.to_le_bytes());
        out.extend(extra);
    }
    for (flag, text) in [(NAME, &entry.name), (COMMENT, comment)] {
        if flags & flag != 0 {
            out.extend(text);
            out.push(0);
        }
    }
    if flags & CHECKSUM != 0 {
        out.extend(checksum);
    }
    Some(out)
}

/// What comes after them.
pub(super) fn tail(entry: &Entry) -> Vec<u8> {
    [entry.sums.crc, entry.sums.plain].into_iter().flat_map(u32::to_le_bytes).collect()
}

/// The entry of a file and where its coded bytes are; an error when it has no header. Whether there is one stream and no more is
/// seen when it is inflated.
pub(super) fn read(from: &mut dyn ReadSeek) -> io::Result<(Entry, u64)> {
    let size = from.seek(SeekFrom::End(0))?;
    from.seek(SeekFrom::Start(0))?;
    let mut head = [0; 10];
    from.read_exact(&mut head)?;
    if !head.starts_with(&MAGIC) {
        return Err(bad("no header"));
    }
    let flags = u16::from(head[3]);
    let mut start = head.len() as u64;
    let mut meta = Meta { words: [flags, u16::from_le_bytes([head[8], head[9]]), DEFLATED, 0, 0, 0], ..Meta::default() };
    let mut name = Vec::new();
    if flags & EXTRA != 0 {
        let len = u16::from_le_bytes(take(from, 2)?.try_into().map_err(|_| bad("no extra field"))?);
        meta.texts[0] = take(from, usize::from(len))?;
        start += 2 + u64::from(len);
    }
    let mut texts = [(NAME, &mut name), (COMMENT, &mut meta.texts[1])];
    for (_, text) in texts.iter_mut().filter(|(flag, _)| flags & flag != 0) {
        let mut byte = [0];
        loop {
            from.read_exact(&mut byte)?;
            start += 1;
            if byte == [0] {
                break;
            }
            if text.len() == usize::from(u16::MAX) {
                return Err(bad("a name that is too long"));
            }
            text.push(byte[0]);
        }
    }
    if flags & CHECKSUM != 0 {
        meta.texts[2] = take(from, 2)?;
        start += 2;
    }
    let end = size.checked_sub(TAIL).filter(|end| *end >= start).ok_or_else(|| bad("no end"))?;
    from.seek(SeekFrom::Start(end))?;
    let tail = take(from, 8)?;
    let number = |at: usize| tail[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_| bad("no end"));
    let coded = u32::try_from(end - start).map_err(|_| bad("too many bytes"))?;
    let entry = Entry {
        name,
        time: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
        meta,
        sums: Sums { crc: number(0)?, coded, plain: number(4)? },
    };
    Ok((entry, start))
}

/// The entry of a file and its coded bytes; `None` when they do not give the file again.
pub(super) fn model(file: &[u8]) -> Option<(Entry, Cow<'_, [u8]>)> {
    let (entry, start) = read(&mut io::Cursor::new(file)).ok()?;
    let start = usize::try_from(start).ok()?;
    let coded = file.get(start..start.checked_add(usize::try_from(entry.sums.coded).ok()?)?)?;
    (whole(Form::Gzip, &entry, coded).ok()? == file).then_some((entry, Cow::Borrowed(coded)))
}

fn take(from: &mut dyn ReadSeek, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a gzip file has {what}"))
}
