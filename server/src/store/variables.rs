//! Variables and the server's node meta: what manifests carry beside allocations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use skerry_plan::Alloc;
use skerry_plan::values::{self, Items};
use skerry_wire::api::{Changed, Variable, VariableSummary};
use skerry_wire::manifest::Values;
use skerry_wire::{NodeId, Timestamp, cbor, limits};

use super::audit::{self, By};
use super::fleet::damaged;
use super::{SqliteStore, StoreError, fleet};
use crate::director::Director;

/// Why a variable is not put.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VariableRefusal {
    /// The server keeps as many as it may.
    #[error("there are {} variables already, as many as a server keeps", limits::VARIABLES)]
    TooMany,
    /// A node would have to carry too much.
    #[error("node {node} would be given more than {} bytes of variables: `{path}` would be left out", values::PER_NODE)]
    NoRoom {
        /// The node.
        node: NodeId,
        /// What would not fit.
        path: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for VariableRefusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Variables.
#[async_trait]
pub trait VariableStore {
    /// Puts all items of a path, or removes it with none; the nodes whose jobs may read it get a new manifest.
    async fn put_variable(&self, path: String, items: Items, director: Arc<Director>, by: By) -> Result<Changed, VariableRefusal>;

    /// One variable.
    async fn variable(&self, path: String) -> Result<Option<Variable>, StoreError>;

    /// The variables whose path starts like this, by path, without their values.
    async fn variables(&self, prefix: String) -> Result<Vec<VariableSummary>, StoreError>;
}

fn decode(path: &str, items: &[u8]) -> Result<Items, StoreError> {
    cbor::decode(items, 2 * limits::VARIABLE).map_err(|e| damaged(&format!("variable {path}"), e))
}

fn get(c: &Connection, path: &str) -> Result<Option<Variable>, StoreError> {
    let row = c
        .prepare_cached("SELECT items, updated_at FROM variables WHERE path = ?1")?
        .query_row([path], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))
        .optional()?;
    row.map(|(items, at)| Ok(Variable { path: path.to_owned(), items: decode(path, &items)?, updated_at: Timestamp(at) })).transpose()
}

/// Variables that any of these jobs may read.
fn of_jobs(c: &Connection, jobs: &BTreeSet<&str>) -> Result<BTreeMap<String, Items>, StoreError> {
    let mut found = BTreeMap::new();
    let mut exact = c.prepare_cached("SELECT path, items FROM variables WHERE path = ?1")?;
    // Everything below `P/` lies between `P/` and `P0`, the character after the slash.
    let mut below = c.prepare_cached("SELECT path, items FROM variables WHERE path > ?1 || '/' AND path < ?1 || '0'")?;
    let mut add = |rows: &mut rusqlite::Rows<'_>| -> Result<(), StoreError> {
        while let Some(row) = rows.next()? {
            let path: String = row.get(0)?;
            let items = decode(&path, &row.get::<_, Vec<u8>>(1)?)?;
            found.insert(path, items);
        }
        Ok(())
    };
    add(&mut exact.query([values::JOBS])?)?;
    for job in jobs {
        let path = format!("{}/{job}", values::JOBS);
        add(&mut exact.query([&path])?)?;
        add(&mut below.query([&path])?)?;
    }
    Ok(found)
}

/// What the manifest of a node carries, and the paths that found no room in it.
pub(super) fn values(c: &Connection, node: NodeId, allocs: &[&Alloc]) -> Result<(Values, Vec<String>), StoreError> {
    let groups = values::groups_of(node, allocs.iter().copied());
    let jobs = groups.iter().map(|(job, _)| *job).collect();
    let (variables, left_out) = values::given(&groups, &of_jobs(c, &jobs)?);
    Ok((Values { variables, meta: meta(c, node)? }, left_out))
}

/// The meta that the server sets for a node.
pub(super) fn meta(c: &Connection, node: NodeId) -> Result<BTreeMap<String, String>, StoreError> {
    let mut query = c.prepare_cached("SELECT key, value FROM node_meta WHERE node = ?1")?;
    let rows = query.query_map([node.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn put(c: &Connection, path: &str, items: &Items, director: &Director, by: &By) -> Result<Changed, VariableRefusal> {
    let before = get(c, path)?;
    if before.as_ref().map_or(items.is_empty(), |b| b.items == *items) {
        return Ok(Changed::default());
    }
    if items.is_empty() {
        c.prepare_cached("DELETE FROM variables WHERE path = ?1")?.execute([path])?;
        audit::append(c, by, &format!("purged variable {path}"))?;
    } else {
        let count: usize = c.query_row("SELECT count(*) FROM variables", [], |row| row.get(0))?;
        if before.is_none() && count >= limits::VARIABLES {
            return Err(VariableRefusal::TooMany);
        }
        c.prepare_cached(
            "INSERT INTO variables (path, items, updated_at) VALUES (?1, ?2, ?3) ON CONFLICT (path) DO UPDATE SET items = ?2, updated_at = ?3",
        )?
        .execute((path, cbor::encode(items), by.at.0))?;
        // Keys, never values: the log is read by more people.
        let keys: Vec<_> = items.keys().take(20).map(String::as_str).collect();
        let more = if items.len() > keys.len() { ", ..." } else { "" };
        audit::append(c, by, &format!("put variable {path} with {}{more}", keys.join(", ")))?;
    }
    let fleet = fleet::load(c)?;
    let mut concerned = BTreeSet::new();
    for alloc in fleet.allocs.values().filter(|a| a.order == skerry_plan::Order::Run && values::readable(path, &a.job, &a.group)) {
        concerned.insert(alloc.node);
    }
    for node in &concerned {
        let own: Vec<_> = fleet.allocs.values().filter(|a| a.node == *node).collect();
        if let Some(path) = values(c, *node, &own)?.1.pop() {
            return Err(VariableRefusal::NoRoom { node: *node, path });
        }
    }
    fleet::write_manifests(c, director, &fleet.allocs, &concerned, by.at)?;
    Ok(Changed { changed: true, nodes: u32::try_from(concerned.len()).unwrap_or(u32::MAX) })
}

#[async_trait]
impl VariableStore for SqliteStore {
    async fn put_variable(&self, path: String, items: Items, director: Arc<Director>, by: By) -> Result<Changed, VariableRefusal> {
        self.write(move |c| put(c, &path, &items, &director, &by)).await
    }

    async fn variable(&self, path: String) -> Result<Option<Variable>, StoreError> {
        self.read(move |c| get(c, &path)).await
    }

    async fn variables(&self, prefix: String) -> Result<Vec<VariableSummary>, StoreError> {
        self.read(move |c| {
            let mut query =
                c.prepare_cached("SELECT path, items, updated_at FROM variables WHERE substr(path, 1, length(?1)) = ?1 ORDER BY path")?;
            let mut rows = query.query([&prefix])?;
            let mut list = Vec::new();
            while let Some(row) = rows.next()? {
                let path: String = row.get(0)?;
                let items = decode(&path, &row.get::<_, Vec<u8>>(1)?)?;
                let size = values::size(&path, &items) as u64;
                list.push(VariableSummary { path, size, updated_at: Timestamp(row.get(2)?), keys: items.into_keys().collect() });
            }
            Ok(list)
        })
        .await
    }
}
