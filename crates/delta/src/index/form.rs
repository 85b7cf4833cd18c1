//! An index as bytes: columns, one after the other, in one zstd frame. `docs/formats/index.md` is the format.

use std::io::{self, Read, Write};

use super::sketch::{MOST, Sketch};
use super::{File, Keys, LayerIndex};
use crate::codec::Kind;
use crate::varint;

/// An index begins with these bytes; the last is its version.
pub const MAGIC: [u8; 4] = *b"SKI\x01";

/// The longest path.
const PATH: usize = 1 << 20;

/// Bytes that the index of a layer of `size` bytes has at most, before compression, if it is honest.
pub fn limit(size: u64) -> u64 {
    // No member is shorter than a block; a path beyond a header's hundred bytes has a block of its own for each 512.
    size.saturating_mul(4).saturating_add(1 << 16)
}

impl LayerIndex {
    /// Writes the index.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut columns: [Vec<u8>; 7] = Default::default();
        let [paths, sizes, costs, kinds, hashes, counts, sketches] = &mut columns;
        let mut last: &[u8] = &[];
        for file in &self.files {
            let shared = last.iter().zip(&file.path).take_while(|(a, b)| a == b).count();
            varint::put(paths, shared as u64);
            varint::put(paths, (file.path.len() - shared) as u64);
            paths.extend_from_slice(&file.path[shared..]);
            last = &file.path;
            varint::put(sizes, file.size);
            varint::put(costs, file.cost);
            kinds.push(file.kind as u8);
            hashes.extend(file.hash.to_le_bytes());
            varint::put(counts, (file.sketch.len() as u64) << 1 | u64::from(file.sketch.whole));
            let mut before = 0;
            for &hash in &file.sketch.hashes {
                varint::put(sketches, u64::from(hash - before));
                before = hash;
            }
        }
        let mut head = Vec::new();
        for number in [self.size, self.bare, self.raw, self.files.len() as u64] {
            varint::put(&mut head, number);
        }
        out.write_all(&MAGIC)?;
        let mut encoder = zstd::stream::write::Encoder::new(out, 9)?;
        encoder.include_checksum(true)?;
        encoder.write_all(&head)?;
        for column in &columns {
            encoder.write_all(&(column.len() as u64).to_le_bytes())?;
            encoder.write_all(column)?;
        }
        encoder.finish()?.flush()
    }

    /// Reads an index of at most `limit` bytes before compression; memory stays within a small multiple of that. `InvalidData` when it is
    /// none, or of another version: it is to be made again then.
    pub fn read(from: impl Read, limit: u64) -> io::Result<Self> {
        let mut from = io::BufReader::new(from);
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(|_| invalid("it is too short"))?;
        if magic[..3] != MAGIC[..3] {
            return Err(invalid("it is another kind of file"));
        }
        if magic != MAGIC {
            return Err(invalid(&format!("it has version {}, this program reads version {}", magic[3], MAGIC[3])));
        }
        let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
        decoder.window_log_max(27)?;
        let mut bytes = Vec::new();
        decoder.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| invalid(&error.to_string()))?;
        if bytes.len() as u64 > limit {
            return Err(invalid(&format!("it has more than {limit} bytes")));
        }
        parse(&bytes, limit)
    }
}

fn parse(bytes: &[u8], limit: u64) -> io::Result<LayerIndex> {
    let mut rest = bytes;
    let [size, bare, raw, count] = [varint::get(&mut rest)?, varint::get(&mut rest)?, varint::get(&mut rest)?, varint::get(&mut rest)?];
    let mut columns: [&[u8]; 7] = Default::default();
    for column in &mut columns {
        let (len, after) = rest.split_first_chunk::<8>().ok_or_else(|| invalid("it ends too early"))?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok().filter(|len| *len <= after.len());
        (*column, rest) = after.split_at(len.ok_or_else(|| invalid("a column is longer than the file"))?);
    }
    let [mut paths, mut sizes, mut costs, kinds, hashes, mut counts, mut sketches] = columns;
    // A byte of kind and eight of hash for each: so the number of files is bounded by the bytes that are there.
    if kinds.len() as u64 != count || hashes.len() != kinds.len().saturating_mul(8) {
        return Err(invalid("its columns are not of one length"));
    }
    let mut files = Vec::with_capacity(kinds.len());
    let (mut last, mut names) = (Vec::new(), 0u64);
    for (kind, hash) in kinds.iter().zip(hashes.chunks_exact(8)) {
        let path = path(&mut paths, &last)?;
        last.clone_from(&path);
        // A short column can ask for much memory: each path may repeat all of the one before.
        names = names.saturating_add(path.len() as u64);
        if path.len() > PATH || names > limit {
            return Err(invalid("its paths are too long"));
        }
        let head = varint::get(&mut counts)?;
        let sketch = Sketch { hashes: sketch(&mut sketches, head >> 1)?, whole: head & 1 == 1 };
        files.push(File {
            size: varint::get(&mut sizes)?,
            cost: varint::get(&mut costs)?,
            kind: Kind::from_number(*kind).ok_or_else(|| invalid("an unknown kind of file"))?,
            hash: hash.try_into().map(u64::from_le_bytes).expect("chunks of eight bytes"),
            keys: Keys::of(&path),
            path,
            sketch,
        });
    }
    if [paths, sizes, costs, counts, sketches, rest].iter().any(|rest| !rest.is_empty()) {
        return Err(invalid("it has bytes after its end"));
    }
    Ok(LayerIndex { size, bare, raw, files })
}

fn path(from: &mut &[u8], last: &[u8]) -> io::Result<Vec<u8>> {
    let (shared, len) = (varint::get(from)?, varint::get(from)?);
    let shared = usize::try_from(shared).ok().and_then(|len| last.get(..len));
    let own = usize::try_from(len).ok().and_then(|len| from.split_at_checked(len));
    let (Some(shared), Some((own, rest))) = (shared, own) else { return Err(invalid("a path is longer than its column")) };
    *from = rest;
    Ok([shared, own].concat())
}

fn sketch(from: &mut &[u8], count: u64) -> io::Result<Vec<u32>> {
    let count = usize::try_from(count).ok().filter(|count| *count <= MOST).ok_or_else(|| invalid("a sketch is too long"))?;
    let mut hashes = Vec::with_capacity(count);
    let mut before = 0u32;
    for _ in 0..count {
        let step = u32::try_from(varint::get(from)?).ok();
        before = step.and_then(|step| before.checked_add(step)).ok_or_else(|| invalid("a sketch is out of order"))?;
        hashes.push(before);
    }
    Ok(hashes)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a usable index of a layer: {what}"))
}
