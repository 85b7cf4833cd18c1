//! Tar headers: walking over the members of an archive, and writing a member's header. Only what image archives need: regular files,
//! links, and the two ways of writing long names (PAX and GNU).

use std::io::{self, Read, Seek, SeekFrom};

/// Tar works in blocks of this size.
pub(crate) const BLOCK: usize = 512;
const BLOCK64: u64 = BLOCK as u64;
/// The longest extended header (PAX records, GNU long name) that is read.
const EXTENDED_MAX: u64 = 1024 * 1024;
/// The first size that twelve bytes of octal digits cannot say.
const OCTAL_END: u64 = 1 << 33;

/// Why an archive cannot be walked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    #[error("cannot read it at byte {at}")]
    Io { at: u64, source: io::Error },
    #[error("byte {at} is not the start of a tar member (its checksum is wrong)")]
    Checksum { at: u64 },
    #[error("it ends inside `{name}`: {need} bytes are needed, {have} are there")]
    Truncated { name: String, need: u64, have: u64 },
    #[error("the size of `{name}` is {ustar} in its header and {pax} in its PAX record")]
    SizeMismatch { name: String, ustar: u64, pax: u64 },
    #[error("`{name}` at byte {at}: {what}")]
    Bad { name: String, at: u64, what: &'static str },
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// A symbolic link, with its target.
    Symlink(String),
    /// A hard link to an earlier member.
    Hardlink(String),
    Other,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Where the content begins.
    pub(crate) offset: u64,
    /// Bytes of content.
    pub(crate) size: u64,
}

/// Walks over the members of a tar, reading headers only.
#[derive(Debug)]
pub(crate) struct Walk<R> {
    reader: R,
    at: u64,
    end: u64,
    done: bool,
}

impl<R: Read + Seek> Walk<R> {
    pub(crate) fn new(mut reader: R) -> Result<Self, TarError> {
        let end = reader.seek(SeekFrom::End(0)).map_err(|source| TarError::Io { at: 0, source })?;
        Ok(Self { reader, at: 0, end, done: false })
    }

    /// The next member, or none at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let (mut name, mut link, mut pax_size) = (None, None, None);
        loop {
            if self.done || self.at == self.end {
                return Ok(None);
            }
            let start = self.at;
            let block = self.block()?;
            if block.iter().all(|b| *b == 0) {
                self.done = true;
                return Ok(None);
            }
            let head = Head::parse(&block).ok_or(TarError::Checksum { at: start })?;
            let shown: String = name.clone().unwrap_or_else(|| head.name.clone());
            let bad = |what| TarError::Bad { name: shown.clone(), at: start, what };
            match head.typeflag {
                b'x' => {
                    let records = self.extended(&head)?;
                    let pax = Pax::parse(&records).ok_or_else(|| bad("its PAX records are not valid"))?;
                    name = pax.path.or(name);
                    link = pax.link.or(link);
                    pax_size = pax.size.or(pax_size);
                }
                b'g' => {
                    let records = self.extended(&head)?;
                    let pax = Pax::parse(&records).ok_or_else(|| bad("its global PAX records are not valid"))?;
                    if pax.size.is_some() || pax.path.is_some() {
                        return Err(bad("a global PAX record sets a name or a size for every member"));
                    }
                }
                b'L' => name = Some(text(&self.extended(&head)?)),
                b'K' => link = Some(text(&self.extended(&head)?)),
                b'S' => return Err(bad("sparse members are not used in image archives")),
                _ => {
                    let ustar = head.size.ok_or_else(|| bad("its size is not a number"))?;
                    let size = match pax_size {
                        // Writers put 0 where octal digits cannot say the size.
                        Some(pax) if pax == ustar || (pax >= OCTAL_END && ustar == 0) => pax,
                        Some(pax) => return Err(TarError::SizeMismatch { name: shown, ustar, pax }),
                        None => ustar,
                    };
                    let link = link.unwrap_or(head.link);
                    let kind = match head.typeflag {
                        b'0' | 0 | b'7' if !shown.ends_with('/') => Kind::File,
                        b'1' => Kind::Hardlink(link),
                        b'2' => Kind::Symlink(link),
                        _ => Kind::Other,
                    };
                    // Links and folders have no content, whatever their size says.
                    let size = if kind == Kind::File { size } else { 0 };
                    let member = Member { name: shown, kind, offset: self.at, size };
                    self.skip(&member.name, size)?;
                    return Ok(Some(member));
                }
            }
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let have = self.end - self.at;
        // A short text, rather than the rest of an archive.
        if self.at == 0 && have < BLOCK64 {
            return Err(TarError::Checksum { at: 0 });
        }
        if have < BLOCK64 {
            return Err(TarError::Truncated { name: "a header".into(), need: BLOCK64, have });
        }
        let mut block = [0; BLOCK];
        let at = self.at;
        self.reader.seek(SeekFrom::Start(at)).map_err(|source| TarError::Io { at, source })?;
        self.reader.read_exact(&mut block).map_err(|source| TarError::Io { at, source })?;
        self.at += BLOCK64;
        Ok(block)
    }

    /// Content of an extended header.
    fn extended(&mut self, head: &Head) -> Result<Vec<u8>, TarError> {
        let at = self.at;
        let bad = |what| TarError::Bad { name: head.name.clone(), at, what };
        let size = head.size.ok_or_else(|| bad("its size is not a number"))?;
        if size > EXTENDED_MAX {
            return Err(bad("an extended header of more than 1 MiB"));
        }
        self.skip(&head.name, size)?;
        let mut bytes = vec![0; usize::try_from(size).expect("at most 1 MiB")];
        self.reader.seek(SeekFrom::Start(at)).map_err(|source| TarError::Io { at, source })?;
        self.reader.read_exact(&mut bytes).map_err(|source| TarError::Io { at, source })?;
        Ok(bytes)
    }

    /// Goes past `size` bytes of content and their padding.
    fn skip(&mut self, name: &str, size: u64) -> Result<(), TarError> {
        let have = self.end - self.at;
        if size > have {
            return Err(TarError::Truncated { name: name.into(), need: size, have });
        }
        // Padding after the last member may be cut off.
        self.at = (self.at + size).next_multiple_of(BLOCK64).min(self.end);
        Ok(())
    }
}

struct Head {
    name: String,
    link: String,
    typeflag: u8,
    size: Option<u64>,
}

impl Head {
    fn parse(block: &[u8; BLOCK]) -> Option<Self> {
        let sum: u64 = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) }).sum();
        if number(&block[148..156])? != sum {
            return None;
        }
        let mut name = text(&block[..100]);
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            name = format!("{}/{name}", text(&block[345..500]));
        }
        Some(Self { name, link: text(&block[157..257]), typeflag: block[156], size: number(&block[124..136]) })
    }
}

/// Octal digits, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        return field[1..].iter().try_fold(0u64, |n, b| n.checked_mul(256)?.checked_add(u64::from(*b)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0u64, |n, b| (b'0'..=b'7').contains(b).then(|| n * 8 + u64::from(b - b'0')))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[derive(Default)]
struct Pax {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Pax {
    /// Records are `<length> <key>=<value>\n`, the length counting itself.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(12).position(|b| *b == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            if length <= space + 1 || length > bytes.len() {
                return None;
            }
            let (record, rest) = bytes.split_at(length);
            bytes = rest;
            let record = record[space + 1..].strip_suffix(b"\n")?;
            let equals = record.iter().position(|b| *b == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => pax.path = Some(String::from_utf8_lossy(value).into_owned()),
                b"linkpath" => pax.link = Some(String::from_utf8_lossy(value).into_owned()),
                b"size" => pax.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
        }
        Some(pax)
    }
}

/// The header of a regular file: owner 0, mode 0644, time 0, so that equal content gives equal bytes. `name` is at most 100 bytes.
pub(crate) fn file_header(name: &str, size: u64) -> [u8; BLOCK] {
    debug_assert!(name.len() <= 100, "names are made by this crate");
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < OCTAL_END {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(156, b"0");
    put(257, b"ustar  \0");
    put(148, b"        ");
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn names(bytes: &[u8]) -> Result<Vec<String>, TarError> {
        let mut walk = Walk::new(Cursor::new(bytes))?;
        let mut names = Vec::new();
        while let Some(member) = walk.next()? {
            names.push(format!("{}:{}", member.name, member.size));
        }
        Ok(names)
    }

    fn pax(records: &str, typeflag: u8) -> Vec<u8> {
        let mut head = file_header("PaxHeaders/x", records.len() as u64);
        head[156] = typeflag;
        seal(&mut head);
        let mut bytes = [head.as_slice(), records.as_bytes()].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn seal(head: &mut [u8; 512]) {
        head[148..156].fill(b' ');
        let sum: u64 = head.iter().map(|b| u64::from(*b)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn reads_what_another_writer_wrote() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/file", "d".repeat(180));
        for (name, data) in [("a", &b"12345"[..]), (&long, b"x"), ("empty", b"")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, data).unwrap();
        }
        assert_eq!(names(&builder.into_inner().unwrap()).unwrap(), ["a:5".to_string(), format!("{long}:1"), "empty:0".into()]);
    }

    #[test]
    fn another_reader_reads_the_header() {
        for size in [0, 7, OCTAL_END - 1, OCTAL_END, 1 << 40] {
            let head = file_header("layer.tar", size);
            let header = tar::Header::from_byte_slice(&head);
            assert_eq!((header.size().unwrap(), header.cksum().is_ok()), (size, true));
            assert_eq!(number(&head[124..136]), Some(size));
        }
    }

    #[test]
    fn sizes_must_agree() {
        let with = |record: &str| [pax(record, b'x'), file_header("a", 0).to_vec()].concat();
        assert_eq!(names(&with("9 size=0\n")).unwrap(), ["a:0"]);
        assert!(matches!(names(&with("12 size=512\n")), Err(TarError::SizeMismatch { pax: 512, ustar: 0, .. })));
        assert!(matches!(names(&with("19 size=8589934592\n")), Err(TarError::Truncated { need: 8589934592, .. })));
        assert!(matches!(names(&[pax("9 size=0\n", b'g'), file_header("a", 0).to_vec()].concat()), Err(TarError::Bad { .. })));
    }

    #[test]
    fn truncated_and_garbled() {
        let bytes = [file_header("a", 600).as_slice(), &[7; 600]].concat();
        assert_eq!(names(&bytes).unwrap(), ["a:600"]);
        assert!(matches!(names(&bytes[..700]), Err(TarError::Truncated { need: 600, have: 188, .. })));
        assert!(matches!(names(&[&bytes[..], &[0; 424], &bytes[..100]].concat()), Err(TarError::Truncated { need: 512, .. })));
        assert!(matches!(names(b"job \"till\" {}"), Err(TarError::Checksum { at: 0 })));
        assert!(matches!(names(&bytes[1..]), Err(TarError::Checksum { at: 0 })));
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), typeflag: u8, size in 0u64..3000) {
            let _ = names(&bytes);
            let mut head = file_header("a", size);
            head[156] = typeflag;
            seal(&mut head);
            bytes.splice(..0, head);
            let _ = names(&bytes);
        }
    }
}
