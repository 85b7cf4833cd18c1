//! Writing the streams of a patch.

use std::io::{self, SeekFrom, Write};
use std::sync::atomic::AtomicBool;

use super::bounds::{at_once, in_turn, largest_window, windows};
use super::coder;
use super::differences::Differences;
use super::trial::{self, Coded};
use super::{Section, Stream};
use crate::archive::ScratchFile;
use crate::codec::bidiff::steps;
use crate::progress::{Progress, Watch};
use crate::varint;

/// A stream of at most this many bytes goes into the pack.
const PACKED: usize = 16 * 1024;
/// The pack's own bound, below what readers accept.
const PACK: usize = 512 * 1024;
/// Longer streams are coded in parts of at most this many bytes, as they come.
const PART: usize = 32 << 20;
/// The windows of such parts are shares of the memory for all windows, in sixteenths: text gains most by a long one, then programs.
fn part_share(stream: Stream) -> u64 {
    match stream {
        Stream::Text => 10,
        Stream::Program => 5,
        _ => 1,
    }
}
/// Whoever reads may always take this long, in nanoseconds: starting takes longer.
const TIME: u64 = 10_000_000;
/// Of the 25 nanoseconds that a new byte may take, these are for decoding; the rest is for addresses, digests and copies.
const NEW_BYTE: u64 = 15;

/// Nanoseconds that reading may take for so many new bytes.
fn time_for(new: u64) -> u64 {
    new.saturating_mul(NEW_BYTE).saturating_add(TIME)
}

/// Where the bytes of one stream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSize {
    /// Which stream.
    pub stream: Stream,
    /// Bytes before coding.
    pub raw: u64,
    /// Bytes in the bundle; within the pack, its share by length.
    pub coded: u64,
}

/// The coded streams of a patch.
#[derive(Debug)]
pub struct Written {
    /// The sections, in the order of their bytes.
    pub sections: Vec<Section>,
    /// Their bytes, in the same order; none for those that were put into the scratch file.
    pub bytes: Vec<Vec<u8>>,
    /// The size of each stream, for people.
    pub sizes: Vec<StreamSize>,
    spilled: Option<Spilled>,
}

/// Coded parts in a scratch file.
struct Spilled {
    file: Box<dyn ScratchFile>,
    /// Bytes in it.
    len: u64,
    /// For each section where it is there, if it is.
    places: Vec<Option<u64>>,
}

impl std::fmt::Debug for Spilled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spilled").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Written {
    /// Hands the bytes of all sections to `out`, in order. May be called again.
    pub fn read(&mut self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        for (index, (section, held)) in self.sections.iter().zip(&self.bytes).enumerate() {
            let spilled = self.spilled.as_mut().and_then(|spilled| (*spilled.places.get(index)?).map(|place| (&mut spilled.file, place)));
            let Some((file, place)) = spilled else {
                out(held)?;
                continue;
            };
            file.seek(SeekFrom::Start(place))?;
            steps(section.len, buffer.len(), |len| {
                file.read_exact(&mut buffer[..len])?;
                out(&buffer[..len])
            })?;
        }
        Ok(())
    }
}

/// The bytes of a part that is coded.
enum Place {
    Held(Vec<u8>),
    /// From here on in the scratch file.
    Spilled(u64),
}

/// A part that is coded.
struct Part {
    section: Section,
    place: Place,
    /// About how long reading takes.
    time: u64,
}

impl Part {
    fn held(stream: Stream, coded: Coded) -> Self {
        Self { section: coded.section(stream), time: coded.time(), place: Place::Held(coded.bytes) }
    }
}

/// One stream while it is made.
#[derive(Default)]
struct Buffer {
    held: Vec<u8>,
    /// Old bytes beside the differences that are held.
    beside: Vec<u8>,
    /// Differences that are no longer held.
    differences: Option<Box<Differences>>,
    /// Parts that are full, and those of them that are coded.
    full: Vec<Vec<u8>>,
    coded: Vec<Part>,
}

/// The streams of a patch while it is made.
pub struct StreamsWriter<'a> {
    buffers: Vec<Buffer>,
    /// Bytes of a part, at most.
    part: usize,
    memory: u64,
    /// Where coded parts go.
    spilled: Option<Spilled>,
    watch: Watch<'a>,
    /// Bytes of memory for coding.
    coding: u64,
    /// New bytes that are made, about.
    making: u64,
    /// Of the time for them, what parts of the differences take.
    spent: u64,
}

impl Default for StreamsWriter<'_> {
    fn default() -> Self {
        Self::within(u64::MAX)
    }
}

impl<'a> StreamsWriter<'a> {
    /// For streams that will be finished with this much memory.
    pub fn within(memory: u64) -> Self {
        let buffers = Stream::ALL.iter().map(|_| Buffer::default()).collect();
        Self { buffers, part: PART, memory, spilled: None, watch: Watch::default(), coding: u64::MAX, making: u64::MAX, spent: 0 }
    }

    /// Coding takes about so many bytes of memory at most.
    #[must_use]
    pub fn coding_within(mut self, memory: u64) -> Self {
        self.coding = memory;
        self
    }

    /// About so many new bytes will be made: slow coders of long streams are used only as far as they do not hold that up.
    #[must_use]
    pub fn making(mut self, new: u64) -> Self {
        self.making = new;
        self
    }

    /// Tells how far the coding at the end is, and ends with an error once `cancel` is true.
    #[must_use]
    pub fn watched(mut self, progress: &'a dyn Progress, cancel: &'a AtomicBool) -> Self {
        self.watch = Watch { progress, cancel };
        self
    }

    /// Parts of long streams have about this many bytes, if that is not too few or too many.
    #[must_use]
    pub fn in_parts(mut self, len: u64) -> Self {
        self.part = usize::try_from(len).unwrap_or(PART).clamp(1 << 20, PART);
        self
    }

    /// Parts that are coded go into this file; without one they stay in memory.
    #[must_use]
    pub fn spilling(mut self, file: Option<Box<dyn ScratchFile>>) -> Self {
        self.spilled = file.map(|file| Spilled { file, len: 0, places: Vec::new() });
        self
    }

    /// The window of parts of this stream.
    fn part_window(&self, stream: Stream) -> u32 {
        (self.memory / 16).saturating_mul(part_share(stream)).max(1 << 10).ilog2().min(largest_window(self.coding))
    }

    /// Appends bytes to a stream.
    pub fn put(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if stream == Stream::Difference {
            return self.put_beside(bytes, &[]);
        }
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let buffer = &mut self.buffers[stream as usize];
            let (now, later) = bytes.split_at(bytes.len().min(self.part - buffer.held.len()));
            buffer.held.extend_from_slice(now);
            bytes = later;
            if buffer.held.len() == self.part {
                buffer.full.push(std::mem::take(&mut buffer.held));
                self.code_parts(at_once(self.coding))?;
            }
        }
        Ok(())
    }

    /// Appends differences to the bytes in `old`, of the same length, which whoever reads them will have too.
    pub fn put_beside(&mut self, differences: &[u8], old: &[u8]) -> io::Result<()> {
        let window = self.part_window(Stream::Difference).min(20);
        let buffer = &mut self.buffers[Stream::Difference as usize];
        if buffer.differences.is_none() {
            buffer.held.extend_from_slice(differences);
            buffer.beside.extend_from_slice(old);
            buffer.beside.resize(buffer.held.len(), 0);
            if buffer.held.len() <= PACKED {
                return Ok(());
            }
            buffer.differences = Some(Box::new(Differences::new(window)?));
            let (held, beside) = (std::mem::take(&mut buffer.held), std::mem::take(&mut buffer.beside));
            return self.put_beside(&held, &beside);
        }
        let Some(coding) = &mut buffer.differences else { return Ok(()) };
        coding.put(differences, old)?;
        if coding.len() < self.part * Differences::WAYS {
            return Ok(());
        }
        let Some(coding) = buffer.differences.take() else { return Ok(()) };
        let before = time_for(self.making).saturating_sub(self.spent);
        let mut left = before;
        let coded = coding.finish(&mut left)?;
        self.spent += before - left + coded.time();
        self.keep(Stream::Difference, Part { time: 0, ..Part::held(Stream::Difference, coded) })
    }

    /// Keeps a part that is coded.
    fn keep(&mut self, stream: Stream, mut part: Part) -> io::Result<()> {
        if let (Some(spilled), Place::Held(bytes)) = (&mut self.spilled, &part.place) {
            spilled.file.write_all(bytes)?;
            let at = spilled.len;
            spilled.len += part.section.len;
            part.place = Place::Spilled(at);
        }
        self.buffers[stream as usize].coded.push(part);
        Ok(())
    }

    /// Codes the parts that are full, once there are `enough`.
    fn code_parts(&mut self, enough: usize) -> io::Result<()> {
        if self.buffers.iter().map(|buffer| buffer.full.len()).sum::<usize>() < enough {
            return Ok(());
        }
        let watch = self.watch;
        let windows = Stream::ALL.map(|stream| self.part_window(stream));
        let streams = self.buffers.iter_mut().zip(&Stream::ALL);
        let full: Vec<_> =
            streams.flat_map(|(buffer, &stream)| std::mem::take(&mut buffer.full).into_iter().map(move |part| (stream, part))).collect();
        let code =
            |(stream, part): (Stream, Vec<u8>)| trial::best(stream, &part, windows[stream as usize], watch).map(|coded| (stream, coded));
        for (stream, coded) in in_turn(full, at_once(self.coding), code)? {
            self.keep(stream, Part::held(stream, coded))?;
        }
        Ok(())
    }

    /// Appends a number.
    pub fn number(&mut self, stream: Stream, value: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(10);
        varint::put(&mut bytes, value);
        self.put(stream, &bytes)
    }

    /// Appends a signed number.
    pub fn signed(&mut self, stream: Stream, value: i64) -> io::Result<()> {
        self.number(stream, varint::zigzag(value))
    }

    /// Codes all streams. Their windows together stay within `memory` bytes for whoever reads them.
    pub fn finish(self, memory: u64) -> io::Result<Written> {
        self.finish_for(memory, u64::MAX)
    }

    /// Codes all streams, for whoever makes `new` bytes of them: the slow coders are used only as far as they do not hold it up.
    pub fn finish_for(mut self, memory: u64, new: u64) -> io::Result<Written> {
        let mut time = time_for(new).saturating_sub(self.spent);
        let watch = self.watch;
        let long = |len: usize| if len > PACKED { len as u64 } else { 0 };
        watch.progress.stage("compressing", self.buffers.iter().map(|buffer| long(buffer.held.len())).sum());
        self.code_parts(1)?;
        let (at_once, largest) = (at_once(self.coding), largest_window(self.coding));
        let mut written = Written { sections: Vec::new(), bytes: Vec::new(), sizes: Vec::new(), spilled: self.spilled };
        let mut places = Vec::new();
        let mut packed = Vec::new();
        let mut alone = Vec::new();
        let mut parts: Vec<Part> = Vec::new();
        let mut room = PACK;
        for (mut buffer, &stream) in self.buffers.into_iter().zip(&Stream::ALL) {
            let whole = buffer.coded.is_empty();
            parts.append(&mut buffer.coded);
            if let Some(differences) = buffer.differences {
                parts.push(Part::held(stream, differences.finish(&mut time)?));
            } else if whole && !buffer.held.is_empty() && buffer.held.len() <= PACKED.min(room) {
                room -= buffer.held.len();
                packed.push((stream, buffer.held));
            } else if !buffer.held.is_empty() {
                alone.push((stream, buffer.held));
            }
        }
        time = parts.iter().fold(time, |time, part| time.saturating_sub(part.time));
        let sections: Vec<Section> = parts.iter().map(|part| part.section).collect();
        let taken = super::StreamsReader::memory(&sections);
        let windows = windows(&alone, memory.saturating_sub(taken), largest);
        // The longest first, so that no core waits for one at the end.
        let mut jobs: Vec<_> = alone.into_iter().zip(windows).collect();
        jobs.sort_by_key(|((_, raw), _)| std::cmp::Reverse(raw.len()));
        if !packed.is_empty() {
            let pack = pack(&packed);
            jobs.push(((Stream::Pack, pack), coder::window_for(PACK as u64)));
        }
        let code = |((stream, raw), window): ((Stream, Vec<u8>), u32)| -> io::Result<(Stream, Coded, Option<Coded>)> {
            let coded = trial::best(stream, &raw, window, watch)?;
            watch.go_on()?;
            let mixed = trial::mixed(&raw)?.filter(|mixed| mixed.bytes.len() < coded.bytes.len());
            watch.progress.advance(if stream == Stream::Pack { 0 } else { long(raw.len()) });
            Ok((stream, coded, mixed))
        };
        let mut coded = in_turn(jobs, at_once, code)?;
        time = coded.iter().fold(time, |time, (_, coded, _)| time.saturating_sub(coded.time()));
        // Mixing where it saves most for the time it takes, while time and memory last.
        coded.sort_by_key(|(stream, coded, mixed)| {
            let gain = mixed.as_ref().map_or(0, |mixed| (coded.bytes.len() - mixed.bytes.len()) as u64 * 4096 / mixed.raw_len.max(1));
            (std::cmp::Reverse(gain), *stream)
        });
        let all = |coded: &[(Stream, Coded, Option<Coded>)]| -> Vec<Section> {
            coded.iter().map(|(stream, coded, _)| coded.section(*stream)).chain(sections.iter().copied()).collect()
        };
        let mut sections_now = all(&coded);
        for (index, (stream, coded, mixed)) in coded.iter_mut().enumerate() {
            let Some(mixed) = mixed.take() else { continue };
            let before = std::mem::replace(&mut sections_now[index], mixed.section(*stream));
            let fits = super::StreamsReader::memory(&sections_now) <= memory
                || *stream == Stream::Pack
                || before.coder.memory(before.raw_len) >= mixed.coder.memory(mixed.raw_len);
            if fits && mixed.time() <= time {
                time -= mixed.time();
                *coded = mixed;
            } else {
                sections_now[index] = before;
            }
        }
        parts.extend(coded.into_iter().map(|(stream, coded, _)| Part::held(stream, coded)));
        // Sorting keeps the order of a stream's parts; what was held of it came last.
        parts.sort_by_key(|part| part.section.stream);
        for Part { section, place, .. } in parts {
            if section.stream == Stream::Pack {
                let share = |len: usize| (len as u64 * section.len) / section.raw_len.max(1);
                let size =
                    |(stream, raw): &(Stream, Vec<u8>)| StreamSize { stream: *stream, raw: raw.len() as u64, coded: share(raw.len()) };
                written.sizes.extend(packed.iter().map(size));
            } else if let Some(size) = written.sizes.iter_mut().find(|size| size.stream == section.stream) {
                size.raw += section.raw_len;
                size.coded += section.len;
            } else {
                written.sizes.push(StreamSize { stream: section.stream, raw: section.raw_len, coded: section.len });
            }
            written.sections.push(section);
            let (bytes, place) = match place {
                Place::Held(bytes) => (bytes, None),
                Place::Spilled(at) => (Vec::new(), Some(at)),
            };
            written.bytes.push(bytes);
            places.push(place);
        }
        if let Some(spilled) = &mut written.spilled {
            spilled.places = places;
        }
        Ok(written)
    }
}

impl Coded {
    fn section(&self, stream: Stream) -> Section {
        Section { stream, coder: self.coder, raw_len: self.raw_len, len: self.bytes.len() as u64 }
    }
}

fn pack(streams: &[(Stream, Vec<u8>)]) -> Vec<u8> {
    let mut pack = Vec::new();
    for (stream, bytes) in streams {
        pack.push(*stream as u8);
        varint::put(&mut pack, bytes.len() as u64);
    }
    pack.push(0);
    for (_, bytes) in streams {
        pack.extend_from_slice(bytes);
    }
    pack
}

impl std::fmt::Debug for StreamsWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamsWriter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::{Coder, StreamsReader};
    use super::*;
    use proptest::prelude::*;

    fn noise(len: u32, of: u32) -> Vec<u8> {
        let next = |i: u32| (i.wrapping_mul(0x9e37_79b9) ^ (i >> 3)).wrapping_mul(0x85eb_ca6b) >> 24;
        (0..len).map(|i| u8::try_from(next(i) % of).unwrap()).collect()
    }

    fn read(written: &Written, stream: Stream) -> Vec<u8> {
        let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&written.bytes[i][..]))).unwrap();
        let mut bytes = Vec::new();
        reader.get(stream).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_very_long_stream_comes_in_parts() {
        let mut writer = StreamsWriter::within(1 << 20);
        writer.part = 20_000;
        let (text, program) = (noise(90_000, 5), noise(50_001, 256));
        for (text, program) in text.chunks(7000).zip(program.chunks(7000)) {
            writer.put(Stream::Text, text).unwrap();
            writer.put(Stream::Program, program).unwrap();
        }
        for rest in text.chunks(7000).skip(8) {
            writer.put(Stream::Text, rest).unwrap();
        }
        let written = writer.finish(1 << 20).unwrap();
        assert_eq!(written.sections.iter().filter(|section| section.stream == Stream::Text).count(), 5);
        assert!(written.sections.is_sorted_by_key(|section| section.stream));
        assert_eq!(read(&written, Stream::Text), text);
        assert_eq!(read(&written, Stream::Program), program);
        assert!(StreamsReader::memory(&written.sections) <= 1 << 20);
    }

    #[test]
    fn parts_in_a_scratch_file_come_in_their_places() {
        let (text, program) = (noise(90_000, 5), noise(50_001, 256));
        let write = |file: Option<Box<dyn ScratchFile>>| {
            let mut writer = StreamsWriter::within(1 << 20).spilling(file);
            writer.part = 20_000;
            writer.put(Stream::Text, &text).unwrap();
            writer.put(Stream::Program, &program).unwrap();
            writer.put(Stream::Seek, &text[..500]).unwrap();
            writer.finish(1 << 20).unwrap()
        };
        let held = write(None);
        let mut spilled = write(Some(Box::new(std::io::Cursor::new(Vec::new()))));
        assert_eq!(held.sections, spilled.sections);
        assert!(spilled.bytes.iter().filter(|bytes| bytes.is_empty()).count() >= 5);
        for _ in 0..2 {
            let mut bytes = Vec::new();
            let mut out = |some: &[u8]| {
                bytes.extend_from_slice(some);
                Ok(())
            };
            spilled.read(&mut out).unwrap();
            assert_eq!(bytes, held.bytes.concat());
        }
    }

    #[test]
    fn very_many_differences_come_in_parts() {
        let old = noise(400_000, 256);
        let dense = noise(200_000, 251);
        let sparse: Vec<u8> = (0..200_000u32).map(|i| if i % 97 < 30 { u8::try_from(i % 5).unwrap() } else { 0 }).collect();
        let differences = [dense, sparse].concat();
        let mut bytes = Vec::new();
        for file in [None, Some(Box::new(std::io::Cursor::new(Vec::new())) as Box<dyn ScratchFile>)] {
            let spilled = file.is_some();
            let mut writer = StreamsWriter::default().spilling(file);
            writer.part = 20_000;
            for (some, old) in differences.chunks(7000).zip(old.chunks(7000)) {
                writer.put_beside(some, old).unwrap();
            }
            let mut written = writer.finish(u64::MAX).unwrap();
            let lens: Vec<_> = written.sections.iter().map(|section| section.len).collect();
            assert!(written.sections.len() > 4 && lens.iter().all(|len| *len < 80_000), "{:?}", written.sections);
            assert_eq!(written.bytes.iter().any(Vec::is_empty), spilled);
            let mut all = Vec::new();
            let mut keep = |some: &[u8]| {
                all.extend_from_slice(some);
                Ok(())
            };
            written.read(&mut keep).unwrap();
            let starts = lens.iter().scan(0, |at, len| Some(std::mem::replace(at, *at + usize::try_from(*len).unwrap())));
            let starts: Vec<_> = starts.collect();
            let mut reader = StreamsReader::open(&written.sections, |i| Ok(Box::new(&all[starts[i]..]))).unwrap();
            let mut read = vec![0; differences.len()];
            for (some, old) in read.chunks_mut(9001).zip(old.chunks(9001)) {
                reader.get(Stream::Difference).read_beside(some, old).unwrap();
            }
            assert!(read == differences);
            drop(reader);
            bytes.push(all);
        }
        assert!(bytes[0] == bytes[1]);
    }

    #[test]
    fn dense_differences_and_slow_coders_are_left_out_when_time_is_short() {
        let dense = noise(3_000_000, 256);
        let mut writer = StreamsWriter::default();
        writer.put_beside(&dense, &dense).unwrap();
        writer.put(Stream::Seek, &noise(900_000, 3)).unwrap();
        let written = writer.finish_for(u64::MAX, 0).unwrap();
        assert!(
            written.sections.iter().all(|section| !matches!(section.coder, Coder::Mix | Coder::Sparse | Coder::FastSparse)),
            "{:?}",
            written.sections
        );
        assert_eq!(read(&written, Stream::Difference), dense);
    }

    #[test]
    fn program_text_goes_to_lzma() {
        // Calls of one function from many places.
        let words = noise(60_000, 256);
        let program: Vec<u8> = (0..60_000u32)
            .zip(&words)
            .flat_map(|(i, &word)| {
                let to = 0x4000u32.wrapping_sub(i * 8 + 5);
                [&[0xe8][..], &to.to_le_bytes(), &[word & 7, 0x90, 0xc3]].concat()
            })
            .collect();
        let mut writer = StreamsWriter::default();
        writer.put(Stream::Program, &program).unwrap();
        let written = writer.finish_for(8 << 20, 0).unwrap();
        assert!(matches!(written.sections[0].coder, Coder::Lzma(super::super::Filter::X86, _)), "{:?}", written.sections);
        assert_eq!(read(&written, Stream::Program), program);
        // Cut off, it is an error.
        let cut = Written { bytes: vec![written.bytes[0][..written.bytes[0].len() / 2].to_vec()], ..written };
        let mut reader = StreamsReader::open(&cut.sections, |i| Ok(Box::new(&cut.bytes[i][..]))).unwrap();
        assert!(reader.get(Stream::Program).read_to_end(&mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn foreign_sections_end(number in prop_oneof![Just(44u8), Just(76), Just(108), Just(128), Just(129), Just(130), Just(17)], coded in proptest::collection::vec(any::<u8>(), 0..200)) {
            let coder = Coder::from_number(number).unwrap();
            for stream in [Stream::Difference, Stream::Program, Stream::Pack] {
                let sections = [Section { stream, coder, raw_len: 3000, len: coded.len() as u64 }];
                let Ok(mut reader) = StreamsReader::open(&sections, |_| Ok(Box::new(&coded[..]))) else { continue };
                let mut read = Vec::new();
                reader.get(stream).read_to_end(&mut read).ok();
                prop_assert!(read.len() <= 3000);
            }
        }
    }
}
