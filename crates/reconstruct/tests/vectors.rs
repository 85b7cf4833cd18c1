//! Fixed vectors: bundles that are checked in must make the very image for ever, or the version of the format goes up.
//!
//! The pages in `docs/formats` name the files. A new version of a format writes them again:
//! `cargo test -p skerry-reconstruct --test vectors -- --ignored`
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "vector/several/make.rs"]
mod several;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Cursor, Read as _};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use ring::digest::{SHA256, digest};
use skerry_bundle::VerifiedToc;
use skerry_bundle::make::{Base, Layer, Made, MakeOptions, Target, make};
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::codec::{Codec, Kind};
use skerry_delta::index::{LayerIndex, limit};
use skerry_delta::make::CLASS_DATA;
use skerry_delta::source::{LayerSource, Sources};
use skerry_delta::stream::{Coder, Section, Stream, StreamsReader, StreamsWriter};
use skerry_delta::{Silent, TarLayer};
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, reconstruct};
use skerry_trust::{KeyRing, SigningKey};
use skerry_wire::{DiffId, Digest, ImageId};
use support::telling_memory;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vector").join(name)
}

fn read(name: &str) -> Vec<u8> {
    fs::read(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The key that all bundles are signed with.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_text(&String::from_utf8(read("key.txt")).unwrap()).unwrap());

fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

fn source(tar: Vec<u8>) -> Box<dyn LayerSource> {
    Box::new(TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap())
}

/// An image: its configuration and its layers.
type Image = (Vec<u8>, Vec<Vec<u8>>);

/// A node with these images.
struct Node {
    images: Vec<Image>,
}

impl Sources for Node {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        let mut configs = self.images.iter().map(|(config, _)| config);
        configs.find(|config| ImageId(sha256(config)) == *image).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let mut tars = self.images.iter().flat_map(|(_, tars)| tars);
        tars.find(|tar| DiffId(sha256(tar)) == *diff_id).cloned().map(source).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&Memory)
    }
}

/// Scratch files that are none.
struct Memory;

impl Scratch for Memory {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }
}

#[derive(Default)]
struct Kept {
    config: Vec<u8>,
    /// All new layers, one after the other.
    layer: Vec<u8>,
    ended: usize,
}

impl ImageSink for Kept {
    fn config(&mut self, _: &ImageId, bytes: &[u8], _: &[LayerInfo]) -> io::Result<()> {
        self.config = bytes.to_vec();
        Ok(())
    }

    fn layer_start(&mut self, _: usize, _: &DiffId, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.layer.extend_from_slice(bytes);
        Ok(())
    }

    fn layer_end(&mut self) -> io::Result<()> {
        self.ended += 1;
        Ok(())
    }
}

/// The files of an image: its configuration and its layers.
type Files = (&'static str, &'static [&'static str]);

const OLD: &[Files] = &[("old.json", &["old.tar"])];

#[test]
fn the_vectors_make_the_image() {
    for (folder, bundle, bases, layers) in [
        ("", "patch.skb", OLD, 1),
        ("", "full.skb", &[], 1),
        ("archives/", "patch.skb", OLD, 1),
        ("ways/", "patch.skb", OLD, 1),
        ("several/", "patch.skb", several::BASES, 2),
    ] {
        let read = |name: &str| read(&format!("{folder}{name}"));
        let image = |(config, tars): &Files| (read(config), tars.iter().map(|tar| read(tar)).collect());
        let node = Node { images: bases.iter().map(image).collect() };
        let name = format!("{folder}{bundle}");
        let mut bytes = Cursor::new(read(bundle));
        let toc = VerifiedToc::read(&mut bytes, &KeyRing::from(KEY.public())).unwrap();
        assert_eq!(toc.toc().bases.len(), bases.len(), "{name}");
        assert_eq!(toc.size(), bytes.get_ref().len() as u64, "{name}");
        let mut kept = Kept::default();
        let done = reconstruct(&mut bytes, &toc, &node, &mut kept, &Limits::default()).unwrap();
        assert_eq!(done.image_id, ImageId(sha256(&read("new.json"))), "{name}");
        assert!(kept.config == read("new.json") && kept.layer == read("new.tar") && kept.ended == layers, "{name} makes another image");
        for index in 0..toc.chunk_count() {
            let range = toc.chunk_range(index);
            let bytes = &bytes.get_ref()[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            toc.verify_chunk(index, bytes).unwrap();
        }
    }
}

/// Archives and contents that are kept count as tables do: a bundle that tells less than they need does not get it.
#[test]
fn what_needs_more_memory_than_was_told_is_refused() {
    for (folder, bases, rest) in [("archives/", OLD, 1 << 20), ("ways/", OLD, 1 << 20), ("several/", several::BASES, 100 << 10)] {
        let read = |name: &str| read(&format!("{folder}{name}"));
        let image = |(config, tars): &Files| (read(config), tars.iter().map(|tar| read(tar)).collect());
        let node = Node { images: bases.iter().map(image).collect() };
        let bundle = read("patch.skb");
        let keys = KeyRing::from(KEY.public());
        let honest = VerifiedToc::read(&mut &bundle[..], &keys).unwrap();
        let (told, streams) = (honest.toc().memory, StreamsReader::memory(&honest.toc().sections));
        let lying = telling_memory(&bundle, &KEY, told, streams + rest);
        let toc = VerifiedToc::read(&mut &lying[..], &keys).unwrap();
        let error = reconstruct(&mut Cursor::new(lying), &toc, &node, &mut Kept::default(), &Limits::default()).unwrap_err().to_string();
        assert!(
            error.contains("contents to keep than go into") || error.contains("a zip for which memory was not asked"),
            "{folder}: {error}"
        );
    }
}

/// Numbers that look random and never change.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn lines(&mut self, lines: usize) -> Vec<String> {
        (0..lines).map(|i| format!("{i:03} {:x} of {:x}\n", self.next(), self.next() % 77)).collect()
    }
}

/// Differences of 40000 bytes, and the old bytes beside them: so many of 100 bytes change, and those behind an 0xe8 by 3.
fn differences(percent: u64) -> (Vec<u8>, Vec<u8>) {
    let mut numbers = Numbers(11);
    let old = numbers.bytes(40_000);
    let mut last = 0;
    let new = old.iter().map(|&byte| {
        let by = if last == 0xe8 { 3 } else { u8::try_from(numbers.next() % 40).unwrap() };
        let changed = last == 0xe8 || numbers.next() % 100 < percent;
        last = byte;
        if changed { by } else { 0 }
    });
    (new.collect(), old)
}

/// Calls of one function from many places.
fn calls() -> Vec<u8> {
    let mut numbers = Numbers(13);
    let call = |i: u32| [&[0xe8][..], &0x4000u32.wrapping_sub(i * 8 + 5).to_le_bytes(), &[numbers.bytes(1)[0] & 7, 0x90, 0xc3]].concat();
    (0..4000).flat_map(call).collect()
}

/// The same for aarch64.
fn calls_arm() -> Vec<u8> {
    let mut numbers = Numbers(31);
    let call = |i: u32| {
        [
            (0x9400_0000 | 0x1000u32.wrapping_sub(i * 2) & 0x03ff_ffff).to_le_bytes(),
            (0xd280_0000 | (u32::from(numbers.bytes(1)[0]) % 8) << 5).to_le_bytes(),
        ]
        .concat()
    };
    (0..4000).flat_map(call).collect()
}

/// A coder's number, a stream, its bytes, old bytes beside them, and for how many new bytes it is made.
type Case = (u8, Stream, Vec<u8>, Vec<u8>, u64);

/// A stream for each kind of coder that is more than zstd.
fn coders() -> [Case; 6] {
    let (few, beside_few) = differences(2);
    let (many, beside_many) = differences(40);
    let small = Numbers(17).bytes(20_000).iter().map(|byte| byte % 3).collect();
    [
        (49, Stream::Text, Numbers(37).lines(4000).concat().into_bytes(), Vec::new(), 0),
        (81, Stream::Program, calls(), Vec::new(), 0),
        (113, Stream::Program, calls_arm(), Vec::new(), 0),
        (128, Stream::Insert, small, Vec::new(), u64::MAX),
        (129, Stream::Difference, few, beside_few, u64::MAX),
        (130, Stream::Difference, many, beside_many, 0),
    ]
}

/// A line that tells a coder's stream to other decoders.
fn sum(number: u8, bytes: &[u8]) -> String {
    format!("{number} {} {}\n", bytes.len(), sha256(bytes))
}

#[test]
fn the_coders_give_the_streams() {
    let sums: String = coders().iter().map(|(number, _, bytes, ..)| sum(*number, bytes)).collect();
    assert_eq!(sums.as_bytes(), read("coders.txt"), "coders.txt tells other streams");
    for (number, stream, bytes, old, _) in coders() {
        let coded = read(&format!("coder-{number}.bin"));
        let coder = Coder::from_number(number).unwrap();
        let section = Section { stream, coder, raw_len: bytes.len() as u64, len: coded.len() as u64 };
        let mut streams = StreamsReader::open(&[section], |_| Ok(Box::new(&coded[..]))).unwrap();
        let mut back = vec![1; bytes.len()];
        for start in (0..bytes.len()).step_by(777) {
            let end = (start + 777).min(bytes.len());
            streams.get(stream).read_beside(&mut back[start..end], old.get(start..end).unwrap_or_default()).unwrap();
        }
        assert!(back == bytes, "coder {number} gives another stream");
        assert_eq!(streams.unread(), None);
    }
}

/// A program of one segment, in which a function is put before others that are called.
fn elf(new: bool) -> Vec<u8> {
    let mut numbers = Numbers(19);
    let first = if new { 0x2040u64 } else { 0x2000 };
    let mut code: Vec<u8> = (0..3000u64)
        .flat_map(|i| {
            let from = 0x1000 + i * 8 + 5 + (first - 0x2000);
            let to = 0x1000 + first + numbers.next() % 1000 * 8;
            [&[0xe8][..], &u32::try_from(to.wrapping_sub(from) & 0xffff_ffff).unwrap().to_le_bytes(), &numbers.bytes(3)].concat()
        })
        .collect();
    if new {
        code.splice(0..0, Numbers(23).bytes(64));
    }
    let size = 4096 + code.len() as u64;
    let mut file = [&b"\x7fELF\x02\x01\x01"[..], &[0; 4089]].concat();
    // The machine, the program headers and their size and number; then the one of a segment that is code.
    for (at, value, len) in
        [(18, 62, 2), (32, 64, 8), (54, 56, 2), (56, 1, 2), (64, 1, 4), (68, 5, 4), (72, 0, 8), (80, 0, 8), (96, size, 8), (104, size, 8)]
    {
        file[at..at + len].copy_from_slice(&u64::to_le_bytes(value)[..len]);
    }
    file.extend(code);
    file
}

/// A layer with every kind of member that the model knows, and some that it does not.
fn layer(new: bool) -> Vec<u8> {
    let mut numbers = Numbers(7);
    let mut builder = tar::Builder::new(Vec::new());
    let mtime = if new { 1_700_000_500 } else { 1_700_000_000 };
    let put = |builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], gnu: bool| {
        let mut header = if gnu { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(mtime);
        builder.append_data(&mut header, path, content).unwrap();
    };
    let long = format!("{}/{}", "folder".repeat(15), "name".repeat(20));
    let version = if new { "1.10.0" } else { "1.9.2" };
    let mut text = numbers.lines(120);
    let mut program = [b"\x7fELF".to_vec(), numbers.bytes(9000)].concat();
    let mut table = numbers.lines(300);
    let same = numbers.bytes(700);
    if new {
        text.insert(60, "a line between the others\n".to_owned());
        for at in (0..program.len()).step_by(97).skip(3) {
            program[at] = program[at].wrapping_add(4);
        }
        // In another order: runs of an old content are then of little use.
        let mut order = Numbers(9);
        for i in (1..table.len()).rev() {
            table.swap(i, usize::try_from(order.next()).unwrap() % (i + 1));
        }
    }
    put(&mut builder, "etc/text", text.concat().as_bytes(), false);
    put(&mut builder, "bin/program", &program, false);
    put(&mut builder, "bin/calls", &elf(new), false);
    put(&mut builder, if new { "moved/same" } else { "same" }, &same, true);
    put(&mut builder, "table", table.concat().as_bytes(), false);
    put(&mut builder, &format!("{long}/gnu"), b"long name\n", true);
    put(&mut builder, &format!("lib/package-{version}.dist-info/RECORD"), version.as_bytes(), false);
    builder.append_pax_extensions([("path", &b"caf\xc3\xa9"[..]), ("SCHILY.xattr.user.note", version.as_bytes())]).unwrap();
    put(&mut builder, "caf?", b"a name that is not ASCII\n", false);
    if new {
        put(&mut builder, "new", &numbers.lines(900).concat().into_bytes(), false);
    }
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    link.set_mtime(mtime);
    builder.append_link(&mut link, "link", if new { "etc/text" } else { "bin/program" }).unwrap();
    link.set_entry_type(tar::EntryType::Link);
    builder.append_link(&mut link, "hard", "etc/text").unwrap();
    let mut tar = builder.into_inner().unwrap();
    // After the end, a block that no tar has.
    tar.extend(numbers.bytes(300));
    tar.resize(tar.len() + 212, 0);
    tar
}

fn config(new: bool, tar: &[u8]) -> Vec<u8> {
    let day = if new { 2 } else { 1 };
    format!(
        "{{\"architecture\":\"amd64\",\"created\":\"2026-01-0{day}T00:00:00Z\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{}\"]}}}}",
        sha256(tar)
    )
    .into_bytes()
}

fn build(new: &(Vec<u8>, Vec<u8>), old: Option<&(Vec<u8>, Vec<u8>)>, key: &SigningKey) -> (Made, Vec<u8>) {
    let sources: Vec<_> = old.into_iter().chain([new]).map(|(_, tar)| (DiffId(sha256(tar)), source(tar.clone()))).collect();
    let layer = |index: usize| vec![Layer { diff_id: sources[index].0, source: &*sources[index].1 }];
    let bases: Vec<_> = old.iter().map(|(config, _)| Base { image_id: ImageId(sha256(config)), config, layers: layer(0) }).collect();
    let target = Target { config: &new.0, layers: layer(sources.len() - 1) };
    let mut bytes = Vec::new();
    let made = make(&target, &bases, &MakeOptions::default(), &Silent, &AtomicBool::new(false), key, &mut bytes).unwrap();
    (made, bytes)
}

/// The bytes of a stream in a bundle.
fn bytes_of(bundle: &[u8], toc: &VerifiedToc, stream: Stream) -> Vec<u8> {
    let place = |index| {
        let range = toc.section_range(index);
        usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
    };
    let mut streams = StreamsReader::open(&toc.toc().sections, |index| Ok(Box::new(&bundle[place(index)]))).unwrap();
    let reader = streams.get(stream);
    let mut bytes = vec![0; usize::try_from(reader.left()).unwrap()];
    reader.read_exact(&mut bytes).unwrap();
    bytes
}

/// What the entries of the archives in `ways` have in *EntryCodec*, in order: the way, whether its source is named, the kind, and the level
/// of what is deflated again.
const WAYS: [(u8, bool, Kind, Option<u8>); 30] = [
    // `first` of `other.jar`.
    (3, false, Kind::Text, Some(6)),
    // The application's entries: `0/` in its own old version, in another archive and in two of one that is first met there.
    (0, true, Kind::Text, None),
    (0, true, Kind::Text, None),
    (0, true, Kind::Text, None),
    (0, true, Kind::Text, None),
    (0, true, Kind::Text, None),
    // What is of another archive by its content, and by its name.
    (1, true, Kind::Text, Some(1)),
    (3, true, Kind::Text, Some(6)),
    // `2/`.
    (2, false, Kind::Text, Some(1)),
    (2, false, Kind::Program, Some(1)),
    (2, false, Kind::Binary, Some(1)),
    (2, false, Kind::Dense, None),
    (2, false, Kind::Text, Some(4)),
    // `1/`, `3/` and `4/`.
    (1, false, Kind::Text, Some(2)),
    (1, false, Kind::Text, Some(1)),
    (1, false, Kind::Text, None),
    (3, false, Kind::Text, Some(6)),
    (4, false, Kind::Text, Some(6)),
    // Three archives, one in the other, each but the last with a note; the fourth would be too deep.
    (5, false, Kind::Text, Some(6)),
    (3, false, Kind::Text, Some(6)),
    (5, false, Kind::Text, Some(6)),
    (3, false, Kind::Text, Some(6)),
    (5, false, Kind::Text, Some(6)),
    (3, false, Kind::Dense, None),
    // A gzip file.
    (5, false, Kind::Text, Some(6)),
    (3, false, Kind::Text, Some(6)),
    // `6/`.
    (6, false, Kind::Text, None),
    (6, false, Kind::Text, None),
    // A program and class data.
    (7, false, Kind::Program, Some(6)),
    (7, false, Kind::Binary, Some(6)),
];

/// Every way of an entry occurs, class data as an entry and as a member, and bytecode that is more than its time.
fn assert_ways(bundle: &[u8]) {
    let toc = VerifiedToc::read(&mut Cursor::new(bundle), &KeyRing::from(KEY.public())).unwrap();
    assert!(toc.toc().features.contains(&CLASS_DATA), "no class data");
    let byte = |way: u8, named: bool, kind: Kind| way | u8::from(named) << 3 | (kind as u8) << 4;
    let expected: Vec<_> = WAYS.iter().flat_map(|&(way, named, kind, level)| [byte(way, named, kind)].into_iter().chain(level)).collect();
    assert_eq!(bytes_of(bundle, &toc, Stream::EntryCodec), expected, "other ways");
    assert_eq!(WAYS.iter().map(|(way, ..)| *way).collect::<BTreeSet<_>>(), (0..8).collect(), "a way has no vector");
    let contents = bytes_of(bundle, &toc, Stream::Codec);
    for (codec, kind) in [(Codec::Elf, Kind::Binary), (Codec::Bytecode, Kind::Binary), (Codec::Archive, Kind::Text)] {
        // The first is of the configuration.
        assert!(contents[1..].iter().any(|content| *content == byte(codec as u8, false, kind)), "{codec:?} of {kind:?} has no vector");
    }
}

#[test]
fn every_way_of_an_entry_has_a_vector() {
    assert_ways(&read("ways/patch.skb"));
    // Bytecode of which only the time is another.
    let bundle = read("archives/patch.skb");
    let toc = VerifiedToc::read(&mut Cursor::new(&bundle), &KeyRing::from(KEY.public())).unwrap();
    let only_time = |content: &u8| *content == Codec::Bytecode as u8;
    assert!(bytes_of(&bundle, &toc, Stream::Codec)[1..].iter().any(only_time), "bytecode of kind 0 has no vector");
}

/// The index of the new layer of `ways`, made anew.
fn index() -> LayerIndex {
    LayerIndex::build(&*source(read("ways/new.tar")), &Silent, &AtomicBool::new(false)).unwrap()
}

/// Another zstd may find other costs and write other bytes; every other difference is another version of the format.
#[test]
fn the_index_is_that_of_the_layer() {
    let (bytes, made) = (read("ways/new.index"), index());
    let back = LayerIndex::read(&bytes[..], limit(made.size())).unwrap();
    assert!(back == made, "it reads as {back:?}, the layer has {made:?}");
    let mut again = Vec::new();
    back.write(&mut again).unwrap();
    assert!(again == bytes, "it is written otherwise");
}

#[test]
#[ignore = "writes the vectors again: for a new version of the format only"]
fn write_vectors() {
    let key = match fs::read_to_string(file("key.txt")) {
        Ok(text) => SigningKey::from_text(&text).unwrap(),
        Err(_) => {
            let pkcs8 = SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
            fs::write(file("key.txt"), SigningKey::to_text(&pkcs8)).unwrap();
            SigningKey::from_pkcs8(&pkcs8).unwrap()
        }
    };
    for (number, stream, bytes, old, new) in coders() {
        let mut streams = StreamsWriter::default();
        match stream {
            Stream::Difference => streams.put_beside(&bytes, &old).unwrap(),
            _ => streams.put(stream, &bytes).unwrap(),
        }
        let written = streams.finish_for(8 << 20, new).unwrap();
        assert_eq!(written.sections[0].coder.number(), number, "another coder is better for its vector");
        fs::write(file(&format!("coder-{number}.bin")), &written.bytes[0]).unwrap();
    }
    let image = |new: bool| {
        let tar = layer(new);
        (config(new, &tar), tar)
    };
    let (old, new) = (image(false), image(true));
    let (made, patch) = build(&new, Some(&old), &key);
    assert_eq!(
        codecs(&made),
        BTreeSet::from([Codec::Copy, Codec::New, Codec::Bidiff, Codec::Dictionary, Codec::Elf]),
        "a codec has no vector"
    );
    assert!(made.stats.layers.values().all(|layer| layer.raw > 0), "raw bytes have no vector");
    let (_, full) = build(&new, None, &key);
    for (name, bytes) in
        [("old.json", &old.0), ("old.tar", &old.1), ("new.json", &new.0), ("new.tar", &new.1), ("patch.skb", &patch), ("full.skb", &full)]
    {
        fs::write(file(name), bytes).unwrap();
    }
    // The layers of archives are of other writers: archives/make.py.
    let image = |new: bool, name: &str| {
        let tar = read(&format!("archives/{name}"));
        (config(new, &tar), tar)
    };
    let (old, new) = (image(false, "old.tar"), image(true, "new.tar"));
    let (made, patch) = build(&new, Some(&old), &key);
    assert_eq!(
        codecs(&made),
        BTreeSet::from([Codec::Archive, Codec::Bidiff, Codec::Bytecode, Codec::Elf]),
        "a codec of archives has no vector"
    );
    assert!(made.stats.layers.values().all(|layer| layer.codecs[&Codec::Archive].0 == 4), "a kind of archive has no vector");
    for (name, bytes) in [("old.json", &old.0), ("new.json", &new.0), ("patch.skb", &patch)] {
        fs::write(file(&format!("archives/{name}")), bytes).unwrap();
    }
}

/// Apart from the others, which stay as they are: signed by their key, from the layers of ways/make.py.
#[test]
#[ignore = "writes the vectors again: for a new version of the format only"]
fn write_vectors_of_ways() {
    let sums: String = coders().iter().map(|(number, _, bytes, ..)| sum(*number, bytes)).collect();
    fs::write(file("coders.txt"), sums).unwrap();
    let image = |new: bool, name: &str| {
        let tar = read(&format!("ways/{name}"));
        (config(new, &tar), tar)
    };
    let (old, new) = (image(false, "old.tar"), image(true, "new.tar"));
    let (_, patch) = build(&new, Some(&old), &KEY);
    assert_ways(&patch);
    let mut index_bytes = Vec::new();
    index().write(&mut index_bytes).unwrap();
    for (name, bytes) in [("old.json", &old.0), ("new.json", &new.0), ("patch.skb", &patch), ("new.index", &index_bytes)] {
        fs::write(file(&format!("ways/{name}")), bytes).unwrap();
    }
}

fn codecs(made: &Made) -> BTreeSet<Codec> {
    made.stats.layers.values().flat_map(|layer| layer.codecs.keys().copied()).collect()
}
