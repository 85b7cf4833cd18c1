//! What the tests share: folders for files that other programs read and write.

use std::path::PathBuf;

/// A folder inside the build folder, empty at first and removed when the test ends. What a killed run left is removed by the next.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// `name` is the test's own.
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path).expect("the build folder can be written to");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
