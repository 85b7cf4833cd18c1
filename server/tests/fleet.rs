//! From a submit to the bytes on a node: jobs, manifests, offers, bundles, reports, deployment sets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Cursor;

use skerry_bundle::VerifiedToc;
use skerry_reconstruct::Limits;
use skerry_server::config::Size;
use skerry_trust::envelope;
use skerry_wire::api::{BuildState, DesiredStatus, PlanRequest, SetState, StopRequest, SubmitReply, SubmitRequest, Submitter};
use skerry_wire::poll::{AllocStatus, Event, OfferState};
use skerry_wire::release::{Release, Specification};
use skerry_wire::{Blob, Millis, Timestamp, limits};
use support::job::{job, submit};
use support::node::TestNode;
use support::sink::{Images, Loaded};
use support::{TestImage, TestServer, code, noise};

#[tokio::test]
async fn a_submit_reaches_a_node_and_the_next_version_is_a_patch() {
    let mut server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let app = noise(1, 400_000);
    let mut newer = app.clone();
    newer[200_000..200_010].copy_from_slice(b"0123456789");
    let base = noise(2, 600_000);
    let (one, two) = (TestImage::new("till:1", &[&base, &app]), TestImage::new("till:2", &[&base, &newer]));
    one.publish(&client, &key).await.unwrap();
    two.publish(&client, &key).await.unwrap();
    let mut node = TestNode::new(server.folder.path(), "till-1");
    let token = TestNode::token(server.folder.path());
    node.enrol(&server.url, &token).await.unwrap();
    assert!(node.poll(&server.url).await.unwrap().send_facts);
    assert!(!node.tell_facts(&server.url).await.unwrap().send_facts);

    // The plan says what the submit then does.
    let first = job("shop", "till:1");
    let plan = client.plan_job(&PlanRequest { job: first.clone() }).await.unwrap();
    assert_eq!((plan.version, plan.unchanged, plan.placements.len(), plan.failures.len()), (1, false, 1, 0));
    assert_eq!((plan.price.len(), plan.price[0].base, plan.price[0].built), (1, None, false));
    let submitted = submit(&client, &key, plan.job.clone().unwrap()).await.unwrap();
    assert_eq!(submitted.plan.placements, plan.placements);
    assert_eq!(submitted.version, 1);
    assert_eq!(client.set(&submitted.set).await.unwrap().rows[0].state, SetState::Queued);

    // The node hears of it: manifest and specification in one reply.
    let reply = node.poll(&server.url).await.unwrap();
    assert_eq!(reply.specifications.len(), 1);
    let manifest = node.manifest.clone().unwrap();
    let alloc = manifest.allocs[0].clone();
    assert_eq!((alloc.job.as_str(), alloc.version, manifest.tombstones.len()), ("shop", 1, 0));
    assert_eq!(alloc.specification, skerry_image::sha256(&reply.specifications[0].0));
    let opened = node.root().open_release::<Specification>(&reply.specifications[0].0, Specification::PURPOSE, limits::SPECIFICATION);
    let image = opened.unwrap().0.job.groups[0].images().next().unwrap().image_id.unwrap();
    assert_eq!(image, one.release.image_id);

    // The first image comes as a full bundle.
    let mut images = Images::default();
    let full = fetch(&mut node, &server, image, &mut images).await;
    node.images.insert(image);
    let in_transit = vec![Event::ImageInTransit { image, have: 0, size: full }];
    node.tell(&server.url, in_transit).await.unwrap();
    assert_eq!(client.set(&submitted.set).await.unwrap().summary.state, SetState::InTransit);
    let running =
        Event::Alloc { alloc: alloc.id, status: AllocStatus::Running, reason: String::new(), restarts: 0, healthy: None, wait: None };
    node.tell(&server.url, vec![Event::ImagePresent { image }, running]).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let set = client.set(&submitted.set).await.unwrap();
    assert_eq!((set.summary.state, set.rows[0].size, set.rows[0].base), (SetState::Succeeded, Some(full), None));
    assert!(set.summary.finished_at.is_some());
    assert_eq!(client.job("shop").await.unwrap().summary.running, 1);

    // The same job again changes nothing.
    let again = submit(&client, &key, plan.job.unwrap()).await.unwrap();
    assert_eq!((again.version, again.set, again.plan.unchanged), (1, submitted.set, true));
    assert!(node.poll(&server.url).await.unwrap().manifest.is_none());

    // The second version: same node, patched from the first, in the middle of which the server starts anew.
    let plan = client.plan_job(&PlanRequest { job: job("shop", "till:2") }).await.unwrap();
    assert_eq!(plan.price[0].base, Some(image));
    let second = submit(&client, &key, plan.job.unwrap()).await.unwrap();
    assert_eq!((second.version, second.plan.placements[0].replaces), (2, Some(alloc.id)));
    server.restart().await;
    let client = server.client();
    let reply = node.poll(&server.url).await.unwrap();
    assert_eq!(reply.specifications.len(), 1);
    let manifest = node.manifest.clone().unwrap();
    assert_eq!((manifest.allocs.len(), manifest.allocs[0].version, manifest.tombstones.len()), (1, 2, 0));
    // What it waits for is shown with the set and with the node, and is no failure.
    let reason = "waits for the download window, until 2026-11-21 22:00 UTC".to_owned();
    node.tell(&server.url, vec![Event::ImageWaiting { image: two.release.image_id, reason: reason.clone() }]).await.unwrap();
    let row = client.set(&second.set).await.unwrap().rows.remove(0);
    assert_eq!((row.state, row.reason.as_ref()), (SetState::Queued, Some(&reason)));
    assert_eq!(client.node(&node.id).await.unwrap().arriving, [row]);
    let patch = fetch(&mut node, &server, two.release.image_id, &mut images).await;
    assert!(patch < 5_000, "a patch of ten bytes has {patch}");
    node.tell(&server.url, vec![Event::ImagePresent { image: two.release.image_id }]).await.unwrap();
    let set = client.set(&second.set).await.unwrap();
    assert_eq!((set.summary.state, set.rows[0].base), (SetState::Succeeded, Some(image)));
    assert!(client.node(&node.id).await.unwrap().arriving.is_empty());
    // A node on which the patch failed gets a bundle without bases.
    let full = node.await_offer_of(&server.url, two.release.image_id, true).await;
    assert!(matches!(full.bundle, OfferState::Ready { size, .. } if size > 20 * patch), "{:?}", full.bundle);
    let row = client.plan_job(&PlanRequest { job: job("other", "till:2") }).await.unwrap().price[0].clone();
    assert_eq!((row.built, row.bytes), (true, patch));
    assert_eq!(client.sets().await.unwrap().iter().map(|s| s.version).collect::<Vec<_>>(), [2, 1]);

    // A stop is a tombstone until the node has said that it is over.
    let submitter = Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
    assert!(client.stop_job("shop", &StopRequest { submitter }).await.unwrap().stopped);
    node.poll(&server.url).await.unwrap();
    let manifest = node.manifest.clone().unwrap();
    assert_eq!((manifest.allocs.len(), manifest.tombstones.len()), (0, 1));
    assert_eq!(manifest.tombstones[0].reason, "job stopped by ada@example.org");
    let over = Event::Alloc {
        alloc: manifest.tombstones[0].id,
        status: AllocStatus::Complete,
        reason: String::new(),
        restarts: 0,
        healthy: None,
        wait: None,
    };
    node.tell(&server.url, vec![over]).await.unwrap();
    let alloc = client.alloc(&manifest.tombstones[0].id).await.unwrap().summary;
    assert_eq!((alloc.desired, alloc.status), (DesiredStatus::Stop, AllocStatus::Complete));
    assert_eq!(client.allocs().await.unwrap().len(), 2);
    assert_eq!(client.bundles().await.unwrap().len(), 3);
    server.stop().await;
}

/// Waits for the bundle, checks its release, fetches it in ranges, applies it; gives its bytes.
async fn fetch(node: &mut TestNode, server: &TestServer, image: skerry_wire::ImageId, images: &mut Images) -> u64 {
    let offer = node.await_offer(&server.url, image).await;
    let OfferState::Ready { digest, size, capability, release } = offer.bundle else { panic!("{:?}", offer.bundle) };
    let (release, _) = node.root().open_release::<Release>(&release.0, Release::PURPOSE, limits::RELEASE).unwrap();
    assert_eq!(release.image_id, image);
    let hex = digest.hex();
    let half = size / 2;
    let first = node.fetch(&server.url, &hex, &capability, Some(&format!("bytes=0-{}", half - 1))).await;
    assert_eq!((first.status, first.range.unwrap()), (206, format!("bytes 0-{}/{size}", half - 1)));
    let second = node.fetch(&server.url, &hex, &capability, Some(&format!("bytes={half}-"))).await;
    assert_eq!(second.status, 206);
    let bundle = [first.body, second.body].concat();
    assert_eq!((bundle.len() as u64, skerry_image::sha256(&bundle)), (size, digest));
    let metrics = server.client().metrics().await.unwrap();
    assert!(metrics.contains(&format!("skerry_object_bytes_sent_total{{object=\"{hex}\"}} {size}")), "{metrics}");
    // Refused: another node's capability, no such object, a range outside.
    assert_eq!(node.fetch(&server.url, &hex, "00000000000000000000000000000000", None).await.status, 403);
    assert_eq!(node.fetch(&server.url, &"0".repeat(64), &capability, None).await.status, 403);
    assert_eq!(node.fetch(&server.url, &hex, &capability, Some(&format!("bytes={size}-"))).await.status, 416);
    let mut bundle = Cursor::new(bundle);
    let toc = VerifiedToc::read(&mut bundle, &node.root().keys(skerry_trust::Role::Director)).unwrap();
    let mut sink = Loaded::default();
    skerry_reconstruct::reconstruct(&mut bundle, &toc, images, &mut sink, &Limits::default()).unwrap();
    images.add(image, sink);
    size
}

#[tokio::test]
async fn what_must_not_be_submitted_is_refused() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let image = TestImage::new("till:1", &[&noise(1, 100_000)]);
    assert_eq!(code(client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await), "404 unknown_image");
    image.publish(&client, &key).await.unwrap();
    assert_eq!(code(client.plan_job(&PlanRequest { job: job("shop", "till:9") }).await), "404 unknown_image");
    let resolved = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap().job.unwrap();
    let submitter = Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
    let request = |job, key: &skerry_trust::SigningKey| SubmitRequest {
        specification: Blob(envelope::seal(key, Specification::PURPOSE, &Specification { job, signed_at: Timestamp(0) })),
        source: String::new(),
        submitter: submitter.clone(),
        max_bytes: None,
        again: false,
    };
    let stranger = skerry_trust::SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
    let stranger = skerry_trust::SigningKey::from_pkcs8(&stranger).unwrap();
    assert_eq!(code(client.submit_job(&request(resolved.clone(), &stranger)).await), "403 bad_signature");
    assert_eq!(code(client.submit_job(&request(job("shop", "till:1"), &key)).await), "422 bad_job");
    let nobody = Submitter { name: String::new(), email: "ada@example.org".to_owned() };
    let anonymous = SubmitRequest { submitter: nobody, ..request(resolved.clone(), &key) };
    assert_eq!(code(client.submit_job(&anonymous).await), "400 bad_submitter");
    let mut node = TestNode::new(server.folder.path(), "till-1");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    let dear = SubmitRequest { max_bytes: Some(10), ..request(resolved.clone(), &key) };
    assert_eq!(code(client.submit_job(&dear).await), "409 too_expensive");
    assert!(client.jobs().await.unwrap().is_empty());
    assert_eq!(code(client.job("shop").await), "404 unknown_job");
    let SubmitReply { version, .. } = client.submit_job(&request(resolved, &key)).await.unwrap();
    assert_eq!(version, 1);
    server.stop().await;
}

/// A layer's file is gone: the build fails, waits, is tried again, and in the end the deployment row says why.
#[tokio::test]
async fn a_build_that_fails_is_tried_again_later_and_then_given_up_with_its_reason() {
    for attempts in [2, 1] {
        let server = TestServer::start_with(|config| config.builds.attempts = attempts).await;
        let (client, key) = (server.client(), server.release_key());
        let image = TestImage::new("till:1", &[&noise(1, 100_000)]);
        image.publish(&client, &key).await.unwrap();
        let mut node = TestNode::new(server.folder.path(), "till-1");
        node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
        node.tell_facts(&server.url).await.unwrap();
        let plan = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
        let submitted = submit(&client, &key, plan.job.unwrap()).await.unwrap();
        let app = server.server().app();
        let kept = app.store.layer(image.layers[0].0).await.unwrap().unwrap();
        std::fs::remove_file(app.objects.path(&kept.object)).unwrap();
        let mut message = node.next();
        message.images = vec![image.release.image_id];
        assert_eq!(node.send(&server.url, &message).await.unwrap().offers[0].bundle, OfferState::Building);
        let failed = async {
            loop {
                let bundle = client.bundles().await.unwrap().remove(0);
                if bundle.reason.is_some() {
                    break bundle;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let bundle = tokio::time::timeout(std::time::Duration::from_secs(30), failed).await.unwrap();
        assert!(bundle.reason.as_ref().unwrap().contains("No such file"), "{bundle:?}");
        let row = client.set(&submitted.set).await.unwrap().rows.remove(0);
        if attempts == 2 {
            assert_eq!((bundle.state, row.state), (BuildState::Queued, SetState::Queued));
            let now = skerry_server::clock::now();
            assert_eq!(app.store.take_build(now).await.unwrap(), None, "it waits");
            let due = app.store.take_build(now.after(Millis::from_secs(11))).await.unwrap().unwrap();
            assert_eq!(due.attempts, 2);
        } else {
            assert_eq!((bundle.state, row.state), (BuildState::Failed, SetState::Failed));
            assert!(row.reason.unwrap().starts_with("its bundle could not be built: "));
            let OfferState::Failed { reason } = node.await_offer(&server.url, image.release.image_id).await.bundle else { panic!() };
            assert!(reason.contains("No such file"), "{reason}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn an_agent_that_cannot_apply_bundles_of_this_server_is_told_so() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let image = TestImage::new("till:1", &[&noise(1, 10_000)]);
    image.publish(&client, &key).await.unwrap();
    let mut node = TestNode::new(server.folder.path(), "till-1");
    node.facts.features = vec!["bundle/0".to_owned()];
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let plan = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let offer = node.await_offer(&server.url, image.release.image_id).await;
    assert!(matches!(&offer.bundle, OfferState::Failed { reason } if reason.contains("bundle/1")), "{offer:?}");
    assert!(client.bundles().await.unwrap().is_empty());
    node.facts.features.push("bundle/1".to_owned());
    node.tell_facts(&server.url).await.unwrap();
    let offer = node.await_offer(&server.url, image.release.image_id).await;
    assert!(matches!(offer.bundle, OfferState::Ready { .. }), "{offer:?}");
    server.stop().await;
}

/// Too little space for the reserve: no build is begun, and none is lost.
#[tokio::test]
async fn a_disk_near_its_end_is_left_to_the_database() {
    let mut server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let image = TestImage::new("till:1", &[&noise(1, 10_000)]);
    image.publish(&client, &key).await.unwrap();
    server.restart_with(|config| config.limits.disk_reserve = Size(u64::MAX)).await;
    let client = server.client();
    let mut node = TestNode::new(server.folder.path(), "till-1");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let plan = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let mut message = node.next();
    message.images = vec![image.release.image_id];
    node.send(&server.url, &message).await.unwrap();
    let reason = loop {
        if let Some(reason) = client.bundles().await.unwrap().remove(0).reason {
            break reason;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(reason.contains("kept in reserve"), "{reason}");
    server.stop().await;
}
