//! What the engine wrote, brought onto the disk.

use std::fs::File;
use std::path::Path;

use crate::EngineError;

/// Waits until everything written so far on the file system of `data_root` is on the disk. The engine itself does not sync what it
/// loads: without this a power cut can leave an image that it lists and cannot run. Blocks: call it off the async threads.
pub fn sync(data_root: &Path) -> Result<(), EngineError> {
    let io = |source| EngineError::Io { path: data_root.into(), source };
    let folder = File::open(data_root).map_err(io)?;
    rustix::fs::syncfs(&folder).map_err(|errno| io(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_or_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        sync(folder.path()).unwrap();
        let error = sync(&folder.path().join("gone")).unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
