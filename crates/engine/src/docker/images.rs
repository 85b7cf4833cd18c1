//! Images of a Docker engine.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::models::ImageSummary;
use bollard::query_parameters::{ImportImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use skerry_wire::ImageId;

use super::store::Store;
use super::{CALL, DockerEngine};
use crate::EngineError;
use crate::engine::{ArchiveStream, Info, PinnedImage};

/// Repository of the tags that pin images.
pub(super) const PIN: &str = "skerry-pin";
/// How often the list of the images is asked for when one that is being removed makes it fail, and the pause between.
const LISTINGS: u32 = 4;
const BETWEEN_LISTINGS: Duration = Duration::from_millis(250);
/// Removing an image deletes its files.
const REMOVE: Duration = Duration::from_secs(10 * 60);

/// The engine's answer with an archive.
type Answer = Pin<Box<dyn Stream<Item = Result<Bytes, bollard::errors::Error>> + Send>>;

/// The tag that pins under this name.
pub(super) fn pin_reference(name: &str) -> String {
    format!("{PIN}:{name}")
}

/// The name in a tag that pins. Podman writes `localhost/` in front.
pub(super) fn pin_name(tag: &str) -> Option<&str> {
    let tag = tag.rsplit('/').next().unwrap_or(tag);
    tag.strip_prefix(PIN)?.strip_prefix(':').filter(|name| check_pin(name).is_ok())
}

/// Is it a name for a pin?
pub(super) fn check_pin(name: &str) -> Result<(), EngineError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Ok(());
    }
    let why = "1 to 128 letters, digits, `_`, `.`, `-`, not beginning with `.` or `-`";
    Err(EngineError::Invalid { what: "pin name", value: name.into(), why })
}

/// References go into the path of a request: nothing that would change its meaning.
fn check_reference(reference: &str) -> Result<(), EngineError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b':' | b'@');
    if !reference.is_empty() && reference.len() <= 512 && reference.bytes().all(fine) && !reference.contains("..") {
        return Ok(());
    }
    let value = reference.chars().take(200).collect();
    Err(EngineError::Invalid { what: "image reference", value, why: "write it as `name:tag` or `sha256:...`" })
}

impl DockerEngine {
    /// What the engine is, and how it calls its images.
    pub(super) async fn ask_info(&self) -> Result<(Info, Store), EngineError> {
        let question = self.known.question();
        let info = self.call("info", CALL, self.docker()?.info()).await?;
        let mut data_root = PathBuf::from(info.docker_root_dir.unwrap_or_default());
        let architecture = info.architecture.unwrap_or_default();
        let status = info.driver_status.unwrap_or_default();
        let containerd_store = status.iter().flatten().any(|value| value.contains("io.containerd.snapshotter"));
        let mut store = Store::Own;
        if containerd_store {
            let address = info.containerd.and_then(|containerd| containerd.address);
            store = Store::containerd(&data_root, address.as_deref(), &architecture);
            data_root = store.folder().map(Path::to_path_buf).unwrap_or_default();
        }
        self.known.tell(question, store.clone());
        let disk_free = rustix::fs::statvfs(&data_root).ok().map(|s| s.f_bavail.saturating_mul(s.f_frsize));
        let info = Info {
            version: info.server_version.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            containerd_store,
            data_root,
            disk_free,
            architecture,
            cpus: info.ncpu.and_then(|n| n.try_into().ok()).unwrap_or_default(),
            memory: info.mem_total.and_then(|n| n.try_into().ok()).unwrap_or_default(),
        };
        Ok((info, store))
    }

    /// What the engine says of its images; also of those without a name when `all`.
    pub(super) async fn summaries(&self, all: bool) -> Result<Vec<ImageSummary>, EngineError> {
        let mut tries = LISTINGS;
        loop {
            tries -= 1;
            let options = ListImagesOptions { all, ..Default::default() };
            match self.call("list the images", CALL, self.docker()?.list_images(Some(options))).await {
                // In containerd's store an image that is being removed has the whole list fail.
                Err(EngineError::Refused { status: 404, .. }) if tries > 0 => tokio::time::sleep(BETWEEN_LISTINGS).await,
                done => return done,
            }
        }
    }

    pub(super) async fn list_images(&self) -> Result<Vec<ImageId>, EngineError> {
        let store = self.store().await?;
        let images = self.summaries(true).await?;
        let mut ids: Vec<ImageId> = images.iter().filter_map(|image| self.named(&store, &image.id, &image.repo_tags)).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    pub(super) async fn list_pinned(&self) -> Result<Vec<PinnedImage>, EngineError> {
        let store = self.store().await?;
        let images = self.summaries(false).await?;
        let pinned = images.into_iter().filter_map(|image| {
            let (names, others): (Vec<_>, Vec<_>) = image.repo_tags.iter().partition(|tag| pin_name(tag).is_some());
            let names: Vec<String> = names.into_iter().filter_map(|tag| pin_name(tag)).map(str::to_owned).collect();
            let others = others.iter().any(|tag| !tag.starts_with("<none>"));
            let bytes = u64::try_from(image.size).unwrap_or(0);
            (!names.is_empty()).then_some(PinnedImage { id: self.named(&store, &image.id, &image.repo_tags)?, names, others, bytes })
        });
        Ok(pinned.collect())
    }

    /// The id of an image; the engine's own where nobody can tell what releases call it.
    pub(super) async fn inspect_image(&self, reference: &str) -> Result<ImageId, EngineError> {
        check_reference(reference)?;
        let what = format!("look at image `{reference}`");
        let (store, own) = (self.store().await?, self.own_reference(reference).await?);
        match self.call(&what, CALL, self.docker()?.inspect_image(&own)).await {
            Ok(image) => {
                let id = image.id.unwrap_or_default();
                let reason = format!("`{}` is not an image id", id.chars().take(100).collect::<String>());
                let tags = image.repo_tags.unwrap_or_default();
                let named = self.named(&store, &id, &tags).or_else(|| id.parse().ok());
                named.ok_or_else(|| EngineError::Broken { socket: self.socket(), what, reason })
            }
            Err(EngineError::Refused { status: 404, .. }) => Err(EngineError::NoImage { reference: reference.into() }),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn size_of_image(&self, id: &ImageId) -> Result<u64, EngineError> {
        let (reference, own) = (id.to_string(), self.own_id(id).await?.to_string());
        match self.call(&format!("look at image `{reference}`"), CALL, self.docker()?.inspect_image(&own)).await {
            Ok(image) => {
                let size: u64 = image.size.and_then(|size| size.try_into().ok()).unwrap_or_default();
                if own == reference { Ok(size) } else { self.size_in_store(&own, size).await }
            }
            Err(EngineError::Refused { status: 404, .. }) => Err(EngineError::NoImage { reference }),
            Err(error) => Err(error),
        }
    }

    /// Containerd's store tells of one image the bytes of its layers as they came, and in the list those and the unpacked ones. What was
    /// pulled came compressed: an export of it and its layers beside that take both.
    async fn size_in_store(&self, own: &str, came: u64) -> Result<u64, EngineError> {
        let listed = self.summaries(true).await?;
        let both = listed.iter().find(|summary| summary.id == own).and_then(|summary| summary.size.try_into().ok()).unwrap_or(0);
        let unpacked = u64::saturating_sub(both, came);
        Ok(if unpacked > came.saturating_add(came / 4) { both } else { came })
    }

    pub(super) async fn load_archive(&self, archive: ArchiveStream, stall: Duration) -> Result<(), EngineError> {
        let what = "load an image";
        // What went in and what came out, together: as long as it rises, the load is alive.
        let moved = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&moved);
        let archive = archive.inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        // `quiet`: no progress bars; errors come all the same.
        let options = ImportImageOptions { quiet: true, ..Default::default() };
        let mut answer = Box::pin(self.docker()?.import_image_stream(options, archive, None));
        let mut failure = None;
        let mut answered = false;
        loop {
            let seen = moved.load(Ordering::Relaxed);
            match tokio::time::timeout(stall, answer.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(_))) => answered = true,
                Ok(Some(Err(error))) => {
                    // The first error counts; the rest of the stream is read all the same.
                    let error = match error {
                        bollard::errors::Error::DockerStreamError { error } => EngineError::Load { message: error },
                        other => self.error(what, other),
                    };
                    failure.get_or_insert(match error {
                        EngineError::Refused { message, .. } => EngineError::Load { message },
                        other => other,
                    });
                }
                Err(_) if moved.load(Ordering::Relaxed) != seen => {}
                Err(_) => return Err(EngineError::Timeout { socket: self.socket(), what: what.into(), after: stall }),
            }
        }
        match failure {
            Some(error) => Err(error),
            None if answered => Ok(()),
            None => Err(EngineError::Broken {
                socket: self.socket(),
                what: what.into(),
                reason: "the engine ended its answer without a word".into(),
            }),
        }
    }

    pub(super) fn save_archive(&self, reference: &str, stall: Duration) -> impl Stream<Item = Result<Bytes, EngineError>> + Send + use<> {
        let (engine, reference) = (self.clone(), reference.to_string());
        let begun = async move {
            check_reference(&reference)?;
            let own = engine.own_reference(&reference).await?;
            let answer: Answer = Box::pin(engine.docker()?.export_image(&own));
            Ok(engine.saved(answer, reference, stall))
        };
        stream::once(begun).flat_map(|begun| match begun {
            Ok(body) => body.left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
    }

    /// The pieces of an answer with an archive, up to the first error.
    fn saved(&self, answer: Answer, reference: String, stall: Duration) -> impl Stream<Item = Result<Bytes, EngineError>> + Send + use<> {
        let (engine, what) = (self.clone(), format!("save image `{reference}`"));
        stream::unfold(Some(answer), move |answer| {
            let (engine, reference, what) = (engine.clone(), reference.clone(), what.clone());
            async move {
                let mut answer = answer?;
                match tokio::time::timeout(stall, answer.next()).await {
                    Ok(None) => None,
                    Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(answer))),
                    Ok(Some(Err(error))) => match engine.error(&what, error) {
                        EngineError::Refused { status: 404, .. } => Some((Err(EngineError::NoImage { reference }), None)),
                        error => Some((Err(error), None)),
                    },
                    Err(_) => Some((Err(EngineError::Timeout { socket: engine.socket(), what, after: stall }), None)),
                }
            }
        })
    }

    pub(super) async fn tag_pin(&self, id: &ImageId, name: &str) -> Result<(), EngineError> {
        check_pin(name)?;
        let options = TagImageOptions { repo: Some(PIN.into()), tag: Some(name.into()) };
        let own = self.own_id(id).await?.to_string();
        match self.call(&format!("pin image {id} as `{name}`"), CALL, self.docker()?.tag_image(&own, Some(options))).await {
            Err(EngineError::Refused { status: 404, .. }) => Err(EngineError::NoImage { reference: id.to_string() }),
            other => other,
        }
    }

    /// Removes a tag or an image; fine when it is gone.
    pub(super) async fn delete_image(&self, reference: &str) -> Result<(), EngineError> {
        check_reference(reference)?;
        let what = format!("remove image `{reference}`");
        match self.call(&what, REMOVE, self.docker()?.remove_image(reference, None::<RemoveImageOptions>, None)).await {
            Ok(_) | Err(EngineError::Refused { status: 404, .. }) => Ok(()),
            Err(EngineError::Refused { status: 409, message, .. }) => Err(EngineError::InUse { reference: reference.into(), message }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "base-1.2_x", &"0f".repeat(32)] {
            check_pin(name).unwrap();
        }
        for name in ["", "-a", ".a", "a/b", "a:b", "a b", &"x".repeat(129)] {
            assert!(check_pin(name).is_err(), "{name}");
        }
        for (tag, name) in [("skerry-pin:0f", Some("0f")), ("localhost/skerry-pin:a", Some("a")), ("skerry-pinned:a", None), ("a:1", None)]
        {
            assert_eq!(pin_name(tag), name);
        }
        for reference in ["alpine", "localhost:5000/a/b:1", "a@sha256:0f"] {
            check_reference(reference).unwrap();
        }
        for reference in ["", "a b", "a?force=1", "a/../b", "a%2f", "é"] {
            assert!(check_reference(reference).is_err(), "{reference}");
        }
    }
}
