//! May this offer be followed? The release must be a release key's word that the image is genuine.

use skerry_trust::TrustedRoot;
use skerry_wire::release::Release;
use skerry_wire::{Blob, Digest, ImageId, limits};

use crate::ledger::BundleRow;

/// The longest capability.
const CAPABILITY: usize = 128;

/// Checks an offer; the reason for people when it is no good.
pub(super) fn check(
    root: &TrustedRoot,
    image: ImageId,
    digest: Digest,
    size: u64,
    capability: &str,
    release: &Blob,
) -> Result<BundleRow, String> {
    let (content, _) = root
        .open_release::<Release>(&release.0, Release::PURPOSE, limits::RELEASE)
        .map_err(|error| format!("the release that came with its bundle is refused: {error}"))?;
    if content.image_id != image {
        return Err(format!("the release that came with its bundle is of image {} ({})", content.image_id, content.reference()));
    }
    if capability.len() > CAPABILITY || !capability.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("the capability that came with its bundle is not one".to_owned());
    }
    if size == 0 {
        return Err("its bundle is offered with no bytes".to_owned());
    }
    Ok(BundleRow { image, digest, size, capability: capability.to_owned(), release: release.0.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::Keys;
    use skerry_trust::envelope;
    use skerry_wire::Timestamp;

    #[test]
    fn only_a_release_of_this_image_by_a_release_key() {
        let keys = Keys::new();
        let (image, other) = (ImageId(Digest::new([1; 32])), ImageId(Digest::new([2; 32])));
        let release = |image_id| Release {
            name: "till".to_owned(),
            tag: "2".to_owned(),
            image_id,
            diff_ids: vec![],
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            size: 1,
            signed_at: Timestamp(0),
        };
        let sealed = |key, image| Blob(envelope::seal(key, Release::PURPOSE, &release(image)));
        let root = keys.root();
        let check = |blob: &Blob, capability: &str, size| check(&root, image, Digest::new([3; 32]), size, capability, blob);
        let good = sealed(&keys.release, image);
        assert_eq!(check(&good, "0af3", 9).unwrap().release, good.0);
        for (result, expected) in [
            (check(&sealed(&keys.release, other), "0af3", 9), "till:2"),
            (check(&sealed(&keys.director, image), "0af3", 9), "refused"),
            (check(&Blob(vec![]), "0af3", 9), "refused"),
            (check(&good, "a b\r\n", 9), "capability"),
            (check(&good, "0af3", 0), "no bytes"),
        ] {
            let reason = result.unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
