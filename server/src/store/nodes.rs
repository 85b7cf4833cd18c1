//! Nodes: who they are, what they say, what they hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};
use skerry_plan::set::News;
use skerry_trust::{PublicKey, envelope};
use skerry_wire::api::{DrainStatus, NodeStatus, NodeSummary};
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::node::{Fingerprint, Inventory};
use skerry_wire::poll::{AllocStatus, Event, PollRequest, Report};
use skerry_wire::{BootId, Digest, NodeId, Timestamp, TokenId, cbor, limits};

use super::fleet::{self, damaged};
use super::history::{self, Said};
use super::tokens::{TokenRefusal, use_token};
use super::{SqliteStore, StoreError, jobs, sets, unknown, variables};
use crate::director::Director;

/// A node that asks to come in; its key has signed for it.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The token's public half, and the SHA-256 of its secret; none when the text is no token.
    pub token: Option<(TokenId, [u8; 32])>,
    /// The node's key.
    pub key: PublicKey,
    /// The boot.
    pub boot: BootId,
    /// Its facts.
    pub fingerprint: Fingerprint,
}

/// What a poll is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    /// Its key.
    pub key: PublicKey,
    /// The boot that it last proved to be in, and the highest sequence known of it.
    pub boot: Option<BootId>,
    /// See `boot`.
    pub seq: u64,
    /// Highest report that was counted.
    pub acknowledged: u64,
    /// Mark of the manifest that it holds, as it last said.
    pub mark: Mark,
    /// Mark of the newest manifest made for it.
    pub latest: Mark,
    /// When that was issued; zero when there is none.
    pub issued: Timestamp,
    /// Are both its facts and its inventory known?
    pub facts: bool,
    /// Is any of its allocations lost? Its next word ends that.
    pub lost: bool,
    /// Is there an order for output that it has not answered?
    pub log_ordered: bool,
    /// Does it keep allocations that its manifest does not name?
    pub keeps_unknown: bool,
}

impl KnownNode {
    /// Does the node say of the manifest that it holds what is not known here? `root` is the version of the server's own root.
    pub fn holds_another(&self, request: &PollRequest, root: u64) -> bool {
        request.mark != self.mark || is_another((request.mark, request.issued), (self.latest, self.issued), root)
    }
}

/// Is what the node holds another manifest of the mark of the newest one made here? Under a newer root than the server's that is no matter of
/// the counter.
fn is_another((mark, held): (Mark, Option<Timestamp>), (latest, issued): (Mark, Timestamp), root: u64) -> bool {
    mark == latest && latest != Mark::default() && mark.root <= root && held.is_some_and(|at| at != issued)
}

/// What came of a poll's news.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The highest report counted.
    pub acknowledged: u64,
    /// Something is to be planned anew: a replacement runs, a run ended, a node that was lost is back.
    pub stirred: bool,
}

/// What a poll tells, once its signature and its place in the order were checked.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The boot and sequence to be kept.
    pub boot: Option<(BootId, u64)>,
    /// Mark of the manifest that the node holds.
    pub mark: Mark,
    /// When that manifest was issued, if the node says so.
    pub issued: Option<Timestamp>,
    /// Facts, when they were sent.
    pub fingerprint: Option<Fingerprint>,
    /// Inventory, when it was sent.
    pub inventory: Option<Inventory>,
    /// Reports, in order.
    pub reports: Vec<Report>,
}

/// When a node was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastContact {
    /// The node.
    pub node: NodeId,
    /// The server's clock.
    pub at: Timestamp,
    /// The boot.
    pub boot: BootId,
    /// The highest sequence of the boot.
    pub seq: u64,
}

/// A manifest for a node that holds an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewManifest {
    /// Its mark.
    pub mark: Mark,
    /// Its envelope.
    pub envelope: Vec<u8>,
    /// The specifications that the node does not know from the manifest that it holds.
    pub specifications: Vec<Digest>,
}

/// Nodes.
#[async_trait]
pub trait NodeStore {
    /// Makes a node known, or finds it again by its key, and places system jobs on a new one.
    async fn enrol(&self, node: Enrolment, director: Arc<Director>, now: Timestamp) -> Result<NodeId, TokenRefusal>;

    /// What a poll of this node is judged by.
    async fn known_node(&self, id: NodeId) -> Result<Option<KnownNode>, StoreError>;

    /// Keeps what a poll tells; each report counts once.
    async fn record_poll(&self, id: NodeId, told: Told, director: Arc<Director>, now: Timestamp) -> Result<Recorded, StoreError>;

    /// The newest manifest of a node, with the specifications in it that the manifest at the mark `held` has not.
    async fn manifest(&self, id: NodeId, held: Mark) -> Result<Option<NewManifest>, StoreError>;

    /// Keeps when nodes were last heard of, and their places in the order of their polls.
    async fn keep_contacts(&self, contacts: Vec<LastContact>) -> Result<(), StoreError>;

    /// All nodes, by name.
    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError>;

    /// One node.
    async fn node(&self, id: NodeId) -> Result<Option<NodeStatus>, StoreError>;

    /// Enrolled nodes.
    async fn node_count(&self) -> Result<u64, StoreError>;
}

/// Bytes kept of a reason that a node gives.
const REASON: usize = 1024;

/// The id of the node with this key: derived, so that a repeated enrolment gives the same.
fn node_id(key: &PublicKey) -> NodeId {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(b"skerry/node/1");
    hash.update(&key.0);
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finish().as_ref()[..16]);
    NodeId::new(id)
}

/// The part of the facts that placement looks at.
fn placed_by(facts: &Fingerprint) -> Fingerprint {
    Fingerprint { disk_free: 0, agent_version: String::new(), engine: None, trouble: None, ..facts.clone() }
}

fn enrol(c: &Connection, node: &Enrolment, director: &Director, now: Timestamp) -> Result<NodeId, TokenRefusal> {
    let id = node_id(&node.key);
    let known =
        c.prepare_cached("SELECT key FROM nodes WHERE id = ?1")?.query_row([id.as_bytes()], |row| row.get::<_, [u8; 32]>(0)).optional()?;
    let facts = cbor::encode(&node.fingerprint);
    if known.is_some() {
        // The key proves who it is: no token is asked for, and none is used. Nothing is changed either, for the request may be a
        // recorded one: a boot that is new proves itself with its first polls, and its facts come with them.
        return Ok(id);
    }
    let pool = use_token(c, node.token.ok_or(TokenRefusal::Unknown)?, &node.key.0, now)?;
    c.prepare_cached(
        "INSERT INTO nodes (id, key, pool, name, fingerprint, hardware, enrolled_at, last_seen, boot) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
    )?
    .execute((
        id.as_bytes(),
        node.key.0,
        &pool,
        &node.fingerprint.name,
        facts,
        cbor::encode(&node.fingerprint.hardware),
        now.0,
        node.boot.as_bytes(),
    ))?;
    fleet::replan_for_a_node(c, director, now)?;
    Ok(id)
}

fn known_node(c: &Connection, id: NodeId) -> Result<Option<KnownNode>, StoreError> {
    let (latest, issued) = fleet::latest_issue(c, id)?;
    let mut query = c.prepare_cached(
        "SELECT key, boot, seq, acknowledged, mark_root, mark_epoch, mark_counter, fingerprint IS NOT NULL AND inventory IS NOT NULL,
         EXISTS (SELECT 1 FROM allocs a WHERE a.node = ?1 AND a.lost_at IS NOT NULL),
         EXISTS (SELECT 1 FROM log_orders o WHERE o.node = ?1 AND o.answered_at IS NULL),
         EXISTS (SELECT 1 FROM unknown_allocs u WHERE u.node = ?1) FROM nodes WHERE id = ?1",
    )?;
    let row = query.query_row([id.as_bytes()], |row| {
        Ok(KnownNode {
            key: PublicKey(row.get(0)?),
            boot: row.get::<_, Option<[u8; 16]>>(1)?.map(BootId::new),
            seq: row.get(2)?,
            acknowledged: row.get(3)?,
            mark: Mark { root: row.get(4)?, epoch: row.get(5)?, counter: row.get(6)? },
            latest,
            issued,
            facts: row.get(7)?,
            lost: row.get(8)?,
            log_ordered: row.get(9)?,
            keeps_unknown: row.get(10)?,
        })
    });
    Ok(row.optional()?)
}

fn new_manifest(c: &Connection, id: NodeId, held: Mark) -> Result<Option<NewManifest>, StoreError> {
    let Some((mark, envelope)) = fleet::latest_manifest(c, id)? else { return Ok(None) };
    let old = c
        .prepare_cached("SELECT envelope FROM manifests WHERE node = ?1 AND root = ?2 AND epoch = ?3 AND counter = ?4")?
        .query_row((id.as_bytes(), held.root, held.epoch, held.counter), |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let listed = |envelope: &[u8]| -> Result<BTreeSet<Digest>, StoreError> {
        let (manifest, _) = envelope::peek::<Manifest>(envelope, limits::MANIFEST).map_err(|e| damaged("a manifest", e))?;
        Ok(manifest.allocs.iter().map(|a| a.specification).collect())
    };
    // Of a manifest that is not kept any more the node says itself what it lacks.
    let known = match old {
        Some(old) => listed(&old)?,
        None if held == Mark::default() => BTreeSet::new(),
        None => listed(&envelope)?,
    };
    let specifications = listed(&envelope)?.difference(&known).copied().collect();
    Ok(Some(NewManifest { mark, envelope, specifications }))
}

fn record_poll(c: &Connection, id: NodeId, told: &Told, director: &Director, now: Timestamp) -> Result<Recorded, StoreError> {
    let Some(known) = known_node(c, id)? else { return Ok(Recorded::default()) };
    let mut stirred = known.lost;
    if known.lost {
        c.prepare_cached("UPDATE allocs SET lost_at = NULL WHERE node = ?1 AND lost_at IS NOT NULL")?.execute([id.as_bytes()])?;
    }
    if let Some((boot, seq)) = &told.boot {
        c.prepare_cached("UPDATE nodes SET boot = ?2, seq = ?3 WHERE id = ?1")?.execute((id.as_bytes(), boot.as_bytes(), seq))?;
    }
    c.prepare_cached("UPDATE nodes SET last_seen = ?2, mark_root = ?3, mark_epoch = ?4, mark_counter = ?5 WHERE id = ?1")?.execute((
        id.as_bytes(),
        now.0,
        told.mark.root,
        told.mark.epoch,
        told.mark.counter,
    ))?;
    let moved = match &told.fingerprint {
        Some(facts) => keep_facts(c, id, facts)?,
        None => false,
    };
    if let Some(inventory) = &told.inventory {
        let mut inventory = inventory.clone();
        inventory.images.sort_unstable();
        inventory.images.dedup();
        c.prepare_cached("UPDATE nodes SET inventory = ?2 WHERE id = ?1")?.execute((id.as_bytes(), cbor::encode(&inventory)))?;
        sets::tell_inventory(c, id, &inventory.images, now)?;
        unknown::keep_told(c, id, &inventory.unknown, now)?;
    }
    let mut acknowledged = known.acknowledged;
    for report in told.reports.iter() {
        if report.seq > acknowledged {
            stirred |= count_report(c, id, &report.event, now)?;
            acknowledged = report.seq;
        }
    }
    if acknowledged > known.acknowledged {
        c.prepare_cached("UPDATE nodes SET acknowledged = ?2 WHERE id = ?1")?.execute((id.as_bytes(), acknowledged))?;
    }
    if moved {
        fleet::replan_for_a_node(c, director, now)?;
    }
    let (latest, issued) = fleet::latest_issue(c, id)?;
    let ours = director.root().root().version;
    // Under an older root than the node's no manifest of ours is accepted: that is a matter of the root file, not of the counter.
    if told.mark.root > ours {
        tracing::error!(node = %id, mark = %told.mark, root = ours, "the node trusts a newer root than this server has: add it to trust.roots");
    }
    let another = is_another((told.mark, told.issued), (latest, issued), ours);
    let lost = told.mark.is_lost();
    let ahead = another || told.mark > latest && told.mark.root <= ours && !lost;
    if lost && told.mark != known.mark {
        tracing::error!(
            node = %id, root = told.mark.root,
            "the node lost every copy of its mark: it keeps running what it runs, and takes manifests under a newer root only (`skerry-server renew-root`)"
        );
    }
    if ahead {
        let what = if another { "another manifest under this mark" } else { "a newer manifest" };
        tracing::warn!(node = %id, mark = %told.mark, %latest, "the node holds {what} than this server remembers; its counter is raised");
    }
    // One that lost its mark waits for the next root, with or without work.
    let waits = lost && told.mark.root < ours;
    if ahead || ((waits || latest != Mark::default()) && latest.root < ours) {
        fleet::write_manifests(c, director, &fleet::of_node(c, id)?, &BTreeSet::from([id]), now)?;
    }
    Ok(Recorded { acknowledged, stirred })
}

/// Keeps the facts; did anything change that placement looks at?
fn keep_facts(c: &Connection, id: NodeId, facts: &Fingerprint) -> Result<bool, StoreError> {
    let old: Option<Vec<u8>> =
        c.prepare_cached("SELECT fingerprint FROM nodes WHERE id = ?1")?.query_row([id.as_bytes()], |row| row.get(0))?;
    let (old, _) = fleet::facts(old, None)?;
    c.prepare_cached("UPDATE nodes SET fingerprint = ?2, name = ?3 WHERE id = ?1")?.execute((
        id.as_bytes(),
        cbor::encode(facts),
        &facts.name,
    ))?;
    Ok(placed_by(&old) != placed_by(facts))
}

/// Counts a report; must be planned anew for it?
fn count_report(c: &Connection, node: NodeId, event: &Event, now: Timestamp) -> Result<bool, StoreError> {
    match event {
        Event::ImageInTransit { image, .. } => sets::tell(c, node, *image, &News::InTransit, now)?,
        Event::ImagePresent { image } => sets::tell(c, node, *image, &News::Present, now)?,
        Event::ImageWaiting { image, reason } => sets::tell(c, node, *image, &News::Waiting(short(reason).to_owned()), now)?,
        Event::ImageFailed { image, reason } => sets::tell(c, node, *image, &News::Failed(short(reason).to_owned()), now)?,
        Event::Alloc { alloc, status, reason, restarts, healthy, wait } => {
            let said = Said { alloc: *alloc, status: *status, reason, restarts: *restarts, healthy: *healthy, wait: *wait };
            return history::count_alloc(c, node, said, now);
        }
        Event::Run { alloc, run, status, reason } => history::count_run(c, node, (*alloc, *run), (*status, reason), now)?,
        Event::ManifestRefused { mark, reason } => tracing::warn!(%node, %mark, reason, "the node refused a manifest"),
        Event::Dropped { count, reason } => tracing::warn!(%node, count, reason, "the node gave up reports"),
        // What a newer agent says beyond this is acknowledged, and not understood.
        Event::ManifestAccepted { .. } | Event::Unknown => {}
    }
    Ok(false)
}

/// As much of a node's sentence as is kept.
pub(crate) fn short(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON)]
}

const SUMMARY: &str = "SELECT id, name, pool, fingerprint, last_seen, mark_counter,
    coalesce((SELECT max(counter) FROM manifests m WHERE m.node = nodes.id), 0), inventory, eligible, drained_at IS NOT NULL,
    drain_deadline, drain_ignores_system, EXISTS (SELECT 1 FROM allocs a WHERE a.node = nodes.id AND a.lost_at IS NOT NULL) FROM nodes";

fn summary(row: &Row<'_>) -> Result<(NodeSummary, Fingerprint, Inventory), StoreError> {
    let (fingerprint, inventory) = fleet::facts(row.get(3)?, row.get(7)?)?;
    let drain = DrainStatus { deadline: row.get::<_, Option<i64>>(10)?.map(Timestamp), ignore_system: row.get(11)? };
    let summary = NodeSummary {
        id: NodeId::new(row.get(0)?),
        name: row.get(1)?,
        pool: row.get(2)?,
        architecture: fingerprint.attributes.get("cpu.arch").cloned().unwrap_or_default(),
        agent_version: fingerprint.agent_version.clone(),
        last_seen: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        // Of one that was lost nothing is known.
        counter: row.get(5).map(|counter| if counter >= limits::COUNTER { 0 } else { counter })?,
        latest_counter: row.get(6)?,
        eligible: row.get(8)?,
        drain: row.get::<_, bool>(9)?.then_some(drain),
        lost: row.get(12)?,
    };
    Ok((summary, fingerprint, inventory))
}

#[async_trait]
impl NodeStore for SqliteStore {
    async fn enrol(&self, node: Enrolment, director: Arc<Director>, now: Timestamp) -> Result<NodeId, TokenRefusal> {
        self.write(move |c| enrol(c, &node, &director, now)).await
    }

    async fn known_node(&self, id: NodeId) -> Result<Option<KnownNode>, StoreError> {
        self.read(move |c| known_node(c, id)).await
    }

    async fn record_poll(&self, id: NodeId, told: Told, director: Arc<Director>, now: Timestamp) -> Result<Recorded, StoreError> {
        self.write(move |c| record_poll(c, id, &told, &director, now)).await
    }

    async fn manifest(&self, id: NodeId, held: Mark) -> Result<Option<NewManifest>, StoreError> {
        self.read(move |c| new_manifest(c, id, held)).await
    }

    async fn keep_contacts(&self, contacts: Vec<LastContact>) -> Result<(), StoreError> {
        self.write(move |c| {
            let mut update = c.prepare_cached("UPDATE nodes SET last_seen = ?2, boot = ?3, seq = ?4 WHERE id = ?1")?;
            for contact in contacts {
                update.execute((contact.node.as_bytes(), contact.at.0, contact.boot.as_bytes(), contact.seq))?;
            }
            Ok(())
        })
        .await
    }

    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached(&format!("{SUMMARY} ORDER BY name, id"))?;
            let mut rows = query.query([])?;
            let mut nodes = Vec::new();
            while let Some(row) = rows.next()? {
                nodes.push(summary(row)?.0);
            }
            Ok(nodes)
        })
        .await
    }

    async fn node(&self, id: NodeId) -> Result<Option<NodeStatus>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached(&format!("{SUMMARY} WHERE id = ?1"))?;
            let mut rows = query.query([id.as_bytes()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let (summary, fingerprint, inventory) = summary(row)?;
            let allocs = jobs::allocs_where(c, "a.node = ?1", [id.as_bytes()])?;
            let (meta, arriving) = (variables::meta(c, id)?, sets::arriving(c, id)?);
            Ok(Some(NodeStatus { summary, fingerprint, inventory, meta, allocs, arriving }))
        })
        .await
    }

    async fn node_count(&self) -> Result<u64, StoreError> {
        self.read(|c| Ok(c.query_row("SELECT count(*) FROM nodes", [], |row| row.get(0))?)).await
    }
}

/// The client status in the database.
pub(super) fn status(word: &str) -> Result<AllocStatus, StoreError> {
    Ok(match word {
        "pending" => AllocStatus::Pending,
        "running" => AllocStatus::Running,
        "complete" => AllocStatus::Complete,
        "failed" => AllocStatus::Failed,
        other => return Err(damaged("an allocation's status", other)),
    })
}
