//! What is told of the place: events for the server, views for people.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::AllocId;
use skerry_wire::poll::{AllocStatus, Event};

use super::{Status, Work};
use crate::decision::{AllocView, Decision};
use crate::facts::Slot;
use crate::life::left;
use crate::memory::{Reported, SlotMemory};
use crate::want::Want;

/// Who is told about.
struct Subject {
    alloc: AllocId,
    version: Option<u64>,
    current: bool,
    restarts: u32,
    healthy: Option<bool>,
    ports: BTreeMap<String, u16>,
}

impl<'a> Work<'a> {
    /// Events and views. `parent`: the allocation of the periodic job that this is a run of.
    pub(super) fn report(
        &self,
        memory: &mut SlotMemory,
        parent: Option<AllocId>,
        want: Option<&Want<'a>>,
        held: Option<Status>,
        current: Option<Status>,
        out: &mut Decision,
    ) {
        let restarts = memory.life.tasks.values().fold(0_u32, |n, t| n.saturating_add(t.restarts));
        if let (Some(version), Some(status)) = (memory.current.clone(), current) {
            let (healthy, ports) = (memory.life.healthy, version.ports.clone());
            let subject = Subject { alloc: version.alloc, version: Some(version.version), current: true, restarts, healthy, ports };
            self.tell(memory, parent, subject, status, out);
        }
        let wanted = want.map(|w| (w.alloc.id, w.alloc.version, memory.bad.contains_key(&w.alloc.specification)));
        let coming = memory.next.as_ref().map(|n| (n.version.alloc, n.version.version, false)).filter(|_| self.slot.run().is_some());
        if let (Some((alloc, version, bad)), Some(status)) = (wanted.or(coming), held) {
            // The switch may just have happened: then the lines above told it.
            if memory.current.as_ref().is_none_or(|c| c.alloc != alloc) && !memory.leaving.contains_key(&alloc) {
                let ports = memory.next.as_ref().map(|n| n.version.ports.clone()).unwrap_or_default();
                let healthy = bad.then_some(false);
                let subject = Subject { alloc, version: Some(version), current: false, restarts: 0, healthy, ports };
                self.tell(memory, parent, subject, status, out);
            }
        }
        self.report_leaving(memory, parent, out);
        let manifest = self.cx.desired.manifest;
        memory.leaving.retain(|id, l| !l.reported || l.tombstone && manifest.is_none_or(|m| m.tombstones.iter().any(|t| t.id == *id)));
        let known: BTreeSet<AllocId> =
            memory.versions().map(|v| v.alloc).chain(memory.leaving.keys().copied()).chain(want.map(|w| w.alloc.id)).collect();
        memory.reported.retain(|id, _| known.contains(id));
    }

    /// What stops, and what has stopped.
    fn report_leaving(&self, memory: &mut SlotMemory, parent: Option<AllocId>, out: &mut Decision) {
        let born_current = memory.current.as_ref().map(|c| c.born);
        let mut gone = vec![];
        for (id, leaving) in &memory.leaving {
            // Containers that the engine has not told of yet may run: an end that is told too early is an order to stop that is lost.
            let unseen = self.cx.observed.blind && leaving.containers && !leaving.reported;
            let there = Some(leaving.born) != born_current && (unseen || self.instances.iter().any(|c| c.labels.alloc == leaving.born));
            if there {
                let status = Status::new(AllocStatus::Running, format!("stops: {}", leaving.reason));
                let subject = Subject { alloc: *id, version: None, current: false, restarts: 0, healthy: None, ports: BTreeMap::new() };
                out.allocs.push(self.view(memory, &subject, status));
            } else if !leaving.reported {
                gone.push(*id);
            }
        }
        for id in gone {
            let before = memory.reported.get(&id).map(|r| (r.restarts, r.healthy));
            let (restarts, healthy) = before.unwrap_or_default();
            let Some(leaving) = memory.leaving.get_mut(&id) else { continue };
            leaving.reported = true;
            let status = if leaving.failed { AllocStatus::Failed } else { AllocStatus::Complete };
            let healthy = if leaving.failed { Some(false) } else { healthy };
            let reported = Reported { status, reason: leaving.reason.clone(), restarts, healthy };
            self.send(memory, parent, id, reported, None, out);
        }
    }

    /// A view, and an event when it differs from what was reported last.
    fn tell(&self, memory: &mut SlotMemory, parent: Option<AllocId>, subject: Subject, status: Status, out: &mut Decision) {
        let Subject { alloc, restarts, healthy, .. } = subject;
        let reported = Reported { status: status.status, reason: status.reason.clone(), restarts, healthy };
        self.send(memory, parent, alloc, reported, status.until, out);
        out.allocs.push(self.view(memory, &subject, status));
    }

    fn send(
        &self,
        memory: &mut SlotMemory,
        parent: Option<AllocId>,
        alloc: AllocId,
        new: Reported,
        until: Option<u64>,
        out: &mut Decision,
    ) {
        let old = memory.reported.get(&alloc);
        if old == Some(&new) {
            return;
        }
        let Reported { status, reason, restarts, healthy } = new.clone();
        match (self.slot.run(), parent) {
            (None, _) => {
                let wait = until.map(|at| left(self.cx.now, at));
                out.events.push(Event::Alloc { alloc, status, reason, restarts, healthy, wait });
            }
            // Of a run only its course is told, not every word about it.
            (Some(run), Some(alloc)) if old.is_none_or(|o| o.status != status) => {
                out.events.push(Event::Run { alloc, run, status, reason })
            }
            _ => {}
        }
        memory.reported.insert(alloc, new);
    }

    fn view(&self, memory: &SlotMemory, subject: &Subject, status: Status) -> AllocView {
        let Slot { job, group, index } = self.slot.clone();
        AllocView {
            id: subject.alloc,
            job,
            group,
            index,
            version: subject.version,
            current: subject.current,
            status: status.status,
            reason: status.reason,
            restarts: subject.restarts,
            ports: subject.ports.clone(),
            healthy: subject.healthy,
            until: status.until,
            decisions: memory.decisions.clone(),
        }
    }
}
