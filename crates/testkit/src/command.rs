//! Run a command to its end and keep what it said.

use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs the command and returns its standard output.
///
/// # Errors
/// When it cannot be started, or ends with another code than 0; the error then holds the command line and its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
        bail!("`{}` ended with {}: {}", line(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the command and returns all that it said, whatever its exit code.
///
/// # Errors
/// When it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))
}

/// The command as one would type it.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Calls `look` every 50 ms until it returns a value.
///
/// # Errors
/// When nothing came within `limit`; the error says `what` was waited for and the last thing that `look` complained about.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let complaint = match look() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(e) => Some(e),
        };
        if Instant::now() >= end {
            return match complaint {
                Some(e) => Err(e.context(format!("waited {} s for {what}", limit.as_secs()))),
                None => bail!("waited {} s for {what}", limit.as_secs()),
            };
        }
        thread::sleep(Duration::from_millis(50));
    }
}
