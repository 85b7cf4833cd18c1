//! A node that speaks the real protocol over real TLS: keys, envelopes, polls, ranges. What it does with an image is left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use skerry_trust::{SigningKey, TrustedRoot, envelope};
use skerry_wire::api::ApiError;
use skerry_wire::enrol::{EnrolReply, EnrolRequest};
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::node::{Engine, Fingerprint, Inventory, UnknownAlloc};
use skerry_wire::poll::{Event, Offer, OfferState, PollReply, PollRequest, Report};
use skerry_wire::{Blob, BootId, ImageId, NodeId, Timestamp, limits};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A request that was refused: status and code.
pub type Refused = String;

/// A node.
pub struct TestNode {
    pub key: SigningKey,
    pub id: NodeId,
    pub boot: BootId,
    pub seq: u64,
    pub report_seq: u64,
    pub server_nonce: [u8; 8],
    pub mark: Mark,
    /// The mark that the server named when it enrolled last.
    pub known_mark: Mark,
    pub manifest: Option<Manifest>,
    pub images: BTreeSet<ImageId>,
    /// What it keeps beyond its manifest.
    pub unknown: Vec<UnknownAlloc>,
    /// All that it was sent.
    pub specifications: Vec<Blob>,
    pub facts: Fingerprint,
    folder: PathBuf,
    root: TrustedRoot,
}

/// An answer: status, `content-range`, body.
pub struct Answer {
    pub status: u16,
    pub range: Option<String>,
    pub head: usize,
    pub body: Bytes,
}

/// A connection to the server, TLS included.
pub async fn connect(folder: &Path, url: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(folder.join("ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
}

/// One request on a connection of its own.
pub async fn request(folder: &Path, url: &str, request: Request<Full<Bytes>>) -> Answer {
    let tls = connect(folder, url).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let range = response.headers().get("content-range").map(|v| v.to_str().unwrap().to_owned());
    let head = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    Answer { status, range, head, body }
}

fn sent(method: &str, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).header("host", "127.0.0.1").body(Full::new(body.into())).unwrap()
}

impl TestNode {
    /// A node that is not enrolled yet.
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&SystemRandom::new()).unwrap()).unwrap();
        let root = TrustedRoot::first(&std::fs::read(folder.join("root.cose")).unwrap()).unwrap();
        let facts = Fingerprint {
            name: name.to_owned(),
            datacenter: "test".to_owned(),
            attributes: [("cpu.arch".to_owned(), "amd64".to_owned())].into(),
            memory_mib: 4096,
            engine: Some(Engine { accepts_partial_load: true, ..Engine::default() }),
            agent_version: "0.1.0".to_owned(),
            ..Fingerprint::default()
        };
        Self {
            key,
            id: NodeId::new([0; 16]),
            boot: BootId::new([1; 16]),
            seq: 0,
            report_seq: 0,
            server_nonce: [0; 8],
            mark: Mark::default(),
            known_mark: Mark::default(),
            manifest: None,
            images: BTreeSet::new(),
            unknown: Vec::new(),
            specifications: Vec::new(),
            facts,
            folder: folder.to_owned(),
            root,
        }
    }

    /// The enrolment token of `agent.toml`.
    pub fn token(folder: &Path) -> String {
        let text = std::fs::read_to_string(folder.join("agent.toml")).unwrap();
        text.split('"').find(|part| part.starts_with("skt_")).unwrap().to_owned()
    }

    pub async fn enrol(&mut self, url: &str, token: &str) -> Result<(), Refused> {
        let message = EnrolRequest {
            token: token.to_owned(),
            key: self.key.public().0,
            boot: self.boot,
            nonce: [9; 8],
            fingerprint: self.facts.clone(),
        };
        let body = envelope::seal(&self.key, EnrolRequest::PURPOSE, &message);
        let answer = request(&self.folder, url, sent("POST", "/agent/v1/enrol", body)).await;
        let bytes = opened(answer)?;
        let (reply, _) = self.root.open_director::<EnrolReply>(&bytes, EnrolReply::PURPOSE, limits::ENROL).unwrap();
        assert_eq!(reply.nonce, [9; 8]);
        self.id = reply.node;
        self.known_mark = reply.mark;
        self.seq = 0;
        Ok(())
    }

    /// The next poll, with nothing to say.
    pub fn next(&mut self) -> PollRequest {
        self.seq += 1;
        PollRequest {
            node: self.id,
            boot: self.boot,
            seq: self.seq,
            nonce: self.seq.to_le_bytes(),
            server_nonce: self.server_nonce,
            mark: self.mark,
            issued: self.manifest.as_ref().filter(|m| m.mark == self.mark).map(|m| m.issued_at),
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

    pub fn inventory(&self) -> Inventory {
        Inventory { images: self.images.iter().copied().collect(), unknown: self.unknown.clone() }
    }

    pub fn report(&mut self, event: Event) -> Report {
        self.report_seq += 1;
        Report { seq: self.report_seq, at: Timestamp(0), event }
    }

    /// Sends a poll and takes what the reply orders.
    pub async fn send(&mut self, url: &str, message: &PollRequest) -> Result<PollReply, Refused> {
        let body = envelope::seal(&self.key, PollRequest::PURPOSE, message);
        let answer = request(&self.folder, url, sent("POST", "/agent/v1/poll", body)).await;
        let bytes = opened(answer)?;
        let (reply, _) = self.root.open_director::<PollReply>(&bytes, PollReply::PURPOSE, limits::POLL_REPLY).unwrap();
        assert_eq!((reply.node, reply.nonce), (self.id, message.nonce));
        self.server_nonce = reply.server_nonce;
        self.specifications.extend(reply.specifications.clone());
        if let Some(manifest) = &reply.manifest {
            let (manifest, _) = self.root.open_director::<Manifest>(&manifest.0, Manifest::PURPOSE, limits::MANIFEST).unwrap();
            assert_eq!(manifest.node, self.id);
            assert!(manifest.mark > self.mark, "{} is not above {}", manifest.mark, self.mark);
            self.mark = manifest.mark;
            self.manifest = Some(manifest);
        }
        Ok(reply)
    }

    /// A poll with nothing to say.
    pub async fn poll(&mut self, url: &str) -> Result<PollReply, Refused> {
        let message = self.next();
        self.send(url, &message).await
    }

    /// A poll with facts and inventory.
    pub async fn tell_facts(&mut self, url: &str) -> Result<PollReply, Refused> {
        let mut message = self.next();
        message.fingerprint = Some(Box::new(self.facts.clone()));
        message.inventory = Some(self.inventory());
        self.send(url, &message).await
    }

    /// A poll with reports.
    pub async fn tell(&mut self, url: &str, events: Vec<Event>) -> Result<PollReply, Refused> {
        let mut message = self.next();
        message.reports = events.into_iter().map(|event| self.report(event)).collect();
        self.send(url, &message).await
    }

    /// Asks for an image until its bundle is ready or has failed.
    pub async fn await_offer(&mut self, url: &str, image: ImageId) -> Offer {
        self.await_offer_of(url, image, false).await
    }

    /// The same, of a bundle without bases when `full`.
    pub async fn await_offer_of(&mut self, url: &str, image: ImageId, full: bool) -> Offer {
        loop {
            let mut message = self.next();
            message.images = vec![image];
            message.full = if full { vec![image] } else { vec![] };
            let mut reply = self.send(url, &message).await.unwrap();
            assert_eq!(reply.offers.len(), 1);
            let offer = reply.offers.remove(0);
            assert_eq!(offer.image, image);
            if offer.bundle != OfferState::Building {
                return offer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Bytes of an object; `range` as the header says it.
    pub async fn fetch(&self, url: &str, digest: &str, capability: &str, range: Option<&str>) -> Answer {
        let mut message = sent("GET", &format!("/agent/v1/objects/{digest}?n={}&c={capability}", self.id), Vec::new());
        if let Some(range) = range {
            message.headers_mut().insert("range", range.parse().unwrap());
        }
        request(&self.folder, url, message).await
    }

    pub fn root(&self) -> &TrustedRoot {
        &self.root
    }
}

fn opened(answer: Answer) -> Result<Bytes, Refused> {
    if answer.status == 200 {
        return Ok(answer.body);
    }
    let error: ApiError = serde_json::from_slice(&answer.body).unwrap();
    Err(format!("{} {}", answer.status, error.code))
}
