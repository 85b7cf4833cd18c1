//! Which images an archive holds, by Docker's `manifest.json` or by OCI's `index.json`.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use skerry_wire::{Digest, ImageId, limits};

use super::store::Store;
use super::{ArchiveError, ArchiveImage, ArchiveLayer};
use crate::config::ImageConfig;
use crate::sha256;

/// Images one archive may hold.
const IMAGES: usize = 1024;
/// Configurations, manifests and indexes that are read of one archive: an index may name the same index again and again.
const DOCUMENTS: usize = 4 * IMAGES;
/// Bytes of them all together: a small archive may name one large configuration a thousand times.
const TOGETHER: usize = 64 * 1024 * 1024;
/// Bytes of one manifest or index.
const MANIFEST: usize = 4 * 1024 * 1024;
/// Indexes in indexes.
const DEPTH: usize = 4;

/// One image by `manifest.json`.
#[derive(Deserialize)]
struct DockerManifest {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn is_index(&self) -> bool {
        self.media_type.contains("image.index") || self.media_type.contains("manifest.list")
    }

    fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
    }
}

/// What may still be read of an archive.
struct Budget {
    documents: usize,
    bytes: usize,
}

impl Budget {
    /// Reads one document, of at most `limit` bytes, that `named_by` names.
    fn read<R: Read + Seek>(
        &mut self,
        store: &mut Store<R>,
        name: &str,
        role: &str,
        named_by: &str,
        limit: usize,
    ) -> Result<Vec<u8>, ArchiveError> {
        let bytes = store.read(name, role, named_by, limit)?;
        match (self.documents.checked_sub(1), self.bytes.checked_sub(bytes.len())) {
            (Some(documents), Some(left)) => *self = Self { documents, bytes: left },
            _ => {
                let what = format!("with it the archive names more than {DOCUMENTS} documents or {TOGETHER} bytes of them");
                return Err(member(store, named_by, what));
            }
        }
        Ok(bytes)
    }
}

/// The images of an archive; at least one.
pub(super) fn images<R: Read + Seek>(store: &mut Store<R>) -> Result<Vec<ArchiveImage>, ArchiveError> {
    let mut budget = Budget { documents: DOCUMENTS, bytes: TOGETHER };
    let budget = &mut budget;
    let found = if store.size("manifest.json").is_some() {
        docker(store, budget)?
    } else if store.size("index.json").is_some() {
        let mut found = Vec::new();
        let index: Index = json(store, budget, "index.json", "index", "the archive", None)?;
        oci(store, budget, index, "index.json", None, 0, &mut found)?;
        found
    } else {
        Vec::new()
    };
    if found.is_empty() {
        return Err(ArchiveError::NoImage { archive: store.label() });
    }
    Ok(found)
}

fn docker<R: Read + Seek>(store: &mut Store<R>, budget: &mut Budget) -> Result<Vec<ArchiveImage>, ArchiveError> {
    const NAMED_BY: &str = "manifest.json";
    let manifests: Vec<DockerManifest> = json(store, budget, NAMED_BY, "manifest", "the archive", None)?;
    if manifests.len() > IMAGES {
        return Err(member(store, NAMED_BY, format!("it names more than {IMAGES} images")));
    }
    let mut found = Vec::new();
    for manifest in manifests {
        // `<hex>.json` or `blobs/sha256/<hex>`: the name says the digest.
        let stem = manifest.config.rsplit('/').next().unwrap_or_default();
        let expected = stem.strip_suffix(".json").unwrap_or(stem).parse().ok();
        let tags = manifest.repo_tags.unwrap_or_default();
        found.push(image(store, budget, &manifest.config, expected, tags, manifest.layers.unwrap_or_default(), NAMED_BY)?);
    }
    Ok(found)
}

fn oci<R: Read + Seek>(
    store: &mut Store<R>,
    budget: &mut Budget,
    index: Index,
    index_name: &str,
    tag: Option<&str>,
    depth: usize,
    found: &mut Vec<ArchiveImage>,
) -> Result<(), ArchiveError> {
    if depth > DEPTH || index.manifests.len() > IMAGES || found.len() > IMAGES {
        return Err(member(store, index_name, format!("it nests more than {DEPTH} deep or names more than {IMAGES} images")));
    }
    let mut absent = None;
    let before = found.len();
    for descriptor in index.manifests {
        if descriptor.is_attestation() {
            continue;
        }
        let (name, digest) = blob(store, index_name, &descriptor.digest)?;
        // An index of several platforms may come with the blobs of one platform only.
        if depth > 0 && store.size(&name).is_none() {
            absent.get_or_insert(name);
            continue;
        }
        let annotation = |key: &str| descriptor.annotations.get(key).map(String::as_str);
        let tag = annotation("io.containerd.image.name").or(annotation("org.opencontainers.image.ref.name")).or(tag);
        if descriptor.is_index() {
            let inner: Index = json(store, budget, &name, "index", index_name, Some(digest))?;
            oci(store, budget, inner, &name, tag, depth + 1, found)?;
            continue;
        }
        let manifest: Manifest = json(store, budget, &name, "manifest", index_name, Some(digest))?;
        let (config, expected) = blob(store, &name, &manifest.config.digest)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            layers.push(blob(store, &name, &layer.digest)?.0);
        }
        let tags = tag.map(str::to_string).into_iter().collect();
        found.push(image(store, budget, &config, Some(expected), tags, layers, &name)?);
    }
    match absent {
        Some(member) if found.len() == before => {
            Err(ArchiveError::Missing { archive: store.label(), member, role: "manifest".into(), named_by: index_name.into() })
        }
        _ => Ok(()),
    }
}

/// The member that holds a blob. Only SHA-256 is known.
fn blob<R: Read + Seek>(store: &Store<R>, named_by: &str, digest: &str) -> Result<(String, Digest), ArchiveError> {
    match digest.strip_prefix("sha256:").map(str::parse::<Digest>) {
        Some(Ok(digest)) => Ok((format!("blobs/sha256/{}", digest.hex()), digest)),
        _ => Err(member(store, named_by, format!("`{}` is not a SHA-256 digest", digest.chars().take(80).collect::<String>()))),
    }
}

fn image<R: Read + Seek>(
    store: &mut Store<R>,
    budget: &mut Budget,
    config_name: &str,
    expected: Option<Digest>,
    repo_tags: Vec<String>,
    layers: Vec<String>,
    named_by: &str,
) -> Result<ArchiveImage, ArchiveError> {
    let archive = store.label();
    let config_bytes = budget.read(store, config_name, "configuration", named_by, limits::IMAGE_CONFIG)?;
    let actual = sha256(&config_bytes);
    if let Some(expected) = expected.filter(|expected| *expected != actual) {
        return Err(ArchiveError::Digest { archive, member: config_name.into(), expected, actual });
    }
    let config = ImageConfig::parse(&config_bytes).map_err(|source| ArchiveError::Config {
        archive: archive.clone(),
        member: config_name.into(),
        source,
    })?;
    let count = config.diff_ids.len();
    if layers.len() != count {
        let what = format!("it names {} layers, the configuration `{config_name}` has {count}", layers.len());
        return Err(member(store, named_by, what));
    }
    let mut found = Vec::new();
    for (i, (name, diff_id)) in layers.into_iter().zip(&config.diff_ids).enumerate() {
        let Some(stored) = store.size(&name) else {
            let role = format!("layer {} of {count}", i + 1);
            return Err(ArchiveError::Missing { archive, member: name, role, named_by: named_by.into() });
        };
        if stored > limits::LAYER {
            return Err(ArchiveError::TooLarge { archive, member: name, limit: limits::LAYER });
        }
        found.push(ArchiveLayer { diff_id: *diff_id, member: name, stored });
    }
    let repo_tags = repo_tags.into_iter().filter(|tag| !tag.starts_with("<none>")).collect();
    Ok(ArchiveImage { image_id: ImageId(actual), config_bytes, config, repo_tags, layers: found })
}

fn json<R: Read + Seek, T: DeserializeOwned>(
    store: &mut Store<R>,
    budget: &mut Budget,
    name: &str,
    role: &str,
    named_by: &str,
    expected: Option<Digest>,
) -> Result<T, ArchiveError> {
    let bytes = budget.read(store, name, role, named_by, MANIFEST)?;
    let actual = sha256(&bytes);
    if let Some(expected) = expected.filter(|expected| *expected != actual) {
        return Err(ArchiveError::Digest { archive: store.label(), member: name.into(), expected, actual });
    }
    serde_json::from_slice(&bytes).map_err(|error| member(store, name, error.to_string()))
}

fn member<R: Read + Seek>(store: &Store<R>, name: &str, what: String) -> ArchiveError {
    ArchiveError::Member { archive: store.label(), member: name.into(), what }
}
