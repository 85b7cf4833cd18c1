//! Files that are there whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

/// Puts a file in place of the one that is there, on the disk.
pub(super) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let folder = path.parent().context("a path without a folder")?;
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(File::open(folder)?.sync_all()?)
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

/// The text of a file; made and written when it is not there.
pub(super) fn make_once(path: &Path, mode: u32, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            replace(path, mode, text.as_bytes())?;
            Ok(text)
        }
        Err(error) => Err(error)
            .with_context(|| format!("{}: cannot be read\nhelp: put it back from a backup, or give its right owner back", path.display())),
    }
}
