//! The images of the fleet and the bundles that make them: made once for all lives, the same in each.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use skerry_bundle::make::{Base, Layer, MakeOptions, Target, make};
use skerry_delta::source::{LayerSource, ReadSeek, Segment};
use skerry_server::store::{NewImage, StoredLayer};
use skerry_trust::envelope;
use skerry_wire::release::Release;
use skerry_wire::{DiffId, Digest, ImageId, Timestamp};

use crate::keys::key;

/// Images of the fleet.
pub(crate) const IMAGES: u8 = 6;
/// What is made of this one never passes its checks.
pub(crate) const SICK: u8 = 5;

struct Image {
    id: ImageId,
    config: String,
    diff_id: DiffId,
    layer: Plain,
    content: Release,
    release: Vec<u8>,
}

/// A layer that is one run of bytes.
struct Plain(Vec<u8>);

impl LayerSource for Plain {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        Ok(Box::new(std::iter::once(Ok(Segment::Raw(self.0.clone())))))
    }

    fn open(&self, _file: u32) -> io::Result<Box<dyn ReadSeek + '_>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

static ALL: LazyLock<Vec<Image>> = LazyLock::new(|| (0..IMAGES).map(Image::new).collect());

/// A bundle: its file and its digest.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

type Bundles = BTreeMap<(ImageId, Vec<ImageId>), Arc<Bundle>>;
static BUNDLES: Mutex<Bundles> = Mutex::new(Bundles::new());

impl Image {
    fn new(number: u8) -> Self {
        // One chunk and less, some, and many.
        let size = [9_000, 40_000, 150_000, 260_000, 330_000, 70_000][usize::from(number)];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(number) + 1) | 1;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let noise: Vec<u8> = noise.flatten().take(size).collect();
        let tar = skerry_image::load::single_file_layer("noise", &noise);
        let diff_id = DiffId(sha256(&tar));
        let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
        let id = ImageId(sha256(config.as_bytes()));
        let release = Release {
            name: "till".to_owned(),
            tag: number.to_string(),
            image_id: id,
            diff_ids: vec![diff_id],
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            size: tar.len() as u64,
            signed_at: Timestamp(0),
        };
        let sealed = envelope::seal(&key(2), Release::PURPOSE, &release);
        Self { id, config, diff_id, layer: Plain(tar), content: release, release: sealed }
    }

    fn layers(&self) -> Vec<Layer<'_>> {
        vec![Layer { diff_id: self.diff_id, source: &self.layer }]
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().expect("32 bytes"))
}

/// The image of this number.
pub(crate) fn image(number: u8) -> ImageId {
    ALL[usize::from(number % IMAGES)].id
}

fn number(id: &ImageId) -> Option<usize> {
    ALL.iter().position(|image| image.id == *id)
}

/// The number of an image, for people.
pub(crate) fn name(id: &ImageId) -> String {
    number(id).map_or_else(|| id.digest().short(), |n| format!("image{n}"))
}

/// The signed release of an image.
pub(crate) fn release(id: &ImageId) -> Option<Vec<u8>> {
    number(id).map(|n| ALL[n].release.clone())
}

/// What is published: the layer of an image, and its release.
pub(crate) fn published(number: u8) -> (StoredLayer, NewImage) {
    let image = &ALL[usize::from(number)];
    let (size, object) = (image.layer.0.len() as u64, sha256(&image.layer.0));
    let layer = StoredLayer { diff_id: image.diff_id, size, stored: size, object };
    let new = NewImage {
        release: image.content.clone(),
        envelope: image.release.clone(),
        digest: sha256(&image.release),
        key_id: key(2).public().id(),
        config: image.config.clone().into_bytes(),
    };
    (layer, new)
}

/// The bundle that makes an image from bases.
pub(crate) fn bundle(target: ImageId, bases: &[ImageId]) -> Arc<Bundle> {
    let mut all = BUNDLES.lock().unwrap_or_else(PoisonError::into_inner);
    let made = all.entry((target, bases.to_vec())).or_insert_with(|| {
        let image = &ALL[number(&target).expect("an image of the fleet")];
        let bases: Vec<&Image> = bases.iter().filter_map(number).map(|n| &ALL[n]).collect();
        let bases: Vec<Base<'_>> = bases.iter().map(|b| Base { image_id: b.id, config: b.config.as_bytes(), layers: b.layers() }).collect();
        let target = Target { config: image.config.as_bytes(), layers: image.layers() };
        let mut bytes = Vec::new();
        let options = MakeOptions { memory: 16 << 20, apply_memory: 4 << 20, ..MakeOptions::default() };
        make(&target, &bases, &options, &skerry_delta::Silent, &AtomicBool::new(false), &key(3), &mut bytes).expect("a bundle");
        Arc::new(Bundle { digest: sha256(&bytes), bytes })
    });
    Arc::clone(made)
}

/// The image that a bundle makes.
pub(crate) fn target(digest: &Digest) -> Option<ImageId> {
    let all = BUNDLES.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().find(|(_, bundle)| bundle.digest == *digest).map(|((target, _), _)| *target)
}

/// Does it begin at this image?
pub(crate) fn begins_at(digest: &Digest, image: &ImageId) -> bool {
    let all = BUNDLES.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().any(|((_, bases), bundle)| bundle.digest == *digest && bases.contains(image))
}

/// A bundle that was made, by its digest.
pub(crate) fn by_digest(digest: &Digest) -> Option<Arc<Bundle>> {
    BUNDLES.lock().unwrap_or_else(PoisonError::into_inner).values().find(|b| b.digest == *digest).cloned()
}
