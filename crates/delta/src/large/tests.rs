use std::io::{self, Cursor, Read};

use proptest::prelude::*;

use super::*;
use crate::codec::bidiff::Buffers;
use crate::stream::StreamsReader;

const TINY: Sizes = Sizes { memory: 4 << 10, block: 8, anchor: 40, margin: 6, reach: 32, piece: 100, gather: 200 };

/// The bundle's bytes, after applying gave `new` again.
fn round_trip(old: &[u8], new: &[u8], sizes: Sizes) -> (u64, Runs) {
    let go = AtomicBool::new(false);
    let (mut old_file, mut new_file) = (Cursor::new(old), Cursor::new(new));
    let runs = compare_by((&mut old_file, old.len() as u64), (&mut new_file, new.len() as u64), sizes, &go).unwrap();
    let mut writer = StreamsWriter::default();
    runs.write(&mut writer, Kind::Binary, &mut old_file, (&mut new_file, new.len() as u64)).unwrap();
    let written = writer.finish(1 << 20).unwrap();
    let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..]))).unwrap();
    let mut made = Vec::new();
    let mut out = |bytes: &[u8]| {
        made.extend_from_slice(bytes);
        Ok(())
    };
    bidiff::apply(&mut reader, Kind::Binary, &mut Cursor::new(old), new.len() as u64, &mut Buffers::new(97), &mut out).unwrap();
    assert!(made == new);
    assert_eq!(reader.unread(), None);
    (written.sections.iter().map(|section| section.len).sum(), runs)
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn moved_parts_and_small_edits_are_found_in_little_memory() {
    let old = noise(3_000_000, 1);
    // Its thirds in another order, a byte in every 1500 changed, 40,000 bytes fresh.
    let mut new = [&old[2_000_000..], &noise(40_000, 2)[..], &old[..1_000_000], &old[1_000_000..2_000_000]].concat();
    for byte in new.iter_mut().step_by(1500) {
        *byte ^= 0x55;
    }
    for memory in [64 << 20, 2 << 20] {
        let (size, runs) = round_trip(&old, &new, Sizes::within(memory));
        assert!(size < 47_000, "{size} with {memory}");
        assert!(runs.covered() > 2_990_000, "{} with {memory}", runs.covered());
    }
}

#[test]
fn unlike_contents_have_no_runs() {
    let (old, new) = (noise(200_000, 1), noise(200_000, 2));
    let (_, runs) = round_trip(&old, &new, Sizes::within(64 << 20));
    assert!(runs.covered() < 2000, "{}", runs.covered());
    round_trip(&[], &new, TINY);
    round_trip(&old, &[], TINY);
}

#[test]
fn many_equal_blocks_end() {
    round_trip(&[0; 300_000], &[0; 400_000], Sizes::within(1 << 20));
    let teeth: Vec<u8> = (0..100_000u32).map(|i| u8::from(i % 33 == 0)).collect();
    round_trip(&teeth, &teeth[5..], TINY);
}

/// A content of which only some pages are ever read.
struct Far(u64);

impl Read for Far {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buf {
            let mixed = (self.0 / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = mixed.to_le_bytes()[usize::try_from(self.0 % 8).unwrap()] ^ mixed.to_be_bytes()[2];
            self.0 += 1;
        }
        Ok(buf.len())
    }
}

impl io::Seek for Far {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if let SeekFrom::Start(at) = to {
            self.0 = at;
        }
        Ok(self.0)
    }
}

#[test]
fn a_place_beyond_four_gigabytes_is_found() {
    const FAR: u64 = (4 << 30) + 12_345 * 64;
    let mut wanted = vec![0; 1 << 20];
    let mut old = Far(FAR);
    old.read_exact(&mut wanted).unwrap();
    // Only what is near the end of the old content is read: blocks are long enough for the hashes of all to fit.
    let seed = Seed { new: 0, old: FAR, len: wanted.len() as u64 };
    let sizes = Sizes::within(16 << 20);
    let between =
        Between { anchors: vec![seed], hints: Vec::new(), free: free(&[seed], FAR + (8 << 20)), old_size: FAR + (8 << 20), sizes };
    let mut runs = vec![inner(&seed, sizes.margin).unwrap()];
    let mut pages = Pages::new(&mut old, FAR + (8 << 20), sizes.memory / 8);
    for batch in between.batches(wanted.len() as u64) {
        compare_batch(&batch, &mut pages, &mut Cursor::new(&wanted), &mut runs, &AtomicBool::new(false)).unwrap();
    }
    assert_eq!(runs.iter().filter(|run| run.old - FAR == run.new).map(|run| run.len).sum::<u64>(), wanted.len() as u64);
}

proptest! {
    #[test]
    fn any_pair(old in proptest::collection::vec(0u8..4, 0..900), new in proptest::collection::vec(0u8..4, 0..900)) {
        round_trip(&old, &new, TINY);
    }

    #[test]
    fn edited(old in proptest::collection::vec(any::<u8>(), 100..3000), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..90), 0..12)) {
        let mut new = old.clone();
        for (at, byte, len) in edits {
            let at = at.index(new.len());
            match len % 3 {
                0 => new[at] = byte,
                1 => { new.splice(at..at, std::iter::repeat_n(byte, len)); }
                _ => { let moved: Vec<u8> = new.drain(at..(at + len).min(new.len())).collect(); new.splice(0..0, moved); }
            }
        }
        round_trip(&old, &new, TINY);
    }
}
