//! Jobs, their versions and their allocations.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use skerry_plan::{Fleet, Plan};
use skerry_wire::api::{AllocDetail, AllocSummary, DesiredStatus, Health, JobStatus, JobSummary, Submitter};
use skerry_wire::job::Job;
use skerry_wire::{AllocId, Digest, ImageId, NodeId, SetId, Timestamp};

use super::audit::{self, By};
use super::nodes::status;
use super::{SqliteStore, StoreError, fleet, history, sets};
use crate::director::Director;

/// Allocations in a list at most, the newest.
const LISTED: u32 = 10_000;

/// A job version as it was submitted and checked.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The job inside the specification.
    pub job: Job,
    /// The envelope.
    pub specification: Vec<u8>,
    /// SHA-256 of the envelope.
    pub digest: Digest,
    /// The jobspec as written.
    pub source: String,
    /// Who orders it.
    pub submitter: Submitter,
    /// A new version although nothing changed.
    pub again: bool,
}

/// What a submit did.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The version in force.
    pub version: u64,
    /// Its deployment set.
    pub set: SetId,
    /// Was it in force already?
    pub unchanged: bool,
    /// What was planned.
    pub plan: Plan,
    /// The fleet that the plan was made for.
    pub before: Fleet,
}

/// Jobs and allocations.
#[async_trait]
pub trait JobStore {
    /// Makes a job version the current one, places it and opens its deployment set; does nothing when it is the same job.
    async fn submit(&self, submission: Submission, director: Arc<Director>, by: By) -> Result<Submitted, StoreError>;

    /// Stops a job: a tombstone for each of its allocations. `false` when there is no such job.
    async fn stop_job(&self, id: String, submitter: Submitter, director: Arc<Director>, by: By) -> Result<bool, StoreError>;

    /// Everything that the planner looks at.
    async fn fleet(&self) -> Result<Fleet, StoreError>;

    /// All jobs, by id.
    async fn jobs(&self) -> Result<Vec<JobSummary>, StoreError>;

    /// One job.
    async fn job(&self, id: String) -> Result<Option<JobStatus>, StoreError>;

    /// Allocations, newest first.
    async fn allocs(&self) -> Result<Vec<AllocSummary>, StoreError>;

    /// One allocation.
    async fn alloc(&self, id: AllocId) -> Result<Option<AllocDetail>, StoreError>;

    /// Images released under a name and tag, each with its architecture, newest first.
    async fn releases(&self, name: String, tag: String) -> Result<Vec<(ImageId, String)>, StoreError>;

    /// Envelopes of specifications, for those that are known.
    async fn specifications(&self, digests: Vec<Digest>) -> Result<Vec<(Digest, Vec<u8>)>, StoreError>;
}

fn submit(c: &Connection, new: &Submission, director: &Director, by: &By) -> Result<Submitted, StoreError> {
    let id = new.job.id.as_str();
    let current = c
        .prepare_cached(
            "SELECT j.version, j.stopped_at IS NOT NULL, v.specification FROM jobs j
             JOIN job_versions v ON v.job = j.id AND v.version = j.version WHERE j.id = ?1",
        )?
        .query_row([id], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, bool>(1)?, row.get::<_, Vec<u8>>(2)?)))
        .optional()?;
    // A server that was put back to an older backup has forgotten some versions that run.
    let forgotten = c
        .prepare_cached("SELECT coalesce(max(version), 0) FROM unknown_allocs WHERE job = ?1")?
        .query_row([id], |row| row.get::<_, u64>(0))?;
    if let Some((version, stopped, specification)) = current.as_ref().filter(|(version, ..)| *version >= forgotten) {
        let same = !new.again && !stopped && fleet::specification(specification)?.job == new.job;
        if let (true, Some(set)) = (same, sets::current(c, id, *version)?) {
            return Ok(Submitted { version: *version, set, unchanged: true, plan: Plan::default(), before: fleet::load(c)? });
        }
    }
    let version = current.map_or(0, |(version, ..)| version).max(forgotten) + 1;
    c.prepare_cached(
        "INSERT INTO jobs (id, version) VALUES (?1, ?2)
         ON CONFLICT (id) DO UPDATE SET version = ?2, stopped_at = NULL, stopped_by = NULL",
    )?
    .execute((id, version))?;
    c.prepare_cached(
        "INSERT INTO job_versions (job, version, specification, digest, source, name, email, submitted_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        id,
        version,
        &new.specification,
        new.digest.as_bytes(),
        &new.source,
        &new.submitter.name,
        &new.submitter.email,
        by.at.0,
    ))?;
    let set = sets::open(c, (id, version), &new.digest, &new.submitter, by.at)?;
    let fleet::Replanned { before, plan } = fleet::replan(c, director, by.at)?;
    audit::append(c, by, &format!("submitted job {id} version {version} for {} <{}>", new.submitter.name, new.submitter.email))?;
    Ok(Submitted { version, set, unchanged: false, plan, before })
}

fn stop(c: &Connection, id: &str, submitter: &Submitter, director: &Director, by: &By) -> Result<bool, StoreError> {
    let Some(job) = c
        .prepare_cached("SELECT version, stopped_at IS NOT NULL FROM jobs WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, bool>(1)?)))
        .optional()?
    else {
        return Ok(false);
    };
    let (version, stopped) = job;
    if stopped {
        return Ok(true);
    }
    c.prepare_cached("UPDATE jobs SET stopped_at = ?2, stopped_by = ?3 WHERE id = ?1")?.execute((id, by.at.0, &submitter.email))?;
    sets::drop_older(c, id, version.saturating_add(1), &format!("job stopped by {}", submitter.email), by.at)?;
    fleet::replan(c, director, by.at)?;
    audit::append(c, by, &format!("stopped job {id} for {} <{}>", submitter.name, submitter.email))?;
    Ok(true)
}

const ALLOC: &str = "SELECT a.id, a.job, a.version, a.grp, a.idx, a.node, n.name, a.desired, a.status, a.reason, a.restarts, a.updated_at,
    a.healthy, a.waits_until, a.lost_at
    FROM allocs a JOIN nodes n ON n.id = a.node";

/// Allocations that meet a condition, the newest version first.
pub(super) fn allocs_where(c: &Connection, condition: &str, params: impl rusqlite::Params) -> Result<Vec<AllocSummary>, StoreError> {
    let sql = format!("{ALLOC} WHERE {condition} ORDER BY a.job, a.version DESC, a.grp, a.idx, n.name, a.id LIMIT {LISTED}");
    let mut query = c.prepare_cached(&sql)?;
    let mut rows = query.query(params)?;
    let mut allocs = Vec::new();
    while let Some(row) = rows.next()? {
        allocs.push(AllocSummary {
            id: AllocId::new(row.get(0)?),
            job: row.get(1)?,
            version: row.get(2)?,
            group: row.get(3)?,
            index: row.get(4)?,
            node: NodeId::new(row.get(5)?),
            node_name: row.get(6)?,
            desired: if row.get::<_, String>(7)? == "run" { DesiredStatus::Run } else { DesiredStatus::Stop },
            status: status(&row.get::<_, String>(8)?)?,
            reason: row.get(9)?,
            restarts: row.get(10)?,
            updated_at: Timestamp(row.get(11)?),
            healthy: row.get(12)?,
            waits_until: row.get::<_, Option<i64>>(13)?.map(Timestamp),
            lost_since: row.get::<_, Option<i64>>(14)?.map(Timestamp),
        });
    }
    Ok(allocs)
}

const JOB: &str = "SELECT j.id, j.version, j.stopped_at IS NOT NULL, v.submitted_at, v.specification, v.source,
    (SELECT count(*) FROM allocs a WHERE a.job = j.id AND a.desired = 'run'),
    (SELECT count(*) FROM allocs a WHERE a.job = j.id AND a.desired = 'run' AND a.status = 'running'),
    (SELECT count(*) FROM allocs a WHERE a.job = j.id AND a.desired = 'run' AND a.status = 'failed')
    FROM jobs j JOIN job_versions v ON v.job = j.id AND v.version = j.version";

/// Health of the allocations of a job version that are ordered to run.
pub(super) fn health(c: &Connection, job: &str, version: u64) -> Result<Health, StoreError> {
    let mut query = c.prepare_cached(
        "SELECT count(*), coalesce(sum(healthy IS 1 AND status = 'running'), 0), coalesce(sum(healthy IS 0 OR status = 'failed'), 0),
         coalesce(sum(status = 'complete'), 0), coalesce(sum(lost_at IS NOT NULL), 0)
         FROM allocs WHERE job = ?1 AND version = ?2 AND desired = 'run'",
    )?;
    let row = query.query_row((job, version), |row| {
        Ok(Health { wanted: row.get(0)?, healthy: row.get(1)?, unhealthy: row.get(2)?, complete: row.get(3)?, lost: row.get(4)? })
    });
    Ok(row?)
}

fn job_row(c: &Connection, row: &rusqlite::Row<'_>) -> Result<(JobSummary, Job, String), StoreError> {
    let job = fleet::specification(&row.get::<_, Vec<u8>>(4)?)?.job;
    let (id, version): (String, u64) = (row.get(0)?, row.get(1)?);
    let summary = JobSummary {
        health: health(c, &id, version)?,
        id,
        kind: job.kind,
        version,
        stopped: row.get(2)?,
        desired: row.get(6)?,
        running: row.get(7)?,
        failed: row.get(8)?,
        submitted_at: Timestamp(row.get(3)?),
    };
    Ok((summary, job, row.get(5)?))
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn submit(&self, submission: Submission, director: Arc<Director>, by: By) -> Result<Submitted, StoreError> {
        self.write(move |c| submit(c, &submission, &director, &by)).await
    }

    async fn stop_job(&self, id: String, submitter: Submitter, director: Arc<Director>, by: By) -> Result<bool, StoreError> {
        self.write(move |c| stop(c, &id, &submitter, &director, &by)).await
    }

    async fn fleet(&self) -> Result<Fleet, StoreError> {
        self.read(fleet::load).await
    }

    async fn jobs(&self) -> Result<Vec<JobSummary>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached(&format!("{JOB} ORDER BY j.id"))?;
            let mut rows = query.query([])?;
            let mut jobs = Vec::new();
            while let Some(row) = rows.next()? {
                jobs.push(job_row(c, row)?.0);
            }
            Ok(jobs)
        })
        .await
    }

    async fn job(&self, id: String) -> Result<Option<JobStatus>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached(&format!("{JOB} WHERE j.id = ?1"))?;
            let mut rows = query.query([&id])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let (summary, job, source) = job_row(c, row)?;
            let allocs = allocs_where(c, "a.job = ?1", [&id])?;
            Ok(Some(JobStatus { summary, job, source, allocs, sets: sets::of_job(c, &id)? }))
        })
        .await
    }

    async fn allocs(&self) -> Result<Vec<AllocSummary>, StoreError> {
        self.read(|c| allocs_where(c, "TRUE", [])).await
    }

    async fn alloc(&self, id: AllocId) -> Result<Option<AllocDetail>, StoreError> {
        self.read(move |c| {
            let Some(summary) = allocs_where(c, "a.id = ?1", [id.as_bytes()])?.pop() else { return Ok(None) };
            let (retry, override_lock) = c
                .prepare_cached("SELECT retry, override_lock FROM allocs WHERE id = ?1")?
                .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let (states, runs) = (history::states(c, id)?, history::runs(c, id)?);
            Ok(Some(AllocDetail { summary, retry, override_lock, states, runs }))
        })
        .await
    }

    async fn releases(&self, name: String, tag: String) -> Result<Vec<(ImageId, String)>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached(
                "SELECT r.image_id, i.architecture FROM releases r JOIN images i USING (image_id) WHERE r.name = ?1 AND r.tag = ?2 ORDER BY r.id DESC",
            )?;
            let rows = query.query_map((name, tag), |row| Ok((ImageId(Digest::new(row.get(0)?)), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn specifications(&self, digests: Vec<Digest>) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached("SELECT specification FROM job_versions WHERE digest = ?1 LIMIT 1")?;
            let mut found = Vec::new();
            for digest in digests {
                if let Some(envelope) = query.query_row([digest.as_bytes()], |row| row.get(0)).optional()? {
                    found.push((digest, envelope));
                }
            }
            Ok(found)
        })
        .await
    }
}
