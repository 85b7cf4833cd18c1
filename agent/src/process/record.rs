//! What is kept of a process in its folder, and whether it runs.
//!
//! `plan.json` what is to be started; `lock` held by whatever runs; `record.json` who that is; `exit.json` how it ended, when the agent
//! saw it. A run has a number that is used once: a launcher that comes late finds its number taken and starts nothing.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup::Groups;
use crate::files::{self, FileError};

/// Longest file of a process.
const LIMIT: usize = 4 << 20;
const MODE: u32 = 0o600;

/// All that a launcher must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Labels of the instance.
    pub(crate) labels: BTreeMap<String, String>,
    /// Absolute path of the program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Its whole environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Folder that it starts in.
    pub(crate) work_dir: PathBuf,
    /// User, as the jobspec names it.
    pub(crate) user: Option<String>,
    /// As root unless a user is named, and with new privileges?
    pub(crate) root: bool,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Bytes of memory that are reserved.
    pub(crate) reserved: Option<u64>,
    /// Docker's and Nomad's shares of the processor.
    pub(crate) shares: u32,
    /// Folder of its output; none when none is kept.
    pub(crate) log: Option<PathBuf>,
    /// Bytes of one file of output.
    pub(crate) log_size: u64,
    /// Files of output.
    pub(crate) log_files: u32,
    /// First signal of a stop.
    pub(crate) kill_signal: Option<String>,
    /// Its control groups.
    #[serde(flatten)]
    pub(crate) groups: Groups,
}

/// Who runs, or ran last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Counts its starts.
    pub(crate) run: u64,
    /// Process, session and group.
    pub(crate) pid: i32,
    /// When it started, in ticks of the boot.
    pub(crate) start: u64,
    /// The boot.
    pub(crate) boot: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// The run.
    pub(crate) run: u64,
    /// Exit code, 128 + signal when killed.
    pub(crate) code: i64,
    /// For want of memory?
    pub(crate) out_of_memory: bool,
}

/// A process's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.path(name);
        match files::read(&path, LIMIT) {
            Ok(bytes) => bytes.and_then(|b| serde_json::from_slice(&b).inspect_err(|e| tracing::warn!("{}: {e}", path.display())).ok()),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), FileError> {
        let path = self.path(name);
        let bytes = serde_json::to_vec(value).map_err(|e| FileError { path: path.clone(), source: e.into() })?;
        files::replace(&path, &bytes, MODE)
    }

    pub(crate) fn plan(&self) -> Option<Plan> {
        self.read("plan.json")
    }

    pub(crate) fn put_plan(&self, plan: &Plan) -> Result<(), FileError> {
        self.write("plan.json", plan)
    }

    pub(crate) fn record(&self) -> Option<Record> {
        self.read("record.json")
    }

    pub(crate) fn put_record(&self, record: &Record) -> Result<(), FileError> {
        self.write("record.json", record)
    }

    /// How the run ended, when the agent saw it.
    pub(crate) fn exit(&self, run: u64) -> Option<Exit> {
        self.read("exit.json").filter(|e: &Exit| e.run == run)
    }

    pub(crate) fn put_exit(&self, exit: &Exit) -> Result<(), FileError> {
        self.write("exit.json", exit)
    }

    /// Takes the lock; none when something runs that has it. What is taken here is closed on exec unless the caller says otherwise.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let path = self.path("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // The folder may have been removed and made anew between the two calls.
        let (held, there) = (file.metadata()?, std::fs::metadata(&path)?);
        if (held.dev(), held.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its folder was removed meanwhile"));
        }
        Ok(Some(file))
    }

    /// Does anything hold the lock?
    pub(crate) fn is_locked(&self) -> bool {
        self.path("lock").exists() && matches!(self.lock(), Ok(None))
    }

    /// The highest number that a run was given, as far as it is known.
    pub(crate) fn last_run(&self) -> u64 {
        let exit: Option<Exit> = self.read("exit.json");
        exit.map_or(0, |e| e.run).max(self.record().map_or(0, |r| r.run))
    }
}

/// When a process started, in ticks of the boot; none when it is gone, or ended and waits to be noticed.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything: fields are counted behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Record {
    /// Does this very process run?
    pub(crate) fn is_alive(&self, boot: &str) -> bool {
        self.boot == boot && start_time(self.pid) == Some(self.start)
    }

    pub(crate) fn process(&self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::super::holders::holders;
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let start = start_time(pid).unwrap();
        let record = Record { run: 1, pid, start, boot: "b".into() };
        assert!(record.is_alive("b"));
        assert!(!record.is_alive("another boot"));
        assert!(!Record { start: start + 1, ..record }.is_alive("b"), "the number was given to another process");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while start_time(pid).is_some() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().unwrap();
    }

    #[test]
    fn the_lock_is_had_once_and_its_holders_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home(folder.path().to_owned());
        assert!(!home.is_locked());
        let held = home.lock().unwrap().unwrap();
        assert!(home.is_locked() && home.lock().unwrap().is_none());
        assert!(holders(&home).is_empty(), "its own process does not count");
        drop(held);
        assert!(!home.is_locked());
    }
}
