//! Files of bundles and layers that the disk garbles, cuts or loses: no node gets them, bundles are built again by themselves but not for
//! ever, layers are mended by publishing their image again, and the operator is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use skerry_wire::api::{BuildState, PlanRequest, PrepareRequest};
use skerry_wire::poll::{Event, OfferState};
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, noise};

/// What is done to a file, in words and in deed.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 3] = [
    ("garbled", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(path, bytes).unwrap();
    }),
    ("cut short", |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 3]).unwrap();
    }),
    ("lost", |path| std::fs::remove_file(path).unwrap()),
];

/// How many damaged files were found since the start, as the operator is told.
async fn found(server: &TestServer) -> u64 {
    let metrics = server.client().metrics().await.unwrap();
    metrics.lines().find_map(|line| line.strip_prefix("skerry_objects_damaged_total ")?.parse().ok()).unwrap()
}

#[tokio::test]
async fn a_damaged_bundle_is_built_again_when_it_is_asked_for_or_at_the_next_start() {
    let mut server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let image = TestImage::new("till:1", &[&noise(1, 300_000)]);
    image.publish(&client, &key).await.unwrap();
    let mut node = TestNode::new(server.folder.path(), "till-1");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let plan = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let id = image.release.image_id;
    for (what, damage) in DAMAGES {
        for restarts in [false, true] {
            let offer = node.await_offer(&server.url, id).await;
            let OfferState::Ready { digest, size, capability, .. } = offer.bundle else { panic!("{:?}", offer.bundle) };
            let get = node.fetch(&server.url, &digest.hex(), &capability, None).await;
            assert_eq!((get.status, get.body.len() as u64), (200, size), "{what}");
            let path = server.server().app().objects.path(&digest);
            let before = found(&server).await;
            damage(&path);
            if restarts {
                server.restart().await;
            }
            let asked = node.fetch(&server.url, &digest.hex(), &capability, Some("bytes=100-")).await;
            // Built again before it was asked for, or noticed when it was: never wrong bytes.
            match asked.status {
                206 => assert_eq!(skerry_image::sha256(&[&get.body[..100], &asked.body[..]].concat()), digest, "{what}"),
                status => assert_eq!(status, 404, "{what}: {:?}", asked.body),
            }
            assert!(restarts || found(&server).await == before + 1, "{what}: not counted");
            // The node asks anew, as after any offer that came to nothing, and gets the same bytes.
            node.tell(&server.url, vec![Event::ImageFailed { image: id, reason: what.to_owned() }]).await.unwrap();
            let offer = node.await_offer(&server.url, id).await;
            let OfferState::Ready { digest: again, capability, .. } = offer.bundle else { panic!("{what}: {:?}", offer.bundle) };
            assert_eq!(again, digest, "what a node has of it stays of use");
            let get = node.fetch(&server.url, &again.hex(), &capability, None).await;
            assert_eq!((get.status, skerry_image::sha256(&get.body)), (200, digest), "{what}");
        }
    }
    server.stop().await;
}

/// A disk that garbles whatever is written: the bundle is not built again for ever. The operator is told why, and by publishing the image
/// again he says that it may be tried again.
#[tokio::test]
async fn a_bundle_that_is_damaged_again_and_again_waits_for_a_word() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let image = TestImage::new("till:1", &[&noise(2, 100_000)]);
    image.publish(&client, &key).await.unwrap();
    let mut node = TestNode::new(server.folder.path(), "till-1");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let plan = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let id = image.release.image_id;
    let (_, garble) = DAMAGES[0];
    for word in ["the first time", "after the operator's word"] {
        let mut builds = 0;
        let reason = loop {
            match node.await_offer(&server.url, id).await.bundle {
                OfferState::Ready { digest, capability, .. } => {
                    builds += 1;
                    assert!(builds < 20, "{word}: it is built again for ever");
                    garble(&server.server().app().objects.path(&digest));
                    assert_eq!(node.fetch(&server.url, &digest.hex(), &capability, None).await.status, 404, "{word}");
                }
                OfferState::Failed { reason } => break reason,
                other => panic!("{other:?}"),
            }
        };
        assert!(builds > 2, "{word}: given up after {builds} builds");
        assert!(reason.contains("damaged") && reason.contains("disk") && reason.contains("publish"), "{word}: {reason}");
        let shown = client.bundles().await.unwrap();
        assert_eq!((shown[0].state, shown[0].reason.as_ref()), (BuildState::Failed, Some(&reason)), "{word}");
        assert_eq!(found(&server).await, builds * if word == "the first time" { 1 } else { 2 }, "{word}: each is counted");
        // It stays so, however often nodes ask.
        assert_eq!(node.await_offer(&server.url, id).await.bundle, OfferState::Failed { reason }, "{word}");
        image.publish(&client, &key).await.unwrap();
    }
    // The disk was changed for another one.
    let OfferState::Ready { digest, capability, .. } = node.await_offer(&server.url, id).await.bundle else { panic!("not ready") };
    let got = node.fetch(&server.url, &digest.hex(), &capability, None).await;
    assert_eq!((got.status, skerry_image::sha256(&got.body)), (200, digest));
    server.stop().await;
}

/// The file of a layer is damaged: what cannot be built of it says which image is to be published again, and publishing it mends all.
#[tokio::test]
async fn a_damaged_layer_is_named_and_mended_by_publishing_its_image_again() {
    for (n, (what, damage)) in (10..).zip(DAMAGES) {
        for restarts in [false, true] {
            let mut server = TestServer::start().await;
            let (mut client, key) = (server.client(), server.release_key());
            let image = TestImage::new("till:1", &[b"base", &noise(n, 100_000)]);
            image.publish(&client, &key).await.unwrap();
            let mut node = TestNode::new(server.folder.path(), "till-1");
            node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
            node.tell_facts(&server.url).await.unwrap();
            let plan = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
            submit(&client, &key, plan.job.unwrap()).await.unwrap();
            let (diff_id, _) = &image.layers[1];
            let layer = server.server().app().store.layer(*diff_id).await.unwrap().unwrap();
            damage(&server.server().app().objects.path(&layer.object));
            let id = image.release.image_id;
            let mut asked = node.next();
            asked.images = vec![id];
            node.send(&server.url, &asked).await.unwrap();
            let reason = loop {
                let shown = client.bundles().await.unwrap();
                assert_ne!(shown[0].state, BuildState::Ready, "{what}: built of a damaged layer");
                if let Some(reason) = &shown[0].reason {
                    break reason.clone();
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            };
            for says in [diff_id.to_string().as_str(), "till:1", "publish"] {
                assert!(reason.contains(says), "{what}: `{says}` is not in: {reason}");
            }
            if restarts {
                server.restart().await;
                client = server.client();
            }
            // Only what is damaged is asked for again.
            let prepared = client.prepare_image(&PrepareRequest { diff_ids: image.release.diff_ids.clone() }).await.unwrap();
            assert_eq!(prepared.missing, [*diff_id], "{what}");
            image.publish(&client, &key).await.unwrap();
            let prepared = client.prepare_image(&PrepareRequest { diff_ids: image.release.diff_ids.clone() }).await.unwrap();
            assert_eq!(prepared.missing, [], "{what}");
            let OfferState::Ready { digest, capability, .. } = node.await_offer(&server.url, id).await.bundle else {
                panic!("{what}: not ready")
            };
            let got = node.fetch(&server.url, &digest.hex(), &capability, None).await;
            assert_eq!((got.status, skerry_image::sha256(&got.body)), (200, digest), "{what}");
            server.stop().await;
        }
    }
}
