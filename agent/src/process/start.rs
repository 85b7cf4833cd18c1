//! Starting a program, and running a script beside it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::launch::{ALREADY, Launch};
use super::{ProcessError, Processes};

/// From the start of the launcher to the program: it writes to the disk twice, which a worn card takes its time for.
const LAUNCH: Duration = Duration::from_secs(60);
/// How long a launcher of an agent before this one may need to become the program.
const SETTLE: Duration = Duration::from_secs(2);
/// The longest reason of a launcher.
const SAID: u64 = 4096;

/// What a script of a check did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Exit code, 128 + signal when killed.
    pub(crate) code: i64,
    /// The beginning of what it wrote.
    pub(crate) output: Vec<u8>,
}

impl Processes {
    /// Starts the program; fine when it runs.
    pub(crate) async fn start(&self, name: &str) -> Result<(), ProcessError> {
        if !self.known().starting.insert(name.to_owned()) {
            return Ok(());
        }
        let started = self.start_alone(name).await;
        self.known().starting.remove(name);
        started
    }

    async fn start_alone(&self, name: &str) -> Result<(), ProcessError> {
        let home = self.home(name);
        let end = Instant::now() + SETTLE;
        let run = home.record().map_or(0, |r| r.run).saturating_add(1);
        loop {
            if self.known().own.contains(name) {
                return Ok(());
            }
            let record = home.record();
            if let Some(record) = record.as_ref().filter(|r| r.is_alive(&self.0.boot)) {
                self.adopt(name, record);
                return Ok(());
            }
            if record.is_some_and(|r| r.run >= run) {
                // A launcher that an agent left behind was faster, and what it started has ended by now.
                return Ok(());
            }
            if home.is_locked() {
                if let Some(record) = super::holders::found_again_if_lost(&home, &self.0.boot) {
                    self.adopt(name, &record);
                    return Ok(());
                }
                // A launcher of another agent is at it; or the program has ended and something that it started has not.
                if Instant::now() >= end {
                    self.kill_all(name).await?;
                } else {
                    sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
            if self.launch(name, run).await? {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(ProcessError::Launch("something holds its lock".to_owned()));
            }
        }
    }

    /// Starts a launcher. False when it found the lock held, or the number used.
    async fn launch(&self, name: &str, run: u64) -> Result<bool, ProcessError> {
        let launch = Launch::Program { folder: self.home(name).0, run };
        let mut command = self.command(&launch);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| ProcessError::Launch(format!("the launcher cannot be started: {e}")))?;
        self.known().own.insert(name.to_owned());
        let said = match timeout(LAUNCH, said(&mut child)).await {
            // What became the program has written down who it is.
            Ok(said) if said.is_empty() && self.home(name).record().is_none_or(|r| r.run != run) => {
                let _ = child.start_kill();
                "the launcher ended before it became the program".to_owned()
            }
            Ok(said) => said,
            Err(_) => {
                let _ = child.start_kill();
                format!("the launcher did not become the program within {LAUNCH:?}")
            }
        };
        if said.is_empty() {
            self.await_child(name, run, child);
            self.0.changed.notify_one();
            return Ok(true);
        }
        let _ = child.wait().await;
        let failed = self.home(name).record().is_some_and(|r| r.run == run);
        if failed {
            // The number is used: without this the end would look like one of a program that outlived its agent.
            self.note_exit(name, run, 127);
        }
        self.known().own.remove(name);
        if said == ALREADY { Ok(false) } else { Err(ProcessError::Launch(said)) }
    }

    /// The launcher's command.
    fn command(&self, launch: &Launch) -> Command {
        let (program, words) = &self.0.launcher;
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null());
        if words.is_empty() {
            command.args(launch.words());
        } else {
            // A test's program is told in its environment what it is.
            let words: Vec<_> = launch.words().into_iter().map(|w| w.to_string_lossy().into_owned()).collect();
            command.env("SKERRY_TEST_LAUNCH", words.join("\n"));
        }
        command
    }

    /// Runs a script where the program runs: same user, folder, environment and control group.
    pub(crate) async fn script(&self, name: &str, words: &[String], limit: Duration, most: usize) -> Result<Ran, ProcessError> {
        let json = serde_json::to_string(words).unwrap_or_default();
        let mut command = self.command(&Launch::Script { folder: self.home(name).0, command: json });
        let failed = |e: std::io::Error| ProcessError::Launch(format!("the script cannot be started: {e}"));
        // Nothing of it outlives its time, nor the agent that asked for it.
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let run = async {
            let output = tokio::join!(first_bytes(out.as_mut(), most), first_bytes(err.as_mut(), most));
            (output, child.wait().await)
        };
        let ended = timeout(limit, run).await;
        if ended.is_err()
            && let Some(pid) = pid
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let Ok(((mut output, errors), status)) = ended else {
            return Err(ProcessError::Launch(format!("it did not end within {} ms", limit.as_millis())));
        };
        output.extend_from_slice(&errors[..errors.len().min(most.saturating_sub(output.len()))]);
        Ok(Ran { code: super::watch::code(status.map_err(failed)?), output })
    }
}

/// What the launcher says until it becomes the program, or ends.
async fn said(child: &mut Child) -> String {
    let Some(stderr) = child.stderr.take() else { return String::new() };
    let mut said = Vec::new();
    let _ = stderr.take(SAID).read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// The first bytes of a stream; the rest is read and dropped, so that the script does not wait for us.
async fn first_bytes(stream: Option<&mut (impl AsyncReadExt + Unpin)>, most: usize) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 512]);
    let Some(stream) = stream else { return kept };
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n.min(most.saturating_sub(kept.len()))]);
    }
    kept
}
