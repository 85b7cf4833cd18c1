//! A process with a log file that tests start, watch and kill at any instant.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::line;

/// A running process; killed when dropped. Its output of all starts is in one log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Length of the log when this process was started: lines before it are of an earlier start.
    log_start: usize,
}

impl Process {
    /// Starts the command; both outputs are appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log).with_context(|| format!("cannot open {}", log.display()))?;
        let log_start = usize::try_from(file.metadata()?.len())?;
        let errors = file.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = child.spawn().with_context(|| format!("cannot start `{}`", line(command)))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), log_start })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Does it still run?
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until a line that contains `needle` is in the log, and returns that line.
    ///
    /// # Errors
    /// When the process ends before, or `limit` passes; the error holds the end of the log.
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait()?;
            if let Some(found) = self.output().lines().find(|l| l.contains(needle)) {
                return Ok(found.to_owned());
            }
            if let Some(status) = ended {
                bail!("{} ended with {status} before it said \"{needle}\":\n{}", self.name, self.log_tail());
            }
            if Instant::now() >= end {
                bail!("{} did not say \"{needle}\" within {} s:\n{}", self.name, limit.as_secs(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} still runs after {} s:\n{}", self.name, limit.as_secs(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, and waits for the end: what a power cut is to a process.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().map(drop).with_context(|| format!("cannot wait for {}", self.name))
    }

    /// SIGTERM, and SIGKILL when it still runs after `grace`.
    ///
    /// # Errors
    /// When it had to be killed: a graceful stop is a promise.
    pub fn terminate(&mut self, grace: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
            kill_process(pid, Signal::TERM).with_context(|| format!("cannot signal {}", self.name))?;
        }
        match self.wait_exit(grace) {
            Ok(status) => Ok(status),
            Err(e) => {
                self.kill9()?;
                Err(e)
            }
        }
    }

    /// What it has said since it was started.
    #[must_use]
    pub fn output(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// The last 40 lines of its log, for failures.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log, 40)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a file, each indented; says so when there are none.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    if all.is_empty() {
        return format!("  ({} is empty)", log.display());
    }
    all[all.len().saturating_sub(lines)..].iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n")
}
