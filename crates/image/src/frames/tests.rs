use std::io::{Cursor, Read, Seek, SeekFrom, Write};

use proptest::prelude::*;
use skerry_wire::DiffId;

use super::*;
use crate::sha256;

/// Content that compresses somewhat and is different in every place.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0] & 0x3f).collect()
}

fn framed(content: &[u8]) -> (Vec<u8>, FrameSummary) {
    let mut writer = FrameWriter::new(Vec::new(), DEFAULT_LEVEL).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn verify(bytes: &[u8], expected: DiffId, max: u64, step: usize) -> Result<FrameSummary, FrameError> {
    let mut verifier = FrameVerifier::new(Vec::new(), expected, max)?;
    for chunk in bytes.chunks(step) {
        verifier.push(chunk)?;
    }
    let (out, summary) = verifier.finish()?;
    assert_eq!(out, bytes);
    Ok(summary)
}

const SIZES: [usize; 6] = [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME + 77];

#[test]
fn whole_and_from_the_middle() {
    for size in SIZES {
        let content = content(size);
        let (bytes, summary) = framed(&content);
        assert_eq!((summary.size, summary.stored), (size as u64, bytes.len() as u64));
        assert_eq!(summary.diff_id, DiffId(sha256(&content)));
        let mut reader = FrameReader::open(Cursor::new(&bytes)).unwrap();
        assert_eq!(reader.size(), size as u64);
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        assert!(back == content, "{size}");
        for at in [0, 1, size / 2, FRAME.saturating_sub(3).min(size), size, size + 10] {
            reader.seek(SeekFrom::Start(at as u64)).unwrap();
            let mut some = Vec::new();
            reader.by_ref().take(10).read_to_end(&mut some).unwrap();
            assert_eq!(some, content.get(at..(at + 10).min(size)).unwrap_or_default(), "{size} at {at}");
        }
        assert!(reader.seek(SeekFrom::Current(-1_000_000_000)).is_err());
    }
}

#[test]
fn plain_zstd_reads_it() {
    let content = content(2 * FRAME + 5);
    assert!(zstd::decode_all(framed(&content).0.as_slice()).unwrap() == content);
}

#[test]
fn verified() {
    for size in SIZES {
        let (bytes, summary) = framed(&content(size));
        for step in [1usize, 7, 4096, usize::MAX].into_iter().filter(|s| *s > 4 || bytes.len() < 10_000) {
            assert_eq!(verify(&bytes, summary.diff_id, size as u64, step.min(bytes.len())).unwrap(), summary);
        }
    }
}

#[test]
fn refused() {
    let (bytes, summary) = framed(&content(FRAME + 1000));
    let size = summary.size;
    assert!(matches!(verify(&bytes, DiffId(sha256(b"")), size, 4096), Err(FrameError::DiffId { .. })));
    assert!(matches!(verify(&bytes, summary.diff_id, size - 1, 4096), Err(FrameError::TooLarge { .. })));
    assert!(matches!(verify(&bytes[1..], summary.diff_id, size, 4096), Err(FrameError::Header)));
    assert!(matches!(verify(&[&bytes[..], b"x"].concat(), summary.diff_id, size, 4096), Err(FrameError::Damaged { .. })));
    for cut in [0, 15, 16, 18, 20, 1000, bytes.len() - 10, bytes.len() - 1] {
        assert!(matches!(verify(&bytes[..cut], summary.diff_id, size, 4096), Err(FrameError::Truncated { .. })), "{cut}");
        assert!(FrameReader::open(Cursor::new(&bytes[..cut])).is_err(), "{cut}");
    }
}

#[test]
fn every_frame_has_a_checksum() {
    let content = content(1000);
    let frame = zstd::bulk::compress(&content, 3).unwrap();
    let index = table(&[u32::try_from(frame.len()).unwrap()], 1000);
    let bytes = [&HEADER[..], &frame, &index].concat();
    for step in [1, 5, 4096] {
        assert!(matches!(verify(&bytes, DiffId(sha256(&content)), 1000, step), Err(FrameError::Damaged { at: 20, .. })), "{step}");
    }
}

#[test]
fn bombs_are_refused() {
    // One frame that says nothing of its size and goes on for 64 MiB of zeros; and one with a window of 128 MiB.
    let endless = zstd::encode_all(std::io::repeat(0).take(64 << 20), 3).unwrap();
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(b"x").unwrap();
    let wide = encoder.finish().unwrap();
    for frame in [endless, wide] {
        let bytes = [&HEADER[..], &frame].concat();
        assert!(matches!(verify(&bytes, DiffId(sha256(b"")), 1 << 30, 4096), Err(FrameError::Damaged { .. })));
    }
    // Frames that are not full: an index of one entry per byte.
    let tiny = zstd::bulk::compress(b"x", 3).unwrap();
    let bytes = [&HEADER[..], &tiny, &tiny].concat();
    assert!(matches!(verify(&bytes, DiffId(sha256(b"xx")), 2, 4096), Err(FrameError::Damaged { .. })));
}

proptest! {
    #[test]
    fn garbled(at in 0usize..60_000, bit in 0u8..8, step in 1usize..5000) {
        let content = content(40_000);
        let (mut bytes, summary) = framed(&content);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // zstd has bits that mean nothing: where one of them was hit, the content is whole.
        if let Ok(passed) = verify(&bytes, summary.diff_id, summary.size, step) {
            prop_assert_eq!(passed, summary);
        }
        if let Ok(mut reader) = FrameReader::open(Cursor::new(&bytes)) {
            prop_assert!(reader.size() <= FRAME as u64);
            let mut back = Vec::new();
            if reader.read_to_end(&mut back).is_ok() {
                prop_assert_eq!(back, content);
            }
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = FrameReader::open(Cursor::new(&bytes));
        let _ = FrameReader::open(Cursor::new([&HEADER[..], &bytes, &FOOTER_MAGIC.to_le_bytes()].concat()));
        let bytes = [&HEADER[..], &bytes].concat();
        prop_assert!(verify(&bytes, DiffId(sha256(b"")), 1 << 20, 64).is_err());
    }
}
