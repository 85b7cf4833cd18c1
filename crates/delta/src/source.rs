//! Where old bytes come from: a layer as the bytes of its tar, split into file contents, which can be read from the middle, and
//! everything else.
//!
//! The same shape serves a layer kept by the server (an indexed tar), a layer in an engine's own store (its `diff` folder and the
//! engine's record of the tar), and a spool file. An implementation promises that [`LayerSource::segments`], with each file's content
//! put in its place, is the layer's tar bit for bit; whoever relies on it checks the diff_id.

use std::io::{self, Read, Seek};

use skerry_wire::{DiffId, ImageId};

use crate::archive::Scratch;

/// Content that can be read from the middle.
pub trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// A run of a layer's tar, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Bytes that are not the content of a regular file: headers, padding, the end of the archive.
    Raw(Vec<u8>),
    /// The content of the next file; files are counted from 0 in the order of these segments. Only files of at least one byte.
    File {
        /// Bytes of content.
        size: u64,
    },
}

/// One old layer.
pub trait LayerSource: Send + Sync {
    /// The layer's tar from start to end. May be called again.
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>>;

    /// The content of the `file`-th [`Segment::File`].
    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>>;

    /// For each [`Segment::File`] in order the first eight bytes of the SHA-256 of its content, as a big-endian number, when they are
    /// known without reading the contents, as from the layer's index.
    fn hashes(&self) -> Option<Vec<u64>> {
        None
    }
}

/// All old layers at hand, and the configurations of the images that they belong to.
pub trait Sources: Send + Sync {
    /// The configuration of this image, byte for byte (its SHA-256 is the id); `NotFound` when the image is not here. A target's
    /// configuration is a patch of its base's.
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>>;

    /// The layer with this diff_id; `NotFound` when there is none.
    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>>;

    /// Where long parts of archives go while they are made; without it such archives are an error.
    fn scratch(&self) -> Option<&dyn Scratch> {
        None
    }
}
