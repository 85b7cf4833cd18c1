//! Where a layer stands uncompressed in a file, for those who read it from the middle.

use std::io::{Read, Seek};
use std::path::PathBuf;

use super::store::Store;
use super::{Archive, ArchiveError, ArchiveLayer};

/// A layer's tar as a part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainLayer {
    /// The file, in an OCI layout's folder; `None` for the archive itself.
    pub file: Option<PathBuf>,
    /// Where the tar begins in the file, bytes.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Where a layer's tar is; `None` when it is compressed, and only [`Archive::layer`] gives it.
    pub fn plain(&mut self, layer: &ArchiveLayer) -> Result<Option<PlainLayer>, ArchiveError> {
        let archive = self.store.label();
        let mut magic = Vec::new();
        let reader = self.store.open(&layer.member, "layer", "the image")?.reader;
        reader.take(4).read_to_end(&mut magic).map_err(|source| ArchiveError::Io { archive, source })?;
        // The same as what a layer's reader goes by.
        if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] || magic.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) {
            return Ok(None);
        }
        Ok(match &self.store {
            Store::Tar { members, .. } => {
                super::store::place(members, &layer.member).map(|(offset, size)| PlainLayer { file: None, offset, size })
            }
            Store::Folder { path } => Some(PlainLayer { file: Some(path.join(&layer.member)), offset: 0, size: layer.stored }),
        })
    }
}
