//! Is an image that the engine lists really there? It is exported and every layer in the export compared with its digest; nothing of it
//! is kept.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use skerry_image::Sha256;
use skerry_wire::{Digest, ImageId};

use super::{CALL, DockerEngine};
use crate::EngineError;

/// Tar works in blocks of this size.
const BLOCK: usize = 512;

impl DockerEngine {
    pub(super) async fn read_back(&self, id: &ImageId, stall: Duration) -> Result<bool, EngineError> {
        let (store, own) = (self.store().await?, self.own_id(id).await?);
        let reference = own.to_string();
        let image = match self.call(&format!("look at image `{reference}`"), CALL, self.docker()?.inspect_image(&reference)).await {
            Ok(image) => image,
            // It is in the list, by another name than it was asked for: what it was made of is gone.
            Err(EngineError::Refused { status: 404, .. }) if own != *id => return Ok(false),
            Err(EngineError::Refused { status: 404, .. }) => return Err(EngineError::NoImage { reference: id.to_string() }),
            // The engine lists it and cannot read what it wrote about it.
            Err(EngineError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let layers = image.root_fs.and_then(|r| r.layers).unwrap_or_default();
        // Containerd's store has layers as they came, and exports them so.
        let wanted: Option<BTreeSet<Digest>> = match self.manifest(&store, &own) {
            Some(manifest) => Some(manifest.layers.into_iter().collect()),
            None => layers.iter().map(|l| l.parse().ok()).collect(),
        };
        let Some(wanted) = wanted else { return Ok(false) };
        let mut members = Members::default();
        let mut archive = pin!(self.save_archive(&reference, stall));
        while let Some(piece) = archive.next().await {
            match piece {
                Ok(piece) => members.take(&piece),
                Err(error @ (EngineError::Unreachable { .. } | EngineError::Timeout { .. })) => return Err(error),
                // It broke off in the middle: a file of a layer is gone.
                Err(_) => return Ok(false),
            }
        }
        Ok(wanted.is_subset(&members.found) && members.found.contains(id.digest()))
    }
}

/// Hashes the files of a tar as it comes, in bounded memory.
#[derive(Debug, Default)]
struct Members {
    /// A header, as far as it is here.
    header: Vec<u8>,
    /// Bytes of the member that are still to come, and of the padding behind it.
    left: (u64, u64),
    hash: Option<Sha256>,
    /// Digests of all members.
    found: BTreeSet<Digest>,
}

impl Members {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Some(hash) = &mut self.hash {
                let n = usize::try_from(self.left.0).unwrap_or(usize::MAX).min(bytes.len());
                hash.update(&bytes[..n]);
                self.left.0 -= n as u64;
                bytes = &bytes[n..];
                self.end_member();
            } else if self.left.1 > 0 {
                let n = usize::try_from(self.left.1).unwrap_or(usize::MAX).min(bytes.len());
                self.left.1 -= n as u64;
                bytes = &bytes[n..];
            } else {
                let n = (BLOCK - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                if self.header.len() == BLOCK {
                    let size = size(&self.header);
                    self.header.clear();
                    self.left = (size, size.next_multiple_of(BLOCK as u64) - size);
                    self.hash = Some(Sha256::new());
                    self.end_member();
                }
            }
        }
    }

    fn end_member(&mut self) {
        if self.left.0 == 0
            && let Some(hash) = self.hash.take()
        {
            self.found.insert(hash.digest());
        }
    }
}

/// Bytes of the content behind a header: octal digits, or the big-endian number that GNU writes for long files. One that cannot be read
/// counts as none: what follows then hashes to nothing that is looked for.
fn size(header: &[u8]) -> u64 {
    let field = &header[124..136];
    let size = if field[0] & 0x80 != 0 {
        field[4..].iter().fold(0u64, |n, b| n << 8 | u64::from(*b))
    } else {
        field.iter().filter(|b| matches!(b, b'0'..=b'7')).fold(0u64, |n, b| n << 3 | u64::from(b - b'0'))
    };
    // Above any layer: the padding is counted from it.
    size.min(1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_hashed_in_whatever_pieces_they_come() {
        let content = [b"a".repeat(1000), b"b".repeat(512), Vec::new(), b"c".to_vec()];
        let mut tar = Vec::new();
        for (n, bytes) in content.iter().enumerate() {
            tar.extend(skerry_image::load::single_file_layer(&n.to_string(), bytes));
        }
        for pieces in [1, 7, 512, 5000] {
            let mut members = Members::default();
            for piece in tar.chunks(pieces) {
                members.take(piece);
            }
            for bytes in &content {
                assert!(members.found.contains(&skerry_image::sha256(bytes)), "{pieces}");
            }
        }
        let mut members = Members::default();
        members.take(&[0xff; 4096]);
        assert!(members.found.is_empty());
        assert_eq!(
            size(&{
                let mut header = [0; BLOCK];
                header[124] = 0x80;
                header[134] = 1;
                header
            }),
            256
        );
    }
}
