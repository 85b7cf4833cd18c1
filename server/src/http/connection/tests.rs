use std::sync::Mutex;

use axum::middleware::{Next, from_fn};
use axum::routing::{get, post};
use futures_util::stream::unfold;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

const KEEP: Duration = Duration::from_secs(150);
const LARGE: usize = 3_000_000;
const GET: &str = "GET /small HTTP/1.1\r\nhost: a\r\n\r\n";
const SMALL: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\r\nsmall";

type Seen = Arc<Mutex<Vec<String>>>;

/// A connection on a pipe of `room` bytes; what the service saw; a word to stop.
fn open(room: usize) -> (DuplexStream, Seen, watch::Sender<bool>, JoinHandle<()>) {
    open_as(room, |near| near)
}

/// The same with the near end wrapped.
fn open_as<S>(room: usize, wrap: impl FnOnce(DuplexStream) -> S) -> (DuplexStream, Seen, watch::Sender<bool>, JoinHandle<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (near, far) = duplex(room);
    let seen = Seen::default();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(Box::new(wrap(near)), router(&seen), KEEP, stopped));
    (far, seen, stop, task)
}

fn router(seen: &Seen) -> Router {
    let seen = Arc::clone(seen);
    let note = move |request: Request<Body>, next: Next| {
        seen.lock().unwrap().push(request.uri().path()[1..].to_owned());
        next.run(request)
    };
    let slow = async || {
        tokio::time::sleep(Duration::from_secs(20)).await;
        "slow"
    };
    let streamed = async || {
        Body::from_stream(unfold(0, async |piece| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            (piece < 5).then(|| (Ok::<_, Infallible>("piece"), piece + 1))
        }))
    };
    let early = async |body: Body| {
        tokio::spawn(axum::body::to_bytes(body, usize::MAX));
        vec![7_u8; 5000]
    };
    Router::new()
        .route("/small", get(async || "small"))
        .route("/large", get(async || vec![7_u8; LARGE]))
        .route("/slow", get(slow))
        .route("/streamed", get(streamed))
        .route("/whole", post(async |body: Bytes| body.len().to_string()))
        .route("/echo", post(async |body: Bytes| body.repeat(1000)))
        .route("/unread", post(async |_: Body| "unread"))
        .route("/early", post(early))
        .layer(from_fn(note))
}

async fn ask(far: &mut DuplexStream, request: &str) {
    far.write_all(request.as_bytes()).await.unwrap();
}

/// Reads an answer of known length: its head, and how many bytes its body has.
async fn answer_of(far: &mut DuplexStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    far.read_exact(&mut body).await.unwrap();
    (head, body)
}

#[tokio::test]
async fn requests_come_one_after_another_and_whole_or_in_parts() {
    let (mut far, seen, _stop, _task) = open(64 * 1024);
    for cut in 0..GET.len() {
        // The second request is cut within, and its beginning comes with the first one.
        ask(&mut far, &format!("{GET}{}", &GET[..cut])).await;
        assert_eq!(answer_of(&mut far).await.1, b"small", "{cut}");
        tokio::task::yield_now().await;
        ask(&mut far, &GET[cut..]).await;
        let (head, body) = answer_of(&mut far).await;
        assert_eq!(body, b"small", "{cut}");
        assert!(!head.contains("connection:"), "{head}");
    }
    assert_eq!(seen.lock().unwrap().len(), 2 * GET.len());
}

#[tokio::test]
async fn many_requests_at_once_are_answered_in_order() {
    let (mut far, seen, _stop, _task) = open(64 * 1024);
    ask(&mut far, &GET.repeat(100)).await;
    let mut answers = vec![0; SMALL.len() * 100];
    far.read_exact(&mut answers).await.unwrap();
    assert_eq!(String::from_utf8(answers).unwrap(), SMALL.repeat(100));
    assert_eq!(seen.lock().unwrap().len(), 100);
}

#[tokio::test]
async fn more_than_any_buffer_holds_is_read_to_its_end() {
    let (far, seen, _stop, _task) = open(256 * 1024);
    let (mut answers, mut half) = tokio::io::split(far);
    let first = format!("GET /small HTTP/1.1\r\nhost: a\r\nmuch: {}\r\n\r\n", "x".repeat(1200));
    // Of a length that meets no buffer's.
    let all = first + &"GET /small HTTP/1.1\r\nhost: ab\r\n\r\n".repeat(3000);
    let mut got = vec![0; SMALL.len() * 3001];
    let (sent, read) = tokio::join!(half.write_all(all.as_bytes()), answers.read_exact(&mut got));
    sent.unwrap();
    read.unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), SMALL.repeat(3001));
    assert_eq!(seen.lock().unwrap().len(), 3001);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_two_lengths_is_answered_whole_and_is_the_last() {
    let (mut far, seen, _stop, task) = open(1000);
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let head = format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n", body.len());
    ask(&mut far, &format!("{head}{body}{GET}")).await;
    let (_, long) = answer_of(&mut far).await;
    assert_eq!(long, b"hello".repeat(1000));
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    task.await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(*seen.lock().unwrap(), ["echo"]);
}

#[tokio::test]
async fn an_idle_stream_has_no_room_of_hypers() {
    let (near, mut far) = duplex(1000);
    let (_stop, mut stopped) = watch::channel(false);
    let router = Router::new().route("/small", get(async || "small"));
    ask(&mut far, GET).await;
    let until = (KEEP, Instant::now() + KEEP);
    let back = exchange(Ahead::new(Bytes::new(), Box::new(near)), router, until, &mut stopped).await.unwrap().unwrap();
    assert_eq!(bytes::BytesMut::from(back.ahead).capacity(), 0);
}

#[tokio::test]
async fn a_long_answer_comes_whole_before_the_next_one() {
    let (mut far, _seen, _stop, _task) = open(1000);
    for _ in 0..2 {
        ask(&mut far, "GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        // Waits behind the answer.
        ask(&mut far, GET).await;
        assert_eq!(answer_of(&mut far).await.1, vec![7; LARGE]);
        assert_eq!(answer_of(&mut far).await.1, b"small");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_never_taken_for_a_request() {
    for body in [GET.to_owned(), GET.repeat(2000)] {
        for (path, chunked) in [("whole", false), ("whole", true), ("unread", false), ("unread", true)] {
            let (mut far, seen, _stop, task) = open(1000);
            let sent = if chunked {
                format!("POST /{path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
            } else {
                format!("POST /{path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            };
            let (mut answers, mut half) = tokio::io::split(&mut far);
            let mut got = Vec::new();
            // A connection that was ended takes no more: what the service saw is what counts. One that was not is idle until it ends.
            let _ = tokio::join!(half.write_all(sent.as_bytes()), answers.read_to_end(&mut got));
            task.await.unwrap();
            assert_eq!(*seen.lock().unwrap(), [path], "chunked: {chunked}, {} bytes", body.len());
            assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
    }
}

#[tokio::test]
async fn after_a_body_that_was_read_the_next_request_is_heard() {
    let (mut far, seen, _stop, _task) = open(1000);
    for length in [0, 1, 5000] {
        ask(&mut far, &format!("POST /whole HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{}{GET}", "x".repeat(length))).await;
        assert_eq!(answer_of(&mut far).await.1, length.to_string().as_bytes());
        assert_eq!(answer_of(&mut far).await.1, b"small");
    }
    assert_eq!(seen.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn who_wants_an_end_gets_it_with_the_answer() {
    for request in ["GET /small HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "GET /small HTTP/1.0\r\n\r\n"] {
        let (mut far, seen, _stop, task) = open(10);
        let (mut answers, mut half) = tokio::io::split(&mut far);
        let mut got = String::new();
        let (sent, read) = tokio::join!(half.write_all(request.as_bytes()), answers.read_to_string(&mut got));
        sent.unwrap();
        read.unwrap();
        assert!(got.ends_with("small"), "{got}");
        task.await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn nonsense_is_refused() {
    for before in ["", GET] {
        let (mut far, _seen, _stop, task) = open(1000);
        ask(&mut far, &format!("{before}nonsense\r\n\r\n")).await;
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert!(got.contains("HTTP/1.1 400 Bad Request"), "{got}");
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_ended_in_time_whatever_it_did_before() {
    for before in ["", GET, "GET /small", "GET /small HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"] {
        let (mut far, _seen, _stop, task) = open(1000);
        let began = Instant::now();
        ask(&mut far, before).await;
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        task.await.unwrap();
        let lasted = began.elapsed();
        assert!(lasted >= KEEP && lasted < KEEP + Duration::from_secs(2), "{before}: {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_late_has_no_more_time_for_its_end() {
    let (mut far, seen, _stop, task) = open(1000);
    let began = Instant::now();
    tokio::time::sleep(KEEP - Duration::from_secs(10)).await;
    ask(&mut far, "GET /small").await;
    far.read_to_end(&mut Vec::new()).await.unwrap();
    task.await.unwrap();
    assert!(began.elapsed() < KEEP + Duration::from_secs(2));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_idle_connections_at_once_and_busy_ones_after_their_answer() {
    let (mut idle, _seen, stop, task) = open(1000);
    ask(&mut idle, GET).await;
    answer_of(&mut idle).await;
    let began = Instant::now();
    stop.send(true).unwrap();
    task.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);

    let (mut busy, _seen, stop, task) = open(1000);
    ask(&mut busy, "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.send(true).unwrap();
    let (head, body) = answer_of(&mut busy).await;
    assert_eq!(body, b"slow");
    assert!(head.contains("connection: close"), "{head}");
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_the_rest_of_a_head() {
    for before in ["GE", "GET /small HTTP/1.1\r\nhost: a\r\n\r\nGE"] {
        let (mut far, _seen, stop, task) = open(1000);
        let began = Instant::now();
        ask(&mut far, before).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.send(true).unwrap();
        far.read_to_end(&mut Vec::new()).await.unwrap();
        task.await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(1), "{before}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_hyper_keeps_is_kept_as_long_as_any() {
    let (mut far, _seen, _stop, _task) = open(1000);
    for _ in 0..3 {
        tokio::time::sleep(KEEP - Duration::from_secs(1)).await;
        ask(&mut far, "GET /small HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
        assert_eq!(answer_of(&mut far).await.1, b"small");
    }
}

/// A stream whose flushes and writes are pending a few times each.
struct Hesitant {
    inner: DuplexStream,
    turn: u8,
}

impl Hesitant {
    fn hesitates(&mut self, cx: &Context<'_>) -> bool {
        self.turn = (self.turn + 1) % 4;
        if self.turn != 0 {
            cx.waker().wake_by_ref();
        }
        self.turn != 0
    }
}

impl AsyncRead for Hesitant {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Hesitant {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.hesitates(cx) { Poll::Pending } else { Pin::new(&mut self.inner).poll_write(cx, bytes) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(cx) { Poll::Pending } else { Pin::new(&mut self.inner).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn flushes_that_take_their_time_lose_nothing() {
    let (mut far, _seen, _stop, _task) = open_as(1000, |inner| Hesitant { inner, turn: 0 });
    for _ in 0..5 {
        ask(&mut far, GET).await;
        assert_eq!(answer_of(&mut far).await.1, b"small");
        ask(&mut far, "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
        assert_eq!(answer_of(&mut far).await.1, b"hello".repeat(1000));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_in_pieces_is_whole() {
    for hesitant in [false, true] {
        let (mut far, _seen, _stop, _task) = if hesitant { open_as(1000, |inner| Hesitant { inner, turn: 0 }) } else { open(1000) };
        for _ in 0..3 {
            ask(&mut far, &format!("GET /streamed HTTP/1.1\r\nhost: a\r\n\r\n{GET}")).await;
            let mut got = Vec::new();
            while !got.ends_with(b"\r\n0\r\n\r\n") {
                got.push(far.read_u8().await.unwrap());
            }
            let got = String::from_utf8(got).unwrap();
            assert!(got.ends_with(&format!("\r\n\r\n{}0\r\n\r\n", "5\r\npiece\r\n".repeat(5))), "{got}");
            assert_eq!(answer_of(&mut far).await.1, b"small");
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_is_whole_and_the_next_request_is_heard() {
    let (far, seen, _stop, _task) = open(1000);
    let (mut answers, mut half) = tokio::io::split(far);
    let head = "POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n";
    let asking = async {
        for _ in 0..3 {
            half.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..50 {
                half.write_all(&[b'x'; 100]).await.unwrap();
                tokio::task::yield_now().await;
            }
            half.write_all(GET.as_bytes()).await.unwrap();
        }
    };
    let one = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 5000\r\n\r\n".len() + 5000 + SMALL.len();
    let mut got = vec![0; 3 * one];
    let ((), read) = tokio::join!(asking, answers.read_exact(&mut got));
    read.unwrap();
    assert!(got.chunks(one).all(|one| one.ends_with(SMALL.as_bytes())));
    assert_eq!(*seen.lock().unwrap(), ["early", "small"].repeat(3));
}

#[tokio::test]
async fn heads_alone_and_bodies_that_wait_for_a_word() {
    let (mut far, _seen, _stop, _task) = open(1000);
    for _ in 0..2 {
        ask(&mut far, "HEAD /small HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut head = vec![0; SMALL.len() - "small".len()];
        far.read_exact(&mut head).await.unwrap();
        assert_eq!(head, SMALL.as_bytes()[..head.len()]);
        ask(&mut far, "POST /whole HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
        let mut word = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        far.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
        ask(&mut far, "hello").await;
        assert_eq!(answer_of(&mut far).await.1, b"5");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_not_waited_for() {
    for request in ["", "GE", GET, "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n", "GET /large HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let (mut far, _seen, _stop, task) = open(1000);
        let began = Instant::now();
        ask(&mut far, request).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(far);
        task.await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(1), "{request}");
    }
}
