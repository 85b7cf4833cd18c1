//! Plans of containers, word by word: environment, mounts, network, limits, labels.

use std::collections::BTreeMap;

use skerry_reconcile::{
    ActionKind, BindKind, ContainerPlan, DYNAMIC_PORTS, InstancePlan, Labels, NetworkPlan, PublishedPort, State, instance_name, label,
};
use skerry_wire::job::{Driver, Job, JobType, NetworkMode, Port, Resources, Volume};
use skerry_wire::{AllocId, Millis};

use crate::bed::{Bed, docker, job};

fn plan_of(bed: &mut Bed, spec: Job) -> ContainerPlan {
    bed.submit(spec);
    let decision = bed.decide();
    let first = decision.actions.first().unwrap_or_else(|| panic!("{decision:?}"));
    let ActionKind::Create(plan) = &first.kind else { panic!("{first:?}") };
    let InstancePlan::Container(plan) = &**plan else { panic!("no container") };
    plan.clone()
}

fn port(label: &str, fixed: Option<u16>, to: Option<u16>) -> Port {
    Port { label: label.into(), fixed, to }
}

#[test]
fn the_environment_has_nomads_names_and_the_jobs_words() {
    let mut spec = job(JobType::Service, vec![docker("main")]);
    spec.meta = BTreeMap::from([("tier".into(), "job".into()), ("my-key".into(), "x".into())]);
    spec.groups[0].meta = BTreeMap::from([("tier".into(), "group".into())]);
    spec.groups[0].network.mode = NetworkMode::Bridge;
    spec.groups[0].network.ports = vec![port("http", Some(8080), Some(80)), port("a-b", None, None)];
    let task = &mut spec.groups[0].tasks[0];
    task.resources = Resources { cpu: 250, memory: 64, memory_max: Some(128), disk: 0 };
    let words = [
        ("ID", "${node.unique.id}"),
        ("NAME", "${node.unique.name}/${node.datacenter}/${node.region}/${node.class}/${node.pool}"),
        ("ATTR", "${attr.cpu.arch} ${meta.site} ${attr.none}"),
        ("URL", "http://${NOMAD_ADDR_http}"),
    ];
    task.env = words.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let mut bed = Bed::new();
    bed.node.attributes.insert("cpu.arch".into(), "arm64".into());
    bed.node.pool = "tills".into();
    let plan = plan_of(&mut bed, spec);
    let env = &plan.common.env;
    let alloc = AllocId::new([16; 16]);
    let other = env["NOMAD_HOST_PORT_a_b"].clone();
    assert!(DYNAMIC_PORTS.contains(&other.parse().unwrap()));
    let rows = [
        ("ID", bed.node.id.to_string()),
        ("NAME", "n/dc1/global//tills".into()),
        ("ATTR", "arm64 harbour ${attr.none}".into()),
        ("URL", "http://10.0.0.1:8080".into()),
        ("NOMAD_ALLOC_DIR", "/alloc".into()),
        ("NOMAD_TASK_DIR", "/local".into()),
        ("NOMAD_SECRETS_DIR", "/secrets".into()),
        ("NOMAD_MEMORY_LIMIT", "64".into()),
        ("NOMAD_MEMORY_MAX_LIMIT", "128".into()),
        ("NOMAD_CPU_LIMIT", "250".into()),
        ("NOMAD_ALLOC_ID", alloc.to_string()),
        ("NOMAD_SHORT_ALLOC_ID", "10101010".into()),
        ("NOMAD_ALLOC_NAME", "till.g[0]".into()),
        ("NOMAD_ALLOC_INDEX", "0".into()),
        ("NOMAD_TASK_NAME", "main".into()),
        ("NOMAD_GROUP_NAME", "g".into()),
        ("NOMAD_JOB_ID", "till".into()),
        ("NOMAD_JOB_NAME", "till".into()),
        ("NOMAD_DC", "dc1".into()),
        ("NOMAD_REGION", "global".into()),
        ("NOMAD_NAMESPACE", "default".into()),
        ("NOMAD_IP_http", "10.0.0.1".into()),
        ("NOMAD_PORT_http", "80".into()),
        ("NOMAD_HOST_PORT_http", "8080".into()),
        ("NOMAD_ALLOC_PORT_http", "80".into()),
        ("NOMAD_PORT_a_b", other),
        ("NOMAD_HOST_ADDR_http", "10.0.0.1:8080".into()),
        ("NOMAD_META_tier", "group".into()),
        ("NOMAD_META_TIER", "group".into()),
        ("NOMAD_META_my_key", "x".into()),
    ];
    for (name, value) in rows {
        assert_eq!(env.get(name), Some(&value), "{name}");
    }
    assert!(!env.contains_key("NOMAD_JOB_PARENT_ID"));
    assert_eq!((plan.common.memory_limit, plan.common.memory_reservation), (128 << 20, Some(64 << 20)));
    assert_eq!(plan.common.cpu_shares, 250);
}

#[test]
fn memory_is_reserved_where_it_is_less_than_the_limit() {
    for (memory_max, limit, reserved) in [(None, 64, None), (Some(64), 64, None), (Some(65), 65, Some(64)), (Some(32), 64, None)] {
        let mut spec = job(JobType::Service, vec![docker("main")]);
        spec.groups[0].tasks[0].resources = Resources { memory: 64, memory_max, ..Resources::default() };
        let plan = plan_of(&mut Bed::new(), spec).common;
        assert_eq!((plan.memory_limit, plan.memory_reservation), (limit << 20, reserved.map(|m: u64| m << 20)), "{memory_max:?}");
    }
}

#[test]
fn networks() {
    let with = |mode, ports: Vec<Port>, mapped: &[&str]| {
        let mut spec = job(JobType::Service, vec![docker("main")]);
        spec.groups[0].network.mode = mode;
        spec.groups[0].network.ports = ports;
        if let Driver::Docker(config) = &mut spec.groups[0].tasks[0].driver {
            config.ports = mapped.iter().map(|p| (*p).to_owned()).collect();
        }
        let plan = plan_of(&mut Bed::new(), spec);
        (plan.network, plan.common.env.get("NOMAD_PORT_http").cloned())
    };
    let http = || vec![port("http", Some(8080), Some(80)), port("admin", Some(9090), None)];
    let published = |list: &[(u16, u16)]| {
        NetworkPlan::Bridge(list.iter().map(|(outer, inner)| PublishedPort { outer: *outer, inner: *inner }).collect())
    };
    let some = |n: &str| Some(n.to_owned());
    assert_eq!(with(NetworkMode::Host, http(), &[]), (NetworkPlan::Host, some("8080")));
    assert_eq!(with(NetworkMode::Host, http(), &["http"]), (published(&[(8080, 80)]), some("80")));
    assert_eq!(with(NetworkMode::Host, vec![], &[]), (published(&[]), None));
    assert_eq!(with(NetworkMode::Bridge, http(), &[]), (published(&[(8080, 80), (9090, 9090)]), some("80")));
    assert_eq!(with(NetworkMode::None, http(), &[]).0, NetworkPlan::None);
}

#[test]
fn mounts_and_words() {
    let mut spec = job(JobType::Service, vec![docker("main")]);
    if let Driver::Docker(config) = &mut spec.groups[0].tasks[0].driver {
        let volume =
            |source: &str, destination: &str, read_only| Volume { source: source.into(), destination: destination.into(), read_only };
        config.volumes = vec![volume("/srv/data/${meta.site}", "/data", true), volume("cache", "/cache", false)];
        config.command = Some("run".into());
        config.args = vec!["--site=${meta.site}".into()];
        config.entrypoint = Some(vec!["/bin/${NOMAD_TASK_NAME}".into()]);
        config.work_dir = Some("/work".into());
    }
    let mut bed = Bed::new();
    bed.policy.host_volumes = vec!["/srv/data".into()];
    let plan = plan_of(&mut bed, spec.clone());
    let alloc = format!("/srv/alloc/{}", AllocId::new([16; 16]));
    let binds: Vec<_> = plan.common.binds.iter().map(|b| (b.source.clone(), b.destination.as_str(), b.read_only, b.kind)).collect();
    let expected = [
        (format!("{alloc}/alloc"), "/alloc", false, BindKind::Alloc),
        (format!("{alloc}/main/local"), "/local", false, BindKind::Alloc),
        (format!("{alloc}/main/secrets"), "/secrets", false, BindKind::Secrets),
        ("/srv/data/harbour".to_owned(), "/data", true, BindKind::Host),
        (format!("{alloc}/main/cache"), "/cache", false, BindKind::Alloc),
    ];
    assert_eq!(binds, expected);
    assert_eq!(plan.command, Some(vec!["run".to_owned(), "--site=harbour".to_owned()]));
    assert_eq!(plan.entrypoint, Some(vec!["/bin/main".to_owned()]));
    assert_eq!(plan.common.work_dir.as_deref(), Some("/work"));
    // A destination must be a path, and what the policy does not allow is not mounted.
    for (change, expected) in [("relative", "must begin with `/`"), ("/a/../b", "must begin with `/`")] {
        let mut bed = Bed::new();
        let mut spec = job(JobType::Service, vec![docker("main")]);
        if let Driver::Docker(config) = &mut spec.groups[0].tasks[0].driver {
            config.volumes = vec![Volume { source: "x".into(), destination: change.into(), read_only: false }];
        }
        let alloc = bed.submit(spec);
        assert!(bed.told(alloc).reason.contains(expected));
    }
    let mut bed = Bed::new();
    let alloc = bed.submit(spec);
    assert!(bed.told(alloc).reason.contains("host_volumes"));
}

#[test]
fn labels_there_and_back() {
    let node = skerry_wire::NodeId::new([9; 16]);
    assert_eq!(skerry_reconcile::node_label(&node), format!("{}={node}", label::NODE));
    let mut spec = job(JobType::Service, vec![docker("main")]);
    spec.groups[0].network.ports = vec![port("http", Some(8080), None), port("x", Some(9090), None)];
    spec.groups[0].tasks[0].kill_timeout = Millis(1234);
    let labels = plan_of(&mut Bed::new(), spec).common.labels;
    let map = labels.to_map();
    assert_eq!((map[label::KILL_TIMEOUT].as_str(), map[label::PORTS].as_str()), ("1234", "http=8080,x=9090"));
    assert_eq!(Labels::from_map(&map), Ok(labels));
    for key in [label::NODE, label::ALLOC, label::JOB, label::GROUP, label::INDEX, label::TASK, label::VERSION, label::SPECIFICATION] {
        let mut broken = map.clone();
        broken.remove(key);
        assert!(Labels::from_map(&broken).unwrap_err().to_string().contains(key));
    }
    for ports in ["http", "http=x"] {
        let mut broken = map.clone();
        broken.insert(label::PORTS.into(), ports.into());
        assert!(Labels::from_map(&broken).is_err());
    }
    let id = AllocId::new([1; 16]);
    assert_eq!(instance_name(&id, "web"), format!("skerry-web-{id}"));
    let odd = [instance_name(&id, "a b"), instance_name(&id, "a/b"), instance_name(&id, "a-b")];
    assert!(odd[0] != odd[1] && odd[1] != odd[2] && odd.iter().all(|n| n.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))));
}

#[test]
fn what_runs_is_known_again_without_any_memory() {
    let mut bed = Bed::with(job(JobType::Service, vec![docker("main")]));
    bed.pass(20_000);
    bed.said();
    let before = bed.place().current.clone();
    bed.memory = Default::default();
    bed.rest();
    assert_eq!((bed.place().current.clone(), bed.said()), (before, vec![]));
    // Even without its specification it is kept running.
    let held = std::mem::take(&mut bed.specifications);
    bed.end("main", 1);
    bed.memory = Default::default();
    bed.rest();
    assert_eq!((bed.said(), bed.running()), (vec!["start main".to_owned()], vec!["main".to_owned()]));
    bed.pass(11_000);
    assert!(bed.place().last_good.is_some());
    // With an order to stop it does not come back.
    bed.specifications = held;
    bed.memory = Default::default();
    bed.bury();
    bed.rest();
    assert!(bed.instances.is_empty());
}

#[test]
fn work_that_is_the_same_goes_on_under_the_new_name() {
    let mut spec = job(JobType::Service, vec![docker("main")]);
    let mut bed = Bed::with(spec.clone());
    bed.pass(11_000);
    bed.said();
    spec.groups[0].restart.attempts += 1;
    spec.groups[0].count = 3;
    spec.groups[0].tasks[0].shutdown_delay = Millis(5);
    let new = bed.submit(spec.clone());
    bed.rest();
    assert!(bed.said().is_empty());
    let (current, good) = (bed.place().current.clone().unwrap(), bed.place().last_good.clone().unwrap());
    assert_eq!((current.alloc, current.born, current.version), (new, AllocId::new([16; 16]), 2));
    assert_eq!(good, current, "it is as good as it was");
    assert!(bed.instances.values().all(|i| i.state == State::Running));
    // Other work is not.
    for n in 0..3 {
        let mut other = spec.clone();
        match n {
            0 => other.meta.insert("a".into(), "b".into()).map_or((), drop),
            1 => other.name = "other".into(),
            _ => other.groups[0].tasks[0].env.insert("a".into(), "b".into()).map_or((), drop),
        }
        bed.submit(other);
        bed.rest();
        assert!(bed.said().contains(&"create main".to_owned()), "change {n}");
        bed.submit(spec.clone());
        bed.rest();
        bed.said();
    }
}

#[test]
fn what_fails_to_be_made_is_tried_again_later() {
    use skerry_reconcile::Step;
    let mut bed = Bed::new();
    bed.submit(job(JobType::Service, vec![docker("main")]));
    let mut waits = vec![];
    for _ in 0..9 {
        let decision = bed.decide();
        bed.memory = decision.memory.clone();
        bed.fail(&decision.actions[0], Step::Create);
        let next = bed.decide();
        assert!(next.actions.is_empty() && next.allocs[0].reason.contains("create failed: no"), "{:?}", next.allocs);
        bed.memory = next.memory.clone();
        bed.failures.clear();
        let at = next.wake_at.unwrap();
        waits.push(at - bed.ms);
        bed.ms = at;
    }
    for (n, wait) in waits.iter().enumerate() {
        let base = (5_000_u64 << n).min(300_000);
        assert!((base..=base + base / 4).contains(wait), "{waits:?}");
    }
}
