//! A folder whose power may go while the program runs.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::disk::{Chance, Disk, Model};
use super::trace::{FileId, Recording, Running, Step, running};

/// Bytes of a page of the kernel's cache: what a disk is given at least.
const PAGE: u64 = 4096;

/// A folder of one machine, with the model of its disk kept beside it. Several may be watched at once, for folders apart.
#[derive(Debug)]
pub struct Watched(Recording);

/// The model of a watched folder's disk.
pub(super) struct Live {
    model: Model,
    steps: u64,
    /// Pages, by file, that are not on the disk yet.
    dirty: BTreeSet<(FileId, u64)>,
    written: u64,
    cut: Option<(u64, Chance)>,
    left: Option<Disk>,
    dead: bool,
    full: bool,
    broken: bool,
}

/// What becomes of a change that a program wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Made,
    /// The program is dead: it is not made, and nobody is told.
    Lost,
    /// There is no room for more bytes.
    Full,
    /// The disk gives an error instead.
    Fails,
}

impl Live {
    pub(super) fn new(model: Model) -> Self {
        Self { model, steps: 0, dirty: BTreeSet::new(), written: 0, cut: None, left: None, dead: false, full: false, broken: false }
    }

    pub(super) fn step(&mut self, step: &Step) {
        if self.dead {
            return;
        }
        self.model.step(step);
        self.steps += 1;
        self.count(step);
        if let Some((at, chance)) = &mut self.cut
            && self.steps >= *at
        {
            self.left = Some(self.model.clone().cut(chance));
            self.dead = true;
        }
    }
}

impl Live {
    /// As the kernel counts what a program causes to be written: a page when it is written to for the first time since it was on the disk.
    fn count(&mut self, step: &Step) {
        match step {
            Step::Write(file, at, bytes) if !bytes.is_empty() => {
                let end = at.saturating_add(bytes.len() as u64);
                for page in at / PAGE..end.div_ceil(PAGE) {
                    if self.dirty.insert((*file, page)) {
                        self.written += PAGE;
                    }
                }
            }
            Step::Sync(file) => self.dirty.retain(|(dirty, _)| dirty != file),
            _ => {}
        }
    }
}

/// What becomes of a change of this file.
pub(super) fn verdict(path: &Path) -> Verdict {
    let all = running();
    let live = all.iter().filter(|r| path.starts_with(&r.root)).find_map(|r| r.live.as_ref());
    match live {
        // SQLite maps this one into memory: what it was promised must be there. It holds nothing that lasts.
        Some(live) if (live.dead || live.broken) && path.as_os_str().as_encoded_bytes().ends_with(b"-shm") => Verdict::Made,
        Some(live) if live.dead => Verdict::Lost,
        Some(live) if live.broken => Verdict::Fails,
        Some(live) if live.full => Verdict::Full,
        _ => Verdict::Made,
    }
}

impl Watched {
    /// Starts with the folder as it is: all of it is on the disk.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn start(root: &Path) -> io::Result<Self> {
        Recording::begin(root, true).map(Self)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut all = running();
        let this: &mut Running = all.iter_mut().find(|r| r.id == self.0.id)?;
        this.live.as_mut().map(act)
    }

    /// The power goes after this many more changes, at once when none.
    pub fn cut_after(&self, changes: u64, chance: Chance) {
        self.with(|live| {
            if changes == 0 && !live.dead {
                live.left = Some(live.model.clone().cut(&mut chance.clone()));
                live.dead = true;
            }
            live.cut = Some((live.steps + changes, chance));
        });
    }

    /// Has the power gone?
    pub fn is_cut(&self) -> bool {
        self.with(|live| live.left.is_some()).unwrap_or(false)
    }

    /// The program is dead: what it still does does not reach the folder. What it did stays, unsynced as it may be.
    pub fn kill(&self) {
        self.with(|live| live.dead = true);
    }

    /// The next program may start.
    pub fn revive(&self) {
        self.with(|live| {
            live.dead = false;
            live.cut = None;
        });
    }

    /// From now on there is room for no more bytes, or there is again.
    pub fn set_full(&self, full: bool) {
        self.with(|live| live.full = full);
    }

    /// From now on the disk answers every read, write and sync with an error (EIO), or it works again. What it had it has.
    pub fn set_broken(&self, broken: bool) {
        self.with(|live| live.broken = broken);
    }

    /// Changes so far.
    pub fn changes(&self) -> u64 {
        self.with(|live| live.steps).unwrap_or(0)
    }

    /// Bytes that the disk was given for changes so far, in whole pages. Names and lengths of files are not counted.
    pub fn written(&self) -> u64 {
        self.with(|live| live.written).unwrap_or(0)
    }

    /// Ends it. Gives what the power cut left, if there was one.
    pub fn end(self) -> Option<Disk> {
        self.with(|live| live.left.take()).flatten()
    }
}
