//! Ports of the node that change hands between places: a version of a job that gives a port of one group to another.
//!
//! A place switches to a version with such a port when the place that has it can switch too, so that neither stops for the other's delay;
//! and nothing starts with a port before what runs with it has stopped.

use skerry_wire::job::Group;

use super::Work;
use crate::facts::{Instance, Slot, State};
use crate::memory::{Memory, SlotMemory, Version};

impl Work<'_> {
    /// Is every instance of the version there, and none of them started?
    pub(super) fn is_made(&self, version: &Version, group: &Group) -> bool {
        self.is_made_in(self.slot, version, group)
    }

    fn is_made_in(&self, slot: &Slot, version: &Version, group: &Group) -> bool {
        let own = || self.cx.observed.instances.iter().filter(|i| i.labels.slot == *slot && i.labels.alloc == version.born);
        let made = |name: &str| own().any(|i| i.labels.task == name && i.state == State::Created);
        !group.tasks.is_empty() && group.tasks.iter().all(|t| made(&t.name))
    }

    /// Why a port of the version cannot be had yet: another place has it, and cannot let go of it now.
    pub(super) fn port_held(&self, version: &Version, others: &Memory) -> Option<String> {
        version.ports.values().find_map(|port| {
            let has = |(slot, other): &(&Slot, &SlotMemory)| {
                other.ports_in_use().any(|p| p == *port) && !self.is_buried(other) && !self.can_leave(slot, other, *port)
            };
            let (slot, _) = others.slots.iter().find(has)?;
            Some(format!("waits until {slot} can give up port {port} of the node"))
        })
    }

    /// Is the place's version to stop by order? Then it stops as soon as it is looked at.
    fn is_buried(&self, other: &SlotMemory) -> bool {
        let stones = self.cx.desired.manifest.map_or(&[][..], |m| &m.tombstones);
        stones.iter().any(|t| other.current.as_ref().is_some_and(|c| c.alloc == t.id))
    }

    /// Will the place switch to a version without the port as soon as it is looked at?
    fn can_leave(&self, slot: &Slot, other: &SlotMemory, port: u16) -> bool {
        let (Some(current), Some(next)) = (&other.current, &other.next) else { return false };
        let job = self.cx.desired.specifications.get(&next.version.specification).map(|s| &s.job);
        let Some(group) = job.filter(|j| j.id == slot.job_id()).and_then(|j| j.group(&slot.group)) else { return false };
        let alloc = self.cx.desired.manifest.and_then(|m| m.allocs.iter().find(|a| a.id == next.version.alloc));
        let limit = group.update.lock_limit.0;
        let limit_is_over = limit > 0 && other.lock.since.is_some_and(|since| self.cx.now >= since.saturating_add(limit));
        let free = !self.cx.observed.locked.contains(&current.born)
            || next.reverts
            || other.lock.overridden
            || limit_is_over
            || alloc.is_some_and(|a| a.override_lock);
        free && !next.version.ports.values().any(|p| *p == port) && self.is_made_in(slot, &next.version, group)
    }

    /// Why nothing of the version may start: another place's instance still runs with a port of it.
    pub(super) fn port_in_use(&self, version: &Version) -> Option<String> {
        let runs = |i: &&Instance| {
            i.labels.slot != *self.slot
                && i.state == State::Running
                && i.labels.ports.values().any(|p| version.ports.values().any(|q| q == p))
        };
        let other = self.cx.observed.instances.iter().find(runs)?;
        Some(format!("waits until {} has let go of a port of the node", other.labels.slot))
    }
}
