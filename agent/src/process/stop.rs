//! Ending a program: a signal to all of its group, then the end that cannot be refused.

use std::time::Duration;

use rustix::process::{Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep, timeout};

use super::holders::own_holders;
use super::signals::parse;
use super::watch::{handle, wait};
use super::{ProcessError, Processes};
use crate::files;

/// From the kill to the end, which takes the kernel a moment.
const KILL: Duration = Duration::from_secs(10);

impl Processes {
    /// Sends a signal to the program and all of its group; fine when it does not run.
    pub(crate) fn signal(&self, name: &str, signal: &str) -> Result<(), ProcessError> {
        let signal = parse(signal).ok_or_else(|| ProcessError::Signal(signal.to_owned()))?;
        self.tell(name, signal);
        Ok(())
    }

    /// False when it does not run.
    fn tell(&self, name: &str, signal: Signal) -> bool {
        let record = self.home(name).record().filter(|r| r.is_alive(&self.0.boot));
        let Some(pid) = record.and_then(|r| r.process()) else { return false };
        // It leads its own group, whose number no other process gets while one of the group lives.
        let _ = kill_process_group(pid, signal);
        true
    }

    /// Asks the program to end, and kills all of it after `limit`; fine when it does not run.
    pub(crate) async fn stop(&self, name: &str, limit: Duration) -> Result<(), ProcessError> {
        let plan = self.plan(name);
        let signal = plan.and_then(|p| parse(&p.kill_signal?)).unwrap_or(Signal::TERM);
        let fd = self.home(name).record().and_then(|r| handle(&r, &self.0.boot));
        if self.tell(name, signal)
            && let Some(fd) = fd
        {
            let _ = timeout(limit, wait(fd)).await;
        }
        self.kill_all(name).await
    }

    /// Kills the program and all that it started and can be found: its group, its control group, whoever holds its lock.
    pub(super) async fn kill_all(&self, name: &str) -> Result<(), ProcessError> {
        self.kill_while(name, || true).await
    }

    /// As `kill_all`, as long as this holds.
    pub(super) async fn kill_while(&self, name: &str, holds: impl Fn() -> bool + Send) -> Result<(), ProcessError> {
        let home = self.home(name);
        let end = Instant::now() + KILL;
        while holds() {
            let alive = self.tell(name, Signal::KILL);
            if let Some(plan) = home.plan() {
                plan.groups.kill();
            }
            let locked = home.is_locked();
            let own = if locked { own_holders(&home, home.plan().as_ref()) } else { vec![] };
            for pid in &own {
                let _ = kill_process(*pid, Signal::KILL);
            }
            // A child that ended counts as running until its end is noted.
            let over = !alive && !self.waits_for_note(name);
            if over && !locked {
                return Ok(());
            }
            if Instant::now() >= end {
                if over && own.is_empty() && home.plan().is_some() {
                    tracing::warn!("process {name} has ended and left its lock with a process that is not its own: it gets another lock");
                    return Ok(files::remove(&home.path("lock"))?);
                }
                return Err(ProcessError::Stuck(name.to_owned()));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn waits_for_note(&self, name: &str) -> bool {
        let known = self.known();
        known.own.contains(name) && !known.starting.contains(name)
    }
}
