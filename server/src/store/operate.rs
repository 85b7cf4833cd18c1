//! Orders about nodes and allocations: eligibility, drain, meta, trying again, overriding an update lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use skerry_wire::api::Changed;
use skerry_wire::{AllocId, NodeId, Timestamp, limits};

use super::audit::{self, By};
use super::{SqliteStore, StoreError, fleet, variables};
use crate::director::Director;

/// An order about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOrder {
    /// May new allocations come?
    Eligible(bool),
    /// Take the work off it.
    Drain {
        /// When what has not moved is stopped all the same.
        deadline: Option<Timestamp>,
        /// Leave system and sysbatch jobs.
        ignore_system: bool,
    },
    /// Stop taking work off it; new allocations may come again.
    Undrain,
    /// Change the meta that the server sets.
    Meta {
        /// Keys to set.
        set: BTreeMap<String, String>,
        /// Keys to take away.
        unset: Vec<String>,
    },
}

/// An order about an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocOrdered {
    /// Try again what failed.
    Retry,
    /// Switch without waiting for the update lock.
    OverrideLock,
}

/// Why an order is not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OrderRefusal {
    /// There is no such node or allocation.
    #[error("there is none of this id")]
    Unknown,
    /// The allocation is stopped, or another one has its place.
    #[error("it is not ordered to run any more")]
    NotWanted,
    /// The allocation ran to its end.
    #[error("it ran to its end")]
    Complete,
    /// It runs already.
    #[error("it runs: there is no switch to wait for")]
    Running,
    /// Too many meta keys.
    #[error("the server sets at most {} meta keys for a node", limits::META_KEYS)]
    TooManyKeys,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for OrderRefusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Orders about what runs.
#[async_trait]
pub trait OperateStore {
    /// Carries out an order about a node for somebody (`Ada <ada@example.org>`), and plans anew.
    async fn order_node(
        &self,
        node: NodeId,
        order: NodeOrder,
        whose: String,
        director: Arc<Director>,
        by: By,
    ) -> Result<Changed, OrderRefusal>;

    /// Carries out an order about an allocation; its node gets a new manifest.
    async fn order_alloc(
        &self,
        alloc: AllocId,
        order: AllocOrdered,
        whose: String,
        director: Arc<Director>,
        by: By,
    ) -> Result<(), OrderRefusal>;
}

fn order_node(c: &Connection, node: NodeId, order: &NodeOrder, whose: &str, director: &Director, by: &By) -> Result<Changed, OrderRefusal> {
    let name: Option<String> =
        c.prepare_cached("SELECT name FROM nodes WHERE id = ?1")?.query_row([node.as_bytes()], |row| row.get(0)).optional()?;
    let name = name.ok_or(OrderRefusal::Unknown)?;
    let changed = match order {
        NodeOrder::Eligible(eligible) => {
            c.prepare_cached("UPDATE nodes SET eligible = ?2 WHERE id = ?1 AND eligible <> ?2")?.execute((node.as_bytes(), eligible))?
        }
        NodeOrder::Drain { deadline, ignore_system } => c
            .prepare_cached(
                "UPDATE nodes SET eligible = 0, drained_at = coalesce(drained_at, ?2), drain_deadline = ?3, drain_ignores_system = ?4
                 WHERE id = ?1",
            )?
            .execute((node.as_bytes(), by.at.0, deadline.map(|d| d.0), ignore_system))?,
        NodeOrder::Undrain => c
            .prepare_cached(
                "UPDATE nodes SET eligible = 1, drained_at = NULL, drain_deadline = NULL, drain_ignores_system = 0
                 WHERE id = ?1 AND drained_at IS NOT NULL",
            )?
            .execute([node.as_bytes()])?,
        NodeOrder::Meta { set, unset } => {
            let before = variables::meta(c, node)?;
            for (key, value) in set {
                c.prepare_cached(
                    "INSERT INTO node_meta (node, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (node, key) DO UPDATE SET value = ?3",
                )?
                .execute((node.as_bytes(), key, value))?;
            }
            for key in unset {
                c.prepare_cached("DELETE FROM node_meta WHERE node = ?1 AND key = ?2")?.execute((node.as_bytes(), key))?;
            }
            let after = variables::meta(c, node)?;
            if after.len() > limits::META_KEYS {
                return Err(OrderRefusal::TooManyKeys);
            }
            usize::from(after != before)
        }
    };
    if changed == 0 {
        return Ok(Changed::default());
    }
    let what = match order {
        NodeOrder::Eligible(true) => "made eligible".to_owned(),
        NodeOrder::Eligible(false) => "made ineligible".to_owned(),
        NodeOrder::Drain { deadline: None, .. } => "drained without a deadline".to_owned(),
        NodeOrder::Drain { deadline: Some(at), .. } => format!("drained with a deadline in {} s", (at.0 - by.at.0) / 1000),
        NodeOrder::Undrain => "drained no more".to_owned(),
        NodeOrder::Meta { set, unset } => {
            let keys: Vec<_> = set.keys().map(String::as_str).chain(unset.iter().map(String::as_str)).take(20).collect();
            format!("given other meta ({})", keys.join(", "))
        }
    };
    audit::append(c, by, &format!("node {name} ({node}) is {what}, for {whose}"))?;
    let fleet::Replanned { before, plan } = fleet::replan(c, director, by.at)?;
    let mut touched = plan.touched(&before.allocs);
    // Its meta goes with its manifest, whether anything moved or not.
    if matches!(order, NodeOrder::Meta { .. }) && touched.insert(node) {
        let after = fleet::load(c)?;
        fleet::write_manifests(c, director, &after.allocs, &BTreeSet::from([node]), by.at)?;
    }
    Ok(Changed { changed: true, nodes: u32::try_from(touched.len()).unwrap_or(u32::MAX) })
}

fn order_alloc(c: &Connection, alloc: AllocId, order: AllocOrdered, whose: &str, director: &Director, by: &By) -> Result<(), OrderRefusal> {
    let known = c
        .prepare_cached("SELECT node, desired, status, job FROM allocs WHERE id = ?1")?
        .query_row([alloc.as_bytes()], |row| {
            Ok((NodeId::new(row.get(0)?), row.get::<_, String>(1)? == "run", row.get::<_, String>(2)?, row.get::<_, String>(3)?))
        })
        .optional()?;
    let (node, wanted, status, job) = known.ok_or(OrderRefusal::Unknown)?;
    if !wanted {
        return Err(OrderRefusal::NotWanted);
    }
    let (column, what) = match order {
        AllocOrdered::Retry if status == "complete" => return Err(OrderRefusal::Complete),
        AllocOrdered::Retry => ("retry = retry + 1", "is to be tried again"),
        AllocOrdered::OverrideLock if matches!(status.as_str(), "running" | "complete") => return Err(OrderRefusal::Running),
        AllocOrdered::OverrideLock => ("override_lock = 1", "switches in spite of an update lock"),
    };
    c.prepare_cached(&format!("UPDATE allocs SET {column} WHERE id = ?1"))?.execute([alloc.as_bytes()])?;
    audit::append(c, by, &format!("allocation {alloc} of job {job} {what}, for {whose}"))?;
    let fleet = fleet::load(c)?;
    fleet::write_manifests(c, director, &fleet.allocs, &BTreeSet::from([node]), by.at)?;
    Ok(())
}

#[async_trait]
impl OperateStore for SqliteStore {
    async fn order_node(
        &self,
        node: NodeId,
        order: NodeOrder,
        whose: String,
        director: Arc<Director>,
        by: By,
    ) -> Result<Changed, OrderRefusal> {
        self.write(move |c| order_node(c, node, &order, &whose, &director, &by)).await
    }

    async fn order_alloc(
        &self,
        alloc: AllocId,
        order: AllocOrdered,
        whose: String,
        director: Arc<Director>,
        by: By,
    ) -> Result<(), OrderRefusal> {
        self.write(move |c| order_alloc(c, alloc, order, &whose, &director, &by)).await
    }
}
