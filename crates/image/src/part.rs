//! A part of a file, read as if it were a file: a layer's tar where it stands in an archive.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Bytes that a reader reads ahead. Small: an apply holds a reader for each layer.
const AHEAD: usize = 16 * 1024;

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The file.
    pub path: PathBuf,
    /// Where the part begins in it.
    pub start: u64,
    /// Its bytes.
    pub size: u64,
}

/// Reads a part of a file; places count from the part's start.
#[derive(Debug)]
pub struct PartReader {
    file: BufReader<File>,
    start: u64,
    size: u64,
    at: u64,
}

impl Part {
    /// A reader at its start. Errors name the file.
    pub fn open(&self) -> io::Result<PartReader> {
        let file = File::open(&self.path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.path.display())))?;
        let mut file = BufReader::with_capacity(AHEAD, file);
        file.seek(SeekFrom::Start(self.start))?;
        Ok(PartReader { file, start: self.start, size: self.size, at: 0 })
    }
}

impl Read for PartReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buf[..len])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for PartReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        let at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the start"))?;
        // Within what was read ahead nothing is read again.
        match i64::try_from(i128::from(at) - i128::from(self.at)) {
            Ok(by) => self.file.seek_relative(by)?,
            Err(_) => drop(self.file.seek(SeekFrom::Start(self.start.saturating_add(at)))?),
        }
        self.at = at;
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_file_of_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let part = Part { path: file.path().to_owned(), start: 1000, size: 50_000 };
        let own = &bytes[1000..51_000];
        let mut reader = part.open().unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert!(all == own, "the whole part, and nothing behind it");
        for (to, at) in [
            (SeekFrom::Start(7), 7),
            (SeekFrom::Current(40_000), 40_017),
            (SeekFrom::End(-20_000), 30_000),
            (SeekFrom::Start(60_000), 60_000),
        ] {
            assert_eq!(reader.seek(to).unwrap(), at as u64);
            let mut read = Vec::new();
            Read::by_ref(&mut reader).take(10).read_to_end(&mut read).unwrap();
            assert_eq!(read, own.get(at..at + 10).unwrap_or_default(), "at {at}");
        }
        assert!(reader.seek(SeekFrom::End(-50_001)).is_err());
        let gone = Part { path: "no/such/file".into(), start: 0, size: 1 }.open().unwrap_err();
        assert!(gone.to_string().contains("no/such/file"), "{gone}");
    }
}
