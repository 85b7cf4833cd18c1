//! P10: the server's power is cut at every write of a scripted life. Whatever it had acknowledged is there afterwards; the one step that
//! was under way is there as a whole, or not at all.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use skerry_server::director::Director;
use skerry_server::store::{
    AuditStore, By, CountStore, Enrolment, JobStore, NewToken, NodeStore, SetStore, SqliteStore, Submission, TokenStore, Told,
    database_path,
};
use skerry_testkit::powercut::{Chance, Recording, Trace};
use skerry_trust::{PublicKey, Role, RoleKeys, Root, SigningKey, TrustedRoot, envelope, sign_root};
use skerry_wire::api::Submitter;
use skerry_wire::manifest::Mark;
use skerry_wire::node::{Fingerprint, Inventory};
use skerry_wire::poll::{AllocStatus, Event, Report};
use skerry_wire::release::Specification;
use skerry_wire::{BootId, Digest, NodeId, Timestamp, TokenId};

mod support;

use support::job;

/// Ways in which each cut is tried.
const WAYS: u64 = 2;

/// The same key for the same number.
fn key(n: u8) -> SigningKey {
    static KEYS: LazyLock<Vec<Vec<u8>>> =
        LazyLock::new(|| (0..16).map(|_| SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap()).collect());
    SigningKey::from_pkcs8(&KEYS[usize::from(n)]).unwrap()
}

fn director() -> Arc<Director> {
    let only = |key: PublicKey| RoleKeys { keys: vec![key], threshold: 1 };
    let roles = [(Role::Root, 1), (Role::Release, 2), (Role::Director, 3)].map(|(role, n)| (role, only(key(n).public()))).into();
    let root = sign_root(&Root { version: 1, roles, time_cap: Timestamp(i64::MAX) }, &[&key(1)]);
    Arc::new(Director::new(key(3), TrustedRoot::first(&root).unwrap()).unwrap())
}

fn by(at: i64) -> By {
    By { who: "ada".to_owned(), at: Timestamp(at) }
}

/// The life: a few operators' orders and a few nodes' polls.
struct Life {
    store: SqliteStore,
    director: Arc<Director>,
    nodes: Vec<NodeId>,
    reports: u64,
}

impl Life {
    const STEPS: u64 = 30;

    /// One step; what it returns `Ok` for is acknowledged.
    async fn step(&mut self, step: u64) {
        let at = Timestamp(i64::try_from(step).unwrap());
        match step {
            0 => {
                let token = NewToken { id: TokenId::new([7; 16]), secret_hash: [8; 32], pool: "default".into(), uses: 3, expires_at: None };
                self.store.add_token(token, by(at.0)).await.unwrap();
            }
            1..=3 => {
                let fingerprint = Fingerprint { name: format!("node-{step}"), memory_mib: 4096, ..Fingerprint::default() };
                let enrolment = Enrolment {
                    token: Some((TokenId::new([7; 16]), [8; 32])),
                    key: key(10 + u8::try_from(step).unwrap()).public(),
                    boot: BootId::new([1; 16]),
                    fingerprint,
                };
                let node = self.store.enrol(enrolment, Arc::clone(&self.director), at).await.unwrap();
                let told = Told { inventory: Some(Inventory::default()), ..Told::default() };
                self.store.record_poll(node, told, Arc::clone(&self.director), at).await.unwrap();
                self.nodes.push(node);
            }
            _ if step % 5 == 4 => {
                let mut job = job::job(&format!("job-{}", step % 2), &format!("sha256:{}", "ab".repeat(32)));
                job.priority = u8::try_from(step).unwrap();
                for config in job.groups.iter_mut().flat_map(|g| &mut g.tasks) {
                    if let skerry_wire::job::Driver::Docker(config) = &mut config.driver {
                        config.image_id = Some(skerry_wire::ImageId(Digest::new([0xab; 32])));
                    }
                }
                let specification = envelope::seal(&key(2), Specification::PURPOSE, &Specification { job: job.clone(), signed_at: at });
                let submission = Submission {
                    job,
                    digest: sha256(&specification),
                    specification,
                    source: "the text".to_owned(),
                    again: false,
                    submitter: Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() },
                };
                self.store.submit(submission, Arc::clone(&self.director), by(at.0)).await.unwrap();
            }
            _ if step == 27 => {
                let submitter = Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
                assert!(self.store.stop_job("job-0".to_owned(), submitter, Arc::clone(&self.director), by(at.0)).await.unwrap());
            }
            _ => {
                let node = self.nodes[usize::try_from(step).unwrap() % self.nodes.len()];
                let allocs = self.store.node(node).await.unwrap().unwrap().allocs;
                let events = allocs.iter().map(|a| alloc_event(a.id)).chain([Event::ManifestAccepted { mark: Mark::default() }]);
                let mut seq = self.store.known_node(node).await.unwrap().unwrap().acknowledged;
                let reports = events.map(|event| {
                    seq += 1;
                    Report { seq, at, event }
                });
                let told = Told { reports: reports.collect(), ..Told::default() };
                let acknowledged = self.store.record_poll(node, told, Arc::clone(&self.director), at).await.unwrap();
                assert_eq!(acknowledged.acknowledged, seq);
                self.reports += 1;
            }
        }
    }

    /// Everything that the store answers, as text.
    async fn seen(store: &SqliteStore) -> String {
        let mut out = format!(
            "{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n",
            store.tokens().await.unwrap(),
            store.jobs().await.unwrap(),
            store.allocs().await.unwrap(),
            store.audit(1000).await.unwrap(),
            store.counts().await.unwrap(),
        );
        out += &format!("{:#?}", store.sets().await.unwrap());
        for node in store.nodes().await.unwrap() {
            let known = store.known_node(node.id).await.unwrap();
            let manifest = store.manifest(node.id, Mark::default()).await.unwrap();
            out += &format!("{known:#?}\n{:?}\n", manifest.map(|m| (m.mark, sha256(&m.envelope), m.specifications)));
        }
        out
    }
}

fn alloc_event(alloc: skerry_wire::AllocId) -> Event {
    Event::Alloc { alloc, status: AllocStatus::Running, reason: "all tasks run".into(), restarts: 0, healthy: None, wait: None }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap())
}

/// Lives once, and gives what happened to the files and what was to be seen after each step.
async fn live(folder: &Path) -> (Trace, Vec<String>) {
    let recording = Recording::start(folder).unwrap();
    let store = SqliteStore::open(&database_path(folder)).unwrap();
    let mut life = Life { store, director: director(), nodes: vec![], reports: 0 };
    let mut seen = vec![Life::seen(&life.store).await];
    recording.mark(0);
    for step in 0..Life::STEPS {
        life.step(step).await;
        recording.mark(step + 1);
        seen.push(Life::seen(&life.store).await);
    }
    assert!(life.reports > 10);
    drop(life);
    (recording.finish(), seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_lost_at_every_write() {
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let (trace, seen) = live(folder.path()).await;
    assert!(trace.steps.len() > 200, "the recording saw {} steps only", trace.steps.len());
    let mut between = 0;
    for cut in 0..=trace.steps.len() {
        let mark = trace.mark_before(cut);
        for way in 0..WAYS {
            let place = tempfile::tempdir_in(memory()).unwrap();
            trace.after_cut(cut, &mut Chance::new(cut as u64 * WAYS + way)).write_to(place.path()).unwrap();
            let store = SqliteStore::open(&database_path(place.path()));
            let store = store.unwrap_or_else(|e| panic!("cut {cut}, way {way}, after step {mark:?}: does not open: {e}"));
            let found = Life::seen(&store).await;
            // Within a step there may be several transactions: what is found lies between the step's start and its end.
            let before = usize::try_from(mark.unwrap_or(0)).unwrap();
            if found == seen[before] || seen.get(before + 1) == Some(&found) {
                continue;
            }
            assert!(within_a_step(before), "cut {cut}, way {way}: after step {before}, and neither it nor the next one is there:\n{found}");
            between += 1;
        }
    }
    assert!(between < trace.steps.len(), "most cuts leave whole steps");
}

/// Enrolling and the first poll are two transactions.
fn within_a_step(done: usize) -> bool {
    (1..=3).contains(&done)
}

/// A file system in memory, when there is one: a cut is tried some thousand times.
fn memory() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}
