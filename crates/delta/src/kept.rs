//! Contents of the new layers that later ones are made from: whoever applies keeps them in a scratch file while the patch lasts.
//!
//! A content that is marked is written down as it is made. The marked ones are counted from 0 in their order; as a source such a one
//! has the number of all old members plus its own.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::archive::Scratch;
use crate::archive::spill::{HELD, Room, Spill};

/// How many contents of a patch may be kept.
pub(crate) const MOST: usize = 1 << 16;

/// Bytes of memory that keeping so many contents needs at most, when there is scratch.
pub(crate) fn memory(count: usize) -> u64 {
    if count == 0 { 0 } else { HELD as u64 + count as u64 * PLACE }
}

/// Bytes of memory that each counts.
const PLACE: u64 = 16;
const _: () = assert!(size_of::<Place>() as u64 <= PLACE, "a content that is kept needs more than it counts");

#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    size: u64,
}

/// The contents that are kept.
pub(crate) struct Kept<'a> {
    bytes: Spill<'a>,
    places: Vec<Place>,
}

impl<'a> Kept<'a> {
    /// None yet. Without scratch they stay in memory, and may be `limit` bytes together.
    pub(crate) fn new(scratch: Option<&'a dyn Scratch>, limit: u64) -> Self {
        let (room, limit) = scratch.map_or((Room::Memory, limit), |scratch| (Room::Scratch(scratch), u64::MAX));
        Self { bytes: Spill::new(room, limit), places: Vec::new() }
    }

    /// The next content begins, of so many bytes.
    pub(crate) fn begin(&mut self, size: u64) -> io::Result<()> {
        if self.places.len() == MOST {
            return Err(invalid(&format!("more than {MOST} contents to keep")));
        }
        let start = self.bytes.seek(SeekFrom::End(0))?;
        self.places.push(Place { start, size });
        Ok(())
    }

    /// Bytes of memory that those so far need, by the rule of [`memory`]; without scratch their bytes come besides.
    pub(crate) fn memory(&self) -> u64 {
        memory(self.places.len())
    }

    /// Its next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.write_all(bytes)
    }

    /// The size of a content; `None` when there is none of this number.
    pub(crate) fn size(&self, number: u32) -> Option<u64> {
        self.places.get(number as usize).map(|place| place.size)
    }

    /// A content, to be read.
    pub(crate) fn open(&mut self, number: u32) -> io::Result<Content<'_, 'a>> {
        let place = *self.places.get(number as usize).ok_or_else(|| invalid("a source that is not kept"))?;
        self.bytes.seek(SeekFrom::Start(place.start))?;
        Ok(Content { bytes: &mut self.bytes, place, at: 0 })
    }
}

/// One content that is kept.
pub(crate) struct Content<'k, 'a> {
    bytes: &'k mut Spill<'a>,
    place: Place,
    at: u64,
}

impl Read for Content<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.place.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let read = self.bytes.read(&mut buf[..len])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Content<'_, '_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.place.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "seek outside of a content that is kept");
        self.at = at.ok_or_else(outside)?;
        self.bytes.seek(SeekFrom::Start(self.place.start.checked_add(self.at).ok_or_else(outside)?))?;
        Ok(self.at)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::spill::Memory;

    #[test]
    fn each_content_comes_back_between_others() {
        for scratch in [None, Some(&Memory as &dyn Scratch)] {
            let mut kept = Kept::new(scratch, 1 << 20);
            let contents: Vec<Vec<u8>> = (1..6u8).map(|i| vec![i; usize::from(i) * 40_000]).collect();
            for (number, content) in (0u32..).zip(&contents) {
                kept.begin(content.len() as u64).unwrap();
                content.chunks(1000).for_each(|bytes| kept.write(bytes).unwrap());
                // Reading moves the place of the file; the next content must still follow the last.
                let half = number / 2;
                let mut read = Vec::new();
                let mut open = kept.open(half).unwrap();
                open.seek(SeekFrom::Start(10)).unwrap();
                open.read_to_end(&mut read).unwrap();
                assert_eq!(read, contents[half as usize][10..]);
            }
            assert_eq!(kept.size(4), Some(200_000));
            assert!(kept.open(5).is_err());
        }
    }

    #[test]
    fn memory_without_scratch_has_a_limit() {
        let mut kept = Kept::new(None, 100);
        kept.begin(200).unwrap();
        kept.write(&[0; 100]).unwrap();
        assert!(kept.write(&[0]).is_err());
    }
}
