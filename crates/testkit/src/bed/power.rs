//! How the node of the bed loses its power and gets it back.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::Bed;
use crate::dockerd::Dockerd;

impl Bed {
    /// The node loses its power and gets it back: the agent, the processes `pids` that it ran, and the engine with its containers are
    /// killed and, but for the processes, started again, under another boot id. The time since boot goes on.
    ///
    /// # Errors
    /// When something cannot be killed or does not start.
    pub fn reboot(&mut self, pids: &[String]) -> Result<()> {
        // Graceful for the engine's own files; containers end with it.
        self.boot_after(pids, Dockerd::stop)
    }

    /// The same, but for the engine: it is killed with all that it runs, see [`Dockerd::cut_power`].
    ///
    /// # Errors
    /// As [`Bed::reboot`].
    pub fn cut_power(&mut self, pids: &[String]) -> Result<()> {
        self.boot_after(pids, Dockerd::cut_power)
    }

    fn boot_after(&mut self, pids: &[String], end: impl FnOnce(&mut Dockerd) -> Result<()>) -> Result<()> {
        self.agent()?.kill9()?;
        self.agent = None;
        for pid in pids {
            let pid = pid.parse().ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no process id"))?;
            kill_process(pid, Signal::KILL).with_context(|| format!("cannot kill process {pid:?}"))?;
        }
        end(&mut self.engine)?;
        self.engine.start_again()?;
        self.reboots += 1;
        let id = format!("00000000-0000-4000-8000-{:012}\n", self.reboots);
        // A boot of its own: the kernel's is the machine's.
        let path = self.folder.path().join("boot_id");
        fs::write(&path, id).context("cannot write the boot id")?;
        self.mounts.retain(|(from, _)| *from != path);
        self.mounts.push((path, "/proc/sys/kernel/random/boot_id"));
        self.start_agent()
    }
}
