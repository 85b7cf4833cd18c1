//! How layers are uploaded and kept: the tar in independent zstd frames with an index at the end, so that it can be read from the
//! middle. The format is zstd's own seekable format with one frame before it that names the version: `zstd -d` gives the tar.
//! `docs/formats/layer.md` has the bytes.
//!
//! - [`FrameWriter`]: uncompressed bytes in, the format out; knows the diff_id at the end.
//! - [`FrameReader`]: the uncompressed bytes, `Read + Seek`, one frame in memory.
//! - [`FrameVerifier`]: checks foreign bytes while they pass by, in bounded memory, against the diff_id that they claim.

mod reader;
mod verify;
mod writer;

use skerry_wire::{DiffId, limits};

pub use reader::FrameReader;
pub use verify::FrameVerifier;
pub use writer::FrameWriter;

/// Content of every frame but the last, bytes.
pub const FRAME: usize = 1024 * 1024;
/// The level that layers are compressed with unless told otherwise: storing is far more often waited for than read.
pub const DEFAULT_LEVEL: i32 = 3;

/// First bytes of the file: a skippable frame (magic 0x184d2a50) of 8 bytes: what it is, and the version in the last byte.
const HEADER: [u8; 16] = *b"\x50\x2a\x4d\x18\x08\0\0\0skylayr\x01";
/// Bytes of [`HEADER`], as the index says it.
const HEADER_SIZE: u32 = 16;
/// Magic of the skippable frame that holds the index.
const TABLE_MAGIC: u32 = 0x184d_2a5e;
/// Magic of a frame with content.
const FRAME_MAGIC: u32 = 0xfd2f_b528;
/// Last four bytes of the file.
const FOOTER_MAGIC: u32 = 0x8f92_eab1;
/// Bytes of the footer: entries, flags, magic.
const FOOTER: usize = 9;
/// Bytes of an entry: stored size, content size.
const ENTRY: usize = 8;
/// The longest stored frame: zstd's bound for [`FRAME`] bytes of content, with room for its header and checksum.
const STORED_MAX: usize = FRAME + FRAME / 128 + 512;
/// A frame never needs a wider window than its content.
const WINDOW_LOG: u32 = 20;
/// Frames a layer may have.
#[expect(clippy::cast_possible_truncation, reason = "64 GiB / 1 MiB")]
const FRAMES: usize = (limits::LAYER / FRAME as u64) as usize;

/// Why a file is not a layer in frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not this format, or a version that is not known.
    #[error("it is not a layer in frames of version 1")]
    Header,
    /// Cut off.
    #[error("the layer is truncated after {have} stored bytes")]
    Truncated {
        /// Bytes there.
        have: u64,
    },
    /// Its bytes are not well formed.
    #[error("the layer is damaged at stored byte {at}: {what}")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More content than announced or allowed.
    #[error("the layer has more than {limit} bytes of content, the most that is allowed here")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The content is another layer.
    #[error("the layer's diff_id is {actual}, expected {expected}")]
    DiffId {
        /// What it should be.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
}

/// What is known of a layer after all its bytes were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSummary {
    /// SHA-256 of the content.
    pub diff_id: DiffId,
    /// Bytes of content.
    pub size: u64,
    /// Bytes of the file.
    pub stored: u64,
}

/// The index as its bytes at the end of the file. `stored` are the sizes of the content frames.
fn table(stored: &[u32], size: u64) -> Vec<u8> {
    let entries = stored.len() + 1;
    let mut bytes = Vec::with_capacity(8 + entries * ENTRY + FOOTER);
    let length = u32::try_from(entries * ENTRY + FOOTER).expect("FRAMES is far below");
    bytes.extend(TABLE_MAGIC.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(HEADER_SIZE.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    let mut left = size;
    for stored in stored {
        let content = left.min(FRAME as u64);
        left -= content;
        bytes.extend(stored.to_le_bytes());
        bytes.extend(u32::try_from(content).expect("at most FRAME").to_le_bytes());
    }
    bytes.extend(u32::try_from(entries).expect("FRAMES is far below").to_le_bytes());
    bytes.push(0);
    bytes.extend(FOOTER_MAGIC.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
