//! The update lock: an application holds it to put a switch off.
//!
//! It is an exclusive `flock` on `update.lock` in the shared folder of its allocation (`/alloc/update.lock` in a container).

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use skerry_reconcile::{Instance, State};
use skerry_wire::AllocId;
use skerry_wire::manifest::Manifest;

/// Allocations that something newer waits for, and whose lock is held. Others are not looked at.
pub(crate) fn held(folder: &Path, manifest: Option<&Manifest>, instances: &[Instance]) -> BTreeSet<AllocId> {
    let Some(manifest) = manifest else { return BTreeSet::new() };
    let waits = |i: &&Instance| {
        let slot = &i.labels.slot;
        let of_place = |a: &&skerry_wire::manifest::ManifestAlloc| a.job == slot.job && a.group == slot.group && a.index == slot.index;
        i.state == State::Running && manifest.allocs.iter().find(of_place).is_some_and(|a| a.specification != i.labels.specification)
    };
    let allocs: BTreeSet<AllocId> = instances.iter().filter(waits).map(|i| i.labels.alloc).collect();
    allocs.into_iter().filter(|alloc| is_held(&folder.join(alloc.to_string()).join("alloc/update.lock"))).collect()
}

/// A link, a pipe or a device in its place is no lock.
fn is_held(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()) else { return false };
    // Shared, so that an application that takes it at this very moment meets nobody who holds it alone.
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exclusive_lock_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("update.lock");
        assert!(!is_held(&path));
        let file = std::fs::File::create(&path).unwrap();
        assert!(!is_held(&path));
        flock(&file, FlockOperation::LockExclusive).unwrap();
        assert!(is_held(&path));
        std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
        assert!(!is_held(&folder.path().join("link")));
        drop(file);
        assert!(!is_held(&path));
    }
}
