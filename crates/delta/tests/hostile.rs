//! Patches that a hostile builder signed: each is refused before it costs more than the limits.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking; its lengths are small")]

use std::cell::Cell;
use std::io::{self, Cursor};

use skerry_delta::TarLayer;
use skerry_delta::apply::Applier;
use skerry_delta::source::{LayerSource, Segment};
use skerry_delta::stream::{Coder, Section, Stream, StreamsReader, StreamsWriter};
use skerry_delta::tar::{Item, Items};

/// A header and, when there is a content, that of one file.
fn tar(path: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content).unwrap();
    builder.into_inner().unwrap()
}

/// What comes of these streams against a layer of one file, as a layer of this size.
fn apply(streams: StreamsWriter<'_>, size: u64) -> io::Result<()> {
    let written = streams.finish(4 << 20).unwrap();
    let old = tar("file", &[7; 100]);
    let old: Vec<Box<dyn LayerSource>> = vec![Box::new(TarLayer::new(move || Ok(Cursor::new(old.clone()))).unwrap())];
    let streams = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..])))?;
    Applier::new(streams, &old, 1 << 20)?.layer(size, &mut |_| Ok(()))
}

fn refused(streams: StreamsWriter<'_>, size: u64, why: &str) {
    let error = apply(streams, size).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn runs_and_items_of_no_bytes_end() {
    let zeros = vec![0; 1 << 18];
    let mut streams = StreamsWriter::default();
    // A bare content of ten bytes by bidiff from the old file.
    streams.put(Stream::Flags, &[0]).unwrap();
    for (stream, number) in [(Stream::Base, 2), (Stream::Size, 10), (Stream::Codec, 2 | 8), (Stream::Source, 0)] {
        streams.number(stream, number).unwrap();
    }
    for stream in [Stream::Add, Stream::Insert, Stream::Seek] {
        streams.put(stream, &zeros).unwrap();
    }
    refused(streams, 10, "a run of no bytes");

    for item in [1, 2] {
        let mut streams = StreamsWriter::default();
        streams.put(Stream::Flags, &zeros).unwrap();
        streams.put(Stream::Base, &vec![item; zeros.len()]).unwrap();
        streams.put(Stream::Size, &zeros).unwrap();
        streams.put(Stream::Codec, &vec![1; zeros.len()]).unwrap();
        refused(streams, 10, "an item of no bytes");
    }
}

/// All values of a member without a base are expected, but for its path and its form.
const FLAGS: u8 = 0b1111_1000;

/// A folder's form whose name field is the start of its path, with so many extended headers before it, each of a long key.
fn form(number: u16, headers: u8, key: usize) -> Vec<u8> {
    let mut shape = [0; 128];
    shape[24] = b'5';
    shape[..2].copy_from_slice(&number.to_le_bytes());
    let mut form = shape.to_vec();
    form.extend([2, headers]);
    for _ in 0..headers {
        shape[24] = b'x';
        form.extend(shape);
        // A fixed name, no time, records.
        form.extend([2, 1, b'n', 1, 0]);
        let mut len = key;
        while len > 127 {
            form.push((len & 127) as u8 | 128);
            len >>= 7;
        }
        form.push(len as u8);
        form.extend(vec![b'k'; key]);
    }
    form
}

#[test]
fn a_path_does_not_grow_from_member_to_member() {
    let mut streams = StreamsWriter::default();
    let step = 600_000;
    for (number, shared) in [0, step].into_iter().enumerate() {
        streams.put(Stream::Flags, &[FLAGS]).unwrap();
        streams.number(Stream::Base, 0).unwrap();
        streams.number(Stream::PathShared, shared).unwrap();
        streams.number(Stream::PathShared, step).unwrap();
        streams.put(Stream::PathText, &vec![b'a'; step as usize]).unwrap();
        streams.number(Stream::Form, 1).unwrap();
        if number == 0 {
            streams.put(Stream::NewForm, &form(0, 0, 0)).unwrap();
        }
    }
    refused(streams, 1 << 20, "more than there may be");
}

#[test]
fn forms_need_no_more_memory_than_the_table_may() {
    let forms = |count: u16, headers: u8, key: usize| {
        let mut streams = StreamsWriter::default();
        for number in 0..count {
            streams.put(Stream::Flags, &[FLAGS]).unwrap();
            for (stream, value) in [(Stream::Base, 0), (Stream::PathShared, 0), (Stream::PathShared, 1)] {
                streams.number(stream, value).unwrap();
            }
            streams.put(Stream::PathText, b"a").unwrap();
            streams.number(Stream::Form, u64::from(number) + 1).unwrap();
            streams.put(Stream::NewForm, &form(number, headers, key)).unwrap();
        }
        streams.put(Stream::Flags, &[0]).unwrap();
        streams.number(Stream::Base, 3).unwrap();
        streams
    };
    apply(forms(5, 1, 60_000), 1 << 20).unwrap();
    refused(forms(40, 1, 60_000), 1 << 30, "than go into the 1048576 bytes");
    refused(forms(1, 16, 60_000), 1 << 30, "impossible length");
}

#[test]
fn a_pack_says_each_stream_once() {
    for (pack, why) in [(&[1, 0, 1, 0, 0][..], "a stream twice"), (&[1, 1, 0, 9, 9], "bytes after")] {
        let section = Section { stream: Stream::Pack, coder: Coder::Raw, raw_len: pack.len() as u64, len: pack.len() as u64 };
        let error = StreamsReader::open(&[section], |_| Ok(Box::new(pack))).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_tar_of_nothing_but_extended_headers_is_not_held() {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    for (size, count) in [(0, 4000), (60_000, 100)] {
        header.set_size(size);
        header.set_cksum();
        let mut block = header.as_bytes().to_vec();
        block.resize(512 + usize::try_from(size).unwrap().next_multiple_of(512), 0);
        let taken = Cell::new(0);
        let segments = (0..count).map(|_| {
            taken.set(taken.get() + block.len());
            Ok(Segment::Raw(block.clone()))
        });
        let mut whole = Vec::new();
        for item in Items::new(segments) {
            let Item::Raw(bytes) = item.unwrap() else { panic!("no member is in it") };
            whole.extend(bytes);
            assert!(taken.get() - whole.len() < 3 << 20, "{} bytes are held", taken.get() - whole.len());
        }
        assert!(whole == block.repeat(count));
    }
}
