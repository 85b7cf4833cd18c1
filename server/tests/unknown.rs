//! A server that was put back to an older backup: what it forgot goes on, is listed, and is adopted or stopped by order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use skerry_client::Client;
use skerry_wire::AllocId;
use skerry_wire::api::{AllocOrder, DesiredStatus, PlanRequest, Submitter};
use skerry_wire::manifest::Manifest;
use skerry_wire::node::UnknownAlloc;
use skerry_wire::poll::AllocStatus;
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, noise};

fn order() -> AllocOrder {
    AllocOrder { submitter: Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() } }
}

/// What an agent says that keeps all of a manifest.
fn kept(manifest: &Manifest) -> Vec<UnknownAlloc> {
    let all = manifest.allocs.iter().map(|a| UnknownAlloc {
        id: a.id,
        job: a.job.clone(),
        group: a.group.clone(),
        index: a.index,
        version: a.version,
        specification: a.specification,
        status: AllocStatus::Running,
    });
    all.collect()
}

async fn run_job(server: &TestServer, client: &Client, name: &str) {
    let plan = client.plan_job(&PlanRequest { job: job(name, "till:1") }).await.unwrap();
    submit(client, &server.release_key(), plan.job.unwrap()).await.unwrap();
}

/// Refused with this code.
fn code<T: std::fmt::Debug>(result: Result<T, skerry_client::ClientError>) -> String {
    format!("{:?}", result.unwrap_err())
}

#[tokio::test]
async fn what_a_restored_server_forgot_is_adopted_or_buried() {
    let mut server = TestServer::start().await;
    let client = server.client();
    TestImage::new("till:1", &[&noise(1, 50_000)]).publish(&client, &server.release_key()).await.unwrap();
    let token = TestNode::token(server.folder.path());
    let mut nodes = ["one", "two"].map(|name| TestNode::new(server.folder.path(), name));
    for node in &mut nodes {
        node.enrol(&server.url, &token).await.unwrap();
        node.tell_facts(&server.url).await.unwrap();
    }
    server.back_up().await;
    let client = server.client();
    for name in ["shop", "pump"] {
        run_job(&server, &client, name).await;
    }
    for node in &mut nodes {
        node.poll(&server.url).await.unwrap();
        assert_eq!(node.manifest.as_ref().unwrap().allocs.len(), 2);
    }
    let specifications = nodes[0].specifications.clone();
    assert_eq!(specifications.len(), 2);
    let before: Vec<_> = nodes.iter().map(|n| n.manifest.clone().unwrap()).collect();

    server.restore().await;
    let client = server.client();
    for (node, before) in nodes.iter_mut().zip(&before) {
        // Its manifest is empty now, under a higher mark; what runs is not in it, and goes on.
        node.poll(&server.url).await.unwrap();
        assert_eq!((node.manifest.as_ref().unwrap().allocs.len(), node.manifest.as_ref().unwrap().tombstones.len()), (0, 0));
        assert!(node.mark > before.mark);
        node.unknown = kept(before);
        let reply = node.tell_facts(&server.url).await.unwrap();
        assert_eq!(reply.wanted.len(), 2, "the server has not their specifications");
    }
    let listed = client.unknown_allocs().await.unwrap();
    let names: Vec<_> = listed.iter().map(|a| (a.job.as_str(), a.node_name.as_str(), a.handed_over)).collect();
    assert_eq!(names, [("pump", "one", false), ("pump", "two", false), ("shop", "one", false), ("shop", "two", false)]);
    let of = |job: &str, node: usize| before[node].allocs.iter().find(|a| a.job == job).unwrap().id;
    assert!(code(client.adopt_alloc(&of("shop", 0), &order()).await).contains("no_specification"));
    assert!(code(client.adopt_alloc(&AllocId::new([9; 16]), &order()).await).contains("unknown_alloc"));

    // One node is enough; what nobody signed is not taken.
    let mut message = nodes[0].next();
    message.given = vec![skerry_wire::Blob(b"no envelope".to_vec())];
    assert_eq!(nodes[0].send(&server.url, &message).await.unwrap().wanted.len(), 2);
    let mut message = nodes[0].next();
    message.given = specifications.clone();
    assert_eq!(nodes[0].send(&server.url, &message).await.unwrap().wanted.len(), 0);
    assert!(client.unknown_allocs().await.unwrap().iter().all(|a| a.handed_over));

    let adopted = client.adopt_alloc(&of("shop", 0), &order()).await.unwrap();
    let mut ids = [of("shop", 0), of("shop", 1)];
    ids.sort_unstable();
    assert_eq!((adopted.job.as_str(), adopted.version, adopted.allocs.as_slice()), ("shop", 1, ids.as_slice()));
    let status = client.job("shop").await.unwrap();
    assert!(status.allocs.iter().all(|a| (a.desired, a.status) == (DesiredStatus::Run, AllocStatus::Running)), "{:?}", status.allocs);
    assert_eq!((status.allocs.len(), status.summary.health.wanted), (2, 2));
    client.bury_alloc(&of("pump", 0), &order()).await.unwrap();
    let buried = client.bury_alloc(&of("pump", 0), &order()).await.unwrap();
    assert!(buried.stopping.unwrap().contains("ada@example.org"));
    for (at, node) in nodes.iter_mut().enumerate() {
        node.poll(&server.url).await.unwrap();
        let manifest = node.manifest.clone().unwrap();
        // The same allocation as before, so that nothing starts anew.
        assert_eq!(manifest.allocs, before[at].allocs.iter().filter(|a| a.job == "shop").cloned().collect::<Vec<_>>());
        let stops: Vec<_> = manifest.tombstones.iter().map(|t| (t.id, t.version)).collect();
        assert_eq!(stops, if at == 0 { vec![(of("pump", 0), 1)] } else { vec![] }, "only what was ordered stops");
    }
    // The first node has stopped it and says so by not naming it any more.
    nodes[0].unknown.clear();
    nodes[0].tell_facts(&server.url).await.unwrap();
    let left: Vec<_> = client.unknown_allocs().await.unwrap().into_iter().map(|a| (a.job, a.node_name)).collect();
    assert_eq!(left, [("pump".to_owned(), "two".to_owned())]);
    // Submitted again it has a version above what runs anywhere, and what is older is not taken up any more.
    run_job(&server, &client, "pump").await;
    assert_eq!(client.job("pump").await.unwrap().summary.version, 2);
    assert!(code(client.adopt_alloc(&of("pump", 1), &order()).await).contains("older"));
    server.stop().await;
}

/// The server remembers the first version of a job, and its nodes run the second.
#[tokio::test]
async fn a_version_that_was_forgotten_is_adopted_in_the_place_of_the_older_one() {
    let mut server = TestServer::start().await;
    let client = server.client();
    for (n, tag) in [(1, "till:1"), (2, "till:2")] {
        TestImage::new(tag, &[&noise(n, 50_000)]).publish(&client, &server.release_key()).await.unwrap();
    }
    let mut node = TestNode::new(server.folder.path(), "one");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    node.tell_facts(&server.url).await.unwrap();
    run_job(&server, &client, "shop").await;
    server.back_up().await;
    let client = server.client();
    let plan = client.plan_job(&PlanRequest { job: job("shop", "till:2") }).await.unwrap();
    submit(&client, &server.release_key(), plan.job.unwrap()).await.unwrap();
    node.poll(&server.url).await.unwrap();
    let held = node.manifest.clone().unwrap();
    assert_eq!(held.allocs[0].version, 2);

    server.restore().await;
    let client = server.client();
    node.poll(&server.url).await.unwrap();
    assert_eq!(node.manifest.as_ref().unwrap().allocs[0].version, 1, "which the node does not follow");
    let mut message = node.next();
    message.given = node.specifications.clone();
    node.unknown = kept(&held);
    node.tell_facts(&server.url).await.unwrap();
    message.seq = node.next().seq;
    message.server_nonce = node.server_nonce;
    node.send(&server.url, &message).await.unwrap();
    // Ordered to stop, although the server has an older version for the place; and taken back from that.
    client.bury_alloc(&held.allocs[0].id, &order()).await.unwrap();
    node.poll(&server.url).await.unwrap();
    let manifest = node.manifest.clone().unwrap();
    let (runs, stops): (Vec<_>, Vec<_>) = (manifest.allocs.iter().map(|a| a.version).collect(), manifest.tombstones);
    assert_eq!((runs, stops.iter().map(|t| (t.id, t.version)).collect::<Vec<_>>()), (vec![1], vec![(held.allocs[0].id, 2)]));
    let adopted = client.adopt_alloc(&held.allocs[0].id, &order()).await.unwrap();
    assert_eq!((adopted.version, adopted.allocs.as_slice()), (2, [held.allocs[0].id].as_slice()));
    node.poll(&server.url).await.unwrap();
    let manifest = node.manifest.clone().unwrap();
    assert_eq!((manifest.allocs, manifest.tombstones), (held.allocs, vec![]), "as before the server forgot it");
    let status = client.job("shop").await.unwrap();
    assert_eq!((status.summary.version, status.summary.desired), (2, 1));
    server.stop().await;
}
