//! Stops and removes what is neither current nor next, each allocation by itself: stopped in the order of its life, then its poststop
//! tasks, then removed. While anything of it runs, nothing of the current version starts.

use std::collections::BTreeSet;

use skerry_wire::{AllocId, Millis};

use super::Work;
use crate::decision::ActionKind;
use crate::facts::{Instance, State};
use crate::life::{Part, Role, roles};
use crate::memory::{Leaving, SlotMemory};

/// The longest that poststop tasks of what was replaced or stopped hold up what comes after them.
const POSTSTOP_MS: u64 = 5 * 60_000;

impl<'a> Work<'a> {
    pub(super) fn clear(&mut self, memory: &mut SlotMemory) {
        let kept: BTreeSet<AllocId> = memory.versions().map(|v| v.born).collect();
        let current = memory.current.as_ref().map(|c| c.born);
        let complete = memory.current.as_ref().is_some_and(|c| match self.group(c) {
            Some((_, group)) => self.is_periodic(Some(c)) || group.tasks.iter().all(|t| self.instance(c, &t.name).is_some()),
            None => true,
        });
        let tombstoned = memory.current.is_none() && memory.next.is_none() && memory.leaving.values().any(|l| l.tombstone);
        let foreign: BTreeSet<AllocId> = self.instances.iter().map(|c| c.labels.alloc).filter(|a| !kept.contains(a)).collect();
        for born in foreign {
            let ordered = memory.leaving.values().any(|l| l.born == born);
            if complete || ordered || tombstoned {
                self.dismantle(memory, born);
            }
        }
        let unseen = |l: &&Leaving| self.cx.observed.blind && l.containers && !l.reported && Some(l.born) != current;
        if let Some(leaving) = memory.leaving.values().find(unseen) {
            let why = format!("waits until the engine tells whether allocation {} has stopped", leaving.born.short());
            self.blocked.get_or_insert(why);
        }
        let other = self.instances.iter().find(|c| Some(c.labels.alloc) != current && c.state == State::Running);
        if let Some(other) = other.filter(|_| self.blocked.is_none()) {
            self.blocked = Some(format!("waits until version {} has stopped", other.labels.version));
        }
        if self.blocked.is_none() {
            self.blocked = memory.current.as_ref().and_then(|c| self.port_in_use(c));
        }
    }

    /// Takes one allocation down.
    fn dismantle(&mut self, memory: &mut SlotMemory, born: AllocId) {
        let own: Vec<&'a Instance> = self.instances.iter().copied().filter(|c| c.labels.alloc == born).collect();
        let Some(first) = own.first() else { return };
        let roles: Vec<Role> = match self.group_of(&first.labels.specification) {
            Some((job, group)) => {
                let known = roles(job.kind, group);
                let strange = own.iter().filter(|c| !known.iter().any(|r| r.name == c.labels.task)).map(|c| Role::unknown(c));
                let strange: Vec<Role> = strange.collect();
                known.into_iter().chain(strange).collect()
            }
            None => own.iter().map(|c| Role::unknown(c)).collect(),
        };
        let leaving = memory.leaving.values_mut().find(|l| l.born == born);
        let why = leaving.as_ref().map_or_else(|| "belongs to no allocation of this place any more".to_owned(), |l| l.reason.clone());
        let running = self.running(born, &roles);
        if self.stop_stage(&running, &why) || self.last_words(leaving, &own, &roles, &why) {
            self.blocked.get_or_insert_with(|| format!("waits until version {} has stopped", first.labels.version));
            return;
        }
        for instance in own {
            self.remove(instance, &why);
        }
    }

    /// The poststop tasks of what has stopped. Answers whether one is not done.
    fn last_words(&mut self, leaving: Option<&mut Leaving>, own: &[&'a Instance], roles: &[Role], why: &str) -> bool {
        let is_last = |c: &Instance| roles.iter().any(|r| r.name == c.labels.task && r.part == Part::Poststop);
        let ran = own.iter().any(|c| !is_last(c) && matches!(c.state, State::Exited { .. }));
        let last: Vec<&'a Instance> = own.iter().copied().filter(|c| is_last(c)).collect();
        let mut open = false;
        let limit = match leaving {
            Some(leaving) if ran && !leaving.no_poststop && last.iter().any(|c| !matches!(c.state, State::Exited { .. })) => {
                let limit = *leaving.poststop_until.get_or_insert(self.cx.now.saturating_add(POSTSTOP_MS));
                if self.cx.now >= limit {
                    leaving.no_poststop = true;
                }
                Some(limit)
            }
            _ => None,
        };
        for instance in last {
            match (&instance.state, limit) {
                (State::Running, Some(limit)) if self.cx.now < limit => {
                    self.wake(limit);
                    open = true;
                }
                (State::Running, _) => {
                    self.stop(instance, Millis(0), instance.labels.kill_timeout, why);
                    open = true;
                }
                (State::Created, Some(limit)) if self.cx.now < limit => {
                    if !self.is_stopping(instance) {
                        let start = self.on(instance, ActionKind::Start, why);
                        self.starts.push(start);
                    }
                    open = true;
                }
                _ => {}
            }
        }
        open
    }
}
