//! Reading several sections of one bundle in turn.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A bundle that several readers share.
pub(crate) struct Shared<R>(Arc<Mutex<R>>);

impl<R: Read + Seek + Send> Shared<R> {
    pub(crate) fn new(bundle: R) -> Self {
        Self(Arc::new(Mutex::new(bundle)))
    }

    /// A reader of these bytes of the bundle.
    pub(crate) fn section(&self, range: Range<u64>) -> SectionReader<R> {
        SectionReader { bundle: Arc::clone(&self.0), range }
    }
}

/// Reads one section; each read seeks, so reads should not be small.
pub(crate) struct SectionReader<R> {
    bundle: Arc<Mutex<R>>,
    range: Range<u64>,
}

impl<R: Read + Seek> Read for SectionReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let mut bundle = self.bundle.lock().unwrap_or_else(PoisonError::into_inner);
        bundle.seek(SeekFrom::Start(self.range.start))?;
        let read = bundle.read(&mut buf[..wanted])?;
        if read == 0 {
            // An end here must not look like the end of the section: a coder may take that for what it expects.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the bundle lacks {left} bytes at its end")));
        }
        self.range.start += read as u64;
        Ok(read)
    }
}
