//! Files that are made from templates, in folders that tasks may write to.
//!
//! What it promises: a link that a task left on the way is not followed, so nothing outside the allocations' folder is written; a reader
//! sees the old file or the new one, whole.

use std::fs::File as StdFile;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fsync, mkdirat, openat, renameat, unlinkat};
use skerry_reconcile::File;

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("the file {path} cannot be written: {source}", path = path.display())]
pub(crate) struct TaskFileError {
    path: PathBuf,
    source: io::Error,
}

/// Writes the file, which must be below `root`. Its owner is root unless one is named.
pub(crate) fn write(root: &Path, file: &File, owner: Option<(u32, u32)>) -> Result<(), TaskFileError> {
    let path = Path::new(&file.path);
    put(root, path, file, owner).map_err(|source| TaskFileError { path: path.to_owned(), source })
}

fn put(root: &Path, path: &Path, file: &File, owner: Option<(u32, u32)>) -> io::Result<()> {
    let below = path.strip_prefix(root).map_err(|_| io::Error::other("it is not below the folder of the allocations"))?;
    let mut names = Vec::new();
    for part in below.components() {
        match part {
            Component::Normal(name) => names.push(name),
            _ => return Err(io::Error::other("its path is not plain")),
        }
    }
    let last = names.pop().ok_or_else(|| io::Error::other("it has no name"))?;
    let folder = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    std::fs::create_dir_all(root)?;
    let mut at: OwnedFd = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())?;
    for name in names {
        match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        at = openat(&at, name, folder, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => io::Error::other("a task put a link, or no folder, on the way to it"),
            other => other.into(),
        })?;
    }
    let mut beside = std::ffi::OsString::from(".");
    beside.push(last);
    beside.push(".new");
    // What an interrupted write left.
    match unlinkat(&at, &beside, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = openat(&at, &beside, flags, Mode::from_raw_mode(0o600))?;
    if let Some((uid, gid)) = owner {
        fchown(&new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fchmod(&new, Mode::from_raw_mode(file.perms & 0o7777))?;
    let mut new = StdFile::from(new);
    let written = new.write_all(&file.content).and_then(|()| Ok(fsync(&new)?));
    if let Err(error) = written {
        let _ = unlinkat(&at, &beside, AtFlags::empty());
        return Err(error);
    }
    Ok(renameat(&at, &beside, &at, last)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn writes_below_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("alloc"), folder.path().join("etc"));
        std::fs::create_dir(&outside).unwrap();
        let file =
            |below: &str, text: &str| File { path: root.join(below).to_string_lossy().into_owned(), content: text.into(), perms: 0o640 };
        for text in ["one", "two"] {
            write(&root, &file("a/t/local/etc/conf", text), None).unwrap();
        }
        let path = root.join("a/t/local/etc/conf");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        symlink(&outside, root.join("a/t/local/out")).unwrap();
        let error = write(&root, &file("a/t/local/out/passwd", "x"), None).unwrap_err().to_string();
        assert!(error.contains("a link"), "{error}");
        // A link in the place of the file itself is replaced.
        symlink(outside.join("shadow"), root.join("a/t/local/plain")).unwrap();
        write(&root, &file("a/t/local/plain", "x"), None).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        for path in [outside.join("x").to_string_lossy().into_owned(), format!("{}/../etc/x", root.display())] {
            assert!(write(&root, &File { path, content: vec![], perms: 0o600 }, None).is_err());
        }
    }
}
