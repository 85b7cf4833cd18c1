//! Orders: tombstones in the manifest, orders to try again or to override an update lock, from the server or given on the node.

use skerry_wire::manifest::Tombstone;

use super::Work;
use super::switch::{abandon_next, retire};
use crate::facts::OrderKind;
use crate::memory::{Again, Leaving, SlotMemory};
use crate::want::Want;

impl<'a> Work<'a> {
    /// Tombstones: what they name, and what is older in the same place, is done with.
    pub(super) fn bury(&self, memory: &mut SlotMemory, want: Option<&Want<'a>>, tombstones: &[&Tombstone]) {
        for tombstone in tombstones {
            let new = !memory.leaving.get(&tombstone.id).is_some_and(|l| l.tombstone);
            if new {
                let before = memory.leaving.get(&tombstone.id);
                let entry = match (memory.versions().find(|v| v.alloc == tombstone.id), before) {
                    (Some(version), _) => Leaving::of(version, &tombstone.reason),
                    (None, Some(before)) => Leaving { containers: before.containers, ..Leaving::new(before.born, &tombstone.reason) },
                    // What was told of and never made has no containers. Of what nothing is known it may have.
                    (None, None) => {
                        let containers = !memory.reported.contains_key(&tombstone.id);
                        Leaving { containers, ..Leaving::new(tombstone.id, &tombstone.reason) }
                    }
                };
                let entry = Leaving { tombstone: true, reported: before.is_some_and(|l| l.reported), ..entry };
                memory.leaving.insert(tombstone.id, entry);
            }
            let wanted = want.map(|w| w.alloc.id);
            // An order that was carried out before says nothing about what came after it, nor does one for what is older.
            let older = |v: &crate::memory::Version| new && wanted != Some(v.alloc) && tombstone.is_above(v.version);
            let ends = |v: &crate::memory::Version| v.alloc == tombstone.id || older(v);
            if memory.current.as_ref().is_some_and(ends) {
                retire(memory, &tombstone.reason, |l| l.tombstone = true);
                memory.last_good = None;
                memory.bad.clear();
            }
            if memory.next.as_ref().is_some_and(|n| ends(&n.version)) {
                abandon_next(memory, &tombstone.reason);
            }
        }
        if self.cx.desired.manifest.is_some() {
            memory.leaving.retain(|id, l| !l.reported || tombstones.iter().any(|t| t.id == *id));
        } else {
            memory.leaving.retain(|_, l| !l.reported || l.tombstone);
        }
    }

    /// Orders to try again, and to override the lock.
    pub(super) fn obey(&mut self, memory: &mut SlotMemory, want: Option<&Want<'a>>) {
        let mine = |m: &SlotMemory, id| want.is_some_and(|w| w.alloc.id == id) || m.versions().any(|v| v.alloc == id);
        for order in &self.cx.observed.orders {
            if self.cx.orders_done.contains(&order.id) || !mine(memory, order.alloc) {
                continue;
            }
            match order.kind {
                OrderKind::Retry => self.retry(memory, want, "ordered on the node"),
                OrderKind::OverrideLock => memory.lock.overridden = true,
            }
        }
        let Some(alloc) = want.map(|w| w.alloc) else { return };
        let before = memory.retried.filter(|(id, _)| *id == alloc.id).map_or(0, |(_, n)| n);
        if memory.retried.map(|(id, _)| id) != Some(alloc.id) || before != alloc.retry {
            memory.retried = Some((alloc.id, alloc.retry));
        }
        if alloc.retry > before {
            self.retry(memory, want, "ordered by the operator");
        }
    }

    /// One more try of what failed.
    fn retry(&mut self, memory: &mut SlotMemory, want: Option<&Want<'a>>, who: &str) {
        memory.note(self.cx.now, format!("tries again: {who}"));
        if let Some(want) = want {
            memory.bad.remove(&want.alloc.specification);
        }
        if let Some(next) = &mut memory.next {
            next.backoff = None;
        }
        let Some(current) = memory.current.clone() else { return };
        memory.bad.remove(&current.specification);
        memory.cleanup = None;
        memory.life.again = Again { remaking: memory.life.again.remaking, ..Again::default() };
        memory.life.since = None;
        memory.life.boots = 0;
        if memory.life.healthy == Some(false) {
            memory.life.healthy = None;
        }
        for task in memory.life.tasks.values_mut() {
            (task.not_before, task.attempts, task.spent, task.interval_start, task.write) = (None, 0, 0, None, None);
        }
        if memory.life.end.as_ref().is_some_and(|e| e.failed) {
            self.remake(memory, &format!("made anew: {who}"));
        }
    }
}
