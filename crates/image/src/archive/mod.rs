//! What a publisher has: a `docker save` archive or an OCI layout.
//!
//! In: a tar with `manifest.json` (Docker; the layers as `<id>/layer.tar` or, since Docker 25, as `blobs/sha256/<digest>`), or an OCI
//! layout with `index.json`, as a folder or as a tar. Layers may be plain, gzip or zstd. Out: the images ([`Archive::images`]), and each
//! layer as the stream of its uncompressed tar ([`Archive::layer`]), checked against its diff_id when it ends.
//!
//! Promises: the archive is walked once, headers only, and never extracted; memory depends on the number of members, not on their size,
//! and has a bound that no archive passes; every error names the archive and the member, and says what to do.

mod layer;
mod meta;
mod plain;
mod store;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use skerry_wire::{DiffId, Digest, ImageId};

use crate::config::{ConfigError, ImageConfig};

pub use layer::LayerReader;
pub use plain::PlainLayer;
use store::Store;

/// Why an archive cannot be used. Each message names the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file or folder cannot be read.
    #[error("cannot read {archive}: {source}")]
    Io {
        /// Path of the archive.
        archive: String,
        /// What the system says.
        source: io::Error,
    },
    /// The archive is compressed as a whole.
    #[error("{archive} is compressed as a whole ({how}): unpack it first, e.g. `{tool} {archive}`")]
    Compressed {
        /// Path of the archive.
        archive: String,
        /// `gzip`, `zstd`, ...
        how: &'static str,
        /// The command that unpacks it.
        tool: &'static str,
    },
    /// It is cut off.
    #[error("{archive} is truncated: it ends inside `{member}` ({need} bytes needed, {have} there). Save or copy the image again")]
    Truncated {
        /// Path of the archive.
        archive: String,
        /// The member.
        member: String,
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// It is not an archive, or is damaged.
    #[error("{archive} is not a usable tar archive: {what}. Save the image again with `docker save -o FILE NAME:TAG`")]
    Tar {
        /// Path of the archive.
        archive: String,
        /// What is wrong.
        what: String,
    },
    /// It has no image in it.
    #[error(
        "{archive} holds no image: neither `manifest.json` nor `index.json` is in it. \
         Make it with `docker save` (not `docker export`), or give an OCI layout"
    )]
    NoImage {
        /// Path of the archive.
        archive: String,
    },
    /// It names a member that is not there.
    #[error("{archive}: `{member}` ({role}) is named by `{named_by}` but is not in the archive. Save the image again")]
    Missing {
        /// Path of the archive.
        archive: String,
        /// The member.
        member: String,
        /// What it should be: `layer 2 of 5`, `configuration`.
        role: String,
        /// The member that names it.
        named_by: String,
    },
    /// A member's bytes are not those that its name or its descriptor says.
    #[error("{archive}: `{member}` is damaged: its SHA-256 is {actual}, expected {expected}. Save the image again")]
    Digest {
        /// Path of the archive.
        archive: String,
        /// The member.
        member: String,
        /// Digest by name or descriptor.
        expected: Digest,
        /// Digest of the bytes.
        actual: Digest,
    },
    /// A layer's uncompressed bytes do not give its diff_id.
    #[error(
        "{archive}: layer `{member}` does not match the image: its diff_id is {actual}, the configuration says {expected}. Save the image again"
    )]
    DiffId {
        /// Path of the archive.
        archive: String,
        /// The member.
        member: String,
        /// By the configuration.
        expected: DiffId,
        /// Of the bytes.
        actual: DiffId,
    },
    /// A member that is longer than any honest one.
    #[error("{archive}: `{member}` has more than {limit} bytes, the most that is allowed")]
    TooLarge {
        /// Path of the archive.
        archive: String,
        /// The member.
        member: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// A member whose content makes no sense.
    #[error("{archive}: `{member}` is not valid: {what}")]
    Member {
        /// Path of the archive.
        archive: String,
        /// The member.
        member: String,
        /// What is wrong.
        what: String,
    },
    /// The configuration makes no sense.
    #[error("{archive}: `{member}`: {source}")]
    Config {
        /// Path of the archive.
        archive: String,
        /// The member.
        member: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// Several images, and none was chosen.
    #[error("{archive} holds {} images; say which one: {}", choices.len(), choices.join(", "))]
    Several {
        /// Path of the archive.
        archive: String,
        /// Tags, or ids where there is no tag.
        choices: Vec<String>,
    },
    /// The chosen image is not in it.
    #[error("{archive} does not hold `{wanted}`; it holds {}", choices.join(", "))]
    NotFound {
        /// Path of the archive.
        archive: String,
        /// What was asked for.
        wanted: String,
        /// Tags, or ids where there is no tag.
        choices: Vec<String>,
    },
}

/// An image in an archive.
#[derive(Debug, Clone)]
pub struct ArchiveImage {
    /// SHA-256 of the configuration.
    pub image_id: ImageId,
    /// The configuration's own bytes.
    pub config_bytes: Vec<u8>,
    /// What Skerry reads in it; has architecture, os and diff_ids.
    pub config: ImageConfig,
    /// `name:tag` as the archive says; may be empty.
    pub repo_tags: Vec<String>,
    /// The layers, lowest first; as many as the configuration's diff_ids.
    pub layers: Vec<ArchiveLayer>,
}

impl ArchiveImage {
    fn choice(&self) -> String {
        self.repo_tags.first().cloned().unwrap_or_else(|| self.image_id.to_string())
    }

    fn is(&self, wanted: &str) -> bool {
        let tagged = |tag: &String| tag == wanted || tag.strip_suffix(":latest") == Some(wanted);
        self.repo_tags.iter().any(tagged) || self.image_id.to_string() == wanted || self.image_id.digest().hex() == wanted
    }
}

/// Where a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveLayer {
    /// SHA-256 of the uncompressed tar, by the configuration.
    pub diff_id: DiffId,
    /// The member that holds it.
    pub member: String,
    /// Bytes of the member, compressed or not.
    pub stored: u64,
}

/// An archive and the images in it.
#[derive(Debug)]
pub struct Archive<R> {
    store: Store<R>,
    images: Vec<ArchiveImage>,
}

impl Archive<File> {
    /// Opens a tar or an OCI layout's folder.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let label = path.display().to_string();
        let io = |source| ArchiveError::Io { archive: label.clone(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Self::from_store(Store::folder(PathBuf::from(path)));
        }
        Self::from_tar(file, &label)
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Walks over a tar. `label` names it in errors: its path.
    pub fn from_tar(reader: R, label: &str) -> Result<Self, ArchiveError> {
        Self::from_store(Store::tar(reader, label)?)
    }

    fn from_store(mut store: Store<R>) -> Result<Self, ArchiveError> {
        let images = meta::images(&mut store)?;
        Ok(Self { store, images })
    }

    /// The images, in the archive's order.
    pub fn images(&self) -> &[ArchiveImage] {
        &self.images
    }

    /// The image with this tag or id, or the only one when nothing is asked for.
    pub fn choose(&self, wanted: Option<&str>) -> Result<&ArchiveImage, ArchiveError> {
        let archive = self.store.label();
        let choices = || self.images.iter().map(ArchiveImage::choice).collect();
        match (wanted, self.images.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err(ArchiveError::Several { archive, choices: choices() }),
            (Some(wanted), images) => images.iter().find(|image| image.is(wanted)).ok_or_else(|| ArchiveError::NotFound {
                archive,
                wanted: wanted.into(),
                choices: choices(),
            }),
        }
    }

    /// The uncompressed tar of a layer. Its last read fails when the bytes do not give the diff_id: whoever reads to the end has a layer
    /// that is checked.
    pub fn layer(&mut self, layer: &ArchiveLayer) -> Result<LayerReader<'_>, ArchiveError> {
        let archive = self.store.label();
        let member = self.store.open(&layer.member, "layer", "the image")?;
        LayerReader::new(member, archive, layer)
    }
}

#[cfg(test)]
mod tests;
