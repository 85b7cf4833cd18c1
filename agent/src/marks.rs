//! Values that must never be lost nor go back: kept in two files that are written in turn, apart from the ledger.
//!
//! In: a value. Out: the newest value that was written whole. Whatever a power cut leaves of the file being written, the other one
//! still holds the value before.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use skerry_trust::{encode_slot, newest_slot};
use skerry_wire::cbor;

use crate::files::{self, FileError};

/// A slot file is never longer than this.
const LIMIT: usize = 4096;
/// What a file is made with when room is reserved: one block of any disk.
const ROOM: usize = 512;

/// One value in two alternating files, `NAME.0` and `NAME.1`.
#[derive(Debug)]
pub(crate) struct Slots {
    paths: [PathBuf; 2],
    /// Generation of the newest whole slot, 0 when there is none.
    generation: u64,
    /// The file that the next value goes into: the one that does not hold the newest.
    next: usize,
}

impl Slots {
    /// Opens the pair and gives the newest value; `None` when neither file holds a whole one.
    pub(crate) fn open<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<(Self, Option<T>), FileError> {
        let paths = [folder.join(format!("{name}.0")), folder.join(format!("{name}.1"))];
        let mut bytes = [Vec::new(), Vec::new()];
        for (path, bytes) in paths.iter().zip(&mut bytes) {
            match files::read(path, LIMIT) {
                Ok(found) => *bytes = found.unwrap_or_default(),
                // A file that cannot be read is as good as garbled: the other one counts.
                Err(error) => tracing::warn!("mark file set aside: {error}"),
            }
        }
        let mut slots = Self { paths, generation: 0, next: 0 };
        let Some((generation, payload, second)) = newest_slot(&bytes[0], &bytes[1]) else { return Ok((slots, None)) };
        slots.generation = generation;
        slots.next = usize::from(!second);
        match cbor::decode(payload, LIMIT) {
            Ok(value) => Ok((slots, Some(value))),
            Err(error) => {
                tracing::warn!("mark in {} cannot be read: {error}", slots.paths[usize::from(second)].display());
                Ok((slots, None))
            }
        }
    }

    /// Makes the files that are not there, so that later writes need no more room on the disk. Nothing in them counts as a value.
    pub(crate) fn reserve(&self) -> Result<(), FileError> {
        for path in self.paths.iter().filter(|p| !p.exists()) {
            files::replace(path, &[0; ROOM], 0o600)?;
        }
        Ok(())
    }

    /// Counts the writes.
    #[cfg(test)]
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Writes the value; it is on the disk on return.
    pub(crate) fn write<T: Serialize>(&mut self, value: &T) -> Result<(), FileError> {
        let path = &self.paths[self.next];
        let generation = self.generation.saturating_add(1);
        let bytes = encode_slot(generation, &cbor::encode(value));
        // In place: the other file is the safety, and no name changes, so the folder needs a sync only when the file is new.
        let new = !path.exists();
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&bytes)?;
            file.sync_all()
        })();
        written.map_err(FileError::at(path))?;
        if new {
            files::sync_folder_of(path)?;
        }
        self.generation = generation;
        self.next = 1 - self.next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::manifest::Mark;

    fn mark(counter: u64) -> Mark {
        Mark { root: 1, epoch: 1, counter }
    }

    #[test]
    fn the_newest_mark_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        for counter in 0u64..5 {
            let (mut slots, found) = Slots::open::<Mark>(dir.path(), "mark").unwrap();
            assert_eq!(found, counter.checked_sub(1).map(mark));
            slots.write(&mark(counter)).unwrap();
        }
    }

    #[test]
    fn reserved_room_holds_no_value_and_takes_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, found) = Slots::open::<Mark>(dir.path(), "mark").unwrap();
        slots.reserve().unwrap();
        assert_eq!(found, None);
        assert_eq!(Slots::open::<Mark>(dir.path(), "mark").unwrap().1, None);
        for counter in 1..=3 {
            slots.write(&mark(counter)).unwrap();
            slots.reserve().unwrap();
            assert_eq!(Slots::open::<Mark>(dir.path(), "mark").unwrap().1, Some(mark(counter)));
        }
        let lengths = ["mark.0", "mark.1"].map(|n| std::fs::metadata(dir.path().join(n)).unwrap().len());
        assert_eq!(lengths, [512, 512], "no write needed more room");
    }

    #[test]
    fn either_file_garbled_or_cut_costs_at_most_the_newest() {
        for victim in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let (mut slots, _) = Slots::open::<Mark>(dir.path(), "mark").unwrap();
            for counter in 1..=4 {
                slots.write(&mark(counter)).unwrap();
            }
            let path = dir.path().join(format!("mark.{victim}"));
            let whole = std::fs::read(&path).unwrap();
            for cut in 0..whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let (mut slots, found) = Slots::open::<Mark>(dir.path(), "mark").unwrap();
                let survivor = found.expect("the other file is whole");
                assert!(survivor.counter >= 3, "victim {victim} cut at {cut}: {survivor}");
                // The next write must go over the broken file, never over the survivor.
                slots.write(&mark(9)).unwrap();
                std::fs::write(&path, b"").unwrap();
                let (_, found) = Slots::open::<Mark>(dir.path(), "mark").unwrap();
                assert_eq!(found.unwrap(), survivor, "victim {victim} cut at {cut}");
            }
        }
    }
}
