//! One connection: requests one after another, and between them little more memory than its TLS state.
//!
//! In: a stream that is read and written, the service, the time that an idle connection is kept, a word to stop. Promises: requests are
//! answered in their order; the next one is read only from behind the whole body of the one before; a connection that waits holds no
//! buffer of HTTP, unless its client uses HTTP/1.0, chunks, `Connection` or `Upgrade`, sent a body that was not read before the answer, or
//! has begun its next request.
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
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
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
        match Box::pin(exchange(Ahead::new(ahead, stream), router.clone(), (keep_alive, deadline), &mut stop)).await {
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
/// knows how to go on; those have `keep_alive` each. The stream, when it waits for a next request; nothing when it is closed.
async fn exchange<S>(
    io: Ahead<S>,
    router: Router,
    (keep_alive, deadline): (Duration, Instant),
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Ahead<S>>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let last = Arc::new(Mutex::new(None::<Arc<Course>>));
    let service = {
        let last = Arc::clone(&last);
        service_fn(move |request: Request<Incoming>| {
            let course = Arc::new(Course::of(&request));
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&course));
            Box::pin(answer(request, router.clone(), course))
        })
    };
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper starts this clock anew after each answer: it is also how long it keeps an idle connection that it does not give back.
        .header_read_timeout(keep_alive)
        .max_buf_size(HEAD)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut late = pin!(sleep_until(deadline));
    let (mut stopping, mut giving_back, mut no_request) = (false, false, false);
    poll_fn(|cx| {
        loop {
            if giving_back {
                return served.poll_without_shutdown(cx);
            }
            if let Poll::Ready(ended) = Pin::new(&mut served).poll(cx) {
                return Poll::Ready(ended);
            }
            let course = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let stops_now = !stopping && stopped.as_mut().poll(cx).is_ready();
            let Some(course) = course else {
                no_request = stops_now || late.as_mut().poll(cx).is_ready();
                return if no_request { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            if stops_now {
                stopping = true;
            } else if !stopping && course.may_give_back() {
                // The head of the answer is encoded, so this adds no `Connection: close` to it: hyper ends when all is flushed. Should what
                // follows be no request, the peer may not get all of the answer that says so.
                giving_back = true;
            } else {
                return Poll::Pending;
            }
            Pin::new(&mut served).graceful_shutdown();
        }
    })
    .await?;
    if !giving_back && !no_request {
        return Ok(None);
    }
    let parts = served.into_parts();
    let Ahead { ahead, mut stream, flushed, shut } = parts.io.into_inner();
    if no_request {
        let _ = stream.shutdown().await;
        return Ok(None);
    }
    if shut {
        return Ok(None);
    }
    if !flushed {
        // With a body that was read before the answer hyper does not end before. Were it to, the next answer would be spliced into this one.
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
#[derive(Debug)]
struct Course {
    /// Nothing in request or answer could make hyper end the connection.
    plain: AtomicBool,
    /// The body of the request was read to its end: hyper is done with reading.
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
        let plain = response.version() == Version::HTTP_11
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
            && !speaks_of_connection(response.headers());
        // With a body that was not read to its end by now hyper goes on: it knows where the next request would begin, or ends the connection.
        if !plain || !self.heard.load(SeqCst) {
            self.plain.store(false, SeqCst);
        }
        self.answered.store(true, SeqCst);
    }

    fn may_give_back(&self) -> bool {
        self.answered.load(SeqCst) && self.plain.load(SeqCst)
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
    /// Nothing was written since the last flush that ended.
    flushed: bool,
    /// Its end was told to the peer, or was to be.
    shut: bool,
}

impl<S> Ahead<S> {
    fn new(ahead: Bytes, stream: Box<S>) -> Self {
        Self { ahead, stream, flushed: true, shut: false }
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
        self.shut = true;
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
