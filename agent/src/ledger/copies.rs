//! The second copy of everything that is kept twice: small files beside the ledger, each with a checksum of its own.
//!
//! `manifest`, `memory` and `node` hold one value each, `specifications/<hex>` one signed specification each, named by its digest.

use std::path::{Path, PathBuf};

use skerry_trust::{decode_slot, encode_slot};
use skerry_wire::{Digest, limits};

use crate::files::{self, FileError, Staged};

/// Bytes that a checksummed copy has over its value; generous.
const OVERHEAD: usize = 128;
/// The longest memory of the reconciler that is kept twice.
pub(super) const MEMORY: usize = 16 * 1024 * 1024;
/// Mode of the copies.
const MODE: u32 = 0o600;

/// A value of which one copy is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    /// The envelope of the manifest in force.
    Manifest,
    /// The reconciler's memory.
    Memory,
    /// The node's id.
    Node,
    /// Meta set on the node.
    Meta,
}

impl Copy {
    /// The longest meta set on the node.
    pub(super) const META: usize = 256 * 1024;

    fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Memory => "memory",
            Self::Node => "node",
            Self::Meta => "meta",
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Manifest => limits::MANIFEST,
            Self::Memory => MEMORY,
            Self::Node => 64,
            Self::Meta => Self::META,
        }
    }
}

/// The folder of the copies.
#[derive(Debug)]
pub(super) struct Copies {
    folder: PathBuf,
}

impl Copies {
    pub(super) fn open(folder: &Path) -> Result<Self, FileError> {
        let folder = folder.join("copies");
        files::make_folder(&folder.join("specifications"))?;
        Ok(Self { folder })
    }

    /// The value, when its copy is whole.
    pub(super) fn get(&self, copy: Copy) -> Option<Vec<u8>> {
        self.get_numbered(copy).map(|(_, value)| value)
    }

    /// As `get`, with the number that it was written under.
    pub(super) fn get_numbered(&self, copy: Copy) -> Option<(u64, Vec<u8>)> {
        let path = self.folder.join(copy.name());
        match files::read(&path, copy.limit().saturating_add(OVERHEAD)) {
            Ok(None) => None,
            Ok(Some(bytes)) => match decode_slot(&bytes) {
                Ok((number, value)) => Some((number, value.to_vec())),
                Err(error) => {
                    tracing::warn!("copy {} set aside: {error}", path.display());
                    None
                }
            },
            Err(error) => {
                tracing::warn!("copy set aside: {error}");
                None
            }
        }
    }

    pub(super) fn put(&self, copy: Copy, value: &[u8]) -> Result<(), FileError> {
        self.put_numbered(copy, 0, value)
    }

    /// As `put`, under a number that rises: of two copies the one with the higher number is the newer one.
    pub(super) fn put_numbered(&self, copy: Copy, number: u64, value: &[u8]) -> Result<(), FileError> {
        self.stage(copy, number, value)?.finish()
    }

    /// As `put_numbered`, but for the last step.
    pub(super) fn stage(&self, copy: Copy, number: u64, value: &[u8]) -> Result<Staged, FileError> {
        files::stage(&self.folder.join(copy.name()), &encode_slot(number, value), MODE)
    }

    fn specification(&self, digest: &Digest) -> PathBuf {
        self.folder.join("specifications").join(digest.hex())
    }

    /// The specification's envelope, when its copy is whole.
    pub(super) fn get_specification(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = files::read(&self.specification(digest), limits::SPECIFICATION).ok().flatten()?;
        (sha256(&bytes) == *digest).then_some(bytes)
    }

    pub(super) fn put_specification(&self, digest: &Digest, bytes: &[u8]) -> Result<(), FileError> {
        files::replace(&self.specification(digest), bytes, MODE)
    }

    pub(super) fn remove_specification(&self, digest: &Digest) -> Result<(), FileError> {
        files::remove(&self.specification(digest))
    }

    /// Digests of the specifications that have a file, whole or not.
    pub(super) fn specifications(&self) -> Result<Vec<Digest>, FileError> {
        let folder = self.folder.join("specifications");
        let entries = std::fs::read_dir(&folder).map_err(FileError::at(&folder))?;
        let mut digests: Vec<Digest> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
        digests.sort();
        Ok(digests)
    }
}

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Digest::new(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}
