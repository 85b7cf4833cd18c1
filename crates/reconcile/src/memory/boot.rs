//! What becomes of the memory when the node or the agent starts again.

use skerry_wire::BootId;

use super::{Memory, SlotMemory};

impl Memory {
    /// To be called once with the memory that an agent reads at its start: what was asked for last may not have been done, so files are
    /// written again and signals sent again.
    pub fn after_restart(&mut self) {
        for task in self.slots.values_mut().flat_map(|s| s.life.tasks.values_mut()) {
            task.unsure = true;
        }
    }

    /// Drops what was measured under another boot. True when there was another, or none: what ended did so with the node.
    pub(crate) fn enter_boot(&mut self, boot: BootId) -> bool {
        if self.boot == Some(boot) {
            return false;
        }
        let first = self.boot.is_none();
        self.boot = Some(boot);
        for slot in self.slots.values_mut() {
            slot.enter_boot(first);
        }
        true
    }
}

impl SlotMemory {
    fn enter_boot(&mut self, first: bool) {
        let life = &mut self.life;
        if life.since.take().is_some() && life.healthy.is_none() && life.end.is_none() {
            life.boots = life.boots.saturating_add(1);
        }
        life.up_since = None;
        life.run_since = None;
        life.passing.clear();
        life.pardoned.clear();
        life.again.interval_start = None;
        life.again.count = 0;
        life.again.at = life.again.at.map(|_| 0);
        self.cleanup = None;
        self.lock.since = None;
        self.schedule.last_ms = None;
        if let Some(next) = &mut self.next {
            next.backoff = None;
        }
        for leaving in self.leaving.values_mut() {
            leaving.poststop_until = None;
        }
        for task in life.tasks.values_mut() {
            task.interval_start = None;
            task.attempts = 0;
            task.spent = 0;
            task.not_before = None;
            task.since = None;
            task.told = None;
            task.write = None;
            task.unsure = true;
        }
        for (at, _) in &mut self.decisions {
            *at = 0;
        }
        if !first && self.current.is_some() {
            self.note(0, "the node restarted".to_owned());
        }
    }
}
