//! Why the store could not do something.

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
    /// The file is of a newer server.
    #[error("the database has schema {found}, this server knows up to {known}: run the newer server, or restore a backup")]
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

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(Arc::new(error)),
        }
    }
}
