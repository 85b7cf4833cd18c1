//! Members over 2 GiB and layers over 4 GiB: made in memory as they are read, so that they cost no disk. `make test-slow` runs it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::AtomicBool;

use skerry_delta::apply::Applier;
use skerry_delta::index::LayerIndex;
use skerry_delta::make::{Budget, Input, make};
use skerry_delta::source::LayerSource;
use skerry_delta::stream::StreamsReader;
use skerry_delta::{Silent, TarLayer};

const GIB: u64 = 1 << 30;
/// A mark stands at every multiple of this; the rest is zeros.
const MARKS: u64 = 1 << 24;

/// A tar of large members, as bytes at any place.
#[derive(Debug, Clone)]
struct Tar {
    /// Where each part begins, its bytes at the start, and how many marked zeros follow them.
    parts: Vec<(u64, Vec<u8>, u64, u64)>,
    size: u64,
}

impl Tar {
    /// Members of these sizes; a seed makes their marks.
    fn new(members: &[(&str, u64, u64)], mtime: u64) -> Self {
        let (mut parts, mut size) = (Vec::new(), 0);
        for (path, len, seed) in members {
            let mut header = tar::Header::new_gnu();
            header.set_path(path).unwrap();
            header.set_size(*len);
            header.set_mtime(mtime);
            header.set_mode(0o644);
            header.set_cksum();
            parts.push((size, header.as_bytes().to_vec(), *len, *seed));
            size += 512 + len.next_multiple_of(512);
        }
        Self { parts, size: size + 1024 }
    }

    fn fill(&self, mut at: u64, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let part = self.parts.partition_point(|part| part.0 <= at) - 1;
            let (start, head, len, seed) = &self.parts[part];
            let next = self.parts.get(part + 1).map_or(self.size, |part| part.0);
            let take = usize::try_from((next - at).min(buf.len() as u64)).unwrap();
            let (now, rest) = buf.split_at_mut(take);
            now.fill(0);
            let body = start + head.len() as u64;
            for (offset, byte) in (at..).zip(now.iter_mut()).take(usize::try_from(body.saturating_sub(at)).unwrap_or(usize::MAX)) {
                *byte = head[usize::try_from(offset - start).unwrap()];
            }
            let from = at.max(body) - body;
            for mark in (from.saturating_sub(7) / MARKS..=(at + take as u64).saturating_sub(body) / MARKS).map(|mark| mark * MARKS) {
                let bytes = (mark ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
                for (offset, byte) in (mark..).zip(bytes) {
                    if offset < *len && body + offset >= at && body + offset < at + take as u64 {
                        now[usize::try_from(body + offset - at).unwrap()] = byte;
                    }
                }
            }
            at += take as u64;
            buf = rest;
        }
    }

    fn layer(&self) -> impl LayerSource {
        let tar = self.clone();
        TarLayer::new(move || Ok(Reader { tar: tar.clone(), at: 0 })).unwrap()
    }
}

struct Reader {
    tar: Tar,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(usize::try_from(self.tar.size.saturating_sub(self.at)).unwrap());
        self.tar.fill(self.at, &mut buf[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).unwrap(),
            SeekFrom::End(by) => self.tar.size.checked_add_signed(by).unwrap(),
        };
        Ok(self.at)
    }
}

/// The bytes of the patch, after every byte of what it makes was compared.
fn round_trip(old: &Tar, new: &Tar) -> usize {
    let old: Vec<Box<dyn LayerSource>> = vec![Box::new(old.layer())];
    let sources: Vec<_> = old.iter().map(|layer| &**layer).collect();
    let target = new.layer();
    let input = Input { config: b"{}", base_config: None, known: &[], new: &[&target], old: &sources };
    let patch = make(&input, Budget { make: 512 << 20, apply: 14 << 20, admitted: 24 << 20 }, &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(patch.layers[0].size, new.size);
    assert!(patch.used.len() == old.len());
    let streams = StreamsReader::open(&patch.written.sections, |i| Ok(Box::new(&patch.written.bytes[i][..]))).unwrap();
    let mut applier = Applier::new(streams, &old, 4 << 20).unwrap();
    applier.config(None, &[]).unwrap();
    let mut at = 0;
    let mut wanted = Vec::new();
    let mut sink = |bytes: &[u8]| {
        wanted.resize(bytes.len(), 0);
        new.fill(at, &mut wanted);
        at += bytes.len() as u64;
        if wanted == bytes { Ok(()) } else { Err(io::Error::other(format!("another byte before {at}"))) }
    };
    applier.layer(new.size, &mut sink).unwrap();
    applier.finish().unwrap();
    assert_eq!(at, new.size);
    patch.written.bytes.iter().map(Vec::len).sum()
}

#[test]
fn members_over_2_gib_in_a_layer_over_4_gib() {
    let old = Tar::new(&[("first", 2 * GIB + 7, 1), ("second", 2 * GIB + 1, 2), ("small", 1000, 3)], 1_700_000_000);
    // The first grows and has other marks, the second is moved, the last is new.
    let new = Tar::new(&[("first", 2 * GIB + 99, 4), ("moved/second", 2 * GIB + 1, 2), ("new", 700, 5)], 1_700_000_100);
    assert!(new.size > 4 * GIB);
    let index = LayerIndex::build(&new.layer(), &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!((index.size(), index.files()), (new.size, 3));
    let patch = round_trip(&old, &new);
    let same = round_trip(&new, &new);
    println!("patch {patch}, same {same} bytes");
    // Marks of eight bytes, and zeros.
    assert!(same < 200 && patch < 100_000, "{same} {patch}");
}
