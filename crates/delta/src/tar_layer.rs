//! A layer whose whole tar can be read from the middle: a plain file, or an archive kept in frames.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use crate::source::{LayerSource, ReadSeek, Segment};
use crate::tar::{BLOCK, glance, is_file, padding};

/// Raw segments are handed out in pieces of at most this many bytes.
const PIECE: usize = 64 * 1024;

/// A layer read from its tar. Readers are opened as they are needed and kept for the next use, so content read in order costs no seek.
pub struct TarLayer<F, R> {
    open: F,
    idle: Mutex<Vec<R>>,
    /// Where each file's content begins, and its size.
    files: Vec<(u64, u64)>,
    size: u64,
}

impl<F, R> TarLayer<F, R>
where
    F: Fn() -> io::Result<R> + Send + Sync,
    R: Read + Seek + Send,
{
    /// Reads the headers once to learn where the files are.
    pub fn new(open: F) -> io::Result<Self> {
        let mut layer = Self { open, idle: Mutex::default(), files: Vec::new(), size: 0 };
        let mut reader = layer.reader()?;
        layer.size = reader.seek(SeekFrom::End(0))?;
        layer.files = find_files(&mut reader, layer.size)?;
        layer.give_back(reader);
        Ok(layer)
    }

    /// The size of the tar in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn reader(&self) -> io::Result<R> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| (self.open)(), Ok)
    }

    fn give_back(&self, reader: R) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
    }
}

/// The place and size of every regular file's content, as readers of tar find them.
fn find_files(reader: &mut (impl Read + Seek), end: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut files = Vec::new();
    let mut block = [0; BLOCK];
    let mut at = 0;
    let mut extended_size = None;
    while at + BLOCK as u64 <= end {
        reader.seek(SeekFrom::Start(at))?;
        reader.read_exact(&mut block)?;
        at += BLOCK as u64;
        let Some((typeflag, header_size)) = glance(&block) else {
            if block.iter().all(|&b| b == 0) {
                continue;
            }
            // Not a tar from here on: bytes.
            break;
        };
        let mut size = header_size;
        if matches!(typeflag, b'x' | b'g') && header_size <= crate::tar::MAX_EXTENDED {
            let mut data = Vec::new();
            reader.take(header_size).read_to_end(&mut data)?;
            if typeflag == b'x' {
                extended_size = pax_size(&data);
            }
        } else if is_file(typeflag) {
            size = extended_size.take().unwrap_or(header_size);
            if size > end - at.min(end) {
                break;
            }
            if size > 0 {
                files.push((at, size));
            }
        } else if !matches!(typeflag, b'L' | b'K') {
            extended_size = None;
            if matches!(typeflag, b'1'..=b'6') {
                size = 0;
            }
        }
        match at.checked_add(size).and_then(|next| next.checked_add(padding(size) as u64)) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(files)
}

fn pax_size(data: &[u8]) -> Option<u64> {
    data.split(|&b| b == b'\n').find_map(|record| {
        let text = std::str::from_utf8(record).ok()?;
        text.split_once(" size=")?.1.parse().ok()
    })
}

impl<F, R> LayerSource for TarLayer<F, R>
where
    F: Fn() -> io::Result<R> + Send + Sync,
    R: Read + Seek + Send,
{
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        Ok(Box::new(Segments { layer: self, reader: None, at: 0, next: 0 }))
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        let index = usize::try_from(file).map_err(io::Error::other)?;
        let &(start, size) = self.files.get(index).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("the layer has {} files, not a file {file}", self.files.len()))
        })?;
        let mut reader = self.reader()?;
        reader.seek(SeekFrom::Start(start))?;
        Ok(Box::new(Content { layer: self, reader: Some(reader), start, size, at: 0 }))
    }
}

struct Segments<'a, F, R> {
    layer: &'a TarLayer<F, R>,
    reader: Option<R>,
    at: u64,
    next: usize,
}

impl<F, R> Segments<'_, F, R>
where
    F: Fn() -> io::Result<R> + Send + Sync,
    R: Read + Seek + Send,
{
    fn step(&mut self) -> io::Result<Option<Segment>> {
        let file = self.layer.files.get(self.next);
        let end = file.map_or(self.layer.size, |&(start, _)| start);
        if self.at < end {
            let mut bytes = vec![0; usize::try_from(end - self.at).unwrap_or(usize::MAX).min(PIECE)];
            if self.reader.is_none() {
                let mut reader = self.layer.reader()?;
                reader.seek(SeekFrom::Start(self.at))?;
                self.reader = Some(reader);
            }
            let reader = self.reader.as_mut().expect("opened above");
            reader.read_exact(&mut bytes)?;
            self.at += bytes.len() as u64;
            return Ok(Some(Segment::Raw(bytes)));
        }
        let Some(&(_, size)) = file else { return Ok(None) };
        self.next += 1;
        self.at += size;
        if let Some(reader) = &mut self.reader {
            reader.seek(SeekFrom::Start(self.at))?;
        }
        Ok(Some(Segment::File { size }))
    }
}

impl<F, R> Iterator for Segments<'_, F, R>
where
    F: Fn() -> io::Result<R> + Send + Sync,
    R: Read + Seek + Send,
{
    type Item = io::Result<Segment>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl<F, R> Drop for Segments<'_, F, R> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.layer.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
    }
}

/// The content of one file; gives its reader back when dropped.
struct Content<'a, F, R> {
    layer: &'a TarLayer<F, R>,
    reader: Option<R>,
    start: u64,
    size: u64,
    at: u64,
}

impl<F, R: Read> Read for Content<'_, F, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let read = reader.read(&mut buf[..wanted])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<F, R: Seek> Seek for Content<'_, F, R> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let at = match pos {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek outside of a file"))?;
        if at != self.at {
            if let Some(reader) = &mut self.reader {
                reader.seek(SeekFrom::Start(self.start.saturating_add(at)))?;
            }
            self.at = at;
        }
        Ok(at)
    }
}

impl<F, R> Drop for Content<'_, F, R> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.layer.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
    }
}

impl<F, R> std::fmt::Debug for TarLayer<F, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarLayer").field("size", &self.size).field("files", &self.files.len()).finish_non_exhaustive()
    }
}
