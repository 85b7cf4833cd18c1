//! The parser: segments to items.

use std::collections::VecDeque;
use std::io;

use super::block::{BLOCK, glance, is_file};
use super::member::Extended;
use super::{Form, MAX_EXTENDED, Member, padding};
use crate::source::Segment;

/// A part of a layer's tar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A modelled member: its header, the content of file number `file` when it has any, and its padding when the form says so.
    Member {
        /// The header.
        member: Box<Member>,
        /// The number of the [`Segment::File`] with the content; `None` when there is no content.
        file: Option<u32>,
    },
    /// The content of a file whose header is not modelled.
    Bare {
        /// The number of the [`Segment::File`].
        file: u32,
        /// Its size in bytes.
        size: u64,
    },
    /// Bytes as they stand.
    Raw(Vec<u8>),
}

/// Raw bytes are handed on in pieces of about this many.
const PIECE: usize = 64 * 1024;

/// The items of a layer, in order. Put one after the other they are the layer's tar.
pub struct Items<I> {
    segments: I,
    /// A segment that was looked at and not yet taken.
    ahead: Option<Segment>,
    /// Bytes between files that are not yet parsed.
    buf: VecDeque<u8>,
    /// Bytes parsed so far, which tells where blocks begin.
    at: u64,
    exts: Vec<Extended>,
    raw: Vec<u8>,
    ready: VecDeque<Item>,
    files: u32,
    ended: bool,
}

impl<I: Iterator<Item = io::Result<Segment>>> Items<I> {
    /// Parses these segments.
    pub fn new(segments: I) -> Self {
        Self {
            segments,
            ahead: None,
            buf: VecDeque::new(),
            at: 0,
            exts: Vec::new(),
            raw: Vec::new(),
            ready: VecDeque::new(),
            files: 0,
            ended: false,
        }
    }

    /// Makes `ahead` hold the next segment, if there is one.
    fn look(&mut self) -> io::Result<()> {
        while self.ahead.is_none() {
            match self.segments.next().transpose()? {
                None => break,
                Some(Segment::Raw(bytes)) if bytes.is_empty() => {}
                segment => self.ahead = segment,
            }
        }
        Ok(())
    }

    /// Tries to have `wanted` bytes of one run in the buffer.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buf.len() < wanted {
            self.look()?;
            let Some(Segment::Raw(bytes)) = &self.ahead else { return Ok(false) };
            self.buf.extend(bytes);
            self.ahead = None;
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        self.at += len as u64;
        self.buf.drain(..len).collect()
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= PIECE {
            self.flush_raw();
        }
    }

    fn flush_raw(&mut self) {
        if !self.raw.is_empty() {
            self.ready.push_back(Item::Raw(std::mem::take(&mut self.raw)));
        }
    }

    /// Extended headers that turned out not to belong to a modelled member.
    fn flush_exts(&mut self) {
        for (block, data) in std::mem::take(&mut self.exts) {
            self.put_raw(&block);
            self.put_raw(&data);
            self.put_raw(&[0; BLOCK][..padding(data.len() as u64)]);
        }
    }

    fn take_file(&mut self, size: u64) -> io::Result<u32> {
        self.ahead = None;
        self.at += size;
        let file = self.files;
        self.files = file.checked_add(1).ok_or_else(|| io::Error::other("a layer has more than 2^32 files"))?;
        Ok(file)
    }

    fn step(&mut self) -> io::Result<()> {
        let misaligned = padding(self.at);
        if misaligned != 0 {
            let have = if self.fill(misaligned)? { misaligned } else { self.buf.len() };
            let bytes = self.take(have);
            self.put_raw(&bytes);
            if have == misaligned {
                return Ok(());
            }
        } else if self.fill(BLOCK)? {
            let block = self.take(BLOCK);
            return self.block(block.as_slice().try_into().expect("a whole block was taken"));
        }
        // Less than a block before a file or the end.
        self.flush_exts();
        let rest = self.take(self.buf.len());
        self.put_raw(&rest);
        self.flush_raw();
        match self.ahead {
            Some(Segment::File { size }) => {
                let file = self.take_file(size)?;
                self.ready.push_back(Item::Bare { file, size });
            }
            _ => self.ended = true,
        }
        Ok(())
    }

    fn block(&mut self, block: [u8; BLOCK]) -> io::Result<()> {
        match glance(&block) {
            Some((b'x' | b'g' | b'L' | b'K', size)) if size <= MAX_EXTENDED => self.extended(block, size),
            Some((typeflag, size)) if is_file(typeflag) && size > 0 => self.file(block, size),
            Some(_) => {
                self.member(&block, None, true);
                Ok(())
            }
            None => {
                self.flush_exts();
                self.put_raw(&block);
                Ok(())
            }
        }
    }

    fn extended(&mut self, block: [u8; BLOCK], size: u64) -> io::Result<()> {
        let pad = padding(size);
        let size = usize::try_from(size).map_err(io::Error::other)?;
        if self.fill(size + pad)? && self.buf.range(size..size + pad).all(|&b| b == 0) {
            let mut data = self.take(size + pad);
            data.truncate(size);
            // A tar can have any number of them before a member.
            let held: usize = self.exts.iter().map(|(_, data)| data.len()).sum();
            if self.exts.len() == Form::MAX_EXTS || (held + size) as u64 > MAX_EXTENDED {
                self.flush_exts();
            }
            self.exts.push((block, data));
        } else {
            self.flush_exts();
            self.put_raw(&block);
        }
        Ok(())
    }

    fn file(&mut self, block: [u8; BLOCK], size: u64) -> io::Result<()> {
        if self.buf.is_empty() {
            self.look()?;
        }
        if !self.buf.is_empty() || self.ahead != Some(Segment::File { size }) {
            self.flush_exts();
            self.put_raw(&block);
            return Ok(());
        }
        let file = self.take_file(size)?;
        let pad = padding(size);
        let padded = self.fill(pad)? && self.buf.range(..pad).all(|&b| b == 0);
        if padded {
            self.at += pad as u64;
            self.buf.drain(..pad);
        }
        if !self.member(&block, Some(file), padded) {
            self.flush_raw();
            self.ready.push_back(Item::Bare { file, size });
            if padded {
                self.put_raw(&[0; BLOCK][..pad]);
            }
        }
        Ok(())
    }

    /// Hands on a member; false when it had to be raw.
    fn member(&mut self, block: &[u8; BLOCK], file: Option<u32>, padded: bool) -> bool {
        match Member::parse(&self.exts, block, padded) {
            Some(member) => {
                self.exts.clear();
                self.flush_raw();
                self.ready.push_back(Item::Member { member: Box::new(member), file });
                true
            }
            None => {
                self.flush_exts();
                self.put_raw(block);
                false
            }
        }
    }
}

impl<I: Iterator<Item = io::Result<Segment>>> Iterator for Items<I> {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.step() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}

impl<I> std::fmt::Debug for Items<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items").field("at", &self.at).finish_non_exhaustive()
    }
}
