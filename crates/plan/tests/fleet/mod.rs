//! Small fleets for tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use skerry_plan::{Fleet, Image, JobVersion, Node, Order};
use skerry_wire::job::{Disconnect, Reconcile};
use skerry_wire::job::{DockerConfig, Driver, Group, Job, JobType, Network, Port, Resources, Task};
use skerry_wire::node::Fingerprint;
use skerry_wire::poll::AllocStatus;
use skerry_wire::{AllocId, DiffId, Digest, ImageId, Millis, NodeId, Timestamp};

pub fn node_id(n: u8) -> NodeId {
    NodeId::new([n; 16])
}

pub fn image_id(n: u8) -> ImageId {
    ImageId(Digest::new([n; 32]))
}

pub fn node(n: u8, pool: &str, memory_mib: u64) -> Node {
    let attributes = [("cpu.arch".to_owned(), "arm64".to_owned()), ("cores".to_owned(), (n % 5).to_string())].into();
    let fingerprint =
        Fingerprint { name: format!("node-{n}"), datacenter: format!("dc{}", n % 3), attributes, memory_mib, ..Fingerprint::default() };
    Node { id: node_id(n), pool: pool.to_owned(), fingerprint, inventory: Default::default(), eligible: true, drain: None }
}

pub fn group(name: &str, count: u32, memory: u32, ports: &[u16], image: u8) -> Group {
    let config = DockerConfig { image: format!("app:{image}"), image_id: Some(image_id(image)), ..DockerConfig::default() };
    let resources = Resources { memory, ..Resources::default() };
    let task = Task { resources, ..Task::new("app", Driver::Docker(config)) };
    let ports = ports.iter().map(|p| Port { label: format!("p{p}"), fixed: Some(*p), to: None }).collect();
    Group { count, network: Network { ports, ..Network::default() }, ..Group::new(name, vec![task]) }
}

pub fn job(id: &str, kind: JobType, priority: u8, groups: Vec<Group>) -> Job {
    Job { priority, ..Job::new(id, kind, groups) }
}

pub fn fleet(nodes: impl IntoIterator<Item = Node>) -> Fleet {
    let layer = |n: u8| (DiffId(Digest::new([n; 32])), 1_000_000);
    let image = |n: u8| Image { reference: format!("app:{n}"), architecture: "arm64".to_owned(), layers: vec![layer(0), layer(n)] };
    Fleet {
        nodes: nodes.into_iter().map(|n| (n.id, n)).collect(),
        images: (1..=4).map(|n| (image_id(n), image(n))).collect(),
        ..Fleet::default()
    }
}

/// Makes a job's next version current.
pub fn submit(fleet: &mut Fleet, job: Job) {
    let version = fleet.jobs.get(&job.id).map_or(0, |j| j.version) + 1;
    fleet.jobs.insert(job.id.clone(), JobVersion { version, job, stopped: None });
}

/// Plans, applies, and checks that planning again changes nothing and says the same.
pub fn settle(fleet: &mut Fleet) -> skerry_plan::Plan {
    let plan = skerry_plan::plan(fleet);
    plan.apply(&mut fleet.allocs);
    let again = skerry_plan::plan(fleet);
    assert!(again.is_empty(), "planning again: {again:?}\nafter: {plan:?}");
    // The reasons may differ: a port that was free when one group was refused for memory is another's by now.
    let missing = |plan: &skerry_plan::Plan| -> Vec<_> {
        let all = plan.failures.iter().flat_map(|(job, failures)| failures.iter().map(move |f| (job.clone(), f.group.clone(), f.missing)));
        all.collect()
    };
    assert_eq!(missing(&again), missing(&plan));
    plan
}

/// The same group, replaced when its node is lost.
pub fn replaced(reconcile: Reconcile, group: Group) -> Group {
    let disconnect = Disconnect { lost_after: Some(Millis(1000)), replace: true, reconcile, ..Disconnect::default() };
    Group { disconnect, ..group }
}

/// A node says of an allocation that runs by order.
pub fn say(fleet: &mut Fleet, alloc: AllocId, status: AllocStatus) {
    let now = fleet.now;
    let Some(alloc) = fleet.allocs.get_mut(&alloc) else { return };
    alloc.state.heard = true;
    alloc.state.running_since = (status == AllocStatus::Running).then(|| alloc.state.running_since.unwrap_or(now));
    alloc.state.status = status;
    alloc.covers &= status == AllocStatus::Pending || status == AllocStatus::Failed;
    alloc.ended = alloc.order != Order::Run && matches!(status, AllocStatus::Complete | AllocStatus::Failed);
}

/// Everything on these nodes is reported as running.
pub fn runs(fleet: &mut Fleet, nodes: &[u8]) {
    let there = |a: &&skerry_plan::Alloc| a.order == Order::Run && nodes.iter().any(|n| a.node == node_id(*n));
    let ids: Vec<_> = fleet.allocs.values().filter(there).map(|a| a.id).collect();
    for id in ids {
        say(fleet, id, AllocStatus::Running);
    }
}

/// The server has not heard of a node for long, or hears it again.
pub fn lose(fleet: &mut Fleet, n: u8, lost: bool) {
    let jobs = fleet.jobs.clone();
    for alloc in fleet.allocs.values_mut().filter(|a| a.node == node_id(n) && (!lost || a.order == Order::Run)) {
        let group = jobs.get(&alloc.job).and_then(|j| j.job.group(&alloc.group));
        alloc.lost = lost && group.is_some_and(|g| g.disconnect.lost_after.is_some());
    }
}

/// Time goes on.
pub fn later(fleet: &mut Fleet, ms: u64) {
    fleet.now = fleet.now.after(Millis(ms));
    let _: Timestamp = fleet.now;
}
