//! What coding may take of the maker's memory, and windows of that of whoever reads.

use std::io;

use rayon::prelude::*;

use super::Stream;
use super::coder::{self, Coder, MAX_WINDOW_LOG};

/// Bytes of memory that coding by LZMA takes for each byte of its window: the window, its tables and the tree of matches.
const LZMA_MEMORY: u64 = 12;

/// The largest window, as a power of two, with which something is coded within so many bytes of memory.
pub(super) fn largest_window(memory: u64) -> u32 {
    (memory / LZMA_MEMORY).clamp(1 << 16, 1 << MAX_WINDOW_LOG).ilog2()
}

/// How many streams are coded at once within so many bytes of memory.
pub(super) fn at_once(memory: u64) -> usize {
    let each = LZMA_MEMORY << largest_window(memory);
    usize::try_from(memory / each).unwrap_or(usize::MAX).clamp(1, rayon::current_num_threads())
}

/// Works on all, so many at a time, in their order.
pub(super) fn in_turn<T: Send, R: Send>(mut work: Vec<T>, at_once: usize, each: impl Fn(T) -> io::Result<R> + Sync) -> io::Result<Vec<R>> {
    if at_once >= rayon::current_num_threads() {
        return work.into_par_iter().with_max_len(1).map(&each).collect();
    }
    let mut done = Vec::with_capacity(work.len());
    while !work.is_empty() {
        let now: Vec<T> = work.drain(..at_once.min(work.len())).collect();
        done.append(&mut now.into_par_iter().with_max_len(1).map(&each).collect::<io::Result<Vec<_>>>()?);
    }
    Ok(done)
}

/// A window for each stream: as large as it can use, the longest streams first, while memory lasts.
pub(super) fn windows(streams: &[(Stream, Vec<u8>)], memory: u64, largest: u32) -> Vec<u32> {
    let len = |i: usize| streams[i].1.len() as u64;
    let mut order: Vec<_> = (0..streams.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(len(i)));
    let mut windows = vec![17.min(largest); streams.len()];
    let used = |windows: &[u32]| -> u64 {
        let of = |(i, window): (usize, &u32)| Coder::Zstd(coder::window_number(*window)).memory(len(i));
        windows.iter().enumerate().map(of).sum()
    };
    // Everyone grows by one step in turn, so that a few long streams do not starve the others.
    let mut grown = true;
    while grown {
        grown = false;
        for &i in &order {
            if windows[i] < coder::window_for(len(i)).min(largest) {
                windows[i] += 1;
                if used(&windows) <= memory {
                    grown = true;
                } else {
                    windows[i] -= 1;
                }
            }
        }
    }
    windows
}
