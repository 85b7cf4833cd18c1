//! Indexes of layers in the server: which base they choose, and that a wrong one cannot make a wrong bundle.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use skerry_server::builds::{BundleMaker, MakeOrder, Maker};
use skerry_server::store::{ImageRef, StoredImage};
use skerry_wire::api::{BuildState, TokenRequest};
use skerry_wire::poll::OfferState;
use skerry_wire::{Digest, ImageId};
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, noise};

/// Waits until every layer has its index.
async fn indexed(server: &TestServer) {
    while !server.server().app().store.layers_without_index(1).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn stored(server: &TestServer, image: &TestImage) -> StoredImage {
    server.server().app().store.image(ImageRef::Id(image.release.image_id)).await.unwrap().unwrap()
}

/// What the server predicts, on a thread that may block.
async fn estimate(server: &TestServer, target: ImageId, bases: Vec<ImageId>) -> Option<u64> {
    let estimator = server.server().app().builds.estimator();
    tokio::task::spawn_blocking(move || estimator.estimate(&target, &bases)).await.unwrap()
}

/// A node that holds these images, and has said so.
async fn holding(server: &TestServer, name: &str, images: &[ImageId]) -> TestNode {
    let order = TokenRequest { pool: "default".to_owned(), uses: 1, ttl: None };
    let token = server.client().create_token(&order).await.unwrap().token;
    let mut node = TestNode::new(server.folder.path(), name);
    node.images = images.iter().copied().collect();
    node.enrol(&server.url, &token).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    node
}

/// A content like that of `noise(seed, 200_000)`, edited in the middle.
fn edited(seed: u64) -> Vec<u8> {
    let mut content = noise(seed, 200_000);
    content.splice(100_000..100_020, *b"another line of text, edited");
    content
}

#[tokio::test]
async fn the_base_with_the_smallest_bundle_is_chosen_whatever_its_name() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let target = TestImage::new("till:2", &[&edited(1)]);
    // By names and sizes the first is likelier.
    let (namesake, alike) = (TestImage::new("till:1", &[&noise(2, 200_000)]), TestImage::new("other:7", &[&noise(1, 150_000)]));
    for image in [&target, &namesake, &alike] {
        image.publish(&client, &key).await.unwrap();
    }
    indexed(&server).await;
    let ids = [&target, &namesake, &alike].map(|image| image.release.image_id);
    let predicted = [
        estimate(&server, ids[0], vec![]).await.unwrap(),
        estimate(&server, ids[0], vec![ids[1]]).await.unwrap(),
        estimate(&server, ids[0], vec![ids[2]]).await.unwrap(),
    ];
    assert!(predicted[2] < predicted[1] / 2 && predicted[1] <= predicted[0] + 100, "{predicted:?}");
    assert_eq!(estimate(&server, ImageId(Digest::new([9; 32])), vec![]).await, None, "an image that nobody published");

    let mut node = holding(&server, "one", &[ids[1], ids[2]]).await;
    let plan = client.plan_job(&skerry_wire::api::PlanRequest { job: job("shop", "till:2") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let offer = node.await_offer(&server.url, ids[0]).await;
    let OfferState::Ready { size, .. } = offer.bundle else { panic!("{:?}", offer.bundle) };
    let bundles = client.bundles().await.unwrap();
    assert_eq!(bundles.iter().map(|bundle| bundle.bases.clone()).collect::<Vec<_>>(), [vec![ids[2]]]);
    // The base has three quarters of the content; the prediction is near what came out.
    assert!(size.abs_diff(predicted[2]) < size / 5, "{size} {predicted:?}");
    server.stop().await;
}

/// The layer of the best base is gone from the server: the next best is taken, and the full bundle never, for a node has not asked for it.
#[tokio::test]
async fn bases_from_which_no_bundle_could_be_built_are_passed_over() {
    let server = TestServer::start_with(|config| config.builds.attempts = 1).await;
    let (client, key) = (server.client(), server.release_key());
    let target = TestImage::new("till:2", &[&edited(1)]);
    let (best, next) = (TestImage::new("a:1", &[&noise(1, 180_000)]), TestImage::new("b:1", &[&noise(1, 90_000)]));
    for image in [&target, &best, &next] {
        image.publish(&client, &key).await.unwrap();
    }
    indexed(&server).await;
    let app = server.server().app();
    let kept = app.store.layer(best.layers[0].0).await.unwrap().unwrap();
    std::fs::remove_file(app.objects.path(&kept.object)).unwrap();
    let [target, best, next] = [&target, &best, &next].map(|image| image.release.image_id);
    let (mut both, mut one) = (holding(&server, "both", &[best, next]).await, holding(&server, "one", &[best]).await);
    let plan = client.plan_job(&skerry_wire::api::PlanRequest { job: job("shop", "till:2") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let offer = both.await_offer(&server.url, target).await;
    assert!(matches!(offer.bundle, OfferState::Ready { .. }), "{:?}", offer.bundle);
    let offer = one.await_offer(&server.url, target).await;
    let OfferState::Failed { reason } = offer.bundle else { panic!("{:?}", offer.bundle) };
    assert!(reason.contains("No such file"), "{reason}");
    let mut tried: Vec<_> = client.bundles().await.unwrap().into_iter().map(|bundle| (bundle.bases, bundle.state)).collect();
    tried.sort_by_key(|(bases, _)| bases != &[best]);
    assert_eq!(tried, [(vec![best], BuildState::Failed), (vec![next], BuildState::Ready)]);
    server.stop().await;
}

#[tokio::test]
async fn two_bases_are_chosen_when_each_has_a_part() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let target = TestImage::new("till:2", &[&noise(1, 200_000), &noise(2, 200_000), b"new"]);
    let (one, two) = (TestImage::new("a:1", &[b"x", &noise(1, 200_000)]), TestImage::new("b:1", &[b"y", &noise(2, 200_000)]));
    for image in [&target, &one, &two] {
        image.publish(&client, &key).await.unwrap();
    }
    indexed(&server).await;
    let [target, one, two] = [&target, &one, &two].map(|image| image.release.image_id);
    let both = estimate(&server, target, vec![one, two]).await.unwrap();
    assert!(both * 5 < estimate(&server, target, vec![one]).await.unwrap().min(estimate(&server, target, vec![two]).await.unwrap()));
    let mut node = holding(&server, "one", &[one, two]).await;
    let plan = client.plan_job(&skerry_wire::api::PlanRequest { job: job("shop", "till:2") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let offer = node.await_offer(&server.url, target).await;
    assert!(matches!(offer.bundle, OfferState::Ready { .. }), "{:?}", offer.bundle);
    let bases: std::collections::BTreeSet<_> = client.bundles().await.unwrap().remove(0).bases.into_iter().collect();
    assert_eq!(bases, [one, two].into());
    // Asked again it answers from memory, after a restart from the disk.
    assert_eq!(estimate(&server, target, vec![one, two]).await, Some(both));
    let mut server = server;
    server.restart().await;
    assert_eq!(estimate(&server, target, vec![one, two]).await, Some(both));
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_index_cannot_make_a_wrong_bundle() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let content = noise(1, 200_000);
    let (old, new) = (TestImage::new("till:1", &[&edited(1)]), TestImage::new("till:2", &[&content, b"more"]));
    // As long as the old layer, with the content of the new one: its index says that nothing changed.
    let mut same_length = content.clone();
    same_length.resize(edited(1).len(), 0);
    let liar = TestImage::new("liar:1", &[&same_length]);
    let wanted = TestImage::new("till:3", &[&same_length]);
    for image in [&old, &new, &liar, &wanted] {
        image.publish(&client, &key).await.unwrap();
    }
    indexed(&server).await;
    let app = server.server().app();
    let (old_image, liar) = (stored(&server, &old).await, stored(&server, &liar).await);
    let index_of = async |image: &StoredImage| app.store.layer_index(image.layers[0].diff_id).await.unwrap().unwrap();
    let old_layer = old_image.layers[0].diff_id;
    let (right, wrong) = (index_of(&old_image).await, index_of(&liar).await);
    let make = async |target: &TestImage, index: Option<Digest>| {
        let target = stored(&server, target).await;
        let indexes: BTreeMap<_, _> = index.into_iter().map(|object| (old_layer, object)).collect();
        let order = MakeOrder { target, bases: vec![old_image.clone()], indexes };
        let maker = BundleMaker::new(app.objects.clone(), app.director.clone(), &app.config.builds);
        let made = tokio::task::spawn_blocking(move || maker.make(&order, &AtomicBool::new(false)).map(|object| object.size()));
        made.await.unwrap()
    };
    for target in [&new, &wanted] {
        let without = make(target, None).await.unwrap();
        let with = make(target, Some(right)).await.unwrap();
        // Signatures and keys are of one length: the same choices give as many bytes.
        assert_eq!(with, without);
        // A wrong one, and one that is no index: the bundle is proven, and made again without.
        assert_eq!(make(target, Some(wrong)).await.unwrap(), without);
        assert_eq!(make(target, Some(old_image.layers[0].object)).await.unwrap(), without);
    }
    server.stop().await;
}
