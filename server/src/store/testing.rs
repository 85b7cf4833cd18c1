//! A store in a temporary folder, for tests.

use super::SqliteStore;

/// The folder is removed when it is dropped: keep it as long as the store.
pub(crate) fn store() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    (SqliteStore::open(&folder.path().join("server.db")).expect("a new store"), folder)
}
