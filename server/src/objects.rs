//! The object folder: files named by the SHA-256 of their bytes, `ab/cdef...` under `objects/`.
//!
//! An object is written to a temporary name in the same filesystem, synced, renamed, and its folder synced: a name that is there has
//! all its bytes. What a crash leaves is a temporary file or an object that no row names; both are swept.
//!
//! Order with the database: the file is in place before the row that names it is committed, and the row is gone before the file is
//! deleted. A [`Pin`] held from the one to the other keeps the collection of unnamed objects out meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_wire::Digest;
use tempfile::NamedTempFile;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The object folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    root: PathBuf,
    gate: Arc<RwLock<()>>,
}

/// Proof that no object is collected while it is held: from keeping an object until the row that names it is committed. Hold it
/// shortly.
#[derive(Debug)]
pub struct Pin {
    _gate: OwnedRwLockReadGuard<()>,
}

/// Proof that nobody holds a [`Pin`].
#[derive(Debug)]
pub struct Sole {
    _gate: OwnedRwLockWriteGuard<()>,
}

/// An object in the making; gone without a trace when it is dropped.
pub struct NewObject {
    file: NamedTempFile,
    hash: Context,
    size: u64,
    root: PathBuf,
}

impl Objects {
    /// Opens or makes the folder in `data`, and sweeps what an earlier process left half-written. Blocks.
    pub fn open(data: &Path) -> io::Result<Self> {
        let root = data.join("objects");
        fs::create_dir_all(root.join("tmp"))?;
        for left in fs::read_dir(root.join("tmp"))? {
            fs::remove_file(left?.path())?;
        }
        File::open(&root)?.sync_all()?;
        Ok(Self { root, gate: Arc::new(RwLock::new(())) })
    }

    /// Begins a new object. Blocks.
    pub fn begin(&self) -> io::Result<NewObject> {
        let file = NamedTempFile::new_in(self.root.join("tmp"))?;
        Ok(NewObject { file, hash: Context::new(&SHA256), size: 0, root: self.root.clone() })
    }

    /// Keeps the collection away; see [`Pin`].
    pub async fn pin(&self) -> Pin {
        Pin { _gate: Arc::clone(&self.gate).read_owned().await }
    }

    /// Waits until nobody holds a [`Pin`], and keeps new ones waiting.
    pub async fn sole(&self) -> Sole {
        Sole { _gate: Arc::clone(&self.gate).write_owned().await }
    }

    /// Where an object is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(&hex[..2]).join(&hex[2..])
    }

    /// Opens an object for reading, from the middle too. Blocks.
    pub fn open_object(&self, digest: &Digest) -> io::Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }

    /// Deletes an object's file; the row that knew it must be gone. Blocks.
    pub fn delete(&self, digest: &Digest, _sole: &Sole) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Deletes every file that is not `known`; gives how many. Blocks.
    pub fn sweep(&self, known: &BTreeSet<Digest>, sole: &Sole) -> io::Result<usize> {
        let mut swept = 0;
        for digest in self.list()? {
            if !known.contains(&digest) {
                self.delete(&digest, sole)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// The objects that are in the folder. Blocks.
    fn list(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            let prefix = folder.file_name();
            let Some(prefix) = prefix.to_str().filter(|name| name.len() == 2) else { continue };
            for file in fs::read_dir(folder.path())? {
                let name = file?.file_name();
                if let Some(Ok(digest)) = name.to_str().map(|rest| format!("{prefix}{rest}").parse()) {
                    found.push(digest);
                }
            }
        }
        Ok(found)
    }

    /// Bytes that are free on the folder's filesystem for this process. Blocks.
    pub fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Scratch files of the delta engine, without a name.
impl Scratch for Objects {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(tempfile::tempfile_in(self.root.join("tmp"))?))
    }
}

impl std::fmt::Debug for NewObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewObject").field("file", &self.file).field("size", &self.size).finish_non_exhaustive()
    }
}

impl NewObject {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What was written so far, to be read; it stands at the start. Blocks.
    pub fn reopen(&self) -> io::Result<File> {
        self.file.reopen()
    }

    /// Puts the object in its place, on the disk; gives its digest and bytes. The same object twice is one file. Blocks.
    pub fn keep(self, _pin: &Pin) -> io::Result<(Digest, u64)> {
        let bytes: [u8; 32] = self.hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        let digest = Digest::new(bytes);
        let hex = digest.hex();
        let folder = self.root.join(&hex[..2]);
        let made = match fs::create_dir(&folder) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        self.file.as_file().sync_all()?;
        // By the standard library: its call is one that the tests of power cuts see.
        fs::rename(self.file.path(), folder.join(&hex[2..]))?;
        self.file.into_temp_path().keep().map_err(|e| e.error)?;
        File::open(&folder)?.sync_all()?;
        if made {
            File::open(&self.root)?.sync_all()?;
        }
        Ok((digest, self.size))
    }
}

impl Write for NewObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.as_file_mut().write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    async fn put(objects: &Objects, bytes: &[u8]) -> Digest {
        let mut object = objects.begin().unwrap();
        object.write_all(bytes).unwrap();
        let (digest, size) = object.keep(&objects.pin().await).unwrap();
        assert_eq!(size, bytes.len() as u64);
        digest
    }

    #[tokio::test]
    async fn what_is_put_can_be_read_and_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let digest = put(&objects, b"hello").await;
        assert_eq!(put(&objects, b"hello").await, digest);
        assert_eq!(digest.hex(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        let mut text = String::new();
        objects.open_object(&digest).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(objects.list().unwrap(), [digest]);
        assert!(objects.free().unwrap() > 0);
    }

    #[tokio::test]
    async fn leftovers_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let (kept, unknown) = (put(&objects, b"kept").await, put(&objects, b"unknown").await);
        // A process that was killed while it wrote does not run destructors.
        let mut half = objects.begin().unwrap();
        half.write_all(b"half").unwrap();
        std::mem::forget(half);
        assert_eq!(fs::read_dir(folder.path().join("objects/tmp")).unwrap().count(), 1);
        let objects = Objects::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("objects/tmp")).unwrap().count(), 0);
        assert_eq!(objects.sweep(&BTreeSet::from([kept]), &objects.sole().await).unwrap(), 1);
        assert!(objects.open_object(&kept).is_ok());
        assert_eq!(objects.open_object(&unknown).unwrap_err().kind(), io::ErrorKind::NotFound);
        objects.delete(&unknown, &objects.sole().await).unwrap();
    }

    #[tokio::test]
    async fn an_object_that_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let mut object = objects.begin().unwrap();
        object.write_all(b"never mind").unwrap();
        drop(object);
        assert_eq!(fs::read_dir(folder.path().join("objects/tmp")).unwrap().count(), 0);
        assert!(objects.list().unwrap().is_empty());
    }
}
