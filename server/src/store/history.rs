//! What nodes told of their allocations: the last states of each, and the last runs of periodic ones.

use rusqlite::{Connection, OptionalExtension};
use skerry_wire::api::{AllocRun, AllocState};
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, Millis, NodeId, Timestamp};

use super::StoreError;
use super::nodes::{short, status as status_of};

/// States, and runs, kept of one allocation: the last ones. They are bounded with every report, whatever a node sends.
const KEPT: u32 = 10;

/// What a node says of an allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) alloc: AllocId,
    pub(super) status: AllocStatus,
    pub(super) reason: &'a str,
    pub(super) restarts: u32,
    pub(super) healthy: Option<bool>,
    pub(super) wait: Option<Millis>,
}

/// Keeps what a node says of one of its own allocations. Must be planned anew for it?
pub(super) fn count_alloc(c: &Connection, node: NodeId, said: Said<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let Said { alloc, status, restarts, healthy, .. } = said;
    let reason = short(said.reason);
    let known = c
        .prepare_cached("SELECT status, restarts, running_since, healthy, desired, job, grp, idx FROM allocs WHERE id = ?1 AND node = ?2")?
        .query_row((alloc.as_bytes(), node.as_bytes()), |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, u32>(1)?,
                row.get::<_, Option<i64>>(2)?,
                row.get::<_, Option<bool>>(3)?,
                row.get::<_, String>(4)? == "run",
                (row.get::<_, String>(5)?, row.get::<_, String>(6)?, row.get::<_, u32>(7)?),
            ))
        })
        .optional()?;
    // A node speaks of its own allocations only; of one that is not known here, how it fares.
    let Some((before, restarts_before, since, healthy_before, wanted, index)) = known else {
        c.prepare_cached("UPDATE unknown_allocs SET status = ?3, told_at = ?4 WHERE node = ?1 AND alloc = ?2")?.execute((
            node.as_bytes(),
            alloc.as_bytes(),
            status.to_string(),
            now.0,
        ))?;
        return Ok(false);
    };
    let running = status == AllocStatus::Running;
    let since = if running && restarts == restarts_before { since.or(Some(now.0)) } else { running.then_some(now.0) };
    // A report may have waited for long in the node's outbox: at the latest then.
    let waits_until = said.wait.map(|wait| now.after(wait).0);
    c.prepare_cached(
        "UPDATE allocs SET status = ?2, reason = ?3, restarts = ?4, updated_at = ?5, reported_at = ?5, healthy = ?6, waits_until = ?7,
         running_since = ?8, covers = covers AND ?9, override_lock = override_lock AND NOT ?10 WHERE id = ?1",
    )?
    .execute((
        alloc.as_bytes(),
        status.to_string(),
        reason,
        restarts,
        now.0,
        healthy,
        waits_until,
        since,
        matches!(status, AllocStatus::Pending | AllocStatus::Failed),
        running,
    ))?;
    keep_state(c, alloc, (&status.to_string(), reason, restarts, healthy, waits_until), now)?;
    let mut over = false;
    // An order to stop is done when its end is told. A failure that was told before the order came says nothing of it.
    if status == AllocStatus::Complete {
        let done = c.prepare_cached("UPDATE tombstones SET done_at = ?3 WHERE alloc = ?1 AND node = ?2 AND done_at IS NULL")?.execute((
            alloc.as_bytes(),
            node.as_bytes(),
            now.0,
        ))?;
        over = done > 0;
    }
    if !over && before == status.to_string() && healthy == healthy_before {
        return Ok(false);
    }
    // What was awaited: the end of a run, a replacement that runs, or the last thing on a node that is drained.
    let drained = || -> rusqlite::Result<bool> {
        c.prepare_cached("SELECT drained_at IS NOT NULL FROM nodes WHERE id = ?1")?.query_row([node.as_bytes()], |row| row.get(0))
    };
    let elsewhere = || -> rusqlite::Result<bool> {
        let (job, group, index) = &index;
        c.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM allocs WHERE job = ?1 AND grp = ?2 AND idx = ?3 AND desired = 'run' AND node <> ?4)",
        )?
        .query_row((job, group, index, node.as_bytes()), |row| row.get(0))
    };
    Ok((wanted && (status == AllocStatus::Complete || elsewhere()?)) || drained()?)
}

type State<'a> = (&'a str, &'a str, u32, Option<bool>, Option<i64>);

fn keep_state(c: &Connection, alloc: AllocId, state: State<'_>, now: Timestamp) -> Result<(), StoreError> {
    let (status, reason, restarts, healthy, waits_until) = state;
    c.prepare_cached(
        "INSERT INTO alloc_states (alloc, seq, at, status, reason, healthy, restarts, waits_until)
         SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7 FROM alloc_states WHERE alloc = ?1",
    )?
    .execute((alloc.as_bytes(), now.0, status, reason, healthy, restarts, waits_until))?;
    c.prepare_cached("DELETE FROM alloc_states WHERE alloc = ?1 AND seq <= (SELECT max(seq) FROM alloc_states WHERE alloc = ?1) - ?2")?
        .execute((alloc.as_bytes(), KEPT))?;
    Ok(())
}

/// Keeps what a node says of a run of one of its own periodic allocations.
pub(super) fn count_run(
    c: &Connection,
    node: NodeId,
    (alloc, run): (AllocId, u64),
    (status, reason): (AllocStatus, &str),
    now: Timestamp,
) -> Result<(), StoreError> {
    let own = c
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM allocs WHERE id = ?1 AND node = ?2)")?
        .query_row((alloc.as_bytes(), node.as_bytes()), |row| row.get::<_, bool>(0))?;
    // A number that the database cannot hold is a liar's.
    let Some(run) = i64::try_from(run).ok().filter(|_| own) else { return Ok(()) };
    c.prepare_cached(
        "INSERT INTO alloc_runs (alloc, run, status, reason, first_at, at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (alloc, run) DO UPDATE SET status = ?3, reason = ?4, at = ?5",
    )?
    .execute((alloc.as_bytes(), run, status.to_string(), short(reason), now.0))?;
    c.prepare_cached(
        "DELETE FROM alloc_runs WHERE alloc = ?1 AND run NOT IN (SELECT run FROM alloc_runs WHERE alloc = ?1 ORDER BY at DESC, run DESC LIMIT ?2)",
    )?
    .execute((alloc.as_bytes(), KEPT))?;
    Ok(())
}

/// The last states, newest first.
pub(super) fn states(c: &Connection, alloc: AllocId) -> Result<Vec<AllocState>, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT at, status, reason, healthy, restarts, waits_until FROM alloc_states WHERE alloc = ?1 ORDER BY seq DESC LIMIT ?2",
    )?;
    let mut rows = query.query((alloc.as_bytes(), KEPT))?;
    let mut states = Vec::new();
    while let Some(row) = rows.next()? {
        states.push(AllocState {
            at: Timestamp(row.get(0)?),
            status: status_of(&row.get::<_, String>(1)?)?,
            reason: row.get(2)?,
            healthy: row.get(3)?,
            restarts: row.get(4)?,
            waits_until: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        });
    }
    Ok(states)
}

/// The last runs, newest first.
pub(super) fn runs(c: &Connection, alloc: AllocId) -> Result<Vec<AllocRun>, StoreError> {
    let mut query =
        c.prepare_cached("SELECT run, status, reason, first_at, at FROM alloc_runs WHERE alloc = ?1 ORDER BY run DESC LIMIT ?2")?;
    let mut rows = query.query((alloc.as_bytes(), KEPT))?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        runs.push(AllocRun {
            run: row.get(0)?,
            status: status_of(&row.get::<_, String>(1)?)?,
            reason: row.get(2)?,
            first_at: Timestamp(row.get(3)?),
            at: Timestamp(row.get(4)?),
        });
    }
    Ok(runs)
}
