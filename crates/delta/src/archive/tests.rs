//! Archives made and edited at random come back bit for bit; damaged patches are errors.
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::io::{self, Cursor, Write};

use proptest::prelude::*;

use super::apply;
use super::bounded::BoundedScratch;
use super::deflate::{GNU, deflated, level};
use super::make::{Bounds, Planner};
use super::old::{Archives, Origin};
use super::spill::{Room, Scratch, ScratchFile};
use super::write::ArchiveWriter;
use super::zip::{DEFLATED, Entry, Meta, STORED, Sums, end};
use super::zlib;
use crate::codec::bidiff::Buffers;
use crate::progress::Watch;
use crate::source::{LayerSource, ReadSeek, Segment};
use crate::stream::{Section, StreamsReader, StreamsWriter, Written};

/// Old members, each one file of one layer.
struct Files(Vec<Vec<u8>>);

impl LayerSource for Files {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        let bytes = self.0.get(file as usize).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(&bytes[..])))
    }
}

struct Memory;

impl Scratch for Memory {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }
}

#[derive(Debug, Clone)]
enum Node {
    File { name: u8, content: Vec<u8>, level: u8, follows: bool, time: u32 },
    Archive { name: u8, nodes: Vec<Node>, level: u8, time: u32 },
}

fn node() -> impl Strategy<Value = Node> {
    let content = prop_oneof![proptest::collection::vec(0u8..5, 0..600), proptest::collection::vec(any::<u8>(), 0..300)];
    let file = (0u8..12, content, 0u8..=10, any::<bool>(), 0u32..4).prop_map(|(name, content, level, follows, time)| Node::File {
        name,
        content,
        level,
        follows,
        time,
    });
    file.prop_recursive(4, 24, 6, |inner| {
        (0u8..4, proptest::collection::vec(inner, 0..6), 0u8..=9, 0u32..4).prop_map(|(name, nodes, level, time)| Node::Archive {
            name,
            nodes,
            level,
            time,
        })
    })
}

/// The archive with these entries. Level 0 stores; level 10 gives a stream that no zlib makes.
fn archive(nodes: &[Node], comment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for node in nodes {
        let (name, content, level, follows, time) = match node {
            Node::File { name, content, level, follows, time } => (format!("dir/{name}.class"), content.clone(), *level, *follows, *time),
            Node::Archive { name, nodes, level, time } => (format!("lib/{name}.jar"), archive(nodes, b""), *level, false, *time),
        };
        let coded = match level {
            0 => content.clone(),
            10 => {
                // Two streams' worth of blocks: an empty stored block in front.
                let mut coded = vec![0, 0, 0, 0xff, 0xff];
                let mut encoder = zlib::deflate(Vec::new(), 6);
                encoder.write_all(&content).unwrap();
                coded.extend(encoder.finish().unwrap());
                coded
            }
            level => {
                let mut encoder = zlib::deflate(Vec::new(), level);
                encoder.write_all(&content).unwrap();
                encoder.finish().unwrap()
            }
        };
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        let method = if level == 0 { STORED } else { DEFLATED };
        let entry = Entry {
            name: name.into_bytes(),
            time,
            meta: Meta {
                words: [20, if follows { 8 } else { 0 }, method, 20, 20, 0],
                attributes: 0,
                texts: [vec![], vec![1; usize::from(level)], vec![]],
            },
            sums: Sums { crc: crc.sum(), coded: coded.len() as u32, plain: content.len() as u32 },
        };
        directory.extend(entry.central(out.len() as u32).unwrap());
        out.extend(entry.local().unwrap());
        out.extend(coded);
        out.extend(entry.descriptor());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(end(nodes.len() as u16, directory.len() as u32, start, comment).unwrap());
    out
}

fn bounds() -> Bounds<'static> {
    Bounds { memory: 640 << 20, watch: Watch::default() }
}

/// The patch that makes these from the old ones, the n-th from the n-th, and bytes of scratch and of memory that it says it needs; `None`
/// when one of them is not worth a plan.
fn patch(old: &Files, new: &[Vec<u8>]) -> Option<(Written, u64, u64)> {
    let member = |number: usize| Origin::Member { number: number as u32, layer: 0, file: number as u32 };
    let planner = Planner::new(Archives::new(vec![old], Room::Memory), (0..old.0.len()).map(member).collect(), bounds());
    let mut writer = ArchiveWriter::new(planner);
    let mut streams = StreamsWriter::default();
    for (number, new) in new.iter().enumerate() {
        let ready = writer.plan(new, member(number), &mut 0).unwrap()?;
        writer.write(&mut streams, ready).unwrap();
    }
    Some((streams.finish(4 << 20).unwrap(), writer.scratch(), writer.memory()))
}

/// Makes all archives out of sections and their bytes, within so many bytes of memory.
fn apply_all(
    sections: &[Section],
    bytes: &[Vec<u8>],
    old: &Files,
    sizes: &[usize],
    room: Room<'_>,
    spare: u64,
) -> io::Result<Vec<Vec<u8>>> {
    let mut streams = StreamsReader::open(sections, |i| Ok(Box::new(Cursor::new(bytes[i].clone()))))?;
    let mut state = apply::State::new(vec![old], room);
    let mut buffers = Buffers::new(1000);
    let mut all = Vec::new();
    for (number, size) in sizes.iter().enumerate() {
        let mut made = Vec::new();
        let mut out = |bytes: &[u8]| {
            if made.len() + bytes.len() > *size {
                return Err(io::ErrorKind::InvalidData.into());
            }
            made.extend_from_slice(bytes);
            Ok(())
        };
        let file = |number: u32| Ok((0, number));
        let mut maker =
            apply::Maker { streams: &mut streams, buffers: &mut buffers, state: &mut state, file: &file, limit: *size as u64, spare };
        maker.member(number as u32, &mut out)?;
        all.push(made);
    }
    assert!(streams.unread().is_none() || matches!(room, Room::Little), "bytes are left");
    Ok(all)
}

fn round_trip(old: Vec<Vec<u8>>, new: &[Vec<u8>]) -> Option<usize> {
    let old = Files(old);
    let (written, scratch, memory) = patch(&old, new)?;
    let sizes: Vec<_> = new.iter().map(Vec::len).collect();
    for room in [Room::Memory, Room::Scratch(&BoundedScratch::new(&Memory, scratch))] {
        let made = apply_all(&written.sections, &written.bytes, &old, &sizes, room, memory).unwrap();
        assert!(made == new, "another archive came out");
    }
    Some(written.bytes.iter().map(Vec::len).sum())
}

fn noise(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|i| ((i / 3 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn classes(time: u32, changed: bool) -> Vec<Node> {
    let file = |name: u8| {
        let mut content = noise(u64::from(name) << 32, 5000);
        if changed && name == 3 {
            content[777] ^= 1;
        }
        Node::File { name, content, level: 6, follows: name.is_multiple_of(2), time }
    };
    (0..12).map(file).collect()
}

#[test]
fn a_rebuilt_archive_costs_little() {
    let outer = |time, changed| archive(&[Node::Archive { name: 1, nodes: classes(time, changed), level: 9, time }], b"made");
    let cost = round_trip(vec![outer(1, false)], &[outer(2, false)]).unwrap();
    assert!(cost < 100, "{cost} bytes for times");
    let cost = round_trip(vec![outer(1, false)], &[outer(2, true)]).unwrap();
    assert!(cost < 160, "{cost} bytes for a changed byte");
}

#[test]
fn an_entry_that_moved_to_another_archive_costs_little() {
    let one = |nodes: &[Node]| archive(&[Node::Archive { name: 1, nodes: nodes.to_vec(), level: 6, time: 0 }], b"");
    let (first, second) = (classes(1, false), vec![Node::File { name: 50, content: noise(9, 300), level: 6, follows: false, time: 1 }]);
    let old = vec![one(&second), one(&first)];
    let moved = one(&[&second[..], &first[4..5]].concat());
    let cost = round_trip(old, &[moved]).unwrap();
    assert!(cost < 140, "{cost} bytes for what is in another archive");
}

/// What is kept of an archive while it is made is its directory too, which may be longer than every entry.
#[test]
fn an_archive_of_many_small_entries_takes_the_scratch_that_it_says() {
    let many = |changed: bool| -> Vec<Node> {
        let content = |i: u32| if changed && i == 7 { b"another".to_vec() } else { i.to_le_bytes().to_vec() };
        (0..3000).map(|i| Node::File { name: (i % 250) as u8, content: content(i), level: 9, follows: false, time: 1 }).collect()
    };
    let cost = round_trip(vec![archive(&many(false), b"")], &[archive(&many(true), b"")]).unwrap();
    assert!(cost < 200, "{cost} bytes for a small entry");
    let nested = |changed| archive(&[Node::Archive { name: 1, nodes: many(changed), level: 6, time: 1 }], b"");
    round_trip(vec![nested(false)], &[nested(true)]).unwrap();
}

/// An old archive in another is opened for an entry that has moved out of it, though nothing is made from the archive itself.
#[test]
fn an_entry_of_a_long_archive_in_another_takes_the_scratch_that_it_says() {
    let one = |nodes: &[Node]| archive(&[Node::Archive { name: 1, nodes: nodes.to_vec(), level: 6, time: 0 }], b"");
    let file = |name: u8| Node::File { name, content: noise(u64::from(name) << 40, 9000), level: 0, follows: false, time: 1 };
    let (long, short): (Vec<_>, Vec<_>) = ((0..40).map(file).collect(), vec![file(50)]);
    let mut edited = file(3);
    if let Node::File { content, level, .. } = &mut edited {
        content[70] ^= 1;
        *level = 6;
    }
    for moved in [file(3), edited] {
        round_trip(vec![one(&short), one(&long)], &[one(&[file(50), moved])]).unwrap();
    }
}

/// Its headers promise the very entry that is wanted, and the file ends before it does.
#[test]
fn an_old_archive_that_ends_within_an_entry_is_no_failure() {
    let content = noise(5, 5000);
    let new = archive(&[Node::File { name: 1, content, level: 0, follows: false, time: 1 }], b"");
    let Some(found) = super::form::Form::of(&new).and_then(|form| form.model(&new)) else { panic!("it has a model") };
    let entry = &found.entries[0].0;
    let directory = entry.central(0).unwrap();
    let local = entry.local().unwrap();
    let tail = end(1, directory.len() as u32, local.len() as u32, b"").unwrap();
    let old = Files(vec![[local, directory, tail].concat()]);
    assert!(old.0[0].len() < 5000);
    if let Some((written, _, memory)) = patch(&old, std::slice::from_ref(&new)) {
        let made = apply_all(&written.sections, &written.bytes, &old, &[new.len()], Room::Memory, memory).unwrap();
        assert!(made[0] == new);
    }
}

#[test]
fn what_has_no_model_has_no_plan() {
    let good = archive(&classes(1, false), b"");
    for bad in [b"PK\x03\x04 and no more".to_vec(), good[..good.len() - 1].to_vec(), good[1..].to_vec(), Vec::new()] {
        assert!(patch(&Files(vec![good.clone()]), std::slice::from_ref(&bad)).is_none());
        assert!(patch(&Files(vec![bad]), std::slice::from_ref(&good)).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_archives(
        old in proptest::collection::vec(proptest::collection::vec(node(), 0..8), 1..3),
        keep in proptest::collection::vec(any::<bool>(), 24),
        extra in proptest::collection::vec(node(), 0..4),
        comment in proptest::collection::vec(any::<u8>(), 0..5),
    ) {
        let archives: Vec<_> = old.iter().map(|nodes| archive(nodes, b"")).collect();
        let mut keep = keep.into_iter().cycle();
        let all: Vec<_> = old.iter().flatten().cloned().collect();
        let new: Vec<_> = old.iter().map(|nodes| {
            let kept: Vec<_> = nodes.iter().chain(&all).filter(|_| keep.next() == Some(true)).cloned().chain(extra.clone()).collect();
            archive(&kept, &comment)
        }).collect();
        round_trip(archives, &new);
    }

    #[test]
    fn damaged_patches_end(section in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let outer = |time, changed| archive(&[Node::Archive { name: 1, nodes: classes(time, changed), level: 9, time }], b"");
        let old = Files(vec![outer(1, false)]);
        let new = outer(2, true);
        let (mut written, ..) = patch(&old, std::slice::from_ref(&new)).unwrap();
        let bytes = &mut written.bytes[section.index(written.sections.len())];
        let at = at.index(bytes.len());
        bytes[at] = value;
        // An error or other bytes, never a panic and never more than the size.
        let _ = apply_all(&written.sections, &written.bytes, &old, &[new.len()], Room::Little, u64::MAX);
    }
}

#[test]
fn an_entry_may_be_longer_than_the_archive_around_it() {
    // Stored in an archive that is deflated: it is as long in one as it is short in the other.
    let outer = |line: &str| {
        let content: Vec<u8> = (0..20_000).flat_map(|i| format!("{line} {}\n", i % 7).into_bytes()).collect();
        let file = Node::File { name: 1, content, level: 0, follows: false, time: 1 };
        archive(&[Node::Archive { name: 1, nodes: vec![file], level: 9, time: 1 }], b"")
    };
    let (old, new) = (outer("an old line"), outer("another new line"));
    assert!(new.len() < 20_000);
    assert!(round_trip(vec![old], &[new]).is_some());
}

#[test]
fn a_source_is_in_an_archive_that_is_known() {
    use crate::stream::Stream;
    let old = Files(vec![archive(&classes(1, false), b"")]);
    let mut streams = StreamsWriter::default();
    // A zip of one entry without base, name or time.
    for number in [0, 1, 0, 0, 0, 0] {
        streams.number(Stream::EntryNumber, number).unwrap();
    }
    streams.put(Stream::Entries, &[0]).unwrap();
    streams.number(Stream::EntryTime, 0).unwrap();
    streams.put(Stream::EntryText, &[0; 19]).unwrap();
    // Its content is that of a named source.
    streams.put(Stream::EntryCodec, &[1 | 8]).unwrap();
    for number in [0, 1 << 27, 0] {
        streams.number(Stream::EntrySource, number).unwrap();
    }
    let written = streams.finish(4 << 20).unwrap();
    let error = apply_all(&written.sections, &written.bytes, &old, &[1000], Room::Memory, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("a source in an archive that was not mentioned"), "{error}");
}

#[test]
fn random_streams_end() {
    // Every stream of entries holds the same noise.
    use crate::stream::Stream;
    let old = Files(vec![archive(&classes(1, false), b"")]);
    for seed in 0..100 {
        let mut writer = StreamsWriter::default();
        for stream in [Stream::Entries, Stream::EntrySource, Stream::EntryNumber, Stream::EntryText, Stream::EntryCodec, Stream::EntryTime]
        {
            let bytes: Vec<u8> = noise(seed + 1000 * stream as u64, 200).iter().map(|b| b % 24).collect();
            writer.put(stream, &bytes).unwrap();
        }
        let written = writer.finish(4 << 20).unwrap();
        let _ = apply_all(&written.sections, &written.bytes, &old, &[100_000], Room::Little, u64::MAX);
    }
}

/// A gzip file of this content; `odd` adds every part that a header can have.
fn gzip(content: &[u8], level: u8, time: u32, odd: bool) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, if odd { 2 | 4 | 8 | 16 } else { 0 }];
    out.extend(time.to_le_bytes());
    out.extend([2, 3]);
    if odd {
        out.extend(*b"\x03\0abcname\0comment\0\x12\x34");
    }
    out.extend(deflated(content, level).unwrap());
    let mut crc = flate2::Crc::new();
    crc.update(content);
    out.extend(crc.sum().to_le_bytes());
    out.extend((content.len() as u32).to_le_bytes());
    out
}

/// A grey picture of 100 columns with so many lines, in chunks of this length (0: one).
fn png(lines: u32, seed: u64, level: u32, chunk: usize, text: &str) -> Vec<u8> {
    let chunk_of = |out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(kind);
        out.extend(data);
        out.extend(crc.sum().to_be_bytes());
    };
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [100u32.to_be_bytes().to_vec(), lines.to_be_bytes().to_vec(), vec![8, 0, 0, 0, 0]].concat();
    chunk_of(&mut out, b"IHDR", &header);
    chunk_of(&mut out, b"tEXt", text.as_bytes());
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(&noise(seed, u64::from(lines) * 101)).unwrap();
    let data = encoder.finish().unwrap();
    for piece in data.chunks(if chunk == 0 { data.len() } else { chunk }) {
        chunk_of(&mut out, b"IDAT", piece);
    }
    chunk_of(&mut out, b"IEND", b"");
    out
}

#[test]
fn gzip_files_and_pictures_as_their_contents() {
    let text = |edit: &str| {
        (0..400).map(|i| format!("{} line {i} of {}\n", if i == 200 { edit } else { "a" }, noise(i, 3)[0])).collect::<String>()
    };
    for odd in [false, true] {
        let (old, new) = (gzip(text("a").as_bytes(), 9, 1, odd), gzip(text("another").as_bytes(), 6, 2, odd));
        let cost = round_trip(vec![old], std::slice::from_ref(&new)).unwrap();
        assert!(cost < 120, "{cost} bytes of {}", new.len());
    }
    for chunk in [0, 1, 5, 300, 8192] {
        let new = png(41, 1, 9, chunk, "new");
        let cost = round_trip(vec![png(40, 1, 6, 8192, "old")], std::slice::from_ref(&new)).unwrap();
        assert!(cost < 500, "{cost} bytes of {} in chunks of {chunk}", new.len());
    }
    // In a jar, and from one kind to another.
    let file = |content: Vec<u8>| Node::File { name: 1, content, level: 0, follows: false, time: 1 };
    let jar = |lines| archive(&[file(png(lines, 1, 9, 300, ""))], b"");
    let cost = round_trip(vec![jar(40)], &[jar(41)]).unwrap();
    assert!(cost < 500, "{cost} bytes for a picture in a jar");
    round_trip(vec![jar(40)], &[png(40, 1, 6, 0, "")]);
    round_trip(vec![png(40, 1, 6, 0, "")], &[jar(40), gzip(text("a").as_bytes(), 9, 1, true)][..1]);
}

#[test]
fn a_long_text_of_gnu_gzip_is_made_again() {
    let text = |edit: &str| {
        let word = |i: u64| String::from_utf8(noise(i % 4000, 5).into_iter().map(|byte| b'a' + byte % 16).collect()).unwrap();
        let line = |i: u64| format!("{} {} {}\n", word(i * i), word(i / 3), if i == 9000 { edit } else { "a" });
        (0..20_000).map(line).collect::<String>()
    };
    for number in [GNU + 9, GNU + 6, GNU + 1] {
        let (old, new) = (gzip(text("a").as_bytes(), 6, 1, false), gzip(text("another").as_bytes(), number, 2, false));
        assert_eq!(level(text("another").as_bytes(), &new[10..new.len() - 8], 6), Some(number));
        let cost = round_trip(vec![old.clone()], std::slice::from_ref(&new)).unwrap();
        assert!(cost < 120, "{cost} bytes of {}", new.len());
        // Whoever applies is told that it needs this deflate.
        let files = Files(vec![old]);
        let member = Origin::Member { number: 0, layer: 0, file: 0 };
        let mut writer = ArchiveWriter::new(Planner::new(Archives::new(vec![&files], Room::Memory), vec![member], bounds()));
        let ready = writer.plan(&new, member, &mut 0).unwrap().unwrap();
        assert!(!writer.gnu());
        writer.write(&mut StreamsWriter::default(), ready).unwrap();
        assert!(writer.gnu());
    }
}

#[test]
fn what_only_looks_like_gzip_or_a_picture_has_no_plan() {
    let (good, picture) = (gzip(&noise(1, 3000), 9, 1, false), png(40, 1, 6, 300, ""));
    let twice = [&good[..], &good].concat();
    let mut of_other_lengths = png(40, 1, 6, 300, "");
    let more = of_other_lengths.len() - 12;
    of_other_lengths.splice(more..more, *b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    for (old, bad) in [(&good, twice), (&good, good[..12].to_vec()), (&picture, of_other_lengths), (&picture, picture[..60].to_vec())] {
        assert!(patch(&Files(vec![old.clone()]), std::slice::from_ref(&bad)).is_none());
        // As an old one it gives an error or nothing of use, never a wrong archive.
        round_trip(vec![bad], std::slice::from_ref(old));
    }
}

/// Fixed streams, as `docs/formats/codec-archive.md` has them.
#[test]
fn a_vector_of_each_kind() {
    use crate::stream::Stream;
    let make = |old: Vec<u8>, new: &[u8], streams: &[(Stream, &[u8])]| {
        let mut writer = StreamsWriter::default();
        for (stream, bytes) in streams {
            writer.put(*stream, bytes).unwrap();
        }
        let written = writer.finish(4 << 20).unwrap();
        let made = apply_all(&written.sections, &written.bytes, &Files(vec![old]), &[new.len()], Room::Scratch(&Memory), u64::MAX).unwrap();
        assert!(made[0] == new);
    };
    // Another time; six bytes more, new ones, at level 6.
    make(
        gzip(b"skerry", 9, 1, true),
        &gzip(b"skerry rocks", 6, 2, true),
        &[
            (Stream::Entries, &[1 + 2 + 8]),
            (Stream::EntryTime, &[4]),
            (Stream::EntryCodec, &[2, 6]),
            (Stream::EntryNumber, &[1, 12]),
            (Stream::Text, b"skerry rocks"),
        ],
    );
    // A content of more symbols than a block of zlib has, at level 9 of GNU gzip.
    let long: Vec<u8> = (0..100_000).map(|i: u64| noise(i * i * i, 1)[0] % 24).collect();
    let new = gzip(&long, GNU + 9, 1, true);
    assert_eq!(level(&long, &new[30..new.len() - 8], 6), Some(25));
    make(
        gzip(b"skerry", 9, 1, true),
        &new,
        &[
            (Stream::Entries, &[1 + 2 + 8]),
            (Stream::EntryTime, &[2]),
            (Stream::EntryCodec, &[2, 25]),
            (Stream::EntryNumber, &[1, 0xb4, 0x9a, 0x0c]),
            (Stream::Text, &long),
        ],
    );
    // Other text around the data and chunks of 300 bytes; the same picture, at level 9.
    let (old, new) = (png(40, 1, 6, 0, "old"), png(40, 1, 9, 300, "new"));
    let at = new.windows(4).position(|four| four == b"IDAT").unwrap() - 4;
    let mut meta = Meta { words: [0x78da, 0, DEFLATED, 0, 0, 0], attributes: 300, texts: Default::default() };
    meta.texts[0] = new[..at].to_vec();
    meta.texts[1] = new[new.len() - 12..].to_vec();
    make(
        old,
        &new,
        &[(Stream::Entries, &[1 + 2 + 4]), (Stream::EntryText, &meta.write()), (Stream::EntryCodec, &[1, 9]), (Stream::EntryNumber, &[2])],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_gzip_files_and_pictures(
        old in proptest::collection::vec(0u8..5, 0..3000),
        new in proptest::collection::vec(0u8..5, 0..3000),
        level in prop_oneof![1u8..=9, GNU + 1..=GNU + 9],
        odd in any::<bool>(),
        lines in 1u32..60,
        chunk in 0usize..400,
        damage in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let files = vec![gzip(&old, level, 1, !odd), png(lines, 1, 6, chunk, "old")];
        let mut made = vec![gzip(&[&new[..], &old[..]].concat(), level, 2, odd), png(lines / 2 + 1, 1, 6, chunk / 2, "new")];
        round_trip(files.clone(), &made[..1]);
        round_trip(vec![files[1].clone()], &made[1..]);
        for file in &mut made {
            let at = damage.index(file.len());
            file[at] = value;
        }
        round_trip(files, &made[..1]);
        round_trip(made.clone(), &made[1..]);
    }
}
