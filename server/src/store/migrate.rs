//! Brings a database to the newest schema: the files under `migrations/`, in order, counted by `PRAGMA user_version`.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// All schema changes, oldest first. A file that was released is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/001.sql"),
    include_str!("migrations/002.sql"),
    include_str!("migrations/003.sql"),
    include_str!("migrations/004.sql"),
    include_str!("migrations/005.sql"),
];

/// Runs what is missing, in one transaction: after a crash the file has the old schema or the new one.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    let done = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len()).ok_or(StoreError::TooNew { found, known })?;
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_a_newer_server_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
        assert!(matches!(migrate(&mut connection), Err(StoreError::TooNew { found: 999, .. })));
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        let tables = |c: &Connection| c.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get::<_, i64>(0)).unwrap();
        let before = tables(&connection);
        migrate(&mut connection).unwrap();
        assert_eq!(tables(&connection), before);
    }

    #[test]
    fn a_broken_migration_leaves_the_old_schema() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE audit (x)").unwrap();
        assert!(migrate(&mut connection).is_err());
        let version: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).unwrap();
        assert_eq!((version, tables), (0, 1));
    }

    /// A file of schema 1, as the first release wrote it (`tests/data/schema-1.db`), opens and keeps its rows.
    #[test]
    fn an_old_database_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.db");
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/schema-1.db"), &path).unwrap();
        let mut connection = Connection::open(&path).unwrap();
        let schema = |c: &Connection| -> Vec<(String, String)> {
            let mut query = c.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        // The file is what the first migration makes: an edit of that migration, or an older file, is noticed.
        let first = Connection::open_in_memory().unwrap();
        first.execute_batch(MIGRATIONS[0]).unwrap();
        assert_eq!(schema(&connection), schema(&first));
        connection
            .execute_batch(
                "INSERT INTO nodes (id, key, pool, name, enrolled_at) VALUES (zeroblob(16), zeroblob(32), 'p', 'n', 0);
                 INSERT INTO jobs (id, version) VALUES ('j', 1);
                 INSERT INTO job_versions (job, version, specification, digest, source, name, email, submitted_at)
                   VALUES ('j', 1, x'00', zeroblob(32), '', '', '', 0);
                 INSERT INTO allocs (id, job, version, grp, idx, node, desired, status, created_at, updated_at) VALUES
                   (zeroblob(16), 'j', 1, 'g', 0, zeroblob(16), 'run', 'running', 3, 7),
                   (randomblob(16), 'j', 1, 'g', 1, zeroblob(16), 'run', 'pending', 4, 4);",
            )
            .unwrap();
        migrate(&mut connection).unwrap();
        // What ran runs on, since it was last heard of, and nothing is lost, drained or waiting.
        let mut query = connection
            .prepare("SELECT placed_at, reported_at, running_since, coalesce(lost_after, lost_at, healthy) FROM allocs ORDER BY idx")
            .unwrap();
        type Row = (i64, Option<i64>, Option<i64>, Option<i64>);
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap();
        let rows: Vec<Row> = rows.map(Result::unwrap).collect();
        assert_eq!(rows, [(3, Some(7), Some(7), None), (4, None, None, None)]);
        let eligible: bool = connection.query_row("SELECT eligible AND drained_at IS NULL FROM nodes", [], |r| r.get(0)).unwrap();
        assert!(eligible);
        let version: usize = connection.query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
        assert_eq!(version, MIGRATIONS.len());
        let who: String = connection.query_row("SELECT who FROM audit WHERE what = 'made schema-1.db'", [], |r| r.get(0)).unwrap();
        assert_eq!(who, "ada");
    }
}
