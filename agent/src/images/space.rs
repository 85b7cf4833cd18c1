//! Is there room? Asked before the first byte of a bundle's payload is fetched.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes that must stay free for everything else on the disk.
const SPARE: u64 = 32 << 20;

/// What a file system has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    /// Which file system.
    pub(super) device: u64,
    /// Bytes free.
    pub(super) free: u64,
}

/// The file system that a folder is on.
pub(super) fn disk_of(path: &Path) -> io::Result<Disk> {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        return Ok(Disk { device: 1, free: machine.disk_free() });
    }
    let stat = rustix::fs::statvfs(path)?;
    Ok(Disk { device: std::fs::metadata(path)?.dev(), free: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

/// About how many bytes the export of an image takes whose files have so many: every file has a header and is padded.
pub(super) fn export_of(image: u64) -> u64 {
    image.saturating_add(image / 8).saturating_add(16 << 20)
}

/// Of the disk that applying a bundle needs, what scratch files beside it take. The rest is the engine's, which stages the new layers,
/// of so many bytes each, before it keeps them.
pub(super) fn scratch_of(disk: u64, new_layers: impl Iterator<Item = u64>) -> u64 {
    disk.saturating_sub(new_layers.fold(0, u64::saturating_add).saturating_mul(2))
}

/// What a storage driver that shares nothing between layers takes beside the new layers themselves: each of them has a copy of all that is
/// below it, and the first container of the image has two of the whole. `below` are the bytes of the bases, `new` those of the new layers,
/// lowest first.
pub(super) fn copies_of(below: u64, new: impl Iterator<Item = u64>) -> u64 {
    let (whole, copies) = new.fold((below, 0u64), |(whole, copies), size| (whole.saturating_add(size), copies.saturating_add(whole)));
    copies.saturating_add(whole.saturating_mul(2))
}

/// What lacks room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lack {
    /// Why, for people.
    pub(super) why: String,
    /// Bytes that must be free on the engine's disk; 0 when it is not that disk.
    pub(super) wanted_free: u64,
}

/// Why there is no room for `bundle` more bytes in the agent's folder and `engine` bytes under the engine's data root.
pub(super) fn lacking(bundle: u64, ours: (&Path, Disk), engine: u64, theirs: (&Path, Disk)) -> Option<Lack> {
    let check = |path: &Path, needed: u64, free: u64| {
        let needed = needed.saturating_add(SPARE);
        (free < needed).then(|| Lack {
            why: format!("not enough space on the disk of {}: {} needed, {} free", path.display(), mib(needed), mib(free)),
            wanted_free: if path == theirs.0 { needed } else { 0 },
        })
    };
    if ours.1.device == theirs.1.device {
        return check(theirs.0, bundle.saturating_add(engine), theirs.1.free.min(ours.1.free));
    }
    check(ours.0, bundle, ours.1.free).or_else(|| check(theirs.0, engine, theirs.1.free))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_disks_count_and_one_disk_counts_once() {
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let disk = |device, mib: u64| Disk { device, free: mib << 20 };
        let need = |bundle: u64, ours, engine: u64, theirs| lacking(bundle << 20, (a, ours), engine << 20, (b, theirs));
        assert_eq!(need(100, disk(1, 132), 200, disk(2, 232)), None);
        let lack = need(101, disk(1, 132), 200, disk(2, 232)).unwrap();
        assert!(lack.why.contains("/a: 133 MiB needed, 132 MiB free") && lack.wanted_free == 0, "{lack:?}");
        let lack = need(100, disk(1, 132), 201, disk(2, 232)).unwrap();
        assert!(lack.why.contains("/b") && lack.wanted_free == 233 << 20, "{lack:?}");
        assert_eq!(need(100, disk(1, 332), 200, disk(1, 332)), None);
        assert!(need(100, disk(1, 331), 200, disk(1, 331)).unwrap().why.contains("/b: 332 MiB needed"));
        assert!(lacking(u64::MAX, (a, disk(1, 1)), u64::MAX, (b, disk(1, 1))).is_some());
    }

    #[test]
    fn layers_that_share_nothing_are_copied_into_those_above() {
        // On 100 of the bases 10, which has a copy of the 100, and 1, which has one of the 110; two of the whole 111 for a container.
        assert_eq!(copies_of(100, [10, 1].into_iter()), 100 + 110 + 222);
        assert_eq!(copies_of(0, [10].into_iter()), 20);
        assert_eq!(copies_of(u64::MAX, [1, 1].into_iter()), u64::MAX);
    }

    #[test]
    fn scratch_is_what_the_engine_does_not_take() {
        assert_eq!(scratch_of(1000, [100, 300].into_iter()), 200);
        assert_eq!(scratch_of(10, [].into_iter()), 10);
        assert_eq!(scratch_of(799, [100, 300].into_iter()), 0);
        assert_eq!(scratch_of(u64::MAX, [u64::MAX, 1].into_iter()), 0);
    }

    #[test]
    fn a_folder_has_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(disk_of(dir.path()).unwrap().free > 0);
        assert!(disk_of(&dir.path().join("gone")).is_err());
    }
}
