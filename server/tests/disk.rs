//! A disk that is full, or gives errors, under the server's database and objects: who asks is told why, what was acknowledged before and
//! meanwhile is there, and the server goes on by itself when the disk works again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;

use skerry_client::{Client, ClientError};
use skerry_server::store::{JobStore, SqliteStore, StoreError, database_path};
use skerry_testkit::powercut::Watched;
use skerry_wire::api::{ApiError, PlanRequest, PutVariable};
use skerry_wire::poll::{Event, OfferState};
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, noise};

/// What is the matter with the disk: begins and ends it, and the code that tells it.
type Trouble = (fn(&Watched, bool), &'static str);

const FULL: Trouble = (|disk, is| disk.set_full(is), "507 disk_full");
const BROKEN: Trouble = (|disk, is| disk.set_broken(is), "500 disk_error");

/// Writes that are tried until one fails: a database has room left in its files.
const WRITES: u64 = 3000;

fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (String, ApiError) {
    match answer.unwrap_err() {
        ClientError::Refused { status, error } => (format!("{} {}", status.as_u16(), error.code), error),
        other => panic!("not a refusal: {other}"),
    }
}

async fn put(client: &Client, path: &str, value: u64) -> Result<(), ClientError> {
    let items = [("value".to_owned(), format!("{value} {}", "long ".repeat(400)))].into();
    client.put_variable(&PutVariable { path: path.to_owned(), items }).await.map(|_| ())
}

/// The variables that the server has, as their values begin.
async fn variables(client: &Client) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for variable in client.variables("").await.unwrap() {
        let items = client.variable(&variable.path).await.unwrap().items;
        found.insert(variable.path, items["value"].split(' ').next().unwrap().parse().unwrap());
    }
    found
}

/// The troubles come and go in turn.
async fn survives(troubles: &[Trouble]) {
    let mut server = TestServer::start().await;
    let (mut client, key) = (server.client(), server.release_key());
    // The node has its files elsewhere.
    let nodes = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "root.cose"] {
        std::fs::copy(server.folder.path().join(name), nodes.path().join(name)).unwrap();
    }
    let mut node = TestNode::new(nodes.path(), "till-1");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let image = TestImage::new("till:1", &[&noise(1, 200_000)]);
    image.publish(&client, &key).await.unwrap();
    let planned = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap().job.unwrap();
    submit(&client, &key, planned).await.unwrap();
    let id = image.release.image_id;
    let offer = node.await_offer(&server.url, id).await;
    let OfferState::Ready { digest, .. } = offer.bundle else { panic!("{:?}", offer.bundle) };

    let mut acknowledged = BTreeMap::new();
    for (round, (set, code)) in troubles.iter().enumerate() {
        let disk = Watched::start(server.folder.path()).unwrap();
        let before = node.poll(&server.url).await.unwrap().acknowledged;
        let images = client.images().await.unwrap();
        set(&disk, true);
        // An operator's order, until it is refused; what is not refused counts.
        let mut n = 0;
        let (said, error) = loop {
            let path = format!("shop/{}", n % 20);
            match put(&client, &path, n).await {
                Ok(()) => acknowledged.insert(path, n),
                refusal => break refused(refusal),
            };
            n += 1;
            assert!(n < WRITES, "round {round}: the database takes every write");
        };
        assert_eq!(&said, code, "round {round}");
        assert!(error.message.contains("disk") && error.hint.is_some(), "round {round}: {error:?}");
        // An image, and a node's report.
        let other = TestImage::new(&format!("other:{round}"), &[&noise(10 + round as u64, 200_000)]);
        let (said, error) = refused(client.put_layer(&other.layers[0].0, support::body(&other.layers[0].1)).await);
        assert_eq!(&said, code, "round {round}: {error:?}");
        let reports = node.report_seq;
        let mut told = node.next();
        told.reports = vec![node.report(Event::ImagePresent { image: id })];
        assert_eq!(&node.send(&server.url, &told).await.unwrap_err(), code, "round {round}");
        node.report_seq = reports;

        set(&disk, false);
        assert_eq!(variables(&client).await, acknowledged, "round {round}");
        assert_eq!(client.images().await.unwrap(), images, "round {round}");
        assert_eq!(client.jobs().await.unwrap().len(), 1);
        // The same again, and each is taken.
        let reply = node.tell(&server.url, vec![Event::ImagePresent { image: id }]).await.unwrap();
        assert_eq!(reply.acknowledged, before + 1, "round {round}: neither lost nor counted twice");
        other.publish(&client, &key).await.unwrap();
        put(&client, "shop/last", round as u64).await.unwrap();
        acknowledged.insert("shop/last".to_owned(), round as u64);
        drop(disk);
        if round % 2 == 1 {
            server.restart().await;
            client = server.client();
        }
        assert_eq!(variables(&client).await, acknowledged, "round {round}");
        let offer = node.await_offer(&server.url, id).await;
        let OfferState::Ready { digest: again, capability, .. } = offer.bundle else { panic!("{:?}", offer.bundle) };
        assert_eq!(again, digest);
        let got = node.fetch(&server.url, &digest.hex(), &capability, None).await;
        assert_eq!((got.status, skerry_image::sha256(&got.body)), (200, digest), "round {round}");
    }
    let folder = server.folder.path().to_owned();
    server.restart().await;
    let kept = server.client().jobs().await.unwrap();
    // A start that the trouble meets says so, and does not take the database for damaged; what it has is left alone.
    let server = server.stopped().await;
    let path = database_path(&folder);
    for (set, code) in troubles {
        let disk = Watched::start(&folder).unwrap();
        set(&disk, true);
        match SqliteStore::open(&path) {
            Err(StoreError::Full) => assert_eq!(*code, FULL.1),
            Err(StoreError::Disk(said)) => assert_eq!(*code, BROKEN.1, "{said}"),
            Err(other) => panic!("{code}: {other}"),
            Ok(_) => assert_eq!(*code, FULL.1, "it opens"),
        }
        set(&disk, false);
        drop(disk);
        assert_eq!(SqliteStore::open(&path).unwrap().jobs().await.unwrap(), kept);
    }
    drop(server);
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    survives(&[FULL, FULL]).await;
}

#[tokio::test]
async fn errors_of_the_disk_are_told_and_lose_nothing() {
    survives(&[BROKEN, BROKEN, FULL, BROKEN]).await;
}

/// The disk fails while a bundle is on its way: no wrong byte goes out, and the node gets the same bundle afterwards.
#[tokio::test]
async fn a_bundle_that_cannot_be_read_for_a_while_is_not_lost() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let nodes = tempfile::tempdir().unwrap();
    for name in ["ca.pem", "root.cose"] {
        std::fs::copy(server.folder.path().join(name), nodes.path().join(name)).unwrap();
    }
    let mut node = TestNode::new(nodes.path(), "till-1");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    let image = TestImage::new("till:1", &[&noise(1, 200_000)]);
    image.publish(&client, &key).await.unwrap();
    let planned = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap().job.unwrap();
    submit(&client, &key, planned).await.unwrap();
    let offer = node.await_offer(&server.url, image.release.image_id).await;
    let OfferState::Ready { digest, capability, .. } = offer.bundle else { panic!("{:?}", offer.bundle) };
    let disk = Watched::start(server.folder.path()).unwrap();
    disk.set_broken(true);
    let got = node.fetch(&server.url, &digest.hex(), &capability, None).await;
    assert!(got.status == 404 || got.status == 500, "{}: {:?}", got.status, got.body);
    disk.set_broken(false);
    let offer = node.await_offer(&server.url, image.release.image_id).await;
    let OfferState::Ready { digest: again, capability, .. } = offer.bundle else { panic!("{:?}", offer.bundle) };
    let mut got = node.fetch(&server.url, &again.hex(), &capability, None).await;
    // Noticed only now, where the disk took no order to build it again.
    if got.status == 404 {
        let offer = node.await_offer(&server.url, image.release.image_id).await;
        let OfferState::Ready { digest: again, capability, .. } = offer.bundle else { panic!("{:?}", offer.bundle) };
        got = node.fetch(&server.url, &again.hex(), &capability, None).await;
    }
    assert_eq!((got.status, skerry_image::sha256(&got.body)), (200, digest));
    drop(disk);
    server.stop().await;
}
