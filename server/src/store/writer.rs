//! The one thread that writes. Writes that wait together are committed together, each in a savepoint of its own, so that one
//! `fsync` serves many and a refused write takes nobody with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::StoreError;

/// Writes that may wait; more are refused with [`StoreError::Busy`].
const QUEUE: usize = 1024;
/// Writes committed together at most.
const GROUP: usize = 128;

/// A write on its way: run once, told once how its group's commit ended.
trait Write: Send {
    /// Does the work in a savepoint; may what it did be kept?
    fn run(&mut self, connection: &Connection) -> bool;

    /// Tells who waits.
    fn tell(self: Box<Self>, commit: Result<(), StoreError>);
}

struct Job<T, E, F> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Write for Job<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: FnOnce(&Connection) -> Result<T, E> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = catch_unwind(AssertUnwindSafe(|| work(connection)))
            .unwrap_or_else(|_| Err(StoreError::Damaged("a write panicked; the server's log has more".to_owned()).into()));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn tell(self: Box<Self>, commit: Result<(), StoreError>) {
        let told = match (self.result, commit) {
            (Some(Err(refused)), _) => Err(refused),
            (_, Err(error)) => Err(error.into()),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => Err(StoreError::Closed.into()),
        };
        // Nobody listens any more when the request was dropped.
        let _ = self.reply.send(told);
    }
}

/// The way to the writing thread. Dropping it waits until everything queued is committed.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Box<dyn Write>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread; the connection is its alone from now on.
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (queue, writes) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || run(&connection, &writes))?;
        Ok(Self { queue: Some(queue), thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` in a transaction; what it changed is on the disk when this returns `Ok`, and undone when it returns `Err`.
    ///
    /// Dropping the future does not stop the write: it is done or not, as a whole.
    pub(super) async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.try_send(Box::new(Job { work: Some(work), result: None, reply })).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.get_mut().ok().and_then(Option::take);
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the store's writing thread panicked");
        }
    }
}

fn run(connection: &Connection, writes: &Receiver<Box<dyn Write>>) {
    while let Ok(first) = writes.recv() {
        let group = std::iter::once(first).chain(writes.try_iter().take(GROUP - 1));
        commit_group(connection, group);
    }
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "the last checkpoint of the database failed; the next start will do it");
    }
}

fn commit_group(connection: &Connection, group: impl Iterator<Item = Box<dyn Write>>) {
    let mut told = Vec::new();
    let mut outcome = connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from);
    for mut write in group {
        // A write that failed by itself is told its own error; one that could not be run or kept, that of the group.
        if outcome.is_ok() {
            outcome = run_one(connection, write.as_mut());
        }
        told.push(write);
    }
    if outcome.is_ok() {
        outcome = connection.execute_batch("COMMIT").map_err(StoreError::from);
    }
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction could not be rolled back");
    }
    if let Err(error) = &outcome {
        tracing::error!(%error, writes = told.len(), "a group of writes was not committed");
    }
    for write in told {
        write.tell(outcome.clone());
    }
}

/// `Err` when the whole group is lost.
fn run_one(connection: &Connection, write: &mut dyn Write) -> Result<(), StoreError> {
    connection.execute_batch("SAVEPOINT one")?;
    let keep = write.run(connection);
    // On some errors, a full disk first of all, SQLite itself rolls back the whole transaction.
    if connection.is_autocommit() {
        return Err(StoreError::Full);
    }
    connection.execute_batch(if keep { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(folder: &std::path::Path) -> Connection {
        let connection = Connection::open(folder.join("test.db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (x INTEGER NOT NULL UNIQUE) STRICT").unwrap();
        connection
    }

    async fn insert(writer: &Writer, x: i64) -> Result<(), StoreError> {
        writer.write(move |c| c.execute("INSERT INTO t VALUES (?1)", [x]).map(|_| ()).map_err(StoreError::from)).await
    }

    #[tokio::test]
    async fn a_refused_write_takes_nobody_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(database(folder.path())).unwrap();
        let writes = (0..40).map(|n| insert(&writer, n / 2));
        let results = futures_util::future::join_all(writes).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 20);
        drop(writer);
        let rows: i64 = database(folder.path()).query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 20);
    }

    #[tokio::test]
    async fn half_a_write_is_undone() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(database(folder.path())).unwrap();
        let refused: Result<(), StoreError> = writer
            .write(|c| {
                c.execute("INSERT INTO t VALUES (1)", [])?;
                Err(StoreError::Damaged("no".to_owned()))
            })
            .await;
        assert!(matches!(refused, Err(StoreError::Damaged(_))));
        insert(&writer, 1).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_lives_on() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::start(database(folder.path())).unwrap();
        let panicked: Result<(), StoreError> = writer.write(|_| panic!("on purpose")).await;
        assert!(matches!(panicked, Err(StoreError::Damaged(_))));
        insert(&writer, 2).await.unwrap();
    }

    /// A full database file, as a full disk would have it: clear error, earlier rows kept, goes on when there is space again.
    #[tokio::test]
    async fn a_full_disk_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let connection = database(folder.path());
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |r| r.get(0)).unwrap();
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 2), [], |_| Ok(())).unwrap();
        let writer = Writer::start(connection).unwrap();
        let mut kept = 0;
        let error = loop {
            match insert(&writer, kept).await {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Full), "{error}");
        let (raised, rows) = writer
            .write(|c| {
                c.query_row("PRAGMA max_page_count = 100000", [], |_| Ok(()))?;
                Ok::<_, StoreError>(((), c.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0))?))
            })
            .await
            .unwrap();
        assert_eq!((raised, rows), ((), kept));
        insert(&writer, kept).await.unwrap();
    }
}
