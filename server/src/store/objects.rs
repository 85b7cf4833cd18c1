//! Which objects the folder should hold.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use skerry_wire::{Digest, Timestamp};

use super::{SqliteStore, StoreError};

/// No layer, index or bundle names the object `o`.
const UNNAMED: &str = "NOT EXISTS (SELECT 1 FROM layers WHERE object = o.digest)
    AND NOT EXISTS (SELECT 1 FROM layer_indexes WHERE object = o.digest)
    AND NOT EXISTS (SELECT 1 FROM builds WHERE object = o.digest)";

/// Rows of objects. Other topics add them together with the row that names them.
#[async_trait]
pub trait ObjectStore {
    /// Bytes of an object; none when it is not known.
    async fn object(&self, digest: Digest) -> Result<Option<u64>, StoreError>;

    /// All objects with their sizes, sorted.
    async fn objects(&self) -> Result<Vec<(Digest, u64)>, StoreError>;

    /// Takes away the rows of objects that nothing names and that are older than `before`; gives what it took, for their files to be
    /// deleted.
    async fn forget_unnamed_objects(&self, before: Timestamp) -> Result<Vec<Digest>, StoreError>;
}

/// Makes an object known as a part of the transaction that names it. Its file must be in place.
pub(super) fn add(connection: &Connection, digest: &Digest, size: u64, at: Timestamp) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO objects (digest, size, created_at) VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO NOTHING")?
        .execute((digest.as_bytes(), size, at.0))?;
    Ok(())
}

#[async_trait]
impl ObjectStore for SqliteStore {
    async fn object(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached("SELECT size FROM objects WHERE digest = ?1")?;
            Ok(query.query_row([digest.as_bytes()], |row| row.get(0)).optional()?)
        })
        .await
    }

    async fn objects(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached("SELECT digest, size FROM objects ORDER BY digest")?;
            let rows = query.query_map([], |row| Ok((Digest::new(row.get(0)?), row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn forget_unnamed_objects(&self, before: Timestamp) -> Result<Vec<Digest>, StoreError> {
        self.write(move |c| {
            let mut query = c.prepare(&format!("DELETE FROM objects AS o WHERE created_at < ?1 AND {UNNAMED} RETURNING digest"))?;
            let rows = query.query_map([before.0], |row| Ok(Digest::new(row.get(0)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
