//! What the tests against a real engine share.
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use skerry_delta::source::{LayerSource, Segment};
use skerry_engine::{ArchiveStream, DockerEngine, Engine};
use skerry_image::load::{LoadArchiveWriter, LoadLayer};
use skerry_image::{Sha256, sha256};
use skerry_wire::{DiffId, ImageId};

/// The engine of this machine. Without one the test is skipped with a line that says so; in CI it fails.
pub async fn engine() -> Option<DockerEngine> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = PathBuf::from(host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock"));
    let engine = DockerEngine::connect(&socket).unwrap();
    match engine.info().await {
        Ok(_) => Some(engine),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// A name that no other test and no other process uses.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("skerry-test-{}-{}-{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Takes away what a failed test leaves in the engine; a test that passes has done it itself.
pub struct Cleanup {
    pub containers: Vec<String>,
    pub images: Vec<String>,
}

impl Cleanup {
    pub fn images(images: &[&Image]) -> Self {
        Self { containers: Vec::new(), images: images.iter().map(|image| image.id.to_string()).collect() }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("docker").args(["rm", "-f", "-v"]).args(&self.containers).output();
            let _ = Command::new("docker").args(["image", "rm", "-f"]).args(&self.images).output();
        }
    }
}

pub struct Image {
    pub id: ImageId,
    pub config: Vec<u8>,
    pub layers: Vec<(DiffId, Vec<u8>)>,
}

/// An image of these layers for this machine.
pub fn image(layers: Vec<Vec<u8>>, note: &str) -> Image {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let layers: Vec<_> = layers.into_iter().map(|bytes| (DiffId(sha256(&bytes)), bytes)).collect();
    let ids: Vec<_> = layers.iter().map(|(id, _)| format!("\"{id}\"")).collect();
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["PATH=/bin"],"Labels":{{"note":"{note}"}}}},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
    .into_bytes();
    Image { id: ImageId(sha256(&config)), config, layers }
}

impl Image {
    /// The archive of it without its first `absent` layers.
    pub fn archive(&self, absent: usize, tags: &[String]) -> Vec<u8> {
        let mut writer = LoadArchiveWriter::new(Vec::new());
        let plan: Vec<_> = self.layers.iter().enumerate().map(|(i, (id, _))| LoadLayer { diff_id: *id, given: i >= absent }).collect();
        writer.config(&self.id, &self.config, &plan, tags).unwrap();
        for (i, (id, bytes)) in self.layers.iter().enumerate().skip(absent) {
            writer.layer_start(i, id, bytes.len() as u64).unwrap();
            writer.layer_bytes(bytes).unwrap();
            writer.layer_end().unwrap();
        }
        writer.finish().unwrap()
    }
}

/// Bytes as a stream of small pieces.
pub fn stream(bytes: Vec<u8>) -> ArchiveStream {
    let pieces: Vec<_> = bytes.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Box::pin(futures_util::stream::iter(pieces))
}

/// A layer with a shell, `sleep` and `rm` of this machine and the libraries that they need, and a file that makes it unique.
pub fn shell_layer(note: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    add_shell(&mut builder);
    add_file(&mut builder, "note", note.as_bytes(), 0o644);
    builder.into_inner().unwrap()
}

pub fn add_shell(builder: &mut tar::Builder<Vec<u8>>) {
    let mut paths = std::collections::BTreeSet::new();
    for program in ["/bin/sh", "/bin/sleep", "/bin/rm"] {
        paths.insert(program.to_string());
        let listed = Command::new("ldd").arg(program).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        paths.extend(listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_string));
    }
    for path in paths {
        let bytes = std::fs::read(Path::new(&path)).unwrap();
        add_file(builder, path.trim_start_matches('/'), &bytes, 0o755);
    }
}

pub fn add_file(builder: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    builder.append_data(&mut header, path, bytes).unwrap();
}

/// The diff_id of a layer rebuilt from its segments, and how many files it has.
pub fn rebuilt(layer: &dyn LayerSource) -> (DiffId, u32) {
    let (mut hash, mut file) = (Sha256::new(), 0);
    for segment in layer.segments().unwrap() {
        match segment.unwrap() {
            Segment::Raw(bytes) => hash.update(&bytes),
            Segment::File { size } => {
                let mut bytes = Vec::new();
                layer.open(file).unwrap().read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len() as u64, size, "file {file}");
                hash.update(&bytes);
                file += 1;
            }
        }
    }
    (DiffId(hash.digest()), file)
}
