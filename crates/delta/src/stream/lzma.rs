//! LZMA, for long streams of new bytes.
//!
//! A coded stream is a byte of properties, `(pb * 5 + lp) * 9 + lc` with `lc + lp` at most 4, and the bare LZMA stream without an end
//! marker. Addresses in machine code may be made absolute before: a filter turns the targets of calls and jumps, which are relative
//! to their place, into sums with the place in the stream, so that calls of one function look alike.

use std::io::{self, Read};

use lzma_rust2::filter::bcj::{BcjReader, BcjWriter};
use lzma_rust2::{LzmaOptions, LzmaReader, LzmaWriter};

use crate::progress::Watch;

/// What is done to the bytes before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Filter {
    /// Nothing.
    None,
    /// Calls and jumps of x86.
    X86,
    /// Calls and page addresses of 64-bit ARM.
    Arm64,
}

/// How much memory a window of two to this many bytes needs with its tables.
pub(super) fn memory(window_log: u8, raw_len: u64) -> u64 {
    // The window, the probabilities of at most 2^4 literal contexts, and the input buffer.
    (1u64 << window_log).min(raw_len.max(4096)) + ((2 * 0x300) << 4) + (32 << 10) + (64 << 10)
}

/// Ways to set LZMA: filter, bits of the byte before, bits of the place.
pub(super) type Setting = (Filter, u32, u32);

/// Codes all of `bytes`.
pub(super) fn encode(bytes: &[u8], window_log: u32, (filter, lc, pb): Setting, watch: Watch<'_>) -> io::Result<Vec<u8>> {
    let mut options = LzmaOptions::with_preset(9);
    (options.lc, options.lp, options.pb) = (lc, 0, pb);
    options.dict_size = 1 << window_log;
    options.nice_len = 273;
    let mut writer = LzmaWriter::new_no_header(vec![options.get_props()], &options, false)?;
    match filter {
        Filter::None => watch.feed(bytes, &mut writer)?,
        Filter::X86 | Filter::Arm64 => {
            let mut filtered =
                if filter == Filter::X86 { BcjWriter::new_x86(&mut writer, 0) } else { BcjWriter::new_arm64(&mut writer, 0) };
            watch.feed(bytes, &mut filtered)?;
            filtered.finish()?;
        }
    }
    writer.finish()
}

/// A reader of `raw_len` decoded bytes.
pub(super) fn decode<'a>(
    mut coded: impl Read + Send + 'a,
    raw_len: u64,
    window_log: u8,
    filter: Filter,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut properties = [0];
    coded.read_exact(&mut properties)?;
    let [properties] = properties;
    let (lc, rest) = (properties % 9, properties / 9);
    if rest / 5 > 4 || lc + rest % 5 > 4 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an LZMA stream has unknown properties {properties}")));
    }
    let window = (1u64 << window_log).min(raw_len.max(4096));
    let window = u32::try_from(window).map_err(io::Error::other)?;
    let reader = LzmaReader::new_with_props(coded, raw_len, properties, window, None)?;
    Ok(match filter {
        Filter::None => Box::new(reader),
        Filter::X86 => Box::new(BcjReader::new_x86(reader, 0)),
        Filter::Arm64 => Box::new(BcjReader::new_arm64(reader, 0)),
    })
}
