//! Time: since the kernel started, which all decisions use, and the time of day, where there is reason to believe it.
//!
//! The time of day is believed when a trusted key signed it in a fresh answer of this boot, or when this system's time service says that
//! it has synchronised the clock and that is not before what trusted keys signed. A clock that was merely set is not believed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use skerry_reconcile::Now;
use skerry_wire::{BootId, Timestamp};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Made by systemd-timesyncd in each boot once it has set the clock by a server.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// Reads the clocks of this boot. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    boot: BootId,
    /// Time of day when this boot began, by the newest signed answer.
    began: Arc<Mutex<Option<i64>>>,
}

impl Clock {
    /// Finds out which boot this is.
    pub(crate) fn new() -> io::Result<Self> {
        let text = std::fs::read_to_string(BOOT_ID)?;
        let boot = text.trim().replace('-', "").parse().map_err(|e| io::Error::other(format!("{BOOT_ID}: {e}")))?;
        Ok(Self { boot, began: Arc::default() })
    }

    /// Of a machine that is played.
    #[cfg(feature = "simulation")]
    pub(crate) fn of_boot(boot: BootId) -> Self {
        Self { boot, began: Arc::default() }
    }

    /// The boot.
    pub(crate) fn boot(&self) -> BootId {
        self.boot
    }

    /// A trusted key signed that it is this late, in a fresh answer. True when the time of day was not known before.
    pub(crate) fn told(&self, time: Timestamp) -> bool {
        let began = time.0.saturating_sub_unsigned(boottime_ms());
        self.began.lock().unwrap_or_else(PoisonError::into_inner).replace(began).is_none()
    }

    /// Now, suspend included. `bound` is the least that the time of day can be.
    pub(crate) fn now(&self, bound: Timestamp) -> Now {
        let ms = boottime_ms();
        let told = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let wall = told.map(|began| Timestamp(began.saturating_add_unsigned(ms)));
        Now { boot: self.boot, ms, wall: wall.or_else(|| system_time(Path::new(SYNCHRONISED), bound)) }
    }
}

/// The system's time of day, when its time service vouches for it.
fn system_time(mark: &Path, bound: Timestamp) -> Option<Timestamp> {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        return machine.system_time().filter(|time| *time >= bound);
    }
    if !mark.exists() {
        return None;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let time = Timestamp(i64::try_from(since.as_millis()).ok()?);
    (time >= bound).then_some(time)
}

/// Milliseconds since the kernel started, suspend included.
pub(crate) fn boottime_ms() -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        return machine.boottime_ms();
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    secs.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_needs_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("synchronized");
        assert_eq!(system_time(&mark, Timestamp(0)), None, "a clock that nobody vouches for");
        std::fs::write(&mark, "").unwrap();
        assert!(system_time(&mark, Timestamp(0)).is_some());
        assert_eq!(system_time(&mark, Timestamp(i64::MAX)), None, "before what trusted keys signed");
    }

    #[test]
    fn a_signed_time_goes_on_with_the_boot() {
        let clock = Clock::new().unwrap();
        assert!(clock.told(Timestamp(1_800_000_000_000)));
        let first = clock.now(Timestamp(0)).wall.unwrap();
        assert!((1_800_000_000_000..1_800_000_060_000).contains(&first.0));
        assert!(!clock.told(Timestamp(1_800_000_100_000)));
        assert!(clock.now(Timestamp(0)).wall.unwrap() >= Timestamp(1_800_000_100_000), "the newest counts");
    }
}
