//! Which allocations are watched for silence, and the verdicts on them.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use skerry_plan::presence::{Verdicts, Watched};
use skerry_wire::{AllocId, Millis, NodeId, Timestamp};

use super::{SqliteStore, StoreError, fleet};
use crate::director::Director;

/// What is planned anew by the clock.
#[async_trait]
pub trait PresenceStore {
    /// The allocations whose groups say when they are lost.
    async fn watched(&self) -> Result<Vec<Watched>, StoreError>;

    /// Does the deadline of a drain lie after the first and not after the second of these times?
    async fn drain_due(&self, after: Timestamp, now: Timestamp) -> Result<bool, StoreError>;

    /// Writes the verdicts and plans everything anew. How many allocations started and stopped?
    async fn replan(&self, verdicts: Verdicts, director: Arc<Director>, now: Timestamp) -> Result<(usize, usize), StoreError>;
}

fn watched(c: &Connection) -> Result<Vec<Watched>, StoreError> {
    // What ran to its end cannot be lost.
    let mut query = c.prepare_cached(
        "SELECT id, node, lost_after, lost_at IS NOT NULL FROM allocs
         WHERE lost_after IS NOT NULL AND desired = 'run' AND status <> 'complete' ORDER BY node, id",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Watched { alloc: AllocId::new(row.get(0)?), node: NodeId::new(row.get(1)?), lost_after: Millis(row.get(2)?), lost: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[async_trait]
impl PresenceStore for SqliteStore {
    async fn watched(&self) -> Result<Vec<Watched>, StoreError> {
        self.read(watched).await
    }

    async fn drain_due(&self, after: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        self.read(move |c| {
            let sql = "SELECT EXISTS (SELECT 1 FROM nodes WHERE drained_at IS NOT NULL AND drain_deadline > ?1 AND drain_deadline <= ?2)";
            Ok(c.prepare_cached(sql)?.query_row((after.0, now.0), |row| row.get(0))?)
        })
        .await
    }

    async fn replan(&self, verdicts: Verdicts, director: Arc<Director>, now: Timestamp) -> Result<(usize, usize), StoreError> {
        self.write(move |c| {
            for alloc in &verdicts.lost {
                c.prepare_cached("UPDATE allocs SET lost_at = ?2 WHERE id = ?1")?.execute((alloc.as_bytes(), now.0))?;
            }
            for alloc in &verdicts.back {
                c.prepare_cached("UPDATE allocs SET lost_at = NULL WHERE id = ?1")?.execute([alloc.as_bytes()])?;
            }
            let plan = fleet::replan(c, &director, now)?.plan;
            Ok((plan.starts.len(), plan.stops.len()))
        })
        .await
    }
}
