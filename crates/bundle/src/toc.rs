//! The table of contents: what a bundle makes, from what, at what cost, and the digests of its chunks.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::ops::Range;

use ring::digest;
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteBuf;
use skerry_delta::codec::Codec;
use skerry_delta::stream::{Coder, Section, Stream};
use skerry_trust::{EnvelopeError, KeyId, KeyRing, envelope};
use skerry_wire::{DiffId, Digest, ImageId, cbor, limits};

use crate::{PURPOSE, head};

/// Layers that one base may have, at most; a layer's place is written as base times this plus its index.
pub const BASE_LAYERS: u32 = 512;
const _: () = assert!(BASE_LAYERS as usize == limits::LAYERS, "a part of the format");

/// The features that a reader of this version knows. 1: the patch as described in `docs/formats/patch.md`. 2: streams coded by LZMA.
/// 3: streams coded by context mixing. 4, 5, 6: contents by the codecs of these numbers, program, bytecode and archive. 7: differences
/// coded by the fast model of context mixing. 8: contents kept for later ones. 9: contents deflated as GNU gzip does it.
/// 10: class data by the codec of programs.
const KNOWN_FEATURES: [u16; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
/// Bytes of a chunk's digest: the first of its SHA-256.
pub(crate) const CHUNK_DIGEST: usize = 16;
/// Base images of one bundle.
pub(crate) const BASES: usize = 64;
/// Sections of one bundle: a long stream has one for every 32 MiB.
pub(crate) const SECTIONS: usize = 8192;
/// Chunks of one payload; their digests leave room in the table for the rest of it.
pub(crate) const CHUNKS: usize = limits::BUNDLE_TOC / 8 * 7 / CHUNK_DIGEST;
/// Features that a table may name.
const FEATURES: usize = 64;
/// The window of a compressed table, as a power of two: what the strongest levels of zstd use.
const WINDOW_LOG: u32 = 22;
/// Tables shorter than this are not worth compressing.
const COMPRESS_FROM: usize = 1024;

/// Why a table of contents was refused.
#[derive(Debug, thiserror::Error)]
pub enum TocError {
    /// Another kind of file.
    #[error("this is not a Skerry bundle")]
    NotABundle,
    /// A container of another version.
    #[error("the bundle has container version {found}, this program reads version {known}: bring them to the same release")]
    Version {
        /// Its version.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// Cut off.
    #[error("the bundle ends after {len} bytes, within its table of contents")]
    Short {
        /// Bytes that are there.
        len: u64,
    },
    /// Longer than allowed.
    #[error("the bundle's table of contents of {len} bytes is over the limit of {}", limits::BUNDLE_TOC)]
    TooLong {
        /// Its length.
        len: u64,
    },
    /// Not signed by a key that may.
    #[error("the bundle's table of contents: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Uses what this version does not know.
    #[error("the bundle needs feature {feature}, which this version does not know: update the agent")]
    Feature {
        /// Its number.
        feature: u16,
    },
    /// Signed, and still wrong.
    #[error("the bundle's table of contents has {0}")]
    Malformed(&'static str),
    /// Reading failed.
    #[error("reading the bundle: {0}")]
    Io(#[from] std::io::Error),
    /// A chunk's bytes are not those that were signed.
    #[error("chunk {index} of the bundle is damaged: fetch it again")]
    Chunk {
        /// Which.
        index: u32,
    },
}

/// A layer of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerPlace {
    /// Which base, counted from 0.
    pub base: u32,
    /// Which of its layers, counted from 0.
    pub layer: u32,
}

/// A layer of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetLayer {
    /// One that a base has.
    Known(LayerPlace),
    /// One that the bundle makes.
    New {
        /// Its digest.
        diff_id: DiffId,
        /// Bytes of its tar.
        size: u64,
    },
}

/// The table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// What a reader must know, in rising order.
    pub features: Vec<u16>,
    /// What is made.
    pub target: ImageId,
    /// The base images; none in a full bundle. The target's configuration is coded against the first's.
    pub bases: Vec<ImageId>,
    /// The layers of bases that are read, in the order in which the patch counts them.
    pub used: Vec<LayerPlace>,
    /// The target's layers, lowest first.
    pub layers: Vec<TargetLayer>,
    /// The streams of the patch: the payload, one after the other.
    pub sections: Vec<Section>,
    /// Bytes of memory that applying needs at most for windows, buffers and tables.
    pub memory: u64,
    /// Bytes of disk that applying needs at most beside the bundle.
    pub disk: u64,
    /// The digests of the payload's chunks.
    pub(crate) chunks: Vec<u8>,
}

/// The table as it is written: CBOR arrays, places as one number, sections flat.
#[derive(Serialize, Deserialize)]
struct Written(
    Few<u16, FEATURES>,
    ByteBuf,
    Few<ByteBuf, BASES>,
    Few<u32, { BASES * limits::LAYERS }>,
    Few<WrittenLayer, { limits::LAYERS }>,
    Few<u64, { 4 * SECTIONS }>,
    u64,
    u64,
    ByteBuf,
);

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenLayer {
    Known(u32),
    New(ByteBuf, u64),
}

/// Not derived: that would hold whatever stands for a layer in memory before it looks at it.
impl<'de> Deserialize<'de> for WrittenLayer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Layer;
        impl<'de> Visitor<'de> for Layer {
            type Value = WrittenLayer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the place of a layer, or its digest and size")
            }
            fn visit_u64<E: de::Error>(self, place: u64) -> Result<WrittenLayer, E> {
                u32::try_from(place).map(WrittenLayer::Known).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WrittenLayer, A::Error> {
                let diff_id = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let size = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                if seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(de::Error::invalid_length(3, &self));
                }
                Ok(WrittenLayer::New(diff_id, size))
            }
        }
        deserializer.deserialize_any(Layer)
    }
}

/// An array of at most so many. A table of a few kilobytes, compressed, can hold millions.
#[derive(Serialize)]
#[serde(transparent)]
struct Few<T, const MOST: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for All<T, MOST> {
            type Value = Few<T, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {MOST}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T, MOST>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    if all.len() == MOST {
                        return Err(de::Error::invalid_length(MOST + 1, &self));
                    }
                    all.push(one);
                }
                Ok(Few(all))
            }
        }
        deserializer.deserialize_seq(All(PhantomData))
    }
}

/// Takes bytes.
type Put<'p> = dyn FnMut(&[u8]) -> std::io::Result<()> + 'p;

impl Toc {
    /// A table for a payload, which is read to its end: `payload` hands its bytes to what it is given.
    pub(crate) fn new(mut toc: Self, payload: &mut dyn FnMut(&mut Put<'_>) -> std::io::Result<()>) -> std::io::Result<Self> {
        let mut chunks = Vec::new();
        let mut chunk = digest::Context::new(&digest::SHA256);
        let mut room = limits::CHUNK;
        payload(&mut |mut part| {
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(room));
                chunk.update(now);
                room -= now.len();
                part = later;
                if room == 0 {
                    let done = std::mem::replace(&mut chunk, digest::Context::new(&digest::SHA256));
                    chunks.extend_from_slice(&done.finish().as_ref()[..CHUNK_DIGEST]);
                    room = limits::CHUNK;
                }
            }
            Ok(())
        })?;
        if room < limits::CHUNK {
            chunks.extend_from_slice(&chunk.finish().as_ref()[..CHUNK_DIGEST]);
        }
        toc.chunks = chunks;
        Ok(toc)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, std::io::Error> {
        let place = |place: &LayerPlace| place.base * BASE_LAYERS + place.layer;
        let layer = |layer: &TargetLayer| match layer {
            TargetLayer::Known(at) => WrittenLayer::Known(place(at)),
            TargetLayer::New { diff_id, size } => WrittenLayer::New(ByteBuf::from(*diff_id.digest().as_bytes()), *size),
        };
        let section = |s: &Section| [s.stream as u64, u64::from(s.coder.number()), s.raw_len, s.len];
        let plain = cbor::encode(&Written(
            Few(self.features.clone()),
            ByteBuf::from(*self.target.digest().as_bytes()),
            Few(self.bases.iter().map(|id| ByteBuf::from(*id.digest().as_bytes())).collect()),
            Few(self.used.iter().map(place).collect()),
            Few(self.layers.iter().map(layer).collect()),
            Few(self.sections.iter().flat_map(section).collect()),
            self.memory.div_ceil(1024),
            self.disk.div_ceil(1024),
            ByteBuf::from(self.chunks.clone()),
        ));
        let mut bytes = vec![0];
        if plain.len() >= COMPRESS_FROM {
            let frame = zstd::bulk::compress(&plain, 19)?;
            if frame.len() < plain.len() {
                bytes[0] = 1;
                bytes.extend(frame);
                return Ok(bytes);
            }
        }
        bytes.extend(plain);
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, TocError> {
        let (form, rest) = bytes.split_first().ok_or(TocError::Malformed("no bytes"))?;
        let plain = match form {
            0 => rest.to_vec(),
            1 => {
                let mut plain = Vec::new();
                let mut decoder = zstd::stream::read::Decoder::with_buffer(rest)?;
                decoder.window_log_max(WINDOW_LOG)?;
                decoder.take(limits::BUNDLE_TOC as u64).read_to_end(&mut plain)?;
                plain
            }
            _ => return Err(TocError::Malformed("an unknown form")),
        };
        // Features first: what follows may have changed with them.
        let features: FirstField = cbor::decode(&plain, limits::BUNDLE_TOC).map_err(EnvelopeError::Payload)?;
        if let Some(&feature) = features.0.iter().find(|feature| !KNOWN_FEATURES.contains(feature)) {
            return Err(TocError::Feature { feature });
        }
        let written: Written = cbor::decode(&plain, limits::BUNDLE_TOC).map_err(EnvelopeError::Payload)?;
        Self::from_written(written)
    }

    fn from_written(written: Written) -> Result<Self, TocError> {
        let Written(Few(features), target, Few(bases), Few(used), Few(layers), Few(sections), memory, disk, chunks) = written;
        if layers.is_empty() {
            return Err(TocError::Malformed("no layers"));
        }
        let count = u32::try_from(bases.len()).unwrap_or(0);
        let place = |number: u32| {
            let place = LayerPlace { base: number / BASE_LAYERS, layer: number % BASE_LAYERS };
            if place.base < count { Ok(place) } else { Err(TocError::Malformed("a layer of no base")) }
        };
        let layer = |layer: WrittenLayer| match layer {
            WrittenLayer::Known(number) => place(number).map(TargetLayer::Known),
            WrittenLayer::New(diff_id, size) => Ok(TargetLayer::New { diff_id: DiffId(digest_of(&diff_id)?), size }),
        };
        let toc = Self {
            features,
            target: ImageId(digest_of(&target)?),
            bases: bases.iter().map(|id| digest_of(id).map(ImageId)).collect::<Result<_, _>>()?,
            used: used.into_iter().map(place).collect::<Result<_, _>>()?,
            layers: layers.into_iter().map(layer).collect::<Result<_, _>>()?,
            sections: sections_of(&sections)?,
            memory: memory.saturating_mul(1024),
            disk: disk.saturating_mul(1024),
            chunks: chunks.into_vec(),
        };
        let total = toc.sections.iter().try_fold(0u64, |sum, section| sum.checked_add(section.len));
        let total = total.ok_or(TocError::Malformed("sections beyond 64 bits"))?;
        if toc.chunks.len() as u64 != total.div_ceil(limits::CHUNK as u64).saturating_mul(CHUNK_DIGEST as u64) {
            return Err(TocError::Malformed("another number of chunks than its sections need"));
        }
        Ok(toc)
    }

    /// Bytes of payload.
    pub fn payload_len(&self) -> u64 {
        self.sections.iter().map(|section| section.len).sum()
    }
}

/// The first field of the table, whatever follows.
struct FirstField(Vec<u16>);

impl<'de> Deserialize<'de> for FirstField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = FirstField;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of contents")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FirstField, A::Error> {
                let Few::<u16, FEATURES>(first) = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstField(first))
            }
        }
        deserializer.deserialize_seq(First)
    }
}

fn digest_of(bytes: &[u8]) -> Result<Digest, TocError> {
    bytes.try_into().map(Digest::new).map_err(|_| TocError::Malformed("a digest that is not of 32 bytes"))
}

/// What a reader must know to read these sections and apply these codecs, and more.
pub(crate) fn features(sections: &[Section], codecs: impl IntoIterator<Item = Codec>, more: &[u16]) -> Vec<u16> {
    let mut features = std::collections::BTreeSet::from([1]);
    features.extend(more);
    features.extend(codecs.into_iter().filter_map(|codec| match codec {
        Codec::Copy | Codec::New | Codec::Bidiff | Codec::Dictionary => None,
        Codec::Elf => Some(4),
        Codec::Bytecode => Some(5),
        Codec::Archive => Some(6),
    }));
    features.extend(sections.iter().filter_map(|section| match section.coder {
        Coder::Raw | Coder::Zstd(_) => None,
        Coder::Lzma(..) => Some(2),
        Coder::Mix | Coder::Sparse => Some(3),
        Coder::FastSparse => Some(7),
    }));
    features.into_iter().collect()
}

fn sections_of(numbers: &[u64]) -> Result<Vec<Section>, TocError> {
    let mut sections: Vec<Section> = Vec::new();
    if !numbers.len().is_multiple_of(4) {
        return Err(TocError::Malformed("half a section"));
    }
    for four in numbers.chunks_exact(4) {
        let stream = u8::try_from(four[0]).ok().and_then(Stream::from_number);
        let coder = u8::try_from(four[1]).ok().and_then(Coder::from_number);
        let (Some(stream), Some(coder)) = (stream, coder) else {
            return Err(TocError::Malformed("an unknown stream or coder"));
        };
        // A very long stream has several sections, one after the other; the pack has one.
        if sections.last().is_some_and(|last| last.stream > stream || (stream == Stream::Pack && last.stream == stream)) {
            return Err(TocError::Malformed("sections out of order"));
        }
        sections.push(Section { stream, coder, raw_len: four[2], len: four[3] });
    }
    Ok(sections)
}

/// A table of contents whose signature holds, and its place in the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToc {
    toc: Toc,
    /// Where the payload begins.
    start: u64,
    key_id: KeyId,
}

impl VerifiedToc {
    /// Verifies the table in the first bytes of a bundle; more bytes may follow.
    pub fn open(first: &[u8], keys: &KeyRing) -> Result<Self, TocError> {
        let range = head::toc_range(first)?;
        let short = TocError::Short { len: first.len() as u64 };
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else { return Err(short) };
        let bytes = first.get(start..end).ok_or(short)?;
        let verified = envelope::verify(bytes, PURPOSE, keys, limits::BUNDLE_TOC)?;
        Ok(Self { toc: Toc::decode(&verified.payload)?, start: range.end, key_id: verified.key_id })
    }

    /// Reads and verifies the table at the start of a bundle.
    pub fn read(bundle: &mut impl Read, keys: &KeyRing) -> Result<Self, TocError> {
        let mut first = Vec::new();
        bundle.take(head::LEN as u64).read_to_end(&mut first)?;
        let range = head::toc_range(&first)?;
        bundle.take(range.end.saturating_sub(first.len() as u64)).read_to_end(&mut first)?;
        Self::open(&first, keys)
    }

    /// The table.
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// The key that signed it.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Bytes of the whole bundle.
    pub fn size(&self) -> u64 {
        self.start.saturating_add(self.toc.payload_len())
    }

    /// Where the payload begins in the bundle.
    pub fn payload_start(&self) -> u64 {
        self.start
    }

    /// How many chunks the payload has.
    pub fn chunk_count(&self) -> u32 {
        u32::try_from(self.toc.chunks.len() / CHUNK_DIGEST).unwrap_or(u32::MAX)
    }

    /// The bytes of the bundle that are this chunk.
    pub fn chunk_range(&self, index: u32) -> Range<u64> {
        let start = self.start.saturating_add(u64::from(index) * limits::CHUNK as u64).min(self.size());
        start..start.saturating_add(limits::CHUNK as u64).min(self.size())
    }

    /// Checks the bytes of a chunk.
    pub fn verify_chunk(&self, index: u32, bytes: &[u8]) -> Result<(), TocError> {
        let expected = self.toc.chunks.chunks_exact(CHUNK_DIGEST).nth(index as usize);
        let range = self.chunk_range(index);
        let right = bytes.len() as u64 == range.end - range.start
            && expected == Some(&digest::digest(&digest::SHA256, bytes).as_ref()[..CHUNK_DIGEST]);
        if right { Ok(()) } else { Err(TocError::Chunk { index }) }
    }

    /// The bytes of the bundle that are a section.
    pub fn section_range(&self, index: usize) -> Range<u64> {
        let before: u64 = self.toc.sections.iter().take(index).map(|section| section.len).sum();
        let start = self.start + before;
        start..start + self.toc.sections.get(index).map_or(0, |section| section.len)
    }
}

#[cfg(test)]
mod tests;
