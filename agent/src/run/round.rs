//! One round: look, decide, remember, act.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skerry_engine::Engine;
use skerry_reconcile::{
    Action, ActionKind, AllocView, Closed, Decision, Desired, Failure, Instance, InstancePlan, Memory, Node, Now, Observed, Step,
    node_label, reconcile,
};
use skerry_transfer::{Opening, Windows};
use skerry_wire::manifest::Manifest;
use skerry_wire::node::Inventory;
use skerry_wire::poll::{AllocStatus, Event};
use skerry_wire::{AllocId, ImageId, NodeId};

use super::unknown::{older, unknown};
use super::{Allocator, Carried, LOOK, SETTLE, replace};
use crate::clock::boottime_ms;
use crate::fingerprint::disk_free;
use crate::ledger::{self, LedgerError};
use crate::runner::observe;
use crate::steps::{self, Step as At};
use crate::update_lock;

impl<E: Engine + Clone + 'static> Allocator<E> {
    /// Looks, decides, remembers, acts. `None` when there was something to do, else how long to wait.
    pub(super) async fn round(&mut self, node: NodeId, carried: &mut Carried<E>) -> Result<Option<Duration>, LedgerError> {
        let (failures, away) = carried.work.take_failures();
        if let Some(why) = away {
            carried.look.gone(why);
        }
        carried.interrupted |= carried.look.look(&node_label(&node), self.ledger.bundles_ended()).await;
        self.tell_engine(carried.look.away.clone());
        let (instances, images) = self.seen(carried).await?;
        let desired = self.ledger.desired();
        let mut refused = desired.refused();
        refused.extend(older(&carried.memory, desired.manifest.as_ref()));
        let manifest = followed(&desired, &refused);
        let locked = update_lock::held(&self.drivers.alloc_folder, desired.manifest.as_ref(), &instances);
        carried.locked = !locked.is_empty();
        let orders = self.ledger.orders();
        let now = self.clock.now(self.ledger.time().at());
        let suspects = suspects(&failures, &carried.memory);
        let decision = {
            let facts = self.node(node, &desired);
            let observed = Observed {
                node: &facts,
                policy: &self.drivers.policy,
                images,
                instances,
                failures,
                blind: carried.look.seen().is_none(),
                interrupted: carried.interrupted,
                stopping: carried.work.stopping(),
                checks: self.checks.states(),
                locked,
                apply_closed: apply_closed(&self.apply, &now),
                silent: self.silence.so_far(now.ms),
                orders: orders.as_ref().clone(),
                disk_free: disk_free(&self.drivers.alloc_folder),
                devices: devices(&desired),
            };
            let wanted = Desired { manifest: manifest.as_ref(), specifications: &desired.specifications };
            reconcile(&wanted, &observed, &carried.memory, now)
        };
        let mut events = decision.events.clone();
        events.extend(news_of_refusals(&refused, &carried.refused));
        let told = events.iter().any(steps::says_running);
        self.commit(&decision, events, carried).await?;
        if told {
            steps::reached(At::SwitchTold);
        }
        if decision.actions.iter().any(|a| matches!(a.kind, ActionKind::Stop { .. })) {
            steps::reached(At::SwitchDecided);
        }
        carried.refused.clone_from(&refused);
        if !orders.is_empty() {
            // What was told is in the memory that is on the disk now.
            self.ledger.orders_done(orders.iter().map(|o| o.id).collect()).await?;
        }
        replace(&self.unknown, Some(Arc::new(unknown(&decision.memory, &decision.allocs, manifest.as_ref()))));
        let ended = carried.look.seen().map(|seen| seen.ended);
        self.publish(&decision, with_refused(&decision, &desired, &refused), ended, suspects);
        let present = carried.look.away.is_none();
        if present {
            self.pin(&decision, carried).await;
        }
        let mut actions = decision.actions.clone();
        if !present {
            // What is decided about containers now is decided again when the engine answers.
            let (now, later) = actions.into_iter().partition(|a| self.needs_no_engine(a));
            actions = now;
            carried.work.leave(later, "the engine is away");
        }
        if carried.work.begin(&actions) && carried.work.settled(SETTLE).await {
            return Ok(None);
        }
        let wait = decision.wake_at.map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(boottime_ms())));
        if decision.actions.is_empty() {
            self.tidy(&decision, carried).await;
            return Ok(Some(wait));
        }
        // What is under way tells when it is done.
        Ok(Some(wait.max(SETTLE)))
    }

    fn needs_no_engine(&self, action: &Action) -> bool {
        match &action.kind {
            ActionKind::Create(plan) => matches!(**plan, InstancePlan::Process(_)),
            // Files are written without the engine.
            ActionKind::Write(_) => true,
            _ => self.drivers.processes.has(&action.instance),
        }
    }

    /// Instances and images, as they are; of an engine that is away, as they were. Of one that never answered, images of what runs here
    /// count as there: that they are gone is not known.
    async fn seen(&self, carried: &Carried<E>) -> Result<(Vec<Instance>, BTreeSet<ImageId>), LedgerError> {
        let mut instances = self.drivers.processes.observe();
        let Some(seen) = carried.look.seen() else {
            let current = carried.memory.slots.values().filter_map(|m| m.current.as_ref());
            return Ok((instances, current.flat_map(|v| v.images.iter().copied()).collect()));
        };
        instances.extend(seen.containers.iter().filter_map(observe));
        let mut images = seen.images.clone();
        if carried.look.away.is_none() {
            // A look from before an image came is followed by another: what it changes here is a word to this loop, too.
            replace(&self.inventory, Some(Inventory { images: images.iter().copied().collect(), ..Inventory::default() }));
        }
        // An image whose bundle is still under way may be in the engine and not yet on the disk.
        for row in self.ledger.bundles().await? {
            images.remove(&row.image);
        }
        Ok((instances, images))
    }

    /// Keeps the decision before anything is done.
    async fn commit(&self, decision: &Decision, events: Vec<Event>, carried: &mut Carried<E>) -> Result<(), LedgerError> {
        if decision.memory != carried.memory || !events.is_empty() || carried.committed.is_empty() {
            let bytes = skerry_wire::cbor::encode(&decision.memory);
            self.ledger.commit(bytes.clone(), events).await?;
            carried.committed = bytes;
        }
        carried.memory = Memory::clone(&decision.memory);
        carried.interrupted = false;
        Ok(())
    }

    fn node(&self, id: NodeId, desired: &ledger::Desired) -> Node {
        let facts = self.facts.borrow();
        let mut meta = facts.meta.clone();
        // What the server says wins.
        meta.extend(desired.manifest.iter().flat_map(|m| m.values.meta.clone()));
        Node {
            id,
            name: facts.name.clone(),
            datacenter: facts.datacenter.clone(),
            pool: String::new(),
            address: facts.attributes.get("unique.network.ip-address").cloned().unwrap_or_else(|| "127.0.0.1".to_owned()),
            attributes: facts.attributes.clone(),
            meta,
            alloc_folder: self.drivers.alloc_folder.to_string_lossy().into_owned(),
            memory_mib: facts.memory_mib,
        }
    }
}

/// Images of the places in which something could not be made.
fn suspects(failures: &[Failure], memory: &Memory) -> BTreeSet<ImageId> {
    let places = failures.iter().filter(|f| f.step == Step::Create).filter_map(|f| memory.slots.get(&f.slot));
    places.flat_map(|m| m.current.iter().chain(m.next.iter().map(|n| &n.version))).flat_map(|v| v.images.iter().copied()).collect()
}

/// Is the apply window closed, and until when of the boot?
fn apply_closed(windows: &Windows, now: &Now) -> Option<Closed> {
    match windows.at(now.wall) {
        Opening::Open { .. } => None,
        Opening::Closed { until } => {
            Some(Closed { until: until.zip(now.wall).map(|(until, wall)| now.ms.saturating_add(until.since(wall).0)) })
        }
    }
}

/// The manifest without what this agent must not run: absence stops nothing, so what runs goes on.
fn followed(desired: &ledger::Desired, refused: &BTreeMap<AllocId, String>) -> Option<Manifest> {
    let mut manifest = desired.manifest.clone()?;
    manifest.allocs.retain(|a| !refused.contains_key(&a.id));
    Some(manifest)
}

/// Reports of allocations that are refused since the last round.
fn news_of_refusals<'a>(refused: &'a BTreeMap<AllocId, String>, before: &'a BTreeMap<AllocId, String>) -> impl Iterator<Item = Event> + 'a {
    refused.iter().filter(|(id, why)| before.get(id) != Some(why)).map(|(alloc, why)| Event::Alloc {
        alloc: *alloc,
        status: AllocStatus::Failed,
        reason: why.clone(),
        restarts: 0,
        healthy: None,
        wait: None,
    })
}

/// The decision's allocations, and those that were kept from it.
fn with_refused(decision: &Decision, desired: &ledger::Desired, refused: &BTreeMap<AllocId, String>) -> Vec<AllocView> {
    let mut views = decision.allocs.clone();
    let allocs = desired.manifest.iter().flat_map(|m| &m.allocs);
    views.extend(allocs.filter_map(|a| {
        Some(AllocView {
            id: a.id,
            job: a.job.clone(),
            group: a.group.clone(),
            index: a.index,
            version: Some(a.version),
            current: false,
            status: AllocStatus::Failed,
            reason: refused.get(&a.id)?.clone(),
            restarts: 0,
            ports: BTreeMap::new(),
            healthy: None,
            until: None,
            decisions: vec![],
        })
    }));
    views
}

/// Devices that held specifications name and that are there.
fn devices(desired: &ledger::Desired) -> BTreeSet<String> {
    let configs = desired.specifications.values().flat_map(|s| s.job.images());
    let paths: BTreeSet<&str> = configs.flat_map(|c| c.devices.iter().map(|d| d.host_path.as_str())).collect();
    paths.into_iter().filter(|p| std::fs::metadata(p).is_ok()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{self, Keys};

    #[test]
    fn what_a_newer_server_says_is_refused_alone_and_told_once() {
        let (digest, ..) = Keys::new().specification("till", None);
        let manifest = samples::manifest(5, &[("till", digest), ("tide", digest)]);
        let id = manifest.allocs[1].id;
        let desired = ledger::Desired {
            manifest: Some(manifest),
            newer_allocs: BTreeMap::from([(id, "why".to_owned())]),
            ..ledger::Desired::default()
        };
        let refused = desired.refused();
        assert_eq!(followed(&desired, &refused).unwrap().allocs.len(), 1);
        let first: Vec<Event> = news_of_refusals(&refused, &BTreeMap::new()).collect();
        assert!(matches!(&first[..], [Event::Alloc { alloc, status: AllocStatus::Failed, .. }] if *alloc == id));
        assert_eq!(news_of_refusals(&refused, &refused.clone()).count(), 0);
        let views = with_refused(&Decision::default(), &desired, &refused);
        assert_eq!((views.len(), views[0].reason.as_str()), (1, "why"));
        // By its specification, all allocations that name it.
        let desired = ledger::Desired { newer: BTreeMap::from([(digest, "all".to_owned())]), newer_allocs: BTreeMap::new(), ..desired };
        assert_eq!(desired.refused().len(), 2);
    }
}
