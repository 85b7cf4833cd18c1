//! Reading the streams of a patch, each at its own pace.

use std::io::{self, BufReader, Cursor, Read};

use super::{Section, Stream};
use crate::varint;

/// Coded bytes are read in steps of this many.
const STEP: usize = 8 * 1024;

/// The longest pack, decoded.
pub(super) const MAX_PACK: u64 = 1 << 20;

/// One stream.
pub struct StreamReader<'a> {
    stream: Stream,
    inner: BufReader<Box<dyn Read + Send + 'a>>,
    left: u64,
}

impl StreamReader<'_> {
    /// Bytes not yet read.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Read for StreamReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buf[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("stream {:?} is shorter than it says", self.stream)));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// All streams of a patch.
pub struct StreamsReader<'a> {
    readers: Vec<StreamReader<'a>>,
}

impl<'a> StreamsReader<'a> {
    /// Opens all streams; `open` gives the coded bytes of the section with this index. Needs the memory of [`memory`](Self::memory).
    pub fn open(sections: &[Section], mut open: impl FnMut(usize) -> io::Result<Box<dyn Read + Send + 'a>>) -> io::Result<Self> {
        let mut readers: Vec<_> = Stream::ALL.iter().map(|&stream| empty(stream)).collect();
        for (index, section) in sections.iter().enumerate() {
            let coded = BufReader::with_capacity(STEP, open(index)?.take(section.len));
            let decoded = section.coder.decode(coded)?;
            if section.stream == Stream::Pack {
                unpack(decoded, section.raw_len, &mut readers)?;
            } else {
                let inner = BufReader::with_capacity(STEP, decoded);
                readers[section.stream as usize] = StreamReader { stream: section.stream, inner, left: section.raw_len };
            }
        }
        Ok(Self { readers })
    }

    /// Bytes of memory that reading these sections needs, about.
    pub fn memory(sections: &[Section]) -> u64 {
        let of = |s: &Section| s.coder.memory(s.raw_len).saturating_add(if s.stream == Stream::Pack { s.raw_len } else { 2 * STEP as u64 });
        sections.iter().map(of).fold(0, u64::saturating_add)
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

fn empty<'a>(stream: Stream) -> StreamReader<'a> {
    StreamReader { stream, inner: BufReader::with_capacity(0, Box::new(io::empty())), left: 0 }
}

/// Splits the pack: for each stream its number and length, then 0, then the streams.
fn unpack<'a>(decoded: impl Read, raw_len: u64, readers: &mut [StreamReader<'a>]) -> io::Result<()> {
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
        entries.push((stream, varint::get(&mut head)?));
    }
    for (stream, len) in entries {
        let len = usize::try_from(len).ok().filter(|len| *len <= head.len()).ok_or_else(|| bad("a stream beyond its end"))?;
        let (bytes, rest) = head.split_at(len);
        head = rest;
        let inner = BufReader::with_capacity(0, Box::new(Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>);
        readers[stream as usize] = StreamReader { stream, inner, left: len as u64 };
    }
    Ok(())
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
