//! Nodes without a machine: each a key, a connection and a sequence.
//!
//! Goes in: a server's data folder, for its token and certificate. Comes out: rounds of polls that change nothing, evenly spread, each on
//! its node's kept connection. What it promises: every reply was verified; a poll that fails ends the round with an error.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use skerry_trust::{SigningKey, TrustedRoot, envelope};
use skerry_wire::enrol::{EnrolReply, EnrolRequest};
use skerry_wire::manifest::Mark;
use skerry_wire::node::{Engine, Fingerprint, Inventory};
use skerry_wire::poll::{PollReply, PollRequest};
use skerry_wire::{BootId, NodeId, limits};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;

/// Nodes that enrol at the same time.
const AT_ONCE: usize = 64;

/// What all nodes share.
struct Shore {
    address: String,
    token: String,
    root: TrustedRoot,
    tls: TlsConnector,
    /// Connections made so far.
    connections: AtomicUsize,
}

struct Node {
    key: SigningKey,
    id: NodeId,
    boot: BootId,
    seq: u64,
    server_nonce: [u8; 8],
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// All nodes.
pub(crate) struct Swarm {
    shore: Arc<Shore>,
    nodes: Vec<Node>,
}

impl Swarm {
    /// Makes `count` nodes, enrols them, and has each tell its facts.
    pub(crate) async fn enrol(data: &Path, address: &str, count: usize) -> Result<Self> {
        let text = std::fs::read_to_string(data.join("agent.toml"))?;
        let token = text.split('"').find(|part| part.starts_with("skt_")).context("no token in agent.toml")?.to_owned();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(data.join("ca.pem"))? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
        let root = TrustedRoot::first(&std::fs::read(data.join("root.cose"))?)?;
        let shore = Arc::new(Shore { address: address.to_owned(), token, root, tls, connections: AtomicUsize::new(0) });
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (shore, permits) = (Arc::clone(&shore), Arc::clone(&permits));
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await?;
                Node::enrol(&shore, number).await
            });
        }
        Ok(Self { shore, nodes: collect(tasks).await? })
    }

    /// Every node asks once, the polls spread evenly over `span`.
    pub(crate) async fn round(&mut self, span: Duration) -> Result<()> {
        let (start, count) = (Instant::now(), u32::try_from(self.nodes.len())?);
        let mut tasks = JoinSet::new();
        for (number, mut node) in (0..count).zip(self.nodes.drain(..)) {
            let shore = Arc::clone(&self.shore);
            tasks.spawn(async move {
                sleep_until(start + span * number / count).await;
                let message = node.next();
                node.poll(&shore, &message).await?;
                Ok(node)
            });
        }
        self.nodes = collect(tasks).await?;
        sleep_until(start + span).await;
        Ok(())
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shore.connections.load(Ordering::Relaxed)
    }
}

/// The nodes that the tasks hand back, in the order of their ids, so that rounds ask alike.
async fn collect(mut tasks: JoinSet<Result<Node>>) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    while let Some(node) = tasks.join_next().await {
        nodes.push(node??);
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

impl Node {
    async fn enrol(shore: &Shore, number: usize) -> Result<Self> {
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&SystemRandom::new())?)?;
        let boot = BootId::new([1; 16]);
        let mut node = Self { key, id: NodeId::new([0; 16]), boot, seq: 0, server_nonce: [0; 8], connection: None };
        let facts = Fingerprint {
            name: format!("node{number}"),
            datacenter: "load".to_owned(),
            attributes: [("cpu.arch".to_owned(), "amd64".to_owned())].into(),
            memory_mib: 1024,
            engine: Some(Engine { accepts_partial_load: true, ..Engine::default() }),
            agent_version: "0.1.0".to_owned(),
            ..Fingerprint::default()
        };
        let message =
            EnrolRequest { token: shore.token.clone(), key: node.key.public().0, boot, nonce: [9; 8], fingerprint: facts.clone() };
        let sealed = envelope::seal(&node.key, EnrolRequest::PURPOSE, &message);
        let bytes = node.send(shore, "/agent/v1/enrol", sealed).await?;
        let (reply, _) = shore.root.open_director::<EnrolReply>(&bytes, EnrolReply::PURPOSE, limits::ENROL)?;
        node.id = reply.node;
        let mut told = node.next();
        told.fingerprint = Some(Box::new(facts));
        told.inventory = Some(Inventory::default());
        node.poll(shore, &told).await?;
        Ok(node)
    }

    /// The next poll, with nothing to say.
    fn next(&mut self) -> PollRequest {
        self.seq += 1;
        PollRequest {
            node: self.id,
            boot: self.boot,
            seq: self.seq,
            nonce: self.seq.to_le_bytes(),
            server_nonce: self.server_nonce,
            mark: Mark::default(),
            issued: None,
            fingerprint: None,
            inventory: None,
            images: Vec::new(),
            full: Vec::new(),
            specifications: Vec::new(),
            reports: Vec::new(),
            log: None,
            given: Vec::new(),
        }
    }

    async fn poll(&mut self, shore: &Shore, message: &PollRequest) -> Result<()> {
        let sealed = envelope::seal(&self.key, PollRequest::PURPOSE, message);
        let bytes = self.send(shore, "/agent/v1/poll", sealed).await?;
        let (reply, _) = shore.root.open_director::<PollReply>(&bytes, PollReply::PURPOSE, limits::POLL_REPLY)?;
        anyhow::ensure!((reply.node, reply.nonce) == (self.id, message.nonce), "a reply to another poll");
        self.server_nonce = reply.server_nonce;
        Ok(())
    }

    async fn send(&mut self, shore: &Shore, path: &str, body: Vec<u8>) -> Result<Bytes> {
        let kept = match self.connection.take() {
            Some(mut connection) => connection.ready().await.is_ok().then_some(connection),
            None => None,
        };
        let connection = match kept {
            Some(connection) => self.connection.insert(connection),
            None => self.connection.insert(connect(shore).await?),
        };
        let request = Request::post(path).header("host", "127.0.0.1").body(Full::new(Bytes::from(body)))?;
        let response = connection.send_request(request).await.with_context(|| format!("no answer from {path}"))?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path} was answered with {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }
}

async fn connect(shore: &Shore) -> Result<SendRequest<Full<Bytes>>> {
    shore.connections.fetch_add(1, Ordering::Relaxed);
    let stream = TcpStream::connect(&shore.address).await?;
    stream.set_nodelay(true)?;
    let tls = shore.tls.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
