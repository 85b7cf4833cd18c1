//! Deflate by the zlib that is built in: the same bytes on every node.
//!
//! A stream made by zlib with default memory and window is made again from its plain bytes by the same level, whatever the steps in
//! which the bytes are given.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// Bytes of memory of one deflating stream.
pub(crate) const MEMORY: u64 = 320 * 1024;

/// Levels in the order in which they are likely.
const LEVELS: [u8; 9] = [6, 9, 1, 5, 8, 7, 4, 3, 2];

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

/// The level by which `plain` gives exactly `coded`, `first` tried before all others.
pub(crate) fn level(plain: &[u8], coded: &[u8], first: u8) -> Option<u8> {
    let others = LEVELS.into_iter().filter(|level| *level != first);
    std::iter::once(first).filter(|level| LEVELS.contains(level)).chain(others).find(|&level| {
        let mut encoder = deflate(Same(coded), level);
        encoder.write_all(plain).is_ok() && encoder.finish().is_ok_and(|rest| rest.0.is_empty())
    })
}

/// Takes only these bytes.
struct Same<'a>(&'a [u8]);

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_level_is_found_and_steps_do_not_matter(
            plain in proptest::collection::vec(0u8..9, 0..90_000),
            level in 1u8..=9,
            steps in proptest::collection::vec(1usize..50_000, 1..6),
        ) {
            let mut encoder = deflate(Vec::new(), level);
            encoder.write_all(&plain).unwrap();
            let whole = encoder.finish().unwrap();
            let mut encoder = deflate(Vec::new(), level);
            let mut rest = &plain[..];
            for step in steps.into_iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at(step.min(rest.len()));
                encoder.write_all(now).unwrap();
                rest = later;
            }
            prop_assert!(encoder.finish().unwrap() == whole);
            let found = super::level(&plain, &whole, 6).unwrap();
            let mut encoder = deflate(Vec::new(), found);
            encoder.write_all(&plain).unwrap();
            prop_assert!(encoder.finish().unwrap() == whole);
            let mut back = Vec::new();
            inflate(&whole[..], whole.len() as u64, plain.len() as u64, &mut back).unwrap();
            prop_assert!(back == plain);
            prop_assert!(inflate(&whole[..], whole.len() as u64, plain.len() as u64 + 1, &mut io::sink()).is_err());
        }
    }

    #[test]
    fn bytes_of_another_program_have_no_level() {
        assert_eq!(level(b"plain", b"something else", 6), None);
    }
}
