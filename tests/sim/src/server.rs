//! The server: its real store with the real planner in it, and a thin stand-in for its HTTP handlers.
//!
//! In: bodies of requests, orders, the time. Out: bodies of answers. The store may be closed and opened again, and put back to a backup.
//! Everything is done by the time a call returns, so that a life is the same every time.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use anyhow::{Context as _, Result};
use skerry_agent::simulate::LinkError;
use skerry_server::agent_api::{Contacts, Place};
use skerry_server::director::Director;
use skerry_server::store::{
    BuildStore, BundleId, By, Enrolment, ImageStore, JobStore, NewToken, NodeOrder, NodeStore, OperateStore, SqliteStore, Submission,
    TokenStore, Told, database_path,
};
use skerry_trust::{KeyRing, PublicKey, envelope};
use skerry_wire::api::{BuildState, Submitter};
use skerry_wire::enrol::{EnrolReply, EnrolRequest};
use skerry_wire::job::Job;
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::poll::{Offer, OfferState, PollReply, PollRequest, Report};
use skerry_wire::release::Specification;
use skerry_wire::{Blob, Digest, ImageId, NodeId, Timestamp, TokenId, limits};
use tokio::runtime::Runtime;

use crate::keys::{director, key};
use crate::library;

/// The public half of the enrolment token, and its secret.
const TOKEN: ([u8; 16], [u8; 32]) = ([7; 16], [8; 32]);
/// Seconds between polls when nothing is on its way, and when something is.
const IDLE: u32 = 240;
const BUSY: u32 = 10;

/// A running server, or one that is down.
pub(crate) struct Server {
    runtime: Runtime,
    folder: PathBuf,
    store: Option<SqliteStore>,
    director: Arc<Director>,
    contacts: Contacts,
    nonces: u64,
    backups: usize,
}

/// The token as a node's configuration has it.
pub(crate) fn token() -> String {
    format!("skt_{}_{}", TokenId::new(TOKEN.0), hex::encode(TOKEN.1))
}

impl Server {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build()?;
        let director = Arc::new(director());
        std::fs::create_dir_all(folder.join("live"))?;
        let mut server =
            Self { runtime, folder: folder.to_owned(), store: None, director, contacts: Contacts::default(), nonces: 0, backups: 0 };
        server.start()?;
        let hash = *library::sha256(&TOKEN.1).as_bytes();
        let token = NewToken { id: TokenId::new(TOKEN.0), secret_hash: hash, pool: "default".into(), uses: 100, expires_at: None };
        server.wait(|s| s.add_token(token, by(Timestamp(0))))?;
        for (layer, image) in (0..library::IMAGES).map(library::published) {
            server.wait(|s| s.add_layer(layer, by(Timestamp(0))))?;
            server.wait(|s| s.add_image(image, by(Timestamp(0))))?;
        }
        Ok(server)
    }

    /// Waits for the store, without giving anything else the time to run.
    fn wait<'a, T, F: Future<Output = T>>(&'a self, ask: impl FnOnce(&'a SqliteStore) -> F) -> T {
        let _inside = self.runtime.enter();
        block_on(ask(self.store.as_ref().expect("asked only while it is up")))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.store.is_some()
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        if self.store.is_none() {
            self.store = Some(SqliteStore::open(&database_path(&self.folder.join("live"))).context("the server's database")?);
            // What was in memory is gone.
            self.contacts = Contacts::default();
            self.wait(|s| s.requeue_builds())?;
        }
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        self.store = None;
    }

    /// Copies the database, as it is at this moment.
    pub(crate) fn back_up(&mut self) -> Result<()> {
        self.copy("live", &format!("backup-{}", self.backups))?;
        self.backups += 1;
        Ok(())
    }

    /// Goes back to a backup, if there is one.
    pub(crate) fn restore(&mut self, which: usize) -> Result<bool> {
        let Some(which) = which.checked_rem(self.backups) else { return Ok(false) };
        self.stop();
        std::fs::remove_dir_all(self.folder.join("live"))?;
        self.copy(&format!("backup-{which}"), "live")?;
        self.start()?;
        Ok(true)
    }

    fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.folder.join(from), self.folder.join(to));
        std::fs::create_dir_all(&to)?;
        for name in ["server.db", "server.db-wal"] {
            if from.join(name).exists() {
                std::fs::copy(from.join(name), to.join(name))?;
            }
        }
        Ok(())
    }

    // === orders ===

    pub(crate) fn submit(&mut self, job: Job, now: Timestamp) -> Result<Digest> {
        let specification = envelope::seal(&key(2), Specification::PURPOSE, &Specification { job: job.clone(), signed_at: now });
        let digest = library::sha256(&specification);
        let submission = Submission { job, specification, digest, source: String::new(), submitter: ada(), again: false };
        self.wait(|s| s.submit(submission, Arc::clone(&self.director), by(now)))?;
        Ok(digest)
    }

    pub(crate) fn stop_job(&mut self, job: String, now: Timestamp) -> Result<bool> {
        Ok(self.wait(|s| s.stop_job(job, ada(), Arc::clone(&self.director), by(now)))?)
    }

    pub(crate) fn order_node(&mut self, node: NodeId, order: NodeOrder, now: Timestamp) -> Result<()> {
        self.wait(|s| s.order_node(node, order, "Ada <ada@example.org>".to_owned(), Arc::clone(&self.director), by(now)))?;
        Ok(())
    }

    /// Makes the bundles that were asked for.
    pub(crate) fn build(&mut self, now: Timestamp) -> Result<()> {
        while let Some(taken) = self.wait(|s| s.take_build(now))? {
            let made = library::bundle(taken.bundle.target, &taken.bundle.bases);
            self.wait(|s| s.build_ready(taken.bundle, made.digest, made.bytes.len() as u64, now))?;
        }
        Ok(())
    }

    /// The newest manifest of a node.
    pub(crate) fn manifest(&self, node: NodeId) -> Result<Option<Manifest>> {
        let Some(new) = self.wait(|s| s.manifest(node, Mark::default()))? else { return Ok(None) };
        Ok(Some(envelope::peek(&new.envelope, limits::MANIFEST)?.0))
    }

    // === what nodes ask ===

    pub(crate) fn post(&mut self, path: &str, body: &[u8], now: Timestamp) -> Result<Vec<u8>, LinkError> {
        match path {
            "/agent/v1/poll" => self.poll(body, now),
            "/agent/v1/enrol" => self.enrol(body, now),
            _ => Err(LinkError::Refused(404, "not_found")),
        }
    }

    fn enrol(&mut self, body: &[u8], now: Timestamp) -> Result<Vec<u8>, LinkError> {
        let bad = |_| LinkError::Refused(400, "bad_signature");
        let (unverified, _) = envelope::peek::<EnrolRequest>(body, limits::ENROL).map_err(bad)?;
        let key = PublicKey(unverified.key);
        let (request, _) = envelope::open::<EnrolRequest>(body, EnrolRequest::PURPOSE, &KeyRing::from(key), limits::ENROL).map_err(bad)?;
        let token = Some((TokenId::new(TOKEN.0), *library::sha256(&TOKEN.1).as_bytes())).filter(|_| request.token == token());
        let enrolment = Enrolment { token, key, boot: request.boot, fingerprint: request.fingerprint };
        let enrolled = self.wait(|s| s.enrol(enrolment, Arc::clone(&self.director), now));
        let node = enrolled.map_err(|_| LinkError::Refused(403, "token_unknown"))?;
        let known = self.wait(|s| s.known_node(node)).map_err(|_| LinkError::Refused(500, "internal"))?;
        let mark = known.map(|known| known.mark).unwrap_or_default();
        let reply = EnrolReply { node, nonce: request.nonce, time: now, roots: vec![], mark };
        Ok(self.director.seal(EnrolReply::PURPOSE, &reply))
    }

    /// As the server's handler does it: the same questions to the same store, in the same order.
    fn poll(&mut self, body: &[u8], now: Timestamp) -> Result<Vec<u8>, LinkError> {
        let bad = |_| LinkError::Refused(400, "bad_signature");
        let broken = |_| LinkError::Refused(500, "internal");
        let (unverified, _) = envelope::peek::<PollRequest>(body, limits::POLL_REQUEST).map_err(bad)?;
        let known = self.wait(|s| s.known_node(unverified.node)).map_err(broken)?.ok_or(LinkError::Refused(401, "unknown_node"))?;
        let keys = KeyRing::from(known.key);
        let (mut request, _) = envelope::open::<PollRequest>(body, PollRequest::PURPOSE, &keys, limits::POLL_REQUEST).map_err(bad)?;
        self.nonces += 1;
        let server_nonce = self.nonces.to_le_bytes();
        let place = self.contacts.judge(&request, &known, server_nonce, now);
        let mut reply = PollReply {
            node: request.node,
            nonce: request.nonce,
            server_nonce,
            time: now,
            next_poll_s: 1,
            acknowledged: known.acknowledged,
            send_facts: true,
            manifest: None,
            specifications: vec![],
            offers: vec![],
            roots: vec![],
            log: None,
            wanted: Vec::new(),
        };
        match place {
            Place::Replayed => return Err(LinkError::Refused(409, "replayed")),
            Place::Unproven => {}
            Place::Next => self.answer(&mut request, known, &mut reply, now)?,
        }
        Ok(self.director.seal(PollReply::PURPOSE, &reply))
    }

    fn answer(
        &mut self,
        request: &mut PollRequest,
        known: skerry_server::store::KnownNode,
        reply: &mut PollReply,
        now: Timestamp,
    ) -> Result<(), LinkError> {
        let broken = |_| LinkError::Refused(500, "internal");
        let node = request.node;
        let (mut facts, mut latest) = (known.facts, known.latest);
        let more = request.reports.len() >= limits::REPORTS_PER_POLL;
        if request.fingerprint.is_some()
            || request.inventory.is_some()
            || !request.reports.is_empty()
            || known.holds_another(request, self.director.root().root().version)
            || known.lost
        {
            let told = Told {
                boot: Some((request.boot, request.seq)),
                mark: request.mark,
                issued: request.issued,
                fingerprint: request.fingerprint.take().map(|f| *f),
                inventory: request.inventory.take(),
                reports: std::mem::take(&mut request.reports),
            };
            let recorded = self.wait(|s| s.record_poll(node, told, Arc::clone(&self.director), now)).map_err(broken)?;
            reply.acknowledged = recorded.acknowledged;
            if let Some(known) = self.wait(|s| s.known_node(node)).map_err(broken)? {
                (facts, latest) = (known.facts, known.latest);
            }
        }
        reply.send_facts = !facts;
        let mut wanted = request.specifications.clone();
        if latest > request.mark
            && let Some(new) = self.wait(|s| s.manifest(node, request.mark)).map_err(broken)?
        {
            wanted.extend(new.specifications);
            reply.manifest = Some(Blob(new.envelope));
        }
        wanted.sort_unstable();
        wanted.dedup();
        if !wanted.is_empty() {
            let found = self.wait(|s| s.specifications(wanted)).map_err(broken)?;
            reply.specifications = found.into_iter().map(|(_, envelope)| Blob(envelope)).collect();
        }
        for image in request.images.clone() {
            let bundle = self.offer(node, image, request.full.contains(&image), now)?;
            reply.offers.push(Offer { image, bundle });
        }
        let building = reply.offers.iter().any(|o| o.bundle == OfferState::Building);
        reply.next_poll_s = if reply.manifest.is_some() || reply.send_facts || more {
            1
        } else if building {
            BUSY
        } else {
            IDLE
        };
        Ok(())
    }

    fn offer(&self, node: NodeId, image: ImageId, full: bool, now: Timestamp) -> Result<OfferState, LinkError> {
        let broken = |_| LinkError::Refused(500, "internal");
        let failed = |reason: &str| Ok(OfferState::Failed { reason: reason.to_owned() });
        let Some(release) = library::release(&image) else { return failed("not known") };
        if !self.wait(|s| s.needs_image(node, image)).map_err(broken)? {
            return failed("no allocation of this node needs it");
        }
        let offered = match self.wait(|s| s.offered(node, image)).map_err(broken)? {
            Some(offered) if offered.state != BuildState::Failed && (!full || offered.bundle.bases.is_empty()) => offered,
            _ => {
                // One base for each image, so that nodes share bundles; real choices are the planner's tests.
                let here = self.wait(|s| s.to_choose(node, image, now)).map_err(broken)?.map(|c| c.node.inventory).unwrap_or_default();
                let base = library::image(image.digest().as_bytes()[0]);
                let bases = Some(base).filter(|b| !full && *b != image && here.contains(b)).into_iter().collect();
                self.wait(|s| s.offer(node, BundleId { target: image, bases }, now)).map_err(broken)?
            }
        };
        Ok(match (offered.state, offered.object) {
            (BuildState::Ready, Some((digest, size))) => {
                OfferState::Ready { digest, size, capability: "00".to_owned(), release: Blob(release) }
            }
            (BuildState::Failed, _) => return failed("not built"),
            _ => OfferState::Building,
        })
    }
}

/// Reports in a request, to be counted by whoever looks on.
pub(crate) fn reports_of(body: &[u8]) -> Vec<Report> {
    envelope::peek::<PollRequest>(body, limits::POLL_REQUEST).map(|(r, _)| r.reports).unwrap_or_default()
}

/// The manifest in the answer to a poll.
pub(crate) fn manifest_of(answer: &[u8]) -> Option<Manifest> {
    let (reply, _) = envelope::peek::<PollReply>(answer, limits::POLL_REPLY).ok()?;
    envelope::peek(&reply.manifest?.0, limits::MANIFEST).ok().map(|(manifest, _)| manifest)
}

fn by(at: Timestamp) -> By {
    By { who: "ada".to_owned(), at }
}

fn ada() -> Submitter {
    Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() }
}

/// Runs a future on this thread alone; what it waits for comes from other threads.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        std::thread::park();
    }
}
