//! Bytes that are kept in memory as long as they are few, and in a scratch file beyond.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// A file that nobody else sees and that is gone when dropped.
pub trait ScratchFile: Read + Write + Seek + Send {}

impl<T: Read + Write + Seek + Send> ScratchFile for T {}

/// Gives scratch files.
pub trait Scratch: Send + Sync {
    /// A new, empty file.
    fn file(&self) -> io::Result<Box<dyn ScratchFile>>;
}

/// Bytes kept in memory by each spill of whoever applies.
pub(crate) const HELD: usize = 128 * 1024;

/// Where bytes may be kept.
#[derive(Clone, Copy)]
pub(crate) enum Room<'s> {
    /// All in memory: for whoever makes a patch, who holds the contents anyway.
    Memory,
    /// [`HELD`] bytes in memory, and more in a scratch file.
    Scratch(&'s dyn Scratch),
    /// [`HELD`] bytes and no more.
    Little,
}

/// Some bytes: written once from start to end, then read from anywhere.
pub(crate) struct Spill<'s> {
    room: Room<'s>,
    /// Bytes that there may be at all.
    limit: u64,
    held: Vec<u8>,
    file: Option<Box<dyn ScratchFile>>,
    len: u64,
    at: u64,
}

impl<'s> Spill<'s> {
    /// An empty one of at most `limit` bytes.
    pub(crate) fn new(room: Room<'s>, limit: u64) -> Self {
        Self { room, limit, held: Vec::new(), file: None, len: 0, at: 0 }
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Write for Spill<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.len + bytes.len() as u64;
        if len > self.limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a content is longer than it may be"));
        }
        let much = self.held.len() + bytes.len() > HELD;
        match (&mut self.file, self.room) {
            (Some(file), _) => file.write_all(bytes)?,
            (None, Room::Little) if much => {
                return Err(io::Error::other("an archive's entry of more than 128 KiB needs a scratch file, and there are none here"));
            }
            (None, Room::Scratch(scratch)) if much => {
                let mut file = scratch.file()?;
                file.write_all(&self.held)?;
                file.write_all(bytes)?;
                self.held = Vec::new();
                self.file = Some(file);
            }
            _ => self.held.extend_from_slice(bytes),
        }
        self.len = len;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Spill<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.file {
            Some(file) => file.read(buf)?,
            None => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.held.len());
                let len = buf.len().min(self.held.len() - from);
                buf[..len].copy_from_slice(&self.held[from..from + len]);
                len
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Spill<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek outside of a scratch file"))?;
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(self.at))?;
        }
        Ok(self.at)
    }
}

/// Scratch files in memory.
#[cfg(test)]
pub(crate) struct Memory;

#[cfg(test)]
impl Scratch for Memory {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(io::Cursor::new(Vec::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_from_memory_and_from_a_file() {
        let bytes: Vec<u8> = (0..3 * HELD).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        for (room, in_file) in [(Room::Memory, false), (Room::Scratch(&Memory), true)] {
            let mut spill = Spill::new(room, bytes.len() as u64);
            for piece in bytes.chunks(10_000) {
                spill.write_all(piece).unwrap();
            }
            assert_eq!(spill.file.is_some(), in_file);
            spill.seek(SeekFrom::Start(7)).unwrap();
            let mut read = Vec::new();
            spill.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes[7..]);
            assert!(spill.write_all(&[1]).is_err(), "over its limit");
        }
        let mut spill = Spill::new(Room::Little, u64::MAX);
        spill.write_all(&bytes[..HELD]).unwrap();
        let error = spill.write_all(&[1]).unwrap_err().to_string();
        assert!(error.contains("scratch file"), "{error}");
    }
}
