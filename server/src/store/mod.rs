//! What the server remembers, and the only place of the server that speaks SQL.
//!
//! [`Store`] is everything that the rest of the server asks of it, in terms of use cases, one trait per topic. [`SqliteStore`] keeps it
//! in one SQLite file: WAL, `synchronous = FULL`, one writer thread that commits queued writes in groups, and a few read-only
//! connections. A write that has returned is on the disk.
//!
//! A topic has one file: its trait, its types, its SQL. Adding a table is a new file under `migrations/` and a line in `migrate.rs`.

mod audit;
mod builds;
mod counts;
mod error;
mod fleet;
mod history;
mod images;
mod jobs;
mod logs;
mod migrate;
mod nodes;
mod objects;
mod operate;
mod operators;
mod presence;
mod retention;
mod sets;
mod sqlite;
#[cfg(test)]
mod testing;
mod tokens;
mod unknown;
mod variables;
mod wal;
mod writer;

pub use audit::{AuditEntry, AuditStore, By};
pub use builds::{BuildStore, BundleId, Offered, TakenBuild, ToChoose};
pub use counts::{CountStore, Counts};
pub use error::StoreError;
pub use images::{AddImageError, ImageRef, ImageStore, NewImage, StoredImage, StoredLayer};
pub use jobs::{JobStore, Submission, Submitted};
pub use logs::{LogRefusal, LogStore};
pub(crate) use nodes::short;
pub use nodes::{Enrolment, KnownNode, LastContact, NewManifest, NodeStore, Recorded, Told};
pub use objects::ObjectStore;
pub use operate::{AllocOrdered, NodeOrder, OperateStore, OrderRefusal};
pub use operators::{Operator, OperatorStore, Role};
pub use presence::PresenceStore;
pub use retention::{Keep, Removed, RetentionStore};
pub use sets::SetStore;
pub use sqlite::{SqliteStore, database_path, had_database};
pub use tokens::{NewToken, TokenRefusal, TokenStore};
pub use unknown::{AdoptRefusal, UnknownStore};
pub use variables::{VariableRefusal, VariableStore};

/// Everything that the server remembers.
pub trait Store:
    AuditStore
    + BuildStore
    + CountStore
    + ImageStore
    + JobStore
    + LogStore
    + NodeStore
    + ObjectStore
    + OperateStore
    + OperatorStore
    + PresenceStore
    + RetentionStore
    + SetStore
    + TokenStore
    + UnknownStore
    + VariableStore
    + Send
    + Sync
{
}

impl<T> Store for T where
    T: AuditStore
        + BuildStore
        + CountStore
        + ImageStore
        + JobStore
        + LogStore
        + NodeStore
        + ObjectStore
        + OperateStore
        + OperatorStore
        + PresenceStore
        + RetentionStore
        + SetStore
        + TokenStore
        + UnknownStore
        + VariableStore
        + Send
        + Sync
{
}
