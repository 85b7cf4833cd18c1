//! What this node trusts and what proves that it is itself: the root store and the node key, both apart from the ledger.
//!
//! The first root comes with the configuration, newer ones with the server's replies; each is kept before it is used. The node key is
//! made on first boot and never leaves the node. Both are kept twice: any one file may be garbled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use skerry_trust::{KeyError, RootError, SigningKey, TrustedRoot};
use skerry_wire::{Blob, limits};
use tokio::sync::watch;

use crate::files::{self, FileError};

/// A key file is one line.
const KEY_FILE: usize = 1024;
/// Roots that one reply may bring; a chain longer than this goes on with the next reply.
const ROOTS_PER_REPLY: usize = 32;

/// Why the node has no key or no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key is garbled, twice.
    #[error(
        "the node key is garbled in both {first} and {second}: put one of them back from a backup, or remove both to enrol as a new node",
        first = first.display(), second = second.display()
    )]
    KeyGarbled {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// No key could be made.
    #[error("the node key could not be made: {0}")]
    NewKey(#[source] KeyError),
    /// The configured root is no good.
    #[error("root document {path} cannot be trusted: {source}", path = path.display())]
    FirstRoot {
        /// Where the configuration says it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: RootError,
    },
    /// There is no root file.
    #[error("root document {path} is not there: copy the server's root file to it, or set `root` in the configuration", path = .0.display())]
    NoRoot(PathBuf),
    /// A newer root from the server is no good.
    #[error("a newer root document from the server was refused: {0}")]
    NewRoot(#[source] RootError),
}

/// The node's key; made when the folder has none.
pub(crate) fn node_key(folder: &Path) -> Result<SigningKey, TrustError> {
    let paths = [folder.join("node.key"), folder.join("node.key.copy")];
    let mut found = [None, None];
    let mut garbled = false;
    for (path, found) in paths.iter().zip(&mut found) {
        let text = match files::read(path, KEY_FILE) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!("key file set aside: {error}");
                garbled = true;
                continue;
            }
        };
        let Some(bytes) = text else { continue };
        match std::str::from_utf8(&bytes).ok().and_then(|text| SigningKey::from_text(text).ok()) {
            Some(key) => *found = Some((key, bytes)),
            None => garbled = true,
        }
    }
    let (key, text) = match found {
        // When the copies differ the first counts: it is written first.
        [Some(whole), _] | [None, Some(whole)] => whole,
        [None, None] if garbled => {
            let [first, second] = paths;
            return Err(TrustError::KeyGarbled { first, second });
        }
        [None, None] => {
            let pkcs8 = SigningKey::generate(&ring::rand::SystemRandom::new()).map_err(TrustError::NewKey)?;
            (SigningKey::from_pkcs8(&pkcs8).map_err(TrustError::NewKey)?, SigningKey::to_text(&pkcs8).into_bytes())
        }
    };
    for path in &paths {
        if files::read(path, KEY_FILE).ok().flatten().as_ref() != Some(&text) {
            files::replace(path, &text, 0o600)?;
        }
    }
    Ok(key)
}

/// The root that is trusted now, and the way to newer ones. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RootStore {
    folder: Arc<PathBuf>,
    current: Arc<watch::Sender<Arc<TrustedRoot>>>,
}

impl RootStore {
    /// Begins with the root at `first` and goes on through the newer ones that `folder` keeps.
    pub(crate) fn open(folder: &Path, first: &Path) -> Result<Self, TrustError> {
        let bytes = files::read(first, limits::ROOT)?.ok_or_else(|| TrustError::NoRoot(first.to_owned()))?;
        let mut root = TrustedRoot::first(&bytes).map_err(|source| TrustError::FirstRoot { path: first.to_owned(), source })?;
        let folder = folder.join("roots");
        files::make_folder(&folder)?;
        while let Some(next) = next_kept(&folder, &root)? {
            root = next;
        }
        Ok(Self { folder: Arc::new(folder), current: Arc::new(watch::Sender::new(Arc::new(root))) })
    }

    /// The root that is trusted now.
    pub(crate) fn current(&self) -> Arc<TrustedRoot> {
        self.current.borrow().clone()
    }

    /// Follows newer roots; each is on the disk before it is trusted. Those that are not newer are passed over.
    pub(crate) fn follow(&self, roots: &[Blob]) -> Result<(), TrustError> {
        for bytes in roots.iter().take(ROOTS_PER_REPLY) {
            let trusted = self.current();
            let next = match trusted.update(&bytes.0) {
                Ok(next) => next,
                Err(RootError::NotNext { trusted, found }) if found <= trusted => continue,
                Err(error) => return Err(TrustError::NewRoot(error)),
            };
            for path in paths(&self.folder, next.root().version) {
                files::replace(&path, next.bytes(), 0o600)?;
            }
            tracing::info!(version = next.root().version, "trusting a newer root");
            self.current.send_replace(Arc::new(next));
        }
        Ok(())
    }
}

fn paths(folder: &Path, version: u64) -> [PathBuf; 2] {
    [folder.join(format!("{version}.cose")), folder.join(format!("{version}.cose.copy"))]
}

/// The kept root after this one, from the copy that is whole; the other copy is mended.
fn next_kept(folder: &Path, root: &TrustedRoot) -> Result<Option<TrustedRoot>, TrustError> {
    let paths = paths(folder, root.root().version.saturating_add(1));
    let read: Vec<Option<TrustedRoot>> = paths.iter().map(|path| root.update(&files::read(path, limits::ROOT).ok()??).ok()).collect();
    let Some(next) = read.iter().flatten().next().cloned() else { return Ok(None) };
    for (path, found) in paths.iter().zip(&read) {
        if found.is_none() {
            files::replace(path, next.bytes(), 0o600)?;
        }
    }
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_trust::{PublicKey, Role, RoleKeys, Root, sign_root};
    use skerry_wire::Timestamp;
    use std::collections::BTreeMap;

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap()
    }

    fn root(version: u64, key: &SigningKey) -> Blob {
        let keys = |k: PublicKey| RoleKeys { keys: vec![k], threshold: 1 };
        let roles = BTreeMap::from([Role::Root, Role::Release, Role::Director].map(|role| (role, keys(key.public()))));
        Blob(sign_root(&Root { version, roles, time_cap: Timestamp(i64::MAX) }, &[key]))
    }

    #[test]
    fn the_key_is_made_once_and_survives_one_garbled_file() {
        let dir = tempfile::tempdir().unwrap();
        let key = node_key(dir.path()).unwrap().public();
        for name in ["node.key", "node.key.copy"] {
            let path = dir.path().join(name);
            let whole = std::fs::read(&path).unwrap();
            for damage in [Vec::new(), whole[..whole.len() / 2].to_vec(), b"x".repeat(5000)] {
                std::fs::write(&path, damage).unwrap();
                assert_eq!(node_key(dir.path()).unwrap().public(), key, "{name}");
                assert_eq!(std::fs::read(&path).unwrap(), whole, "{name} is mended");
            }
        }
        for name in ["node.key", "node.key.copy"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        assert!(node_key(dir.path()).unwrap_err().to_string().contains("node.key.copy"));
    }

    #[test]
    fn roots_are_followed_kept_and_never_left() {
        let dir = tempfile::tempdir().unwrap();
        let (key, other) = (key(), self::key());
        let first = dir.path().join("root.cose");
        assert!(matches!(RootStore::open(dir.path(), &first), Err(TrustError::NoRoot(_))));
        std::fs::write(&first, &root(1, &key).0).unwrap();
        let store = RootStore::open(dir.path(), &first).unwrap();
        assert!(store.follow(&[root(3, &key)]).is_err(), "one was left out");
        assert!(store.follow(&[root(2, &other)]).is_err(), "signed by a stranger");
        store.follow(&[root(1, &key), root(2, &key), root(3, &key)]).unwrap();
        assert_eq!(store.current().root().version, 3);
        for name in ["2.cose", "3.cose.copy"] {
            std::fs::write(dir.path().join("roots").join(name), b"garbled").unwrap();
            assert_eq!(RootStore::open(dir.path(), &first).unwrap().current().root().version, 3, "{name}");
        }
    }
}
