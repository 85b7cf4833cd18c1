//! Bodies of requests under a least rate: one that moves is not cut, however long it is on its way; one that stands still, or trickles,
//! ends.
//!
//! In: a body. Out: the same, and a word when it has ended, one way or the other. TLS gives out a record only when all of it is here, so
//! that on a slow link nothing is seen for minutes though it moves: each figure has room for one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// Bytes per second of the slowest link that is served: half of what agents reckon with, so that it is they who give up.
const SLOWEST: u64 = 125;
/// Bytes of the longest TLS record.
pub(super) const RECORD: u64 = 16 * 1024;
/// No body takes longer, however steadily it trickles. Agents give up then, too.
pub(super) const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How long the slowest link needs for so many bytes.
pub(super) fn at_slowest(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST)
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is here, it broke off, or nobody wants it.
    Here,
    /// It was too slow.
    Late,
}

/// A body that ends with an error when it is too slow.
#[derive(Debug)]
pub(super) struct Paced {
    inner: Body,
    /// Until the first bytes.
    grace: Duration,
    /// Between two of its pieces.
    stalled: Duration,
    began: Instant,
    seen: u64,
    timer: Pin<Box<Sleep>>,
    ended: Option<oneshot::Sender<End>>,
}

impl Paced {
    /// `grace` is what any body may take; `stalled` how long it may stand still.
    pub(super) fn new(inner: Body, grace: Duration, stalled: Duration) -> (Self, oneshot::Receiver<End>) {
        let (ended, end) = oneshot::channel();
        let began = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(began));
        let mut body = Self { inner, grace, stalled, began, seen: 0, timer, ended: Some(ended) };
        body.came(0);
        (body, end)
    }

    fn came(&mut self, bytes: u64) {
        self.seen = self.seen.saturating_add(bytes);
        if self.inner.is_end_stream() {
            self.end(End::Here);
        }
        let by_rate = self.began + self.grace + at_slowest(self.seen.saturating_add(RECORD));
        let by_silence = Instant::now() + self.stalled + at_slowest(RECORD);
        self.timer.as_mut().reset(by_rate.min(by_silence).min(self.began + LONGEST));
    }

    fn end(&mut self, how: End) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(how);
        }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.came(frame.data_ref().map_or(0, |bytes| bytes.len() as u64));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => {
                self.end(End::Here);
                Poll::Ready(other.map(|result| result.map_err(Into::into)))
            }
            Poll::Pending if self.timer.as_mut().poll(cx).is_ready() => {
                self.end(End::Late);
                Poll::Ready(Some(Err("the body came too slowly".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use std::convert::Infallible;

    const GRACE: Duration = Duration::from_secs(30);
    const STALLED: Duration = Duration::from_secs(60);

    /// Pieces of `size` bytes, one every `every`, for ever.
    fn trickle(size: usize, every: Duration) -> Body {
        Body::from_stream(futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some((Ok::<_, Infallible>(Bytes::from(vec![0; size])), ()))
        }))
    }

    /// Reads until `enough` bytes came or it ended; says how many came, after how long, and how it ended.
    async fn read(body: Body, enough: usize) -> (usize, Duration, Option<End>) {
        let began = Instant::now();
        let (paced, mut end) = Paced::new(body, GRACE, STALLED);
        let mut stream = Body::new(paced).into_data_stream();
        let mut seen = 0;
        while seen < enough {
            match stream.next().await {
                Some(Ok(piece)) => seen += piece.len(),
                _ => break,
            }
        }
        (seen, began.elapsed(), end.try_recv().ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_moves_is_not_cut() {
        // Two kbit/s, in pieces as TLS gives them out: longer than any fixed limit of a request.
        let (seen, took, end) = read(trickle(16 * 1024, Duration::from_secs(65)), 128 * 1024).await;
        assert_eq!((seen, end), (128 * 1024, None));
        assert!(took > Duration::from_secs(500), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_still_or_trickles_is_bounded() {
        for (size, every_s, at_most_s) in [
            // Nothing ever comes.
            (1, 1_000_000, 30 + 131),
            // A byte a second keeps no connection.
            (1, 1, 200),
            // Much, but too late.
            (1 << 20, 300, 30 + 131),
            // However much, however steadily.
            (1 << 20, 20, 15 * 60),
        ] {
            let (_, took, end) = read(trickle(size, Duration::from_secs(every_s)), usize::MAX).await;
            assert_eq!(end, Some(End::Late), "{size} bytes every {every_s} s");
            assert!(took <= Duration::from_secs(at_most_s), "{size} bytes every {every_s} s: {took:?}");
        }
    }

    /// What came before does not buy hours of silence.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_falls_silent_is_bounded() {
        let much = futures_util::stream::once(async { Ok::<_, Infallible>(Bytes::from(vec![0; 1 << 20])) });
        let (seen, took, end) = read(Body::from_stream(much.chain(futures_util::stream::pending())), usize::MAX).await;
        assert_eq!((seen, end), (1 << 20, Some(End::Late)));
        assert!(took <= Duration::from_secs(60 + 132), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_here_or_unwanted_ends_at_once() {
        assert_eq!(Paced::new(Body::empty(), GRACE, STALLED).1.await, Ok(End::Here));
        let (paced, end) = Paced::new(trickle(1, Duration::from_secs(1)), GRACE, STALLED);
        drop(paced);
        assert!(end.await.is_err(), "nobody waits for it any more");
        let (paced, end) = Paced::new(Body::from("all"), GRACE, STALLED);
        assert_eq!(crate::http::body::read(Body::new(paced), 10).await.unwrap(), "all");
        assert_eq!(end.await, Ok(End::Here));
    }
}
