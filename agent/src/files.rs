//! Files that survive a power cut: written beside, synced, renamed, and the folder synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A failed step on a file, with its path.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}{hint}", path = path.display(), hint = hint(source))]
pub(crate) struct FileError {
    /// The file.
    pub(crate) path: PathBuf,
    /// What the system said.
    #[source]
    pub(crate) source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// What to do about it, where that is known.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on its disk: nothing that was there is lost, and the agent tries again by itself"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; its file system is mounted read-only: check the disk",
        io::ErrorKind::PermissionDenied => "; the agent must run as a user who may use it",
        _ => "",
    }
}

/// Puts `bytes` in the place of the file, or leaves it as it was; on return they are on the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    stage(path, bytes, mode)?.finish()
}

/// A file beside another, on the disk, that can take its place. Dropped it is gone.
#[derive(Debug)]
pub(crate) struct Staged {
    beside: PathBuf,
    path: PathBuf,
    waits: bool,
}

/// Writes what is to take the place of a file; as long as it has not, the file is as it was.
pub(crate) fn stage(path: &Path, bytes: &[u8], mode: u32) -> Result<Staged, FileError> {
    let beside = beside(path);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    if let Err(error) = written {
        // Half a file beside the good one is of no use to anyone, least of all on a full disk.
        let _ = fs::remove_file(&beside);
        return Err(FileError { path: beside, source: error });
    }
    Ok(Staged { beside, path: path.to_owned(), waits: true })
}

impl Staged {
    /// Takes the file's place; on return that is on the disk.
    pub(crate) fn finish(mut self) -> Result<(), FileError> {
        fs::rename(&self.beside, &self.path).map_err(FileError::at(&self.path))?;
        self.waits = false;
        sync_folder_of(&self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.waits {
            let _ = fs::remove_file(&self.beside);
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Makes renames, new and removed names in the folder of `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(FileError::at(folder))
}

/// Makes a folder and the ones above it; mode 0700, for it may hold what only the agent may read.
pub(crate) fn make_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FileError::at(path))
}

/// Makes a folder that only the agent may enter, and closes one that is open to others.
pub(crate) fn make_closed_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    make_folder(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(FileError::at(path))
}

/// Makes a folder that others may pass through at most: it keeps that right, which programs that run may need, and loses every other.
pub(crate) fn make_unlisted_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    make_folder(path)?;
    let mode = fs::metadata(path).map_err(FileError::at(path))?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o011 | 0o700)).map_err(FileError::at(path))
}

/// The whole file, of at most `limit` bytes; `None` when there is none.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError { path: path.to_owned(), source: error }),
    };
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::at(path))?;
    if bytes.len() > limit {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than the {limit} bytes that it may have"));
        return Err(FileError { path: path.to_owned(), source });
    }
    Ok(Some(bytes))
}

/// Removes the file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError { path: path.to_owned(), source: error }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = replace(Path::new("/dev/full/x"), b"", 0o600).unwrap_err().to_string();
        assert!(error.starts_with("/dev/full"), "{error}");
        let error = FileError::at(Path::new("/var/x"))(io::ErrorKind::StorageFull.into()).to_string();
        assert!(error.contains("/var/x") && error.contains("make room"), "{error}");
    }

    #[test]
    fn replaces_whole_files_and_reads_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(read(&path, 10).unwrap(), None);
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two!", 0o600).unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap(), b"two!");
        assert!(read(&path, 3).unwrap_err().to_string().contains("longer than the 3 bytes"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_programs_pass_through_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alloc");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        make_unlisted_folder(&path).unwrap();
        assert_eq!(mode(), 0o700);
        for (before, after) in [(0o711, 0o711), (0o755, 0o711), (0o777, 0o711), (0o600, 0o700)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            make_unlisted_folder(&path).unwrap();
            assert_eq!(mode(), after, "{before:o}");
        }
    }

    #[test]
    fn what_is_staged_takes_the_place_or_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        replace(&path, b"old", 0o600).unwrap();
        for finish in [false, true] {
            let staged = stage(&path, b"new", 0o600).unwrap();
            assert_eq!(read(&path, 10).unwrap().unwrap(), b"old");
            if finish {
                staged.finish().unwrap();
            } else {
                drop(staged);
            }
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"new");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        replace(&path, b"old", 0o600).unwrap();
        // The name beside is taken by a folder: the write cannot even begin.
        fs::create_dir(dir.path().join("mark.new")).unwrap();
        assert!(replace(&path, b"new", 0o600).is_err());
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"old");
    }
}
