//! One connection: requests one after another, and between them no more memory than its TLS state.
//!
//! In: a stream that is read and written, the service, the time that an idle connection is kept, a word to stop. Promises: requests are
//! answered in their order; the next one is read only from behind the whole body of the one before; a connection that waits holds no
//! buffer of HTTP, unless its client uses HTTP/1.0, chunks, `Connection` or `Upgrade`, or sent a body that nobody read.
//!
//! A fleet keeps a connection per node, idle nearly all the time, and the buffers of hyper would be most of what the server needs. So
//! hyper is given the stream when the first bytes of a request are here, and gives it back, with what it has read too much, when the
//! answer is out.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

/// Bytes of a request's head at most.
const HEAD: usize = 16 * 1024;
/// Bytes that are read of a request before hyper has it: all of what an agent sends when it polls.
const FIRST: usize = 1024;

/// Serves requests until the peer ends, a next request is not there within `keep_alive` with its whole head, or `stop` turns true; a
/// request that is under way then is still answered.
pub(super) async fn serve<S>(mut stream: Box<S>, router: Router, keep_alive: Duration, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut ahead = Bytes::new();
    loop {
        let deadline = Instant::now() + keep_alive;
        if ahead.is_empty() {
            let first = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                first = timeout_at(deadline, first_bytes(&mut stream)) => first,
            };
            match first {
                Ok(Ok(bytes)) if !bytes.is_empty() => ahead = bytes,
                Ok(Err(error)) => return tracing::debug!(%error, "an idle connection broke off"),
                _ => break,
            }
        }
        // Boxed, as is the stream: the task of an idle connection is small.
        match Box::pin(exchange(Ahead::new(ahead, stream), router.clone(), deadline, &mut stop)).await {
            Ok(Some(back)) => (stream, ahead) = (back.stream, back.ahead),
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "a connection broke off"),
        }
    }
    if let Err(error) = stream.shutdown().await {
        tracing::debug!(%error, "a connection did not end in order");
    }
}

/// What comes first; nothing at the end of the stream. Cancel-safe: what was read is given out at once.
async fn first_bytes<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Bytes> {
    poll_fn(|cx| {
        // On the stack of the poll alone: no memory while it is pending.
        let mut space = [0; FIRST];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

/// Lets hyper serve what has begun, whose head must be here by `deadline`, and more requests where they come at once or where only hyper
/// knows how to go on. The stream, when it waits for a next request; nothing when it is closed.
async fn exchange<S>(
    io: Ahead<S>,
    router: Router,
    deadline: Instant,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Ahead<S>>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let last = Arc::new(Mutex::new(Arc::new(Course::default())));
    let service = {
        let last = Arc::clone(&last);
        service_fn(move |request: Request<Incoming>| {
            let course = Arc::new(Course::of(&request));
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&course);
            Box::pin(answer(request, router.clone(), course))
        })
    };
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper starts this clock anew after each answer: it is also how long it keeps an idle connection that it does not give back.
        .header_read_timeout(deadline.saturating_duration_since(Instant::now()))
        .max_buf_size(HEAD)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let (mut stopping, mut giving_back) = (false, false);
    poll_fn(|cx| {
        loop {
            if giving_back {
                return served.poll_without_shutdown(cx);
            }
            if let Poll::Ready(ended) = Pin::new(&mut served).poll(cx) {
                return Poll::Ready(ended);
            }
            if !stopping && stopped.as_mut().poll(cx).is_ready() {
                stopping = true;
            } else if !stopping && last.lock().unwrap_or_else(PoisonError::into_inner).may_give_back() {
                // The head of the answer is encoded, so this adds no `Connection: close` to it: hyper ends when all is flushed.
                giving_back = true;
            } else {
                return Poll::Pending;
            }
            Pin::new(&mut served).graceful_shutdown();
        }
    })
    .await?;
    if !giving_back {
        return Ok(None);
    }
    let parts = served.into_parts();
    let Ahead { ahead, stream, flushed } = parts.io.into_inner();
    if !flushed {
        // hyper does not end before; were it to, the answer would go on with the next one's beginning.
        tracing::error!("an answer was not sent to its end");
        return Ok(None);
    }
    // hyper has read what comes first. Copied: an empty buffer of hyper's still has its room.
    let ahead = if ahead.is_empty() { Bytes::copy_from_slice(&parts.read_buf) } else { [parts.read_buf, ahead].concat().into() };
    Ok(Some(Ahead::new(ahead, stream)))
}

async fn answer(request: Request<Incoming>, mut router: Router, course: Arc<Course>) -> Result<Response<Body>, Infallible> {
    let request = request.map(|inner| Heard { inner, broken: false, course: Arc::clone(&course) });
    let answer = Service::call(&mut router, request).await;
    if let Ok(response) = &answer {
        course.answers(response);
    }
    answer
}

/// How far a request has come. Told by the service and by its body, which may be in another task.
#[derive(Debug, Default)]
struct Course {
    /// Nothing in request or answer could make hyper end the connection.
    plain: AtomicBool,
    /// The body of the request was read to its end.
    heard: AtomicBool,
    /// The answer is with hyper.
    answered: AtomicBool,
}

impl Course {
    fn of(request: &Request<Incoming>) -> Self {
        // With a transfer encoding *and* a length, which hyper hides from us, it ends the connection: RFC 9112, section 6.1.
        let plain = request.version() == Version::HTTP_11
            && request.method() != Method::CONNECT
            && !request.headers().contains_key(header::TRANSFER_ENCODING)
            && !speaks_of_connection(request.headers());
        Self { plain: plain.into(), heard: request.body().is_end_stream().into(), answered: false.into() }
    }

    fn answers(&self, response: &Response<Body>) {
        if speaks_of_connection(response.headers()) {
            self.plain.store(false, SeqCst);
        }
        self.answered.store(true, SeqCst);
    }

    /// With a body that was not read to its end hyper goes on: it knows where the next request would begin, or ends the connection.
    fn may_give_back(&self) -> bool {
        self.answered.load(SeqCst) && self.heard.load(SeqCst) && self.plain.load(SeqCst)
    }
}

/// Whatever it says: agents send no such header.
fn speaks_of_connection(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONNECTION) || headers.contains_key(header::UPGRADE)
}

/// A body that tells when it was read to its end.
struct Heard {
    inner: Incoming,
    /// What comes after an error is not its end.
    broken: bool,
    course: Arc<Course>,
}

impl HttpBody for Heard {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        self.broken |= matches!(frame, Some(Err(_)));
        if !self.broken && (frame.is_none() || self.inner.is_end_stream()) {
            self.course.heard.store(true, SeqCst);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A stream of which some bytes were read ahead: they come first.
struct Ahead<S> {
    ahead: Bytes,
    stream: Box<S>,
    /// Nothing was written since the last flush that ended, and the stream was not shut down.
    flushed: bool,
}

impl<S> Ahead<S> {
    fn new(ahead: Bytes, stream: Box<S>) -> Self {
        Self { ahead, stream, flushed: true }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut *self.stream).poll_read(cx, buffer);
        }
        let now = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.flushed = false;
        Pin::new(&mut *self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.flushed = false;
        Pin::new(&mut *self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut *self.stream).poll_flush(cx);
        self.flushed = matches!(result, Poll::Ready(Ok(())));
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = false;
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    const KEEP: Duration = Duration::from_secs(150);
    const LARGE: usize = 3_000_000;
    const GET: &str = "GET /small HTTP/1.1\r\nhost: a\r\n\r\n";
    const SMALL: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\r\nsmall";

    type Seen = Arc<Mutex<Vec<String>>>;

    /// A connection on a pipe of `room` bytes; what the service saw; a word to stop.
    fn open(room: usize) -> (DuplexStream, Seen, watch::Sender<bool>, JoinHandle<()>) {
        let (near, far) = duplex(room);
        let seen = Seen::default();
        let note = |what: &'static str| {
            let seen = Arc::clone(&seen);
            move || seen.lock().unwrap().push(what.to_owned())
        };
        let (small, large, whole, unread, slow, echo) =
            (note("small"), note("large"), note("whole"), note("unread"), note("slow"), note("echo"));
        let router = Router::new()
            .route(
                "/echo",
                post(async move |body: Bytes| {
                    echo();
                    body.repeat(1000)
                }),
            )
            .route(
                "/small",
                get(async move || {
                    small();
                    "small"
                }),
            )
            .route(
                "/large",
                get(async move || {
                    large();
                    vec![7_u8; LARGE]
                }),
            )
            .route(
                "/whole",
                post(async move |body: Bytes| {
                    whole();
                    format!("{}", body.len())
                }),
            )
            .route(
                "/unread",
                post(async move |_: Body| {
                    unread();
                    "unread"
                }),
            )
            .route(
                "/slow",
                get(async move || {
                    slow();
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    "slow"
                }),
            );
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(Box::new(near), router, KEEP, stopped));
        (far, seen, stop, task)
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
        (sent.unwrap(), read.unwrap());
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
        let deadline = Instant::now() + KEEP;
        let back = exchange(Ahead::new(Bytes::new(), Box::new(near)), router, deadline, &mut stopped).await.unwrap().unwrap();
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
            (sent.unwrap(), read.unwrap());
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
}
