//! The streams of a patch: what belongs together statistically is kept together, coded by the best coder for it, and read at its own
//! pace by whoever applies.
//!
//! Long streams are sections of their own, very long ones several, one after the other; short ones share one section, the pack, which
//! is held in memory.

mod bounds;
mod coder;
mod differences;
mod lzma;
mod mix;
mod reader;
mod trial;
mod writer;

pub use coder::{Coder, MAX_WINDOW_LOG};
pub use lzma::Filter;
pub use reader::{StreamReader, StreamsReader};
pub use writer::{StreamSize, StreamsWriter, Written};

/// What a stream holds. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Stream {
    /// The short streams together.
    Pack = 0,
    /// A byte of flags per item.
    Flags = 1,
    /// Which old member an item's header comes from.
    Base = 2,
    /// How many bytes a path shares with the one before.
    PathShared = 3,
    /// The rest of the path.
    PathText = 4,
    /// Links.
    Link = 5,
    /// Times, as differences.
    Mtime = 6,
    /// Sizes, also of raw bytes.
    Size = 7,
    /// Numbers of forms.
    Form = 8,
    /// New forms.
    NewForm = 9,
    /// What forms say is carried.
    Extras = 10,
    /// Raw bytes of the tar.
    Raw = 11,
    /// A codec per content.
    Codec = 12,
    /// Which old member a content comes from.
    Source = 13,
    /// Bidiff: bytes to add.
    Add = 14,
    /// Bidiff: bytes to insert.
    Insert = 15,
    /// Bidiff: where to go in the old content.
    Seek = 16,
    /// Bidiff: differences.
    Difference = 17,
    /// New text.
    Text = 18,
    /// New bytes of programs.
    Program = 19,
    /// Other new bytes.
    Binary = 20,
    /// New bytes that do not compress.
    Dense = 21,
    /// Frames with a dictionary.
    Frame = 22,
    /// Their lengths.
    FrameLen = 23,
    /// Digests in the image's configuration.
    Digests = 24,
    /// A byte of flags per entry of an archive.
    Entries = 25,
    /// Which old entries headers and contents of entries come from.
    EntrySource = 26,
    /// Counts, sizes and levels of entries.
    EntryNumber = 27,
    /// Headers of entries.
    EntryText = 28,
    /// A codec per entry whose content is not that of its base.
    EntryCodec = 29,
    /// Times of entries, as differences.
    EntryTime = 30,
    /// Times in Python bytecode, as differences.
    CodeTime = 31,
}

impl Stream {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 32] = [
        Self::Pack,
        Self::Flags,
        Self::Base,
        Self::PathShared,
        Self::PathText,
        Self::Link,
        Self::Mtime,
        Self::Size,
        Self::Form,
        Self::NewForm,
        Self::Extras,
        Self::Raw,
        Self::Codec,
        Self::Source,
        Self::Add,
        Self::Insert,
        Self::Seek,
        Self::Difference,
        Self::Text,
        Self::Program,
        Self::Binary,
        Self::Dense,
        Self::Frame,
        Self::FrameLen,
        Self::Digests,
        Self::Entries,
        Self::EntrySource,
        Self::EntryNumber,
        Self::EntryText,
        Self::EntryCodec,
        Self::EntryTime,
        Self::CodeTime,
    ];

    /// The stream with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// One stream, or a part of a very long one, as it stands in a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// Which one.
    pub stream: Stream,
    /// How it is coded.
    pub coder: Coder,
    /// Bytes before coding.
    pub raw_len: u64,
    /// Bytes in the bundle.
    pub len: u64,
}
