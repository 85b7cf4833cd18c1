//! Reading the streams of a patch, each at its own pace.

use std::io::{self, BufReader, Cursor, Read};

use super::mix::sparse;
use super::{Coder, Section, Stream};
use crate::varint;

/// Coded bytes are read in steps of this many.
const STEP: usize = 8 * 1024;

/// The longest pack, decoded.
pub(super) const MAX_PACK: u64 = 1 << 20;

/// Coded bytes of a section that is not yet opened.
struct Part<'a> {
    section: Section,
    coded: Box<dyn Read + Send + 'a>,
}

/// Coded bytes of a section that is opened.
type Coded<'a> = BufReader<io::Take<Box<dyn Read + Send + 'a>>>;

/// A section that is read.
enum Inner<'a> {
    Bytes(BufReader<Box<dyn Read + Send + 'a>>),
    Sparse(Box<sparse::Reader<Coded<'a>, { sparse::STRONG }>>),
    Fast(Box<sparse::Reader<Coded<'a>, { sparse::FAST }>>),
}

/// One stream.
pub struct StreamReader<'a> {
    stream: Stream,
    inner: Inner<'a>,
    /// What follows, the next one last.
    parts: Vec<Part<'a>>,
    /// Bytes not yet read of the section that is open.
    here: u64,
    left: u64,
}

impl<'a> StreamReader<'a> {
    fn of(stream: Stream, bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        let inner = Inner::Bytes(BufReader::with_capacity(0, Box::new(Cursor::new(bytes))));
        Self { stream, inner, parts: Vec::new(), here: len, left: len }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Fills `buf` with differences to the bytes in `old`, of the same length. Bytes that were written beside old ones must be read so.
    pub fn read_beside(&mut self, buf: &mut [u8], old: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let read = self.step(&mut buf[done..], old.get(done..).unwrap_or_default())?;
            if read == 0 {
                return Err(name(io::ErrorKind::UnexpectedEof.into(), self.stream));
            }
            done += read;
        }
        Ok(())
    }

    fn step(&mut self, buf: &mut [u8], old: &[u8]) -> io::Result<usize> {
        while self.here == 0 {
            let Some(part) = self.parts.pop() else { return Ok(0) };
            // The memory of the last one is free before the next one is taken.
            self.inner = Inner::Bytes(BufReader::with_capacity(0, Box::new(io::empty())));
            self.here = part.section.raw_len;
            self.inner = part.open()?;
        }
        let wanted = buf.len().min(usize::try_from(self.here).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = match &mut self.inner {
            Inner::Bytes(inner) => inner.read(&mut buf[..wanted])?,
            Inner::Sparse(inner) => inner.read(&mut buf[..wanted], old)?,
            Inner::Fast(inner) => inner.read(&mut buf[..wanted], old)?,
        };
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("stream {:?} is shorter than it says", self.stream)));
        }
        self.here -= read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Read for StreamReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.step(buf, &[])
    }
}

impl<'a> Part<'a> {
    fn open(self) -> io::Result<Inner<'a>> {
        let Section { coder, raw_len, len, .. } = self.section;
        let coded = BufReader::with_capacity(STEP, self.coded.take(len));
        Ok(match coder {
            Coder::Sparse => Inner::Sparse(Box::new(sparse::Reader::new(coded, raw_len))),
            Coder::FastSparse => Inner::Fast(Box::new(sparse::Reader::new(coded, raw_len))),
            _ => Inner::Bytes(BufReader::with_capacity(STEP, coder.decode(coded, raw_len)?)),
        })
    }
}

/// All streams of a patch.
pub struct StreamsReader<'a> {
    readers: Vec<StreamReader<'a>>,
}

impl<'a> StreamsReader<'a> {
    /// Opens all streams; `open` gives the coded bytes of the section with this index. Needs the memory of [`memory`](Self::memory).
    pub fn open(sections: &[Section], mut open: impl FnMut(usize) -> io::Result<Box<dyn Read + Send + 'a>>) -> io::Result<Self> {
        let mut readers: Vec<_> = Stream::ALL.iter().map(|&stream| StreamReader::of(stream, Vec::new())).collect();
        for (index, &section) in sections.iter().enumerate() {
            let coded = open(index)?;
            if section.stream == Stream::Pack {
                let coded = BufReader::with_capacity(STEP, coded.take(section.len));
                unpack(section.coder.decode(coded, section.raw_len)?, section.raw_len, &mut readers)?;
            } else {
                let reader = &mut readers[section.stream as usize];
                reader.left = reader.left.checked_add(section.raw_len).ok_or_else(|| io::Error::other("a stream beyond 64 bits"))?;
                reader.parts.push(Part { section, coded });
            }
        }
        for reader in &mut readers {
            reader.parts.reverse();
        }
        Ok(Self { readers })
    }

    /// Bytes of memory that reading these sections needs, about. Of several sections of a stream one is read at a time.
    pub fn memory(sections: &[Section]) -> u64 {
        let of = |s: &Section| s.coder.memory(s.raw_len).saturating_add(if s.stream == Stream::Pack { s.raw_len } else { 2 * STEP as u64 });
        let mut most = [0u64; Stream::ALL.len()];
        for section in sections {
            let most = &mut most[section.stream as usize];
            *most = of(section).max(*most);
        }
        most.into_iter().fold(0, u64::saturating_add)
    }

    /// The reader of a stream; an absent stream is empty.
    pub fn get(&mut self, stream: Stream) -> &mut StreamReader<'a> {
        &mut self.readers[stream as usize]
    }

    /// The next number of a stream.
    pub fn number(&mut self, stream: Stream) -> io::Result<u64> {
        varint::get(self.get(stream)).map_err(|error| name(error, stream))
    }

    /// The next signed number of a stream.
    pub fn signed(&mut self, stream: Stream) -> io::Result<i64> {
        self.number(stream).map(varint::unzigzag)
    }

    /// The next byte of a stream.
    pub fn byte(&mut self, stream: Stream) -> io::Result<u8> {
        let mut byte = [0];
        self.get(stream).read_exact(&mut byte).map_err(|error| name(error, stream))?;
        Ok(byte[0])
    }

    /// The next `len` bytes of a stream, at most `limit`.
    pub fn bytes(&mut self, stream: Stream, len: u64, limit: u64) -> io::Result<Vec<u8>> {
        if len > limit || len > self.get(stream).left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes of stream {stream:?} are more than there may be")));
        }
        let mut bytes = Vec::new();
        self.get(stream).take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The streams that still have bytes: none when a patch was applied to its end.
    pub fn unread(&self) -> Option<Stream> {
        self.readers.iter().find(|reader| reader.left > 0).map(|reader| reader.stream)
    }
}

fn name(error: io::Error, stream: Stream) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::InvalidData, format!("stream {stream:?} ends too early")),
        _ => error,
    }
}

/// Splits the pack: for each stream its number and length, then 0, then the streams.
fn unpack(decoded: impl Read, raw_len: u64, readers: &mut [StreamReader<'_>]) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the pack of the patch has {what}"));
    if raw_len > MAX_PACK {
        return Err(bad("more bytes than a pack may have"));
    }
    let mut pack = Vec::new();
    if decoded.take(raw_len).read_to_end(&mut pack)? as u64 != raw_len {
        return Err(bad("fewer bytes than it says"));
    }
    let mut head = &pack[..];
    let mut entries = Vec::new();
    loop {
        let mut number = [0];
        head.read_exact(&mut number)?;
        if number[0] == 0 {
            break;
        }
        let stream = Stream::from_number(number[0]).ok_or_else(|| bad("an unknown stream"))?;
        // Twice would be two meanings, and any number of entries without bytes.
        if entries.iter().any(|(known, _)| *known == stream) {
            return Err(bad("a stream twice"));
        }
        entries.push((stream, varint::get(&mut head)?));
    }
    for (stream, len) in entries {
        let len = usize::try_from(len).ok().filter(|len| *len <= head.len()).ok_or_else(|| bad("a stream beyond its end"))?;
        let (bytes, rest) = head.split_at(len);
        head = rest;
        readers[stream as usize] = StreamReader::of(stream, bytes.to_vec());
    }
    if head.is_empty() { Ok(()) } else { Err(bad("bytes after its streams")) }
}

impl std::fmt::Debug for StreamsReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.readers.iter().filter(|r| r.left > 0).map(|r| (r.stream, r.left))).finish()
    }
}

impl std::fmt::Debug for StreamReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader").field("stream", &self.stream).field("left", &self.left).finish_non_exhaustive()
    }
}
