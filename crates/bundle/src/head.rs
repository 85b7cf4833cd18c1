//! The first bytes of a bundle: what it is, and how long its table of contents is.

use std::ops::Range;

use skerry_wire::limits;

use crate::toc::TocError;

/// A bundle begins with these bytes; the last is the version of the container.
pub const MAGIC: [u8; 4] = *b"SKB\x01";

/// So many first bytes of a bundle always tell where its table of contents is.
pub const LEN: usize = MAGIC.len() + 5;

/// The head before a table of contents of `len` bytes.
pub(crate) fn write(len: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let mut left = len;
    loop {
        let [low, ..] = left.to_le_bytes();
        left >>= 7;
        if left == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Where the table of contents is in a bundle that begins with `first`; [`LEN`] bytes are enough, fewer may do.
pub fn toc_range(first: &[u8]) -> Result<Range<u64>, TocError> {
    let known = first.len().min(MAGIC.len());
    if first[..known.min(3)] != MAGIC[..known.min(3)] {
        return Err(TocError::NotABundle);
    }
    match first.get(3) {
        Some(&version) if version != MAGIC[3] => return Err(TocError::Version { found: version, known: MAGIC[3] }),
        Some(_) => {}
        None => return Err(TocError::Short { len: first.len() as u64 }),
    }
    let mut len = 0u64;
    for (i, &byte) in first[4..].iter().take(LEN - 4).enumerate() {
        len |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            if len > limits::BUNDLE_TOC as u64 {
                return Err(TocError::TooLong { len });
            }
            let start = 5 + i as u64;
            return Ok(start..start + len);
        }
    }
    if first.len() >= LEN { Err(TocError::TooLong { len }) } else { Err(TocError::Short { len: first.len() as u64 }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_back() {
        for len in [0, 1, 127, 128, 5000, limits::BUNDLE_TOC] {
            let mut head = write(len);
            let start = head.len() as u64;
            head.resize(LEN, 0xff);
            assert_eq!(toc_range(&head).unwrap(), start..start + len as u64);
        }
    }

    #[test]
    fn others_are_refused() {
        assert!(matches!(toc_range(b"PK\x03\x04aaaaaaaa"), Err(TocError::NotABundle)));
        assert!(matches!(toc_range(b"SKB\x02aaaaaaaa"), Err(TocError::Version { found: 2, .. })));
        assert!(matches!(toc_range(b"SKB\x01\xff\xff\xff\xff\xff"), Err(TocError::TooLong { .. })));
        assert!(matches!(toc_range(b"SKB\x01\xff"), Err(TocError::Short { .. })));
        assert!(matches!(toc_range(b"SK"), Err(TocError::Short { .. })));
    }
}
