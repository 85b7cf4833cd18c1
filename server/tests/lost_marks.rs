//! A node that lost every copy of its mark: nothing more is made for it in vain, and a newer root brings it back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use skerry_server::admin::{Renewal, renew_root};
use skerry_wire::api::PlanRequest;
use skerry_wire::manifest::Mark;
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, noise};

/// Within one boot an agent's sequence only rises. A node that is known needs no token.
async fn enrol_again(node: &mut TestNode, url: &str) {
    let seq = node.seq;
    node.enrol(url, "none is asked for").await.unwrap();
    node.seq = seq;
}

#[tokio::test]
async fn a_lost_mark_raises_no_counter_and_ends_under_a_newer_root() {
    let mut server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    TestImage::new("till:1", &[&noise(1, 50_000)]).publish(&client, &key).await.unwrap();
    let plan = client.plan_job(&PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let mut node = TestNode::new(server.folder.path(), "one");
    node.enrol(&server.url, &TestNode::token(server.folder.path())).await.unwrap();
    assert_eq!(node.known_mark, Mark::default(), "a new node is told no mark");
    node.tell_facts(&server.url).await.unwrap();
    node.poll(&server.url).await.unwrap();
    let held = node.mark;
    assert_eq!((held.root, held.epoch), (1, 1));

    // All of its folder but its key is gone: it enrols again, and hears that it had a mark.
    enrol_again(&mut node, &server.url).await;
    assert_eq!(node.known_mark, held);
    node.mark = Mark::lost(1);
    for _ in 0..3 {
        let reply = node.poll(&server.url).await.unwrap();
        assert_eq!((reply.manifest, reply.roots.len()), (None, 0), "nothing under this root counts for it");
    }
    let status = client.node(&node.id).await.unwrap().summary;
    assert_eq!((status.counter, status.latest_counter), (0, held.counter), "no manifest was made in vain");
    // An agent that loses it once more hears of that, too.
    enrol_again(&mut node, &server.url).await;
    assert_eq!(node.known_mark, Mark::lost(1));

    let (folder, at) = (server.folder.path().to_owned(), |name: &str| server.folder.path().join(name));
    renew_root(&at("root.cose"), &[at("root.key")], Renewal::default(), &at("root-2.cose")).unwrap();
    server.restart().await;
    let newer = std::fs::read(folder.join("root-2.cose")).unwrap();
    let reply = node.poll(&server.url).await.unwrap();
    assert_eq!(reply.roots.first().map(|root| root.0.as_slice()), Some(newer.as_slice()));
    assert_eq!(node.mark, Mark { root: 2, epoch: 2, counter: held.counter + 1 });
    assert_eq!(node.manifest.as_ref().unwrap().allocs.len(), 1);
    assert!(node.poll(&server.url).await.unwrap().manifest.is_none());
    server.stop().await;
}
