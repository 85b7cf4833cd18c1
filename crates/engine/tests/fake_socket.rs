//! The engine's client against a socket that says what we want: what goes over the wire, and what happens when the answer is bad.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use skerry_engine::{ContainerSpec, ContainerStatus, DockerEngine, Engine, EngineError};
use skerry_wire::{Digest, ImageId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

struct Fake {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers each connection with the next of these, then closes it. A question what it is, which the client asks first of all, is
    /// answered beside them and not noted.
    fn new(answers: Vec<String>) -> Self {
        Self::all(answers, Some(answer("200 OK", "{}")))
    }

    /// The same, with the answer to that question; one that is among the answers when there is none.
    fn all(answers: Vec<String>, info: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            while answers.len() > 0 {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                // Chunked bodies end with an empty chunk; the other requests here have none or a short one.
                loop {
                    let n = connection.read(&mut buffer).await.unwrap_or(0);
                    request.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&request).to_lowercase();
                    let whole = text.contains("\r\n\r\n") && (!text.contains("transfer-encoding: chunked") || text.ends_with("0\r\n\r\n"));
                    if n == 0 || whole {
                        break;
                    }
                }
                let first = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_string();
                let aside = info.clone().filter(|_| first.starts_with("GET /info "));
                let answer = match aside {
                    Some(info) => info,
                    None => {
                        seen.lock().unwrap().push(first);
                        answers.next().unwrap()
                    }
                };
                let _ = connection.write_all(answer.as_bytes()).await;
                let _ = connection.shutdown().await;
            }
        });
        Self { _folder: folder, socket, requests }
    }

    fn engine(&self) -> DockerEngine {
        DockerEngine::connect(&self.socket).unwrap()
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn id() -> ImageId {
    ImageId(Digest::new([0xab; 32]))
}

#[tokio::test]
async fn requests_have_no_version() {
    let fake = Fake::all(vec![answer("200 OK", r#"{"ServerVersion":"99.0","Driver":"overlay2","DockerRootDir":"/nowhere"}"#)], None);
    let info = fake.engine().info().await.unwrap();
    assert_eq!((info.version.as_str(), info.containerd_store, info.disk_free), ("99.0", false, None));
    assert_eq!(*fake.requests.lock().unwrap(), ["GET /info HTTP/1.1"]);
}

#[tokio::test]
async fn containerd_store_is_seen() {
    let body = r#"{"Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#;
    let fake = Fake::all(vec![answer("200 OK", body); 2], None);
    assert!(fake.engine().info().await.unwrap().containerd_store);
    assert_eq!(skerry_engine::probe(&fake.engine()).await.unwrap(), skerry_engine::Abilities::default());
    assert_eq!(fake.requests.lock().unwrap().len(), 2, "nothing is loaded into it");
}

/// Containerd's folder is not to be seen here: the tags of images that Skerry loaded tell which they are.
#[tokio::test]
async fn images_of_containerds_store_have_other_names_there() {
    let info = r#"{"Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]],"DockerRootDir":"/nowhere","Containerd":{"Address":"/nowhere/containerd.sock"}}"#;
    let ours = id();
    let (manifest, foreign) = (ImageId(Digest::new([1; 32])), ImageId(Digest::new([2; 32])));
    let pin = format!("skerry-pin:{}", ours.digest().hex());
    let summary = |id: &ImageId, tag: &str| {
        format!(
            r#"{{"Id":"{id}","RepoTags":["{tag}"],"ParentId":"","RepoDigests":[],"Created":1,"Size":7,"SharedSize":-1,"Labels":{{}},"Containers":-1}}"#
        )
    };
    let list = || answer("200 OK", &format!("[{},{}]", summary(&foreign, &format!("example.com/{pin}")), summary(&manifest, &pin)));
    let seen = |id: &ImageId, tag: &str| answer("200 OK", &format!(r#"{{"Id":"{id}","RepoTags":["{tag}"]}}"#));
    let container =
        |image: &ImageId| answer("200 OK", &format!(r#"{{"Id":"c1","Name":"/web","Image":"{image}","State":{{"Status":"running"}}}}"#));
    let fake = Fake::all(
        vec![
            list(),
            list(),
            seen(&manifest, &pin),
            seen(&foreign, "till:1"),
            list(),
            answer("201 Created", r#"{"Id":"c1","Warnings":[]}"#),
            answer("200 OK", r#"[{"Id":"c1","State":"running"}]"#),
            container(&manifest),
            list(),
            list(),
            answer("200 OK", "[]"),
            list(),
            list(),
            seen(&manifest, &pin),
            list(),
        ],
        Some(answer("200 OK", info)),
    );
    let engine = fake.engine();
    assert_eq!(engine.images().await.unwrap(), [ours], "a tag with a registry's name is somebody else's");
    assert!(engine.image_present(&ours).await.unwrap());
    assert_eq!(engine.resolve("till:1").await.unwrap(), foreign, "nobody can tell what releases call it");
    engine.create(&ContainerSpec::new("web", ours)).await.unwrap();
    assert_eq!(engine.containers("alloc").await.unwrap()[0].image, ours);
    engine.remove_image(&ours).await.unwrap();
    engine.remove_image(&ImageId(Digest::new([9; 32]))).await.unwrap();
    // As much came as was unpacked: an export is no longer.
    assert_eq!(engine.image_size(&ours).await.unwrap(), 7);
    let requests = fake.requests.lock().unwrap().clone();
    assert!(requests[2].contains(&format!("/images/{manifest}/json")), "{requests:?}");
    assert!(requests[10].starts_with(&format!("DELETE /images/{manifest}")) && requests.len() == 15, "{requests:?}");
}

/// The list fails while an image is being removed.
#[tokio::test]
async fn a_list_that_one_image_keeps_from_coming_is_asked_for_again() {
    let gone = || answer("404 Not Found", r#"{"message":"failed to calculate size of image: content digest: not found"}"#);
    let fake = Fake::new(vec![gone(), answer("200 OK", "[]"), gone(), gone(), gone(), gone()]);
    let engine = fake.engine();
    assert_eq!(engine.images().await.unwrap(), []);
    assert!(matches!(engine.images().await, Err(EngineError::Refused { status: 404, .. })));
}

/// Whoever listens anew asks anew: the engine may have been begun with another store.
#[tokio::test]
async fn listening_again_has_the_engine_asked_again() {
    let list = || answer("200 OK", "[]");
    let fake = Fake::all(vec![answer("200 OK", "{}"), list(), answer("200 OK", ""), answer("200 OK", "{}"), list()], None);
    let engine = fake.engine();
    engine.images().await.unwrap();
    assert!(engine.changes("alloc").collect::<Vec<_>>().await.is_empty());
    engine.images().await.unwrap();
    assert!(fake.requests.lock().unwrap()[3].starts_with("GET /info"));
}

/// One question after a conversation broke off, and none else.
#[tokio::test]
async fn the_engine_is_asked_once_how_it_calls_its_images() {
    let info = answer("200 OK", r#"{"Driver":"overlay2"}"#);
    let fake = Fake::all(
        vec![info.clone(), answer("200 OK", "[]"), answer("200 OK", "[]"), answer("200 OK", "no JSON"), info, answer("200 OK", "[]")],
        None,
    );
    let engine = fake.engine();
    engine.images().await.unwrap();
    engine.images().await.unwrap();
    engine.images().await.unwrap_err();
    engine.images().await.unwrap();
    let asked = fake.requests.lock().unwrap().iter().filter(|request| request.starts_with("GET /info")).count();
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn no_engine_says_what_to_do() {
    let error = DockerEngine::connect(Path::new("/nowhere/docker.sock")).map(|e| async move { e.info().await });
    let error = match error {
        Ok(call) => call.await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("unix:///nowhere/docker.sock") && text.contains("is dockerd running"), "{text}");
}

#[tokio::test]
async fn errors_inside_the_stream_count() {
    let body = "{\"stream\":\"Loading\"}\r\n{\"errorDetail\":{\"message\":\"no space left on device\"},\"error\":\"no space left on device\"}\r\n{\"stream\":\"x\"}\r\n";
    for (body, fine) in [(body, false), ("{\"stream\":\"Loaded image ID\"}\r\n", true), ("", false), ("{\"stream\"", false)] {
        let fake = Fake::new(vec![answer("200 OK", body)]);
        let loaded = fake.engine().load(Box::pin(stream::iter([Ok(Bytes::from_static(b"tar"))]))).await;
        assert_eq!(loaded.is_ok(), fine, "{body}: {loaded:?}");
        if body.contains("space") {
            assert!(loaded.unwrap_err().to_string().contains("no space left on device"));
        }
        assert!(fake.requests.lock().unwrap()[0].starts_with("POST /images/load?quiet=true"), "{:?}", fake.requests);
    }
}

#[tokio::test]
async fn a_save_that_breaks_off_is_an_error() {
    let fake =
        Fake::new(vec!["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this".into(), answer("404 Not Found", r#"{"message":"no"}"#)]);
    let engine = fake.engine();
    let pieces: Vec<_> = engine.save("a:1").collect().await;
    assert!(pieces.last().unwrap().is_err());
    let pieces: Vec<_> = engine.save("a:1").collect().await;
    assert!(matches!(pieces[..], [Err(EngineError::NoImage { .. })]));
    assert!(engine.save("a b").collect::<Vec<_>>().await[0].is_err());
}

#[tokio::test]
async fn gone_and_done_are_fine() {
    let gone = || answer("404 Not Found", r#"{"message":"No such container: a"}"#);
    let same = || "HTTP/1.1 304 Not Modified\r\n\r\n".to_string();
    let fake = Fake::new(vec![gone(), same(), gone(), gone(), same(), gone()]);
    let engine = fake.engine();
    engine.stop("a", Duration::from_secs(1)).await.unwrap();
    engine.stop("a", Duration::from_secs(1)).await.unwrap();
    engine.remove("a").await.unwrap();
    engine.remove_image(&id()).await.unwrap();
    engine.start("a").await.unwrap();
    assert!(matches!(engine.start("a").await, Err(EngineError::NoContainer { .. })));
    assert_eq!(fake.requests.lock().unwrap()[0], "POST /containers/a/stop?t=1 HTTP/1.1");
}

#[tokio::test]
async fn a_taken_name() {
    let conflict = || answer("409 Conflict", r#"{"message":"Conflict. The container name is already in use"}"#);
    let found = |label: &str| {
        let body = format!(
            r#"{{"Id":"c1","Name":"/web","Image":"{}","State":{{"Status":"running"}},"Config":{{"Labels":{{"alloc":"{label}"}}}}}}"#,
            id()
        );
        answer("200 OK", &body)
    };
    let fake = Fake::new(vec![conflict(), found("1"), conflict(), found("2")]);
    let mut spec = ContainerSpec::new("web", id());
    spec.labels.insert("alloc".into(), "1".into());
    assert_eq!(fake.engine().create(&spec).await.unwrap(), "c1");
    let error = fake.engine().create(&spec).await.unwrap_err().to_string();
    assert!(error.contains("label `alloc` is `2`, not `1`") && error.contains("docker rm -f web"), "{error}");
}

/// What podman says where Docker has another word or status for it.
#[tokio::test]
async fn podmans_answers() {
    let many = r#"{"message":"unable to delete image \"abab\" by ID with more than one tag ([a:1 b:1]): please force removal"}"#;
    let ended = r#"{"message":"can only kill running containers. c1 is in state exited: container state improper"}"#;
    let gone = r#"{"message":"no container with name or ID \"a\" found: no such container"}"#;
    let state = format!(r#"{{"Id":"c1","Name":"web","Image":"{}","State":{{"Status":"stopped","ExitCode":137}}}}"#, id());
    let failed = |body| answer("500 Internal Server Error", body);
    let fake = Fake::new(vec![
        failed(many),
        failed(ended),
        answer("404 Not Found", gone),
        answer("200 OK", r#"[{"Id":"c1","State":"stopped"}]"#),
        answer("200 OK", &state),
        answer("200 OK", "{}"),
    ]);
    let engine = fake.engine();
    assert!(matches!(engine.remove_image(&id()).await, Err(EngineError::InUse { .. })));
    engine.signal("a", "SIGHUP").await.unwrap();
    assert!(matches!(engine.start("a").await, Err(EngineError::NoContainer { .. })));
    let found = engine.containers("alloc").await.unwrap();
    assert_eq!(found[0].status, ContainerStatus::Exited { code: 137, out_of_memory: false });
    let mut changes = std::pin::pin!(engine.changes("alloc"));
    changes.next().await.unwrap().unwrap();
    assert!(fake.requests.lock().unwrap().last().unwrap().contains("died"), "podman's events have names of their own");
}
