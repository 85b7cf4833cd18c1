//! Dictionary: a content as one zstd frame that may refer to all of an old content.
//!
//! Frames stand one after the other in their stream, without magic number, checksum or content size.

use std::io::{self, BufRead, Cursor, Read};

use crate::stream::{Stream, StreamsReader, StreamsWriter};

/// The longest old or new content that this codec takes: both are held in memory by whoever applies.
pub const LIMIT: u64 = 1 << 20;
/// Bytes of memory that applying needs at most: the old content, and a window over both.
pub const MEMORY: u64 = 4 * LIMIT;

const WINDOW_LOG: u32 = 21;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The frame for `new`; `None` when a content is too long.
pub fn compress(old: &[u8], new: &[u8]) -> io::Result<Option<Vec<u8>>> {
    use zstd::zstd_safe::{CCtx, CParameter, SafeResult, get_error_name};
    if old.len() as u64 > LIMIT || new.len() as u64 > LIMIT || old.is_empty() {
        return Ok(None);
    }
    let fail = |code| io::Error::other(get_error_name(code));
    let set = |context: &mut CCtx<'_>, parameter| -> SafeResult { context.set_parameter(parameter) };
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(19),
        CParameter::WindowLog(WINDOW_LOG),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ] {
        set(&mut context, parameter).map_err(fail)?;
    }
    context.ref_prefix(old).map_err(fail)?;
    let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(new.len()));
    context.compress2(&mut frame, new).map_err(fail)?;
    frame.drain(..MAGIC.len());
    Ok(Some(frame))
}

/// Appends a frame to the streams.
pub fn write(streams: &mut StreamsWriter<'_>, frame: &[u8]) -> io::Result<()> {
    streams.number(Stream::FrameLen, frame.len() as u64)?;
    streams.put(Stream::Frame, frame)
}

/// Writes `size` bytes made of `old` and the streams to `out`.
pub fn apply(
    streams: &mut StreamsReader<'_>,
    old: &mut dyn Read,
    size: u64,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the patch has {what}"));
    let len = streams.number(Stream::FrameLen)?;
    if size > LIMIT || len > 2 * LIMIT {
        return Err(invalid("a frame that is too long"));
    }
    let mut dictionary = Vec::new();
    if old.take(LIMIT + 1).read_to_end(&mut dictionary)? as u64 > LIMIT {
        return Err(invalid("a dictionary that is too long"));
    }
    let frame = Cursor::new(MAGIC).chain(io::BufReader::with_capacity(4096, streams.get(Stream::Frame).take(len)));
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(frame, &dictionary)?.single_frame();
    decoder.window_log_max(WINDOW_LOG)?;
    let mut left = size;
    let mut buffer = [0; 8192];
    loop {
        let read = decoder.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        left = left.checked_sub(read as u64).ok_or_else(|| invalid("a frame with more bytes than its member"))?;
        out(&buffer[..read])?;
    }
    if left > 0 {
        return Err(invalid("a frame with fewer bytes than its member"));
    }
    let mut rest = decoder.finish();
    if !rest.fill_buf()?.is_empty() {
        return Err(invalid("bytes after a frame"));
    }
    Ok(())
}
