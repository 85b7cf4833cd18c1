//! The uplink against servers that restart, forget, repeat themselves, or sign under a newer root.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use skerry_trust::{PublicKey, Role, RoleKeys, Root, envelope, sign_root};
use skerry_wire::enrol::{EnrolReply, EnrolRequest};
use skerry_wire::logs::LogOrder;
use skerry_wire::manifest::{Manifest, Mark};
use skerry_wire::poll::{PollReply, PollRequest};
use skerry_wire::{AllocId, Blob, LogOrderId, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::exchange::{Next, Session};
use super::meter::Meter;
use super::network::Change;
use super::*;
use crate::ledger::samples::{self, Keys};

/// Status and body of an answer.
type Answer = (u16, Vec<u8>);

/// Answers a path and a body.
type Respond = Box<dyn FnMut(&str, &[u8]) -> Answer + Send>;

struct Bed {
    uplink: Uplink,
    inventory: watch::Sender<Option<Inventory>>,
    contact: watch::Receiver<Contact>,
    _folder: tempfile::TempDir,
    _asking: watch::Sender<Arc<BTreeSet<ImageId>>>,
    _facts: watch::Sender<Arc<Fingerprint>>,
}

/// An uplink to a server that answers like this.
async fn bed(root: &[u8], respond: Respond) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first.cose");
    std::fs::write(&first, root).unwrap();
    let ledger = Ledger::open(folder.path(), Timestamp(0)).unwrap();
    let (url, ca) = serve(respond).await;
    let client = Client::new(&url, ca.as_bytes(), 65536, ledger.watch_time(), Default::default()).unwrap();
    let (inventory, inventory_view) = watch::channel(None);
    let (contact_to, contact) = watch::channel(Contact::default());
    let (asking_to, asking) = watch::channel(Arc::default());
    let (facts_to, facts) = watch::channel(Arc::new(Fingerprint { name: "n1".into(), ..Fingerprint::default() }));
    let offers = watch::channel(Offers::default()).0;
    let wires = Wires {
        facts,
        inventory: inventory_view,
        unknown: watch::channel(Some(Arc::default())).1,
        asking,
        wake: Arc::default(),
        offers,
        hints: tokio::sync::mpsc::channel(4).0,
        contact: contact_to,
    };
    let clock = Clock::new().unwrap();
    let uplink = Uplink {
        client,
        key: Arc::new(samples::key()),
        silence: Silence::open(folder.path(), clock.boot(), 0).unwrap(),
        clock,
        token: Some("skt_test".to_owned()),
        poll_interval: Duration::from_secs(60),
        roots: RootStore::open(folder.path(), &first).unwrap(),
        ledger,
        outputs: Outputs { data: folder.path().to_owned(), engine: None },
        wires,
    };
    Bed { uplink, inventory, contact, _folder: folder, _asking: asking_to, _facts: facts_to }
}

async fn serve(mut respond: Respond) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            while let Some((path, body)) = read_request(&mut tls).await {
                let (status, body) = respond(&path, &body);
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                if tls.write_all(head.as_bytes()).await.is_err() || tls.write_all(&body).await.is_err() || tls.flush().await.is_err() {
                    break;
                }
            }
        }
    });
    (url, certificate.pem())
}

async fn read_request(tls: &mut (impl AsyncReadExt + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").map(|n| n.parse().unwrap()));
    let mut body = vec![0; length.unwrap_or(0)];
    tls.read_exact(&mut body).await.ok()?;
    Some((head.split_whitespace().nth(1).unwrap().to_owned(), body))
}

fn peek(body: &[u8]) -> PollRequest {
    envelope::peek::<PollRequest>(body, limits::POLL_REQUEST).unwrap().0
}

/// The answer of a server with nothing to say.
fn reply(request: &PollRequest) -> PollReply {
    PollReply {
        node: request.node,
        nonce: request.nonce,
        server_nonce: [7; 8],
        time: Timestamp(1000),
        next_poll_s: 60,
        acknowledged: request.reports.last().map_or(0, |r| r.seq),
        send_facts: false,
        manifest: None,
        specifications: vec![],
        offers: vec![],
        roots: vec![],
        log: None,
        wanted: Vec::new(),
    }
}

fn sealed(key: &SigningKey, reply: &PollReply) -> Answer {
    (200, envelope::seal(key, PollReply::PURPOSE, reply))
}

fn error(status: u16, code: &str) -> Answer {
    (status, format!(r#"{{"code":"{code}","message":"no"}}"#).into_bytes())
}

async fn polled(session: &mut Session, bed: &Bed) -> Next {
    session.poll(&bed.uplink, samples::node()).await.unwrap()
}

#[tokio::test]
async fn specifications_that_are_refused_are_not_asked_for_in_a_hurry() {
    let (keys, stranger) = (Keys::new(), Keys::new());
    let (digest, bytes, _) = stranger.specification("till", Some(ImageId(skerry_wire::Digest::new([8; 32]))));
    let manifest = Blob(envelope::seal(&keys.director, Manifest::PURPOSE, &samples::manifest(5, &[("till", digest)])));
    let root = keys.root_file();
    let respond = move |_: &str, body: &[u8]| {
        let (manifest, specifications) = (Some(manifest.clone()), vec![Blob(bytes.clone())]);
        sealed(&keys.director, &PollReply { manifest, specifications, ..reply(&peek(body)) })
    };
    let bed = bed(&root, Box::new(respond)).await;
    let mut session = Session::new(&bed.uplink).await.unwrap();
    for _ in 0..3 {
        assert!(!polled(&mut session, &bed).await.at_once);
    }
    assert_eq!(bed.uplink.ledger.desired().manifest, None);
}

#[tokio::test]
async fn facts_are_given_until_the_server_has_them_and_without_hurry() {
    let keys = Keys::new();
    let root = keys.root_file();
    // One entry per poll: did it carry fingerprint and inventory? The server wants facts in the first five answers.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let respond = move |_: &str, body: &[u8]| {
        let request = peek(body);
        let mut seen = noted.lock().unwrap();
        seen.push((request.fingerprint.is_some(), request.inventory.is_some()));
        sealed(&keys.director, &PollReply { send_facts: seen.len() <= 5, ..reply(&request) })
    };
    let bed = bed(&root, Box::new(respond)).await;
    let mut session = Session::new(&bed.uplink).await.unwrap();
    // The engine has not answered: there is no inventory to give, however often the server asks.
    for _ in 0..3 {
        assert!(!polled(&mut session, &bed).await.at_once);
    }
    bed.inventory.send_replace(Some(Inventory::default()));
    // A server that has just restarted answers without keeping anything: what it was given it gets again.
    for _ in 0..4 {
        assert!(!polled(&mut session, &bed).await.at_once);
    }
    let (both, none) = ((true, true), (false, false));
    assert_eq!(*seen.lock().unwrap(), [(true, false), (true, false), (true, false), both, both, both, none]);
}

#[tokio::test]
async fn reports_that_are_never_acknowledged_are_not_sent_in_a_hurry() {
    let keys = Keys::new();
    let root = keys.root_file();
    let respond = move |_: &str, body: &[u8]| {
        let request = peek(body);
        let acknowledged = request.reports[0].seq - 1;
        sealed(&keys.director, &PollReply { acknowledged, ..reply(&request) })
    };
    let bed = bed(&root, Box::new(respond)).await;
    let event = |n| skerry_wire::poll::Event::ImagePresent { image: ImageId(skerry_wire::Digest::new([n; 32])) };
    bed.uplink.ledger.push_events(vec![event(1), event(2)]).await.unwrap();
    bed.uplink.ledger.acknowledged(1).await.unwrap();
    let mut session = Session::new(&bed.uplink).await.unwrap();
    for _ in 0..3 {
        assert!(!polled(&mut session, &bed).await.at_once);
    }
    assert_eq!(bed.uplink.ledger.watch_outbox().borrow().pending, 1);
}

/// An order for output is answered with the next poll, which comes at once; one that comes again although it was answered, without hurry.
#[tokio::test]
async fn output_is_sent_when_it_is_ordered() {
    let keys = Keys::new();
    let root = keys.root_file();
    let orders: Vec<_> = [1, 1, 1, 1, 2].map(|n| order(n, Some("web"))).into_iter().map(Some).chain([None, None]).collect();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&answers);
    let respond = move |_: &str, body: &[u8]| {
        let request = peek(body);
        let mut noted = noted.lock().unwrap();
        let log = orders[noted.len()].clone();
        noted.push(request.log.clone().map(|log| (log.id, log.lines.unwrap_err())));
        sealed(&keys.director, &PollReply { log, ..reply(&request) })
    };
    let bed = bed(&root, Box::new(respond)).await;
    let mut session = Session::new(&bed.uplink).await.unwrap();
    for at_once in [true, false, false, false, true, false, false] {
        assert_eq!(polled(&mut session, &bed).await.at_once, at_once);
    }
    let said = |n| {
        let reason = format!("nothing of allocation {} is on this node", order(n, None).alloc.short());
        Some((order(n, None).id, reason))
    };
    let given_up = Some((order(1, None).id, "the link broke 3 times while it was sent: order fewer lines".to_owned()));
    assert_eq!(*answers.lock().unwrap(), [None, said(1), said(1), said(1), given_up, said(2), None]);
}

/// A restored server wants specifications back: at once, a few times if it goes on wanting them, and reports have polls of their own.
#[tokio::test]
async fn specifications_are_handed_back_when_they_are_wanted() {
    let keys = Keys::new();
    let root = keys.root_file();
    let (digest, bytes, content) = keys.specification("till", None);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let respond = move |_: &str, body: &[u8]| {
        let request = peek(body);
        noted.lock().unwrap().push((request.given.clone(), request.reports.len()));
        let wanted = vec![digest, skerry_wire::Digest::new([5; 32])];
        sealed(&keys.director, &PollReply { acknowledged: 0, wanted, ..reply(&request) })
    };
    let bed = bed(&root, Box::new(respond)).await;
    bed.uplink.ledger.keep_specifications(vec![(digest, bytes.clone(), content)]).await.unwrap();
    bed.uplink.ledger.push_events(vec![skerry_wire::poll::Event::ImagePresent { image: ImageId(digest) }]).await.unwrap();
    let mut session = Session::new(&bed.uplink).await.unwrap();
    for at_once in [true, false, false, false, false] {
        assert_eq!(polled(&mut session, &bed).await.at_once, at_once);
    }
    let (none, given) = ((vec![], 1), (vec![Blob(bytes)], 0));
    assert_eq!(*seen.lock().unwrap(), [none.clone(), given.clone(), given.clone(), given, none]);
}

fn order(n: u8, task: Option<&str>) -> LogOrder {
    LogOrder { id: LogOrderId::new([n; 16]), alloc: AllocId::new([n; 16]), task: task.map(str::to_owned), lines: 5 }
}

#[tokio::test]
async fn a_newer_root_in_an_answer_brings_the_key_that_signed_it() {
    let (root_key, old, new) = (samples::key(), samples::key(), samples::key());
    let root = |version, director: &SigningKey| {
        let only = |key: PublicKey| RoleKeys { keys: vec![key], threshold: 1 };
        let roles = [(Role::Root, root_key.public()), (Role::Release, old.public()), (Role::Director, director.public())];
        let roles: BTreeMap<_, _> = roles.map(|(role, key)| (role, only(key))).into();
        sign_root(&Root { version, roles, time_cap: Timestamp(i64::MAX) }, &[&root_key])
    };
    let (first, second) = (root(1, &old), root(2, &new));
    let polls = AtomicU64::new(0);
    let respond = move |_: &str, body: &[u8]| {
        let roots = if polls.fetch_add(1, Ordering::Relaxed) == 0 { vec![] } else { vec![Blob(second.clone())] };
        sealed(&new, &PollReply { roots, ..reply(&peek(body)) })
    };
    let bed = bed(&first, Box::new(respond)).await;
    let mut session = Session::new(&bed.uplink).await.unwrap();
    let refused = session.poll(&bed.uplink, samples::node()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be trusted"), "{refused}");
    polled(&mut session, &bed).await;
    assert_eq!(bed.uplink.roots.current().root().version, 2);
    let kept = RootStore::open(bed._folder.path(), &bed._folder.path().join("first.cose")).unwrap();
    assert_eq!(kept.current().root().version, 2, "kept before it was trusted");
}

/// A server that has forgotten the node, and one that takes a request for a repeated one: the node gets through by itself.
#[tokio::test]
async fn enrols_again_where_it_is_not_known_and_counts_on_where_it_is_behind() {
    let keys = Keys::new();
    let root = keys.root_file();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let respond = move |path: &str, body: &[u8]| {
        let mut seen = noted.lock().unwrap();
        if path.ends_with("/enrol") {
            seen.push(("enrol", 0));
            let (request, _) = envelope::peek::<EnrolRequest>(body, limits::ENROL).unwrap();
            let reply =
                EnrolReply { node: samples::node(), nonce: request.nonce, time: Timestamp(1000), roots: vec![], mark: Mark::default() };
            return (200, envelope::seal(&keys.director, EnrolReply::PURPOSE, &reply));
        }
        let request = peek(body);
        seen.push(("poll", request.seq));
        match seen.len() {
            2 => error(401, "unknown_node"),
            4 => error(409, "replayed"),
            _ => sealed(&keys.director, &reply(&request)),
        }
    };
    let bed = bed(&root, Box::new(respond)).await;
    let mut contact = bed.contact.clone();
    let running = tokio::spawn(run(bed.uplink));
    let answered = contact.wait_for(|c| c.last.is_some());
    tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap().unwrap();
    running.abort();
    let seen = seen.lock().unwrap().clone();
    let words: Vec<_> = seen.iter().map(|(word, _)| *word).collect();
    assert_eq!(words[..5], ["enrol", "poll", "enrol", "poll", "poll"]);
    let sequences: Vec<u64> = seen.iter().filter(|(word, _)| *word == "poll").map(|(_, seq)| *seq).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
}

/// The poll's connection is kept while a download notices that the address is gone: the next request must not be sent on it.
#[tokio::test]
async fn no_request_goes_over_a_kept_connection_whose_address_is_gone() {
    let (url, ca) = serve(Box::new(|_, _| (200, Vec::new()))).await;
    let folder = tempfile::tempdir().unwrap();
    let (ledger, meter) = (Ledger::open(folder.path(), Timestamp(0)).unwrap(), Meter::default());
    let client = Client::new(&url, ca.as_bytes(), 65536, ledger.watch_time(), meter.clone()).unwrap();
    let took = async || {
        let before = meter.total();
        client.post("/", Vec::new(), 16).await.unwrap();
        meter.total() - before
    };
    let (first, kept) = (took().await, took().await);
    assert!(kept < first / 2, "the connection was not kept: {first} bytes, then {kept}");
    client.reach().changed(Change::Gone([127, 0, 0, 1].into()));
    let anew = took().await;
    assert!(anew > 2 * kept, "a connection that is gone was used: {anew} bytes");
    assert!(took().await < anew / 2, "kept again");
}
