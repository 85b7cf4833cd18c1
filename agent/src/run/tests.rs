//! The main loop with a true ledger on a true Docker engine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ring::rand::SecureRandom;
use skerry_engine::{ContainerStatus, DockerEngine};
use skerry_testkit::app::WebApp;
use skerry_testkit::image::Archive;
use skerry_trust::{SigningKey, envelope};
use skerry_wire::job::{DockerConfig, Driver, Group, Job, JobType, Network, Port, ProcessConfig, RestartMode, RestartPolicy, Task, Volume};
use skerry_wire::manifest::{Manifest, ManifestAlloc, Mark, Tombstone};
use skerry_wire::poll::{AllocStatus, Event};
use skerry_wire::release::Specification;
use skerry_wire::{Digest, Millis, NodeId, Timestamp};
use tokio::task::JoinHandle;

use skerry_reconcile::{Policy, node_label};

use super::*;
use crate::ledger::Accepted;
use crate::process::Processes;
use crate::process::tests::itself;

const SOCKET: &str = "/var/run/docker.sock";
const PATIENCE: Duration = Duration::from_secs(60);

struct Bed {
    folder: tempfile::TempDir,
    node: NodeId,
    key: SigningKey,
    ledger: Ledger,
    images: Vec<String>,
}

/// An agent's main loop under way.
struct Running {
    task: JoinHandle<()>,
    hints: mpsc::Sender<Hint>,
    allocs: watch::Receiver<Arc<AllocReport>>,
    needed: watch::Receiver<Arc<Needed>>,
    engine: watch::Receiver<EngineReport>,
}

impl Bed {
    async fn new() -> Option<Self> {
        if !skerry_testkit::need::bed().unwrap() {
            return None;
        }
        let random = ring::rand::SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).unwrap();
        let node = NodeId::new(id);
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&random).unwrap()).unwrap();
        let ledger = Ledger::open(folder.path(), Timestamp(0)).unwrap();
        ledger.enrolled(node).await.unwrap();
        Some(Self { folder, node, key, ledger, images: vec![] })
    }

    /// An image of its own, whose name tells it from those of other runs.
    fn archive(&self, version: &str) -> Archive {
        WebApp::small(&format!("skerry-test-{}", self.node.short()), version).write(self.folder.path()).unwrap()
    }

    fn load(&mut self, archive: &Archive) {
        docker(&["load", "-q", "-i", archive.path.to_str().unwrap()]);
        self.images.extend([archive.reference.clone(), format!("skerry-pin:{}", archive.image_id.trim_start_matches("sha256:"))]);
    }

    /// Accepts a manifest that wants this.
    async fn want(&self, counter: u64, archive: Option<&Archive>, tombstones: Vec<Tombstone>) -> AllocId {
        let content = archive.map(|a| Specification { job: job(a), signed_at: Timestamp(0) });
        self.want_content(counter, content, tombstones).await
    }

    async fn want_content(&self, counter: u64, content: Option<Specification>, tombstones: Vec<Tombstone>) -> AllocId {
        let id = AllocId::new([u8::try_from(counter).unwrap(); 16]);
        let specifications: Vec<_> = content
            .map(|c| {
                let bytes = envelope::seal(&self.key, Specification::PURPOSE, &c);
                (Digest::new(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref().try_into().unwrap()), bytes, c)
            })
            .into_iter()
            .collect();
        let alloc = |d| ManifestAlloc {
            job: "till".into(),
            group: "web".into(),
            index: 0,
            id,
            version: counter,
            specification: d,
            retry: 0,
            override_lock: false,
        };
        let allocs = specifications.iter().map(|(d, ..)| alloc(*d)).collect();
        let mark = Mark { root: 1, epoch: 1, counter };
        let manifest = Manifest { node: self.node, mark, issued_at: Timestamp(0), allocs, tombstones, values: Default::default() };
        let bytes = envelope::seal(&self.key, Manifest::PURPOSE, &manifest);
        self.ledger.accept(Accepted { manifest, bytes, specifications }).await.unwrap();
        id
    }

    async fn want_job(&self, counter: u64, job: Job) -> AllocId {
        self.want_content(counter, Some(Specification { job, signed_at: Timestamp(0) }), vec![]).await
    }

    fn processes(&self) -> Processes {
        Processes::with_launcher(&self.folder.path().join("run"), Arc::default(), itself("as_launcher")).unwrap()
    }

    fn start(&self) -> Running {
        self.start_with(Path::new(SOCKET))
    }

    fn start_with(&self, socket: &Path) -> Running {
        let facts = Fingerprint { name: "n1".into(), meta: BTreeMap::from([("site".into(), "pier".into())]), ..Fingerprint::default() };
        let (needed_to, needed) = watch::channel(Arc::default());
        let (allocs_to, allocs) = watch::channel(Arc::default());
        let (engine_to, engine) = watch::channel(EngineReport::default());
        let (hints, hints_from) = mpsc::channel(4);
        let news = Arc::new(Notify::new());
        let clock = Clock::new().unwrap();
        let boot = clock.boot();
        let drivers = Drivers {
            engine: DockerEngine::connect(socket).unwrap(),
            processes: Processes::with_launcher(&self.folder.path().join("run"), Arc::clone(&news), itself("as_launcher")).unwrap(),
            policy: Arc::new(Policy {
                host_volumes: vec![self.folder.path().join("srv").to_string_lossy().into_owned()],
                raw_exec: true,
                ..Policy::default()
            }),
            alloc_folder: Arc::new(self.folder.path().join("alloc")),
        };
        let checks = Checks::default();
        tokio::spawn(checks.clone().run(drivers.clone(), Arc::clone(&news)));
        let allocator = Allocator {
            drivers,
            ledger: self.ledger.clone(),
            clock,
            facts: watch::channel(Arc::new(facts)).1,
            checks,
            apply: Default::default(),
            silence: Silence::open(self.folder.path(), boot, 0).unwrap(),
            news,
            needed: needed_to,
            inventory: watch::channel(None).0,
            unknown: watch::channel(None).0,
            hints: hints_from,
            reports: (allocs_to, engine_to),
        };
        tokio::spawn(crate::hints::follow(DockerEngine::connect(socket).unwrap(), self.ledger.clone(), hints.clone()));
        Running { task: tokio::spawn(allocator.run()), hints, allocs, needed, engine }
    }

    async fn containers(&self) -> Vec<skerry_engine::ContainerState> {
        let engine = DockerEngine::connect(Path::new(SOCKET)).unwrap();
        engine.containers(&node_label(&self.node)).await.unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let label = format!("label={}", node_label(&self.node));
        // A main loop that was just told to end may still have a request under way.
        for _ in 0..20 {
            for id in docker(&["ps", "-aq", "--filter", &label]).split_whitespace() {
                docker(&["rm", "-f", id]);
            }
            self.images.retain(|image| {
                docker(&["rmi", image]);
                !docker(&["images", "-q", image]).is_empty()
            });
            if self.images.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Running {
    /// Waits until the view of an allocation is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&AllocReport) -> bool) -> Arc<AllocReport> {
        let found = tokio::time::timeout(PATIENCE, self.allocs.wait_for(|r| wanted(r))).await;
        if let Ok(Ok(report)) = found {
            return report.clone();
        }
        drop(found);
        panic!("{what}: {:#?} {:?}", self.allocs.borrow(), self.engine.borrow());
    }

    async fn until_status(&mut self, id: AllocId, status: AllocStatus) -> Arc<AllocReport> {
        self.until(&format!("{id} {status}"), |r| r.allocs.iter().any(|a| a.id == id && a.status == status)).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn job(archive: &Archive) -> Job {
    let config = DockerConfig {
        image: archive.reference.clone(),
        image_id: Some(archive.image_id.parse().unwrap()),
        command: Some("/bin/busybox".into()),
        args: ["httpd", "-f", "-p", "${NOMAD_PORT_http}", "-h", "/www"].map(str::to_owned).into(),
        // No task maps the port: it listens on the node's own network, so that the test needs no bridge.
        ports: vec![],
        volumes: vec![Volume { source: "local/seen".into(), destination: "/seen".into(), read_only: true }],
        ..DockerConfig::default()
    };
    let env = BTreeMap::from([("SITE".into(), "${meta.site}:${NOMAD_PORT_http}".into())]);
    let task = Task { env, ..Task::new("httpd", Driver::Docker(config)) };
    let restart = RestartPolicy { attempts: 5, interval: Millis::from_secs(600), delay: Millis(50), mode: RestartMode::Delay };
    let network = Network { ports: vec![Port { label: "http".into(), fixed: None, to: None }], ..Network::default() };
    let group = Group { network, restart, ..Group::new("web", vec![task]) };
    Job::new("till", JobType::Service, vec![group])
}

/// What the application says of its version.
async fn version_at(port: u16) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
            stream.write_all(b"GET /version HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        });
        if let Ok(text) = answer.await.unwrap()
            && let Some((head, body)) = text.split_once("\r\n\r\n")
            && head.contains("200")
        {
            return body.trim().to_owned();
        }
        assert!(Instant::now() < until, "nothing answers on {port}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploys_switches_restarts_and_stops() {
    let Some(mut bed) = Bed::new().await else { return };
    let (first, second) = (bed.archive("1"), bed.archive("2"));

    // Deployed in full once the image is there.
    let a = bed.want(1, Some(&first), vec![]).await;
    let mut agent = bed.start();
    agent.until_status(a, AllocStatus::Pending).await;
    assert_eq!(agent.needed.borrow().images[0].image.to_string(), first.image_id);
    bed.load(&first);
    agent.hints.send(Hint::Look).await.unwrap();
    let report = agent.until_status(a, AllocStatus::Running).await;
    let port = report.allocs[0].ports["http"];
    assert_eq!(version_at(port).await, "1");
    let before = bed.containers().await.remove(0);
    let env = docker(&["inspect", "-f", "{{json .Config.Env}}", &before.id]);
    assert!(env.contains(&format!("SITE=pier:{port}")) && env.contains(&format!("NOMAD_HOST_PORT_http={port}")), "{env}");

    // The next version waits for its image; the old container is not touched, and another agent takes it over as it is.
    let b = bed.want(2, Some(&second), vec![]).await;
    let report = agent.until("b waits", |r| r.allocs.iter().any(|x| x.id == b && x.reason.contains("waits for"))).await;
    assert!(report.allocs.iter().any(|x| x.id == a && x.status == AllocStatus::Running));
    drop(agent);
    let mut agent = bed.start();
    agent.until_status(a, AllocStatus::Running).await;
    let still = bed.containers().await.remove(0);
    assert_eq!((&still.id, &still.started_at), (&before.id, &before.started_at));

    // It switches when the image is there, and keeps the port.
    bed.load(&second);
    agent.hints.send(Hint::Look).await.unwrap();
    let report =
        agent.until("b runs alone", |r| r.allocs.len() == 1 && r.allocs[0].id == b && r.allocs[0].status == AllocStatus::Running).await;
    assert_eq!(report.allocs[0].ports["http"], port);
    assert_eq!(version_at(port).await, "2");
    let now = bed.containers().await;
    assert_eq!((now.len(), now[0].image.to_string()), (1, second.image_id.clone()));
    let old = bed.folder.path().join("alloc").join(a.to_string());
    let until = Instant::now() + PATIENCE;
    while old.exists() {
        assert!(Instant::now() < until, "the folder of the old allocation stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // What dies starts again; the engine's word is the hint.
    docker(&["kill", &now[0].id]);
    agent.until("restarted", |r| r.allocs[0].restarts == 1 && r.allocs[0].status == AllocStatus::Running).await;
    assert_eq!(version_at(port).await, "2");

    // Absence stops nothing, a tombstone does.
    bed.want(3, None, vec![]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bed.containers().await[0].status, ContainerStatus::Running);
    let stone = Tombstone { id: b, job: "till".into(), group: "web".into(), index: 0, reason: "stopped by ada".into(), version: 0 };
    bed.want(4, None, vec![stone]).await;
    agent.until("b gone", |r| r.allocs.is_empty()).await;
    assert!(bed.containers().await.is_empty());
    let reports = bed.ledger.oldest_reports(100).await.unwrap();
    let ends: Vec<_> = reports
        .iter()
        .filter_map(|r| match &r.event {
            Event::Alloc { alloc, status: AllocStatus::Complete, reason, .. } => Some((*alloc, reason.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(a, "replaced by version 2".to_owned()), (b, "stopped by ada".to_owned())]);
}

/// A job of one program in the place of the container's.
fn program(script: &str) -> Job {
    let config = ProcessConfig { command: "/bin/sh".into(), args: vec!["-c".into(), script.into()], work_dir: None };
    let task = Task { kill_timeout: Millis(2000), ..Task::new("sh", Driver::RawExec(config)) };
    let restart = RestartPolicy { attempts: 5, interval: Millis::from_secs(600), delay: Millis(50), mode: RestartMode::Delay };
    Job::new("till", JobType::Service, vec![Group { restart, ..Group::new("web", vec![task]) }])
}

/// Programs run without an engine; agents come and go, the program stays; its update lock is seen; it ends with its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_run_on_when_agents_and_engine_are_gone() {
    let Some(bed) = Bed::new().await else { return };
    let a = bed.want_job(1, program("echo run >> local/runs; exec sleep 1000")).await;
    let nowhere = bed.folder.path().join("no-docker.sock");
    let runs = bed.folder.path().join("alloc").join(a.to_string()).join("sh/local/runs");
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let mut agent = bed.start_with(&nowhere);
        agent.until_status(a, AllocStatus::Running).await;
        let end = Instant::now() + PATIENCE;
        let pid = loop {
            let found = bed.processes().pid(&skerry_reconcile::instance_name(&a, "sh"));
            if let Some(pid) = found.filter(|_| std::fs::read_to_string(&runs).is_ok_and(|r| r == "run\n")) {
                break pid;
            }
            assert!(Instant::now() < end, "{:?}", std::fs::read_to_string(&runs));
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        pids.insert(pid);
        assert!(agent.engine.borrow().error.as_ref().is_some_and(|e| e.contains("no-docker.sock")));
    }
    assert_eq!(pids.len(), 1, "one program for all agents");
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");

    let mut agent = bed.start_with(&nowhere);
    let stone = Tombstone { id: a, job: "till".into(), group: "web".into(), index: 0, reason: "stopped by ada".into(), version: 0 };
    bed.want(2, None, vec![stone]).await;
    agent.until("a gone", |r| r.allocs.is_empty()).await;
    assert!(bed.processes().names().is_empty());
    drop(agent);
}
