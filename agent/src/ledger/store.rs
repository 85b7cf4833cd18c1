//! The ledger's thread: the connection, the slots, the copies, and what others see of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use skerry_trust::{TimeBound, decode_slot, encode_slot, envelope};
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::poll::Event;
use skerry_wire::release::Specification;
use skerry_wire::{Digest, ImageId, NodeId, Timestamp, limits};
use tokio::sync::watch;

use super::copies::{Copies, Copy, sha256};
use super::mark::Marks;
use super::{Accepted, BundleRow, Confirmed, Desired, Keep, LedgerError, OutboxState, Views, open};
use crate::marks::Slots;
use crate::newer;
use crate::steps::{self, Step};

/// Names of the rows of `fact`.
pub(super) mod fact {
    pub(in crate::ledger) const MANIFEST: &str = "manifest";
    pub(in crate::ledger) const MARK: &str = "mark";
    pub(in crate::ledger) const MEMORY: &str = "memory";
    pub(in crate::ledger) const NODE: &str = "node";
    pub(in crate::ledger) const TIME: &str = "time";
    pub(in crate::ledger) const CONFIRMED: &str = "confirmed";
    pub(in crate::ledger) const NEXT_REPORT: &str = "next_report";
}

/// The form of [`Confirmed`] on disk.
#[derive(Default, Serialize, Deserialize)]
struct ConfirmedRow {
    fingerprint: Option<Digest>,
    inventory: Option<Digest>,
}

/// Specifications by digest, and of those with fields that this agent does not know, which.
type Loaded = (BTreeMap<Digest, Specification>, BTreeMap<Digest, String>);

/// What the thread owns.
#[derive(Debug)]
pub(super) struct State {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) copies: Copies,
    pub(super) mark_slots: Slots,
    pub(super) marks: Marks,
    time_slots: Slots,
    pub(super) desired: watch::Sender<Arc<Desired>>,
    memory: watch::Sender<Option<Arc<Vec<u8>>>>,
    /// Counts the memories that were committed, to tell the newer one of two copies.
    memory_number: u64,
    pub(super) outbox: watch::Sender<OutboxState>,
    pub(super) orders: watch::Sender<Arc<Vec<skerry_reconcile::Order>>>,
    pub(super) keep: watch::Sender<Arc<Keep>>,
    node: watch::Sender<Option<NodeId>>,
    time: watch::Sender<TimeBound>,
}

impl State {
    pub(super) fn open(folder: &Path, built: Timestamp) -> Result<(Self, Views), LedgerError> {
        let path = folder.join("ledger.sqlite");
        let (connection, rebuilt) = open::open_or_rebuild(&path)?;
        let copies = Copies::open(folder)?;
        let (mark_slots, slot_mark) = Slots::open::<Mark>(folder, "mark")?;
        let (time_slots, slot_time) = Slots::open::<Timestamp>(folder, "time")?;
        // It is written every quarter of an hour: then no name is to be made, and no room to be found.
        if let Err(error) = time_slots.reserve() {
            tracing::warn!("there may be no room to keep the bound of time: {error}");
        }

        let (desired, desired_view) = watch::channel(Arc::new(Desired::default()));
        let (memory, memory_view) = watch::channel(None);
        let (outbox, outbox_view) = watch::channel(OutboxState::default());
        let (orders, orders_view) = watch::channel(Arc::default());
        let (keep, keep_view) = watch::channel(Arc::default());
        let (node, node_view) = watch::channel(None);
        let (time, time_view) = watch::channel(TimeBound::new(built, None));
        let views = Views {
            desired: desired_view,
            memory: memory_view,
            outbox: outbox_view,
            orders: orders_view,
            keep: keep_view,
            node: node_view,
            time: time_view,
        };
        let memory_number = 0;
        let marks = Marks::None;
        let mut state = Self {
            path,
            connection,
            copies,
            mark_slots,
            marks,
            time_slots,
            desired,
            memory,
            memory_number,
            outbox,
            orders,
            keep,
            node,
            time,
        };

        let stored = state.message::<Timestamp>(fact::TIME)?.max(slot_time);
        state.time.send_replace(TimeBound::new(built, stored));
        state.load_orders()?;
        state.load_keep()?;
        // Agents before this one kept no mark before the first manifest; this one keeps it before the id.
        let never_marked = state.has_row(fact::NODE)? && !state.has_row(fact::MARK)?;
        state.load_node()?;
        let lost_commits = state.load_memory()?;
        // The slots are written after what was accepted is committed.
        let row_mark = state.message::<Mark>(fact::MARK)?.unwrap_or_default();
        let lost_accept = slot_mark.is_some_and(|slot| slot > row_mark);
        if (rebuilt || lost_accept) && !lost_commits {
            let now = state.now();
            state.transact(|t| tell_lost(t, now))?;
        }
        let lost_manifest = state.load_desired(slot_mark, never_marked)?;
        if lost_commits {
            // What the server confirmed last may be lost too: it is told the facts again.
            state.set_confirmed(Confirmed::default())?;
        }
        if rebuilt || lost_commits || lost_manifest {
            let now = state.now();
            state.transact(|t| skip_sequences(t, now))?;
        }
        state.refresh_outbox(false)?;
        Ok((state, views))
    }

    /// Ends in good order: the journal is folded into the file.
    pub(super) fn close(self) {
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!("ledger {}: {error}", self.path.display());
        }
    }

    /// Wraps what SQLite says with the ledger's path.
    pub(super) fn at(&self) -> impl Fn(rusqlite::Error) -> LedgerError + use<> {
        let path = self.path.clone();
        move |source| LedgerError::Sqlite { path: path.clone(), source }
    }

    /// Runs `work` in one transaction: all of it is on the disk on return, or none.
    pub(super) fn transact<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        let at = self.at();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&at)?;
        let value = work(&transaction).map_err(&at)?;
        transaction.commit().map_err(&at)?;
        Ok(value)
    }

    // === facts: single values with a checksum, since SQLite does not notice a bit that flips inside a value ===

    fn value(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(self.value_numbered(name)?.map(|(_, value)| value))
    }

    /// A value with the number that it was written under.
    pub(super) fn value_numbered(&self, name: &str) -> Result<Option<(u64, Vec<u8>)>, LedgerError> {
        let row: Option<Vec<u8>> =
            self.connection.query_row("SELECT value FROM fact WHERE name = ?1", [name], |row| row.get(0)).optional().map_err(self.at())?;
        let Some(row) = row else { return Ok(None) };
        match decode_slot(&row) {
            Ok((number, value)) => Ok(Some((number, value.to_vec()))),
            Err(error) => {
                tracing::warn!("`{name}` in ledger {} set aside: {error}", self.path.display());
                Ok(None)
            }
        }
    }

    /// Is there a value of this name, whole or not?
    fn has_row(&self, name: &str) -> Result<bool, LedgerError> {
        self.connection.query_row("SELECT EXISTS (SELECT 1 FROM fact WHERE name = ?1)", [name], |row| row.get(0)).map_err(self.at())
    }

    pub(super) fn message<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LedgerError> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        Ok(skerry_wire::cbor::decode(&value, limits::MANIFEST)
            .inspect_err(|e| tracing::warn!("`{name}` in ledger {} set aside: {e}", self.path.display()))
            .ok())
    }

    pub(super) fn put_message<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), LedgerError> {
        let bytes = skerry_wire::cbor::encode(value);
        self.transact(|t| put_value(t, name, &bytes))
    }

    // === loading ===

    fn load_node(&mut self) -> Result<(), LedgerError> {
        let whole = |bytes: Vec<u8>| Some(NodeId::new(bytes.try_into().ok()?));
        let (row, copy) = (self.value(fact::NODE)?.and_then(whole), self.copies.get(Copy::Node).and_then(whole));
        match (row, copy) {
            (Some(node), None) => self.copies.put(Copy::Node, node.as_bytes())?,
            (None, Some(node)) => self.transact(|t| {
                // Should the power go before it is settled whether the mark is lost, this row, which holds none, still says that there was one.
                t.execute("INSERT INTO fact (name, value) VALUES (?1, x'') ON CONFLICT (name) DO NOTHING", [fact::MARK])?;
                put_value(t, fact::NODE, node.as_bytes())
            })?,
            _ => {}
        }
        self.node.send_replace(row.or(copy));
        Ok(())
    }

    /// Answers whether the ledger has lost what it had committed: the journal was garbled, and SQLite went on from before.
    fn load_memory(&mut self) -> Result<bool, LedgerError> {
        let (row, copy) = (self.value_numbered(fact::MEMORY)?, self.copies.get_numbered(Copy::Memory));
        // The row is committed before its copy takes its place: a copy with a higher number, or without a row, tells of a commit that the
        // ledger lost.
        let lost = copy.as_ref().is_some_and(|(copy, _)| row.as_ref().is_none_or(|(row, _)| copy > row));
        let newest = if lost { copy.clone() } else { row.clone() };
        let Some((number, memory)) = newest else { return Ok(false) };
        if row.as_ref() != Some(&(number, memory.clone())) {
            let now = self.now();
            // All at once: when the next start finds nothing lost, it was told.
            self.transact(|t| {
                put_numbered(t, fact::MEMORY, number, &memory)?;
                if lost { tell_lost(t, now) } else { Ok(()) }
            })?;
        }
        if copy.as_ref() != Some(&(number, memory.clone())) {
            self.copies.put_numbered(Copy::Memory, number, &memory)?;
        }
        if lost {
            tracing::error!("ledger {}: what was committed last is lost; the memory is taken from its copy", self.path.display());
        }
        self.memory_number = number;
        self.memory.send_replace(Some(Arc::new(memory)));
        Ok(lost)
    }

    /// Answers whether the copy of the manifest is newer than the ledger's. `never_marked` is a node that has an id and
    /// had no mark yet.
    fn load_desired(&mut self, slot_mark: Option<Mark>, never_marked: bool) -> Result<bool, LedgerError> {
        // Both copies were checked before they were written; their checksums hold, so what is inside may be believed without asking
        // whether its key is still trusted: a newer root must not stop what runs.
        let read = |bytes: Vec<u8>| {
            let (manifest, _) = envelope::peek::<Manifest>(&bytes, limits::MANIFEST).ok()?;
            Some((manifest, bytes))
        };
        let row = self.value(fact::MANIFEST)?.and_then(read);
        let copy = self.copies.get(Copy::Manifest).and_then(read);
        let mark_of = |m: &Option<(Manifest, Vec<u8>)>| m.as_ref().map(|(m, _)| m.mark);
        match (mark_of(&row), mark_of(&copy)) {
            (a, b) if a == b => {}
            (a, b) if a > b => {
                if let Some((_, bytes)) = &row {
                    self.copies.put(Copy::Manifest, bytes)?;
                }
            }
            _ => {
                if let Some((_, bytes)) = &copy {
                    self.transact(|t| put_value(t, fact::MANIFEST, bytes))?;
                }
            }
        }
        let lost = mark_of(&row) < mark_of(&copy);
        let newest = if mark_of(&row) >= mark_of(&copy) { row } else { copy };
        let newer_allocs = newest.as_ref().map(|(m, bytes)| newer_allocs(m, bytes)).unwrap_or_default();
        let manifest = newest.map(|(manifest, _)| manifest);

        let row_mark = self.message::<Mark>(fact::MARK)?;
        let kept = [slot_mark, row_mark, manifest.as_ref().map(|m| m.mark)].into_iter().flatten().max();
        self.marks = match kept {
            Some(_) => Marks::Kept,
            None if self.node.borrow().is_none() || never_marked => Marks::None,
            None => Marks::Lost,
        };
        let mark = kept.unwrap_or_default();
        if self.marks == Marks::Kept || self.marks == Marks::None && self.node.borrow().is_some() {
            self.keep_mark(mark, (slot_mark, row_mark))?;
        }
        let (specifications, newer) = self.load_specifications()?;
        self.desired.send_replace(Arc::new(Desired { mark, manifest, specifications, newer, newer_allocs }));
        Ok(lost)
    }

    fn load_specifications(&mut self) -> Result<Loaded, LedgerError> {
        let mut rows = BTreeMap::new();
        {
            let mut statement = self.connection.prepare("SELECT digest, bytes FROM specification").map_err(self.at())?;
            let mut all = statement.query([]).map_err(self.at())?;
            while let Some(row) = all.next().map_err(self.at())? {
                let (digest, bytes): (Vec<u8>, Vec<u8>) = (row.get(0).map_err(self.at())?, row.get(1).map_err(self.at())?);
                if let Ok(digest) = digest.try_into().map(Digest::new) {
                    rows.insert(digest, bytes);
                }
            }
        }
        let mut digests: BTreeSet<Digest> = rows.keys().copied().collect();
        digests.extend(self.copies.specifications()?);
        let (mut held, mut newer) = (BTreeMap::new(), BTreeMap::new());
        for digest in digests {
            let row = rows.remove(&digest).filter(|bytes| sha256(bytes) == digest);
            let copy = self.copies.get_specification(&digest);
            let bytes = match (row, copy) {
                (Some(bytes), Some(_)) => bytes,
                (Some(bytes), None) => {
                    self.copies.put_specification(&digest, &bytes)?;
                    bytes
                }
                (None, Some(bytes)) => {
                    self.transact(|t| put_specification(t, &digest, &bytes))?;
                    bytes
                }
                (None, None) => {
                    tracing::warn!("both copies of specification {} are garbled: the server will be asked for it", digest.short());
                    self.forget_specification(&digest)?;
                    continue;
                }
            };
            match envelope::peek::<Specification>(&bytes, limits::SPECIFICATION) {
                Ok((specification, _)) => {
                    newer.extend(newer::in_specification(&bytes, &specification).map(|why| (digest, why)));
                    held.insert(digest, specification);
                }
                Err(error) => tracing::warn!("specification {} cannot be read: {error}", digest.short()),
            }
        }
        Ok((held, newer))
    }

    fn forget_specification(&mut self, digest: &Digest) -> Result<(), LedgerError> {
        self.copies.remove_specification(digest)?;
        self.transact(|t| t.execute("DELETE FROM specification WHERE digest = ?1", [digest.as_bytes()]))?;
        Ok(())
    }

    // === what others ask for ===

    pub(super) fn commit(&mut self, memory: Vec<u8>, events: &[Event]) -> Result<(), LedgerError> {
        let changed = self.memory.borrow().as_deref() != Some(&memory);
        if !changed && events.is_empty() {
            return Ok(());
        }
        // The copy is written first and takes its place last: should it fail, nothing was put into the outbox that a second try would put
        // there again; and a copy that is newer than the row is of a commit that was made.
        let number = self.memory_number.saturating_add(1);
        let staged = if changed { Some(self.copies.stage(Copy::Memory, number, &memory)?) } else { None };
        let at = self.now();
        self.transact(|t| {
            if changed {
                put_numbered(t, fact::MEMORY, number, &memory)?;
            }
            super::outbox::push(t, at, events)
        })?;
        if let Some(staged) = staged {
            self.memory_number = number;
            self.memory.send_replace(Some(Arc::new(memory)));
            if let Err(error) = staged.finish() {
                // The row is on the disk, and the next commit makes a copy anew.
                tracing::warn!("{error}");
            }
        }
        self.refresh_outbox(super::outbox::any_urgent(events))
    }

    pub(super) fn accept(&mut self, accepted: Accepted) -> Result<(), LedgerError> {
        let Accepted { manifest, bytes, specifications } = accepted;
        let mark = manifest.mark;
        if mark <= self.desired.borrow().mark {
            return Ok(());
        }
        for (digest, bytes, _) in &specifications {
            self.copies.put_specification(digest, bytes)?;
        }
        self.copies.put(Copy::Manifest, &bytes)?;
        steps::reached(Step::ManifestCopied);
        let at = self.now();
        let event = [Event::ManifestAccepted { mark }];
        self.transact(|t| {
            for (digest, bytes, _) in &specifications {
                put_specification(t, digest, bytes)?;
            }
            put_value(t, fact::MANIFEST, &bytes)?;
            put_value(t, fact::MARK, &skerry_wire::cbor::encode(&mark))?;
            put_value(t, fact::TIME, &skerry_wire::cbor::encode(&at))?;
            super::outbox::push(t, at, &event)
        })?;
        steps::reached(Step::ManifestKept);
        let first = self.desired.borrow().mark == Mark::default();
        self.mark_slots.write(&mark)?;
        if first {
            // The other slot holds the zero mark, which must not outlive this one.
            self.mark_slots.write(&mark)?;
        }
        self.marks = Marks::Kept;
        steps::reached(Step::ManifestAccepted);
        let mut desired = self.desired.borrow().as_ref().clone();
        desired.newer_allocs = newer_allocs(&manifest, &bytes);
        (desired.mark, desired.manifest) = (mark, Some(manifest));
        hold(&mut desired, specifications);
        self.desired.send_replace(Arc::new(desired));
        self.refresh_outbox(true)
    }

    pub(super) fn keep_specifications(&mut self, found: Vec<(Digest, Vec<u8>, Specification)>) -> Result<(), LedgerError> {
        if found.is_empty() {
            return Ok(());
        }
        for (digest, bytes, _) in &found {
            self.copies.put_specification(digest, bytes)?;
        }
        self.transact(|t| found.iter().try_for_each(|(digest, bytes, _)| put_specification(t, digest, bytes)))?;
        let mut desired = self.desired.borrow().as_ref().clone();
        hold(&mut desired, found);
        self.desired.send_replace(Arc::new(desired));
        Ok(())
    }

    pub(super) fn retain(&mut self, needed: &BTreeSet<Digest>) -> Result<(), LedgerError> {
        let desired = Arc::clone(&self.desired.borrow());
        let named: BTreeSet<Digest> = desired.manifest.iter().flat_map(|m| m.allocs.iter().map(|a| a.specification)).collect();
        let idle: Vec<Digest> = desired.specifications.keys().filter(|d| !named.contains(*d) && !needed.contains(*d)).copied().collect();
        if idle.is_empty() {
            return Ok(());
        }
        for digest in &idle {
            self.forget_specification(digest)?;
        }
        let mut kept = desired.as_ref().clone();
        kept.specifications.retain(|digest, _| !idle.contains(digest));
        kept.newer.retain(|digest, _| !idle.contains(digest));
        self.desired.send_replace(Arc::new(kept));
        Ok(())
    }

    pub(super) fn enrolled(&mut self, node: NodeId) -> Result<(), LedgerError> {
        // First: a node with an id and without a mark is one that lost it.
        if self.marks != Marks::Kept {
            self.keep_mark(Mark::default(), (None, None))?;
        }
        self.copies.put(Copy::Node, node.as_bytes())?;
        self.transact(|t| put_value(t, fact::NODE, node.as_bytes()))?;
        self.node.send_replace(Some(node));
        Ok(())
    }

    /// The node's lower bound of time.
    pub(super) fn now(&self) -> Timestamp {
        self.time.borrow().at()
    }

    pub(super) fn saw_time(&mut self, signed: Timestamp, cap: Timestamp, persist: bool) -> Result<(), LedgerError> {
        let bound = self.time.borrow().seen(signed, cap);
        self.time.send_replace(bound);
        if persist {
            // Not in the ledger each time: that is a commit every quarter of an hour, for a third place.
            self.time_slots.write(&bound.at())?;
        }
        Ok(())
    }

    pub(super) fn confirmed(&mut self) -> Result<Confirmed, LedgerError> {
        let row: ConfirmedRow = self.message(fact::CONFIRMED)?.unwrap_or_default();
        Ok(Confirmed { fingerprint: row.fingerprint, inventory: row.inventory })
    }

    pub(super) fn set_confirmed(&mut self, confirmed: Confirmed) -> Result<(), LedgerError> {
        let row = ConfirmedRow { fingerprint: confirmed.fingerprint, inventory: confirmed.inventory };
        self.put_message(fact::CONFIRMED, &row)
    }

    // === bundles ===

    pub(super) fn bundles(&mut self) -> Result<Vec<BundleRow>, LedgerError> {
        let at = self.at();
        let mut statement =
            self.connection.prepare("SELECT image, digest, size, capability, release FROM bundle ORDER BY image").map_err(&at)?;
        let rows = statement
            .query_map([], |row| {
                let (image, digest): ([u8; 32], [u8; 32]) = (row.get(0)?, row.get(1)?);
                Ok(BundleRow {
                    image: ImageId(Digest::new(image)),
                    digest: Digest::new(digest),
                    size: row.get(2)?,
                    capability: row.get(3)?,
                    release: row.get(4)?,
                })
            })
            .map_err(&at)?;
        // A garbled row is a bundle that the server offers again.
        Ok(rows.filter_map(|row| row.inspect_err(|e| tracing::warn!("bundle row set aside: {e}")).ok()).collect())
    }

    pub(super) fn put_bundle(&mut self, row: &BundleRow) -> Result<(), LedgerError> {
        self.transact(|t| {
            t.execute(
                "INSERT INTO bundle (image, digest, size, capability, release) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (image) DO UPDATE SET digest = ?2, size = ?3, capability = ?4, release = ?5",
                params![row.image.digest().as_bytes(), row.digest.as_bytes(), row.size, row.capability, row.release],
            )
        })?;
        Ok(())
    }

    pub(super) fn end_bundle(&mut self, image: ImageId, events: &[Event]) -> Result<(), LedgerError> {
        let at = self.now();
        self.transact(|t| {
            t.execute("DELETE FROM bundle WHERE image = ?1", [image.digest().as_bytes()])?;
            super::outbox::push(t, at, events)
        })?;
        self.refresh_outbox(super::outbox::any_urgent(events))
    }
}

/// Adds specifications, and what this agent does not know of them.
fn hold(desired: &mut Desired, found: Vec<(Digest, Vec<u8>, Specification)>) {
    for (digest, bytes, content) in found {
        desired.newer.extend(newer::in_specification(&bytes, &content).map(|why| (digest, why)));
        desired.specifications.insert(digest, content);
    }
}

/// What this agent does not know of a manifest's allocations. What else it does not know has no effect, and is said.
fn newer_allocs(manifest: &Manifest, bytes: &[u8]) -> BTreeMap<skerry_wire::AllocId, String> {
    let (allocs, others) = newer::in_manifest(bytes, manifest);
    if !others.is_empty() {
        tracing::warn!("manifest {} says {}, which this agent does not know", manifest.mark, others.join(", "));
    }
    allocs
}

fn put_value(t: &Transaction<'_>, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    put_numbered(t, name, 0, value)
}

pub(super) fn put_numbered(t: &Transaction<'_>, name: &str, number: u64, value: &[u8]) -> rusqlite::Result<()> {
    t.execute(
        "INSERT INTO fact (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        params![name, encode_slot(number, value)],
    )?;
    Ok(())
}

fn put_specification(t: &Transaction<'_>, digest: &Digest, bytes: &[u8]) -> rusqlite::Result<()> {
    t.execute(
        "INSERT INTO specification (digest, bytes) VALUES (?1, ?2) ON CONFLICT (digest) DO UPDATE SET bytes = ?2",
        params![digest.as_bytes(), bytes],
    )?;
    Ok(())
}

/// The next free sequence of the outbox, from 1.
pub(super) fn next_sequence(c: &Connection) -> rusqlite::Result<u64> {
    let row: Option<Vec<u8>> = c.query_row("SELECT value FROM fact WHERE name = ?1", [fact::NEXT_REPORT], |row| row.get(0)).optional()?;
    let kept: Option<u64> = row.and_then(|row| skerry_wire::cbor::decode(decode_slot(&row).ok()?.1, 16).ok());
    let highest: Option<u64> = c.query_row("SELECT max(seq) FROM outbox", [], |row| row.get(0))?;
    Ok(kept.unwrap_or(1).max(highest.map_or(1, |h| h.saturating_add(1))))
}

/// Sequences of reports are never used twice. What was used is lost with the ledger, so they go on from the time in milliseconds: no node
/// has ever sent that many reports.
fn skip_sequences(t: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let next = u64::try_from(now.0).unwrap_or(0).max(next_sequence(t)?);
    put_value(t, fact::NEXT_REPORT, &skerry_wire::cbor::encode(&next))
}

/// What is said in place of reports that were lost with the ledger.
pub(super) const LOST_REPORTS: &str = "the node's ledger was damaged: reports that it had not delivered may be lost";

/// Puts that into the outbox, under a number that was not used before, unless another ledger was lost within the same bound of time.
fn tell_lost(t: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    skip_sequences(t, now)?;
    super::outbox::push(t, now, &[Event::Dropped { count: 0, reason: LOST_REPORTS.to_owned() }])
}

/// This sequence, and every one before it, is used and never used again.
pub(super) fn use_sequence(t: &Transaction<'_>, seq: u64) -> rusqlite::Result<()> {
    put_value(t, fact::NEXT_REPORT, &skerry_wire::cbor::encode(&seq.saturating_add(1)))
}
