//! The store in one SQLite file.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::StoreError;
use super::migrate::migrate;
use super::wal;
use super::writer::Writer;

/// Connections that read; each runs one query at a time on a blocking thread.
const READERS: usize = 4;

/// What every connection is set to. `busy_timeout` is for backups and the `sqlite3` shell beside a running server.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;
    PRAGMA cache_size = -8192; PRAGMA trusted_schema = OFF;";

/// The store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl SqliteStore {
    /// Opens or makes the database and brings it to the newest schema. Blocks.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_or_make(path).map_err(|error| apart(error, path))
    }

    fn open_or_make(path: &Path) -> Result<Self, StoreError> {
        let made = path.with_extension("made");
        if made.exists() && !std::fs::metadata(path).is_ok_and(|m| m.len() > 0) {
            // SQLite would begin anew without a word.
            return Err(StoreError::Lost);
        }
        keep_private(path).map_err(unwritable)?;
        if let Some(frame) = wal::damaged(path).map_err(|error| unreadable(&wal::path(path), &error))? {
            return Err(StoreError::GarbledLog { log: wal::path(path), frame });
        }
        let mut connection = Connection::open(path)?;
        connection.execute_batch(PRAGMAS)?;
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            return Err(StoreError::Damaged(check));
        }
        let schema: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if schema == 0 && made.exists() {
            // All of it was in the log still, and that is gone.
            return Err(StoreError::Lost);
        }
        migrate(&mut connection)?;
        mark_made(&made).map_err(unwritable)?;
        let readers = (0..READERS).map(|_| reader(path)).collect::<Result<Vec<_>, _>>()?;
        let writer = Writer::start(connection).map_err(|e| StoreError::Damaged(format!("no thread for the writer: {e}")))?;
        Ok(Self { writer, readers: Arc::new(Readers { idle: Mutex::new(readers), permits: Arc::new(Semaphore::new(READERS)) }) })
    }

    /// Runs `work` in a transaction of the writer; see [`Writer::write`].
    pub(super) async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.writer.write(work).await
    }

    /// Runs `work` on a read-only connection, in one snapshot, off the async threads.
    pub(super) async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        let permit = Arc::clone(&self.readers.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let task = tokio::task::spawn_blocking(move || {
            let connection = readers.idle.lock().ok().and_then(|mut idle| idle.pop()).ok_or(StoreError::Closed)?;
            let connection = Returned { connection: Some(connection), readers: &readers };
            let transaction = connection.get().unchecked_transaction().map_err(StoreError::from)?;
            let result = work(&transaction);
            drop(transaction);
            drop(connection);
            drop(permit);
            result
        });
        task.await.map_err(|error| {
            // A runtime that ends gives up what was not begun.
            if error.is_cancelled() {
                StoreError::Closed
            } else {
                StoreError::Damaged("a read panicked; the server's log has more".to_owned())
            }
        })?
    }
}

/// A reading connection that goes back when it is dropped, after a panic too.
struct Returned<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
}

impl Returned<'_> {
    fn get(&self) -> &Connection {
        self.connection.as_ref().expect("there until dropped")
    }
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        if let (Some(connection), Ok(mut idle)) = (self.connection.take(), self.readers.idle.lock()) {
            idle.push(connection);
        }
    }
}

fn reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA busy_timeout = 5000; PRAGMA cache_size = -4096;")?;
    Ok(connection)
}

/// There is a database from now on: should it be gone, it was lost.
fn mark_made(made: &Path) -> io::Result<()> {
    if made.exists() {
        return Ok(());
    }
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(made)?.sync_all()?;
    File::open(made.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// SQLite says of a page that it cannot read that the database is damaged; the disk itself tells the two apart.
fn apart(error: StoreError, path: &Path) -> StoreError {
    let read = |file: &Path| match File::open(file).and_then(|mut file| io::copy(&mut file, &mut io::sink())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Some(StoreError::Disk(format!("{}: {error}", file.display()))),
        _ => None,
    };
    match error {
        StoreError::Damaged(_) => read(path).or_else(|| read(&wal::path(path))).unwrap_or(error),
        other => other,
    }
}

fn unreadable(file: &Path, error: &io::Error) -> StoreError {
    let said = format!("{}: {error}", file.display());
    if error.kind() == io::ErrorKind::PermissionDenied { StoreError::Unwritable(said) } else { StoreError::Disk(said) }
}

fn unwritable(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull => StoreError::Full,
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => StoreError::Disk(error.to_string()),
        _ => StoreError::Unwritable(error.to_string()),
    }
}

/// The database holds the key of the capabilities: its file is the owner's alone, whatever the folder's mode; SQLite gives the files
/// beside it the same mode.
fn keep_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Was there ever a database in a data folder?
pub fn had_database(data: &Path) -> bool {
    let path = database_path(data);
    path.exists() || path.with_extension("made").exists()
}

/// The database's file in a data folder.
pub fn database_path(data: &Path) -> PathBuf {
    data.join("server.db")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_database_is_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = database_path(folder.path());
        drop(SqliteStore::open(&path).unwrap());
        let whole = std::fs::read(&path).unwrap();
        for lose in [|p: &Path| std::fs::remove_file(p).unwrap(), |p: &Path| std::fs::write(p, []).unwrap()] {
            lose(&path);
            assert!(matches!(SqliteStore::open(&path), Err(StoreError::Lost)));
            std::fs::write(&path, &whole).unwrap();
            drop(SqliteStore::open(&path).unwrap());
        }
        // A start that was cut off before there was one.
        let folder = tempfile::tempdir().unwrap();
        let path = database_path(folder.path());
        std::fs::write(&path, []).unwrap();
        drop(SqliteStore::open(&path).unwrap());
    }

    #[test]
    fn the_database_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = database_path(folder.path());
        for _ in 0..2 {
            let store = SqliteStore::open(&path).unwrap();
            for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", file.path().display());
            }
            drop(store);
            // As an earlier version left it.
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
    }
}
