//! A PNG picture as its one entry: the lines of the picture, deflated, cut into `IDAT` chunks of one length.
//!
//! Of the entry's words the first is zlib's header; its attributes are the length of all chunks but the last, or 0 when there is one;
//! its texts are what comes before the first chunk and after the last one. Its checksum is Adler-32.

use std::borrow::Cow;
use std::io::{self, Read, SeekFrom};

use flate2::Crc;

use super::form::{Form, whole};
use super::zip::{DEFLATED, Entry, Meta, Sums};
use crate::source::ReadSeek;

pub(super) const MAGIC: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
const DATA: [u8; 4] = *b"IDAT";
const HEADER: [u8; 4] = *b"IHDR";
/// Bytes of a chunk around its data: length, type; checksum.
const AROUND: u64 = 12;
/// zlib's header and checksum around what is deflated.
const ZLIB: u64 = 6;
/// Chunks of one picture, and bytes before and after them.
const CHUNKS: usize = 1 << 16;
const SIDE: u64 = u16::MAX as u64;

/// The sum at the end of a zlib stream.
pub(super) struct Adler(u32, u32);

impl Default for Adler {
    fn default() -> Self {
        Self(1, 0)
    }
}

impl Adler {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        // As many bytes as fit before the sums pass 32 bits.
        for piece in bytes.chunks(5552) {
            for &byte in piece {
                self.0 += u32::from(byte);
                self.1 += self.0;
            }
            self.0 %= 65521;
            self.1 %= 65521;
        }
    }

    pub(super) fn sum(&self) -> u32 {
        self.1 << 16 | self.0
    }
}

/// Chunks being written.
pub(super) struct Frames {
    /// Data of each chunk, of the one at hand that is still to come, and of all.
    chunk: u64,
    left: u64,
    rest: u64,
    crc: Crc,
}

impl Frames {
    pub(super) fn new(entry: &Entry) -> Self {
        let rest = u64::from(entry.sums.coded) + ZLIB;
        let chunk = if entry.meta.attributes == 0 { rest } else { u64::from(entry.meta.attributes) };
        Self { chunk, left: 0, rest, crc: Crc::new() }
    }

    pub(super) fn put(&mut self, mut bytes: &[u8], out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.left = self.chunk.min(self.rest);
                let len = u32::try_from(self.left).ok().filter(|len| *len > 0).ok_or_else(|| bad("more data than it says"))?;
                self.rest -= self.left;
                self.crc = Crc::new();
                self.crc.update(&DATA);
                out(&len.to_be_bytes())?;
                out(&DATA)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
            self.crc.update(now);
            out(now)?;
            self.left -= now.len() as u64;
            if self.left == 0 {
                out(&self.crc.sum().to_be_bytes())?;
            }
            bytes = later;
        }
        Ok(())
    }
}

/// Where the chunks of a picture are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    /// The data of the first.
    start: u64,
    chunk: u64,
    /// All data.
    size: u64,
}

/// Reads what is deflated.
pub(super) struct Coded<'r> {
    from: &'r mut dyn ReadSeek,
    chunk: u64,
    left: u64,
    rest: u64,
}

impl Chunks {
    pub(super) fn coded<'r>(&self, from: &'r mut dyn ReadSeek) -> io::Result<Coded<'r>> {
        from.seek(SeekFrom::Start(self.start))?;
        let mut coded = Coded { from, chunk: self.chunk, left: self.chunk.min(self.size), rest: self.size.saturating_sub(4) };
        let mut header = [0; 2];
        coded.read_exact(&mut header)?;
        Ok(coded)
    }
}

impl Read for Coded<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.rest == 0 || buf.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.from.seek_relative(AROUND.cast_signed())?;
            self.left = self.chunk;
        }
        let len = usize::try_from(self.left.min(self.rest)).unwrap_or(usize::MAX).min(buf.len());
        let read = self.from.read(&mut buf[..len])?;
        self.left -= read as u64;
        self.rest -= read as u64;
        Ok(read)
    }
}

/// The entry of a picture and where its data is; an error when it has no model.
pub(super) fn read(from: &mut dyn ReadSeek) -> io::Result<(Entry, Chunks)> {
    let size = from.seek(SeekFrom::End(0))?;
    from.seek(SeekFrom::Start(0))?;
    if take(from, MAGIC.len() as u64)? != MAGIC {
        return Err(bad("no header"));
    }
    let mut at = MAGIC.len() as u64;
    let mut found: Option<Chunks> = None;
    let (mut plain, mut last, mut count) = (None, 0, 0);
    loop {
        if at + AROUND > size {
            break;
        }
        from.seek(SeekFrom::Start(at))?;
        let head = take(from, 8)?;
        let (len, kind) = head.split_at(4);
        let len = u64::from(u32::from_be_bytes(len.try_into().map_err(|_| bad("no chunk"))?));
        count += 1;
        if count > CHUNKS || (found.is_none() && at > SIDE) {
            return Err(bad("too many chunks"));
        }
        match &mut found {
            None if kind == DATA => found = Some(Chunks { start: at + 8, chunk: len, size: len }),
            Some(chunks) if kind == DATA => {
                if last != chunks.chunk || len > chunks.chunk {
                    return Err(bad("chunks of several lengths"));
                }
                chunks.size += len;
            }
            Some(_) => break,
            None if kind == HEADER && len == 13 => plain = bytes_of(&take(from, len)?),
            None => {}
        }
        last = len;
        at += AROUND + len;
    }
    let chunks = found.filter(|chunks| chunks.size >= ZLIB && at <= size && last > 0).ok_or_else(|| bad("no data"))?;
    let plain = plain.ok_or_else(|| bad("an unknown header"))?;
    let first = chunks.start - 8;
    if first > SIDE || size - at > SIDE {
        return Err(bad("too much around its data"));
    }
    from.seek(SeekFrom::Start(0))?;
    let before = take(from, first)?;
    from.seek(SeekFrom::Start(at))?;
    let after = take(from, size - at)?;
    from.seek(SeekFrom::Start(chunks.start))?;
    let mut ends = [0; 6];
    let mut all = Coded { from, chunk: chunks.chunk, left: chunks.chunk, rest: chunks.size };
    all.read_exact(&mut ends[..2])?;
    // The checksum may begin in one chunk and end in the next.
    for (sum_at, byte) in (chunks.size - 4..).zip(&mut ends[2..]) {
        let (whole, rest) = (sum_at / chunks.chunk, sum_at % chunks.chunk);
        all.from.seek(SeekFrom::Start(chunks.start + whole * (chunks.chunk + AROUND) + rest))?;
        all.from.read_exact(std::slice::from_mut(byte))?;
    }
    let [high, low, a, b, c, d] = ends;
    let coded = u32::try_from(chunks.size - ZLIB).map_err(|_| bad("too many bytes"))?;
    let length = if chunks.size == chunks.chunk { 0 } else { u32::try_from(chunks.chunk).map_err(|_| bad("too many bytes"))? };
    let meta =
        Meta { words: [u16::from_be_bytes([high, low]), 0, DEFLATED, 0, 0, 0], attributes: length, texts: [before, after, Vec::new()] };
    let sums = Sums { crc: u32::from_be_bytes([a, b, c, d]), coded, plain };
    Ok((Entry { name: Vec::new(), time: 0, meta, sums }, chunks))
}

/// Bytes of the lines of a picture with this header.
fn bytes_of(header: &[u8]) -> Option<u32> {
    let number = |at: usize| header.get(at..at + 4)?.try_into().map(u32::from_be_bytes).ok().map(u64::from);
    let (width, height) = (number(0)?, number(4)?);
    let samples = match header.get(9)? {
        0 | 3 => 1,
        2 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    let bits = samples * u64::from(*header.get(8)?);
    // First column and line, and steps, of each pass.
    let passes: &[[u64; 4]] = match header.get(12)? {
        0 => &[[0, 0, 1, 1]],
        1 => &[[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]],
        _ => return None,
    };
    let mut bytes = 0u64;
    for [x, y, across, down] in passes {
        let (columns, lines) = (width.saturating_sub(*x).div_ceil(*across), height.saturating_sub(*y).div_ceil(*down));
        if columns > 0 {
            bytes = bytes.checked_add(lines.checked_mul(1 + columns.checked_mul(bits)?.div_ceil(8))?)?;
        }
    }
    u32::try_from(bytes).ok()
}

/// The entry of a picture and its coded bytes; `None` when they do not give the picture again.
pub(super) fn model(picture: &[u8]) -> Option<(Entry, Cow<'_, [u8]>)> {
    let (entry, chunks) = read(&mut io::Cursor::new(picture)).ok()?;
    let mut coded = Vec::new();
    chunks.coded(&mut io::Cursor::new(picture)).ok()?.read_to_end(&mut coded).ok()?;
    (whole(Form::Png, &entry, &coded).ok()? == picture).then_some((entry, Cow::Owned(coded)))
}

fn take(from: &mut dyn ReadSeek, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a PNG picture has {what}"))
}
