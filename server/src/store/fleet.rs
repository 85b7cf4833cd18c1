//! The fleet in the database: what the planner reads, and how its plan is written.
//!
//! A plan is written as a whole: allocations, tombstones, the new manifests of the nodes it touches, signed, and the rows of the
//! deployment sets, in the transaction of whatever asked for it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use skerry_plan::{Alloc, Claim, Drain, Fleet, Image, JobVersion, Node, Order, Plan, State, claim};
use skerry_trust::envelope;
use skerry_wire::manifest::{Manifest, ManifestAlloc, Mark, Tombstone};
use skerry_wire::node::{Fingerprint, Inventory};
use skerry_wire::release::Specification;
use skerry_wire::{AllocId, DiffId, Digest, ImageId, NodeId, Timestamp, cbor, limits};

use super::nodes::status;
use super::{StoreError, sets, unknown, variables};
use crate::director::Director;

/// What a row holds that cannot be: the file was written by something else.
pub(super) fn damaged(what: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("{what}: {why}"))
}

/// Reads the specification that was verified when it was submitted.
pub(super) fn specification(envelope: &[u8]) -> Result<Specification, StoreError> {
    envelope::peek(envelope, limits::SPECIFICATION).map(|(s, _)| s).map_err(|e| damaged("a specification", e))
}

/// Everything that the planner looks at, but for the time.
pub(super) fn load(connection: &Connection) -> Result<Fleet, StoreError> {
    let jobs = jobs(connection)?;
    let (nodes, images) = (nodes(connection)?, images(connection)?);
    Ok(Fleet { nodes, allocs: allocs(connection, &jobs, None)?, jobs, images, now: Timestamp(0) })
}

/// The allocations of one node.
pub(super) fn of_node(connection: &Connection, id: NodeId) -> Result<BTreeMap<AllocId, Alloc>, StoreError> {
    allocs(connection, &jobs(connection)?, Some(id))
}

/// Decodes the facts of a node's row.
pub(super) fn facts(fingerprint: Option<Vec<u8>>, inventory: Option<Vec<u8>>) -> Result<(Fingerprint, Inventory), StoreError> {
    let fingerprint = fingerprint.map(|b| cbor::decode(&b, limits::POLL_REQUEST)).transpose();
    let inventory = inventory.map(|b| cbor::decode(&b, limits::POLL_REQUEST)).transpose();
    Ok((
        fingerprint.map_err(|e| damaged("a node's fingerprint", e))?.unwrap_or_default(),
        inventory.map_err(|e| damaged("a node's inventory", e))?.unwrap_or_default(),
    ))
}

const NODE: &str =
    "SELECT id, pool, fingerprint, inventory, eligible, drained_at IS NOT NULL, drain_deadline, drain_ignores_system FROM nodes";

/// One node as the planner sees it.
pub(super) fn node(connection: &Connection, id: NodeId) -> Result<Option<Node>, StoreError> {
    let mut query = connection.prepare_cached(&format!("{NODE} WHERE id = ?1"))?;
    let mut rows = query.query([id.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut node = node_row(row)?;
    node.fingerprint.meta.extend(variables::meta(connection, id)?);
    Ok(Some(node))
}

fn node_row(row: &rusqlite::Row<'_>) -> Result<Node, StoreError> {
    let (fingerprint, inventory) = facts(row.get(2)?, row.get(3)?)?;
    let drain = Drain { deadline: row.get::<_, Option<i64>>(6)?.map(Timestamp), ignore_system: row.get(7)? };
    Ok(Node {
        id: NodeId::new(row.get(0)?),
        pool: row.get(1)?,
        fingerprint,
        inventory: inventory.images.into_iter().collect(),
        eligible: row.get(4)?,
        drain: row.get::<_, bool>(5)?.then_some(drain),
    })
}

fn nodes(connection: &Connection) -> Result<BTreeMap<NodeId, Node>, StoreError> {
    let mut query = connection.prepare_cached(NODE)?;
    let mut rows = query.query([])?;
    let mut nodes = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let node = node_row(row)?;
        nodes.insert(node.id, node);
    }
    // What the server sets wins over the node's own.
    let mut query = connection.prepare_cached("SELECT node, key, value FROM node_meta")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(node) = nodes.get_mut(&NodeId::new(row.get(0)?)) {
            node.fingerprint.meta.insert(row.get(1)?, row.get(2)?);
        }
    }
    Ok(nodes)
}

fn jobs(connection: &Connection) -> Result<BTreeMap<String, JobVersion>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT j.version, v.specification, j.stopped_at, j.stopped_by FROM jobs j JOIN job_versions v ON v.job = j.id AND v.version = j.version",
    )?;
    let mut rows = query.query([])?;
    let mut jobs = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let job = specification(&row.get::<_, Vec<u8>>(1)?)?.job;
        let stopped = row.get::<_, Option<i64>>(2)?.is_some();
        let by: Option<String> = row.get(3)?;
        let stopped = stopped.then(|| format!("job stopped by {}", by.unwrap_or_default()));
        jobs.insert(job.id.clone(), JobVersion { version: row.get(0)?, job, stopped });
    }
    Ok(jobs)
}

/// The images that the server knows.
pub(super) fn images(connection: &Connection) -> Result<BTreeMap<ImageId, Image>, StoreError> {
    let mut images = BTreeMap::new();
    // The newest release of an image names it.
    let mut query = connection.prepare_cached(
        "SELECT i.image_id, i.architecture, r.name, r.tag FROM images i JOIN releases r ON r.image_id = i.image_id ORDER BY r.id",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (name, tag): (String, String) = (row.get(2)?, row.get(3)?);
        let image = Image { reference: format!("{name}:{tag}"), architecture: row.get(1)?, layers: Vec::new() };
        images.insert(ImageId(Digest::new(row.get(0)?)), image);
    }
    let mut query = connection.prepare_cached(
        "SELECT l.image_id, l.diff_id, layers.size FROM image_layers l JOIN layers ON layers.diff_id = l.diff_id ORDER BY l.image_id, l.position",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(image) = images.get_mut(&ImageId(Digest::new(row.get(0)?))) {
            image.layers.push((DiffId(Digest::new(row.get(1)?)), row.get(2)?));
        }
    }
    Ok(images)
}

/// The allocations that run, and those whose node has not said yet that they stopped.
fn allocs(
    connection: &Connection,
    jobs: &BTreeMap<String, JobVersion>,
    node: Option<NodeId>,
) -> Result<BTreeMap<AllocId, Alloc>, StoreError> {
    let of_node = if node.is_some() { "AND a.node = ?1" } else { "" };
    let mut query = connection.prepare_cached(&format!(
        "SELECT a.id, a.job, a.version, a.grp, a.idx, a.node, a.desired, t.reason, a.status, a.healthy, a.reported_at IS NOT NULL,
         a.running_since, a.lost_at IS NOT NULL, a.placed_at, a.covers, a.retry, a.override_lock FROM allocs a
         LEFT JOIN tombstones t ON t.alloc = a.id AND t.done_at IS NULL WHERE (a.desired = 'run' OR t.alloc IS NOT NULL) {of_node}",
    ))?;
    let mut rows = query.query(rusqlite::params_from_iter(node.iter().map(NodeId::as_bytes)))?;
    let mut old: BTreeMap<(String, u64), Specification> = BTreeMap::new();
    let mut allocs = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (job, version, group): (String, u64, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let current = jobs.get(&job).filter(|j| j.version == version).map(|j| &j.job);
        let spec = match current {
            Some(job) => Some(job),
            None => {
                let key = (job.clone(), version);
                if !old.contains_key(&key) {
                    let envelope: Vec<u8> = connection
                        .prepare_cached("SELECT specification FROM job_versions WHERE job = ?1 AND version = ?2")?
                        .query_row((&job, version), |r| r.get(0))?;
                    old.insert(key.clone(), specification(&envelope)?);
                }
                old.get(&key).map(|s| &s.job)
            }
        };
        let claim = spec.and_then(|s| s.group(&group)).map_or_else(Claim::default, claim);
        let run = row.get::<_, String>(6)? == "run";
        let order = if run { Order::Run } else { Order::Stop(row.get::<_, Option<String>>(7)?.unwrap_or_default()) };
        let (id, node) = (AllocId::new(row.get(0)?), NodeId::new(row.get(5)?));
        let state = State {
            status: status(&row.get::<_, String>(8)?)?,
            healthy: row.get(9)?,
            heard: row.get(10)?,
            running_since: row.get::<_, Option<i64>>(11)?.map(Timestamp),
        };
        let to_end = spec.is_some_and(|s| s.kind.runs_to_end());
        let alloc = Alloc {
            id,
            job,
            version,
            group,
            index: row.get(4)?,
            node,
            order,
            ended: false,
            claim,
            to_end,
            state,
            lost: row.get(12)?,
            placed_at: Timestamp(row.get(13)?),
            covers: row.get(14)?,
            retry: row.get(15)?,
            override_lock: row.get(16)?,
        };
        allocs.insert(id, alloc);
    }
    Ok(allocs)
}

/// A plan that was written.
pub(super) struct Replanned {
    /// The fleet that it was made for.
    pub(super) before: Fleet,
    /// The plan.
    pub(super) plan: Plan,
}

/// Plans everything and writes what changes.
pub(super) fn replan(connection: &Connection, director: &Director, now: Timestamp) -> Result<Replanned, StoreError> {
    let before = Fleet { now, ..load(connection)? };
    let plan = skerry_plan::plan(&before);
    write_allocs(connection, &before, &plan, now)?;
    let mut after = before.clone();
    plan.apply(&mut after.allocs);
    write_manifests(connection, director, &after.allocs, &plan.touched(&before.allocs), now)?;
    let jobs: BTreeSet<&str> = plan.starts.iter().map(|s| s.alloc.job.as_str()).collect();
    for job in jobs {
        sets::extend(connection, &after, job, now)?;
    }
    Ok(Replanned { before, plan })
}

/// The same after something was heard of a node; nothing is read of the fleet while nothing runs in it and nothing is to run. Thousands of
/// nodes that enrol one after another, before their first job, would each have all others read.
pub(super) fn replan_for_a_node(connection: &Connection, director: &Director, now: Timestamp) -> Result<(), StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM jobs WHERE stopped_at IS NULL) OR EXISTS (SELECT 1 FROM allocs WHERE desired = 'run')
        OR EXISTS (SELECT 1 FROM tombstones WHERE done_at IS NULL)";
    if connection.prepare_cached(sql)?.query_row([], |row| row.get(0))? {
        replan(connection, director, now)?;
    }
    Ok(())
}

fn write_allocs(connection: &Connection, fleet: &Fleet, plan: &Plan, now: Timestamp) -> Result<(), StoreError> {
    let mut stop = connection.prepare_cached("UPDATE allocs SET desired = 'stop', updated_at = ?2 WHERE id = ?1")?;
    let mut bury = connection.prepare_cached(
        "INSERT INTO tombstones (node, alloc, reason, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (node, alloc) DO NOTHING",
    )?;
    for order in &plan.stops {
        stop.execute((order.alloc.as_bytes(), now.0))?;
        if let (Order::Stop(reason), Some(alloc)) = (&order.order, fleet.allocs.get(&order.alloc)) {
            bury.execute((alloc.node.as_bytes(), order.alloc.as_bytes(), reason, now.0))?;
        }
    }
    // Placed anew after its end it begins from the start; before its end it goes on as it is.
    let mut start = connection.prepare_cached(
        "INSERT INTO allocs (id, job, version, grp, idx, node, desired, status, created_at, updated_at, placed_at, covers, lost_after, retry)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'run', 'pending', ?7, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET desired = 'run', updated_at = ?7, placed_at = ?8, covers = ?9, retry = max(retry, ?11),
         status = iif(status IN ('complete', 'failed'), 'pending', status), reason = iif(status IN ('complete', 'failed'), '', reason),
         reported_at = iif(status IN ('complete', 'failed'), NULL, reported_at), healthy = NULL, waits_until = NULL",
    )?;
    let mut lost = connection.prepare_cached("UPDATE allocs SET lost_at = (SELECT lost_at FROM allocs WHERE id = ?2) WHERE id = ?1")?;
    let mut raise = connection.prepare_cached("DELETE FROM tombstones WHERE alloc = ?1")?;
    for new in &plan.starts {
        if let Some(old) = new.replaces {
            stop.execute((old.as_bytes(), now.0))?;
        }
        let a = &new.alloc;
        let group = fleet.jobs.get(&a.job).and_then(|j| j.job.group(&a.group));
        let lost_after = group.and_then(|g| g.disconnect.lost_after).map(|m| i64::try_from(m.0).unwrap_or(i64::MAX));
        start.execute(rusqlite::params![
            a.id.as_bytes(),
            a.job,
            a.version,
            a.group,
            a.index,
            a.node.as_bytes(),
            now.0,
            a.placed_at.0,
            a.covers,
            lost_after,
            a.retry
        ])?;
        if let Some(old) = new.replaces.filter(|_| a.lost && lost_after.is_some()) {
            lost.execute((a.id.as_bytes(), old.as_bytes()))?;
        }
        raise.execute([a.id.as_bytes()])?;
    }
    Ok(())
}

/// Signs a new manifest for each of the nodes, above every mark that is known of it.
pub(super) fn write_manifests(
    connection: &Connection,
    director: &Director,
    allocs: &BTreeMap<AllocId, Alloc>,
    nodes: &BTreeSet<NodeId>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let versions: BTreeSet<(&str, u64)> =
        allocs.values().filter(|a| nodes.contains(&a.node)).map(|a| (a.job.as_str(), a.version)).collect();
    let mut digests = BTreeMap::new();
    for (job, version) in versions {
        let digest = connection
            .prepare_cached("SELECT digest FROM job_versions WHERE job = ?1 AND version = ?2")?
            .query_row((job, version), |row| row.get(0))?;
        digests.insert((job.to_owned(), version), Digest::new(digest));
    }
    let mut of_node: BTreeMap<NodeId, Vec<&Alloc>> = BTreeMap::new();
    for alloc in allocs.values().filter(|a| nodes.contains(&a.node)) {
        of_node.entry(alloc.node).or_default().push(alloc);
    }
    for node in nodes {
        let allocs = of_node.remove(node).unwrap_or_default();
        let (values, left_out) = variables::values(connection, *node, &allocs)?;
        if !left_out.is_empty() {
            tracing::warn!(%node, ?left_out, "variables that the node's jobs may read do not fit into its manifest");
        }
        let content = skerry_plan::manifest::content(*node, allocs, |job, version| digests.get(&(job.to_owned(), version)).copied());
        let (allocs, mut tombstones) = (content.allocs, content.tombstones);
        // A version as new takes the place over without a gap; an older one is what this server remembers of it.
        let takes = |a: &ManifestAlloc, t: &Tombstone| (&a.job, &a.group, a.index) == (&t.job, &t.group, t.index) && a.version >= t.version;
        let placed = |t: &Tombstone| allocs.iter().any(|a| takes(a, t));
        tombstones.extend(unknown::tombstones(connection, *node)?.into_iter().filter(|t| !placed(t)));
        tombstones.sort();
        let mark = director.next_mark(highest_mark(connection, *node)?);
        let manifest = Manifest { node: *node, mark, issued_at: now, allocs, tombstones, values };
        connection
            .prepare_cached("INSERT INTO manifests (node, root, epoch, counter, envelope, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute((node.as_bytes(), mark.root, mark.epoch, mark.counter, director.sign_manifest(&manifest), now.0))?;
    }
    Ok(())
}

/// The highest mark of a node: of the manifests made for it, and of what it said that it holds.
fn highest_mark(connection: &Connection, node: NodeId) -> Result<Mark, StoreError> {
    let mark = |row: &rusqlite::Row<'_>| Ok(Mark { root: row.get(0)?, epoch: row.get(1)?, counter: row.get(2)? });
    let held = connection
        .prepare_cached("SELECT mark_root, mark_epoch, mark_counter FROM nodes WHERE id = ?1")?
        .query_row([node.as_bytes()], mark)?;
    let made = latest_mark(connection, node)?;
    if held.is_lost() {
        // It counts from nowhere: only the root, which must be a newer one, makes the next manifest count.
        return Ok(made);
    }
    let counter = held.counter.max(made.counter);
    Ok(Mark { counter, ..held.max(made) })
}

/// The mark of the newest manifest of a node; zero when there is none.
pub(super) fn latest_mark(connection: &Connection, node: NodeId) -> Result<Mark, StoreError> {
    Ok(latest_issue(connection, node)?.0)
}

/// The same, with when that manifest was issued. Asked at every poll: by an index alone, since the row holds the whole manifest.
pub(super) fn latest_issue(connection: &Connection, node: NodeId) -> Result<(Mark, Timestamp), StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT root, epoch, counter, created_at FROM manifests INDEXED BY manifests_issued WHERE node = ?1
         ORDER BY root DESC, epoch DESC, counter DESC LIMIT 1",
    )?;
    let mut rows = query.query([node.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(Default::default()) };
    Ok((Mark { root: row.get(0)?, epoch: row.get(1)?, counter: row.get(2)? }, Timestamp(row.get(3)?)))
}

/// The newest manifest of a node with its mark.
pub(super) fn latest_manifest(connection: &Connection, node: NodeId) -> Result<Option<(Mark, Vec<u8>)>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT root, epoch, counter, envelope FROM manifests WHERE node = ?1 ORDER BY root DESC, epoch DESC, counter DESC LIMIT 1",
    )?;
    let mut rows = query.query([node.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((Mark { root: row.get(0)?, epoch: row.get(1)?, counter: row.get(2)? }, row.get(3)?)))
}
