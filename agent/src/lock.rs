//! One agent per data folder.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);
/// Tries of an agent: five seconds.
const TRIES: u32 = 100;

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another agent runs on it.
    #[error(
        "another skerry-agent runs on the data folder {folder}: stop it first, or give this one a folder of its own with --data",
        folder = folder.display()
    )]
    Held {
        /// The folder.
        folder: PathBuf,
    },
    /// It cannot be made or opened.
    #[error("cannot use the data folder: {path}: {source}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Holds the data folder until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder when it is not there, and takes it for an agent: waits a little while another has it, since a command that found no
    /// agent holds it while it reads, and must not keep one that is just starting from it.
    pub(crate) async fn take(folder: &Path) -> Result<Self, LockError> {
        Self::take_in(folder, TRIES).await
    }

    async fn take_in(folder: &Path, tries: u32) -> Result<Self, LockError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| LockError::Io { path: folder.to_owned(), source })?;
        for _ in 1..tries {
            match Self::take_existing(folder) {
                Err(LockError::Held { .. }) => tokio::time::sleep(AGAIN).await,
                other => return other,
            }
        }
        Self::take_existing(folder)
    }

    /// Takes a folder that is there.
    pub(crate) fn take_existing(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|source| LockError::Io { path: path.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held { folder: folder.to_owned() }),
            Err(errno) => Err(LockError::Io { path, source: errno.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        let first = Lock::take(&data).await.unwrap();
        let error = Lock::take_in(&data, 2).await.unwrap_err();
        assert!(matches!(&error, LockError::Held { .. }) && error.to_string().contains("--data"), "{error}");
        drop(first);
        Lock::take(&data).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_that_reads_keeps_no_agent_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let command = Lock::take_existing(folder.path()).unwrap();
        let read = async {
            tokio::time::sleep(3 * AGAIN).await;
            drop(command);
        };
        let (agent, ()) = tokio::join!(Lock::take(folder.path()), read);
        agent.unwrap();
    }
}
