//! Counts what goes over the wire: every byte of every connection to the server, both ways, TLS included. What TCP and IP add, and what
//! they send again, is not seen here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use tokio::time::{Duration, Instant};
use tower_service::Service;

use super::resolve::Resolver;

/// Bytes sent and received since the agent began. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Bytes so far.
    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// When bytes of one connection came last, whatever they are part of: TLS gives out a record of up to 16 KiB only when it is whole, and
/// on a slow link that takes minutes in which the connection lives. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    began: Instant,
    /// Milliseconds from then.
    last: Arc<AtomicU64>,
}

impl Moved {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last: Arc::default() }
    }

    /// When bytes came last; when the connection was made, if none did.
    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    pub(super) fn now(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }
}

/// Opens connections that are counted.
#[derive(Debug, Clone)]
pub(super) struct Metered {
    tcp: HttpConnector<Resolver>,
    meter: Meter,
}

impl Metered {
    pub(super) fn new(tcp: HttpConnector<Resolver>, meter: Meter) -> Self {
        Self { tcp, meter }
    }
}

type Tcp = <HttpConnector<Resolver> as Service<Uri>>::Response;
type ConnectError = <HttpConnector<Resolver> as Service<Uri>>::Error;

impl Service<Uri> for Metered {
    type Response = Counted;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.tcp.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, meter) = (self.tcp.call(uri), self.meter.clone());
        Box::pin(async move { Ok(Counted { tcp: connecting.await?, meter, moved: Moved::new() }) })
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(super) struct Counted {
    tcp: Tcp,
    meter: Meter,
    moved: Moved,
}

impl Counted {
    fn sent(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.meter.count(*bytes);
        }
        result
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.tcp.connected().extra(self.moved.clone())
    }
}

impl Read for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let room = to.remaining();
        // A part of the caller's buffer, to see how much of it was filled.
        let mut piece = [0; PIECE];
        let mut filled = hyper::rt::ReadBuf::new(&mut piece[..PIECE.min(room)]);
        let result = Pin::new(&mut self.tcp).poll_read(cx, filled.unfilled());
        if let Poll::Ready(Ok(())) = &result {
            self.meter.count(filled.filled().len());
            self.moved.now();
            to.put_slice(filled.filled());
        }
        result
    }
}

/// Bytes read at once.
const PIECE: usize = 8 * 1024;

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.sent(result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, all: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write_vectored(cx, all);
        self.sent(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
