//! Bytecode: Python's compiled files, whose head names the time of their source.
//!
//! The head has 16 bytes: a magic number that ends in a line break, four bytes of flags (zero when the file is bound to its source by
//! time), the time in seconds, the source's size; little-endian. A rebuilt file often differs from its old one in the time alone. So
//! the time is taken out: with the old time in its place the content is the old one, or is compared to it. What stands for the time
//! is how far it is from the expected one, and times of bytecode and those of members are expected from each other.

use std::io::{self, SeekFrom};
use std::ops::Range;

use super::Kind;
use super::bidiff::{self, Buffers, Difference, steps};
use crate::predict::Predictor;
use crate::source::ReadSeek;
use crate::stream::{Stream, StreamsReader, StreamsWriter};
use crate::varint::zigzag;

/// Bytes of the head.
const HEAD: usize = 16;
/// Where the time is.
const TIME: Range<usize> = 8..12;

/// A content whose time is apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytecode {
    old_time: u32,
    time: u32,
    /// `None` when the rest is that of the old content.
    difference: Option<Difference>,
}

/// The time in a content that starts like this; `None` when it is no bytecode bound to its source by time.
fn time(start: &[u8]) -> Option<u32> {
    let head: &[u8; HEAD] = start.first_chunk()?;
    let bound = head[2..4] == *b"\r\n" && head[4..8] == [0; 4];
    bound.then(|| u32::from_le_bytes(head[TIME].try_into().expect("four bytes")))
}

/// Whether a content that starts like this is bytecode.
pub(super) fn is_bytecode(start: &[u8]) -> bool {
    time(start).is_some()
}

/// Takes the time out of `new`; the rest is compared only when `changed` is asked for. `None` when one of the two is no bytecode, or
/// more than the time differs and was not asked for.
pub fn separate(old: &[u8], new: &[u8], changed: bool) -> Option<Bytecode> {
    let (old_time, time) = (time(old)?, time(new)?);
    if old.len() == new.len() && old[..TIME.start] == new[..TIME.start] && old[TIME.end..] == new[TIME.end..] {
        return Some(Bytecode { old_time, time, difference: None });
    }
    if !changed {
        return None;
    }
    let mut plain = new.to_vec();
    plain[TIME].copy_from_slice(&old[TIME]);
    Some(Bytecode { old_time, time, difference: Some(bidiff::difference(old, &plain)) })
}

impl Bytecode {
    /// The kind written with the codec: text when the rest is the old content's.
    pub fn kind(&self) -> Kind {
        if self.difference.is_some() { Kind::Binary } else { Kind::Text }
    }

    /// The differences of the rest.
    pub fn difference(&self) -> Option<&Difference> {
        self.difference.as_ref()
    }

    /// Appends it to the streams.
    pub(crate) fn write(&self, streams: &mut StreamsWriter<'_>, state: &mut Predictor) -> io::Result<()> {
        let by = i64::from(self.time) - i64::from(state.code_time(self.old_time));
        streams.number(Stream::CodeTime, zigzag(by))?;
        state.saw_code_time(self.old_time, self.time);
        self.difference.as_ref().map_or(Ok(()), |difference| difference.write(streams, Kind::Binary))
    }
}

/// Writes `size` bytes made of `old`, of `old_size` bytes, and the streams to `out`.
#[expect(clippy::too_many_arguments, reason = "the parts of the applier that it borrows")]
pub(crate) fn apply(
    streams: &mut StreamsReader<'_>,
    state: &mut Predictor,
    kind: Kind,
    old: &mut dyn ReadSeek,
    old_size: u64,
    size: u64,
    buffers: &mut Buffers,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"));
    let mut head = [0; HEAD];
    if old_size < HEAD as u64 || size < HEAD as u64 {
        return Err(invalid("bytecode that is too short"));
    }
    old.read_exact(&mut head)?;
    old.seek(SeekFrom::Start(0))?;
    let old_time = time(&head).ok_or_else(|| invalid("bytecode of an old content that is none"))?;
    let by = streams.signed(Stream::CodeTime)?;
    let time = i64::from(state.code_time(old_time)).checked_add(by).and_then(|time| u32::try_from(time).ok());
    let time = time.ok_or_else(|| invalid("an impossible time in bytecode"))?;
    state.saw_code_time(old_time, time);
    let new_time = time.to_le_bytes();
    let mut at = 0usize;
    let mut patched = |bytes: &[u8]| {
        let end = at.saturating_add(bytes.len());
        if at >= TIME.end || end <= TIME.start {
            at = end;
            return out(bytes);
        }
        let mut bytes = bytes.to_vec();
        for place in TIME.start.max(at)..TIME.end.min(end) {
            bytes[place - at] = new_time[place - TIME.start];
        }
        at = end;
        out(&bytes)
    };
    if kind != Kind::Text {
        return bidiff::apply(streams, kind, old, size, buffers, &mut patched);
    }
    if old_size != size {
        return Err(invalid("bytecode of another size"));
    }
    steps(size, buffers.old.len(), |len| {
        old.read_exact(&mut buffers.old[..len])?;
        patched(&buffers.old[..len])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(time: u32, body: &[u8]) -> Vec<u8> {
        [b"\xa7\x0d\x0d\x0a\0\0\0\0", &time.to_le_bytes()[..], b"\x10\0\0\0", body].concat()
    }

    /// Sends the pairs and gives the bytes of their times, before coding.
    fn round_trip(pairs: &[(Vec<u8>, Vec<u8>)], step: usize) -> u64 {
        let mut writer = StreamsWriter::default();
        let mut state = Predictor::default();
        let mut kinds = Vec::new();
        for (old, new) in pairs {
            let code = separate(old, new, true).unwrap();
            kinds.push(code.kind());
            code.write(&mut writer, &mut state).unwrap();
        }
        let written = writer.finish(1 << 20).unwrap();
        let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..]))).unwrap();
        let mut state = Predictor::default();
        let mut buffers = Buffers::new(step);
        for ((old, new), kind) in pairs.iter().zip(kinds) {
            let mut made = Vec::new();
            let mut out = |bytes: &[u8]| {
                made.extend_from_slice(bytes);
                Ok(())
            };
            let mut from = io::Cursor::new(old);
            apply(&mut reader, &mut state, kind, &mut from, old.len() as u64, new.len() as u64, &mut buffers, &mut out).unwrap();
            assert_eq!(made, *new);
        }
        assert_eq!(reader.unread(), None);
        written.sizes.iter().filter(|size| size.stream == Stream::CodeTime).map(|size| size.raw).sum()
    }

    #[test]
    fn only_bytecode_bound_by_time_is_taken() {
        let old = content(5, b"body");
        assert!(separate(&old, b"text", true).is_none());
        assert!(separate(&old, &old[..15], true).is_none());
        let mut hashed = content(6, b"body");
        hashed[4] = 1;
        assert!(separate(&old, &hashed, true).is_none());
        assert!(separate(&old, &content(9, b"other"), false).is_none());
        assert_eq!(separate(&old, &content(9, b"body"), false).unwrap().kind(), Kind::Text);
    }

    #[test]
    fn hostile_streams_are_refused() {
        let mut writer = StreamsWriter::default();
        writer.number(Stream::CodeTime, zigzag(-100)).unwrap();
        let written = writer.finish(1 << 20).unwrap();
        let run = |old: &[u8], size: u64| {
            let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..]))).unwrap();
            let mut from = io::Cursor::new(old);
            let mut buffers = Buffers::new(64);
            apply(&mut reader, &mut Predictor::default(), Kind::Text, &mut from, old.len() as u64, size, &mut buffers, &mut |_| Ok(()))
        };
        assert!(run(&content(5, b"x"), 17).is_err(), "a time before zero");
        assert!(run(&content(500, b"x"), 18).is_err(), "another size");
        assert!(run(b"no bytecode, but long enough", 28).is_err());
        assert!(run(&content(500, b"x"), 3).is_err());
        assert!(run(&content(500, b"x"), 17).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytecode(
            files in proptest::collection::vec((0u32..4, any::<u32>(), proptest::collection::vec(0u8..4, 0..60), proptest::option::of(proptest::collection::vec(0u8..4, 0..60))), 1..8),
            step in 1usize..40,
        ) {
            let pairs: Vec<_> = files.into_iter().map(|(old, new, body, other)| {
                let new_body = other.unwrap_or_else(|| body.clone());
                (content(old, &body), content(new, &new_body))
            }).collect();
            round_trip(&pairs, step);
        }
    }
}
