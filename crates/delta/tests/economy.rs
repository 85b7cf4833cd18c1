//! What should cost little does: links, moved folders, contents that occur again, members of several bases.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;
use std::sync::atomic::AtomicBool;

use skerry_delta::apply::{Applier, FIXED_MEMORY};
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::codec::Codec;
use skerry_delta::make::{Budget, Input, KEPT, Patch, make};
use skerry_delta::source::LayerSource;
use skerry_delta::stream::{Coder, Section, Stream, StreamsReader};
use skerry_delta::{Silent, TarLayer};

fn layer(tar: &[u8]) -> Box<dyn LayerSource> {
    let tar = tar.to_vec();
    Box::new(TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap())
}

struct Memory;

impl Scratch for Memory {
    fn file(&self) -> std::io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }
}

/// The patch and its bytes, after it was applied and compared.
fn round_trip(old: &[Vec<u8>], new: &[Vec<u8>]) -> (Patch, usize) {
    round_trip_within(u64::MAX, old, new)
}

/// The same, where whoever applies admits so many bytes of memory.
fn round_trip_within(admitted: u64, old: &[Vec<u8>], new: &[Vec<u8>]) -> (Patch, usize) {
    let sources: Vec<_> = old.iter().chain(new).map(|tar| layer(tar)).collect();
    let sources: Vec<_> = sources.iter().map(|layer| &**layer).collect();
    let (old_layers, new_layers) = sources.split_at(old.len());
    let input = Input { config: b"{}", base_config: None, known: &[], new: new_layers, old: old_layers };
    let patch = make(&input, Budget { make: 256 << 20, apply: 4 << 20, admitted }, &Silent, &AtomicBool::new(false)).unwrap();
    let used: Vec<_> = patch.used.iter().map(|&i| layer(&old[i])).collect();
    let scratch = Memory;
    for scratch in [Some(&scratch as &dyn Scratch), None] {
        let streams = StreamsReader::open(&patch.written.sections, |i| Ok(Box::new(&patch.written.bytes[i][..]))).unwrap();
        let mut applier = Applier::new(streams, &used, 64 << 20).unwrap();
        if let Some(scratch) = scratch {
            applier = applier.with_scratch(scratch);
        }
        applier.config(None, &[]).unwrap();
        for tar in new {
            let mut made = Vec::new();
            let mut out = |bytes: &[u8]| {
                made.extend_from_slice(bytes);
                Ok(())
            };
            applier.layer(tar.len() as u64, &mut out).unwrap();
            assert!(made == *tar, "another tar came out");
        }
        applier.finish().unwrap();
    }
    let size = patch.written.bytes.iter().map(Vec::len).sum();
    (patch, size)
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

enum What {
    File(Vec<u8>),
    HardLink(String),
}

fn tar(members: &[(String, What)], mtime: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, what) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(mtime);
        header.set_mode(0o644);
        match what {
            What::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, &content[..]).unwrap();
            }
            What::HardLink(to) => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, to).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn files(folder: &str, seed: u64) -> Vec<(String, What)> {
    (0..200).map(|i| (format!("{folder}/part{i:03}.bin"), What::File(noise(500 + 7 * i, seed + i as u64)))).collect()
}

#[test]
fn hard_links_cost_a_few_bytes() {
    let old = tar(&files("usr/lib/tool", 1), 1);
    let mut members = files("usr/lib/tool", 1);
    let (_, without) = round_trip(std::slice::from_ref(&old), &[tar(&members, 2)]);
    for i in 0..100 {
        members.push((format!("usr/lib/zlinks/part{i:03}.bin"), What::HardLink(format!("usr/lib/tool/part{i:03}.bin"))));
    }
    let (_, with) = round_trip(&[old], &[tar(&members, 2)]);
    assert!(with - without < 400, "100 hard links cost {} bytes", with - without);
}

#[test]
fn a_moved_folder_costs_a_few_bytes() {
    let old = tar(&files("opt/application-1.0", 1), 1);
    let (patch, size) = round_trip(&[old], &[tar(&files("srv/elsewhere/application-2.0", 1), 2)]);
    assert!(size < 500, "200 moved files cost {size} bytes");
    assert_eq!(patch.layers[0].codecs.keys().collect::<Vec<_>>(), [&Codec::Copy]);
}

#[test]
fn members_come_from_any_of_several_bases() {
    let (one, other) = (files("opt/one", 1), files("opt/other", 1000));
    let new: Vec<_> = files("opt/one", 1).into_iter().chain(files("opt/other", 1000)).collect();
    let (one, other, new) = (tar(&one, 1), tar(&other, 1), tar(&new, 2));
    let (patch, size) = round_trip(&[one.clone(), other.clone()], std::slice::from_ref(&new));
    assert_eq!(patch.used, [0, 1]);
    assert!(size < 400, "{size}");
    let (_, alone) = round_trip(&[one], &[new]);
    assert!(alone > 200_000, "{alone}");
}

#[test]
fn a_content_that_occurs_again_far_behind_is_made_of_the_first() {
    let first = noise(600_000, 1);
    let mut similar = first.clone();
    similar.splice(1000..1000, *b"a few bytes more");
    similar[300_000] ^= 1;
    let between = |seed| What::File(noise(5_000_000, seed));
    let lower = tar(&[("a/first".to_owned(), What::File(first.clone())), ("b/between".to_owned(), between(2))], 1);
    let upper = tar(
        &[("c/similar".to_owned(), What::File(similar)), ("d/twin".to_owned(), What::File(first)), ("e/more".to_owned(), between(3))],
        1,
    );
    let (patch, size) = round_trip(&[], &[lower, upper]);
    assert!(size < 10_605_000, "{size}");
    assert_eq!(patch.features, [KEPT]);
    assert_eq!(patch.scratch, 600_000);
}

#[test]
fn a_changed_content_is_made_of_a_new_one_that_is_nearer() {
    // Both caches are of other bytes for the most part than the old ones were, and much the same as each other.
    let shared = noise(200_000, 1);
    let cache = |seed: u64, edit: u8| {
        let mut content = [&shared[..], &noise(800_000, seed)].concat();
        content[500_000] ^= edit;
        What::File(content)
    };
    let (a, b, c) = ("var/cache/a.bin".to_owned(), "var/cache/b.bin".to_owned(), "var/cache/c.bin".to_owned());
    let old = tar(&[(a.clone(), cache(2, 1)), (b.clone(), cache(3, 2)), (c.clone(), cache(4, 3))], 1);
    let new = tar(&[(a, cache(5, 1)), (b, cache(5, 2)), (c, cache(4, 4))], 2);
    let (patch, size) = round_trip(&[old], &[new]);
    assert!((800_000..801_500).contains(&size), "{size}");
    assert_eq!((patch.scratch, &patch.features[..1]), (1_000_000, &[KEPT][..]));
}

#[test]
fn an_old_content_of_another_name_is_found_by_its_pieces() {
    let content = noise(400_000, 9);
    let mut new = content.clone();
    new.splice(7000..9000, noise(50, 3));
    let old = tar(&[("lib/ancient.so".to_owned(), What::File(content))], 1);
    let (_, size) = round_trip(&[old], &[tar(&[("srv/quite_different".to_owned(), What::File(new))], 2)]);
    assert!(size < 500, "{size}");
}

/// A layer of three bare contents, as docs/formats/patch.md has it: one that is kept, its copy, and a bidiff of it.
#[test]
fn the_fixed_patch_with_a_kept_content_is_read() {
    let streams: [(u8, &[u8]); 9] = [
        (1, &[0, 0, 0, 0]),
        (2, &[2, 2, 2, 3]),
        (7, &[0, 6, 6, 7]),
        (12, &[0x00, 0x41, 0x08, 0x0a]),
        (13, &[0, 1]),
        (14, &[6]),
        (15, &[1]),
        (17, &[0, 0, 1, 0, 0, 0]),
        (18, b"kept!\n+"),
    ];
    let head: Vec<u8> = streams.iter().flat_map(|(number, bytes)| [*number, u8::try_from(bytes.len()).unwrap()]).chain([0]).collect();
    let good: Vec<u8> = head.into_iter().chain(streams.iter().flat_map(|(_, bytes)| bytes.iter().copied())).collect();
    let apply = |pack: &[u8]| -> std::io::Result<Vec<u8>> {
        let len = pack.len() as u64;
        let sections = [Section { stream: Stream::Pack, coder: Coder::Raw, raw_len: len, len }];
        let streams = StreamsReader::open(&sections, |_| Ok(Box::new(pack)))?;
        let mut applier = Applier::new(streams, &[], 1 << 20)?;
        assert!(applier.config(None, &[])?.is_empty());
        let mut made = Vec::new();
        applier.layer(19, &mut |bytes| {
            made.extend_from_slice(bytes);
            Ok(())
        })?;
        applier.finish()?;
        Ok(made)
    };
    assert_eq!(apply(&good).unwrap(), b"kept!\nkept!\nkeqt!\n+");
    let changed = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|bytes| bytes == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    // Nothing is kept; what is made from a kept content is kept itself; an archive of a kept content; a bit that is always 0.
    for codecs in [[0x00, 0x01, 0x08, 0x0a], [0x00, 0x41, 0x48, 0x0a], [0x00, 0x41, 0x0e, 0x0a], [0x00, 0xc1, 0x08, 0x0a]] {
        assert!(apply(&changed(&[0x00, 0x41, 0x08, 0x0a], &codecs)).is_err(), "{codecs:x?}");
    }
}

/// Bytes of memory that applying the patch needs.
fn needs(patch: &Patch) -> u64 {
    FIXED_MEMORY + StreamsReader::memory(&patch.written.sections) + patch.table
}

/// Of a base with more members than whoever applies can hold the table of, the layer that serves most is used and the other is not.
#[test]
fn layers_whose_table_is_too_long_are_left_out() {
    let to = format!("srv/{}/first", "links/".repeat(15));
    let link = |i| (format!("srv/{}{i:05}", "links/".repeat(15)), What::HardLink(to.clone()));
    let many: Vec<_> = (0..40_000).map(link).collect();
    let few = || [("opt/data".to_owned(), What::File(noise(4 << 20, 1)))];
    let (useful, long) = (tar(&few(), 1), tar(&many, 1));
    let new: Vec<_> = few().into_iter().chain(many).collect();
    let (old, new) = ([long, useful], [tar(&new, 2)]);
    let (patch, _) = round_trip(&old, &new);
    assert_eq!(patch.used, [0, 1]);
    let admitted = needs(&patch) - 1;
    let (patch, _) = round_trip_within(admitted, &old, &new);
    assert_eq!(patch.used, [1]);
    assert!(needs(&patch) <= admitted, "{patch:?}");
    // Where nothing helps it is what it is.
    assert_eq!(round_trip_within(0, &old, &new).0.used, [0usize; 0]);
}
