//! Scratch files that together take no more room than they may.
//!
//! A patch that is applied says before how much scratch it needs, and that much is asked to be free. Whoever signed less than an archive then
//! unpacks to would fill the disk all the same.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Scratch, ScratchFile};

/// Gives scratch files of `inner` that are at most so long together at any time.
pub struct BoundedScratch<'s> {
    inner: &'s dyn Scratch,
    limit: u64,
    left: Arc<AtomicU64>,
}

impl<'s> BoundedScratch<'s> {
    /// Files of `limit` bytes together.
    pub fn new(inner: &'s dyn Scratch, limit: u64) -> Self {
        Self { inner, limit, left: Arc::new(AtomicU64::new(limit)) }
    }
}

impl std::fmt::Debug for BoundedScratch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedScratch").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Scratch for BoundedScratch<'_> {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(Bounded { file: self.inner.file()?, limit: self.limit, left: Arc::clone(&self.left), at: 0, end: 0 }))
    }
}

struct Bounded {
    file: Box<dyn ScratchFile>,
    limit: u64,
    left: Arc<AtomicU64>,
    at: u64,
    end: u64,
}

impl Read for Bounded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buf)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.at.saturating_add(bytes.len() as u64).max(self.end);
        let take = |left: u64| left.checked_sub(end - self.end);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let message = format!("the patch takes more scratch than the {} bytes that it said", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.end = end;
        let written = self.file.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.left.fetch_add(self.end, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::spill::Memory;

    #[test]
    fn all_files_together_are_bounded_and_one_that_is_gone_gives_its_room_back() {
        let scratch = BoundedScratch::new(&Memory, 100);
        let (mut one, mut two) = (scratch.file().unwrap(), scratch.file().unwrap());
        one.write_all(&[1; 60]).unwrap();
        two.write_all(&[2; 40]).unwrap();
        let error = two.write_all(&[2]).unwrap_err();
        assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains("the 100 bytes"), "{error}");
        // What is written over what was there takes no more room, and is what is read.
        one.seek(SeekFrom::Start(10)).unwrap();
        one.write_all(&[3; 50]).unwrap();
        assert!(one.write_all(&[3]).is_err());
        one.seek(SeekFrom::Start(9)).unwrap();
        let mut read = Vec::new();
        one.read_to_end(&mut read).unwrap();
        assert_eq!(read, [&[1][..], &[3; 50]].concat());
        drop(one);
        two.write_all(&[2; 60]).unwrap();
        assert!(two.write_all(&[2]).is_err());
    }
}
