//! A real server on loopback, with TLS and a database in a temporary folder, and small images to publish.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod job;
pub mod node;
pub mod sink;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use skerry_client::{Client, ClientError, Connection, UploadBody};
use skerry_image::frames::FrameWriter;
use skerry_server::config::Config;
use skerry_server::dev;
use skerry_server::run::{DataLock, Server};
use skerry_server::store::database_path;
use skerry_trust::{SigningKey, envelope};
use skerry_wire::api::{ImageSummary, PrepareRequest, PublishRequest};
use skerry_wire::release::Release;
use skerry_wire::{Blob, DiffId, ImageId, Timestamp};

/// A server and its folder.
pub(crate) struct TestServer {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) url: String,
    server: Option<Server>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with a changed configuration.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, url) = run(folder.path(), change).await;
        Self { folder, url, server: Some(server) }
    }

    /// Stops in order and starts again on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    /// Stops in order and starts again with a changed configuration.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.server.take().unwrap().stop().await;
        let (server, url) = run(self.folder.path(), change).await;
        (self.server, self.url) = (Some(server), url);
    }

    /// Keeps the database as it is now beside itself.
    pub(crate) async fn back_up(&mut self) {
        self.server.take().unwrap().stop().await;
        let path = database_path(self.folder.path());
        std::fs::copy(&path, path.with_extension("backup")).unwrap();
        self.start_again().await;
    }

    /// Puts back the database that was kept.
    pub(crate) async fn restore(&mut self) {
        self.server.take().unwrap().stop().await;
        let path = database_path(self.folder.path());
        std::fs::copy(path.with_extension("backup"), &path).unwrap();
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        let (server, url) = run(self.folder.path(), |_| {}).await;
        (self.server, self.url) = (Some(server), url);
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// With the admin's token.
    pub(crate) fn client(&self) -> Client {
        let token = std::fs::read_to_string(self.folder.path().join("operator.token")).unwrap();
        self.client_with(token.trim())
    }

    pub(crate) fn client_with(&self, token: &str) -> Client {
        client(self.folder.path(), &self.url, token)
    }

    pub(crate) fn release_key(&self) -> SigningKey {
        release_key(self.folder.path())
    }

    /// Stops, and keeps the folder.
    pub(crate) async fn stopped(mut self) -> tempfile::TempDir {
        self.server.take().unwrap().stop().await;
        self.folder
    }

    pub(crate) async fn stop(mut self) {
        self.server.take().unwrap().stop().await;
    }
}

async fn run(folder: &Path, change: impl FnOnce(&mut Config)) -> (Server, String) {
    let address = dev::Address::new("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let lock = DataLock::take(folder).unwrap();
    let mut config = dev::prepare(folder, &address).unwrap();
    change(&mut config);
    let server = Server::start(config, lock).await.unwrap();
    let url = address.url(server.address());
    dev::finish(server.app(), &url).await.unwrap();
    (server, url)
}

pub(crate) fn client(folder: &Path, url: &str, token: &str) -> Client {
    let ca_pem = std::fs::read(folder.join("ca.pem")).unwrap();
    Client::new(&Connection { server: url.to_owned(), ca_pem, token: token.to_owned() }).unwrap()
}

pub(crate) fn release_key(folder: &Path) -> SigningKey {
    SigningKey::from_text(&std::fs::read_to_string(folder.join("release.key")).unwrap()).unwrap()
}

/// A small image.
pub(crate) struct TestImage {
    pub(crate) layers: Vec<(DiffId, Vec<u8>)>,
    pub(crate) config: Vec<u8>,
    pub(crate) release: Release,
}

impl TestImage {
    /// An image whose layers each hold one file of these bytes.
    pub(crate) fn new(reference: &str, files: &[&[u8]]) -> Self {
        let layers: Vec<_> = files.iter().map(|file| layer(file)).collect();
        let list = layers.iter().fold(String::new(), |mut list, (diff_id, _, _)| {
            write!(list, "{}\"{diff_id}\"", if list.is_empty() { "" } else { "," }).unwrap();
            list
        });
        let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{list}]}}}}"#).into_bytes();
        let (name, tag) = reference.split_once(':').unwrap();
        let release = Release {
            name: name.to_owned(),
            tag: tag.to_owned(),
            image_id: ImageId(skerry_image::sha256(&config)),
            diff_ids: layers.iter().map(|layer| layer.0).collect(),
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            size: layers.iter().map(|layer| layer.2).sum(),
            signed_at: Timestamp(0),
        };
        Self { layers: layers.into_iter().map(|(diff_id, bytes, _)| (diff_id, bytes)).collect(), config, release }
    }

    pub(crate) fn request(&self, key: &SigningKey) -> PublishRequest {
        PublishRequest { release: Blob(envelope::seal(key, Release::PURPOSE, &self.release)), config: Blob(self.config.clone()) }
    }

    /// Does all that a publisher does.
    pub(crate) async fn publish(&self, client: &Client, key: &SigningKey) -> Result<ImageSummary, ClientError> {
        let missing = client.prepare_image(&PrepareRequest { diff_ids: self.release.diff_ids.clone() }).await?.missing;
        for (diff_id, bytes) in &self.layers {
            if missing.contains(diff_id) {
                client.put_layer(diff_id, body(bytes)).await?;
            }
        }
        client.publish_image(&self.request(key)).await
    }
}

/// A layer with one file: its diff_id, its stored form, its size.
fn layer(file: &[u8]) -> (DiffId, Vec<u8>, u64) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(file.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", file).unwrap();
    let tar = builder.into_inner().unwrap();
    let mut writer = FrameWriter::new(Vec::new(), 3).unwrap();
    writer.write_all(&tar).unwrap();
    let (bytes, summary) = writer.finish().unwrap();
    (summary.diff_id, bytes, summary.size)
}

/// Bytes that do not compress, the same every time.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(len)
    .collect()
}

pub(crate) fn body(bytes: &[u8]) -> UploadBody {
    Full::new(Bytes::copy_from_slice(bytes)).map_err(|never| match never {}).boxed()
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result.unwrap_err() {
        ClientError::Refused { status, error } => format!("{} {}", status.as_u16(), error.code),
        other => panic!("not a refusal: {other}"),
    }
}
