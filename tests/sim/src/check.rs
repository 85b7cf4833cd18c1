//! May what runs stop, and may this start? Asked by the engine at each call that changes what runs.

use skerry_engine::ContainerStatus;
use skerry_reconcile::{Labels, Slot};
use skerry_wire::Digest;
use skerry_wire::job::Job;

use crate::host::{Host, State};
use crate::{jobs, library};

/// The longest that a switch takes.
const SWITCH: u64 = 60_000;
/// How long the agent may believe in an image that vanished: until its next look, and some.
const BELIEVED: u64 = 2 * 60_000;

impl Host {
    /// P3: what runs stops only for a newer version whose images are all there, or by order. Answers whether it is by order.
    pub(crate) fn check_stop(&self, state: &State, labels: &Labels, now: u64) -> Result<bool, String> {
        let view = self.view().clone();
        let Some(view) = view else { return Ok(false) };
        let slot = &labels.slot;
        let current = state.switched.get(slot).is_none_or(|switched| *switched == labels.specification);
        if !current || slot.run().is_some() {
            return Ok(false);
        }
        let pages = self.book.pages();
        let job = pages.specifications.get(&labels.specification);
        if job.is_none_or(|job| job.kind.runs_to_end()) {
            return Ok(false);
        }
        let manifest = view.manifest();
        let memory = view.memory();
        let mut names = vec![labels.alloc];
        if let Some(slot) = memory.slots.get(slot) {
            names.extend(slot.leaving.iter().filter(|(_, l)| l.born == labels.alloc).map(|(id, _)| *id));
            names.extend(slot.current.iter().filter(|c| c.born == labels.alloc).map(|c| c.alloc));
        }
        // A tombstone also stops what is older than what it names in the same place; the memory says so.
        let buried = memory.slots.get(slot).is_some_and(|m| m.leaving.values().any(|l| l.born == labels.alloc && l.tombstone));
        let of_slot = |t: &&skerry_wire::manifest::Tombstone| names.contains(&t.id) || buried && Slot::from(*t) == *slot;
        let moved = pages.drained && (slot.job == jobs::name(2) || slot.job == jobs::name(3));
        let ordered = pages.stopped.contains(&labels.specification) || moved;
        if let Some(stone) = manifest.iter().flat_map(|m| &m.tombstones).find(of_slot) {
            if ordered {
                return Ok(true);
            }
            return Err(format!("stopped by a tombstone that nobody ordered: {}", stone.reason));
        }
        // An engine that refuses may keep the order from being done until a newer manifest, without the tombstone, is here.
        if buried && ordered {
            return Ok(true);
        }
        // It was leaving for a newer version, an engine that refuses kept it, and the job was stopped before it could go: then nothing is wanted.
        let leaves = memory.slots.get(slot).is_some_and(|m| m.leaving.values().any(|l| l.born == labels.alloc));
        let stopped = leaves && ordered && manifest.iter().flat_map(|m| &m.tombstones).any(|stone| Slot::from(stone) == *slot);
        drop(pages);
        let place = memory.slots.get(slot);
        let current = place.and_then(|m| m.current.as_ref());
        // What was decided last is in the memory; a manifest that came since does not undo it.
        if let Some(switched) = current.filter(|c| c.born != labels.alloc) {
            return self.may_replace(state, (labels.specification, Some(switched.specification)), now).map(|()| false);
        }
        // Unchanged work goes on under the name of a newer version.
        let own = current.map_or(labels.specification, |c| c.specification);
        let wanted = manifest.iter().flat_map(|m| &m.allocs).find(|a| Slot::from(*a) == *slot).map(|a| a.specification);
        let decided = place.and_then(|m| m.next.as_ref()).map(|n| n.version.specification);
        let verdict = self.may_replace(state, (own, wanted), now);
        // A newer manifest may come between the decision and the stop.
        let verdict = verdict.or_else(|why| self.may_replace(state, (own, decided), now).map_err(|_| why));
        verdict.map(|()| false).or_else(|why| if stopped && wanted.is_none() && current.is_none() { Ok(true) } else { Err(why) })
    }

    /// May the second specification take the place of the first? No job of the fleet has a policy that stops what runs for nothing.
    fn may_replace(&self, state: &State, (old, new): (Digest, Option<Digest>), now: u64) -> Result<(), String> {
        let since = |at: u64| now.saturating_sub(at);
        let Some(new) = new.filter(|new| *new != old) else { return Err("nothing newer is wanted".to_owned()) };
        let pages = self.book.pages();
        let Some(job) = pages.specifications.get(&new) else { return Err(format!("specification {} is nobody's", new.short())) };
        for image in job.images().filter_map(|c| c.image_id) {
            let there = state.images.get(&image).is_some_and(|held| held.synced && held.whole);
            let believed = state.vanished.get(&image).is_some_and(|at| since(*at) < BELIEVED);
            if !there && !believed {
                return Err(format!("what comes is not ready: {} is not there", library::name(&image)));
            }
        }
        Ok(())
    }

    /// P1, P3, P4: what starts is what the place was switched to, or something newer that is ready; and nothing of another version runs.
    pub(crate) fn check_start(
        &self,
        state: &State,
        labels: &Labels,
        image: skerry_wire::ImageId,
        now: u64,
    ) -> Result<(), (&'static str, String)> {
        let slot = &labels.slot;
        if let Some(other) = state.running(slot).find(|c| c.labels.alloc != labels.alloc) {
            return Err(("P4", format!("{slot}: version {} starts while version {} runs", labels.version, other.labels.version)));
        }
        if state.images.get(&image).is_some_and(|held| !held.whole) {
            return Err(("P3", format!("{slot}: {} is started, and it is garbled", library::name(&image))));
        }
        let (view, before) = (self.view().clone(), state.switched.get(slot).copied());
        let (Some(view), Some(before)) = (view, before) else { return Ok(()) };
        if before == labels.specification || slot.run().is_some() {
            return Ok(());
        }
        let memory = view.memory();
        let current = memory.slots.get(slot).and_then(|m| m.current.as_ref());
        let verdict = if current.is_some_and(|c| c.born == labels.alloc) {
            self.may_replace(state, (before, Some(labels.specification)), now)
        } else {
            Err("the agent does not remember that it switched to it".to_owned())
        };
        verdict.map_err(|why| ("P1", format!("{slot}: version {} takes the place of another one: {why}", labels.version)))
    }

    /// Which ends has the agent written down?
    fn note_ends(&self, state: &mut State) {
        if state.finished.keys().all(|key| state.noted.contains_key(key)) {
            return;
        }
        let Some(memory) = self.view().clone().map(|view| view.memory()) else { return };
        let of = |born, slot: &Slot| memory.slots.get(slot).filter(|m| m.current.as_ref().is_some_and(|c| c.born == born));
        // What another version has replaced is nobody's matter any more.
        state.finished.retain(|(born, ..), slot| of(*born, slot).is_some());
        let over = |born, slot: &Slot| of(born, slot).is_some_and(|m| m.life.end.as_ref().is_some_and(|end| end.settled && !end.failed));
        let new: Vec<_> =
            state.finished.iter().filter(|((born, ..), slot)| over(*born, slot)).map(|(key, slot)| (key.clone(), slot.clone())).collect();
        state.noted.extend(new);
    }

    /// P1: what was switched to runs, once the machine was left in peace for so long.
    pub(crate) fn check_runs(&self, peace: u64) {
        let now = self.now();
        let missing: Vec<String> = {
            let mut state = self.state();
            self.note_ends(&mut state);
            if state.away || now.saturating_sub(state.disturbed) < peace {
                state.missing.clear();
                return;
            }
            let pages = self.book.pages();
            // It is read only where it is asked for: after every step there is a check.
            let memory = std::cell::LazyCell::new(|| self.view().clone().map(|view| view.memory()).unwrap_or_default());
            // What runs to its end has come there, or has failed as often as its policy lets it.
            let over = |slot: &Slot, job: &Job| {
                let (Some(m), Some(group)) = (memory.slots.get(slot), job.group(&slot.group)) else { return true };
                let Some(current) = &m.current else { return true };
                let failed = m.life.end.as_ref().is_some_and(|end| end.failed);
                failed
                    || group.tasks.iter().all(|task| state.finished.contains_key(&(current.born, current.specification, task.name.clone())))
            };
            let lacking = |(slot, switched): &(&Slot, &Digest)| {
                let Some(job) = pages.specifications.get(*switched).filter(|_| slot.run().is_none()) else { return false };
                let timed = job.periodic.is_some();
                !timed && state.running(slot).next().is_none() && !(job.kind.runs_to_end() && over(slot, job))
            };
            let lacking: Vec<Slot> = state.switched.iter().filter(lacking).map(|(slot, _)| slot.clone()).collect();
            // It may be in the middle of a switch.
            state.missing.retain(|slot, _| lacking.contains(slot));
            for slot in lacking {
                state.missing.entry(slot).or_insert(now);
            }
            state.missing.iter().filter(|(_, since)| now.saturating_sub(**since) >= SWITCH).map(|(slot, _)| slot.to_string()).collect()
        };
        for slot in missing {
            self.broken("P1", &format!("{slot} does not run, though nothing was wrong for {} s", peace / 1000));
        }
    }
}

/// P1: what ran to its end does not run again, once the agent has written that down. Before, an exit code of 0 beside a restart of the node or
/// the engine may be that of a program that was told to end too early, and it runs once more.
pub(crate) fn check_once(state: &State, labels: &Labels, to_end: bool) -> Result<(), (&'static str, String)> {
    // Each run by the clock is one of its own, and so is what a server orders under the name of something that it has forgotten.
    let again =
        to_end && labels.slot.run().is_none() && state.noted.contains_key(&(labels.alloc, labels.specification, labels.task.clone()));
    if again { Err(("P1", format!("{}: version {} ran to its end, and starts again", labels.slot, labels.version))) } else { Ok(()) }
}

/// Does it run?
pub(crate) fn runs(status: ContainerStatus) -> bool {
    status == ContainerStatus::Running
}
