//! The runs of a periodic job: each in a place of its own, `job/periodic-N`, that lives like any other.

use std::collections::BTreeMap;

use skerry_cron::Schedule;
use skerry_wire::AllocId;
use skerry_wire::manifest::Tombstone;
use skerry_wire::poll::AllocStatus;

use super::due::look;
use crate::facts::Slot;
use crate::hash::stable;
use crate::make::assign_ports;
use crate::memory::{Memory, Next, SlotMemory, Version};
use crate::place::{Status, Work, retire};

/// Ended runs that are kept for people, with their instances.
const KEPT: u64 = 3;
/// Runs at once, of a job that allows them to overlap.
const AT_ONCE: usize = 8;

impl Work<'_> {
    /// Looks whether the periodic job of this place has a run due, and begins it. Answers the status of the job.
    pub(crate) fn by_the_clock(&mut self, memory: &mut SlotMemory, others: &mut Memory) -> Option<Status> {
        let current = memory.current.clone()?;
        let (job, group) = self.group(&current)?;
        let periodic = job.periodic.as_ref()?;
        if !periodic.enabled {
            return Some(Status::new(AllocStatus::Pending, "is not enabled to run"));
        }
        let schedule = match Schedule::parse(&periodic.crons, &periodic.time_zone) {
            Ok(schedule) => schedule,
            Err(error) => return Some(Status::new(AllocStatus::Failed, error.to_string())),
        };
        let now = self.cx.now;
        let due = look(&schedule, periodic, &mut memory.schedule, now, self.cx.wall);
        if let Some(at) = due.next {
            self.wake(at);
        }
        if let Some(missed) = due.missed {
            memory.note(now, format!("a run is left out: {missed}"));
        }
        let runs = || others.slots.iter().filter(|(s, _)| s.parent().as_ref() == Some(self.slot));
        let active = runs().filter(|(_, m)| m.is_active()).count();
        let newest = runs().filter_map(|(s, _)| s.run()).max().unwrap_or(0).max(memory.schedule.run);
        if let Some(why) = due.run {
            memory.schedule.last_ms = Some(now);
            let run = newest.saturating_add(1);
            let place = self.slot.of_run(run);
            let taken = others.ports_of_others(&place);
            let fixed = group.network.ports.iter().filter_map(|p| p.fixed).find(|p| taken.contains(p));
            let ports = assign_ports(group, &place, &BTreeMap::new(), &taken);
            let left_out = match (&ports, fixed) {
                _ if periodic.prohibit_overlap && active > 0 => Some("the one before still runs".to_owned()),
                _ if active >= AT_ONCE => Some(format!("{active} of them still run")),
                (_, Some(port)) => Some(format!("port {port} is taken")),
                (Err(error), _) => Some(error.to_string()),
                (Ok(_), None) => None,
            };
            if let Some(left_out) = left_out {
                memory.note(now, format!("a run is left out: {left_out}"));
            } else {
                memory.schedule.run = run;
                memory.note(now, format!("run {run} begins: {why}"));
                let alloc = run_id(&current.alloc, run);
                let version = Version { alloc, born: alloc, ports: ports.unwrap_or_default(), ..current };
                let next = Some(Next { version, backoff: None, reverts: false });
                others.slots.insert(place, SlotMemory { next, ..SlotMemory::default() });
                self.wake(now.saturating_add(1));
            }
        }
        let known = self.cx.wall.is_some() || due.next.is_some();
        let reason = if known { "runs by the clock" } else { "waits until the time is known" };
        Some(Status { status: AllocStatus::Running, reason: reason.to_owned(), until: due.next })
    }

    /// A run whose job was stopped stops; one that ended long ago is cleared away.
    pub(crate) fn end_run(&mut self, memory: &mut SlotMemory, others: &Memory) {
        let (Some(parent), Some(run)) = (self.slot.parent(), self.slot.run()) else { return };
        let job = others.slots.get(&parent);
        let stones = || self.cx.desired.manifest.into_iter().flat_map(|m| &m.tombstones);
        // An order for a version older than the run's is not for it.
        let reaches = |t: &Tombstone| memory.versions().all(|v| t.version == v.version || t.is_above(v.version));
        let meant = |id: &AllocId| stones().filter(|t| t.id == *id).all(reaches);
        let stopped = job.filter(|p| p.current.is_none() && p.next.is_none());
        let stopped = stopped.and_then(|p| p.leaving.iter().find(|(id, l)| l.tombstone && meant(id)).map(|(_, l)| &l.reason));
        let ordered = || stones().find(|t| Slot::from(*t) == parent && reaches(t)).filter(|_| job.is_none()).map(|t| &t.reason);
        let stop = stopped.or_else(ordered);
        if let Some(reason) = stop {
            crate::place::abandon_next(memory, reason);
            retire(memory, reason, |_| ());
            return;
        }
        let newest = job.map_or(0, |j| j.schedule.run);
        if newest >= run.saturating_add(KEPT) && !memory.is_active() && memory.leaving.is_empty() {
            let failed = memory.life.end.as_ref().is_some_and(|e| e.failed);
            retire(memory, "cleared away: newer runs ended", |l| l.failed = failed);
        }
    }
}

impl SlotMemory {
    /// Is something of it still to come?
    fn is_active(&self) -> bool {
        let over = self.life.end.as_ref().is_some_and(|e| e.settled && (!e.failed || self.life.again.at.is_none()));
        self.next.is_some() || (self.current.is_some() && !over)
    }
}

/// The allocation of a run: always the same for the same run, so that repeating the step gives the same.
fn run_id(of: &AllocId, run: u64) -> AllocId {
    let half = |n: u8| stable(&[b"run", of.as_bytes(), &run.to_le_bytes(), &[n]]).to_be_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half(0));
    id[8..].copy_from_slice(&half(1));
    AllocId::new(id)
}
