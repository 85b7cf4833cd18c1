//! The only clock of decisions: time since the kernel started, with the boot that it counts from.

use std::io;

use skerry_reconcile::Now;
use skerry_wire::BootId;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Reads the clock of this boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    boot: BootId,
}

impl Clock {
    /// Finds out which boot this is.
    pub(crate) fn new() -> io::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID)?;
        let boot = text.trim().replace('-', "").parse().map_err(|e| io::Error::other(format!("{BOOT_ID}: {e}")))?;
        Ok(Self { boot })
    }

    /// The boot.
    pub(crate) fn boot(&self) -> BootId {
        self.boot
    }

    /// Now, suspend included.
    pub(crate) fn now(&self) -> Now {
        Now { boot: self.boot, ms: boottime_ms(), wall: None }
    }
}

/// Milliseconds since the kernel started, suspend included.
pub(crate) fn boottime_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    secs.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}
