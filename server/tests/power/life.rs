//! A server's life in acts, one of each kind that is acknowledged to an operator or a node, and everything that can be seen of it.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use skerry_server::director::Director;
use skerry_server::housekeeping::collect_objects;
use skerry_server::objects::Objects;
use skerry_server::store::{
    AllocOrdered, AuditStore, BuildStore, BundleId, By, CountStore, Enrolment, ImageRef, ImageStore, JobStore, Keep, LastContact, LogStore,
    NewImage, NewToken, NodeOrder, NodeStore, ObjectStore, OperateStore, Operator, OperatorStore, PresenceStore, RetentionStore,
    Role as Allowed, SetStore, SqliteStore, StoredLayer, Submission, TokenStore, Told, UnknownStore, VariableStore, database_path,
};
use skerry_trust::{PublicKey, Role, RoleKeys, Root, SigningKey, TrustedRoot, envelope, sign_root};
use skerry_wire::api::Submitter;
use skerry_wire::job::{Driver, Job};
use skerry_wire::logs::{LogAnswer, LogOrder};
use skerry_wire::manifest::Mark;
use skerry_wire::node::{Engine, Fingerprint, Inventory, UnknownAlloc};
use skerry_wire::poll::{AllocStatus, Event, Report};
use skerry_wire::release::{Release, Specification};
use skerry_wire::{BootId, Digest, ImageId, LogOrderId, Millis, NodeId, Timestamp, TokenId};

use crate::support::{TestImage, job};

/// The key of the capabilities, which nodes hold.
pub(crate) const OBJECT_KEY: [u8; 32] = [5; 32];

/// One thing that somebody asks of the server; what it returns for is acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Operator,
    Token,
    ObjectKey,
    Enrol(u8),
    Facts(u8),
    Layer(u8),
    Index(u8),
    Release(u8),
    Variable(&'static str),
    Submit(&'static str, u8),
    Poll(u8),
    Contact(u8),
    Offer(u8, u8),
    Take,
    Built(u8),
    NotBuilt { again: bool },
    BuildAgain(u8),
    Requeue,
    Drain(u8),
    Undrain(u8),
    Meta(u8),
    Retry,
    OrderLog,
    AnswerLog,
    Replan,
    Stop(&'static str),
    Keeps(u8),
    HandBack,
    Adopt(u8),
    Bury(u8),
    Dismiss,
    TakeToken,
    Forget,
    Collect,
}

/// The life.
pub(crate) const SCRIPT: &[Act] = &[
    Act::Operator,
    Act::Token,
    Act::ObjectKey,
    Act::Enrol(1),
    Act::Facts(1),
    Act::Enrol(2),
    Act::Facts(2),
    Act::Layer(1),
    Act::Index(1),
    Act::Release(1),
    Act::Variable("nomad/jobs"),
    Act::Submit("till", 1),
    Act::Offer(1, 1),
    Act::Take,
    Act::Built(1),
    Act::Poll(1),
    Act::Contact(2),
    Act::Layer(2),
    Act::Release(2),
    Act::Submit("till", 2),
    Act::Offer(1, 2),
    Act::Take,
    Act::NotBuilt { again: true },
    Act::Take,
    Act::Requeue,
    Act::Take,
    Act::Built(2),
    Act::Poll(1),
    Act::BuildAgain(2),
    Act::Take,
    Act::Built(2),
    Act::Submit("shop", 1),
    Act::Poll(2),
    Act::OrderLog,
    Act::AnswerLog,
    Act::Meta(2),
    Act::Drain(2),
    Act::Poll(2),
    Act::Undrain(2),
    Act::Retry,
    Act::Replan,
    Act::BuildAgain(2),
    Act::Take,
    Act::NotBuilt { again: false },
    Act::Variable("nomad/jobs/till"),
    Act::Index(2),
    Act::Stop("shop"),
    Act::Poll(2),
    Act::Keeps(2),
    Act::HandBack,
    Act::Bury(2),
    Act::Adopt(2),
    Act::Dismiss,
    Act::TakeToken,
    Act::Forget,
    Act::Collect,
];

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

fn sha256(bytes: &[u8]) -> Digest {
    skerry_image::sha256(bytes)
}

fn submitter() -> Submitter {
    Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() }
}

fn whose() -> String {
    "Ada <ada@example.org>".to_owned()
}

fn image(n: u8) -> TestImage {
    TestImage::new(&format!("till:{n}"), &[&crate::support::noise(u64::from(n), 9000)])
}

fn image_id(n: u8) -> ImageId {
    image(n).release.image_id
}

/// A job whose image is resolved.
fn resolved(name: &str, n: u8) -> Job {
    let mut job = job::job(name, &format!("till:{n}"));
    for task in job.groups.iter_mut().flat_map(|g| &mut g.tasks) {
        if let Driver::Docker(config) = &mut task.driver {
            config.image_id = Some(image_id(n));
        }
    }
    job
}

/// An allocation that a node keeps of a job that this server never knew, and its specification.
fn forgotten(name: &str, node: NodeId) -> (UnknownAlloc, Vec<u8>) {
    let content = Specification { job: resolved(name, 1), signed_at: Timestamp(0) };
    let bytes = envelope::seal(&key(2), Specification::PURPOSE, &content);
    let (job, group, version, status) = (name.to_owned(), "main".to_owned(), 3, AllocStatus::Running);
    let id = skerry_plan::alloc_id(&job, version, &group, 0, &node);
    (UnknownAlloc { id, job, group, index: 0, version, specification: sha256(&bytes), status }, bytes)
}

fn bundle(n: u8) -> BundleId {
    BundleId { target: image_id(n), bases: vec![] }
}

/// A server's store and objects, at work.
pub(crate) struct Life {
    store: SqliteStore,
    objects: Objects,
    director: Arc<Director>,
    nodes: Vec<NodeId>,
    /// Reports that were acknowledged.
    pub(crate) reports: u64,
}

impl Life {
    pub(crate) fn begin(folder: &Path) -> Self {
        let store = SqliteStore::open(&database_path(folder)).unwrap();
        let objects = Objects::open(folder).unwrap();
        Self { store, objects, director: director(), nodes: vec![], reports: 0 }
    }

    fn node(&self, n: u8) -> NodeId {
        self.nodes[usize::from(n) - 1]
    }

    /// As an upload or a build does: the file is in its place before the row that names it.
    async fn object(&self, bytes: &[u8]) -> (Digest, u64, skerry_server::objects::Pin) {
        let mut object = self.objects.begin().unwrap();
        object.write_all(bytes).unwrap();
        let pin = self.objects.pin().await;
        let (digest, size) = object.keep(&pin).unwrap();
        (digest, size, pin)
    }

    /// Does the act at its number in the script.
    pub(crate) async fn act(&mut self, act: Act, number: usize) {
        let at = Timestamp(i64::try_from(number).unwrap());
        let by = By { who: "ada".to_owned(), at };
        let director = Arc::clone(&self.director);
        let store = &self.store;
        match act {
            Act::Operator => {
                let operator = Operator { id: TokenId::new([9; 16]), secret_hash: [4; 32], role: Allowed::Admin, name: "bob".into() };
                store.put_operator(operator, by).await.unwrap();
            }
            Act::Token => {
                let token = NewToken { id: TokenId::new([7; 16]), secret_hash: [8; 32], pool: "default".into(), uses: 3, expires_at: None };
                store.add_token(token, by).await.unwrap();
            }
            Act::ObjectKey => assert_eq!(store.object_key(OBJECT_KEY).await.unwrap(), OBJECT_KEY),
            Act::Enrol(n) => {
                let enrolment = Enrolment {
                    token: Some((TokenId::new([7; 16]), [8; 32])),
                    key: key(10 + n).public(),
                    boot: BootId::new([1; 16]),
                    fingerprint: fingerprint(n),
                };
                let node = store.enrol(enrolment, director, at).await.unwrap();
                self.nodes.push(node);
            }
            Act::Facts(n) => {
                let told = Told { fingerprint: Some(fingerprint(n)), inventory: Some(Inventory::default()), ..Told::default() };
                store.record_poll(self.node(n), told, director, at).await.unwrap();
            }
            Act::Layer(n) => {
                let TestImage { layers, release, .. } = image(n);
                let (object, stored, pin) = self.object(&layers[0].1).await;
                let layer = StoredLayer { diff_id: layers[0].0, size: release.size, stored, object };
                assert!(store.add_layer(layer, by).await.unwrap());
                drop(pin);
            }
            Act::Index(n) => {
                let (object, size, pin) = self.object(&[b"SKI".as_slice(), &[n; 700]].concat()).await;
                store.put_layer_index(image(n).layers[0].0, Ok((object, size)), at).await.unwrap();
                drop(pin);
            }
            Act::Release(n) => {
                let TestImage { release, config, .. } = image(n);
                let envelope = envelope::seal(&key(2), Release::PURPOSE, &release);
                let digest = sha256(&envelope);
                let new = NewImage { release, envelope, digest, key_id: key(2).public().id(), config };
                store.add_image(new, by).await.unwrap();
            }
            Act::Variable(path) => {
                let items = [("colour".to_owned(), format!("blue {number}"))].into();
                store.put_variable(path.to_owned(), items, director, by).await.unwrap();
            }
            Act::Submit(name, n) => {
                let job = resolved(name, n);
                let specification = envelope::seal(&key(2), Specification::PURPOSE, &Specification { job: job.clone(), signed_at: at });
                let digest = sha256(&specification);
                let source = "the text".to_owned();
                let submission = Submission { job, digest, specification, source, again: false, submitter: submitter() };
                store.submit(submission, director, by).await.unwrap();
            }
            Act::Poll(n) => self.poll(n, at).await,
            Act::Contact(n) => {
                let contact = LastContact { node: self.node(n), at, boot: BootId::new([1; 16]), seq: 40 };
                store.keep_contacts(vec![contact]).await.unwrap();
            }
            Act::Offer(node, n) => {
                store.offer(self.node(node), bundle(n), at).await.unwrap();
            }
            Act::Take => assert!(store.take_build(at).await.unwrap().is_some(), "nothing to build at {number}"),
            Act::Built(n) => {
                let (object, size, pin) = self.object(&crate::support::noise(100 + u64::from(n), 5000)).await;
                store.build_ready(bundle(n), object, size, at).await.unwrap();
                drop(pin);
            }
            Act::NotBuilt { again } => {
                store.build_failed(bundle(2), "no room".to_owned(), again.then_some(at), at).await.unwrap();
            }
            Act::BuildAgain(n) => {
                let found = store.bundles().await.unwrap().into_iter().find(|b| b.target == image_id(n)).unwrap();
                assert_eq!(store.build_again(found.digest.unwrap(), at).await.unwrap(), 1);
            }
            Act::Requeue => assert_eq!(store.requeue_builds().await.unwrap(), 1),
            Act::Drain(n) => self.order(n, NodeOrder::Drain { deadline: Some(Timestamp(99)), ignore_system: true }, by).await,
            Act::Undrain(n) => self.order(n, NodeOrder::Undrain, by).await,
            Act::Meta(n) => self.order(n, NodeOrder::Meta { set: [("shelf".into(), "3".into())].into(), unset: vec![] }, by).await,
            Act::Retry => {
                let alloc = self.alloc().await;
                store.order_alloc(alloc, AllocOrdered::Retry, whose(), director, by).await.unwrap();
            }
            Act::OrderLog => {
                let order = LogOrder { id: LogOrderId::new([6; 16]), alloc: self.alloc().await, task: None, lines: 5 };
                store.order_log(order, whose(), by).await.unwrap();
            }
            Act::AnswerLog => {
                let alloc = self.alloc().await;
                let node = store.alloc(alloc).await.unwrap().unwrap().summary.node;
                let answer = LogAnswer { id: LogOrderId::new([6; 16]), lines: Err("it wrote nothing".to_owned()) };
                store.answer_log(node, answer, at).await.unwrap();
            }
            Act::Replan => {
                let lost = vec![self.alloc().await];
                let verdicts = skerry_plan::presence::Verdicts { lost, ..Default::default() };
                store.replan(verdicts, director, at).await.unwrap();
            }
            Act::Stop(name) => assert!(store.stop_job(name.to_owned(), submitter(), director, by).await.unwrap()),
            Act::Keeps(n) => {
                let unknown = ["crane", "dock"].map(|name| forgotten(name, self.node(n)).0).to_vec();
                let inventory = Inventory { unknown, ..Inventory::default() };
                store.record_poll(self.node(n), Told { inventory: Some(inventory), ..Told::default() }, director, at).await.unwrap();
            }
            Act::HandBack => {
                let found = ["crane", "dock"].map(|name| forgotten(name, self.node(1))).map(|(alloc, bytes)| (alloc.specification, bytes));
                store.keep_found(found.to_vec()).await.unwrap();
            }
            Act::Adopt(n) => {
                let alloc = forgotten("dock", self.node(n)).0.id;
                assert_eq!(store.adopt(alloc, submitter(), director, by).await.unwrap(), [alloc]);
            }
            Act::Bury(n) => store.bury(forgotten("crane", self.node(n)).0.id, submitter(), director, by).await.unwrap(),
            Act::Dismiss => assert!(store.remove_operator("bob".to_owned(), by).await.unwrap()),
            Act::TakeToken => assert!(store.remove_token(TokenId::new([7; 16]), by).await.unwrap()),
            Act::Forget => {
                let none = Millis(0);
                let keep = Keep { ended_sets: none, manifests_per_node: 2, audit_rows: 1000, bundles: none, logs: none };
                store.forget_old(keep, Timestamp(at.0 + 1)).await.unwrap();
            }
            Act::Collect => {
                let collected = collect_objects(store, &self.objects, Timestamp(at.0 + 1)).await.unwrap();
                assert!(!collected.is_empty(), "no object was to be collected");
            }
        }
    }

    async fn order(&self, n: u8, order: NodeOrder, by: By) {
        self.store.order_node(self.node(n), order, whose(), Arc::clone(&self.director), by).await.unwrap();
    }

    /// An allocation that is there from the first job on.
    async fn alloc(&self) -> skerry_wire::AllocId {
        let allocs = self.store.allocs().await.unwrap();
        let wanted = |a: &&skerry_wire::api::AllocSummary| a.job == "till" && a.desired == skerry_wire::api::DesiredStatus::Run;
        allocs.iter().filter(wanted).map(|a| a.id).min().unwrap()
    }

    /// A node reports on all that it is to run.
    async fn poll(&mut self, n: u8, at: Timestamp) {
        let node = self.node(n);
        let allocs = self.store.node(node).await.unwrap().unwrap().allocs;
        let events = allocs.iter().map(|a| Event::Alloc {
            alloc: a.id,
            status: AllocStatus::Running,
            reason: "all tasks run".into(),
            restarts: 0,
            healthy: None,
            wait: None,
        });
        let events = events.chain([Event::ManifestAccepted { mark: Mark::default() }, Event::ImagePresent { image: image_id(1) }]);
        let mut seq = self.store.known_node(node).await.unwrap().unwrap().acknowledged;
        let reports = events.map(|event| {
            seq += 1;
            Report { seq, at, event }
        });
        let told = Told { reports: reports.collect(), ..Told::default() };
        let acknowledged = self.store.record_poll(node, told, Arc::clone(&self.director), at).await.unwrap();
        assert_eq!(acknowledged.acknowledged, seq);
        self.reports = self.reports.max(seq);
    }

    /// What is to be seen now.
    pub(crate) async fn seen(&self) -> String {
        seen(&self.store, &self.objects).await
    }
}

fn fingerprint(n: u8) -> Fingerprint {
    Fingerprint {
        name: format!("node-{n}"),
        memory_mib: 4096,
        attributes: [("cpu.arch".to_owned(), "amd64".to_owned())].into(),
        engine: Some(Engine { accepts_partial_load: true, ..Engine::default() }),
        ..Fingerprint::default()
    }
}

/// Everything that the store answers, as text; of every object that it knows, whether its file is whole.
pub(crate) async fn seen(store: &SqliteStore, objects: &Objects) -> String {
    let mut out = format!(
        "{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n",
        store.operators().await.unwrap(),
        store.tokens().await.unwrap(),
        store.jobs().await.unwrap(),
        store.audit(1000).await.unwrap(),
        store.counts().await.unwrap(),
        store.bundles().await.unwrap(),
    );
    out += &format!("{:#?}\n", store.unknown_allocs().await.unwrap());
    out += &format!("{:#?}\n{:#?}\n", store.layers_without_index(99).await.unwrap(), store.log(LogOrderId::new([6; 16])).await.unwrap());
    for job in ["till", "shop", "dock"] {
        out += &format!("{:#?}\n", store.job(job.to_owned()).await.unwrap());
    }
    for alloc in store.allocs().await.unwrap() {
        out += &format!("{:#?}\n", store.alloc(alloc.id).await.unwrap());
    }
    for set in store.sets().await.unwrap() {
        out += &format!("{:#?}\n", store.set(set.id).await.unwrap());
    }
    for variable in store.variables(String::new()).await.unwrap() {
        out += &format!("{:?}\n", store.variable(variable.path).await.unwrap());
    }
    for node in store.nodes().await.unwrap() {
        let known = store.known_node(node.id).await.unwrap();
        let manifest = store.manifest(node.id, Mark::default()).await.unwrap();
        out += &format!("{known:#?}\n{:?}\n", manifest.map(|m| (m.mark, sha256(&m.envelope), m.specifications)));
        out += &format!("{:#?}\n{:?}\n", store.node(node.id).await.unwrap(), store.open_log_order(node.id).await.unwrap());
        for n in [1, 2] {
            out += &format!("{:?}\n", store.offered(node.id, image_id(n)).await.unwrap());
        }
    }
    for image in store.images().await.unwrap() {
        let image = store.image(ImageRef::Id(image.image_id)).await.unwrap().unwrap();
        for layer in &image.layers {
            out += &format!("{:?}\n", store.layer_index(layer.diff_id).await.unwrap());
        }
        out += &format!("{image:?}\n");
    }
    for (digest, size) in store.objects().await.unwrap() {
        let bytes = std::fs::read(objects.path(&digest));
        let whole = bytes.is_ok_and(|bytes| sha256(&bytes) == digest && bytes.len() as u64 == size);
        out += &format!("object {digest} of {size} bytes, whole: {whole}\n");
    }
    out
}
