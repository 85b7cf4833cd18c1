//! A content read in pages, of which the last ones used are held.

use std::collections::{HashMap, VecDeque};
use std::io::{self, SeekFrom};

use crate::source::ReadSeek;

const PAGE: u64 = 256 << 10;

/// A content in pages.
pub(super) struct Pages<'a> {
    content: &'a mut dyn ReadSeek,
    size: u64,
    held: HashMap<u64, Vec<u8>>,
    /// In the order in which they were read.
    order: VecDeque<u64>,
    most: usize,
    page: u64,
}

impl<'a> Pages<'a> {
    /// Of a content of this size, in about `memory` bytes.
    pub(super) fn new(content: &'a mut dyn ReadSeek, size: u64, memory: u64) -> Self {
        let page = PAGE.min(memory / 8).max(16);
        let most = usize::try_from(memory / page).unwrap_or(usize::MAX).max(4);
        Self { content, size, held: HashMap::new(), order: VecDeque::new(), most, page }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes from a place on, as many as its page has; none at the end.
    pub(super) fn from(&mut self, at: u64) -> io::Result<&[u8]> {
        if at >= self.size {
            return Ok(&[]);
        }
        let (number, within) = (at / self.page, at % self.page);
        Ok(&self.hold(number)?[usize::try_from(within).map_err(io::Error::other)?..])
    }

    /// Bytes up to a place, as many as the page before it has; none at the start.
    pub(super) fn to(&mut self, at: u64) -> io::Result<&[u8]> {
        if at == 0 {
            return Ok(&[]);
        }
        let (number, within) = ((at - 1) / self.page, (at - 1) % self.page + 1);
        Ok(&self.hold(number)?[..usize::try_from(within).map_err(io::Error::other)?])
    }

    /// Fills `into` from a place on, past the pages.
    pub(super) fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.content.seek(SeekFrom::Start(at))?;
        self.content.read_exact(into)
    }

    fn hold(&mut self, number: u64) -> io::Result<&[u8]> {
        if !self.held.contains_key(&number) {
            let mut page = match self.order.len() >= self.most {
                true => self.order.pop_front().and_then(|oldest| self.held.remove(&oldest)).unwrap_or_default(),
                false => Vec::new(),
            };
            let start = number * self.page;
            page.resize(usize::try_from(self.page.min(self.size - start)).map_err(io::Error::other)?, 0);
            self.content.seek(SeekFrom::Start(start))?;
            self.content.read_exact(&mut page)?;
            self.held.insert(number, page);
            self.order.push_back(number);
        }
        Ok(&self.held[&number])
    }
}
