//! Whether the file of an object still has the bytes that its name says.
//!
//! In: an object that a node asks for. Out: its file, whole; or that it is damaged. A file is hashed before the first of its bytes is sent
//! by this process, and again when it was changed or a node found it wrong: what a disk loses or garbles is noticed here, not after it went
//! over a link that somebody pays for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use skerry_wire::Digest;

use crate::objects::Objects;

/// A node that doubts an object has it hashed again at most so often.
const DOUBTED: Duration = Duration::from_secs(10 * 60);
/// A bundle whose file is found damaged is built again so often within [`WHILE`]; then it waits, for a disk that garbles what it is given
/// would have it built for ever.
const REBUILDS: usize = 5;
/// See [`REBUILDS`].
const WHILE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// What is known of the files of objects.
#[derive(Debug, Default)]
pub struct Checked {
    objects: Mutex<BTreeMap<Digest, Arc<Object>>>,
}

#[derive(Debug, Default)]
struct Object {
    /// It is to be hashed again, as soon as it may.
    doubted: AtomicBool,
    /// And that at once.
    failed: AtomicBool,
    known: Arc<tokio::sync::Mutex<Known>>,
    /// When it was built again.
    rebuilt: Mutex<Vec<Instant>>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Known {
    /// The file that was hashed last, and whether it was whole.
    hashed: Option<(Stamp, bool)>,
    looked: Option<Instant>,
}

/// A file as it was: another one, or a changed one, has another stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Checked {
    /// Opens the file of an object of this size; `None` when it is gone, or has other bytes. Of many who ask for it at once, one hashes it.
    pub async fn open(&self, objects: &Objects, digest: Digest, size: u64) -> io::Result<Option<File>> {
        let object = Arc::clone(self.all().entry(digest).or_default());
        let mut known = Arc::clone(&object.known).lock_owned().await;
        let rested = known.looked.is_none_or(|looked| looked.elapsed() >= DOUBTED);
        if object.failed.swap(false, Ordering::Relaxed) || rested && object.doubted.swap(false, Ordering::Relaxed) {
            known.hashed = None;
        }
        let objects = objects.clone();
        tokio::task::spawn_blocking(move || look(&objects, &digest, size, &mut known)).await.map_err(io::Error::other)?
    }

    /// A node says that what it got was wrong: the file is hashed again before it is sent again, but not all the time.
    pub fn doubt(&self, digest: &Digest) {
        if let Some(object) = self.all().get(digest) {
            object.doubted.store(true, Ordering::Relaxed);
        }
    }

    /// The file could not be read: it is hashed again before it is sent again.
    pub fn failed(&self, digest: &Digest) {
        if let Some(object) = self.all().get(digest) {
            object.failed.store(true, Ordering::Relaxed);
        }
    }

    /// The bundle that this object is was found damaged: may it be built again?
    pub fn may_rebuild(&self, digest: &Digest) -> bool {
        self.all().get(digest).is_none_or(|object| {
            let mut rebuilt = object.rebuilt.lock().unwrap_or_else(PoisonError::into_inner);
            rebuilt.retain(|at| at.elapsed() < WHILE);
            rebuilt.len() < REBUILDS
        })
    }

    /// It is built again.
    pub fn rebuilt(&self, digest: &Digest) {
        let object = Arc::clone(self.all().entry(*digest).or_default());
        object.rebuilt.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// An operator did something about damage: what was given up may be built again as often as before.
    pub fn pardon(&self) {
        for object in self.all().values() {
            object.rebuilt.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// The object is deleted.
    pub fn forget(&self, digest: &Digest) {
        self.all().remove(digest);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Arc<Object>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(objects: &Objects, digest: &Digest, size: u64, known: &mut Known) -> io::Result<Option<File>> {
    let mut file = match objects.open_object(digest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let found = file.metadata()?;
    let stamp = Stamp { inode: found.ino(), size: found.len(), changed: (found.mtime(), found.mtime_nsec()) };
    if let Some((_, whole)) = known.hashed.filter(|(hashed, _)| *hashed == stamp) {
        return Ok(whole.then_some(file));
    }
    known.hashed = None;
    known.looked = Some(Instant::now());
    let whole = match hash(&mut file) {
        Ok(hash) => hash == *digest && stamp.size == size,
        // A place that cannot be read is as good as a wrong byte there: the file is made anew, elsewhere on the disk.
        Err(error) => {
            tracing::error!(object = %digest, %error, "the file of an object cannot be read");
            false
        }
    };
    known.hashed = Some((stamp, whole));
    file.rewind()?;
    Ok(whole.then_some(file))
}

fn hash(file: &mut File) -> io::Result<Digest> {
    let (mut hash, mut piece) = (Context::new(&SHA256), vec![0; PIECE]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Digest::new(hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const SIZE: usize = 300_000;

    async fn put(objects: &Objects) -> Digest {
        let mut object = objects.begin().unwrap();
        object.write_all(&vec![7; SIZE]).unwrap();
        object.keep(&objects.pin().await).unwrap().0
    }

    async fn is_whole(checked: &Checked, objects: &Objects, digest: Digest) -> bool {
        let Some(mut file) = checked.open(objects, digest, SIZE as u64).await.unwrap() else { return false };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes.len() == SIZE
    }

    #[tokio::test]
    async fn a_file_that_is_damaged_is_not_opened_until_it_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (objects, checked) = (Objects::open(folder.path()).unwrap(), Checked::default());
        let digest = put(&objects).await;
        let path = objects.path(&digest);
        let damages: [fn(&std::path::Path); 4] = [
            |path| {
                let mut bytes = fs::read(path).unwrap();
                bytes[200_000] ^= 1;
                fs::write(path, bytes).unwrap();
                // Clocks of file systems may be slower than this test.
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            },
            |path| fs::write(path, vec![7; SIZE - 1]).unwrap(),
            |path| fs::write(path, vec![7; SIZE + 1]).unwrap(),
            |path| fs::remove_file(path).unwrap(),
        ];
        for (n, damage) in damages.into_iter().enumerate() {
            // Hashed once already, and again: the second time it is opened without.
            assert!(is_whole(&checked, &objects, digest).await && is_whole(&checked, &objects, digest).await);
            damage(&path);
            assert!(!is_whole(&checked, &objects, digest).await, "damage {n}");
            assert!(!is_whole(&checked, &objects, digest).await, "damage {n}, asked again");
            assert_eq!(put(&objects).await, digest);
        }
        assert!(is_whole(&checked, &objects, digest).await);
    }

    #[tokio::test]
    async fn what_a_node_doubts_is_hashed_again_but_not_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let (objects, checked) = (Objects::open(folder.path()).unwrap(), Checked::default());
        let digest = put(&objects).await;
        assert!(is_whole(&checked, &objects, digest).await);
        // A byte that changes below the file system: the stamp stays.
        let path = objects.path(&digest);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"?", 1000).unwrap();
        file.set_modified(time).unwrap();
        assert!(is_whole(&checked, &objects, digest).await, "nobody doubts it");
        checked.doubt(&digest);
        assert!(is_whole(&checked, &objects, digest).await, "hashed just before");
        // The doubt is not forgotten.
        let object = Arc::clone(&checked.all()[&digest]);
        object.known.lock().await.looked = Instant::now().checked_sub(DOUBTED);
        assert!(!is_whole(&checked, &objects, digest).await);
        assert_eq!(put(&objects).await, digest);
        assert!(is_whole(&checked, &objects, digest).await);
        // What could not be read is hashed again at once.
        checked.failed(&digest);
        object.known.lock().await.looked = None;
        assert!(is_whole(&checked, &objects, digest).await && object.known.lock().await.looked.is_some());
        checked.forget(&digest);
        checked.doubt(&digest);
        assert!(checked.all().is_empty());
    }
}
