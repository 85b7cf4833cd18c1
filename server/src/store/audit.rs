//! The audit log: every change that an operator orders, written in the same transaction as the change.

use async_trait::async_trait;
use rusqlite::Connection;
use skerry_wire::Timestamp;

use super::{SqliteStore, StoreError};

/// Who orders a change, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// The operator token's name, or the part of the server that acts by itself.
    pub who: String,
    /// The server's clock.
    pub at: Timestamp,
}

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who and when.
    pub by: By,
    /// What was changed.
    pub what: String,
}

/// Reading the audit log; writing it is a part of every change.
#[async_trait]
pub trait AuditStore {
    /// The newest `limit` entries, newest first.
    async fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
}

/// Writes an entry as a part of the transaction of the change.
pub(super) fn append(connection: &Connection, by: &By, what: &str) -> Result<(), StoreError> {
    connection.prepare_cached("INSERT INTO audit (at, who, what) VALUES (?1, ?2, ?3)")?.execute((by.at.0, &by.who, what))?;
    Ok(())
}

#[async_trait]
impl AuditStore for SqliteStore {
    async fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(move |c| {
            let mut rows = c.prepare_cached("SELECT who, at, what FROM audit ORDER BY id DESC LIMIT ?1")?;
            let rows = rows
                .query_map([limit], |row| Ok(AuditEntry { by: By { who: row.get(0)?, at: Timestamp(row.get(1)?) }, what: row.get(2)? }))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[tokio::test]
    async fn entries_can_be_added_and_nothing_else() {
        let (store, _folder) = testing::store();
        let by = By { who: "ada".to_owned(), at: Timestamp(5) };
        store.write(move |c| append(c, &by, "made a token")).await.unwrap();
        for sql in ["UPDATE audit SET who = 'eve'", "DELETE FROM audit"] {
            let result: Result<(), StoreError> = store.write(move |c| Ok(c.execute_batch(sql)?)).await;
            assert!(result.is_err(), "{sql}");
        }
        let entries = store.audit(10).await.unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].by.who.as_str(), entries[0].what.as_str()), ("ada", "made a token"));
    }
}
