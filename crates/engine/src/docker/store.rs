//! Which image is which in an engine that keeps its images in containerd's store.
//!
//! There the engine's own id of an image is the digest of its manifest, or of an index of manifests. Releases, and with them everything in
//! Skerry, call an image by the digest of its configuration, which the manifest names. It is read in containerd's content store, a folder
//! of files named by their digests, and counts only when its bytes have that digest. Only where no folder that is to be seen from here has
//! such a file the tag `skerry-pin:<digest of the configuration>` tells, which every image has that Skerry loaded; others are then not known.
//!
//! An engine without containerd's store calls images as releases do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard::models::ImageSummary;
use serde::Deserialize;
use skerry_wire::{Digest, ImageId, limits};

use super::{DockerEngine, images};
use crate::EngineError;

/// Where containerd, when it is a service of its own, has its folder.
const SERVICE: &str = "/var/lib/containerd";
/// Where it has it when the engine starts it, below the engine's own.
const STARTED: &str = "containerd/daemon";
/// The content store in that folder.
const CONTENT: &str = "io.containerd.content.v1.content/blobs/sha256";
/// The socket of one that is a service.
const SOCKETS: [&str; 2] = ["/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock"];
/// The longest manifest or index that is read.
const MANIFEST: u64 = 1 << 20;
/// Images whose manifests are remembered.
const REMEMBERED: usize = 256;

/// How an engine calls its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Store {
    /// By the digest of the configuration.
    Own,
    /// By the digest of the manifest.
    Containerd {
        /// Folders of containerd that are here: the one in use, or both candidates when the engine does not say which.
        folders: Vec<PathBuf>,
        /// Architecture of the machine, in Go's words.
        architecture: String,
    },
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The image's configuration, by which releases call it.
    pub(super) config: ImageId,
    /// Its layers as they are stored, compressed or not.
    pub(super) layers: Vec<Digest>,
}

/// What was found out; shared by the clones of an engine.
#[derive(Debug, Default)]
pub(super) struct Known {
    kind: Mutex<Kind>,
    /// By the engine's id. A manifest's digest never means another.
    manifests: Mutex<BTreeMap<Digest, Manifest>>,
}

#[derive(Debug, Default)]
struct Kind {
    /// Times that it was forgotten: an answer to a question from before says nothing.
    forgotten: u64,
    /// None until the engine was asked, and again when a connection to it ended: it may come back with another store.
    store: Option<Store>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// A manifest or an index of them.
#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Known {
    fn kind(&self) -> MutexGuard<'_, Kind> {
        self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes with a question what the engine is; its answer is told with it.
    pub(super) fn question(&self) -> u64 {
        self.kind().forgotten
    }

    pub(super) fn tell(&self, question: u64, store: Store) {
        let mut kind = self.kind();
        if kind.forgotten == question {
            kind.store = Some(store);
        }
    }

    pub(super) fn forget(&self) {
        let mut kind = self.kind();
        *kind = Kind { forgotten: kind.forgotten + 1, store: None };
    }

    fn manifest(&self, id: &Digest, folders: &[PathBuf], architecture: &str) -> Option<Manifest> {
        let known = || self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known().get(id) {
            return Some(known.clone());
        }
        let found = folders.iter().find_map(|folder| manifest(&folder.join(CONTENT), id, architecture))?;
        let mut manifests = known();
        if manifests.len() == REMEMBERED {
            manifests.clear();
        }
        manifests.insert(*id, found.clone());
        Some(found)
    }
}

impl Store {
    /// The store of an engine with this folder, whose containerd is at this address if that is known.
    pub(super) fn containerd(data_root: &Path, address: Option<&str>, machine: &str) -> Self {
        let (service, started) = (PathBuf::from(SERVICE), data_root.join(STARTED));
        let folders = match address {
            Some(address) if SOCKETS.contains(&address) => vec![service],
            Some(_) => vec![started],
            // Before version 27 the engine did not say.
            None => vec![started, service],
        };
        let folders = folders.into_iter().filter(|folder| folder.is_dir()).collect();
        Self::Containerd { folders, architecture: crate::go_architecture(machine).to_owned() }
    }

    /// The folder that images are in; none where it is not to be seen from here, or may be one of two.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Containerd { folders, .. } if folders.len() == 1 => Some(&folders[0]),
            _ => None,
        }
    }
}

impl DockerEngine {
    /// How the engine calls its images; it is asked when that is not known.
    pub(super) async fn store(&self) -> Result<Store, EngineError> {
        let known = self.known.kind().store.clone();
        match known {
            Some(store) => Ok(store),
            None => Ok(self.ask_info().await?.1),
        }
    }

    /// What releases call the image of this id of the engine's, which has these tags. None where nobody can tell.
    pub(super) fn named(&self, store: &Store, id: &str, tags: &[String]) -> Option<ImageId> {
        let id: ImageId = id.parse().ok()?;
        let Store::Containerd { folders, .. } = store else { return Some(id) };
        if let Some(manifest) = self.manifest(store, &id) {
            return Some(manifest.config);
        }
        // What is there and not understood may be anything, whatever its tags say.
        let there = folders.iter().any(|folder| folder.join(CONTENT).join(id.digest().hex()).exists());
        let pinned = || tags.iter().find_map(|tag| tag.strip_prefix(images::PIN)?.strip_prefix(':')?.parse().ok());
        if there { None } else { pinned() }
    }

    /// The manifest of an image by the engine's id of it; none where it is not to be seen from here.
    pub(super) fn manifest(&self, store: &Store, id: &ImageId) -> Option<Manifest> {
        let Store::Containerd { folders, architecture } = store else { return None };
        self.known.manifest(id.digest(), folders, architecture)
    }

    /// What the engine calls the image, one that Skerry loaded first; [`EngineError::NoImage`] when it has none. One that was both pulled
    /// and loaded has two manifests.
    pub(super) async fn own_ids(&self, image: &ImageId) -> Result<Vec<ImageId>, EngineError> {
        let store = self.store().await?;
        if store == Store::Own {
            return Ok(vec![*image]);
        }
        let listed = self.summaries(true).await?;
        let is_it = |summary: &&ImageSummary| self.named(&store, &summary.id, &summary.repo_tags) == Some(*image);
        let pinned = |summary: &ImageSummary| summary.repo_tags.iter().any(|tag| images::pin_name(tag).is_some());
        let own = |summary: &ImageSummary| Some((!pinned(summary), summary.id.parse().ok()?));
        let found: BTreeSet<(bool, ImageId)> = listed.iter().filter(is_it).filter_map(own).collect();
        if found.is_empty() {
            Err(EngineError::NoImage { reference: image.to_string() })
        } else {
            Ok(found.into_iter().map(|(_, id)| id).collect())
        }
    }

    /// The first of them.
    pub(super) async fn own_id(&self, image: &ImageId) -> Result<ImageId, EngineError> {
        let ids = self.own_ids(image).await?;
        ids.first().copied().ok_or_else(|| EngineError::NoImage { reference: image.to_string() })
    }

    /// What to ask the engine for by this reference: the id of an image becomes its own id of it.
    pub(super) async fn own_reference(&self, reference: &str) -> Result<String, EngineError> {
        let id = reference.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        match id.map(ImageId) {
            None => Ok(reference.to_owned()),
            // An operator may give the id that the engine itself shows.
            Some(id) => match self.own_id(&id).await {
                Err(EngineError::NoImage { .. }) => Ok(reference.to_owned()),
                own => own.map(|own| own.to_string()),
            },
        }
    }

    /// What releases call the image that a container was made of, by the engine's id; that id where nobody can tell any more.
    pub(super) async fn image_of(&self, id: &str) -> Result<Option<ImageId>, EngineError> {
        let store = self.store().await?;
        let named = self.named(&store, id, &[]);
        if named.is_some() || store == Store::Own {
            return Ok(named);
        }
        let listed = self.summaries(true).await?;
        let named = listed.iter().filter(|summary| summary.id == id).find_map(|summary| self.named(&store, id, &summary.repo_tags));
        Ok(named.or_else(|| id.parse().ok()))
    }
}

/// The manifest of this digest in a content store, or for this architecture in the index of this digest.
fn manifest(content: &Path, id: &Digest, architecture: &str) -> Option<Manifest> {
    let document = document(content, id)?;
    if document.config.is_some() {
        return plain(document);
    }
    let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
    // Which of several the engine would take is its own affair: such an index tells nothing. One without a platform may fit.
    let mut fitting = document.manifests.iter().filter(|manifest| manifest.platform.as_ref().is_none_or(fits));
    let (Some(only), None) = (fitting.next(), fitting.next()) else { return None };
    plain(self::document(content, &only.digest.parse().ok()?)?)
}

fn plain(document: Document) -> Option<Manifest> {
    if document.layers.len() > limits::LAYERS {
        return None;
    }
    let layers = document.layers.iter().map(|layer| layer.digest.parse().ok()).collect::<Option<_>>()?;
    Some(Manifest { config: document.config?.digest.parse().ok()?, layers })
}

fn document(content: &Path, digest: &Digest) -> Option<Document> {
    let mut bytes = Vec::new();
    File::open(content.join(digest.hex())).ok()?.take(MANIFEST).read_to_end(&mut bytes).ok()?;
    if skerry_image::sha256(&bytes) != *digest {
        return None;
    }
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(content: &Path, text: &str) -> Digest {
        let digest = skerry_image::sha256(text.as_bytes());
        std::fs::write(content.join(digest.hex()), text).unwrap();
        digest
    }

    fn image_manifest(config: u8) -> String {
        let [config, layer] = [config, 9].map(|byte| Digest::new([byte; 32]));
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}}]}}"#)
    }

    #[test]
    fn manifests_and_indexes_tell_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let content = dir.path();
        let (ours, theirs) = (put(content, &image_manifest(1)), put(content, &image_manifest(2)));
        let entry = |digest: &Digest, os: &str, machine: &str| {
            format!(r#"{{"digest":"{digest}","platform":{{"os":"{os}","architecture":"{machine}"}}}}"#)
        };
        let index = |entries: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        let absent = Digest::new([7; 32]);
        // What an image's builder says of itself stands beside the image, for a platform that is none.
        let all = [entry(&theirs, "linux", "amd64"), entry(&ours, "linux", "arm64"), entry(&theirs, "unknown", "unknown")];
        let some = put(content, &index(&all));
        let none = put(content, &index(&[entry(&absent, "linux", "arm64")]));
        let two = put(content, &index(&[entry(&ours, "linux", "arm64"), entry(&theirs, "linux", "arm64")]));
        let config = |id: &Digest| manifest(content, id, "arm64").map(|found| found.config);
        assert_eq!(manifest(content, &ours, "arm64").unwrap().layers, [Digest::new([9; 32])]);
        assert_eq!(config(&ours), Some(ImageId(Digest::new([1; 32]))));
        assert_eq!(config(&theirs), Some(ImageId(Digest::new([2; 32]))), "the image's own manifest is for whatever it is for");
        assert_eq!(config(&some), Some(ImageId(Digest::new([1; 32]))));
        assert_eq!([&none, &absent, &two].map(config), [None; 3]);
        // A file that is not what its name says tells nothing, nor does one that is no manifest.
        std::fs::write(content.join(absent.hex()), image_manifest(3)).unwrap();
        assert_eq!((config(&absent), config(&put(content, "[]"))), (None, None));
    }

    #[test]
    fn manifests_name_images_where_they_are_to_be_seen_and_pins_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let content = dir.path().join(CONTENT);
        std::fs::create_dir_all(&content).unwrap();
        let known = put(&content, &image_manifest(1)).to_string();
        let unknown = Digest::new([5; 32]).to_string();
        let engine = DockerEngine::connect(Path::new("/nowhere")).unwrap();
        let pin = format!("skerry-pin:{}", Digest::new([6; 32]).hex());
        let tags = ["till:1".to_owned(), format!("example.com/{pin}"), pin];
        let store = |folders| Store::Containerd { folders, architecture: "amd64".into() };
        let (seen, unseen) = (store(vec![dir.path().to_owned()]), store(vec![]));
        let named = |store: &Store, id: &str, tags: &[String]| engine.named(store, id, tags).map(|id| id.digest().as_bytes()[0]);
        assert_eq!((named(&seen, &known, &tags), named(&seen, &unknown, &tags)), (Some(1), Some(6)));
        let strange = put(&content, "[]").to_string();
        assert_eq!(named(&seen, &strange, &tags), None, "it is there, and no manifest");
        // A registry's name in front is somebody else's tag.
        assert_eq!((named(&unseen, &unknown, &tags), named(&unseen, &unknown, &tags[..2])), (Some(6), None));
        assert_eq!(named(&Store::Own, &unknown, &tags), Some(5));
    }

    #[test]
    fn containerds_folder_follows_from_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let started = dir.path().join(STARTED);
        let folder = |address| Store::containerd(dir.path(), address, "aarch64").folder().map(Path::to_path_buf);
        assert_eq!(folder(Some("/run/docker/containerd/containerd.sock")), None);
        std::fs::create_dir_all(&started).unwrap();
        assert_eq!(folder(Some("/run/docker/containerd/containerd.sock")), Some(started));
        let service = Some(PathBuf::from(SERVICE)).filter(|folder| folder.is_dir());
        assert_eq!(folder(Some("/run/containerd/containerd.sock")), service);
        assert_eq!(folder(None).is_none(), service.is_some(), "one of two");
    }

    #[test]
    fn an_answer_from_before_it_was_forgotten_says_nothing() {
        let known = Known::default();
        let question = known.question();
        known.forget();
        known.tell(question, Store::Own);
        assert_eq!(known.kind().store, None);
        known.tell(known.question(), Store::Own);
        assert_eq!(known.kind().store, Some(Store::Own));
    }
}
