//! What happened to the files below a folder, in order.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::disk::{Chance, Disk, Model};
use super::hooks;
use super::live::Live;

/// Tells files apart, whatever their names become.
pub(super) type FileId = usize;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new, empty file of this name.
    Create(PathBuf, usize),
    /// Bytes at an offset.
    Write(usize, u64, Vec<u8>),
    /// A new length.
    Truncate(usize, u64),
    /// The file's bytes are on the disk.
    Sync(usize),
    /// Another name; what had it is gone.
    Rename(PathBuf, PathBuf),
    /// A name less.
    Remove(PathBuf),
    /// A new folder.
    MakeFolder(PathBuf),
    /// The names in a folder are on the disk.
    SyncFolder(PathBuf),
    /// The program under test says how far it is.
    Mark(u64),
}

/// What happened while a recording ran.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The folder's files when it began.
    start: BTreeMap<PathBuf, (FileId, Vec<u8>)>,
    /// The folder's folders when it began.
    folders: Vec<PathBuf>,
    /// All changes.
    pub steps: Vec<Step>,
}

impl Trace {
    /// The folder as a power cut after the first `steps` steps may have left it; `chance` chooses among the ways.
    pub fn after_cut(&self, steps: usize, chance: &mut Chance) -> Disk {
        let mut model = Model::new(&self.start, &self.folders);
        for step in &self.steps[..steps.min(self.steps.len())] {
            model.step(step);
        }
        model.cut(chance)
    }

    /// The highest mark within the first `steps` steps.
    pub fn mark_before(&self, steps: usize) -> Option<u64> {
        let marks = self.steps[..steps.min(self.steps.len())].iter();
        marks.filter_map(|step| if let Step::Mark(mark) = step { Some(*mark) } else { None }).max()
    }
}

/// Writes down what happens below a folder until it is finished or dropped. Several may run at once, for folders apart.
#[derive(Debug)]
pub struct Recording {
    pub(super) id: u64,
}

/// A recording under way.
pub(super) struct Running {
    pub(super) id: u64,
    pub(super) root: PathBuf,
    names: BTreeMap<PathBuf, FileId>,
    files: usize,
    trace: Trace,
    /// Of a folder that is watched: then no trace is kept.
    pub(super) live: Option<Live>,
}

static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

pub(super) fn running() -> MutexGuard<'static, Vec<Running>> {
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Recording {
    /// Starts with the folder as it is.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::begin(root, false)
    }

    pub(super) fn begin(root: &Path, live: bool) -> io::Result<Self> {
        hooks::keep();
        let root = fs::canonicalize(root)?;
        let (mut start, mut folders) = (BTreeMap::new(), Vec::new());
        walk(&root, Path::new(""), &mut start, &mut folders)?;
        let names = start.iter().map(|(name, (id, _))| (name.clone(), *id)).collect();
        let files = start.len();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let live = live.then(|| Live::new(Model::new(&start, &folders)));
        if live.is_some() {
            hooks::LIVE.fetch_add(1, Ordering::SeqCst);
        }
        let trace = Trace { start, folders, steps: Vec::new() };
        running().push(Running { id, root, names, files, trace, live });
        hooks::ACTIVE.fetch_add(1, Ordering::SeqCst);
        Ok(Self { id })
    }

    /// The program under test is this far: what it did until now was acknowledged.
    pub fn mark(&self, mark: u64) {
        if let Some(this) = running().iter_mut().find(|r| r.id == self.id) {
            this.trace.steps.push(Step::Mark(mark));
        }
    }

    /// Ends it.
    pub fn finish(self) -> Trace {
        self.end().unwrap_or(Trace { start: BTreeMap::new(), folders: Vec::new(), steps: Vec::new() })
    }

    fn end(&self) -> Option<Trace> {
        let mut all = running();
        let at = all.iter().position(|r| r.id == self.id)?;
        hooks::ACTIVE.fetch_sub(1, Ordering::SeqCst);
        let ended = all.swap_remove(at);
        if ended.live.is_some() {
            hooks::LIVE.fetch_sub(1, Ordering::SeqCst);
        }
        Some(ended.trace)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end();
    }
}

fn walk(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, (FileId, Vec<u8>)>, folders: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            folders.push(name.clone());
            walk(root, &name, files, folders)?;
        } else {
            let id = files.len();
            files.insert(name, (id, fs::read(entry.path())?));
        }
    }
    Ok(())
}

/// What a hook saw; paths are absolute.
pub(super) enum Seen<'a> {
    Opened { path: &'a Path, created: bool, truncated: bool },
    Written { path: &'a Path, at: u64, bytes: &'a [u8] },
    Truncated { path: &'a Path, len: u64 },
    Synced { path: &'a Path },
    Renamed { from: &'a Path, to: &'a Path },
    Removed { path: &'a Path },
    MadeFolder { path: &'a Path },
}

/// Writes down what a hook saw, where a recording wants it.
pub(super) fn note(seen: &Seen<'_>) {
    let first = match seen {
        Seen::Opened { path, .. }
        | Seen::Written { path, .. }
        | Seen::Truncated { path, .. }
        | Seen::Synced { path }
        | Seen::Removed { path }
        | Seen::MadeFolder { path } => *path,
        Seen::Renamed { from, .. } => *from,
    };
    for recording in running().iter_mut() {
        if let Ok(name) = first.strip_prefix(&recording.root) {
            let name = name.to_owned();
            recording.note(seen, name);
            return;
        }
    }
}

impl Running {
    fn note(&mut self, seen: &Seen<'_>, name: PathBuf) {
        match seen {
            Seen::Opened { created, truncated, .. } => {
                if *created && !self.names.contains_key(&name) {
                    self.file(&name);
                }
                if *truncated && let Some(id) = self.names.get(&name).copied() {
                    self.step(Step::Truncate(id, 0));
                }
            }
            Seen::Written { at, bytes, .. } => {
                let id = self.file(&name);
                self.step(Step::Write(id, *at, bytes.to_vec()));
            }
            Seen::Truncated { len, .. } => {
                let id = self.file(&name);
                self.step(Step::Truncate(id, *len));
            }
            Seen::Synced { path } => match self.names.get(&name).copied() {
                Some(id) => self.step(Step::Sync(id)),
                None if path.is_dir() => self.step(Step::SyncFolder(name)),
                None => {}
            },
            Seen::Renamed { to, .. } => {
                let Ok(to) = to.strip_prefix(&self.root) else { return };
                let to = to.to_owned();
                if let Some(id) = self.names.remove(&name) {
                    self.names.insert(to.clone(), id);
                    self.step(Step::Rename(name, to));
                }
            }
            Seen::Removed { .. } => {
                self.names.remove(&name);
                self.step(Step::Remove(name));
            }
            Seen::MadeFolder { .. } => self.step(Step::MakeFolder(name)),
        }
    }

    fn step(&mut self, step: Step) {
        match &mut self.live {
            Some(live) => live.step(&step),
            None => self.trace.steps.push(step),
        }
    }

    /// The file of this name; a new one when it is not known.
    fn file(&mut self, name: &Path) -> FileId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = self.files;
        self.files += 1;
        self.names.insert(name.to_owned(), id);
        self.step(Step::Create(name.to_owned(), id));
        id
    }
}
