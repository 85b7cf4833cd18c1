//! The model of a disk: what is on it for certain, what may be, and what a power cut leaves.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::trace::{FileId, Step};

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// Chooses, the same way for the same seed (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`; 0 when `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap_or(0).checked_rem(n).unwrap_or(0)
    }

    /// Yes, once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What is left of the unsynced.
#[derive(Clone, Copy)]
enum Fate {
    /// All of it.
    All,
    /// Nothing.
    Nothing,
    /// The first of it.
    Prefix,
    /// Any sectors of it.
    Torn,
}

/// One file.
#[derive(Debug, Clone, Default)]
struct Content {
    /// On the disk for certain.
    synced: Vec<u8>,
    /// Since then.
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

/// A change of names.
#[derive(Debug, Clone)]
enum Naming {
    Put(PathBuf, FileId),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Folder(PathBuf),
}

impl Naming {
    /// Is it a change in this folder?
    fn is_in(&self, folder: &Path) -> bool {
        let inside = |path: &Path| path.parent().unwrap_or(Path::new("")) == folder;
        match self {
            Self::Put(path, _) | Self::Remove(path) | Self::Folder(path) => inside(path),
            Self::Rename(from, to) => inside(from) || inside(to),
        }
    }
}

/// A disk at work.
#[derive(Clone)]
pub(super) struct Model {
    files: BTreeMap<FileId, Content>,
    names: Names,
    /// Changes of names since the last sync of their folders, in order.
    pending: Vec<Naming>,
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, FileId>,
    folders: Vec<PathBuf>,
}

impl Names {
    fn apply(&mut self, change: &Naming) {
        match change {
            Naming::Put(path, id) => {
                self.files.insert(path.clone(), *id);
            }
            Naming::Rename(from, to) => {
                if let Some(id) = self.files.remove(from) {
                    self.files.insert(to.clone(), id);
                }
            }
            Naming::Remove(path) => {
                self.files.remove(path);
                self.folders.retain(|folder| folder != path);
            }
            Naming::Folder(path) => self.folders.push(path.clone()),
        }
    }
}

impl Model {
    pub(super) fn new(start: &BTreeMap<PathBuf, (FileId, Vec<u8>)>, folders: &[PathBuf]) -> Self {
        let files = start.values().map(|(id, bytes)| (*id, Content { synced: bytes.clone(), pending: Vec::new() })).collect();
        let names = Names { files: start.iter().map(|(name, (id, _))| (name.clone(), *id)).collect(), folders: folders.to_vec() };
        Self { files, names, pending: Vec::new() }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Create(name, id) => {
                self.files.entry(*id).or_default();
                self.pending.push(Naming::Put(name.clone(), *id));
            }
            Step::Write(id, at, bytes) => self.change(*id, Change::Write(*at, bytes.clone())),
            Step::Truncate(id, len) => self.change(*id, Change::Truncate(*len)),
            Step::Sync(id) => {
                if let Some(file) = self.files.get_mut(id) {
                    for change in std::mem::take(&mut file.pending) {
                        apply(&mut file.synced, &change);
                    }
                }
            }
            Step::Rename(from, to) => self.pending.push(Naming::Rename(from.clone(), to.clone())),
            Step::Remove(name) => self.pending.push(Naming::Remove(name.clone())),
            Step::MakeFolder(name) => self.pending.push(Naming::Folder(name.clone())),
            Step::SyncFolder(folder) => {
                // File systems keep the order of names: what came before the last change of this folder is on the disk with it.
                let last = self.pending.iter().rposition(|change| change.is_in(folder));
                for change in self.pending.drain(..last.map_or(0, |last| last + 1)) {
                    self.names.apply(&change);
                }
            }
            Step::Mark(_) => {}
        }
    }

    fn change(&mut self, id: FileId, change: Change) {
        self.files.entry(id).or_default().pending.push(change);
    }

    /// What a cut leaves now.
    pub(super) fn cut(mut self, chance: &mut Chance) -> Disk {
        let survive = match chance.below(3) {
            0 => 0,
            1 => self.pending.len(),
            _ => chance.below(self.pending.len() + 1),
        };
        for change in &self.pending[..survive] {
            self.names.apply(change);
        }
        let fate = [Fate::All, Fate::Nothing, Fate::Prefix, Fate::Torn][chance.below(4)];
        let mut files = BTreeMap::new();
        for (name, id) in &self.names.files {
            let content = self.files.get(id).cloned().unwrap_or_default();
            files.insert(name.clone(), left(content, fate, chance));
        }
        Disk { files, folders: self.names.folders }
    }
}

/// What is left of a file.
fn left(content: Content, fate: Fate, chance: &mut Chance) -> Vec<u8> {
    let Content { mut synced, pending } = content;
    let count = match fate {
        Fate::All | Fate::Torn => pending.len(),
        Fate::Nothing => 0,
        Fate::Prefix => chance.below(pending.len() + 1),
    };
    for change in &pending[..count] {
        match (fate, change) {
            (Fate::Torn, Change::Write(at, bytes)) => {
                let mut done = 0;
                while done < bytes.len() {
                    // Sectors lie at multiples of their size in the file.
                    let start = usize::try_from(*at).unwrap_or(usize::MAX).saturating_add(done);
                    let len = (SECTOR - start % SECTOR).min(bytes.len() - done);
                    match chance.below(4) {
                        0 => {}
                        // The length became longer, the bytes did not come.
                        1 if synced.len() < start + len => synced.resize(start + len, 0),
                        _ => apply(&mut synced, &Change::Write(start as u64, bytes[done..done + len].to_vec())),
                    }
                    done += len;
                }
            }
            (Fate::Torn, Change::Truncate(_)) if chance.one_in(2) => {}
            _ => apply(&mut synced, change),
        }
    }
    synced
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, new) => {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            if bytes.len() < at + new.len() {
                bytes.resize(at + new.len(), 0);
            }
            bytes[at..at + new.len()].copy_from_slice(new);
        }
        Change::Truncate(len) => bytes.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
    }
}

/// A folder after a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its files, by name below the folder.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The folders below it, outer ones first.
    pub folders: Vec<PathBuf>,
}

impl Disk {
    /// Empties a folder and makes it so.
    ///
    /// # Errors
    /// What the system says.
    pub fn replace(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        self.write_to(folder)
    }

    /// Makes the folder so, in an empty one. A file whose folder did not survive did not either.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        for below in &self.folders {
            if folder.join(below).parent().is_some_and(Path::is_dir) {
                fs::create_dir_all(folder.join(below))?;
            }
        }
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            if path.parent().is_some_and(Path::is_dir) {
                fs::write(path, bytes)?;
            }
        }
        Ok(())
    }
}
