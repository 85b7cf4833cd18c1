//! Why the store could not do something.

use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why the store could not do something. What a use case refuses on its merits is in that use case's own type.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No space on the disk of the database. Nothing was changed.
    #[error("no space left on the disk of the server's database")]
    Full,
    /// More writes wait than the queue takes.
    #[error("the server's database has too many writes waiting")]
    Busy,
    /// The store is being closed.
    #[error("the server's database is closed")]
    Closed,
    /// A row cannot be read: the file was written by something else.
    #[error("the server's database is damaged: {0}")]
    Damaged(String),
    /// The write-ahead log cannot be read to its end.
    #[error("the write-ahead log {} of the server's database is garbled from frame {frame} on, and more was written after it", log.display())]
    GarbledLog {
        /// Its file.
        log: std::path::PathBuf,
        /// The first frame that is not as it was written, from 1.
        frame: usize,
    },
    /// The file, or its folder, takes no writes.
    #[error("the server's database cannot be written: {0}")]
    Unwritable(String),
    /// The disk gives errors.
    #[error("the disk of the server's database gives errors: {0}")]
    Disk(String),
    /// The file is gone, or empty, where there was one.
    #[error("the server's database is gone or empty, though this folder had one")]
    Lost,
    /// The file is of a newer server.
    #[error("the database has schema {found}, this server knows up to {known}")]
    TooNew {
        /// Schema of the file.
        found: i64,
        /// Newest schema of this server.
        known: i64,
    },
    /// SQLite's own error.
    #[error("the server's database: {0}")]
    Sqlite(Arc<rusqlite::Error>),
}

impl StoreError {
    /// The error of a database that does not open, for people.
    pub fn on_open(&self, path: &Path) -> anyhow::Error {
        anyhow::anyhow!("{}: the database cannot be opened: {self}\nhelp: {}", path.display(), self.help())
    }

    /// What an operator can do when the database does not open.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Full => "make room on its disk and start the server again; nothing is lost",
            Self::Busy | Self::Closed => "start the server again",
            Self::Damaged(_) => {
                "it was left as it is; put a backup of it back, and remove the `-wal` and `-shm` files beside it, which belong to the \
                 damaged one; without a backup `sqlite3 server.db .recover` saves what can be read"
            }
            Self::GarbledLog { .. } => {
                "copy the database with its `-wal` and `-shm` files away before anything opens it; then put a backup back without them, or take what \
                 is before that frame: `sqlite3 server.db 'PRAGMA wal_checkpoint(TRUNCATE)'`, and see `skerry alloc unknown list` after the start"
            }
            Self::Lost => "put a backup of it back; to begin anew, with no node and no job, remove the `.made` file beside it",
            Self::Unwritable(_) => {
                "the server's user must be able to write it: see its owner, and whether its file system is mounted read-only"
            }
            Self::Disk(_) => {
                "see the kernel's log (dmesg); the database was left as it is: when the disk works again start the server again, else put \
                 a backup on another disk"
            }
            Self::TooNew { .. } => "run the newer server, or put back a backup of this one",
            Self::Sqlite(_) => "look at its disk: it gives errors, or another program holds the file",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // What a full disk gives for the index of the log, with which every start begins.
        let no_room = error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
        match error.sqlite_error_code() {
            _ if no_room => Self::Full,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::Unwritable(error.to_string()),
            Some(ErrorCode::SystemIoFailure) => Self::Disk(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(Arc::new(error)),
        }
    }
}
