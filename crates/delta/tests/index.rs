//! Indexes come back as they were written, foreign bytes are refused, and predictions put bases in the right order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use skerry_delta::index::{IndexedLayer, LayerIndex, estimate, limit};
use skerry_delta::{Silent, TarLayer};
use skerry_wire::{DiffId, Digest};

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn index(tar: &[u8]) -> LayerIndex {
    let tar = tar.to_vec();
    let layer = TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap();
    LayerIndex::build(&layer, &Silent, &AtomicBool::new(false)).unwrap()
}

fn indexed(id: u8, files: &[(String, Vec<u8>)]) -> IndexedLayer {
    IndexedLayer { diff_id: DiffId(Digest::new([id; 32])), index: Arc::new(index(&tar(files))) }
}

fn written(index: &LayerIndex) -> Vec<u8> {
    let mut bytes = Vec::new();
    index.write(&mut bytes).unwrap();
    bytes
}

/// Bytes that have nothing in common with those of another seed (splitmix64).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z.to_le_bytes()[7]
    };
    (0..len).map(|_| next()).collect()
}

/// Twenty files, of which the first `changed` are edited and the next `other` are others.
fn files(version: &str, changed: usize, other: usize) -> Vec<(String, Vec<u8>)> {
    (0..20)
        .map(|i| {
            let mut content = noise(20_000, i as u64);
            if i < changed {
                content.splice(5_000..5_040, noise(90, 99));
            } else if i < changed + other {
                content = noise(20_000, 1_000 + i as u64);
            }
            (format!("lib/{}-{version}.so", (b'a' + u8::try_from(i).unwrap()) as char), content)
        })
        .collect()
}

#[test]
fn predictions_order_bases() {
    let target = [indexed(1, &files("1.0.0", 0, 0))];
    let same = estimate(&target, &[indexed(1, &[])]);
    let moved = estimate(&target, &[indexed(2, &files("0.9.1", 0, 0))]);
    let edited = estimate(&target, &[indexed(3, &files("0.9.1", 10, 0))]);
    let some = estimate(&target, &[indexed(4, &files("0.9.1", 0, 10))]);
    let both = estimate(&target, &[indexed(4, &files("0.9.1", 0, 10)), indexed(3, &files("0.9.1", 10, 0))]);
    let full = estimate(&target, &[]);
    assert!(same < 1_000, "a layer that is there costs next to nothing: {same}");
    assert!(same < moved && moved < edited && edited < some && some < full, "{same} {moved} {edited} {some} {full}");
    // Of two old files under one name the nearest in size is taken, as a patch takes it: here the wrong one, so more is not always less.
    assert!(both <= some, "{both} {some}");
    assert!(moved < 3_000 && edited < 100_000, "{moved} {edited}");
    assert!((180_000..220_000).contains(&some) && (380_000..420_000).contains(&full), "{some} {full}");
}

/// What making a patch believes instead of reading contents: by number of the file, whatever else is in the layer.
#[test]
fn hashes_are_those_of_the_files_in_order() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |kind, path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content).unwrap();
    };
    put(tar::EntryType::Directory, "folder", b"");
    put(tar::EntryType::Regular, "folder/one", b"1");
    put(tar::EntryType::Regular, "empty", b"");
    put(tar::EntryType::Regular, &"long/".repeat(60), &noise(100_000, 1));
    put(tar::EntryType::Regular, "again", b"1");
    let mut tar = builder.into_inner().unwrap();
    // A header that readers take and the model does not.
    let (start, checksum) = (tar.len() - 1024, 148..156);
    let one = tar[512..1024].to_vec();
    tar.splice(start..start, [&one[..], b"2", &[7; 511]].concat());
    tar[start..start + 512][checksum].copy_from_slice(b"0  7777\0");
    let layer = TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap();
    let index = LayerIndex::build(&layer, &Silent, &AtomicBool::new(false)).unwrap();
    let mut expected = Vec::new();
    for segment in skerry_delta::source::LayerSource::segments(&layer).unwrap() {
        if matches!(segment.unwrap(), skerry_delta::source::Segment::File { .. }) {
            let mut content = Vec::new();
            let number = u32::try_from(expected.len()).unwrap();
            skerry_delta::source::LayerSource::open(&layer, number).unwrap().read_to_end(&mut content).unwrap();
            let digest = ring::digest::digest(&ring::digest::SHA256, &content);
            expected.push(u64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap()));
        }
    }
    assert!(expected.len() >= 3, "{}", expected.len());
    assert_eq!(index.hashes(), expected);
    let back = LayerIndex::read(&written(&index)[..], limit(index.size())).unwrap();
    assert_eq!(back.hashes(), expected);
    // SHA-256 of "1" begins so.
    assert_eq!(expected[0], 0x6b86_b273_ff34_fce1);
}

#[test]
fn what_is_no_index_is_refused() {
    let good = written(&index(&tar(&files("1.0.0", 3, 3))));
    let read = |bytes: &[u8]| LayerIndex::read(bytes, 1 << 20).map_err(|error| error.to_string());
    assert!(read(b"PK\x03\x04").unwrap_err().contains("another kind of file"));
    assert!(read(b"SKI\x02....").unwrap_err().contains("version 2"));
    assert!(read(b"SK").unwrap_err().contains("too short"));
    assert!(LayerIndex::read(&good[..], 100).unwrap_err().to_string().contains("more than 100 bytes"));
    for end in (0..good.len()).step_by(7) {
        assert!(read(&good[..end]).is_err(), "cut at {end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn comes_back(files in proptest::collection::vec(("[a-z0-9./-]{1,150}", proptest::collection::vec(any::<u8>(), 0..4000)), 0..12)) {
        let files: Vec<_> = files.into_iter().map(|(path, content)| (format!("x{}", path.replace("..", ".")), content)).collect();
        let tar = tar(&files);
        let index = index(&tar);
        prop_assert_eq!(index.size(), tar.len() as u64);
        prop_assert_eq!(index.files(), files.iter().filter(|(_, content)| !content.is_empty()).count());
        let bytes = written(&index);
        prop_assert_eq!(&LayerIndex::read(&bytes[..], limit(index.size())).unwrap(), &index);
        prop_assert_eq!(written(&index), bytes);
    }

    /// Damage below the checksum: columns that lie about each other.
    #[test]
    fn lying_columns(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let good = written(&index(&tar(&files("1.0.0", 3, 3))));
        let mut plain = zstd::decode_all(&good[4..]).unwrap();
        for (at, byte) in damage {
            let at = at.index(plain.len());
            plain[at] = byte;
        }
        let mut bytes = good[..4].to_vec();
        bytes.extend(zstd::encode_all(&plain[..], 1).unwrap());
        // An error or some index, but no panic; and what is read can be compared.
        if let Ok(index) = LayerIndex::read(&bytes[..], 1 << 20) {
            let layer = IndexedLayer { diff_id: DiffId(Digest::new([1; 32])), index: Arc::new(index) };
            estimate(&[indexed(2, &files("1.0.0", 0, 0))], std::slice::from_ref(&layer));
            estimate(&[layer], &[indexed(2, &files("1.0.0", 0, 0))]);
        }
    }
}
