//! Deflate by the zlib that is built in: the same bytes on every node.
//!
//! A stream made by zlib with default memory and window is made again from its plain bytes by the same level, whatever the steps in
//! which the bytes are given.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// Bytes of memory of one deflating stream.
pub(crate) const MEMORY: u64 = 320 * 1024;

/// Deflates into `to`.
pub(crate) fn deflate<W: Write>(to: W, level: u8) -> DeflateEncoder<W> {
    DeflateEncoder::new(to, Compression::new(u32::from(level)))
}

/// Inflates all of `coded`, which must be one whole stream of `size` plain bytes, into `out`.
pub(crate) fn inflate(coded: impl Read, coded_size: u64, size: u64, out: &mut impl Write) -> io::Result<()> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "an entry of an old archive is not as long as its directory says");
    let mut decoder = flate2::read::DeflateDecoder::new(coded.take(coded_size));
    if io::copy(&mut (&mut decoder).take(size.saturating_add(1)), out)? != size || decoder.total_in() != coded_size {
        return Err(wrong());
    }
    Ok(())
}
