//! How much there is of everything.

use async_trait::async_trait;

use super::{SqliteStore, StoreError};

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Enrolled nodes.
    pub nodes: u64,
    /// Jobs that are not stopped.
    pub jobs: u64,
    /// Bundles waiting or in the making.
    pub builds_pending: u64,
}

/// Counting.
#[async_trait]
pub trait CountStore {
    /// Counts everything.
    async fn counts(&self) -> Result<Counts, StoreError>;
}

#[async_trait]
impl CountStore for SqliteStore {
    async fn counts(&self) -> Result<Counts, StoreError> {
        self.read(|c| {
            let count = |sql| c.prepare_cached(sql)?.query_row([], |row| row.get::<_, u64>(0));
            Ok(Counts {
                nodes: count("SELECT count(*) FROM nodes")?,
                jobs: count("SELECT count(*) FROM jobs WHERE stopped_at IS NULL")?,
                builds_pending: count("SELECT count(*) FROM builds WHERE state IN ('queued', 'building')")?,
            })
        })
        .await
    }
}
