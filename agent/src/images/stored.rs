//! Bundles that are kept after their image is there: an image that the engine loses is made again from its own, without the server.
//!
//! They lie where bundles on their way lie, under the same names. Kept are bundles of images that must stay, the smallest first, up to the
//! configured bytes: a small patch mends as much as a large bundle.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use skerry_engine::Engine;
use skerry_wire::{Digest, ImageId};

use super::Images;
use crate::fetch;
use crate::ledger::BundleRow;

/// Bundle files in a folder.
pub(super) fn in_folder(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| parts(n).is_some()))
}

/// Image and bundle in the name of a bundle file.
pub(super) fn parts(name: &str) -> Option<(ImageId, Digest)> {
    let (image, bundle) = name.strip_suffix(".part")?.split_once('-')?;
    Some((image.parse().ok()?, bundle.parse().ok()?))
}

/// Of the bundle files of images that must stay, with their bytes: those that are kept.
pub(super) fn kept(mut files: Vec<(String, u64)>, most: u64) -> BTreeSet<String> {
    files.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    let mut left = most;
    let fits = files.into_iter().map_while(|(name, bytes)| {
        left = left.checked_sub(bytes)?;
        Some(name)
    });
    fits.collect()
}

impl<E: Engine> Images<E> {
    /// A kept bundle of this image that is whole and whose bases are there.
    pub(super) async fn stored(&self, image: ImageId) -> Option<BundleRow> {
        let present: BTreeSet<ImageId> = self.inventory.borrow().iter().flat_map(|i| i.images.iter().copied()).collect();
        if present.contains(&image) {
            // It has just come, and those who need it have not looked again yet.
            return None;
        }
        let of_image =
            |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).and_then(parts).filter(|(i, _)| *i == image).map(|(_, d)| d);
        let found: Vec<(PathBuf, Digest)> = in_folder(&self.folder).filter_map(|path| of_image(&path).map(|d| (path, d))).collect();
        for (path, digest) in found {
            let keys = self.bundle_keys();
            let Some(table) = fetch::table_in(&path, &keys) else { continue };
            let size = table.size();
            let whole = std::fs::metadata(&path).is_ok_and(|m| m.len() == size);
            if !whole || table.toc().target != image || !table.toc().bases.iter().all(|b| present.contains(b)) {
                continue;
            }
            let (file, to_hash) = (path.clone(), keys);
            if !tokio::task::spawn_blocking(move || fetch::is_whole(&file, &to_hash)).await.unwrap_or(false) {
                // What is wrong in it is not known to be fetchable any more: the server offers one anew.
                tracing::warn!("kept bundle {} is damaged and goes", path.display());
                let _ = crate::files::remove(&path);
                continue;
            }
            tracing::info!("image {}: made again from a kept bundle of {size} bytes", image.digest().short());
            // Its release was checked when it came; the image's id is in a specification that a release key signed.
            return Some(BundleRow { image, digest, size, capability: String::new(), release: vec![] });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_are_kept() {
        let files = |all: &[(&str, u64)]| all.iter().map(|(n, b)| ((*n).to_owned(), *b)).collect::<Vec<_>>();
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let all = files(&[("large", 90), ("a", 10), ("b", 10), ("c", 30)]);
        for (most, expected) in [
            (0, &[][..]),
            (10, &["a"]),
            (20, &["a", "b"]),
            (49, &["a", "b"]),
            (50, &["a", "b", "c"]),
            (u64::MAX, &["a", "b", "c", "large"]),
        ] {
            assert_eq!(kept(all.clone(), most), names(expected), "{most}");
        }
    }

    #[test]
    fn names_of_bundles() {
        let name = format!("{}-{}.part", "ab".repeat(32), "0c".repeat(32));
        let (image, bundle) = parts(&name).unwrap();
        assert_eq!((image.digest().hex(), bundle.hex()), ("ab".repeat(32), "0c".repeat(32)));
        for name in ["", "a-b.part", &name.replace(".part", ".spool"), &format!("{name}.part")] {
            assert_eq!(parts(name), None, "{name}");
        }
    }
}
