//! Room on the disk that is the ledger's alone: a file of it, let go when others have taken the rest.
//!
//! In: a look before each piece of work. Out: when less than [`LOW`] is free the file goes, so that decisions and reports can be kept
//! while the disk is full; when [`HIGH`] is free it is made again. What the ledger writes takes the place of what it wrote, so the room
//! lasts until somebody else takes that too.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::files;
use crate::fingerprint::disk_free;

/// Bytes of the file.
const ROOM: u64 = 1 << 20;
/// Free bytes below which it goes: more than any one write of the ledger takes.
const LOW: u64 = 512 * 1024;
/// Free bytes above which it is made.
const HIGH: u64 = 8 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    there: bool,
    /// The disk gives no room in this way, or not now: not asked again.
    given_up: bool,
}

impl Reserve {
    /// Of the ledger in this folder.
    pub(super) fn new(folder: &Path) -> Self {
        let path = folder.join("ledger.reserve");
        let there = std::fs::metadata(&path).is_ok_and(|m| m.len() == ROOM);
        Self { path, there, given_up: false }
    }

    /// Makes it or lets it go, as the disk is. Never a reason to fail: without it the ledger is as any other program.
    pub(super) fn tend(&mut self) {
        #[cfg(feature = "simulation")]
        if crate::simulate::machine().is_some() {
            return;
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let free = disk_free(folder);
        if self.there && free < LOW {
            self.there = false;
            match files::remove(&self.path) {
                Ok(()) => tracing::warn!("the disk of {} is full: the ledger uses the room that it had set aside", folder.display()),
                Err(error) => tracing::warn!("{error}"),
            }
        } else if !self.there && !self.given_up && free > HIGH {
            self.there = self.make().inspect_err(|error| tracing::debug!("no room is set aside: {error}")).is_ok();
            if !self.there {
                self.given_up = true;
                let _ = files::remove(&self.path);
            }
        }
    }

    fn make(&self) -> std::io::Result<()> {
        let file: File = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        // Blocks, not a hole.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, ROOM)?;
        Ok(())
    }
}
