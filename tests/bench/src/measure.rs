//! Runs a program, bounded in time, and says how long it took and how much memory it had at most.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// A program is looked at this often. Shorter steps show up in its own time.
const STEP: Duration = Duration::from_millis(10);
/// One that has just begun is looked at this often, or a short one would not be seen at all.
const FIRST_STEP: Duration = Duration::from_millis(1);
/// For so long it has just begun.
const JUST: Duration = Duration::from_millis(200);

/// What a run cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// Peak resident memory, in KiB.
    pub rss: u64,
    /// Peak of its share of memory (Pss), in KiB; looked at for Skerry only.
    pub pss: u64,
}

impl Cost {
    /// Of this run and one after it.
    pub fn then(self, next: Self) -> Self {
        Self { seconds: self.seconds + next.seconds, rss: self.rss.max(next.rss), pss: self.pss.max(next.pss) }
    }
}

/// A run of one program.
#[derive(Debug)]
pub struct Run {
    command: Command,
    name: String,
    folder: PathBuf,
    pss: bool,
}

impl Run {
    /// The program with its arguments; what it says goes into a file of `folder`.
    pub fn new(program: impl AsRef<Path>, folder: &Path) -> Self {
        let name = program.as_ref().display().to_string();
        let mut command = Command::new(program.as_ref());
        command.stdin(Stdio::null()).env("TMPDIR", folder);
        Self { command, name, folder: folder.to_owned(), pss: false }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args<I: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.command.args(args);
        self
    }

    /// Reads this file.
    pub fn input(mut self, path: &Path) -> Result<Self> {
        self.command.stdin(File::open(path)?);
        Ok(self)
    }

    /// Looks at its share of memory too.
    pub fn with_pss(mut self) -> Self {
        self.pss = true;
        self
    }

    /// Writes what it prints into this file.
    pub fn to(self, out: &Path, limit: Duration) -> Result<Option<Cost>> {
        let file = File::create(out)?;
        self.run(Stdio::from(file), limit)
    }

    /// Runs it; `None` when it had not ended in time.
    pub fn within(self, limit: Duration) -> Result<Option<Cost>> {
        self.run(Stdio::null(), limit)
    }

    fn run(mut self, out: Stdio, limit: Duration) -> Result<Option<Cost>> {
        let said = self.folder.join("stderr");
        self.command.stdout(out).stderr(File::create(&said)?);
        let begun = Instant::now();
        let mut child = self.command.spawn().with_context(|| format!("{} cannot be run: is its package installed?", self.name))?;
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        let mut cost = Cost::default();
        let status = loop {
            // The highest so far: only what grew within the last step is not seen.
            cost.rss = cost.rss.max(kib(&proc.join("status"), "VmHWM:"));
            if self.pss {
                cost.pss = cost.pss.max(kib(&proc.join("smaps_rollup"), "Pss:"));
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(if begun.elapsed() < JUST { FIRST_STEP } else { STEP });
        };
        cost.seconds = begun.elapsed().as_secs_f64();
        if !status.success() {
            let text = fs::read_to_string(&said).unwrap_or_default();
            bail!("{} ended with {status}: {}", self.name, text.trim());
        }
        Ok(Some(cost))
    }
}

/// A number of KiB in a file of `/proc`; 0 when the process is gone.
fn kib(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes of memory that programs could have now.
pub fn available() -> u64 {
    kib(Path::new("/proc/meminfo"), "MemAvailable:") * 1024
}

/// Bytes of a file, or of all files below a folder.
pub fn size(path: &Path) -> Result<u64> {
    let data = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    if !data.is_dir() {
        return Ok(data.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += size(&entry?.path())?;
    }
    Ok(bytes)
}
