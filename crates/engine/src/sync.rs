//! What the engine wrote, brought onto the disk.

use std::fs::File;
use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
use std::path::Path;

use crate::EngineError;

/// Waits until everything written so far on the file system of `data_root` is on the disk. The engine itself does not sync what it
/// loads: without this a power cut can leave an image that it lists and cannot run. Blocks: call it off the async threads.
///
/// An engine's folder that cannot be seen from here is on one of this machine's file systems all the same: then all are synced.
pub fn sync(data_root: &Path) -> Result<(), EngineError> {
    let io = |source| EngineError::Io { path: data_root.into(), source };
    let folder = match File::open(data_root) {
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied | NotADirectory) => {
            rustix::fs::sync();
            return Ok(());
        }
        other => other.map_err(io)?,
    };
    rustix::fs::syncfs(&folder).map_err(|errno| io(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_a_folder_that_is_there_or_everything() {
        let folder = tempfile::tempdir().unwrap();
        sync(folder.path()).unwrap();
        sync(&folder.path().join("elsewhere")).unwrap();
    }
}
