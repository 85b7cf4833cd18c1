//! A layer as the stream of its uncompressed tar.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use skerry_wire::{DiffId, limits};

use super::store::Member;
use super::{ArchiveError, ArchiveLayer};
use crate::Sha256;

/// The widest window of a zstd layer: 128 MiB, what `zstd --long` makes; this is memory of the publisher, not of a node.
const WINDOW_LOG: u32 = 27;

/// The uncompressed tar of a layer. The read that finds its end fails when the bytes do not give the diff_id; the error is an
/// [`ArchiveError`] inside an [`io::Error`].
pub struct LayerReader<'a> {
    inner: Box<dyn Read + 'a>,
    archive: String,
    member: String,
    expected: DiffId,
    hash: Sha256,
    size: u64,
    ended: bool,
}

impl fmt::Debug for LayerReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerReader").field("member", &self.member).field("size", &self.size).finish_non_exhaustive()
    }
}

impl<'a> LayerReader<'a> {
    pub(super) fn new(member: Member<'a>, archive: String, layer: &ArchiveLayer) -> Result<Self, ArchiveError> {
        let io = |source| ArchiveError::Io { archive: format!("{archive}, layer `{}`", layer.member), source };
        let mut stored = BufReader::with_capacity(128 * 1024, Exact { inner: member.reader, left: member.size });
        let magic = stored.fill_buf().map_err(io)?;
        let inner: Box<dyn Read + 'a> = if magic.starts_with(&[0x1f, 0x8b]) {
            Box::new(MultiGzDecoder::new(stored))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || magic.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) {
            let mut decoder = zstd::Decoder::with_buffer(stored).map_err(io)?;
            decoder.window_log_max(WINDOW_LOG).map_err(io)?;
            Box::new(decoder)
        } else {
            Box::new(stored)
        };
        let (member, expected) = (layer.member.clone(), layer.diff_id);
        Ok(Self { inner, archive, member, expected, hash: Sha256::new(), size: 0, ended: false })
    }

    /// Bytes read so far; the layer's size once it has ended.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ended || buf.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buf).map_err(|e| io::Error::new(e.kind(), format!("{}, layer `{}`: {e}", self.archive, self.member)))?;
        let fault = if n > 0 {
            self.hash.update(&buf[..n]);
            self.size += n as u64;
            let (archive, member) = (self.archive.clone(), self.member.clone());
            (self.size > limits::LAYER).then_some(ArchiveError::TooLarge { archive, member, limit: limits::LAYER })
        } else {
            self.ended = true;
            let (archive, member, expected) = (self.archive.clone(), self.member.clone(), self.expected);
            let actual = DiffId(self.hash.digest());
            (actual != expected).then_some(ArchiveError::DiffId { archive, member, expected, actual })
        };
        match fault {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            None => Ok(n),
        }
    }
}

/// Bytes of a known number: their end too early is an error, not an end.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n == 0 && !buf.is_empty() && self.left > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} bytes are missing: it was cut while it was read", self.left),
            ));
        }
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}
