//! Allocations that nodes keep and that this server does not know: listed, adopted, or buried.
//!
//! A server that was put back to an older backup stops nothing that it forgot, for absence is no order. Its nodes say what they keep beyond
//! their manifests and hand back the signed specifications, so that an operator can adopt a job's version with all of its allocations, or
//! have a single one stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row};
use skerry_plan::alloc_id;
use skerry_wire::api::{Submitter, UnknownSummary};
use skerry_wire::manifest::Tombstone;
use skerry_wire::node::UnknownAlloc;
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, Digest, ImageId, NodeId, Timestamp, limits};

use super::audit::{self, By};
use super::nodes::{short, status};
use super::{SqliteStore, StoreError, fleet, sets};
use crate::director::Director;

/// Allocations in a list at most.
const LISTED: u32 = 10_000;
/// Specifications that are asked of a node at once.
const ASK: u32 = 4;
/// The longest name of a job or group that is believed, bytes.
const NAME: usize = 256;

/// Why an unknown allocation is not adopted or buried.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdoptRefusal {
    /// No node keeps such an allocation, or the server knows it.
    #[error("there is none of this id")]
    Unknown,
    /// The specification has not come yet.
    #[error("its node has not handed over its specification yet")]
    NoSpecification,
    /// The server has a newer version of the job.
    #[error("version {held} of job `{job}` is in force here, and the allocation has version {version}")]
    Older {
        /// The job.
        job: String,
        /// Version of the allocation.
        version: u64,
        /// Version in force.
        held: u64,
    },
    /// The server lacks an image of the job.
    #[error("image `{reference}` ({}) of job `{job}` is not here", image.digest().short())]
    NoImage {
        /// The job.
        job: String,
        /// As the job writes it.
        reference: String,
        /// The image.
        image: ImageId,
    },
    /// What the node says of it does not go together.
    #[error("its node says what cannot be: {0}")]
    Contradiction(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AdoptRefusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Allocations that this server does not know.
#[async_trait]
pub trait UnknownStore {
    /// All of them, by job and node.
    async fn unknown_allocs(&self) -> Result<Vec<UnknownSummary>, StoreError>;

    /// Specifications that a node is to hand back.
    async fn wanted_specifications(&self, node: NodeId) -> Result<Vec<Digest>, StoreError>;

    /// Keeps specifications that a node handed back, whose signatures were checked; those that no unknown allocation names are left out.
    async fn keep_found(&self, found: Vec<(Digest, Vec<u8>)>) -> Result<(), StoreError>;

    /// Takes up the job version of an unknown allocation, with all unknown allocations of it. Gives these.
    async fn adopt(&self, alloc: AllocId, submitter: Submitter, director: Arc<Director>, by: By) -> Result<Vec<AllocId>, AdoptRefusal>;

    /// Orders a node to stop an unknown allocation.
    async fn bury(&self, alloc: AllocId, submitter: Submitter, director: Arc<Director>, by: By) -> Result<(), AdoptRefusal>;
}

/// Keeps what a node says that it keeps; what it does not name any more is over.
pub(super) fn keep_told(c: &Connection, node: NodeId, told: &[UnknownAlloc], now: Timestamp) -> Result<(), StoreError> {
    let plain = |name: &str| !name.is_empty() && name.len() <= NAME && !name.chars().any(char::is_control);
    // Ids are derived: one that is not is of no allocation of this node that a server ever made.
    let own = |a: &UnknownAlloc| a.version < limits::COUNTER && alloc_id(&a.job, a.version, &a.group, a.index, &node) == a.id;
    let told: Vec<_> = told.iter().filter(|a| plain(&a.job) && plain(&a.group) && own(a)).take(limits::ALLOCS_PER_NODE).collect();
    let ids: BTreeSet<AllocId> = told.iter().map(|a| a.id).collect();
    let before: BTreeSet<AllocId> = c
        .prepare_cached("SELECT alloc FROM unknown_allocs WHERE node = ?1")?
        .query_map([node.as_bytes()], |row| row.get(0).map(AllocId::new))?
        .collect::<Result<_, _>>()?;
    for gone in before.difference(&ids) {
        c.prepare_cached("DELETE FROM unknown_allocs WHERE node = ?1 AND alloc = ?2")?.execute((node.as_bytes(), gone.as_bytes()))?;
    }
    for a in told {
        if !before.contains(&a.id) {
            tracing::warn!(%node, alloc = %a.id, job = a.job, version = a.version, "the node keeps an allocation that its manifest does not name");
        }
        c.prepare_cached(
            "INSERT INTO unknown_allocs (node, alloc, job, grp, idx, version, specification, status, told_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (node, alloc) DO UPDATE SET job = ?3, grp = ?4, idx = ?5, version = ?6, specification = ?7, status = ?8, told_at = ?9",
        )?
        .execute(rusqlite::params![
            node.as_bytes(),
            a.id.as_bytes(),
            a.job,
            a.group,
            a.index,
            a.version,
            a.specification.as_bytes(),
            a.status.to_string(),
            now.0
        ])?;
    }
    if before != ids {
        forget_found(c)?;
    }
    Ok(())
}

/// Specifications that no unknown allocation names any more.
fn forget_found(c: &Connection) -> Result<(), StoreError> {
    c.prepare_cached("DELETE FROM found_specifications WHERE digest NOT IN (SELECT specification FROM unknown_allocs)")?.execute([])?;
    Ok(())
}

/// The orders to stop that were given for a node's unknown allocations.
pub(super) fn tombstones(c: &Connection, node: NodeId) -> Result<Vec<Tombstone>, StoreError> {
    let mut query =
        c.prepare_cached("SELECT alloc, job, grp, idx, version, buried FROM unknown_allocs WHERE node = ?1 AND buried IS NOT NULL")?;
    let rows = query.query_map([node.as_bytes()], |row| {
        Ok(Tombstone {
            id: AllocId::new(row.get(0)?),
            job: row.get(1)?,
            group: row.get(2)?,
            index: row.get(3)?,
            version: row.get(4)?,
            reason: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Not known, and not on its way: what this server wants to run there, or to stop, its node hears of with its next poll. What it takes for
/// stopped and over runs all the same.
const UNKNOWN: &str = "FROM unknown_allocs u JOIN nodes n ON n.id = u.node
    WHERE NOT EXISTS (SELECT 1 FROM allocs a LEFT JOIN tombstones t ON t.alloc = a.id AND t.done_at IS NULL
                      WHERE a.id = u.alloc AND a.node = u.node AND (a.desired = 'run' OR t.alloc IS NOT NULL))";

fn summary(row: &Row<'_>) -> Result<UnknownSummary, StoreError> {
    Ok(UnknownSummary {
        id: AllocId::new(row.get(0)?),
        job: row.get(1)?,
        version: row.get(2)?,
        group: row.get(3)?,
        index: row.get(4)?,
        node: NodeId::new(row.get(5)?),
        node_name: row.get(6)?,
        status: status(&row.get::<_, String>(7)?)?,
        told_at: Timestamp(row.get(8)?),
        stopping: row.get(9)?,
        specification: Digest::new(row.get(10)?),
        handed_over: row.get(11)?,
    })
}

fn listed(c: &Connection, condition: &str, params: impl rusqlite::Params) -> Result<Vec<UnknownSummary>, StoreError> {
    let mut query = c.prepare_cached(&format!(
        "SELECT u.alloc, u.job, u.version, u.grp, u.idx, u.node, n.name, u.status, u.told_at, u.buried, u.specification,
         EXISTS (SELECT 1 FROM found_specifications f WHERE f.digest = u.specification)
         OR EXISTS (SELECT 1 FROM job_versions v WHERE v.digest = u.specification)
         {UNKNOWN} AND {condition} ORDER BY u.job, u.version, u.grp, u.idx, n.name, u.alloc LIMIT {LISTED}"
    ))?;
    let mut rows = query.query(params)?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(summary(row)?);
    }
    Ok(list)
}

fn adopt(c: &Connection, alloc: AllocId, whose: &Submitter, director: &Director, by: &By) -> Result<Vec<AllocId>, AdoptRefusal> {
    let one = listed(c, "u.alloc = ?1", [alloc.as_bytes()])?.pop().ok_or(AdoptRefusal::Unknown)?;
    let digest = one.specification;
    let find = |sql: &str| c.prepare_cached(sql)?.query_row([digest.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional();
    let envelope = match find("SELECT specification FROM job_versions WHERE digest = ?1 LIMIT 1")? {
        Some(envelope) => envelope,
        None => find("SELECT envelope FROM found_specifications WHERE digest = ?1")?.ok_or(AdoptRefusal::NoSpecification)?,
    };
    let job = fleet::specification(&envelope)?.job;
    if job.id != one.job {
        return Err(AdoptRefusal::Contradiction(format!("its specification is of job `{}`, not of `{}`", job.id, one.job)));
    }
    let known = fleet::images(c)?;
    for config in job.images() {
        let image = config.image_id.ok_or_else(|| AdoptRefusal::Contradiction(format!("image `{}` has no id", config.image)))?;
        if !known.contains_key(&image) {
            return Err(AdoptRefusal::NoImage { job: job.id.clone(), reference: config.image.clone(), image });
        }
    }
    take_version(c, (&job.id, one.version), (&digest, &envelope), whose, by)?;
    let mut adopted = BTreeMap::new();
    // But for those that are ordered to stop; the one that was named is taken back from that.
    let all = "u.job = ?1 AND u.version = ?2 AND u.specification = ?3 AND (u.buried IS NULL OR u.alloc = ?4)";
    for a in listed(c, all, (&job.id, one.version, digest.as_bytes(), alloc.as_bytes()))? {
        let Some(group) = job.group(&a.group) else { continue };
        let lost_after = group.disconnect.lost_after.map(|m| i64::try_from(m.0).unwrap_or(i64::MAX));
        let since = (a.status == AllocStatus::Running).then_some(a.told_at.0);
        c.prepare_cached(
            "INSERT INTO allocs (id, job, version, grp, idx, node, desired, status, created_at, updated_at, placed_at, lost_after, running_since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'run', ?7, ?8, ?8, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET desired = 'run', status = ?7, updated_at = ?8, placed_at = ?8, lost_after = ?9, running_since = ?10",
        )?
        .execute(rusqlite::params![
            a.id.as_bytes(),
            a.job,
            a.version,
            a.group,
            a.index,
            a.node.as_bytes(),
            a.status.to_string(),
            by.at.0,
            lost_after,
            since
        ])?;
        c.prepare_cached("DELETE FROM tombstones WHERE alloc = ?1")?.execute([a.id.as_bytes()])?;
        // An older one that the server had for the place has never had it: what is adopted runs there.
        c.prepare_cached(
            "UPDATE allocs SET desired = 'stop', updated_at = ?6 WHERE job = ?1 AND grp = ?2 AND idx = ?3 AND node = ?4 AND id <> ?5 AND desired = 'run'",
        )?
        .execute((&a.job, &a.group, a.index, a.node.as_bytes(), a.id.as_bytes(), by.at.0))?;
        adopted.insert(a.id, a.node);
    }
    if !adopted.contains_key(&alloc) {
        return Err(AdoptRefusal::Contradiction(format!("its specification has no group `{}`", one.group)));
    }
    for id in adopted.keys() {
        c.prepare_cached("DELETE FROM unknown_allocs WHERE alloc = ?1")?.execute([id.as_bytes()])?;
    }
    forget_found(c)?;
    let text =
        format!("adopted job {} version {} with {} allocations for {} <{}>", job.id, one.version, adopted.len(), whose.name, whose.email);
    audit::append(c, by, &text)?;
    fleet::replan(c, director, by.at)?;
    let after = fleet::load(c)?;
    fleet::write_manifests(c, director, &after.allocs, &adopted.values().copied().collect(), by.at)?;
    sets::extend(c, &after, &job.id, by.at)?;
    Ok(adopted.into_keys().collect())
}

/// Makes the version the one in force, unless a newer one is.
fn take_version(
    c: &Connection,
    (job, version): (&str, u64),
    (digest, envelope): (&Digest, &[u8]),
    whose: &Submitter,
    by: &By,
) -> Result<(), AdoptRefusal> {
    let held = c.prepare_cached("SELECT version FROM jobs WHERE id = ?1")?.query_row([job], |row| row.get::<_, u64>(0)).optional()?;
    if let Some(held) = held.filter(|held| *held > version) {
        return Err(AdoptRefusal::Older { job: job.to_owned(), version, held });
    }
    let other = c
        .prepare_cached("SELECT digest FROM job_versions WHERE job = ?1 AND version = ?2")?
        .query_row((job, version), |row| row.get::<_, [u8; 32]>(0).map(Digest::new))
        .optional()?;
    if other.is_some_and(|other| other != *digest) {
        return Err(AdoptRefusal::Older { job: job.to_owned(), version, held: version });
    }
    c.prepare_cached(
        "INSERT INTO jobs (id, version) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET version = ?2, stopped_at = NULL, stopped_by = NULL",
    )?
    .execute((job, version))?;
    if other.is_none() {
        c.prepare_cached(
            "INSERT INTO job_versions (job, version, specification, digest, source, name, email, submitted_at) VALUES (?1, ?2, ?3, ?4, '', ?5, ?6, ?7)",
        )?
        .execute((job, version, envelope, digest.as_bytes(), &whose.name, &whose.email, by.at.0))?;
        sets::open(c, (job, version), digest, whose, by.at)?;
    }
    Ok(())
}

fn bury(c: &Connection, alloc: AllocId, whose: &Submitter, director: &Director, by: &By) -> Result<(), AdoptRefusal> {
    let one = listed(c, "u.alloc = ?1", [alloc.as_bytes()])?.pop().ok_or(AdoptRefusal::Unknown)?;
    let reason = format!("stopped by {}, not known to the server", whose.email);
    c.prepare_cached("UPDATE unknown_allocs SET buried = ?3 WHERE node = ?1 AND alloc = ?2")?.execute((
        one.node.as_bytes(),
        alloc.as_bytes(),
        short(&reason),
    ))?;
    audit::append(c, by, &format!("ordered unknown allocation {alloc} of job {} to stop, for {} <{}>", one.job, whose.name, whose.email))?;
    fleet::write_manifests(c, director, &fleet::of_node(c, one.node)?, &BTreeSet::from([one.node]), by.at).map_err(AdoptRefusal::from)
}

#[async_trait]
impl UnknownStore for SqliteStore {
    async fn unknown_allocs(&self) -> Result<Vec<UnknownSummary>, StoreError> {
        self.read(|c| listed(c, "TRUE", [])).await
    }

    async fn wanted_specifications(&self, node: NodeId) -> Result<Vec<Digest>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached(&format!(
                "SELECT DISTINCT u.specification {UNKNOWN} AND u.node = ?1 AND u.buried IS NULL
                 AND NOT EXISTS (SELECT 1 FROM found_specifications f WHERE f.digest = u.specification)
                 AND NOT EXISTS (SELECT 1 FROM job_versions v WHERE v.digest = u.specification) ORDER BY 1 LIMIT {ASK}"
            ))?;
            let rows = query.query_map([node.as_bytes()], |row| row.get(0).map(Digest::new))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn keep_found(&self, found: Vec<(Digest, Vec<u8>)>) -> Result<(), StoreError> {
        self.write(move |c| {
            for (digest, envelope) in &found {
                c.prepare_cached(
                    "INSERT INTO found_specifications (digest, envelope) SELECT ?1, ?2
                     WHERE EXISTS (SELECT 1 FROM unknown_allocs WHERE specification = ?1) ON CONFLICT (digest) DO NOTHING",
                )?
                .execute((digest.as_bytes(), envelope))?;
            }
            Ok(())
        })
        .await
    }

    async fn adopt(&self, alloc: AllocId, submitter: Submitter, director: Arc<Director>, by: By) -> Result<Vec<AllocId>, AdoptRefusal> {
        self.write(move |c| adopt(c, alloc, &submitter, &director, &by)).await
    }

    async fn bury(&self, alloc: AllocId, submitter: Submitter, director: Arc<Director>, by: By) -> Result<(), AdoptRefusal> {
        self.write(move |c| bury(c, alloc, &submitter, &director, &by)).await
    }
}
