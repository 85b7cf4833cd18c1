//! Opening: migrations, the check of the file, and the way back from a garbled one.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::LedgerError;
use crate::files::{self, FileError};

/// Each step brings the ledger from version N to N+1.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// Opens the ledger's file; when it is garbled it is set aside and a new one is made (`true`).
pub(super) fn open_or_rebuild(path: &Path) -> Result<(Connection, bool), LedgerError> {
    match open(path) {
        Ok(connection) => Ok((connection, false)),
        Err(LedgerError::Sqlite { source, .. }) if is_garbled(&source) => {
            let aside = set_aside(path)?;
            tracing::error!("ledger {} is garbled ({source}): kept as {}, made anew from the copies", path.display(), aside.display());
            Ok((open(path)?, true))
        }
        Err(error) => Err(error),
    }
}

fn is_garbled(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, ReadOnly};
    match error {
        // What a column holds is not what it must hold: bytes were changed inside a page.
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => true,
        // The file is shorter than it says: a read that ends early is not the disk's refusal to read.
        rusqlite::Error::SqliteFailure(cause, _) if cause.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ => true,
        // "no such table", or "malformed schema": garbled where the schema is kept.
        rusqlite::Error::SqlInputError { .. } => true,
        // "read-only": a number in its head asks for a newer SQLite. Where the disk itself is read-only, setting aside fails and says so.
        other => matches!(other.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | ReadOnly | rusqlite::ErrorCode::Unknown)),
    }
}

fn open(path: &Path) -> Result<Connection, LedgerError> {
    let at = |source| LedgerError::Sqlite { path: path.to_owned(), source };
    close_to_others(path)?;
    let mut connection = Connection::open(path).map_err(at)?;
    // Exclusive, and before the journal is first used: its index is then kept in this process and not in a mapped file, which the kernel writes
    // to the disk page by page although it is worth nothing after a power cut. Nobody else opens the ledger while an agent runs.
    connection
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA cache_size = -256;
             PRAGMA mmap_size = 0;
             PRAGMA wal_autocheckpoint = 100;
             PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 5000;",
        )
        .map_err(at)?;
    check(&connection).map_err(at)?;
    migrate(path, &mut connection)?;
    read_all(&connection).map_err(at)?;
    Ok(connection)
}

/// Specifications may hold secrets: the file is the agent's alone, and SQLite gives its journal the same mode.
fn close_to_others(path: &Path) -> Result<(), FileError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(FileError::at(path))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(FileError::at(path))
}

/// The ledger is small: a full check costs milliseconds and finds what a later query would stumble over.
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let answer: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if answer == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(code, Some(answer)))
}

/// Reads every value. Values of several pages are read past SQLite's cache, and what is missing of them at the end of a file that was cut
/// short passes its check for zeros.
fn read_all(connection: &Connection) -> rusqlite::Result<()> {
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for table in tables {
        let mut all = connection.prepare(&format!("SELECT * FROM \"{}\"", table.replace('"', "\"\"")))?;
        let columns = all.column_count();
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            (0..columns).try_for_each(|column| row.get_ref(column).map(drop))?;
        }
    }
    Ok(())
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), LedgerError> {
    let at = |source| LedgerError::Sqlite { path: path.to_owned(), source };
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(at)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let Some(done) = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len()) else {
        if schema(connection).map_err(at)? != newest_schema().map_err(at)? {
            return Err(LedgerError::TooNew { path: path.to_owned(), found, known });
        }
        // A newer agent would have made other tables: only the number is garbled.
        tracing::error!("ledger {}: its version said {found} and is set right to {known}", path.display());
        return connection.pragma_update(None, "user_version", known).map_err(at);
    };
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(at)?;
    for step in &MIGRATIONS[done..] {
        transaction.execute_batch(step).map_err(at)?;
    }
    if done < MIGRATIONS.len() {
        transaction.pragma_update(None, "user_version", known).map_err(at)?;
    }
    transaction.commit().map_err(at)
}

/// Every table and index, as SQLite keeps them.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut rows = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The same of a ledger that this agent makes.
fn newest_schema() -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let connection = Connection::open_in_memory()?;
    MIGRATIONS.iter().try_for_each(|step| connection.execute_batch(step))?;
    schema(&connection)
}

/// Renames the ledger and its journal; only the newest garbled one is kept, for they take space.
fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let suffixed = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = suffixed(".garbled");
    for suffix in ["-wal", "-shm"] {
        files::remove(&suffixed(suffix))?;
    }
    std::fs::rename(path, &aside).map_err(FileError::at(path))?;
    files::sync_folder_of(path)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    /// A ledger that the disk does not give, or that somebody else holds, is no garbled one.
    #[test]
    fn what_says_that_the_file_is_garbled() {
        let cases = [
            (ffi::SQLITE_CORRUPT, true),
            (ffi::SQLITE_NOTADB, true),
            (ffi::SQLITE_READONLY, true),
            (ffi::SQLITE_IOERR_SHORT_READ, true),
            (ffi::SQLITE_IOERR_READ, false),
            (ffi::SQLITE_IOERR_WRITE, false),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_CANTOPEN, false),
            (ffi::SQLITE_NOMEM, false),
            (ffi::SQLITE_PERM, false),
        ];
        for (code, garbled) in cases {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(is_garbled(&error), garbled, "{error}");
        }
    }
}
