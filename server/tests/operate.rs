//! What operators order about running things, and what the server plans by the clock: silence, drain, variables, meta, trying again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use skerry_client::Client;
use skerry_server::clock;
use skerry_server::fleet::watch;
use skerry_trust::SigningKey;
use skerry_wire::api::{AllocOrder, DesiredStatus, DrainRequest, EligibilityRequest, MetaRequest, PlanRequest, PutVariable, Submitter};
use skerry_wire::job::{Constraint, Job, JobType, Operator, Reconcile};
use skerry_wire::manifest::ManifestAlloc;
use skerry_wire::poll::{AllocStatus, Event};
use skerry_wire::{AllocId, Millis};
use support::job::{job, submit};
use support::node::TestNode;
use support::{TestImage, TestServer, code, noise};

fn ada() -> Submitter {
    Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() }
}

/// A server with an image and `n` nodes that have told their facts.
async fn fleet(n: usize) -> (TestServer, Vec<TestNode>) {
    let server = TestServer::start().await;
    TestImage::new("till:1", &[&noise(1, 20_000)]).publish(&server.client(), &server.release_key()).await.unwrap();
    let token = TestNode::token(server.folder.path());
    let mut nodes = Vec::new();
    for i in 0..n {
        let mut node = TestNode::new(server.folder.path(), &format!("node-{i}"));
        node.enrol(&server.url, &token).await.unwrap();
        node.tell_facts(&server.url).await.unwrap();
        nodes.push(node);
    }
    (server, nodes)
}

fn typed(id: &str, kind: JobType) -> Job {
    Job { kind, ..job(id, "till:1") }
}

async fn order(client: &Client, key: &SigningKey, job: Job) -> u64 {
    let plan = client.plan_job(&PlanRequest { job }).await.unwrap();
    submit(client, key, plan.job.unwrap()).await.unwrap().version
}

fn said(alloc: AllocId, status: AllocStatus) -> Event {
    Event::Alloc { alloc, status, reason: "said so".to_owned(), restarts: 0, healthy: None, wait: None }
}

/// What a node is to run, after a poll.
async fn runs(server: &TestServer, node: &mut TestNode) -> Vec<ManifestAlloc> {
    node.poll(&server.url).await.unwrap();
    node.manifest.as_ref().map(|m| m.allocs.clone()).unwrap_or_default()
}

/// What a node is to stop.
fn tombstones(node: &TestNode) -> Vec<(AllocId, String)> {
    node.manifest.iter().flat_map(|m| &m.tombstones).map(|t| (t.id, t.reason.clone())).collect()
}

async fn tick(server: &TestServer) -> bool {
    watch::tick(server.server().app(), clock::now()).await.unwrap()
}

#[tokio::test]
async fn a_silent_node_is_replaced_and_settled_with_when_it_is_back() {
    let (mut server, mut nodes) = fleet(2).await;
    let (client, key) = (server.client(), server.release_key());
    let mut service = typed("shop", JobType::Service);
    let disconnect = &mut service.groups[0].disconnect;
    (disconnect.lost_after, disconnect.replace, disconnect.reconcile) = (Some(Millis(1500)), true, Reconcile::KeepReplacement);
    order(&client, &key, service).await;
    let placed = client.allocs().await.unwrap().remove(0);
    let (mut away, mut other) =
        if placed.node == nodes[0].id { (nodes.remove(0), nodes.remove(0)) } else { (nodes.remove(1), nodes.remove(0)) };
    runs(&server, &mut away).await;
    away.tell(&server.url, vec![said(placed.id, AllocStatus::Running)]).await.unwrap();
    tick(&server).await;
    // A server that starts anew has observed no silence: time before that does not count.
    tokio::time::sleep(Duration::from_millis(1600)).await;
    server.restart().await;
    let client = server.client();
    tick(&server).await;
    assert_eq!(client.allocs().await.unwrap().len(), 1);
    let lost = async {
        while client.allocs().await.unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            other.poll(&server.url).await.unwrap();
            tick(&server).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), lost).await.unwrap();
    let detail = client.alloc(&placed.id).await.unwrap();
    assert!(detail.summary.lost_since.is_some());
    assert_eq!((detail.summary.desired, detail.summary.status), (DesiredStatus::Run, AllocStatus::Running), "its order stays");
    assert!(client.node(&away.id).await.unwrap().summary.lost);
    assert_eq!(client.job("shop").await.unwrap().summary.health.lost, 1);
    // The verdict outlives a restart of the server.
    server.restart().await;
    let client = server.client();
    tick(&server).await;
    assert!(client.alloc(&placed.id).await.unwrap().summary.lost_since.is_some());
    // Back: the replacement does not run yet, so both go on.
    assert_eq!(runs(&server, &mut away).await.len(), 1);
    assert!(client.alloc(&placed.id).await.unwrap().summary.lost_since.is_none());
    tick(&server).await;
    assert_eq!((runs(&server, &mut away).await.len(), tombstones(&away).len()), (1, 0));
    let replacement = runs(&server, &mut other).await.remove(0).id;
    other.tell(&server.url, vec![said(replacement, AllocStatus::Running)]).await.unwrap();
    assert!(tick(&server).await, "a replacement that runs is a reason to plan");
    assert!(runs(&server, &mut away).await.is_empty());
    assert_eq!(tombstones(&away), [(placed.id, format!("index 0 goes on on {}", other.facts.name))]);
    assert!(!tick(&server).await, "nothing is planned without a reason");
    server.stop().await;
}

#[tokio::test]
async fn a_drained_node_is_left_by_its_service_first() {
    let (server, mut nodes) = fleet(2).await;
    let (client, key) = (server.client(), server.release_key());
    order(&client, &key, typed("shop", JobType::Service)).await;
    order(&client, &key, typed("probe", JobType::System)).await;
    let placed = client.allocs().await.unwrap().into_iter().find(|a| a.job == "shop").unwrap();
    let (mut drained, mut other) =
        if placed.node == nodes[0].id { (nodes.remove(0), nodes.remove(0)) } else { (nodes.remove(1), nodes.remove(0)) };
    for alloc in runs(&server, &mut drained).await {
        drained.tell(&server.url, vec![said(alloc.id, AllocStatus::Running)]).await.unwrap();
    }
    let request = DrainRequest { enable: true, deadline: Some(Millis::from_secs(3600)), ignore_system: false, submitter: ada() };
    assert!(client.drain_node(&drained.id, &request).await.unwrap().changed);
    let status = client.node(&drained.id).await.unwrap().summary;
    assert!(!status.eligible && status.drain.unwrap().deadline.is_some());
    assert_eq!(runs(&server, &mut drained).await.len(), 2, "until the replacement runs");
    let new = runs(&server, &mut other).await.into_iter().find(|a| a.job == "shop").unwrap().id;
    other.tell(&server.url, vec![said(new, AllocStatus::Running)]).await.unwrap();
    tick(&server).await;
    assert_eq!(runs(&server, &mut drained).await.iter().map(|a| a.job.as_str()).collect::<Vec<_>>(), ["probe"]);
    drained.tell(&server.url, vec![said(placed.id, AllocStatus::Complete)]).await.unwrap();
    tick(&server).await;
    assert!(runs(&server, &mut drained).await.is_empty(), "system jobs stop last");
    let probe = tombstones(&drained)[0].0;
    drained.tell(&server.url, vec![said(probe, AllocStatus::Complete)]).await.unwrap();
    // A new job does not come; given back, the system job does.
    order(&client, &key, typed("more", JobType::System)).await;
    assert!(runs(&server, &mut drained).await.is_empty());
    let back = DrainRequest { enable: false, deadline: None, ..request };
    client.drain_node(&drained.id, &back).await.unwrap();
    assert_eq!(runs(&server, &mut drained).await.len(), 2);
    assert_eq!(client.alloc(&probe).await.unwrap().summary.status, AllocStatus::Pending, "it begins from the start");
    // Eligibility alone keeps what runs.
    let request = EligibilityRequest { eligible: false, submitter: ada() };
    assert!(client.set_eligibility(&drained.id, &request).await.unwrap().changed);
    assert!(!client.set_eligibility(&drained.id, &request).await.unwrap().changed);
    order(&client, &key, typed("third", JobType::System)).await;
    assert_eq!(runs(&server, &mut drained).await.len(), 2);
    let log: Vec<_> = server.server().app().store.audit(20).await.unwrap().into_iter().map(|e| e.what).collect();
    for what in ["drained with a deadline in 3600 s, for Ada <ada@example.org>", "drained no more", "made ineligible"] {
        assert!(log.iter().any(|l| l.contains(what)), "{what}: {log:?}");
    }
    let nobody = EligibilityRequest { eligible: true, submitter: Submitter { name: String::new(), email: String::new() } };
    assert_eq!(code(client.set_eligibility(&drained.id, &nobody).await), "400 bad_submitter");
    assert_eq!(code(client.set_eligibility(&skerry_wire::NodeId::new([7; 16]), &request).await), "404 unknown_node");
    server.stop().await;
}

#[tokio::test]
async fn at_the_deadline_of_a_drain_nothing_is_waited_for() {
    let (server, mut nodes) = fleet(1).await;
    let (client, key) = (server.client(), server.release_key());
    order(&client, &key, typed("shop", JobType::Service)).await;
    let mut node = nodes.remove(0);
    assert_eq!(runs(&server, &mut node).await.len(), 1);
    let request = DrainRequest { enable: true, deadline: Some(Millis(60_000)), ignore_system: false, submitter: ada() };
    client.drain_node(&node.id, &request).await.unwrap();
    let app = server.server().app();
    watch::tick(app, clock::now()).await.unwrap();
    assert_eq!(runs(&server, &mut node).await.len(), 1, "there is no other node");
    assert!(watch::tick(app, clock::now().after(Millis(61_000))).await.unwrap());
    assert!(runs(&server, &mut node).await.is_empty());
    assert!(tombstones(&node)[0].1.ends_with("the deadline has passed"));
    server.stop().await;
}

#[tokio::test]
async fn no_deadline_of_a_drain_is_missed() {
    let (server, mut nodes) = fleet(1).await;
    let (client, key) = (server.client(), server.release_key());
    order(&client, &key, typed("shop", JobType::Service)).await;
    let mut node = nodes.remove(0);
    assert_eq!(runs(&server, &mut node).await.len(), 1);
    let app = server.server().app();
    // The order waited for other writes: its deadline had passed, and a tick with it, when it was carried out.
    watch::tick(app, clock::now().after(Millis(120_000))).await.unwrap();
    let request = DrainRequest { enable: true, deadline: Some(Millis(60_000)), ignore_system: false, submitter: ada() };
    client.drain_node(&node.id, &request).await.unwrap();
    assert!(watch::tick(app, clock::now().after(Millis(121_000))).await.unwrap());
    assert!(runs(&server, &mut node).await.is_empty());
    assert!(tombstones(&node)[0].1.ends_with("the deadline has passed"));
    // The database could not be asked when the deadline came.
    client.drain_node(&node.id, &DrainRequest { enable: false, deadline: None, ..request.clone() }).await.unwrap();
    assert_eq!(runs(&server, &mut node).await.len(), 1);
    let request = DrainRequest { deadline: Some(Millis(300_000)), ..request };
    client.drain_node(&node.id, &request).await.unwrap();
    watch::tick(app, clock::now().after(Millis(130_000))).await.unwrap();
    let database = rusqlite::Connection::open(skerry_server::store::database_path(server.folder.path())).unwrap();
    database.execute_batch("ALTER TABLE nodes RENAME TO away").unwrap();
    let late = clock::now().after(Millis(301_000));
    assert!(watch::tick(app, late).await.is_err());
    database.execute_batch("ALTER TABLE away RENAME TO nodes").unwrap();
    assert!(watch::tick(app, late).await.unwrap());
    assert!(runs(&server, &mut node).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn an_order_to_stop_ends_with_the_word_that_it_is_done_and_no_other() {
    let (server, mut nodes) = fleet(1).await;
    let (client, key) = (server.client(), server.release_key());
    order(&client, &key, typed("shop", JobType::Service)).await;
    let mut node = nodes.remove(0);
    let alloc = runs(&server, &mut node).await.remove(0).id;
    node.tell(&server.url, vec![said(alloc, AllocStatus::Failed)]).await.unwrap();
    client.stop_job("shop", &skerry_wire::api::StopRequest { submitter: ada() }).await.unwrap();
    runs(&server, &mut node).await;
    assert_eq!(tombstones(&node).len(), 1);
    // What the node said before it heard of the order comes late; it may also be a step on the way. A new manifest shows what is left.
    let mut turn = 0;
    for (status, left) in [
        (AllocStatus::Failed, 1),
        (AllocStatus::Running, 1),
        (AllocStatus::Pending, 1),
        (AllocStatus::Failed, 1),
        (AllocStatus::Complete, 0),
        (AllocStatus::Running, 0),
    ] {
        node.tell(&server.url, vec![said(alloc, status)]).await.unwrap();
        turn += 1;
        let meta = MetaRequest { set: [("turn".to_owned(), turn.to_string())].into(), unset: Vec::new(), submitter: ada() };
        client.apply_meta(&node.id, &meta).await.unwrap();
        assert!(runs(&server, &mut node).await.is_empty());
        assert_eq!(node.manifest.as_ref().unwrap().values.meta["turn"], turn.to_string());
        assert_eq!(tombstones(&node).len(), left, "after {status}");
    }
    server.stop().await;
}

#[tokio::test]
async fn variables_and_meta_reach_the_nodes_concerned_alone() {
    let (server, mut nodes) = fleet(2).await;
    let (client, key) = (server.client(), server.release_key());
    let mut only = typed("shop", JobType::System);
    only.constraints.push(Constraint { attribute: "${meta.site}".to_owned(), operator: Operator::Equal, value: "12".to_owned() });
    order(&client, &key, only).await;
    assert!(client.allocs().await.unwrap().is_empty());
    // The server's meta decides placement, and wins over the node's.
    let (mut one, mut two) = (nodes.remove(0), nodes.remove(0));
    one.facts.meta.insert("site".to_owned(), "11".to_owned());
    one.tell_facts(&server.url).await.unwrap();
    let meta = MetaRequest { set: [("site".to_owned(), "12".to_owned())].into(), unset: Vec::new(), submitter: ada() };
    assert!(client.apply_meta(&one.id, &meta).await.unwrap().changed);
    assert!(!client.apply_meta(&one.id, &meta).await.unwrap().changed);
    assert_eq!(runs(&server, &mut one).await.len(), 1);
    assert_eq!(one.manifest.as_ref().unwrap().values.meta, meta.set);
    assert_eq!(client.node(&one.id).await.unwrap().meta, meta.set);
    let before = (one.mark, two.mark);
    let put = |path: &str, value: &str| PutVariable { path: path.to_owned(), items: [("rate".to_owned(), value.to_owned())].into() };
    for (path, nodes) in [("nomad/jobs/shop/main/app", 1), ("nomad/jobs", 1), ("nomad/jobs/other", 0), ("mine/own", 0)] {
        let changed = client.put_variable(&put(path, "3")).await.unwrap();
        assert_eq!((changed.changed, changed.nodes), (true, nodes), "{path}");
    }
    assert!(!client.put_variable(&put("nomad/jobs", "3")).await.unwrap().changed);
    runs(&server, &mut one).await;
    runs(&server, &mut two).await;
    assert!(one.mark > before.0);
    assert_eq!(two.mark, before.1, "a node without the job gets nothing");
    let values = one.manifest.as_ref().unwrap().values.clone();
    assert_eq!(values.variables.keys().collect::<Vec<_>>(), ["nomad/jobs", "nomad/jobs/shop/main/app"]);
    assert_eq!(client.variables("nomad/jobs/").await.unwrap().len(), 2);
    assert_eq!(client.variable("nomad/jobs").await.unwrap().items["rate"], "3");
    client.purge_variable("nomad/jobs").await.unwrap();
    assert_eq!(code(client.variable("nomad/jobs").await), "404 unknown_variable");
    assert_eq!(code(client.purge_variable("nomad/jobs").await), "404 unknown_variable");
    assert_eq!(code(client.put_variable(&put("/bad", "3")).await), "422 bad_variable");
    runs(&server, &mut one).await;
    assert_eq!(one.manifest.as_ref().unwrap().values.variables.len(), 1);
    // More than a manifest carries is refused, and nothing of it kept.
    let mut refused = String::new();
    for n in 0..8 {
        match client.put_variable(&put(&format!("nomad/jobs/shop/main/t{n}"), &"x".repeat(60_000))).await {
            Ok(_) => {}
            Err(error) => refused = code(Err::<(), _>(error)),
        }
    }
    assert_eq!((refused.as_str(), client.variables("nomad/jobs/shop/main/t").await.unwrap().len()), ("409 no_room", 4));
    // Neither list nor audit log shows a value.
    let log = server.server().app().store.audit(50).await.unwrap();
    assert!(log.iter().any(|e| e.what == "put variable nomad/jobs with rate") && log.iter().all(|e| !e.what.contains("xxx")));
    let unset = MetaRequest { set: Default::default(), unset: vec!["site".to_owned()], submitter: ada() };
    client.apply_meta(&one.id, &unset).await.unwrap();
    runs(&server, &mut one).await;
    assert!(one.manifest.as_ref().unwrap().values.meta.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_batch_job_runs_once_until_it_is_ordered_again() {
    let (server, mut nodes) = fleet(1).await;
    let (client, key) = (server.client(), server.release_key());
    assert_eq!(order(&client, &key, typed("sums", JobType::Batch)).await, 1);
    let mut node = nodes.remove(0);
    let first = runs(&server, &mut node).await.remove(0);
    node.tell(&server.url, vec![said(first.id, AllocStatus::Running), said(first.id, AllocStatus::Complete)]).await.unwrap();
    tick(&server).await;
    assert_eq!(order(&client, &key, typed("sums", JobType::Batch)).await, 1, "unchanged");
    assert_eq!(runs(&server, &mut node).await, std::slice::from_ref(&first), "the same allocation, which is done");
    let summary = client.job("sums").await.unwrap();
    assert_eq!((summary.summary.health.complete, summary.sets[0].health.complete), (1, 1));
    let retry = AllocOrder { submitter: ada() };
    assert_eq!(code(client.retry_alloc(&first.id, &retry).await), "409 complete");
    // Again: signed anew, so a new version of another digest.
    let plan = client.plan_job(&PlanRequest { job: typed("sums", JobType::Batch) }).await.unwrap();
    let specification = skerry_wire::release::Specification { job: plan.job.unwrap(), signed_at: clock::now() };
    let specification = skerry_trust::envelope::seal(&key, skerry_wire::release::Specification::PURPOSE, &specification);
    let request = skerry_wire::api::SubmitRequest {
        specification: specification.into(),
        source: String::new(),
        submitter: ada(),
        max_bytes: Some(0),
        again: true,
    };
    assert_eq!(client.submit_job(&request).await.unwrap().version, 2);
    let second = runs(&server, &mut node).await.remove(0);
    assert!(second.id != first.id && second.specification != first.specification);
    server.stop().await;
}

#[tokio::test]
async fn orders_about_an_allocation_and_what_is_shown_of_it() {
    let (server, mut nodes) = fleet(1).await;
    let (client, key) = (server.client(), server.release_key());
    order(&client, &key, typed("shop", JobType::Service)).await;
    let mut node = nodes.remove(0);
    let alloc = runs(&server, &mut node).await.remove(0).id;
    for n in 0..12u32 {
        let event = Event::Alloc {
            alloc,
            status: if n == 11 { AllocStatus::Failed } else { AllocStatus::Pending },
            reason: format!("try {n}"),
            restarts: n,
            healthy: (n == 11).then_some(false),
            wait: (n == 11).then_some(Millis(30_000)),
        };
        let run = Event::Run { alloc, run: u64::from(n) + 1, status: AllocStatus::Complete, reason: format!("run {n}") };
        node.tell(&server.url, vec![event, run, Event::Unknown]).await.unwrap();
    }
    // Of another's allocation, or with a number that no honest node has.
    let stranger = Event::Run { alloc: AllocId::new([9; 16]), run: 1, status: AllocStatus::Complete, reason: String::new() };
    let high = Event::Run { alloc, run: u64::MAX, status: AllocStatus::Complete, reason: String::new() };
    node.tell(&server.url, vec![stranger, high]).await.unwrap();
    let detail = client.alloc(&alloc).await.unwrap();
    assert_eq!((detail.states.len(), detail.states[0].reason.as_str(), detail.states[9].reason.as_str()), (10, "try 11", "try 2"));
    assert_eq!((detail.runs.len(), detail.runs[0].run, detail.runs[9].run), (10, 12, 3));
    assert_eq!((detail.summary.healthy, detail.summary.restarts), (Some(false), 11));
    let waits = detail.summary.waits_until.unwrap();
    assert!(waits > clock::now() && waits <= clock::now().after(Millis(30_000)));
    assert_eq!(client.job("shop").await.unwrap().summary.health.unhealthy, 1);
    // Try again: a number that rises, in a new manifest, and goes on with the next version.
    let by = AllocOrder { submitter: ada() };
    client.retry_alloc(&alloc, &by).await.unwrap();
    assert_eq!(client.retry_alloc(&alloc, &by).await.unwrap().retry, 2);
    assert_eq!(runs(&server, &mut node).await[0].retry, 2);
    let mut newer = typed("shop", JobType::Service);
    newer.priority = 51;
    order(&client, &key, newer).await;
    let new = runs(&server, &mut node).await.remove(0);
    assert_eq!((new.retry, new.override_lock), (2, false));
    assert_eq!(code(client.retry_alloc(&alloc, &by).await), "409 not_wanted");
    // The lock is overridden until the switch is reported.
    assert!(client.override_lock(&new.id, &by).await.unwrap().override_lock);
    assert!(runs(&server, &mut node).await[0].override_lock);
    node.tell(&server.url, vec![said(new.id, AllocStatus::Running)]).await.unwrap();
    assert!(!client.alloc(&new.id).await.unwrap().override_lock);
    assert_eq!(code(client.override_lock(&new.id, &by).await), "409 running");
    assert_eq!(code(client.override_lock(&AllocId::new([9; 16]), &by).await), "404 unknown_alloc");
    server.stop().await;
}
