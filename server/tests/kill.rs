//! The server's process: killed at any instant, started again; a second one on its folder; a bad configuration.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use skerry_server::store::{BuildStore, SqliteStore, database_path};
use skerry_wire::api::{BuildState, PlanRequest};
use skerry_wire::poll::OfferState;
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, body, client, noise, release_key};

/// A process that is killed when it is dropped.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(data: &Path) -> Self {
        let mut child = server(&["dev", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .env("SKERRY_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: `{line}`")).to_owned();
        Self { child, url }
    }

    /// As `kill -9`.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skerry-server"));
    command.args(args);
    command
}

#[tokio::test]
async fn killed_in_the_middle_of_an_upload_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let process = Process::start(&data);
    let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
    let first = client(&data, &process.url, token.trim());
    let (done, cut) = (TestImage::new("done:1", &[&noise(1, 500_000)]), TestImage::new("cut:1", &[b"whole", &noise(2, 4_000_000)]));
    done.publish(&first, &release_key(&data)).await.unwrap();
    first.put_layer(&cut.layers[0].0, body(&cut.layers[0].1)).await.unwrap();
    // Half of the second layer is sent, then the upload waits, and the server is killed.
    let (diff_id, bytes) = &cut.layers[1];
    let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(Frame::data(half))]);
    let endless = futures_util::StreamExt::chain(stream, futures_util::stream::pending());
    let upload = first.put_layer(diff_id, StreamBody::new(endless).boxed());
    let temporary = data.join("objects/tmp");
    let killer = async {
        // Indexes are made beside it; theirs are small.
        let half = loop {
            let files = std::fs::read_dir(&temporary).unwrap().filter_map(Result::ok);
            let mut large = files.filter(|file| file.metadata().is_ok_and(|file| file.len() >= 1_000_000));
            if let Some(file) = large.next() {
                break file.path();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        process.kill();
        half
    };
    let (upload, half) = tokio::join!(upload, killer);
    assert!(upload.is_err());
    assert!(half.exists());
    let process = Process::start(&data);
    assert!(!half.exists());
    let again = client(&data, &process.url, token.trim());
    assert_eq!(again.images().await.unwrap().iter().map(|i| i.image_id).collect::<Vec<_>>(), [done.release.image_id]);
    let prepared = skerry_wire::api::PrepareRequest { diff_ids: cut.release.diff_ids.clone() };
    assert_eq!(again.prepare_image(&prepared).await.unwrap().missing, [*diff_id]);
    cut.publish(&again, &release_key(&data)).await.unwrap();
    assert_eq!(again.images().await.unwrap().len(), 2);
}

#[tokio::test]
async fn killed_in_the_middle_of_a_build_it_is_built_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let process = Process::start(&data);
    let token = std::fs::read_to_string(data.join("operator.token")).unwrap();
    let (first, key) = (client(&data, &process.url, token.trim()), release_key(&data));
    let image = TestImage::new("till:1", &[&noise(3, 16_000_000)]);
    image.publish(&first, &key).await.unwrap();
    let mut node = TestNode::new(&data, "till-1");
    node.enrol(&process.url, &TestNode::token(&data)).await.unwrap();
    node.tell_facts(&process.url).await.unwrap();
    let plan = first.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    submit(&first, &key, plan.job.unwrap()).await.unwrap();
    let mut message = node.next();
    message.images = vec![image.release.image_id];
    assert_eq!(node.send(&process.url, &message).await.unwrap().offers[0].bundle, OfferState::Building);
    while first.bundles().await.unwrap()[0].state != BuildState::Building {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    process.kill();
    let left = SqliteStore::open(&database_path(&data)).unwrap().bundles().await.unwrap();
    assert_eq!(left[0].state, BuildState::Building, "the build was over already");
    let process = Process::start(&data);
    let offer = node.await_offer(&process.url, image.release.image_id).await;
    assert!(matches!(offer.bundle, OfferState::Ready { .. }), "{offer:?}");
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path());
    let second = server(&["dev", "--data", folder.path().to_str().unwrap(), "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(error.contains("another skerry-server uses this data folder") && error.contains("help: "), "{error}");
    drop(process);
}

#[test]
fn a_bad_configuration_ends_with_64_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    let data = folder.path().join("data");
    let text = format!("data = \"{}\"\nlissten = \"0.0.0.0:1\"\n", data.display());
    std::fs::write(&path, text).unwrap();
    for (args, says) in [
        (vec!["run", "--config", path.to_str().unwrap()], "line 2"),
        (vec!["check", "--config", path.to_str().unwrap()], "lissten"),
        (vec!["run", "--config", "/nonexistent/server.toml"], "/nonexistent/server.toml"),
        (vec!["run"], "--config"),
        (vec!["dev", "--data", data.to_str().unwrap(), "--advertise", "http://h"], "https://HOST:PORT"),
    ] {
        let output = server(&args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
    assert!(!data.exists());
}
