//! A process that a program under test started, and that a test stops, looks at, confines and kills at an instant of its choice.
//!
//! Held by a file descriptor of the kernel's: however long ago it ended, a signal reaches it or nobody.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal, prlimit};

use crate::memory::children;

/// A process of somebody else's.
#[derive(Debug)]
pub struct Foreign {
    pid: Pid,
    handle: OwnedFd,
}

impl Foreign {
    /// A child of `parent` that runs this program with this first argument; none while there is none.
    ///
    /// # Errors
    /// When the kernel has no such descriptors.
    pub fn child_of(parent: u32, program: &Path, first: &str) -> Result<Option<Self>> {
        for child in children(parent) {
            let folder = Path::new("/proc").join(child.to_string());
            let runs = folder.join("exe").read_link().is_ok_and(|exe| exe == program);
            let line = fs::read(folder.join("cmdline")).unwrap_or_default();
            if !runs || line.split(|b| *b == 0).nth(1) != Some(first.as_bytes()) {
                continue;
            }
            let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else { continue };
            match pidfd_open(pid, PidfdFlags::empty()) {
                // Looked at again: the number may have changed hands before it was opened.
                Ok(handle) if children(parent).contains(&child) => return Ok(Some(Self { pid, handle })),
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot open process {child}")),
            }
        }
        Ok(None)
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid.as_raw_nonzero())).ok()
    }

    /// Its state by the kernel's letter; none when it is gone.
    fn state(&self) -> Option<char> {
        self.file("stat")?.rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// Has it ended, though nobody may have asked for its status yet?
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state(), None | Some('Z' | 'X'))
    }

    /// Bytes that it has written so far, into files and pipes together; none when it has ended.
    #[must_use]
    pub fn written(&self) -> Option<u64> {
        if self.has_ended() {
            return None;
        }
        self.file("io")?.lines().find_map(|l| l.strip_prefix("wchar: "))?.trim().parse().ok()
    }

    /// Bytes of memory of its own that it may have and has; none when it has ended, or nothing bounds it.
    #[must_use]
    pub fn data(&self) -> Option<(u64, u64)> {
        let limits = self.file("limits")?;
        let bound = limits.lines().find_map(|l| l.strip_prefix("Max data size"))?.split_whitespace().next()?.parse().ok()?;
        let status = self.file("status")?;
        let has: u64 = status.lines().find_map(|l| l.strip_prefix("VmData:"))?.split_whitespace().next()?.parse().ok()?;
        Some((bound, has * 1024))
    }

    /// Holds it where it is. False when it has ended.
    ///
    /// # Errors
    /// When it may not be signalled.
    pub fn stop(&self) -> Result<bool> {
        if !self.signal(Signal::STOP)? {
            return Ok(false);
        }
        // It is on its way into the stop, and cannot do anything else than stop or end.
        while !matches!(self.state(), Some('T') | None) && !self.has_ended() {
            std::thread::yield_now();
        }
        Ok(!self.has_ended())
    }

    /// Lets it go on after [`Foreign::stop`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&self) -> Result<()> {
        ensure!(self.signal(Signal::CONT)?, "process {} has ended", self.pid.as_raw_nonzero());
        Ok(())
    }

    /// SIGKILL. False when it has ended before and its parent knows.
    ///
    /// # Errors
    /// When it may not be signalled.
    pub fn kill9(&self) -> Result<bool> {
        self.signal(Signal::KILL)
    }

    /// From now on it gets no more than so many bytes of memory of its own; what it has it keeps.
    ///
    /// # Errors
    /// When it has ended.
    pub fn bound_data(&self, bytes: u64) -> Result<()> {
        let bound = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        prlimit(Some(self.pid), Resource::Data, bound).with_context(|| format!("cannot bound {}", self.pid.as_raw_nonzero()))?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<bool> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {}", self.pid.as_raw_nonzero())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_stopped_confined_and_killed() {
        let sleep = crate::need::program("sleep").unwrap().canonicalize().unwrap();
        let mut child = Command::new(&sleep).arg("987").stdout(Stdio::null()).spawn().unwrap();
        let me = std::process::id();
        // Between the fork and the exec it is still this program.
        let found = loop {
            if let Some(found) = Foreign::child_of(me, &sleep, "987").unwrap() {
                break found;
            }
        };
        assert!(Foreign::child_of(me, &sleep, "986").unwrap().is_none());
        assert_eq!(found.written(), Some(0));
        assert_eq!(found.data(), None, "nothing bounds it");
        assert!(found.stop().unwrap());
        found.bound_data(5 << 20).unwrap();
        let (bound, has) = found.data().unwrap();
        assert!(bound == 5 << 20 && has > 0, "{bound} {has}");
        found.go_on().unwrap();
        assert!(!found.has_ended());
        found.kill9().unwrap();
        child.wait().unwrap();
        assert!(found.has_ended() && !found.kill9().unwrap() && !found.stop().unwrap());
        assert!(found.go_on().is_err());
    }
}
