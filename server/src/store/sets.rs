//! Deployment sets: which image is on its way to which node, and who ordered it.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};
use skerry_plan::Fleet;
use skerry_plan::set::{self, News, RowState};
use skerry_wire::api::{SetRow, SetState, SetStatus, SetSummary, Submitter};
use skerry_wire::{Digest, ImageId, NodeId, SetId, Timestamp};

use super::fleet::damaged;
use super::{SqliteStore, StoreError, jobs};

/// Sets in a list at most, the newest.
const LISTED: u32 = 1000;

/// Reading deployment sets; they are written by what moves them.
#[async_trait]
pub trait SetStore {
    /// The newest sets, newest first.
    async fn sets(&self) -> Result<Vec<SetSummary>, StoreError>;

    /// One set with its rows.
    async fn set(&self, id: SetId) -> Result<Option<SetStatus>, StoreError>;
}

pub(super) fn state_word(state: SetState) -> &'static str {
    match state {
        SetState::Queued => "queued",
        SetState::InTransit => "in_transit",
        SetState::Succeeded => "succeeded",
        SetState::Failed => "failed",
    }
}

fn state(word: &str) -> Result<SetState, StoreError> {
    Ok(match word {
        "queued" => SetState::Queued,
        "in_transit" => SetState::InTransit,
        "succeeded" => SetState::Succeeded,
        "failed" => SetState::Failed,
        other => return Err(damaged("a deployment set's state", other)),
    })
}

/// The id of the set of a job version: derived, so that a repeated submit finds it.
fn set_id(job: &str, version: u64, specification: &Digest) -> SetId {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for field in [b"skerry/set/1".as_slice(), job.as_bytes(), &version.to_be_bytes(), specification.as_bytes()] {
        hash.update(&(field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finish().as_ref()[..16]);
    SetId::new(id)
}

/// Opens the set of a new job version; its rows come with [`extend`]. The sets of the job's older versions end.
pub(super) fn open(
    connection: &Connection,
    (job, version): (&str, u64),
    specification: &Digest,
    submitter: &Submitter,
    now: Timestamp,
) -> Result<SetId, StoreError> {
    drop_older(connection, job, version, &set::superseded_by(version), now)?;
    let id = set_id(job, version, specification);
    connection
        .prepare_cached(
            "INSERT INTO deployment_sets (id, job, version, name, email, state, created_at, finished_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'succeeded', ?6, ?6)",
        )?
        .execute((id.as_bytes(), job, version, &submitter.name, &submitter.email, now.0))?;
    Ok(id)
}

/// Ends what is unfinished in the sets of versions below this one.
pub(super) fn drop_older(connection: &Connection, job: &str, version: u64, reason: &str, now: Timestamp) -> Result<(), StoreError> {
    let news = News::Dropped(reason.to_owned());
    let rows = rows_where(connection, "s.job = ?1 AND s.version < ?2 AND r.state IN ('queued', 'in_transit')", (job, version))?;
    move_rows(connection, &rows, &news, now)
}

/// Adds the rows that the current version of a job needs and its set lacks.
pub(super) fn extend(connection: &Connection, fleet: &Fleet, job: &str, now: Timestamp) -> Result<(), StoreError> {
    let Some(version) = fleet.jobs.get(job).map(|j| j.version) else { return Ok(()) };
    let Some(id) = current(connection, job, version)? else { return Ok(()) };
    let mut insert = connection.prepare_cached(
        "INSERT INTO deployment_rows (set_id, node, image, state, reason, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (set_id, node, image) DO NOTHING",
    )?;
    for ((node, image), row) in set::rows(fleet, job, fleet.allocs.values()) {
        insert.execute((id.as_bytes(), node.as_bytes(), image.digest().as_bytes(), state_word(row.state), row.reason, now.0))?;
    }
    settle(connection, id, now)
}

/// The set of this job version.
pub(super) fn current(connection: &Connection, job: &str, version: u64) -> Result<Option<SetId>, StoreError> {
    let mut query = connection.prepare_cached("SELECT id FROM deployment_sets WHERE job = ?1 AND version = ?2")?;
    Ok(query.query_row((job, version), |row| row.get(0).map(SetId::new)).optional()?)
}

/// A row that may move.
#[derive(Debug)]
pub(super) struct Moving {
    set: SetId,
    node: NodeId,
    image: ImageId,
    row: RowState,
}

fn rows_where(connection: &Connection, condition: &str, params: impl rusqlite::Params) -> Result<Vec<Moving>, StoreError> {
    let sql = format!(
        "SELECT r.set_id, r.node, r.image, r.state, r.reason FROM deployment_rows r JOIN deployment_sets s ON s.id = r.set_id WHERE {condition}"
    );
    let mut query = connection.prepare_cached(&sql)?;
    let mut rows = query.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Moving {
            set: SetId::new(row.get(0)?),
            node: NodeId::new(row.get(1)?),
            image: ImageId(Digest::new(row.get(2)?)),
            row: RowState { state: state(&row.get::<_, String>(3)?)?, reason: row.get(4)? },
        });
    }
    Ok(found)
}

/// News of an image on a node: moves its rows in the sets of current job versions.
pub(super) fn tell(connection: &Connection, node: NodeId, image: ImageId, news: &News, now: Timestamp) -> Result<(), StoreError> {
    let rows = rows_where(
        connection,
        "r.node = ?1 AND r.image = ?2 AND r.state <> 'succeeded'
         AND EXISTS (SELECT 1 FROM jobs j WHERE j.id = s.job AND j.version = s.version AND j.stopped_at IS NULL)",
        (node.as_bytes(), image.digest().as_bytes()),
    )?;
    move_rows(connection, &rows, news, now)
}

/// A node's inventory: every row whose image is in it has succeeded.
pub(super) fn tell_inventory(connection: &Connection, node: NodeId, images: &[ImageId], now: Timestamp) -> Result<(), StoreError> {
    let rows = rows_where(
        connection,
        "r.node = ?1 AND r.state <> 'succeeded'
         AND EXISTS (SELECT 1 FROM jobs j WHERE j.id = s.job AND j.version = s.version AND j.stopped_at IS NULL)",
        [node.as_bytes()],
    )?;
    let there: Vec<_> = rows.into_iter().filter(|r| images.contains(&r.image)).collect();
    move_rows(connection, &there, &News::Present, now)
}

/// What is known of the bundle for a node's image: its base and, once built, its bytes.
pub(super) fn price(
    connection: &Connection,
    node: NodeId,
    image: ImageId,
    (size, base): (Option<u64>, Option<ImageId>),
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE deployment_rows SET size = ?3, base = ?4 WHERE node = ?1 AND image = ?2 AND state <> 'succeeded' AND (size IS NOT ?3 OR base IS NOT ?4)",
        )?
        .execute((node.as_bytes(), image.digest().as_bytes(), size, base.map(|b| *b.digest().as_bytes())))?;
    Ok(())
}

fn move_rows(connection: &Connection, rows: &[Moving], news: &News, now: Timestamp) -> Result<(), StoreError> {
    let mut update = connection.prepare_cached(
        "UPDATE deployment_rows SET state = ?4, reason = ?5, updated_at = ?6 WHERE set_id = ?1 AND node = ?2 AND image = ?3",
    )?;
    let mut sets = std::collections::BTreeSet::new();
    for Moving { set, node, image, row } in rows {
        let next = set::step(row, news);
        if next != *row {
            update.execute((set.as_bytes(), node.as_bytes(), image.digest().as_bytes(), state_word(next.state), next.reason, now.0))?;
            sets.insert(*set);
        }
    }
    for set in sets {
        settle(connection, set, now)?;
    }
    Ok(())
}

/// Brings the state of a set in line with its rows.
fn settle(connection: &Connection, id: SetId, now: Timestamp) -> Result<(), StoreError> {
    let mut query = connection.prepare_cached("SELECT DISTINCT state FROM deployment_rows WHERE set_id = ?1")?;
    let words = query.query_map([id.as_bytes()], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let states = words.iter().map(|w| state(w)).collect::<Result<Vec<_>, _>>()?;
    let whole = set::state(states);
    let finished = matches!(whole, SetState::Succeeded | SetState::Failed);
    connection
        .prepare_cached(
            "UPDATE deployment_sets SET state = ?2, finished_at = CASE WHEN ?3 THEN coalesce(finished_at, ?4) END WHERE id = ?1",
        )?
        .execute((id.as_bytes(), state_word(whole), finished, now.0))?;
    Ok(())
}

const SUMMARY: &str = "SELECT id, job, version, name, email, created_at, finished_at, state FROM deployment_sets";

fn summary(c: &Connection, row: &Row<'_>) -> Result<SetSummary, StoreError> {
    let (job, version): (String, u64) = (row.get(1)?, row.get(2)?);
    Ok(SetSummary {
        id: SetId::new(row.get(0)?),
        health: jobs::health(c, &job, version)?,
        job,
        version,
        submitter: Submitter { name: row.get(3)?, email: row.get(4)? },
        created_at: Timestamp(row.get(5)?),
        finished_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        state: state(&row.get::<_, String>(7)?)?,
    })
}

/// The sets of a job, newest first.
pub(super) fn of_job(connection: &Connection, job: &str) -> Result<Vec<SetSummary>, StoreError> {
    let mut query = connection.prepare_cached(&format!("{SUMMARY} WHERE job = ?1 ORDER BY version DESC LIMIT {LISTED}"))?;
    let mut rows = query.query([job])?;
    let mut sets = Vec::new();
    while let Some(row) = rows.next()? {
        sets.push(summary(connection, row)?);
    }
    Ok(sets)
}

/// Rows for people.
fn shown(c: &Connection, condition: &str, params: impl rusqlite::Params) -> Result<Vec<SetRow>, StoreError> {
    let sql = format!(
        "SELECT r.node, n.name, r.image, coalesce((SELECT name || ':' || tag FROM releases WHERE image_id = r.image ORDER BY id DESC LIMIT 1), ''),
         r.state, r.reason, r.size, r.base, r.updated_at FROM deployment_rows r JOIN nodes n ON n.id = r.node
         WHERE {condition} ORDER BY n.name, r.node, r.image"
    );
    let mut query = c.prepare_cached(&sql)?;
    let mut rows = query.query(params)?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(SetRow {
            node: NodeId::new(row.get(0)?),
            node_name: row.get(1)?,
            image: ImageId(Digest::new(row.get(2)?)),
            reference: row.get(3)?,
            state: state(&row.get::<_, String>(4)?)?,
            reason: row.get(5)?,
            size: row.get(6)?,
            base: row.get::<_, Option<[u8; 32]>>(7)?.map(|b| ImageId(Digest::new(b))),
            updated_at: Timestamp(row.get(8)?),
        });
    }
    Ok(list)
}

/// Images on their way to a node for the current versions of its jobs; an image of several jobs once for each.
pub(super) fn arriving(c: &Connection, node: NodeId) -> Result<Vec<SetRow>, StoreError> {
    let unfinished = "r.node = ?1 AND r.state <> 'succeeded' AND EXISTS (SELECT 1 FROM deployment_sets s JOIN jobs j ON j.id = s.job
         WHERE s.id = r.set_id AND j.version = s.version AND j.stopped_at IS NULL)";
    shown(c, unfinished, [node.as_bytes()])
}

#[async_trait]
impl SetStore for SqliteStore {
    async fn sets(&self) -> Result<Vec<SetSummary>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached(&format!("{SUMMARY} ORDER BY created_at DESC, id LIMIT {LISTED}"))?;
            let mut rows = query.query([])?;
            let mut sets = Vec::new();
            while let Some(row) = rows.next()? {
                sets.push(summary(c, row)?);
            }
            Ok(sets)
        })
        .await
    }

    async fn set(&self, id: SetId) -> Result<Option<SetStatus>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached(&format!("{SUMMARY} WHERE id = ?1"))?;
            let mut rows = query.query([id.as_bytes()])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let summary = summary(c, row)?;
            let list = shown(c, "r.set_id = ?1", [id.as_bytes()])?;
            Ok(Some(SetStatus { summary, rows: list }))
        })
        .await
    }
}
