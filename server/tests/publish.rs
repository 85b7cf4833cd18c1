//! Images come in: what is kept, what is refused, and that a refusal leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use ring::rand::SystemRandom;
use skerry_server::store::{ImageRef, Store};
use skerry_trust::SigningKey;
use skerry_wire::DiffId;
use skerry_wire::api::PrepareRequest;
use support::{TestImage, TestServer, body, code, noise};

/// Files under the object folder, the temporary ones too, but for indexes of layers, which come when they come.
fn object_files(server: &TestServer) -> usize {
    let mut count = 0;
    let mut folders = vec![server.folder.path().join("objects")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if !std::fs::read(entry.path()).is_ok_and(|bytes| bytes.starts_with(b"SKI")) {
                count += 1;
            }
        }
    }
    count
}

#[tokio::test]
async fn a_published_image_is_there_after_a_restart() {
    let mut server = TestServer::start().await;
    let image = TestImage::new("shop/till:2.1", &[b"base", &noise(1, 3_000_000)]);
    let published = image.publish(&server.client(), &server.release_key()).await.unwrap();
    assert_eq!((published.name.as_str(), published.tag.as_str(), published.layers), ("shop/till", "2.1", 2));
    assert_eq!(published.image_id, image.release.image_id);
    server.restart().await;
    let client = server.client();
    assert_eq!(client.images().await.unwrap(), std::slice::from_ref(&published));
    for reference in ["shop/till:2.1".to_owned(), published.image_id.to_string()] {
        let detail = client.image(&reference).await.unwrap();
        assert_eq!(detail.summary, published);
        assert_eq!(detail.layer_list.iter().map(|l| l.diff_id).collect::<Vec<_>>(), image.release.diff_ids);
        assert_eq!(detail.signed_by, server.release_key().public().id().to_string());
    }
    assert_eq!(code(client.image("shop/till:9").await), "404 unknown_image");
    assert_eq!(code(client.image("no such image").await), "400 bad_reference");
    // Publishing the same again sends no layer and changes nothing.
    let prepared = client.prepare_image(&PrepareRequest { diff_ids: image.release.diff_ids.clone() }).await.unwrap();
    assert_eq!(prepared.missing, []);
    assert_eq!(image.publish(&client, &server.release_key()).await.unwrap(), published);
    server.stop().await;
}

#[tokio::test]
async fn the_newest_release_of_a_tag_is_in_force_and_older_ones_are_kept() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let (one, two) = (TestImage::new("till:latest", &[b"1"]), TestImage::new("till:latest", &[b"2"]));
    one.publish(&client, &key).await.unwrap();
    two.publish(&client, &key).await.unwrap();
    let images = client.images().await.unwrap();
    assert_eq!(images.iter().map(|i| i.image_id).collect::<Vec<_>>(), [two.release.image_id]);
    assert_eq!(client.image("till").await.unwrap().summary.image_id, two.release.image_id);
    assert_eq!(client.image(&one.release.image_id.to_string()).await.unwrap().summary.image_id, one.release.image_id);
    server.stop().await;
}

#[tokio::test]
async fn layers_that_are_not_what_they_claim_are_refused_and_leave_nothing() {
    let server = TestServer::start_with(|config| config.limits.layer = skerry_server::config::Size(4_000_000)).await;
    let client = server.client();
    let image = TestImage::new("a:1", &[&noise(1, 3_000_000), b"other"]);
    let (diff_id, bytes) = &image.layers[0];
    let mut flipped = bytes.clone();
    flipped[1_500_000] ^= 1;
    let big = TestImage::new("big:1", &[&noise(2, 5_000_000)]);
    for (what, id, sent, expected) in [
        ("another layer", diff_id, image.layers[1].1.as_slice(), "422 wrong_digest"),
        ("cut off", diff_id, &bytes[..bytes.len() / 2], "422 broken_layer"),
        ("empty", diff_id, &[], "422 broken_layer"),
        ("a bare tar", diff_id, &[0u8; 10240], "422 broken_layer"),
        ("a flipped bit", diff_id, &flipped, "422 broken_layer"),
        ("too large", &big.layers[0].0, &big.layers[0].1, "413 layer_too_large"),
    ] {
        assert_eq!(code(client.put_layer(id, body(sent)).await), expected, "{what}");
        assert_eq!(object_files(&server), 0, "{what}");
    }
    assert_eq!(code(image.publish_without_layers(&client, &server).await), "409 unknown_layer");
    client.put_layer(diff_id, body(bytes)).await.unwrap();
    assert_eq!(object_files(&server), 1);
    server.stop().await;
}

impl TestImage {
    async fn publish_without_layers(
        &self,
        client: &skerry_client::Client,
        server: &TestServer,
    ) -> Result<skerry_wire::api::ImageSummary, skerry_client::ClientError> {
        client.publish_image(&self.request(&server.release_key())).await
    }
}

#[tokio::test]
async fn releases_that_do_not_hold_are_refused() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let image = TestImage::new("a:1", &[b"x"]);
    client.put_layer(&image.layers[0].0, body(&image.layers[0].1)).await.unwrap();
    let stranger = SigningKey::from_pkcs8(&SigningKey::generate(&SystemRandom::new()).unwrap()).unwrap();
    assert_eq!(code(client.publish_image(&image.request(&stranger)).await), "422 unsigned_release");
    let director = std::fs::read_to_string(server.folder.path().join("director.key")).unwrap();
    let director = SigningKey::from_text(&director).unwrap();
    assert_eq!(code(client.publish_image(&image.request(&director)).await), "422 unsigned_release");
    let mut altered = image.request(&key);
    let last = altered.release.0.len() - 1;
    altered.release.0[last] ^= 1;
    assert_eq!(code(client.publish_image(&altered).await), "422 unsigned_release");
    let mut bare = image.request(&key);
    bare.release.0 = b"not an envelope".to_vec();
    assert_eq!(code(client.publish_image(&bare).await), "422 bad_release");
    for (expected, change) in [
        ("422 wrong_digest", (|i: &mut TestImage| i.config.push(b' ')) as fn(&mut TestImage)),
        ("422 wrong_release", |i| i.release.architecture = "arm64".to_owned()),
        ("422 wrong_release", |i| i.release.os = "plan9".to_owned()),
        ("422 wrong_release", |i| i.release.size += 1),
        ("422 wrong_release", |i| i.release.diff_ids = vec![i.release.diff_ids[0]; 2]),
        ("422 bad_reference", |i| i.release.name = "../a".to_owned()),
        ("422 bad_reference", |i| i.release.tag = String::new()),
    ] {
        let mut image = TestImage::new("a:1", &[b"x"]);
        change(&mut image);
        assert_eq!(code(client.publish_image(&image.request(&key)).await), expected);
    }
    assert!(client.images().await.unwrap().is_empty());
    image.publish(&client, &key).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn one_layer_from_two_sides_at_once_is_kept_once() {
    let server = TestServer::start().await;
    let client = server.client();
    let image = TestImage::new("a:1", &[&noise(1, 2_000_000)]);
    let (diff_id, bytes) = &image.layers[0];
    let (one, two) = tokio::join!(client.put_layer(diff_id, body(bytes)), client.put_layer(diff_id, body(bytes)));
    one.unwrap();
    two.unwrap();
    client.put_layer(diff_id, body(bytes)).await.unwrap();
    assert_eq!(object_files(&server), 1);
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = TestServer::start().await;
    let client = server.client();
    let image = TestImage::new("a:1", &[&noise(1, 2_000_000)]);
    let (diff_id, bytes) = &image.layers[0];
    let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
    let broken = futures_util::stream::iter([Ok(Frame::data(half)), Err(std::io::Error::other("the link is cut"))]);
    assert!(client.put_layer(diff_id, StreamBody::new(broken).boxed()).await.is_err());
    // The server notices by itself; the same layer is taken afterwards.
    client.put_layer(diff_id, body(bytes)).await.unwrap();
    let mut left = object_files(&server);
    for _ in 0..200 {
        if left == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        left = object_files(&server);
    }
    assert_eq!(left, 1);
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_would_fill_the_disk_is_refused() {
    let server = TestServer::start_with(|config| config.limits.disk_reserve = skerry_server::config::Size(u64::MAX / 2)).await;
    let client = server.client();
    let image = TestImage::new("a:1", &[b"x"]);
    assert_eq!(code(client.put_layer(&image.layers[0].0, body(&image.layers[0].1)).await), "507 disk_full");
    assert_eq!(object_files(&server), 0);
    server.stop().await;
}

#[tokio::test]
async fn objects_that_nothing_names_are_collected_and_others_stay() {
    let server = TestServer::start().await;
    let client = server.client();
    let image = TestImage::new("a:1", &[b"kept"]);
    image.publish(&client, &server.release_key()).await.unwrap();
    let app = server.server().app();
    let store: &dyn Store = app.store.as_ref();
    let far = skerry_wire::Timestamp(i64::MAX);
    let before = store.objects().await.unwrap();
    assert_eq!(skerry_server::housekeeping::collect_objects(store, &app.objects, far).await.unwrap(), []);
    // The layer's index may have come meanwhile.
    let after = store.objects().await.unwrap();
    assert!(before.iter().all(|object| after.contains(object)), "{before:?} {after:?}");
    let stored = store.image(ImageRef::Id(image.release.image_id)).await.unwrap().unwrap();
    assert!(app.objects.open_object(&stored.layers[0].object).is_ok());
    server.stop().await;
}

#[tokio::test]
async fn an_address_that_is_no_digest_is_refused() {
    let server = TestServer::start().await;
    let unknown: DiffId = "0f".repeat(32).parse().unwrap();
    assert_eq!(code(server.client().put_layer(&unknown, body(b"short")).await), "422 broken_layer");
    let too_many = PrepareRequest { diff_ids: vec![unknown; 513] };
    assert_eq!(code(server.client().prepare_image(&too_many).await), "422 too_many_layers");
    server.stop().await;
}
