//! Foreign bytes as coded streams of every kind: an error, or as many bytes as the section says.
#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use skerry_delta::stream::{Stream, StreamsReader};
use skerry_fuzz::sections;

fuzz_target!(|data: &[u8]| {
    let (sections, bytes) = sections(data, |_| true);
    let Some((section, bytes)) = sections.into_iter().zip(bytes).next() else { return };
    // A node refuses what needs more than it has before it reads anything.
    if StreamsReader::memory(&[section]) > 32 << 20 {
        return;
    }
    let Ok(mut streams) = StreamsReader::open(&[section], |_| Ok(Box::new(Cursor::new(bytes)))) else { return };
    if section.stream == Stream::Pack {
        return;
    }
    let mut out = Vec::new();
    let done = streams.get(section.stream).read_to_end(&mut out);
    assert!(out.len() as u64 <= section.raw_len);
    if done.is_ok() {
        assert_eq!(out.len() as u64, section.raw_len);
    }
});
