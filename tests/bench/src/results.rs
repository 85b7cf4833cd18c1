//! What was measured so far, a JSON line each: an interrupted run goes on where it was.
//!
//! A result is valid for the same bytes of the two archives, the same tool, and the same bytes of its program.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::measure::Cost;

/// How a tool did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Made, decoded, and the result was the target.
    Done {
        /// What has to be sent.
        bytes: u64,
        /// Making.
        make: Cost,
        /// Decoding.
        apply: Cost,
    },
    /// Not ended in time.
    Late,
    /// It needs more memory than there is: so many bytes.
    TooBig(u64),
}

/// What was measured, and of what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Digest of the old archive; empty for none.
    pub old: String,
    /// Digest of the new one.
    pub new: String,
    /// The tool, with its options.
    pub tool: String,
    /// Digest of its program.
    pub program: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line<T> {
    #[serde(flatten)]
    key: Key,
    outcome: T,
}

/// The results in a file.
#[derive(Debug)]
pub struct Results<T> {
    path: PathBuf,
    known: BTreeMap<Key, T>,
}

impl<T: Serialize + for<'a> Deserialize<'a> + Clone> Results<T> {
    /// Reads those that are there.
    pub fn open(path: &Path) -> Result<Self> {
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        // A line that was cut off is measured again.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line<T>>(line).ok());
        Ok(Self { path: path.to_owned(), known: lines.map(|line| (line.key, line.outcome)).collect() })
    }

    /// What is known under this key.
    pub fn get(&self, key: &Key) -> Option<&T> {
        self.known.get(key)
    }

    /// Adds one, on the disk before this returns.
    pub fn put(&mut self, key: Key, outcome: T) -> Result<()> {
        // A line that was cut off must not swallow this one.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, &Line { key: key.clone(), outcome: outcome.clone() })?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(&line)?;
        file.sync_data()?;
        self.known.insert(key, outcome);
        Ok(())
    }
}

/// Digests of files, remembered while a file's size and time stay.
#[derive(Debug)]
pub struct Digests {
    path: PathBuf,
    known: BTreeMap<String, String>,
}

impl Digests {
    /// Reads those that are known.
    pub fn open(path: &Path) -> Self {
        let known = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path: path.to_owned(), known }
    }

    /// The SHA-256 of a file.
    pub fn of(&mut self, path: &Path) -> Result<String> {
        let data = fs::metadata(path).with_context(|| path.display().to_string())?;
        let place = fs::canonicalize(path)?;
        let state = format!("{} {} {}.{:09}", place.display(), data.len(), data.mtime(), data.mtime_nsec());
        if let Some(digest) = self.known.get(&state) {
            return Ok(digest.clone());
        }
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            context.update(&buffer[..read]);
        }
        let digest: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.known.insert(state, digest.clone());
        fs::write(&self.path, serde_json::to_vec(&self.known)?)?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn key(program: &str) -> Key {
        Key { old: "a".into(), new: "b".into(), tool: "zstd".into(), program: program.into() }
    }

    #[test]
    fn goes_on_after_a_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results");
        let mut results = Results::<u64>::open(&path).unwrap();
        results.put(key("1"), 7).unwrap();
        results.put(key("2"), 8).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        let mut results = Results::<u64>::open(&path).unwrap();
        assert_eq!((results.get(&key("1")), results.get(&key("2"))), (Some(&7), None), "the line that was cut is not known");
        results.put(key("3"), 9).unwrap();
        let results = Results::<u64>::open(&path).unwrap();
        assert_eq!((results.get(&key("1")), results.get(&key("3"))), (Some(&7), Some(&9)));
    }

    #[test]
    fn a_changed_file_has_another_digest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mut digests = Digests::open(&folder.path().join("digests"));
        fs::write(&file, "one").unwrap();
        let one = digests.of(&file).unwrap();
        assert_eq!(one, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
        fs::write(&file, "three").unwrap();
        assert_ne!(digests.of(&file).unwrap(), one);
    }
}
