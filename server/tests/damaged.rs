//! Files of bundles that the disk garbles, cuts or loses: no node gets them, they are built again by themselves, and the operator is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use skerry_wire::api::PlanRequest;
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
