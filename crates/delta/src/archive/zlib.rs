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
    if io::copy(&mut (&mut decoder).take(size.saturating_add(1)), out).map_err(inflate_error)? != size || decoder.total_in() != coded_size {
        return Err(wrong());
    }
    Ok(())
}

/// What an inflating reader's error is: its words are the same for wrong bytes and for want of memory, so that some is asked for.
pub fn inflate_error(error: io::Error) -> io::Error {
    /// Longer than what zlib asks for: its window.
    const PROBE: usize = 64 << 10;
    let no_memory = || {
        let mut probe = Vec::<u8>::new();
        let got = probe.try_reserve_exact(PROBE);
        // Else nothing need be asked for what nobody uses.
        std::hint::black_box(&mut probe);
        got.is_err()
    };
    if error.kind() == io::ErrorKind::InvalidInput && no_memory() {
        return io::Error::new(io::ErrorKind::OutOfMemory, "no memory to inflate with");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_are_no_want_of_memory() {
        let mut coded = deflate(Vec::new(), 6);
        coded.write_all(&[7; 100_000]).unwrap();
        let mut coded = coded.finish().unwrap();
        let size = coded.len() as u64;
        inflate(&coded[..], size, 100_000, &mut io::sink()).unwrap();
        coded[0] = 0xff;
        let error = inflate(&coded[..], size, 100_000, &mut io::sink()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::InvalidInput, "corrupt deflate stream"));
    }
}
