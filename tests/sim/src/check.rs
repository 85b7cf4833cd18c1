//! May what runs stop, and may this start? Asked by the engine at each call that changes what runs.

use skerry_engine::ContainerStatus;
use skerry_reconcile::{Labels, Slot};
use skerry_wire::Digest;

use crate::host::{Host, State};
use crate::{jobs, library};

/// How long after trouble a group may be judged by its own policy: the health deadline, waits between tries, and some.
const JUDGED: u64 = 10 * 60_000;
/// The longest that a switch takes.
const SWITCH: u64 = 60_000;
/// How long the agent may believe in an image that vanished: until its next look, and some.
const BELIEVED: u64 = 2 * 60_000;

impl Host {
    /// P3: what runs stops only for a newer version whose images are all there, by order, or by its own policy. Answers whether it is by
    /// order.
    pub(crate) fn check_stop(&self, state: &State, labels: &Labels, now: u64) -> Result<bool, String> {
        let view = self.view().clone();
        let Some(view) = view else { return Ok(false) };
        let slot = &labels.slot;
        let current = state.switched.get(slot).is_none_or(|s| s.specification == labels.specification);
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
        let ordered = pages.stopped.contains(&slot.job) || moved;
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
        drop(pages);
        // What was decided last is in the memory; a manifest that came since does not undo it.
        let switched = memory.slots.get(slot).and_then(|m| m.current.as_ref()).filter(|c| c.born != labels.alloc).map(|c| c.specification);
        let wanted = manifest.iter().flat_map(|m| &m.allocs).find(|a| Slot::from(*a) == *slot).map(|a| a.specification);
        let decided = memory.slots.get(slot).and_then(|m| m.next.as_ref()).map(|n| n.version.specification);
        let verdict = self.may_replace(state, slot, (labels.specification, switched.or(wanted)), now);
        // A newer manifest may come between the decision and the stop.
        verdict.or_else(|why| self.may_replace(state, slot, (labels.specification, decided), now).map_err(|_| why)).map(|()| false)
    }

    /// May the second specification take the place of the first?
    fn may_replace(&self, state: &State, slot: &Slot, (old, new): (Digest, Option<Digest>), now: u64) -> Result<(), String> {
        let since = |at: u64| now.saturating_sub(at);
        let young = state.switched.get(slot).is_none_or(|s| since(s.at) < JUDGED);
        let pages = self.book.pages();
        let sick = |digest: &Digest| {
            let job = pages.specifications.get(digest).filter(|job| job.id == jobs::name(2));
            job.is_some_and(|job| job.images().any(|c| c.image_id == Some(library::image(library::SICK))))
        };
        if sick(&old) || young && since(state.disturbed) < JUDGED {
            return Ok(());
        }
        let Some(new) = new.filter(|new| *new != old) else { return Err("nothing newer is wanted".to_owned()) };
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
        let (view, before) = (self.view().clone(), state.switched.get(slot));
        let (Some(view), Some(before)) = (view, before) else { return Ok(()) };
        if before.specification == labels.specification || slot.run().is_some() {
            return Ok(());
        }
        let memory = view.memory();
        let current = memory.slots.get(slot).and_then(|m| m.current.as_ref());
        let verdict = if current.is_some_and(|c| c.born == labels.alloc) {
            self.may_replace(state, slot, (before.specification, Some(labels.specification)), now)
        } else {
            Err("the agent does not remember that it switched to it".to_owned())
        };
        verdict.map_err(|why| ("P1", format!("{slot}: version {} takes the place of another one: {why}", labels.version)))
    }

    /// P1: what was switched to runs, once the machine was left in peace for so long.
    pub(crate) fn check_runs(&self, peace: u64) {
        let now = self.now();
        let missing: Vec<String> = {
            let mut state = self.state();
            if state.away || now.saturating_sub(state.disturbed) < peace {
                state.missing.clear();
                return;
            }
            let pages = self.book.pages();
            let for_ever = |d: &Digest| pages.specifications.get(d).is_some_and(|job| !job.kind.runs_to_end());
            let lacking = |(slot, s): &(&Slot, &crate::host::Switched)| {
                slot.run().is_none() && for_ever(&s.specification) && state.running(slot).next().is_none()
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

/// Does it run?
pub(crate) fn runs(status: ContainerStatus) -> bool {
    status == ContainerStatus::Running
}
