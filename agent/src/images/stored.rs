//! Bundles that are kept after their image is there: an image that the engine loses is made again from its own, without the server.
//!
//! They lie where bundles on their way lie, under the same names. Kept are bundles of images that must stay, and of the bases that these are
//! made from, the smallest first, up to the configured bytes: a small patch mends as much as a large bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use skerry_engine::Engine;
use skerry_wire::{Digest, ImageId};

use super::{Come, Images};
use crate::blocking;
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

/// Bases of the bundle files that were looked into: what a file says does not change.
pub(super) type BasesOf = BTreeMap<String, Vec<ImageId>>;

/// The longest chain of bundles that is followed from an image to one that has no bases.
const CHAIN: usize = 16;

impl<E: Engine> Images<E> {
    /// These images, and those that their kept bundles are made from, and so on.
    pub(super) fn with_bases(&self, images: &BTreeSet<ImageId>, known: &mut BasesOf) -> BTreeSet<ImageId> {
        let keys = self.bundle_keys();
        let files: Vec<(ImageId, PathBuf, String)> = in_folder(&self.folder).filter_map(named).collect();
        known.retain(|name, _| files.iter().any(|(_, _, n)| n == name));
        let mut all = images.clone();
        for _ in 0..CHAIN {
            let before = all.len();
            for (_, path, name) in files.iter().filter(|(image, _, _)| images.contains(image) || all.contains(image)) {
                if !known.contains_key(name)
                    && let Some(table) = fetch::table_in(path, &keys)
                {
                    known.insert(name.clone(), table.toc().bases.clone());
                }
            }
            let bases =
                files.iter().filter(|(image, _, _)| all.contains(image)).filter_map(|(_, _, name)| known.get(name)).flatten().copied();
            let bases: Vec<ImageId> = bases.collect();
            all.extend(bases);
            if all.len() == before {
                break;
            }
        }
        all
    }

    /// A kept bundle that leads to this image, which is lacking: its own when its bases are there, else that of a base. What has just come is
    /// there, whatever an older look at the engine saw.
    pub(super) async fn stored(&self, image: ImageId, come: &Come) -> Option<BundleRow> {
        let mut present: BTreeSet<ImageId> = self.inventory.borrow().iter().flat_map(|i| i.images.iter().copied()).collect();
        present.extend(come.iter().map(|(_, image)| *image));
        let mut wanted = image;
        for _ in 0..CHAIN {
            let (row, lacking) = self.whole(wanted).await?;
            match lacking.into_iter().find(|base| !present.contains(base)) {
                None => {
                    tracing::info!("image {}: made again from a kept bundle of {} bytes", wanted.digest().short(), row.size);
                    return Some(row);
                }
                Some(base) => wanted = base,
            }
        }
        None
    }

    /// A kept bundle of this image that is whole, with its bases.
    async fn whole(&self, image: ImageId) -> Option<(BundleRow, Vec<ImageId>)> {
        let found: Vec<_> = in_folder(&self.folder).filter_map(named).filter(|(i, _, _)| *i == image).collect();
        for (_, path, name) in found {
            let (_, digest) = parts(&name)?;
            let keys = self.bundle_keys();
            let Some(table) = fetch::table_in(&path, &keys) else { continue };
            let size = table.size();
            if !std::fs::metadata(&path).is_ok_and(|m| m.len() == size) || table.toc().target != image {
                continue;
            }
            let file = path.clone();
            if !blocking::run(move || fetch::is_whole(&file, &keys)).await.unwrap_or(false) {
                // The server may offer the same one: then what holds of it stays of use. Without its last byte it is a bundle under way, which
                // is not hashed at every look.
                tracing::warn!("kept bundle {} is damaged: what is wrong in it is to be fetched again", path.display());
                let shortened = std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(size.saturating_sub(1)));
                if let Err(error) = shortened {
                    tracing::warn!("{}: {error}: it goes", path.display());
                    let _ = crate::files::remove(&path);
                }
                continue;
            }
            // Its release was checked when it came; the image's id is in a specification that a release key signed.
            let row = BundleRow { image, digest, size, capability: String::new(), release: vec![] };
            return Some((row, table.toc().bases.clone()));
        }
        None
    }
}

fn named(path: PathBuf) -> Option<(ImageId, PathBuf, String)> {
    let name = path.file_name()?.to_str()?.to_owned();
    Some((parts(&name)?.0, path, name))
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
