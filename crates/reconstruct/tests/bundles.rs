//! Bundles make the very image, and damaged, foreign or hostile ones make none.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking; its lengths are small")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use skerry_bundle::make::{Base, Layer, MakeError, MakeOptions, Target, make};
use skerry_bundle::{PURPOSE, TocError, VerifiedToc, head};
use skerry_delta::source::{LayerSource, ReadSeek, Segment, Sources};
use skerry_delta::stream::StreamsReader;
use skerry_delta::{Silent, TarLayer};
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, ReconstructError, Reconstructed, reconstruct};
use skerry_trust::{KeyRing, SigningKey, envelope};
use skerry_wire::{DiffId, Digest, ImageId};
use support::telling_memory;

fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

/// A tar of these files.
fn tar(files: &[(&str, Vec<u8>)], mtime: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(mtime);
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Image {
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl Image {
    fn new(created: &str, layers: &[Vec<u8>]) -> Self {
        let ids: Vec<_> = layers.iter().map(|tar| format!("\"{}\"", sha256(tar))).collect();
        let config = format!(
            "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"created\":\"{created}\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}}}}",
            ids.join(",")
        );
        Self { config: config.into_bytes(), layers: layers.to_vec() }
    }

    fn id(&self) -> ImageId {
        ImageId(sha256(&self.config))
    }

    fn sources(&self) -> Vec<(DiffId, Box<dyn LayerSource>)> {
        self.layers.iter().map(|tar| (DiffId(sha256(tar)), source(tar))).collect()
    }
}

fn source(tar: &[u8]) -> Box<dyn LayerSource> {
    let tar = tar.to_vec();
    Box::new(TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap())
}

#[derive(Default)]
struct Node {
    configs: BTreeMap<ImageId, Vec<u8>>,
    layers: BTreeMap<DiffId, Vec<u8>>,
}

impl Node {
    fn with(images: &[&Image]) -> Self {
        let mut node = Self::default();
        for image in images {
            node.configs.insert(image.id(), image.config.clone());
            node.layers.extend(image.layers.iter().map(|tar| (DiffId(sha256(tar)), tar.clone())));
        }
        node
    }
}

struct Whole(Box<dyn LayerSource>);

impl LayerSource for Whole {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        self.0.segments()
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        self.0.open(file)
    }
}

impl Sources for Node {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        self.configs.get(image).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let tar = self.layers.get(diff_id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Whole(source(tar))))
    }
}

/// Keeps what it is given; full after some bytes.
struct Made {
    config: Vec<u8>,
    layers: Vec<(usize, Vec<u8>, bool)>,
    room: usize,
}

impl Default for Made {
    fn default() -> Self {
        Self { config: Vec::new(), layers: Vec::new(), room: usize::MAX }
    }
}

impl ImageSink for Made {
    fn config(&mut self, image_id: &ImageId, bytes: &[u8], _: &[LayerInfo]) -> io::Result<()> {
        assert_eq!(sha256(bytes), image_id.0);
        self.config = bytes.to_vec();
        Ok(())
    }

    fn layer_start(&mut self, index: usize, _: &DiffId, _: u64) -> io::Result<()> {
        self.layers.push((index, Vec::new(), false));
        Ok(())
    }

    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.room = self.room.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        self.layers.last_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }

    fn layer_end(&mut self) -> io::Result<()> {
        self.layers.last_mut().unwrap().2 = true;
        Ok(())
    }
}

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap()
}

fn bundle(target: &Image, bases: &[&Image], key: &SigningKey) -> Vec<u8> {
    let base_sources: Vec<_> = bases.iter().map(|base| base.sources()).collect();
    let layers = |sources: &'static [(DiffId, Box<dyn LayerSource>)]| {
        sources.iter().map(|(diff_id, source)| Layer { diff_id: *diff_id, source: &**source }).collect::<Vec<_>>()
    };
    let leak = |sources: Vec<(DiffId, Box<dyn LayerSource>)>| &*Box::leak(sources.into_boxed_slice());
    let bases: Vec<_> = bases
        .iter()
        .zip(base_sources)
        .map(|(base, sources)| Base { image_id: base.id(), config: &base.config, layers: layers(leak(sources)) })
        .collect();
    let target = Target { config: &target.config, layers: layers(leak(target.sources())) };
    let mut bytes = Vec::new();
    let made = make(&target, &bases, &MakeOptions::default(), &Silent, &AtomicBool::new(false), key, &mut bytes).unwrap();
    assert_eq!(made.size, bytes.len() as u64);
    assert_eq!(made.digest, sha256(&bytes));
    bytes
}

fn apply(bytes: &[u8], keys: &KeyRing, node: &Node, sink: &mut Made) -> Result<Reconstructed, String> {
    let mut bundle = Cursor::new(bytes);
    let toc = VerifiedToc::read(&mut bundle, keys).map_err(|error| error.to_string())?;
    reconstruct(&mut bundle, &toc, node, sink, &Limits { memory: 64 << 20, output: 1 << 20 }).map_err(|error| error.to_string())
}

fn text(seed: usize, lines: usize) -> Vec<u8> {
    (0..lines).map(|i| format!("line {i} says {}\n", i * seed % 977)).collect::<String>().into_bytes()
}

fn pair() -> (Image, Image) {
    let bottom = tar(&[("etc/os", text(3, 40)), ("usr/bin/tool", text(5, 900))], 1);
    let old = tar(&[("app/main.py", text(7, 500)), ("app/data-1.0.txt", text(11, 800)), ("app/gone", text(13, 9))], 100);
    let mut main = text(7, 500);
    main.splice(200..230, *b"another line\n");
    let new = tar(&[("app/data-1.1.txt", text(11, 801)), ("app/main.py", main), ("app/new", text(17, 300))], 200);
    (Image::new("2026-01-01T00:00:00Z", &[bottom.clone(), old]), Image::new("2026-02-02T00:00:00Z", &[bottom, new]))
}

#[test]
fn the_very_image_comes_out() {
    let (old, new) = pair();
    let key = key();
    let keys = KeyRing::from(key.public());
    for (bases, node) in [(vec![&old], Node::with(&[&old])), (vec![], Node::default()), (vec![&new, &old], Node::with(&[&old, &new]))] {
        let bytes = bundle(&new, &bases, &key);
        let mut made = Made::default();
        let done = apply(&bytes, &keys, &node, &mut made).unwrap();
        assert_eq!(done.image_id, new.id());
        assert_eq!(made.config, new.config);
        assert!(made.layers.iter().all(|(index, tar, whole)| *whole && *tar == new.layers[*index]));
        let known = new.layers.iter().filter(|tar| bases.iter().any(|base| base.layers.contains(tar))).count();
        assert_eq!(done.new_layers, new.layers.len() - known);
    }
    assert!(bundle(&new, &[&old], &key).len() < bundle(&new, &[], &key).len());
}

#[test]
fn chunks_are_checked_one_by_one() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let noise: Vec<u8> = (0..200_000).map(|_| next()).collect();
    let image = Image::new("2026-01-01T00:00:00Z", &[tar(&[("noise", noise)], 1)]);
    let key = key();
    let bytes = bundle(&image, &[], &key);
    let toc_range = head::toc_range(&bytes[..head::LEN]).unwrap();
    let toc = VerifiedToc::open(&bytes[..toc_range.end as usize], &KeyRing::from(key.public())).unwrap();
    assert_eq!(toc.size(), bytes.len() as u64);
    assert!(toc.chunk_count() > 2);
    let mut end = toc.payload_start();
    for index in 0..toc.chunk_count() {
        let range = toc.chunk_range(index);
        assert_eq!(range.start, end);
        end = range.end;
        let mut chunk = bytes[range.start as usize..range.end as usize].to_vec();
        toc.verify_chunk(index, &chunk).unwrap();
        chunk[7] ^= 1;
        assert!(matches!(toc.verify_chunk(index, &chunk), Err(TocError::Chunk { .. })));
        assert!(toc.verify_chunk(index, &chunk[1..]).is_err());
    }
    assert_eq!(end, toc.size());
    assert!(toc.verify_chunk(toc.chunk_count(), &[]).is_err());
}

#[test]
fn every_refusal_says_why() {
    let (old, new) = pair();
    let key = key();
    let keys = KeyRing::from(key.public());
    let bytes = bundle(&new, &[&old], &key);
    let node = Node::with(&[&old]);
    let run = |bytes: &[u8], keys: &KeyRing, node: &Node, mut made: Made| apply(bytes, keys, node, &mut made).unwrap_err();

    assert!(run(b"PK\x03\x04 and so on", &keys, &node, Made::default()).contains("not a Skerry bundle"));
    assert!(run(&bytes[..20], &keys, &node, Made::default()).contains("ends after"));
    let cut = run(&bytes[..bytes.len() - 5], &keys, &node, Made::default());
    assert!(cut.contains("applying the bundle"), "{cut}");
    assert!(run(&bytes, &KeyRing::from(self::key().public()), &node, Made::default()).contains("not trusted"));
    assert!(run(&bytes, &keys, &Node::default(), Made::default()).contains(&format!("base image {}", old.id())));
    let full = Made { room: 100, ..Made::default() };
    assert!(run(&bytes, &keys, &node, full).contains("writing the new image"));

    let mut changed = Node::with(&[&old]);
    let layer = changed.layers.values_mut().find(|tar| **tar == old.layers[1]).unwrap();
    let content = layer.windows(9).position(|bytes| bytes == b"line 300 ").unwrap();
    layer[content] ^= 1;
    assert!(run(&bytes, &keys, &changed, Made::default()).contains("another layer"));

    let mut lying = Node::with(&[&old]);
    lying.configs.values_mut().for_each(|config| config.push(b' '));
    assert!(run(&bytes, &keys, &lying, Made::default()).contains("damaged configuration"));
}

#[test]
fn limits_hold_before_anything_is_read() {
    let (old, new) = pair();
    let key = key();
    let bytes = bundle(&new, &[&old], &key);
    let mut bundle = Cursor::new(&bytes);
    let toc = VerifiedToc::read(&mut bundle, &KeyRing::from(key.public())).unwrap();
    let run = |limits| reconstruct(&mut Cursor::new(&bytes), &toc, &Node::default(), &mut Made::default(), &limits);
    assert!(matches!(run(Limits { memory: 1 << 20, output: 1 << 30 }), Err(ReconstructError::Memory { .. })));
    assert!(matches!(run(Limits { memory: 1 << 30, output: 1 << 10 }), Err(ReconstructError::Output { .. })));
}

#[test]
fn tables_stay_within_what_is_left_of_the_memory() {
    let (old, new) = pair();
    let key = key();
    let keys = KeyRing::from(key.public());
    let bytes = bundle(&new, &[&old], &key);
    let run = |bytes: &[u8], memory: u64| {
        let mut bundle = Cursor::new(bytes);
        let toc = VerifiedToc::read(&mut bundle, &keys).unwrap();
        reconstruct(&mut bundle, &toc, &Node::with(&[&old]), &mut Made::default(), &Limits { memory, output: 1 << 20 })
    };
    let toc = VerifiedToc::read(&mut Cursor::new(&bytes), &keys).unwrap();
    let memory = toc.toc().memory;
    run(&bytes, memory).unwrap();

    // A table of contents that says less than is needed is held to what it says, however much the node would give.
    let lying = telling_memory(&bytes, &key, memory, StreamsReader::memory(&toc.toc().sections) - 1024);
    let error = run(&lying, 1 << 30).unwrap_err().to_string();
    assert!(error.contains("more old members, archives and contents to keep than go into"), "{error}");
}

#[test]
fn a_cancelled_make_says_so() {
    let (_, new) = pair();
    let sources = new.sources();
    let target =
        Target { config: &new.config, layers: sources.iter().map(|(id, source)| Layer { diff_id: *id, source: &**source }).collect() };
    let made = make(&target, &[], &MakeOptions::default(), &Silent, &AtomicBool::new(true), &key(), &mut Vec::new());
    assert!(matches!(made, Err(MakeError::Cancelled)));
}

#[test]
fn what_every_node_would_refuse_is_not_made() {
    let empty = Image::new("2026-01-01", &[]);
    let target = Target { config: &empty.config, layers: Vec::new() };
    let made = make(&target, &[], &MakeOptions::default(), &Silent, &AtomicBool::new(false), &key(), &mut Vec::new());
    assert!(matches!(made, Err(MakeError::NoLayers)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A payload with any damage under a good signature (a hostile or broken builder): an error, or the very image.
    #[test]
    fn damaged_payloads(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (old, new) = pair();
        let key = key();
        let mut bytes = bundle(&new, &[&old], &key);
        let start = head::toc_range(&bytes).unwrap().end as usize;
        for (at, byte) in damage {
            let at = start + at.index(bytes.len() - start);
            bytes[at] = byte;
        }
        check(&bytes, &KeyRing::from(key.public()), &old, &new);
    }

    /// A table of contents with any damage, signed again.
    #[test]
    fn damaged_tables(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (old, new) = pair();
        let key = key();
        let keys = KeyRing::from(key.public());
        let bytes = bundle(&new, &[&old], &key);
        let range = head::toc_range(&bytes).unwrap();
        let (start, end) = (range.start as usize, range.end as usize);
        let mut payload = envelope::verify(&bytes[start..end], PURPOSE, &keys, 1 << 20).unwrap().payload;
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let toc = envelope::sign(&key, PURPOSE, &payload);
        let mut damaged = bytes[..start].to_vec();
        // The same length: only values were changed.
        prop_assert_eq!(toc.len(), end - start);
        damaged.extend(toc);
        damaged.extend_from_slice(&bytes[end..]);
        check(&damaged, &keys, &old, &new);
    }
}

/// Whatever comes out whole is right.
fn check(bytes: &[u8], keys: &KeyRing, old: &Image, new: &Image) {
    let mut made = Made::default();
    if apply(bytes, keys, &Node::with(&[old]), &mut made).is_ok() {
        assert_eq!(made.config, new.config);
        assert!(made.layers.iter().all(|(index, tar, whole)| *whole && *tar == new.layers[*index]));
    }
}
