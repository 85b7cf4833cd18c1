//! Signals that the agent was started to ignore, as `nohup` and shells do it for what runs in the background.
//!
//! What is ignored stays ignored in every program that is started, and a shell cannot even trap it; a task would never see the signal
//! that its job asks for. What is handled begins anew in a program. So here each ignored signal gets a handler that does nothing.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

/// Signals whose handlers are the runtime's, or that have none: a broken pipe is put right wherever a program is started.
const LEFT_ALONE: [Signal; 7] = [Signal::KILL, Signal::STOP, Signal::ILL, Signal::FPE, Signal::SEGV, Signal::BUS, Signal::PIPE];

/// Handles what the agent was started to ignore; lasts as long as the process.
pub(crate) fn handle_ignored() -> io::Result<Vec<unix::Signal>> {
    ignored(&std::fs::read_to_string("/proc/self/status")?).map(|number| signal(SignalKind::from_raw(number))).collect()
}

/// Numbers of the ignored signals in `/proc/<pid>/status`, those without a handler left out. Real-time signals are nobody's default.
fn ignored(status: &str) -> impl Iterator<Item = i32> {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok()).unwrap_or(0);
    (1..=31).filter(move |number| mask >> (number - 1) & 1 == 1 && !is_left_alone(*number))
}

fn is_left_alone(number: i32) -> bool {
    LEFT_ALONE.iter().any(|signal| signal.as_raw() == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_the_kernel() {
        for (mask, numbers) in [
            ("0000000000000000", vec![]),
            // HUP, INT, QUIT, and PIPE, which Rust ignores.
            ("0000000000001007", vec![1, 2, 3]),
            ("ffffffffffffffff", (1..=31).filter(|n| !is_left_alone(*n)).collect()),
            ("not a mask", vec![]),
        ] {
            let status = format!("Name:\tskerry-agent\nSigBlk:\t0000000000000000\nSigIgn:\t{mask}\nSigCgt:\t0000000000000440\n");
            assert_eq!(ignored(&status).collect::<Vec<_>>(), numbers, "{mask}");
        }
        assert_eq!(ignored("").count(), 0);
    }
}
