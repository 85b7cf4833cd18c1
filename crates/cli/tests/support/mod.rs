//! Images in every shape that the command takes, and the command itself.
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use skerry_image::load::{LoadArchiveWriter, LoadLayer};
use skerry_image::sha256;
use skerry_wire::{DiffId, ImageId};
use tempfile::TempDir;

pub struct Image {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn layer(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// An image of two layers; of several versions the lower is the same.
pub fn image(version: u32) -> Image {
    let text: String = (0..2000).map(|i| format!("{i} line of {}\n", if i == 1000 { version } else { 0 })).collect();
    let lower = layer(&[("base/data".to_owned(), noise(1, 200_000))]);
    let mut files = vec![("app/text".to_owned(), text.clone().into_bytes()), ("app/changelog.gz".to_owned(), gzip(text.as_bytes()))];
    files.push(("app/new".to_owned(), noise(u64::from(version), 20_000)));
    let layers = vec![lower, layer(&files)];
    let ids: Vec<_> = layers.iter().map(|bytes| format!("\"{}\"", DiffId(sha256(bytes)))).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["VERSION={version}"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    Image { config: config.into_bytes(), layers }
}

impl Image {
    pub fn id(&self) -> ImageId {
        ImageId(sha256(&self.config))
    }

    /// As `docker save` writes it.
    pub fn archive(&self, tags: &[String]) -> Vec<u8> {
        let mut writer = LoadArchiveWriter::new(Vec::new());
        let layers: Vec<_> = self.layers.iter().map(|bytes| LoadLayer { diff_id: DiffId(sha256(bytes)), given: true }).collect();
        writer.config(&self.id(), &self.config, &layers, tags).unwrap();
        for (index, (layer, bytes)) in layers.iter().zip(&self.layers).enumerate() {
            writer.layer_start(index, &layer.diff_id, bytes.len() as u64).unwrap();
            writer.layer_bytes(bytes).unwrap();
            writer.layer_end().unwrap();
        }
        writer.finish().unwrap()
    }

    /// The members of an OCI layout whose layers are compressed.
    fn oci(&self) -> Vec<(String, Vec<u8>)> {
        let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", sha256(bytes).hex()), bytes.to_vec());
        let descriptor =
            |kind: &str, bytes: &[u8]| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{}}}"#, sha256(bytes), bytes.len());
        let layers: Vec<_> = self.layers.iter().map(|bytes| gzip(bytes)).collect();
        let listed: Vec<_> = layers.iter().map(|bytes| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", bytes)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.oci.image.config.v1+json", &self.config),
            listed.join(",")
        );
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(kind, manifest.as_bytes()));
        let mut members: Vec<_> = layers.iter().map(|bytes| blob(bytes)).collect();
        members.extend([blob(&self.config), blob(manifest.as_bytes())]);
        members.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        members.push(("index.json".to_owned(), index.into_bytes()));
        members
    }

    pub fn write_oci_tar(&self, path: &Path) {
        std::fs::write(path, layer(&self.oci())).unwrap();
    }

    pub fn write_oci_folder(&self, path: &Path) {
        tar::Archive::new(&layer(&self.oci())[..]).unpack(path).unwrap();
    }
}

/// A folder with a key, and the command run in it.
pub struct Bed {
    pub folder: TempDir,
    pub public: String,
}

pub fn bed() -> Bed {
    let mut bed = Bed { folder: tempfile::tempdir().unwrap(), public: String::new() };
    let said = bed.ok(&["key", "generate", "--out", "key", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    bed.public = said["public_key"].as_str().unwrap().to_owned();
    for version in [1, 2, 3] {
        std::fs::write(bed.path(&format!("{version}.tar")), image(version).archive(&[format!("app:{version}")])).unwrap();
    }
    bed
}

impl Bed {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skerry"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("RUST_BACKTRACE").env_remove("DOCKER_HOST");
        command.env_remove("SKERRY_BUNDLE_KEY").env("XDG_CONFIG_HOME", self.path("config"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints; it must end well.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says; it must end with code 1, print nothing, and leave no file behind that was not there.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let before = self.files();
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert_eq!(self.files(), before, "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
        said
    }

    pub fn files(&self) -> BTreeSet<String> {
        std::fs::read_dir(self.folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The bundle `p.skb` from version 1 to version 2.
    pub fn patch(&self) -> Vec<u8> {
        self.ok(&["delta", "make", "--base", "1.tar", "--target", "2.tar", "--out", "p.skb", "--key", "key"]);
        std::fs::read(self.path("p.skb")).unwrap()
    }

    /// Applying this bundle to version 1 is refused with these words.
    pub fn bundle_refused(&self, bundle: &[u8], words: &str) {
        std::fs::write(self.path("bad.skb"), bundle).unwrap();
        let said =
            self.refused(&["delta", "apply", "--base", "1.tar", "--bundle", "bad.skb", "--out", "n.tar", "--trust-key", &self.public]);
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }
}

/// Text with every number as `#` and runs of spaces as one.
pub fn masked(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' | '.' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            ' ' if out.ends_with(' ') => {}
            c => out.push(c),
        }
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
