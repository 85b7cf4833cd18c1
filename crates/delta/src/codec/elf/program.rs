//! What an ELF file says of itself: where its bytes are in memory, and what its sections hold. So does an archive of class data: one
//! segment of words.

use std::io::{self, Read, SeekFrom};

use super::debug::Places;
use crate::source::ReadSeek;

/// So many first bytes of a file hold the headers that both sides read; others are not understood.
pub(super) const HEAD: usize = 4096;
/// Program headers of one file.
const SEGMENTS: usize = 64;
/// Sections of one file.
const SECTIONS: usize = 256;
/// Bytes of section names.
const NAMES: u64 = 16 << 10;

/// Addresses of bytes of the file that are not in memory, or that are meant by their place in the file, begin here.
pub(super) const FILE: u64 = 1 << 62;
/// Numbers of lines of source begin here.
pub(super) const LINE: u64 = 1 << 61;

const SEGMENT: usize = 56;
const SECTION: usize = 64;
const LOAD: u32 = 1;
const UNWIND_TABLE: u32 = 0x6474_e550;
const NOBITS: u32 = 8;

/// How an archive of class data begins.
const CLASS_DATA: [u8; 4] = 0xf00b_aba2_u32.to_le_bytes();
const PAGE: u64 = 4096;
/// Where its first region is meant to be in memory.
const SHARED_BASE: u64 = 0x8_0000_0000;
/// Its regions end before this.
const REGIONS: u64 = 1 << 32;

/// The instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Machine {
    X86,
    Arm,
}

/// A run of bytes of the file in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub offset: u64,
    pub address: u64,
    pub file_size: u64,
    pub memory_size: u64,
    pub code: bool,
}

/// The segments of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Program {
    pub machine: Machine,
    pub segments: Vec<Segment>,
    /// Where the table over the unwinding entries is, in memory.
    pub unwind_table: u64,
    sections: u64,
    section_count: usize,
    names: usize,
    /// Not an ELF file, but class data.
    class_data: bool,
}

/// What a part of a file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Holds {
    Code,
    /// Relocations with addends.
    Relocations,
    Symbols,
    /// Unwinding entries.
    Unwind,
    /// The sorted table over them.
    UnwindTable,
    /// Words that may be addresses.
    Words,
    /// Constants, among them tables of how far the cases of a function are.
    Constants,
    /// Debugging information.
    Debug,
    /// Lists of addresses at any place.
    Addresses,
    /// Words that may be addresses, and rows of halves of which every other one is an offset.
    ClassData,
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub start: u64,
    pub end: u64,
    pub holds: Holds,
    /// The start of the section that it refers to.
    pub link: u64,
}

impl Program {
    /// Reads the headers at the start of a file; `None` when it is not a program for a machine known here, or a strange one.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        if head.starts_with(&CLASS_DATA) {
            return Self::class_data(head);
        }
        if !head.starts_with(b"\x7fELF\x02\x01") || head.len() < 64 {
            return None;
        }
        let machine = match u16_at(head, 18)? {
            62 => Machine::X86,
            183 => Machine::Arm,
            _ => return None,
        };
        let start = usize::try_from(u64_at(head, 32)?).ok()?;
        let count = usize::from(u16_at(head, 56)?);
        if usize::from(u16_at(head, 54)?) != SEGMENT || count > SEGMENTS {
            return None;
        }
        let mut program = Self {
            machine,
            segments: Vec::new(),
            unwind_table: 0,
            sections: u64_at(head, 40)?,
            section_count: usize::from(u16_at(head, 60)?),
            names: usize::from(u16_at(head, 62)?),
            class_data: false,
        };
        for header in head.get(start..start.checked_add(count * SEGMENT)?)?.chunks_exact(SEGMENT) {
            let segment = Segment {
                offset: u64_at(header, 8)?,
                address: u64_at(header, 16)?,
                file_size: u64_at(header, 32)?,
                memory_size: u64_at(header, 40)?,
                code: u32_at(header, 4)? & 1 != 0,
            };
            match u32_at(header, 0)? {
                // Sums of places and sizes stay far from overflow.
                LOAD if [segment.offset, segment.address, segment.memory_size].iter().all(|n| *n < 1 << 48)
                    && segment.file_size <= segment.memory_size =>
                {
                    program.segments.push(segment);
                }
                LOAD => return None,
                UNWIND_TABLE => program.unwind_table = segment.address,
                _ => {}
            }
        }
        (!program.segments.is_empty()).then_some(program)
    }

    /// An archive of class data of HotSpot: its regions go to memory as they follow each other, the first, from the second page on, to
    /// the same address in all of them.
    fn class_data(head: &[u8]) -> Option<Self> {
        let mut words = head.get(..HEAD)?.chunks_exact(8).filter_map(|word| u64_at(word, 0));
        let (mut place, mut within) = (words.next()?, words.next()?);
        let mut end = 0;
        for used in words {
            // Where a region is in the file and in memory, and its bytes.
            let is_region = within % PAGE == 0 && within < REGIONS && place == within + PAGE && (1..REGIONS).contains(&used);
            if is_region && (end > 0 || within == 0) {
                end = end.max(within + used);
            }
            (place, within) = (within, used);
        }
        let segment = Segment { offset: PAGE, address: SHARED_BASE, file_size: end, memory_size: end, code: false };
        (end > 0).then(|| Self {
            machine: Machine::X86,
            segments: vec![segment],
            // Offsets count from there.
            unwind_table: SHARED_BASE,
            sections: 0,
            section_count: 0,
            names: 0,
            class_data: true,
        })
    }

    /// Whether a number may be an offset in class data.
    pub(super) fn is_offset(&self, number: u32) -> bool {
        self.segments.iter().any(|s| number.is_multiple_of(8) && (PAGE..s.file_size).contains(&u64::from(number)))
    }

    pub(super) fn is_class_data(&self) -> bool {
        self.class_data
    }

    /// Whether both are ELF files, or both class data.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.class_data == other.class_data
    }

    /// The address of a byte of the file, and up to which byte of the file addresses go on with it. Bytes that are not in memory
    /// have addresses above all others.
    pub(super) fn stretch(&self, offset: u64) -> (u64, u64) {
        if let Some(segment) = self.segments.iter().find(|s| offset.wrapping_sub(s.offset) < s.file_size) {
            return (offset - segment.offset + segment.address, segment.offset + segment.file_size);
        }
        (FILE | offset, self.segments.iter().map(|s| s.offset).filter(|start| *start > offset).min().unwrap_or(u64::MAX))
    }

    /// The segment that an address is in, by its number.
    pub(super) fn segment(&self, address: u64) -> Option<usize> {
        self.segments.iter().position(|s| address.wrapping_sub(s.address) < s.memory_size)
    }

    /// Whether there is code at an address.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.segments.iter().any(|s| s.code && address.wrapping_sub(s.address) < s.memory_size)
    }

    /// Reads what the sections of the file of `size` bytes hold: parts in order, without what is plain. Without sections the
    /// segments tell what is code.
    pub(super) fn parts(&self, file: &mut dyn ReadSeek, size: u64) -> io::Result<(Vec<Part>, Places)> {
        let mut parts = Vec::new();
        let mut places = Places::default();
        let end = self.sections.checked_add((self.section_count * SECTION) as u64);
        if self.section_count > 0 && self.section_count <= SECTIONS && end.is_some_and(|end| end <= size) {
            file.seek(SeekFrom::Start(self.sections))?;
            let mut bytes = vec![0; self.section_count * SECTION];
            file.read_exact(&mut bytes)?;
            let headers: Vec<_> = bytes.chunks_exact(SECTION).collect();
            let names = self.names(file, headers.get(self.names).copied())?;
            for header in &headers {
                let link = u32_at(header, 40)
                    .and_then(|link| headers.get(link as usize))
                    .and_then(|header| u64_at(header, 24))
                    .filter(|start| *start < 1 << 48);
                parts.extend(section(header, &names, link.unwrap_or(0), &mut places));
            }
        }
        if self.class_data {
            let words = self.segments.iter();
            parts.extend(words.map(|s| Part { start: s.offset, end: s.offset + s.file_size, holds: Holds::ClassData, link: 0 }));
        } else if parts.is_empty() {
            let code = self.segments.iter().filter(|s| s.code);
            parts.extend(code.map(|s| Part { start: s.offset, end: s.offset + s.file_size, holds: Holds::Code, link: 0 }));
        }
        // In order, and none within another.
        parts.sort_by_key(|part| (part.start, part.end, part.holds));
        let mut last = 0;
        for part in &mut parts {
            part.start = part.start.max(last);
            part.end = part.end.min(size).max(part.start);
            last = part.end;
        }
        parts.retain(|part| part.start < part.end);
        Ok((parts, places))
    }

    fn names(&self, file: &mut dyn ReadSeek, header: Option<&[u8]>) -> io::Result<Vec<u8>> {
        let (Some(offset), Some(size)) = (header.and_then(|h| u64_at(h, 24)), header.and_then(|h| u64_at(h, 32))) else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.take(size.min(NAMES)).read_to_end(&mut names)?;
        Ok(names)
    }
}

/// The part that a section is; `None` when it has nothing to predict.
fn section(header: &[u8], names: &[u8], link: u64, places: &mut Places) -> Option<Part> {
    const WRITE: u64 = 1;
    const CODE: u64 = 4;
    let kind = u32_at(header, 4)?;
    let flags = u64_at(header, 8)?;
    let address = u64_at(header, 16)?;
    let start = u64_at(header, 24)?;
    let size = u64_at(header, 32)?;
    let end = start.checked_add(size).filter(|end| *end < 1 << 48)?;
    let name = names.get(u32_at(header, 0)? as usize..).and_then(|rest| rest.split(|b| *b == 0).next()).unwrap_or_default();
    let compressed = flags & 0x800 != 0;
    let holds = match (kind, name) {
        (4, _) => Holds::Relocations,
        (2 | 11, _) => Holds::Symbols,
        (1, b".debug_info") if !compressed => {
            places.info = (start, size);
            Holds::Debug
        }
        (1, b".debug_loc") if !compressed => {
            places.locations = start;
            Holds::Addresses
        }
        (1, b".debug_ranges") if !compressed => {
            places.ranges = start;
            Holds::Addresses
        }
        (1, b".debug_line" | b".debug_aranges") if !compressed => Holds::Addresses,
        (1, b".debug_abbrev") if !compressed => {
            places.abbreviations = (start, size);
            return None;
        }
        (1, b".debug_str") if !compressed => {
            places.text = start;
            return None;
        }
        (NOBITS, _) => return None,
        _ if address == 0 => return None,
        (_, b".eh_frame") => Holds::Unwind,
        (_, b".eh_frame_hdr") => Holds::UnwindTable,
        (1, b".rodata") => Holds::Constants,
        (1, _) if flags & CODE != 0 => Holds::Code,
        (1 | 6 | 14..=16, _) if flags & WRITE != 0 => Holds::Words,
        _ => return None,
    };
    Some(Part { start, end, holds, link })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}
