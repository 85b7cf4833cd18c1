//! Archives: a zip (jar, war, ear, wheel) as its entries, matched against the entries of old archives; a gzip file or a PNG picture
//! as the one entry that it is.
//!
//! Headers are values, expected from those of the old entry like the headers of tar members are. A content is that of an old entry
//! byte for byte as it stands in the archive, or is made plain, by the codecs of members or as an archive in the archive, and
//! deflated again by the built-in zlib. Checksums, sizes and the directory follow.

pub(crate) mod apply;
mod bounded;
mod deflate;
pub(crate) mod form;
mod gnu;
mod gzip;
pub(crate) mod make;
pub(crate) mod old;
mod png;
pub(crate) mod spill;
#[cfg(test)]
mod tests;
pub(crate) mod write;
mod zip;
mod zlib;

use std::collections::BTreeMap;

pub use bounded::BoundedScratch;
pub use deflate::deflated;
pub use spill::{Scratch, ScratchFile};
pub use zlib::inflate_error;

/// How deep archives may be in archives.
pub(crate) const MAX_DEPTH: u8 = 3;

/// Bytes of memory that applying needs at most for archives down to this depth, `zips` when there is a zip among them or the old ones:
/// what is open of the old ones; at each depth a deflating stream, its output and a directory; two old contents.
pub(crate) fn memory(depth: u8, zips: bool) -> u64 {
    // A zip's directory has 8 bytes per entry, and the zip may be an entry; other archives have three texts.
    let open = if zips { HELD + (600 << 10) } else { 200 << 10 };
    old::OPEN as u64 * open + (u64::from(depth) + 1) * (zlib::MEMORY + 2 * HELD) + 2 * HELD
}

/// The same with the list of old archives, when so many are mentioned; nothing where there are none.
fn archives_memory(mentioned: usize, depth: u8, zips: bool) -> u64 {
    if mentioned == 0 { 0 } else { memory(depth, zips) + mentioned as u64 * old::LISTED }
}

const HELD: u64 = spill::HELD as u64;

/// Bits of an entry's flags: what is as expected.
mod flag {
    /// The base is the old entry after the last base.
    pub(super) const NEXT: u8 = 1;
    pub(super) const NAME: u8 = 1 << 1;
    pub(super) const TIME: u8 = 1 << 2;
    pub(super) const META: u8 = 1 << 3;
    /// The bytes in the archive are the base's.
    pub(super) const CONTENT: u8 = 1 << 4;
}

/// How an entry's content is carried: three bits of its codec byte, with the bit of a named source and the bits of the kind as in
/// [`predict::codec`](crate::predict::codec).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Way {
    /// The bytes of an old entry as they are in its archive.
    Raw = 0,
    /// The content of an old entry.
    Plain = 1,
    /// Its bytes.
    New = 2,
    Bidiff = 3,
    Dictionary = 4,
    /// As an archive.
    Archive = 5,
    /// The bytes in the archive, because they cannot be deflated again.
    Carried = 6,
    /// As a program.
    Elf = 7,
}

impl Way {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Raw, Self::Plain, Self::New, Self::Bidiff, Self::Dictionary, Self::Archive, Self::Carried, Self::Elf]
            .get(usize::from(number))
            .copied()
    }
}

/// What both sides expect of the next entry of an archive.
#[derive(Debug, Default)]
struct Expect {
    next: u32,
    name: Vec<u8>,
    last: u32,
    times: BTreeMap<u32, u32>,
    meta: zip::Meta,
    level: u8,
}

/// Times remembered per archive.
const TIMES: usize = 4096;

impl Expect {
    fn time(&self, base: Option<u32>) -> u32 {
        base.and_then(|old| self.times.get(&old).copied()).unwrap_or(self.last)
    }

    fn saw(&mut self, base: Option<(u32, u32)>, entry: &zip::Entry) {
        if let Some((number, time)) = base {
            self.next = number.saturating_add(1);
            if self.times.len() >= TIMES {
                self.times.clear();
            }
            self.times.insert(time, entry.time);
        }
        self.last = entry.time;
        self.name.clone_from(&entry.name);
        self.meta.clone_from(&entry.meta);
    }
}

/// Where sources of contents are expected: in each archive after the last one.
#[derive(Debug, Default)]
struct NextSources(Vec<u32>);

impl NextSources {
    fn get(&self, archive: u32) -> u32 {
        self.0.get(archive as usize).copied().unwrap_or(0)
    }

    fn saw(&mut self, archive: u32, entry: u32) {
        let index = archive as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0[index] = entry.saturating_add(1);
    }
}
