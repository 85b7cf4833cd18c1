//! The engine's record of a layer's tar: gzip, one JSON object per line, either raw bytes (base64) or the name and size of a file whose
//! content follows. The engine wrote it, but from an image's bytes: lines are bounded, nothing panics.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde::Deserialize;
use skerry_delta::archive::inflate_error;

/// The longest line. Headers take 2 KB; the zeros after the end of a tar come as one line, and some writers pad with megabytes.
const LINE: usize = 32 * 1024 * 1024;

/// A part of the tar.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Raw(Vec<u8>),
    /// Only files of at least one byte.
    File {
        name: Vec<u8>,
        size: u64,
    },
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    /// Base64, where the name is not UTF-8.
    #[serde(borrow, default)]
    name_raw: Option<Cow<'a, str>>,
    #[serde(default)]
    size: Option<i64>,
    #[serde(borrow, default)]
    payload: Option<Cow<'a, str>>,
}

/// Reads a record, line by line.
#[derive(Debug)]
pub(super) struct TarSplit<R: Read> {
    lines: BufReader<GzDecoder<R>>,
    line: Vec<u8>,
    failed: bool,
}

impl<R: Read> TarSplit<R> {
    pub(super) fn new(record: R) -> Self {
        Self { lines: BufReader::with_capacity(16 * 1024, GzDecoder::new(record)), line: Vec::new(), failed: false }
    }

    /// The next entry that has bytes.
    fn read(&mut self) -> io::Result<Option<Entry>> {
        loop {
            self.line.clear();
            // A long line of padding must not stay with us.
            self.line.shrink_to(64 * 1024);
            self.lines.by_ref().take(LINE as u64).read_until(b'\n', &mut self.line).map_err(inflate_error)?;
            if self.line.is_empty() {
                return Ok(None);
            }
            if self.line.len() == LINE {
                return Err(bad("a line of it is longer than 32 MiB"));
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let line: Line<'_> = serde_json::from_slice(&self.line).map_err(|error| bad(&error.to_string()))?;
            let decode = |text: &str| STANDARD.decode(text).map_err(|error| bad(&error.to_string()));
            match line.kind {
                1 => {
                    let size = u64::try_from(line.size.unwrap_or_default()).map_err(|_| bad("a negative size"))?;
                    if size == 0 {
                        continue;
                    }
                    let name = match (line.name, line.name_raw) {
                        (_, Some(raw)) if !raw.is_empty() => decode(&raw)?,
                        (Some(name), _) => name.into_owned().into_bytes(),
                        _ => return Err(bad("a file without a name")),
                    };
                    return Ok(Some(Entry::File { name, size }));
                }
                2 => {
                    let bytes = decode(&line.payload.unwrap_or_default())?;
                    if !bytes.is_empty() {
                        return Ok(Some(Entry::Raw(bytes)));
                    }
                }
                _ => return Err(bad("an entry of an unknown type")),
            }
        }
    }
}

impl<R: Read> Iterator for TarSplit<R> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let entry = self.read().transpose();
        self.failed = !matches!(entry, Some(Ok(_)));
        entry
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the engine's record of the layer is damaged: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &str) -> io::Result<Vec<Entry>> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes())?;
        TarSplit::new(encoder.finish()?.as_slice()).collect()
    }

    #[test]
    fn entries() {
        let text = r#"{"type":2,"payload":"aGVhZA==","position":0}
{"type":1,"name":"dir/","payload":null,"position":1}
{"type":1,"name":"a\u00e9","size":5,"payload":"AAAA","position":2}
{"type":1,"name_raw":"/w==","size":7,"position":3}
{"type":2,"payload":"","position":4}
"#;
        let entries = read(text).unwrap();
        let file = |name: &[u8], size| Entry::File { name: name.into(), size };
        assert_eq!(entries, [Entry::Raw(b"head".into()), file("aé".as_bytes(), 5), file(b"\xff", 7)]);
    }

    #[test]
    fn damaged() {
        for text in
            ["x", "{}", r#"{"type":3}"#, r#"{"type":1,"size":1}"#, r#"{"type":1,"name":"a","size":-1}"#, r#"{"type":2,"payload":"*"}"#]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(TarSplit::new(&b"not gzip"[..]).next().unwrap().is_err());
        assert!(read(&" ".repeat(LINE + 1)).is_err());
    }
}
