//! Fixed vectors: bundles that are checked in must make the very image for ever, or the version of the format goes up.
//!
//! `docs/formats/bundle.md` and `patch.md` name the files. A new version of the format writes them again:
//! `cargo test -p skerry-reconstruct --test vectors -- --ignored`
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Cursor};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use ring::digest::{SHA256, digest};
use skerry_bundle::VerifiedToc;
use skerry_bundle::make::{Base, Layer, Made, MakeOptions, Target, make};
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::codec::Codec;
use skerry_delta::source::{LayerSource, Sources};
use skerry_delta::stream::{Coder, Section, Stream, StreamsReader, StreamsWriter};
use skerry_delta::{Silent, TarLayer};
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, reconstruct};
use skerry_trust::{KeyRing, SigningKey};
use skerry_wire::{DiffId, Digest, ImageId};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vector").join(name)
}

fn read(name: &str) -> Vec<u8> {
    fs::read(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

fn source(tar: Vec<u8>) -> Box<dyn LayerSource> {
    Box::new(TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap())
}

/// A node with the old image, or with nothing.
struct Node {
    old: Option<(Vec<u8>, Vec<u8>)>,
}

impl Sources for Node {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        let config = self.old.as_ref().map(|(config, _)| config.clone());
        config.filter(|config| ImageId(sha256(config)) == *image).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let tar = self.old.as_ref().map(|(_, tar)| tar.clone());
        tar.filter(|tar| DiffId(sha256(tar)) == *diff_id).map(source).ok_or_else(|| io::ErrorKind::NotFound.into())
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

#[test]
fn the_vectors_make_the_image() {
    let key = SigningKey::from_text(&String::from_utf8(read("key.txt")).unwrap()).unwrap();
    for (folder, bundle, bases) in [("", "patch.skb", 1), ("", "full.skb", 0), ("archives/", "patch.skb", 1)] {
        let read = |name: &str| read(&format!("{folder}{name}"));
        let node = Node { old: (bases > 0).then(|| (read("old.json"), read("old.tar"))) };
        let name = format!("{folder}{bundle}");
        let mut bytes = Cursor::new(read(bundle));
        let toc = VerifiedToc::read(&mut bytes, &KeyRing::from(key.public())).unwrap();
        assert_eq!(toc.toc().bases.len(), bases, "{name}");
        assert_eq!(toc.size(), bytes.get_ref().len() as u64, "{name}");
        let mut kept = Kept::default();
        let done = reconstruct(&mut bytes, &toc, &node, &mut kept, &Limits::default()).unwrap();
        assert_eq!(done.image_id, ImageId(sha256(&read("new.json"))), "{name}");
        assert!(kept.config == read("new.json") && kept.layer == read("new.tar") && kept.ended == 1, "{name} makes another image");
        for index in 0..toc.chunk_count() {
            let range = toc.chunk_range(index);
            let bytes = &bytes.get_ref()[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            toc.verify_chunk(index, bytes).unwrap();
        }
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

#[test]
fn the_coders_give_the_streams() {
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

fn codecs(made: &Made) -> BTreeSet<Codec> {
    made.stats.layers.values().flat_map(|layer| layer.codecs.keys().copied()).collect()
}
