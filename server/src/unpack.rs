//! Unpacks what a node sent, and no more of it than is allowed.

use std::io::{self, Read};

/// Why packed bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// Not zlib, or not whole.
    #[error("it is not packed as agreed: {0}")]
    Damaged(#[from] io::Error),
    /// More than the limit.
    #[error("it has more than {0} bytes")]
    TooLong(usize),
}

/// Unpacks a zlib stream (RFC 1950) of at most `limit` bytes.
pub(crate) fn zlib(packed: &[u8], limit: usize) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    flate2::read::ZlibDecoder::new(packed).take(most.saturating_add(1)).read_to_end(&mut out)?;
    if out.len() > limit { Err(UnpackError::TooLong(limit)) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn no_more_than_is_allowed() {
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(&[b'a'; 100_000]).unwrap();
        let packed = packer.finish().unwrap();
        assert_eq!(zlib(&packed, 100_000).unwrap().len(), 100_000);
        assert!(matches!(zlib(&packed, 99_999), Err(UnpackError::TooLong(99_999))));
        assert!(matches!(zlib(&packed[..packed.len() / 2], 100_000), Err(UnpackError::Damaged(_))));
        assert!(matches!(zlib(b"no", 100_000), Err(UnpackError::Damaged(_))));
        assert!(zlib(&[], 5).is_err());
    }
}
