//! A bundle over a link that cuts, a server that passes over ranges, and bytes that are wrong.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

use skerry_bundle::make::{Layer, MakeOptions, Target, make};
use skerry_delta::source::{LayerSource, ReadSeek, Segment};
use skerry_trust::{SigningKey, TimeBound};
use skerry_wire::{DiffId, Timestamp, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::ledger::{samples, sha256};
use crate::uplink::meter::Meter;

const CHUNK: u64 = limits::CHUNK as u64;

/// A layer that is one run of bytes.
struct Plain(Vec<u8>);

impl LayerSource for Plain {
    fn segments(&self) -> std::io::Result<Box<dyn Iterator<Item = std::io::Result<Segment>> + Send + '_>> {
        Ok(Box::new(std::iter::once(Ok(Segment::Raw(self.0.clone())))))
    }

    fn open(&self, _file: u32) -> std::io::Result<Box<dyn ReadSeek + '_>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// A full bundle of about `size` bytes that do not compress.
/// None of its chunks ends in a byte that a test's damage makes a zero, nor in a zero: what is not here ends so.
pub(super) fn bundle(key: &SigningKey, size: usize) -> Vec<u8> {
    loop {
        let file = any_bundle(key, size);
        let start = usize::try_from(skerry_bundle::head::toc_range(&file).unwrap().end).unwrap();
        if file[start..].chunks(65_536).all(|chunk| (2..0xff).contains(&chunk[chunk.len() - 1])) {
            return file;
        }
    }
}

fn any_bundle(key: &SigningKey, size: usize) -> Vec<u8> {
    let mut noise = vec![0; size];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut noise).unwrap();
    let tar = skerry_image::load::single_file_layer("noise", &noise);
    let diff_id = DiffId(sha256(&tar));
    let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let source = Plain(tar);
    let target = Target { config: config.as_bytes(), layers: vec![Layer { diff_id, source: &source }] };
    let mut out = Vec::new();
    make(&target, &[], &MakeOptions::default(), &skerry_delta::Silent, &AtomicBool::new(false), key, &mut out).unwrap();
    out
}

/// What the server does with one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// As it should.
    Well,
    /// Closes the connection after so many bytes of the body.
    Cut(usize),
    /// 200 and the whole file, whatever was asked for.
    Whole,
    /// One wrong byte at this offset of the file.
    Wrong(u64),
    /// A body that says that it is shorter, and ends well.
    Short(usize),
    /// Another range than was asked for: this one.
    Elsewhere(usize, usize),
    /// An error of the API.
    Refuse,
    /// Too much to do: asks to be left alone for so many seconds.
    Later(u64),
}

pub(super) struct Server {
    pub(super) client: Client,
    /// Ranges as they were asked for: `bytes=A-B`.
    asked: Arc<Mutex<Vec<String>>>,
    /// Bytes of bodies that were sent.
    sent: Arc<AtomicU64>,
    /// What the client counted.
    meter: Meter,
    _time: watch::Sender<TimeBound>,
}

/// Serves `file`; answers in turn, then well.
pub(super) async fn serve(file: Vec<u8>, answers: Vec<Answer>) -> Server {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (asked, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let (noted, counted) = (Arc::clone(&asked), Arc::clone(&sent));
    tokio::spawn(async move {
        let mut answers = VecDeque::from(answers);
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            // Requests of a connection until it is cut; the client keeps one at a time.
            while let Some(head) = read_head(&mut tls).await {
                let range =
                    head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("range: ").map(str::to_owned)).unwrap_or_default();
                noted.lock().unwrap().push(range.clone());
                let answer = answers.pop_front().unwrap_or(Answer::Well);
                if !respond(&mut tls, &file, &range, answer, &counted).await {
                    break;
                }
            }
        }
    });
    let (keep, time) = watch::channel(TimeBound::new(Timestamp(0), None));
    let meter = Meter::default();
    let client = Client::new(&url, certificate.pem().as_bytes(), 65536, time, meter.clone()).unwrap();
    Server { client, asked, sent, meter, _time: keep }
}

async fn read_head(tls: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// False when the connection is to be closed.
async fn respond(tls: &mut (impl AsyncWriteExt + Unpin), file: &[u8], range: &str, answer: Answer, sent: &AtomicU64) -> bool {
    let (start, end) = range.trim().strip_prefix("bytes=").and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap();
    let end = end.parse::<usize>().map_or(file.len(), |last| last + 1);
    let mut body = file[start..end].to_vec();
    let mut status = "206 Partial Content".to_owned();
    let mut cut = usize::MAX;
    match answer {
        Answer::Well => {}
        Answer::Cut(at) => cut = at,
        Answer::Whole => (status, body) = ("200 OK".to_owned(), file.to_vec()),
        Answer::Later(seconds) => (status, body) = (format!("503 Service Unavailable\r\nretry-after: {seconds}"), vec![]),
        Answer::Wrong(at) => {
            if let Some(byte) = usize::try_from(at).unwrap().checked_sub(start).and_then(|at| body.get_mut(at)) {
                *byte ^= 1;
            }
        }
        Answer::Elsewhere(from, to) => {
            status = format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{}", to - 1, file.len());
            body = file[from..to].to_vec();
        }
        Answer::Short(by) => body.truncate(body.len().saturating_sub(by)),
        Answer::Refuse => {
            status = "403 Forbidden".to_owned();
            body = br#"{"code":"not_admitted","message":"this node may not have it"}"#.to_vec();
        }
    }
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
    let part = &body[..cut.min(body.len())];
    sent.fetch_add(part.len() as u64, Ordering::Relaxed);
    tls.write_all(head.as_bytes()).await.is_ok() && tls.write_all(part).await.is_ok() && tls.flush().await.is_ok() && cut >= body.len()
}

pub(super) fn order(path: PathBuf, file: &[u8], key: &SigningKey) -> Order {
    Order {
        digest: sha256(file),
        size: file.len() as u64,
        capability: "c0ffee".to_owned(),
        node: samples::node(),
        keys: key.public().into(),
        path,
        most: u64::MAX,
        pace: None,
    }
}

/// One try, as the images task makes it.
async fn attempt(server: &Server, order: &Order) -> Result<(), FetchError> {
    let mut fetch = Fetch::open(&server.client, order.clone(), Arc::new(|_| {})).await?;
    fetch.table().await?;
    fetch.rest().await
}

/// Tries until it works; the failures on the way.
async fn until_done(server: &Server, order: &Order) -> Vec<FetchError> {
    let mut failures = Vec::new();
    while let Err(error) = attempt(server, order).await {
        failures.push(error);
        assert!(failures.len() < 20, "{failures:?}");
    }
    failures
}

#[tokio::test]
async fn two_requests_fetch_a_bundle_and_none_when_it_is_here() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 400_000);
    let server = serve(file.clone(), vec![]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    assert!(until_done(&server, &order).await.is_empty());
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
    assert_eq!(*server.asked.lock().unwrap(), ["bytes=0-65535".to_owned(), "bytes=65536-".to_owned()]);
    attempt(&server, &order).await.unwrap();
    assert_eq!(server.sent.load(Ordering::Relaxed), file.len() as u64);
    // Requests, heads and TLS come on top of it: some KB for the handshake, and a little for every record.
    let (counted, sent) = (server.meter.total(), file.len() as u64);
    assert!((sent + 1_000..sent + sent / 50 + 12_000).contains(&counted), "{counted} bytes were counted for {sent}");
}

#[tokio::test]
async fn a_server_that_wants_to_be_left_alone_is_understood() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 100_000);
    let server = serve(file.clone(), vec![Answer::Later(7), Answer::Later(1 << 40)]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    for seconds in [7, 3600] {
        let FetchError::Call(call) = attempt(&server, &order).await.unwrap_err() else { panic!() };
        assert_eq!(call.retry_after(), Some(std::time::Duration::from_secs(seconds)), "{call}");
    }
    attempt(&server, &order).await.unwrap();
}

#[tokio::test]
async fn cuts_at_any_byte_cost_no_byte_twice() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 400_000);
    let cuts = [0, 1, 8, 70, 200, 1000, 65_000, 1, 65_536, 0, 130_000, 77];
    let server = serve(file.clone(), cuts.map(Answer::Cut).to_vec()).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    let failures = until_done(&server, &order).await;
    assert!(failures.iter().all(|f| matches!(f, FetchError::Call(_))), "{failures:?}");
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
    assert_eq!(server.sent.load(Ordering::Relaxed), file.len() as u64, "{:?}", server.asked.lock().unwrap());
}

#[tokio::test]
async fn a_chunk_that_is_wrong_on_the_way_or_on_the_disk_is_fetched_again_alone() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 400_000);
    let server = serve(file.clone(), vec![Answer::Well, Answer::Wrong(200_000)]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    assert!(until_done(&server, &order).await.is_empty());
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
    assert_eq!(server.sent.load(Ordering::Relaxed), file.len() as u64 + CHUNK);
    // A power cut left a page of zeros.
    let mut zeroed = file.clone();
    zeroed[300_000..304_096].fill(0);
    std::fs::write(&order.path, zeroed).unwrap();
    assert!(until_done(&server, &order).await.is_empty());
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
    assert_eq!(server.sent.load(Ordering::Relaxed), file.len() as u64 + 2 * CHUNK);
}

#[tokio::test]
async fn a_table_garbled_by_a_power_cut_is_fetched_again_and_is_no_fault_of_the_server() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 200_000);
    let server = serve(file.clone(), vec![Answer::Cut(70)]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    attempt(&server, &order).await.unwrap_err();
    let mut garbled = std::fs::read(&order.path).unwrap();
    assert_eq!(garbled.len(), 70);
    garbled[60..].fill(0);
    std::fs::write(&order.path, garbled).unwrap();
    attempt(&server, &order).await.unwrap();
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
}

#[tokio::test]
async fn a_power_cut_costs_one_chunk_and_not_the_name_of_the_file() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 400_000);
    let server = serve(file.clone(), vec![Answer::Well, Answer::Cut(200_000)]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    let recording = skerry_testkit::powercut::Recording::start(dir.path()).unwrap();
    attempt(&server, &order).await.unwrap_err();
    let (trace, sent) = (recording.finish(), server.sent.load(Ordering::Relaxed));
    for seed in 0..20 {
        let left = trace.after_cut(trace.steps.len(), &mut skerry_testkit::powercut::Chance::new(seed));
        let bytes = left.files.get(Path::new("b.part")).map_or(0, Vec::len) as u64;
        assert!(bytes + CHUNK >= sent, "seed {seed}: {bytes} of {sent} bytes are left");
    }
}

/// Frames that come slowly: with each that ends a chunk, all that came is on the disk before the next, and no other costs a sync.
#[tokio::test]
async fn a_power_cut_in_the_middle_of_a_slow_transfer_costs_what_is_not_a_whole_chunk() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let (file, path) = (bundle(&key, 400_000), dir.path().join("b.part"));
    let open = || Part::open(&path, file.len() as u64, key.public().into()).unwrap();
    let mut part = open();
    part.push(0, &file[..1000]).unwrap();
    part.sync().unwrap();
    let start = part.table().unwrap().payload_start();
    let mut came = std::collections::BTreeSet::from([start]);
    let recording = skerry_testkit::powercut::Recording::start(dir.path()).unwrap();
    let (frames, queue) = mpsc::channel(QUEUE);
    let sends = async {
        let mut at = 1000;
        for frame in file[1000..].chunks(10_000) {
            frames.send((at, Bytes::copy_from_slice(frame))).await.unwrap();
            at += frame.len() as u64;
            // Upon which the writer, asked first, is at the end of the queue.
            tokio::task::yield_now().await;
            let whole = if at < file.len() as u64 { start + (at - start) / CHUNK * CHUNK } else { at };
            recording.mark(whole);
            came.insert(whole);
        }
        drop(frames);
    };
    let ((part, written), ()) = tokio::join!(biased; write(part, queue, &|_| {}), sends);
    written.unwrap();
    drop(part);
    let trace = recording.finish();
    let syncs = trace.steps.iter().filter(|step| matches!(step, skerry_testkit::powercut::Step::Sync(_))).count();
    assert_eq!(syncs, came.len() - 1, "one for each frame that ends a chunk");
    let last = trace.steps.len();
    assert!(trace.mark_before(last / 2) > Some(start + CHUNK), "nothing came before the middle");
    for cut in 0..=last {
        let came = trace.mark_before(cut).unwrap_or(0);
        for seed in 0..5 {
            trace.after_cut(cut, &mut skerry_testkit::powercut::Chance::new(seed)).replace(dir.path()).unwrap();
            let have = open().have();
            assert!(have >= came, "cut after {cut} of {last} steps, seed {seed}: {have} bytes are left, {came} were in whole chunks");
        }
    }
}

/// Frames that come as fast as they are written: the queue is never empty.
#[tokio::test]
async fn a_power_cut_in_the_middle_of_a_fast_transfer_costs_what_may_wait_for_a_sync() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let (file, path) = (bundle(&key, 3_000_000), dir.path().join("b.part"));
    let open = || Part::open(&path, file.len() as u64, key.public().into()).unwrap();
    let recording = skerry_testkit::powercut::Recording::start(dir.path()).unwrap();
    let (frames, queue) = mpsc::channel(file.len());
    let mut at = 0;
    for frame in file.chunks(16_384) {
        frames.try_send((at, Bytes::copy_from_slice(frame))).unwrap();
        at += frame.len() as u64;
    }
    drop(frames);
    let (part, written) = write(open(), queue, &|have| recording.mark(have)).await;
    written.unwrap();
    drop(part);
    let trace = recording.finish();
    let last = trace.steps.len();
    let syncs = trace.steps.iter().filter(|step| matches!(step, skerry_testkit::powercut::Step::Sync(_))).count();
    assert!((12..=20).contains(&syncs), "{syncs} syncs");
    for cut in 0..=last {
        let had = trace.mark_before(cut).unwrap_or(0);
        trace.after_cut(cut, &mut skerry_testkit::powercut::Chance::new(cut as u64)).replace(dir.path()).unwrap();
        let have = open().have();
        assert!(have + UNSYNCED + CHUNK >= had, "cut after {cut} of {last} steps: {have} of {had} bytes are left");
    }
}

/// Of a long table nothing can be told before it is whole; it is not fetched from its beginning for that.
#[tokio::test]
async fn a_power_cut_in_the_middle_of_a_long_table_costs_what_may_wait_for_a_sync() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    // The head of a table of a million bytes, and what comes of it.
    let mut came = [&bundle(&key, 1000)[..4], &[0xc0, 0x84, 0x3d]].concat();
    came.resize(900_000, 7);
    let part = Part::open(&dir.path().join("b.part"), 2_000_000, key.public().into()).unwrap();
    let recording = skerry_testkit::powercut::Recording::start(dir.path()).unwrap();
    let (frames, queue) = mpsc::channel(QUEUE);
    let sends = async move {
        for (at, frame) in (0u64..).step_by(16_384).zip(came.chunks(16_384)) {
            frames.send((at, Bytes::copy_from_slice(frame))).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(frames);
    };
    let marks = |have| recording.mark(have);
    let ((part, written), ()) = tokio::join!(biased; write(part, queue, &marks), sends);
    written.unwrap();
    drop(part);
    let trace = recording.finish();
    assert_eq!(trace.mark_before(trace.steps.len()), Some(900_000));
    for cut in 0..=trace.steps.len() {
        let had = trace.mark_before(cut).unwrap_or(0);
        let left = trace.after_cut(cut, &mut skerry_testkit::powercut::Chance::new(cut as u64));
        let bytes = left.files.get(Path::new("b.part")).map_or(0, Vec::len) as u64;
        assert!(bytes + UNSYNCED + CHUNK >= had, "cut after {cut} steps: {bytes} of {had} bytes are left");
    }
}

#[tokio::test]
async fn a_disk_that_gives_errors_is_told_of_and_the_rest_is_fetched_when_it_works() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 1_000_000);
    let server = serve(file.clone(), vec![]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    let watched = Arc::new(skerry_testkit::powercut::Watched::start(dir.path()).unwrap());
    let (breaks, half) = (Arc::clone(&watched), file.len() as u64 / 2);
    let mut fetch = Fetch::open(&server.client, order.clone(), Arc::new(move |have| breaks.set_broken(have >= half))).await.unwrap();
    fetch.table().await.unwrap();
    let error = fetch.rest().await.unwrap_err();
    assert!(matches!(error, FetchError::File(_)) && error.to_string().contains("b.part"), "{error}");
    drop(fetch);
    let error = attempt(&server, &order).await.unwrap_err();
    assert!(matches!(error, FetchError::File(_)), "{error}");
    watched.set_broken(false);
    let sent = server.sent.load(Ordering::Relaxed);
    attempt(&server, &order).await.unwrap();
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
    // What the disk took before is not fetched again.
    assert!(server.sent.load(Ordering::Relaxed) - sent <= file.len() as u64 - half, "{sent} bytes had been sent before");
}

#[tokio::test]
async fn a_server_that_passes_over_the_range_is_understood() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 300_000);
    let server = serve(file.clone(), vec![Answer::Cut(90_000), Answer::Whole, Answer::Whole]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    until_done(&server, &order).await;
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
}

#[tokio::test]
async fn bodies_that_end_early_are_gone_on_with_and_never_looped_on() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 300_000);
    let server = serve(file.clone(), vec![Answer::Short(100), Answer::Short(50_000), Answer::Short(usize::MAX)]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    let failures = until_done(&server, &order).await;
    assert!(matches!(failures[..], [FetchError::Short { .. }]), "{failures:?}");
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
    assert_eq!(server.sent.load(Ordering::Relaxed), file.len() as u64);
}

/// Now here, now there, a byte each time: less is here after it than before, or nothing more.
#[tokio::test]
async fn a_server_that_jumps_to_and_fro_is_not_asked_for_ever() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 400_000);
    let start = usize::try_from(skerry_bundle::head::toc_range(&file).unwrap().end).unwrap();
    let (first, second) = (start + 65_536, start + 2 * 65_536);
    let to_and_fro = [Answer::Elsewhere(second, second + 1), Answer::Elsewhere(first, first + 1)];
    let server = serve(file.clone(), to_and_fro.repeat(3)).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    let mut garbled = file.clone();
    garbled[first + 30_000..first + 65_536].fill(0);
    garbled[second..second + 65_536].fill(0);
    std::fs::write(&order.path, garbled).unwrap();
    for _ in 0..3 {
        let asked = server.asked.lock().unwrap().len();
        let error = attempt(&server, &order).await.unwrap_err();
        assert!(matches!(error, FetchError::Short { .. }), "{error}");
        assert!(server.asked.lock().unwrap().len() <= asked + 2, "{:?}", server.asked.lock().unwrap());
    }
    // All that came of the first is still here, but for zeros at its end.
    let end = first + file[first..first + 30_000].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    server.asked.lock().unwrap().clear();
    until_done(&server, &order).await;
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked[0].starts_with(&format!("bytes={end}-")), "{asked:?}");
}

#[tokio::test]
async fn what_cannot_be_believed_is_refused() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 100_000);
    let good = order(dir.path().join("b.part"), &file, &key);
    let signed_by_another = Order { keys: samples::key().public().into(), ..good.clone() };
    let longer = Order { size: good.size + 1, ..good.clone() };
    let server = serve(file.clone(), vec![Answer::Wrong(40), Answer::Wrong(0), Answer::Refuse]).await;
    for (order, expected) in
        [(&good, "signature"), (&good, "not a Skerry bundle"), (&good, "may not have it"), (&signed_by_another, "not trusted")]
    {
        let error = attempt(&server, order).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(attempt(&server, &longer).await.unwrap_err().to_string().contains("offered were"));
    // None of it left anything behind that stands in the way.
    attempt(&server, &good).await.unwrap();
    assert_eq!(std::fs::read(&good.path).unwrap(), file);
}

#[tokio::test]
async fn a_server_that_only_ever_lies_is_given_up() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 100_000);
    let server = serve(file.clone(), vec![Answer::Wrong(50_000); 40]).await;
    let error = attempt(&server, &order(dir.path().join("b.part"), &file, &key)).await.unwrap_err();
    assert!(error.to_string().contains("wrong bytes"), "{error}");
    // Its beginning, the rest with the first wrong chunk, and that chunk sixteen times more.
    assert_eq!(server.asked.lock().unwrap().len(), 18);
}

#[tokio::test]
async fn no_more_is_fetched_than_allowed_and_the_rest_later() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 300_000);
    let server = serve(file.clone(), vec![]).await;
    let good = order(dir.path().join("b.part"), &file, &key);
    let mut sent = 0;
    for most in [0, 1, 70_000, 100_000] {
        let error = attempt(&server, &Order { most, ..good.clone() }).await.unwrap_err();
        assert!(matches!(error, FetchError::Allowance), "{error}");
        sent += most;
        assert_eq!(server.sent.load(Ordering::Relaxed), sent);
    }
    attempt(&server, &good).await.unwrap();
    assert_eq!(std::fs::read(&good.path).unwrap(), file);
    assert_eq!(server.sent.load(Ordering::Relaxed), file.len() as u64, "no byte twice");
}

/// The copy of the server has a wrong chunk, and no more may be fetched than is missing: a try that brings nothing is a failure, after which
/// the next one waits.
#[tokio::test]
async fn what_is_allowed_and_brings_nothing_is_a_failure() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 300_000);
    let server = serve(file.clone(), vec![Answer::Wrong(100_000); 4]).await;
    let good = order(dir.path().join("b.part"), &file, &key);
    // The first brought the rest of it.
    let error = attempt(&server, &Order { most: good.size, ..good.clone() }).await.unwrap_err();
    assert!(matches!(error, FetchError::Allowance), "{error}");
    for _ in 0..2 {
        let error = attempt(&server, &Order { most: 65_536, ..good.clone() }).await.unwrap_err();
        assert!(matches!(error, FetchError::Wrong { .. }), "{error}");
    }
    let error = attempt(&server, &Order { most: 1000, ..good.clone() }).await.unwrap_err();
    assert!(matches!(error, FetchError::Allowance), "{error}");
    attempt(&server, &Order { most: 65_536, ..good.clone() }).await.unwrap();
    assert_eq!(std::fs::read(&good.path).unwrap(), file);
}

/// Bytes that are here already use up what is allowed: the server is not blamed for a chunk.
#[tokio::test]
async fn what_is_allowed_and_comes_again_is_a_failure() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 300_000);
    let server = serve(file.clone(), vec![Answer::Elsewhere(0, 1000)]).await;
    let good = order(dir.path().join("b.part"), &file, &key);
    std::fs::write(&good.path, &file[..100_000]).unwrap();
    let error = attempt(&server, &Order { most: 1000, ..good.clone() }).await.unwrap_err();
    assert!(matches!(error, FetchError::Short { have: 100_000, .. }), "{error}");
    attempt(&server, &good).await.unwrap();
    assert_eq!(std::fs::read(&good.path).unwrap(), file);
}

#[tokio::test]
async fn a_rate_is_held_on_the_wire() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 300_000);
    let server = serve(file.clone(), vec![]).await;
    let pace = Some(Arc::new(Mutex::new(Pace::new(150_000, boottime_ms()))));
    let order = Order { pace, ..order(dir.path().join("b.part"), &file, &key) };
    let began = tokio::time::Instant::now();
    attempt(&server, &order).await.unwrap();
    // The first second's worth comes at once.
    assert!(began.elapsed() >= std::time::Duration::from_millis(950), "{:?}", began.elapsed());
    assert_eq!(std::fs::read(&order.path).unwrap(), file);
}
