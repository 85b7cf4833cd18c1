//! Being told to stop: by Ctrl-C, by a service manager, by a terminal that closes.

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Ends when the first of these signals comes. From the first look at it on they do not end the process by themselves. Where a closing
/// terminal was to be ignored when this process began, as `nohup` has it, it stays so.
pub(crate) async fn told() -> Result<()> {
    let no_hang_up = hang_up_is_ignored();
    let listen = async |kind| -> Result<()> {
        signal(kind).context("waiting for signals")?.recv().await;
        Ok(())
    };
    tokio::select! {
        told = listen(SignalKind::interrupt()) => told,
        told = listen(SignalKind::terminate()) => told,
        told = listen(SignalKind::hangup()), if !no_hang_up => told,
    }
}

fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // A bit for each signal, the lowest for the first, which is this one.
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Gives up what it waits for when a signal comes: temporary files go with it.
pub(crate) async fn guarded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        stop = told() => {
            stop?;
            bail!("interrupted")
        }
    }
}
