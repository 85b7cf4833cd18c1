//! Noticing the end of programs: of children by waiting for them, of adopted ones by a descriptor of the process. Nothing polls.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use rustix::process::{PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

use super::Processes;
use super::record::{Exit, Record};

/// Exit code, 128 + signal when killed.
pub(super) fn code(status: ExitStatus) -> i64 {
    i64::from(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

impl Processes {
    /// Waits for a child that became the program, and notes how it ended.
    pub(super) fn await_child(&self, name: &str, run: u64, mut child: Child) {
        self.known().watched.insert((name.to_owned(), run));
        let record = self.home(name).record().filter(|r| r.run == run);
        let (all, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                all.note_exit(&name, run, code(status));
            }
            all.known().own.remove(&name);
            all.gone(&name, run, record.as_ref()).await;
        });
    }

    pub(super) fn note_exit(&self, name: &str, run: u64, code: i64) {
        let home = self.home(name);
        let out_of_memory = home.plan().is_some_and(|p| p.groups.was_short_of_memory());
        if let Err(error) = home.put_exit(&Exit { run, code, out_of_memory }) {
            tracing::warn!("how process {name} ended is not kept: {error}");
        }
    }

    /// Watches a program that outlived an agent. Does nothing when it is watched already.
    pub(super) fn adopt(&self, name: &str, record: &Record) {
        if !self.known().watched.insert((name.to_owned(), record.run)) {
            return;
        }
        self.0.changed.notify_one();
        let (all, name, record) = (self.clone(), name.to_owned(), record.clone());
        tokio::spawn(async move {
            if let Some(fd) = handle(&record, &all.0.boot) {
                wait(fd).await;
            }
            all.gone(&name, record.run, Some(&record)).await;
        });
    }

    /// The program has ended: what it left behind ends too, unless the next run has begun, and the main loop is told.
    async fn gone(&self, name: &str, run: u64, record: Option<&Record>) {
        let latest = || !self.known().starting.contains(name) && self.home(name).record().as_ref() == record;
        if record.is_some()
            && latest()
            && self.home(name).is_locked()
            && let Err(error) = self.kill_while(name, latest).await
        {
            tracing::warn!("{error}");
        }
        self.known().watched.remove(&(name.to_owned(), run));
        Arc::clone(&self.0.ended).notify_one();
    }
}

/// A descriptor of this very process; none when it is gone.
pub(super) fn handle(record: &Record, boot: &str) -> Option<AsyncFd<OwnedFd>> {
    let fd = pidfd_open(record.process()?, PidfdFlags::NONBLOCK).ok()?;
    // The number may have been given to another process before it was opened: then that one's start time differs.
    if !record.is_alive(boot) {
        return None;
    }
    readable(fd).ok()
}

/// The descriptor, to be waited for.
#[expect(deprecated, reason = "its successor is unsafe; an owned descriptor keeps what that asks for")]
pub(super) fn readable(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Until the process has ended.
pub(super) async fn wait(fd: AsyncFd<OwnedFd>) {
    let _ = fd.readable().await;
}
