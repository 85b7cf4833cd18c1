//! What agents are let do: enrolment by token, polls in order, reports counted once, marks that only rise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use skerry_trust::envelope;
use skerry_wire::api::TokenRequest;
use skerry_wire::manifest::Mark;
use skerry_wire::poll::{AllocStatus, Event, OfferState, PollRequest};
use skerry_wire::{AllocId, BootId, Millis, NodeId, Timestamp};
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, noise};

async fn token(server: &TestServer, uses: u32, ttl: Option<Millis>) -> String {
    server.client().create_token(&TokenRequest { pool: "default".to_owned(), uses, ttl }).await.unwrap().token
}

#[tokio::test]
async fn a_token_lets_in_as_many_nodes_as_it_says() {
    let mut server = TestServer::start().await;
    let token = token(&server, 1, None).await;
    let mut first = TestNode::new(server.folder.path(), "one");
    first.enrol(&server.url, &token).await.unwrap();
    let id = first.id;
    // The reply was lost, or the server died: the same key is the same node, and uses nothing.
    server.restart().await;
    first.enrol(&server.url, &token).await.unwrap();
    assert_eq!(first.id, id);
    first.poll(&server.url).await.unwrap();
    let mut second = TestNode::new(server.folder.path(), "two");
    assert_eq!(second.enrol(&server.url, &token).await.unwrap_err(), "403 token_used_up");
    let other = format!("{}{}", &token[..token.len() - 4], "0000");
    assert_eq!(second.enrol(&server.url, &other).await.unwrap_err(), "403 token_unknown");
    assert_eq!(second.enrol(&server.url, "not a token").await.unwrap_err(), "403 token_unknown");
    let expired = self::token(&server, 1, Some(Millis(0))).await;
    assert_eq!(second.enrol(&server.url, &expired).await.unwrap_err(), "403 token_expired");
    let nodes = server.client().nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].name.as_str(), nodes[0].pool.as_str()), (1, "one", "default"));
    assert!(nodes[0].last_seen.is_some());
    server.stop().await;
}

#[tokio::test]
async fn polls_are_believed_in_order_and_from_their_node_only() {
    let mut server = TestServer::start().await;
    let token = token(&server, 5, None).await;
    let mut node = TestNode::new(server.folder.path(), "one");
    assert_eq!(node.poll(&server.url).await.unwrap_err(), "401 unknown_node");
    node.enrol(&server.url, &token).await.unwrap();
    let recorded = node.next();
    node.send(&server.url, &recorded).await.unwrap();
    assert_eq!(node.send(&server.url, &recorded).await.unwrap_err(), "409 replayed");
    node.poll(&server.url).await.unwrap();
    server.restart().await;
    assert_eq!(node.send(&server.url, &recorded).await.unwrap_err(), "409 replayed");
    node.tell_facts(&server.url).await.unwrap();

    // Another node's name under one's own key.
    let mut liar = TestNode::new(server.folder.path(), "liar");
    liar.enrol(&server.url, &token).await.unwrap();
    liar.id = node.id;
    assert_eq!(liar.poll(&server.url).await.unwrap_err(), "400 bad_signature");
    liar.id = NodeId::new([7; 16]);
    assert_eq!(liar.poll(&server.url).await.unwrap_err(), "401 unknown_node");

    // After a reboot what a node says counts from its second poll on, which echoes the server's nonce.
    node.boot = BootId::new([2; 16]);
    node.seq = 0;
    let mut message = node.next();
    let old_nonce = node.server_nonce;
    message.server_nonce = [0; 8];
    message.reports = vec![node.report(Event::Dropped { count: 1, reason: "test".to_owned() })];
    let reply = node.send(&server.url, &message).await.unwrap();
    assert_eq!((reply.acknowledged, reply.send_facts, reply.next_poll_s), (0, true, 1));
    let mut stale = node.next();
    stale.server_nonce = old_nonce;
    assert_eq!(node.send(&server.url, &stale).await.unwrap().acknowledged, 0);
    let mut proven = node.next();
    proven.reports = message.reports.clone();
    assert_eq!(node.send(&server.url, &proven).await.unwrap().acknowledged, 1);
    // A poll of the boot before, recorded and sent again, changes nothing.
    let reply = node.send(&server.url, &recorded).await.unwrap();
    assert_eq!((reply.send_facts, reply.manifest), (true, None));
    assert_eq!(node.poll(&server.url).await.unwrap().acknowledged, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_report_counts_once_and_for_its_own_node() {
    let mut server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    TestImage::new("till:1", &[&noise(1, 50_000)]).publish(&client, &key).await.unwrap();
    let token = token(&server, 2, None).await;
    let (mut one, mut two) = (TestNode::new(server.folder.path(), "one"), TestNode::new(server.folder.path(), "two"));
    for node in [&mut one, &mut two] {
        node.enrol(&server.url, &token).await.unwrap();
        node.tell_facts(&server.url).await.unwrap();
    }
    let plan = client.plan_job(&skerry_wire::api::PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    submit(&client, &key, plan.job.unwrap()).await.unwrap();
    one.poll(&server.url).await.unwrap();
    let alloc = one.manifest.clone().unwrap().allocs[0].id;
    let event = |status, restarts| Event::Alloc { alloc, status, reason: String::new(), restarts, healthy: None, wait: None };
    let reply = one.tell(&server.url, vec![event(AllocStatus::Running, 0), event(AllocStatus::Failed, 1)]).await.unwrap();
    assert_eq!(reply.acknowledged, 2);
    // The reply was lost: the same reports come again, after a restart of the server too, and older than what is known.
    server.restart().await;
    let client = server.client();
    one.report_seq = 0;
    let again = vec![event(AllocStatus::Running, 0), event(AllocStatus::Failed, 1)];
    assert_eq!(one.tell(&server.url, again).await.unwrap().acknowledged, 2);
    one.report_seq = 0;
    assert_eq!(one.tell(&server.url, vec![event(AllocStatus::Running, 0)]).await.unwrap().acknowledged, 2);
    let status = client.alloc(&alloc).await.unwrap().summary;
    assert_eq!((status.status, status.restarts), (AllocStatus::Failed, 1));
    // Another node has no say in it, nor in one that does not exist.
    let nothing = Event::Alloc {
        alloc: AllocId::new([9; 16]),
        status: AllocStatus::Running,
        reason: String::new(),
        restarts: 0,
        healthy: None,
        wait: None,
    };
    two.tell(&server.url, vec![event(AllocStatus::Running, 7), nothing]).await.unwrap();
    assert_eq!(client.alloc(&alloc).await.unwrap().summary.restarts, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_new_node_gets_system_jobs_and_its_mark_only_rises() {
    let server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    TestImage::new("till:1", &[&noise(1, 50_000)]).publish(&client, &key).await.unwrap();
    let plan = client.plan_job(&skerry_wire::api::PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    assert_eq!(plan.failures[0].reasons, ["no node is enrolled"]);
    let submitted = submit(&client, &key, plan.job.unwrap()).await.unwrap();
    let token = token(&server, 1, None).await;
    let mut node = TestNode::new(server.folder.path(), "one");
    node.enrol(&server.url, &token).await.unwrap();
    let reply = node.tell_facts(&server.url).await.unwrap();
    assert_eq!((reply.specifications.len(), node.manifest.as_ref().unwrap().allocs.len()), (1, 1));
    assert_eq!(client.set(&submitted.set).await.unwrap().rows.len(), 1);
    // The node has seen more than this server remembers: the next manifest is above that.
    let seen = Mark { counter: 500, ..node.mark };
    node.mark = seen;
    let reply = node.poll(&server.url).await.unwrap();
    assert!(reply.manifest.is_some());
    assert!(node.mark > seen);
    assert_eq!(node.manifest.as_ref().unwrap().allocs.len(), 1);
    // Put back to an older backup, it has given the node's mark to another manifest since.
    let seen = node.mark;
    for issued in [Timestamp(5), Timestamp(0)] {
        let message = PollRequest { issued: Some(issued), ..node.next() };
        let reply = node.send(&server.url, &message).await.unwrap();
        assert!(reply.manifest.is_some(), "the node is thought to hold what it does not");
    }
    assert_eq!(node.mark.counter, seen.counter + 2);
    assert_eq!(node.manifest.as_ref().unwrap().allocs.len(), 1);
    // An older agent does not say which one it holds.
    let message = PollRequest { issued: None, ..node.next() };
    assert!(node.send(&server.url, &message).await.unwrap().manifest.is_none());
    // Nothing new: a small reply.
    let message = node.next();
    let reply = node.send(&server.url, &message).await.unwrap();
    assert_eq!((reply.manifest, reply.specifications.len(), reply.offers.len()), (None, 0, 0));
    let sealed = envelope::seal(&node.key, PollRequest::PURPOSE, &message);
    assert!(sealed.len() < 260, "an idle request has {} bytes", sealed.len());
    let lost = client.node(&node.id).await.unwrap();
    assert_eq!((lost.summary.latest_counter, lost.allocs.len()), (node.mark.counter, 1));
    assert!(lost.summary.last_seen > Some(Timestamp(0)));
    server.stop().await;
}

#[tokio::test]
async fn a_node_that_lies_harms_itself_alone() {
    let mut server = TestServer::start().await;
    let (client, key) = (server.client(), server.release_key());
    let (asked, other) = (TestImage::new("till:1", &[&noise(1, 50_000)]), TestImage::new("other:1", &[&noise(2, 50_000)]));
    for image in [&asked, &other] {
        image.publish(&client, &key).await.unwrap();
    }
    let token = token(&server, 2, None).await;
    let mut liar = TestNode::new(server.folder.path(), "liar");
    liar.enrol(&server.url, &token).await.unwrap();
    liar.tell_facts(&server.url).await.unwrap();
    // Counters at their end would leave no room for the next manifest, and be refused by the database.
    let high = u64::try_from(i64::MAX).unwrap();
    let honest = liar.mark;
    for counter in [high, u64::MAX] {
        liar.mark = Mark { counter, ..honest };
        assert_eq!(liar.poll(&server.url).await.unwrap_err(), "400 bad_counter");
        liar.mark = honest;
        let mut message = liar.next();
        message.reports = vec![liar.report(Event::Dropped { count: 1, reason: String::new() })];
        message.reports[0].seq = counter;
        assert_eq!(liar.send(&server.url, &message).await.unwrap_err(), "400 bad_counter");
        let message = PollRequest { seq: counter, ..liar.next() };
        assert_eq!(liar.send(&server.url, &message).await.unwrap_err(), "400 bad_counter");
    }
    // A root that the server does not have.
    liar.mark = Mark { root: 7, ..honest };
    assert!(liar.poll(&server.url).await.unwrap().manifest.is_none());
    liar.mark = honest;
    // Orders go on.
    let plan = client.plan_job(&skerry_wire::api::PlanRequest { job: job("shop", "till:1") }).await.unwrap();
    let submitted = submit(&client, &key, plan.job.unwrap()).await.unwrap();
    // An image that nobody ordered for it is not built for it.
    let offer = liar.await_offer(&server.url, other.release.image_id).await;
    let OfferState::Failed { reason } = offer.bundle else { panic!("{:?}", offer.bundle) };
    assert!(reason.contains("needs image"), "{reason}");
    assert!(client.bundles().await.unwrap().is_empty());
    // A long story is cut.
    let (image, reason) = (asked.release.image_id, "ü".repeat(100_000));
    liar.tell(&server.url, vec![Event::ImageFailed { image, reason }]).await.unwrap();
    assert!(client.set(&submitted.set).await.unwrap().rows[0].reason.as_ref().unwrap().len() <= 1024);
    // A recorded enrolment of an older boot does not make its polls count again.
    liar.boot = BootId::new([1; 16]);
    let recorded = liar.next();
    liar.send(&server.url, &recorded).await.unwrap();
    liar.boot = BootId::new([2; 16]);
    for _ in 0..2 {
        liar.poll(&server.url).await.unwrap();
    }
    let boot = std::mem::replace(&mut liar.boot, BootId::new([1; 16]));
    liar.enrol(&server.url, &token).await.unwrap();
    let replayed = liar.send(&server.url, &recorded).await.unwrap();
    assert_eq!((replayed.send_facts, replayed.next_poll_s), (true, 1), "the old boot must prove itself");
    liar.boot = boot;
    server.restart().await;
    server.stop().await;
}
