//! Which open file is which, so that a write need not ask the kernel for the name of what it writes to.
//!
//! Filled when a file is opened, emptied when it is closed. What came another way (a copy of a descriptor, a folder) is not known, and the
//! kernel is asked.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use super::trace::{self, FileId};

/// Descriptors that are remembered; a higher one is not known.
const MOST: usize = 4096;
/// Bits of a file's number.
const BITS: u32 = 24;

static FILES: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// What is known of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// It belongs to no recording.
    Apart,
    /// A file of a recording; is it one that SQLite maps into memory?
    File { recording: u64, file: FileId, mapped: bool },
}

fn place(descriptor: c_int) -> Option<&'static AtomicU64> {
    FILES.get(usize::try_from(descriptor).ok()?)
}

/// Remembers it.
pub(super) fn remember(descriptor: c_int, known: Known) {
    let Some(place) = place(descriptor) else { return };
    let word = match known {
        Known::Nothing => 0,
        // A recording that begins later may be of its folder.
        Known::Apart => trace::begun() << 2 | 1,
        Known::File { recording, file, mapped } => match u64::try_from(file) {
            Ok(file) if file < 1 << BITS => recording << (BITS + 3) | file << 3 | u64::from(mapped) << 2 | 2,
            _ => 0,
        },
    };
    place.store(word, Ordering::Relaxed);
}

/// What is known of it.
pub(super) fn of(descriptor: c_int) -> Known {
    let word = place(descriptor).map_or(0, |place| place.load(Ordering::Relaxed));
    match word & 3 {
        1 if word >> 2 == trace::begun() => Known::Apart,
        2 => {
            let file = usize::try_from(word >> 3 & ((1 << BITS) - 1)).unwrap_or(0);
            Known::File { recording: word >> (BITS + 3), file, mapped: word & 4 != 0 }
        }
        _ => Known::Nothing,
    }
}
