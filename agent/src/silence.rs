//! How long no answer came from the server, counted over restarts of the agent and reboots of the node.
//!
//! In: "an answer came", "none came", the time since boot. Out: a span that never goes back by itself and uses no wall clock. Kept in two
//! slots on the disk, at most once in a quarter of an hour, and once when a silence begins. Time while the node is off does not count; a
//! kill at the wrong moment loses at most a quarter of an hour of a silence, and never adds to one. The slots have their room on the disk
//! from the start: a disk that is full later takes them all the same.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use skerry_wire::{BootId, Millis};

use crate::files::FileError;
use crate::marks::Slots;

/// Between two writes, in milliseconds.
const PERSIST: u64 = 15 * 60 * 1000;
/// Between two tries of a disk that takes nothing: what it holds counts on from the last write, and would add to a silence.
const AGAIN: u64 = 60 * 1000;
/// Between two writes because a silence began: a link that comes and goes must not wear the disk.
const BEGIN: u64 = 5 * 60 * 1000;

/// What is on the disk: at this time of this boot, the silence had lasted this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    boot: BootId,
    at: u64,
    silent: u64,
    /// Was there an answer at that time, with none missed since?
    in_contact: bool,
}

/// The count. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Silence(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    slots: Slots,
    boot: BootId,
    /// At this time of this boot, the silence had lasted this long; none before the first answer ever.
    base: Option<(u64, u64)>,
    in_contact: bool,
    written: Option<u64>,
    /// When the disk took nothing; none when it took the last write.
    refused: Option<u64>,
    began: Option<u64>,
}

impl Silence {
    /// Goes on from what the folder holds.
    pub(crate) fn open(folder: &Path, boot: BootId, now: u64) -> Result<Self, FileError> {
        let (slots, kept) = Slots::open::<Kept>(folder, "contact")?;
        if let Err(error) = slots.reserve() {
            tracing::warn!("there may be no room to keep how long the server is silent: {error}");
        }
        let base = kept.map(|k| match (k.boot == boot, k.in_contact) {
            // The last answer came at most this long after what was written, else it would have been written again.
            (true, true) => (k.at.saturating_add(PERSIST).min(now), 0),
            (true, false) => (k.at.min(now), k.silent),
            (false, _) => (0, k.silent),
        });
        let state = State { slots, boot, base, in_contact: kept.is_some_and(|k| k.in_contact), written: None, refused: None, began: None };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long it lasts; none before the first answer ever.
    pub(crate) fn so_far(&self, now: u64) -> Option<Millis> {
        self.with(|s| s.silent(now)).map(Millis)
    }

    /// An answer came.
    pub(crate) fn answered(&self, now: u64) {
        self.with(|s| {
            // One that had begun on the disk must end there before a restart could count on.
            let ended = !s.in_contact;
            (s.base, s.in_contact) = (Some((now, 0)), true);
            if ended || s.is_due(now, PERSIST) {
                s.write(now);
            }
        });
    }

    /// None came. Also to be called now and then while it lasts.
    pub(crate) fn missed(&self, now: u64) {
        self.with(|s| {
            if s.base.is_none() {
                return;
            }
            let begins = s.in_contact && s.began.is_none_or(|at| now.saturating_sub(at) >= BEGIN);
            if begins {
                (s.in_contact, s.began) = (false, Some(now));
                s.write(now);
            } else if s.is_due(now, PERSIST) {
                s.in_contact = false;
                s.write(now);
            }
        });
    }
}

impl State {
    fn silent(&self, now: u64) -> Option<u64> {
        self.base.map(|(at, silent)| silent.saturating_add(now.saturating_sub(at)))
    }

    fn is_due(&self, now: u64, span: u64) -> bool {
        if let Some(at) = self.refused {
            return now.saturating_sub(at) >= AGAIN;
        }
        self.written.is_none_or(|at| now.saturating_sub(at) >= span)
    }

    fn write(&mut self, now: u64) {
        let Some(silent) = self.silent(now) else { return };
        let kept = Kept { boot: self.boot, at: now, silent, in_contact: self.in_contact };
        match self.slots.write(&kept) {
            Ok(()) => (self.written, self.refused) = (Some(now), None),
            Err(error) => {
                if self.refused.is_none() {
                    tracing::warn!("how long the server is silent is not kept, and is tried again every minute: {error}");
                }
                self.refused = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn boot(n: u8) -> BootId {
        BootId::new([n; 16])
    }

    #[test]
    fn counts_over_restarts_and_reboots() {
        let dir = tempfile::tempdir().unwrap();
        let open = |n, now| Silence::open(dir.path(), boot(n), now).unwrap();
        let silence = open(1, 0);
        silence.missed(5);
        assert_eq!(silence.so_far(10), None, "not before the first answer");
        silence.answered(100);
        assert_eq!(silence.so_far(400), Some(Millis(300)));
        silence.missed(1000);
        assert_eq!(open(1, 5000).so_far(5000), Some(Millis(4900)), "over a restart of the agent");
        // A reboot: what was kept counts on, and time since the boot; the time in between does not.
        let after = open(2, 2000);
        assert_eq!(after.so_far(2000), Some(Millis(900 + 2000)));
        after.missed(20 * MINUTE);
        assert_eq!(open(3, 10).so_far(10), Some(Millis(900 + 20 * MINUTE + 10)));
        // An answer ends it, on the disk too.
        let last = open(3, 10);
        last.answered(50);
        assert_eq!((last.so_far(50), open(3, 60).so_far(60)), (Some(Millis(0)), Some(Millis(0))));
        assert_eq!(open(4, 7).so_far(7), Some(Millis(7)));
    }

    #[test]
    fn a_kill_never_adds_to_a_silence() {
        let dir = tempfile::tempdir().unwrap();
        let open = |now| Silence::open(dir.path(), boot(1), now).unwrap();
        let silence = open(0);
        for minute in 0..100 {
            silence.answered(minute * MINUTE);
        }
        let now = 99 * MINUTE + 500;
        let found = open(now).so_far(now).unwrap().0;
        assert!(found <= 500, "the last answer was 500 ms ago, not {found}");
    }

    #[test]
    fn a_disk_that_takes_nothing_is_tried_again_and_adds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let open = |now| Silence::open(dir.path(), boot(1), now).unwrap();
        let silence = open(0);
        silence.answered(0);
        let slots = ["contact.0", "contact.1"].map(|n| dir.path().join(n));
        let aside = dir.path().join("aside");
        std::fs::create_dir(&aside).unwrap();
        for slot in &slots {
            std::fs::rename(slot, aside.join(slot.file_name().unwrap())).unwrap();
            std::fs::create_dir(slot).unwrap();
        }
        for minute in 1..=180 {
            silence.answered(minute * MINUTE);
        }
        for slot in &slots {
            std::fs::remove_dir(slot).unwrap();
            std::fs::rename(aside.join(slot.file_name().unwrap()), slot).unwrap();
        }
        silence.answered(181 * MINUTE);
        let found = open(182 * MINUTE).so_far(182 * MINUTE).unwrap().0;
        assert!(found <= MINUTE, "the last answer came a minute ago, not {found} ms");
        // So does one that must keep that a silence has begun.
        for slot in &slots {
            std::fs::rename(slot, aside.join(slot.file_name().unwrap())).unwrap();
            std::fs::create_dir(slot).unwrap();
        }
        silence.missed(190 * MINUTE);
        for slot in &slots {
            std::fs::remove_dir(slot).unwrap();
            std::fs::rename(aside.join(slot.file_name().unwrap()), slot).unwrap();
        }
        silence.missed(191 * MINUTE);
        let found = open(200 * MINUTE).so_far(200 * MINUTE).unwrap().0;
        assert_eq!(found, 19 * MINUTE);
    }

    #[test]
    fn the_disk_is_spared() {
        let dir = tempfile::tempdir().unwrap();
        let silence = Silence::open(dir.path(), boot(1), 0).unwrap();
        let writes = |s: &Silence| s.with(|s| s.slots.generation());
        for second in 0..3600 {
            silence.answered(second * 1000);
        }
        assert!(writes(&silence) <= 5, "{}", writes(&silence));
        let before = writes(&silence);
        // A link that comes and goes every second.
        for second in 3600..7200 {
            if second % 2 == 0 { silence.missed(second * 1000) } else { silence.answered(second * 1000) }
        }
        assert!(writes(&silence) - before <= 30, "{}", writes(&silence) - before);
    }
}
