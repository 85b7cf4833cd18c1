//! The agent's side of a reconstruct: starts the child and passes its archive on to the engine.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use rustix::process::Signal;
use skerry_engine::{Engine, EngineError};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::child::{self, Request};
use crate::steps::{self, Step};

/// Bytes passed on at once.
const BUFFER: usize = 64 * 1024;
/// What is kept of what the child says: its end tells why it failed.
const SAID: usize = 8 * 1024;

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// The child did not start.
    #[error("the reconstruct process cannot be started: {0}")]
    Start(#[source] io::Error),
    /// The child failed: the bundle, or what it starts from, is not right.
    #[error("reconstruct: {0}")]
    Failed(String),
    /// Something else ended the child, which says nothing of the bundle.
    #[error("reconstruct: the process was killed ({0}): something else on this node ended it, such as the system when it lacked memory")]
    Killed(ExitStatus),
    /// The disk was full under its scratch files, which says nothing of the bundle either.
    #[error("reconstruct: {0}; make room on its disk: the agent tries again by itself")]
    NoRoom(String),
    /// The engine did not take it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Reconstructs and loads. The child ends when this future is dropped.
pub(crate) async fn make(engine: &impl Engine, request: &Request) -> Result<(), MakeError> {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        let made = machine.reconstruct(&request.bundle, request.image).map_err(MakeError::Failed)?;
        return Ok(engine.load(Box::pin(stream::iter([Ok(Bytes::from(made))]))).await?);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("reconstruct").env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(MakeError::Start)?;
    let (Some(mut input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(MakeError::Start(io::Error::other("it has no pipes")));
    };
    let text = serde_json::to_vec(request).map_err(|e| MakeError::Start(e.into()))?;
    // A child that dies early breaks this pipe; what it says on the other one is the better reason.
    let _ = input.write_all(&text).await;
    drop(input);
    steps::reached(Step::ReconstructStarted);
    let reason = Arc::new(Mutex::new(None));
    let passing = Passing { child, output, errors, bound: child::bound(request), reason: Arc::clone(&reason) };
    let archive = stream::unfold(Some(passing), |passing| async move { passing?.next().await });
    let loaded = engine.load(Box::pin(archive)).await;
    // The engine's complaint about a broken archive is only the echo of the child's.
    if let Some(reason) = reason.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(reason);
    }
    Ok(loaded?)
}

/// The archive on its way from the child to the engine.
struct Passing {
    child: Child,
    output: ChildStdout,
    errors: ChildStderr,
    /// Bytes of memory that it may have.
    bound: u64,
    reason: Arc<Mutex<Option<MakeError>>>,
}

impl Passing {
    /// The next bytes. An archive ends well only when its child did.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        let read = loop {
            match self.output.read_buf(&mut buffer).await {
                Ok(0) => break Ok(()),
                Ok(_) if buffer.len() < BUFFER => {}
                Ok(_) => {
                    steps::handed_over(buffer.len());
                    return Some((Ok(buffer.freeze()), Some(self)));
                }
                Err(error) => break Err(error),
            }
        };
        let ended = match read {
            Ok(()) => self.ended().await,
            Err(error) => Err(MakeError::Failed(error.to_string())),
        };
        if ended.is_ok() {
            steps::handed_over_all();
        }
        match ended {
            // What is left goes first; then the end, of which an exited child is asked once more.
            Ok(()) if buffer.is_empty() => None,
            Ok(()) => Some((Ok(buffer.freeze()), None)),
            Err(reason) => {
                let echo = io::Error::other(reason.to_string());
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Some((Err(echo), None))
            }
        }
    }

    /// How the child ended; its last words when it failed.
    async fn ended(&mut self) -> Result<(), MakeError> {
        let mut said = Vec::new();
        let mut piece = [0; 1024];
        while let Ok(n @ 1..) = self.errors.read(&mut piece).await {
            said.extend_from_slice(&piece[..n]);
            let surplus = said.len().saturating_sub(SAID);
            said.drain(..surplus);
        }
        let status = self.child.wait().await.map_err(|e| MakeError::Failed(e.to_string()))?;
        judge(status, &String::from_utf8_lossy(&said), self.bound)
    }
}

/// What the end of a child means that said this and might have so many bytes of memory.
fn judge(status: ExitStatus, said: &str, bound: u64) -> Result<(), MakeError> {
    if status.success() {
        return Ok(());
    }
    // What it does to itself ends with other signals.
    if let Some(number) = status.signal()
        && [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP].iter().any(|s| s.as_raw() == number)
    {
        return Err(MakeError::Killed(status));
    }
    // A note on how to debug it follows the last words of a child that panicked or got no memory.
    let mut words = said.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("note: "));
    let last = words.next_back().map(|l| l.trim_start_matches("skerry-agent: ").to_owned());
    let last = last.unwrap_or_else(|| format!("the process ended with {status}"));
    if status.code() == Some(child::NO_ROOM.into()) {
        return Err(MakeError::NoRoom(last));
    }
    // What a program says to which the system gives no more; it has no other way to end.
    if status.signal() == Some(Signal::ABORT.as_raw()) && last.starts_with("memory allocation of") {
        return Err(MakeError::Failed(format!("{}: {last}", child::lacks_memory(bound))));
    }
    Err(MakeError::Failed(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_child_tells_who_is_to_blame() {
        let end = |raw: i32, said: &str| {
            judge(ExitStatus::from_raw(raw), said, 64 << 20).map_err(|e| (matches!(e, MakeError::Killed(_)), e.to_string()))
        };
        assert_eq!(end(0, "noise").map_err(drop), Ok(()));
        let (killed, why) = end(1 << 8, "warning\nskerry-agent: no\n\n").unwrap_err();
        assert_eq!((killed, why.as_str()), (false, "reconstruct: no"));
        let (killed, why) = end(1 << 8, "").unwrap_err();
        assert!(!killed && why.contains("exit status: 1"), "{why}");
        for signal in [9, 15, 2, 1] {
            let (killed, why) = end(signal, "half a word").unwrap_err();
            assert!(killed && why.contains(&format!("signal: {signal} ")) && why.contains("something else on this node"), "{why}");
        }
        let full = judge(ExitStatus::from_raw(4 << 8), "skerry-agent: no room", 1).unwrap_err();
        assert!(matches!(full, MakeError::NoRoom(_)) && full.to_string().starts_with("reconstruct: no room; make room"), "{full}");
        let (killed, why) = end(11, "").unwrap_err();
        assert!(!killed && why.contains("signal: 11"), "{why}");
        let note = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        let (killed, why) = end(101 << 8, &format!("thread 'main' panicked at x.rs:1:53:\nindex out of bounds\n{note}")).unwrap_err();
        assert_eq!((killed, why.as_str()), (false, "reconstruct: index out of bounds"));
        let (killed, why) = end(6, &format!("memory allocation of 99 bytes failed\n{note}")).unwrap_err();
        assert!(!killed && why.contains("lacks memory, of which it may have 64 MiB: memory allocation of 99 bytes failed"), "{why}");
        // The same words of a child that ended otherwise are its own.
        let (_, why) = end(1 << 8, "memory allocation of 99 bytes failed").unwrap_err();
        assert_eq!(why, "reconstruct: memory allocation of 99 bytes failed");
    }
}
