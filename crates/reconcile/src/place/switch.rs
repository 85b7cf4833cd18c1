//! The switch from one version to the next, when all that the next one needs is there and no lock puts it off.

use skerry_wire::poll::AllocStatus;

use super::{Status, Work};
use crate::memory::{Leaving, Life, LockMemory, Memory, SlotMemory};
use crate::want::Want;

impl<'a> Work<'a> {
    /// Switches when every instance of the next version exists. Answers what else it waits for.
    pub(super) fn switch(&mut self, memory: &mut SlotMemory, others: &Memory, want: Option<&Want<'a>>) -> Option<Status> {
        let Some(next) = &memory.next else {
            memory.lock = LockMemory::default();
            return None;
        };
        let version = next.version.clone();
        let (_, group) = self.group(&version)?;
        if !self.is_periodic(Some(&version)) && !self.is_made(&version, group) {
            return None;
        }
        if !next.reverts
            && let Some(status) = self.outside_window(memory, want).or_else(|| self.locked(memory, want, group.update.lock_limit.0))
        {
            return Some(status);
        }
        if let Some(why) = self.port_held(&version, others) {
            return Some(Status::new(AllocStatus::Pending, why));
        }
        let back = memory.next.take().is_some_and(|n| n.reverts);
        let bad = memory.current.as_ref().and_then(|c| memory.bad.get(&c.specification)).cloned();
        let text = format!("{} version {}", if back { "goes back to" } else { "switches to" }, version.version);
        memory.note(self.cx.now, text);
        match bad.filter(|_| back) {
            Some(why) => retire(memory, &why, |l| l.failed = true),
            None => retire(memory, &format!("replaced by version {}", version.version), |_| ()),
        }
        memory.leaving.remove(&version.alloc);
        memory.current = Some(version);
        memory.lock = LockMemory::default();
        None
    }

    /// Why the apply window puts the switch off, if it does. What starts where nothing runs disturbs nothing.
    fn outside_window(&mut self, memory: &mut SlotMemory, want: Option<&Want<'a>>) -> Option<Status> {
        let closed = self.cx.observed.apply_closed.filter(|_| memory.current.is_some())?;
        if memory.lock.overridden || want.is_some_and(|w| w.alloc.override_lock) {
            memory.note_state(self.cx.now, "switches outside the apply window by order".to_owned());
            return None;
        }
        let Some(until) = closed.until else {
            return Some(Status::new(AllocStatus::Pending, "waits for the time of day: while it is not known, the apply window is closed"));
        };
        self.wake(until);
        Some(Status::new(AllocStatus::Pending, "waits for the apply window").until(until))
    }

    /// Why an update lock puts the switch off, if one does.
    fn locked(&mut self, memory: &mut SlotMemory, want: Option<&Want<'a>>, limit: u64) -> Option<Status> {
        let current = memory.current.as_ref()?;
        if !self.cx.observed.locked.contains(&current.born) {
            memory.lock.since = None;
            return None;
        }
        if memory.lock.overridden || want.is_some_and(|w| w.alloc.override_lock) {
            memory.note_state(self.cx.now, "overrides the update lock by order".to_owned());
            return None;
        }
        let now = self.cx.now;
        let since = *memory.lock.since.get_or_insert(now);
        let status = Status::new(AllocStatus::Pending, "waits: the application holds its update lock");
        if limit == 0 {
            return Some(status);
        }
        let until = since.saturating_add(limit);
        if now >= until {
            memory.note(now, format!("overrides the update lock, held for {}", skerry_wire::Millis(limit)));
            return None;
        }
        self.wake(until);
        Some(status.until(until))
    }
}

/// The current version is done with.
pub(crate) fn retire(memory: &mut SlotMemory, reason: &str, mark: impl Fn(&mut Leaving)) {
    if let Some(old) = memory.current.take() {
        let entry = memory.leaving.entry(old.alloc).or_insert_with(|| Leaving::of(&old, reason));
        mark(entry);
    }
    memory.life = Life::default();
}

/// The next version will not come; what was created of it is cleared away.
pub(crate) fn abandon_next(memory: &mut SlotMemory, reason: &str) {
    if let Some(next) = memory.next.take() {
        memory.leaving.entry(next.version.alloc).or_insert_with(|| Leaving::of(&next.version, reason));
    }
}

/// The current version does the work of the wanted one: it goes on under its name.
pub(super) fn adopt(memory: &mut SlotMemory, want: &Want<'_>) {
    abandon_next(memory, &format!("version {} runs already", want.alloc.version));
    let Some(current) = &mut memory.current else { return };
    let before = current.clone();
    current.alloc = want.alloc.id;
    current.version = want.alloc.version;
    current.specification = want.alloc.specification;
    if memory.last_good.as_ref() == Some(&before) {
        memory.last_good = Some(current.clone());
    }
    let reason = format!("goes on unchanged as allocation {} of version {}", want.alloc.id.short(), want.alloc.version);
    memory.leaving.entry(before.alloc).or_insert_with(|| Leaving::of(&before, &reason));
    memory.leaving.remove(&want.alloc.id);
}
