//! The body of an answer as it comes: it ends, breaks off, or stands still for too long.
//!
//! In: a body, and when bytes came over its connection. Out: its bytes. One that moves is never cut, however slowly; what bounds a whole
//! exchange is [`client`](super::client)'s.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::{CallError, LOST, reasons};
use super::meter::Moved;
use super::reach::{Reach, counts};

/// Without a byte on a body's connection: four times that a segment is lost in a row on a round trip of 600 ms.
const STALL: Duration = Duration::from_secs(15);

/// Where a body comes from.
#[derive(Debug)]
pub(super) enum Body {
    Http(Incoming),
    #[cfg(feature = "simulation")]
    Played(Box<dyn crate::simulate::Body>),
}

impl Body {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, String>> {
        match self {
            Self::Http(body) => Some(body.frame().await?.map_err(|error| reasons(&error))),
            #[cfg(feature = "simulation")]
            Self::Played(body) => Some(body.next().await?.map(Frame::data)),
        }
    }
}

/// The body of a file under way.
#[derive(Debug)]
pub(crate) struct Download {
    body: Body,
    from: u64,
    stall: Duration,
    /// When bytes came over its connection; none on a link that is played.
    moved: Option<Moved>,
    lost: watch::Receiver<u64>,
    reach: Reach,
    server: String,
}

impl Download {
    pub(super) fn new(body: Body, from: u64, moved: Option<Moved>, reach: Reach, server: String) -> Self {
        Self { body, from, stall: STALL, moved, lost: reach.lost(), reach, server }
    }

    /// Offset in the file of the first byte that comes.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// The next bytes; none at the end of the body, which may come too early. Dropping the future loses nothing: what it had not
    /// given out stays in the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let next = self.next_frame().await;
        if next.is_err() {
            self.reach.failed();
        }
        next
    }

    async fn next_frame(&mut self) -> Result<Option<Bytes>, CallError> {
        let mut deadline = Instant::now() + self.stall;
        loop {
            let link = |reason: String| CallError::Link { server: self.server.clone(), reason };
            // Cancel-safe: a frame stays in the body until it is given out, and a watch keeps its change.
            let frame = tokio::select! {
                biased;
                frame = tokio::time::timeout_at(deadline, self.body.frame()) => frame,
                () = counts(&mut self.lost) => return Err(link(LOST.to_owned())),
            };
            let Ok(frame) = frame else {
                // What came is part of a frame that is not whole yet.
                if let Some(moved) = self.moved.as_ref().map(Moved::last).filter(|last| *last + self.stall > Instant::now()) {
                    deadline = moved + self.stall;
                    continue;
                }
                return Err(CallError::TimedOut { server: self.server.clone(), what: "receiving", after: self.stall });
            };
            match frame {
                None => return Ok(None),
                Some(Err(reason)) => return Err(link(reason)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    // Trailers, or nothing: neither is progress.
                    _ => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The body of an answer whose bytes `write` gives, on a connection that `moved` tells of.
    async fn answered<F>(moved: Moved, stall: Duration, write: impl FnOnce(tokio::io::DuplexStream) -> F + Send + 'static) -> Download
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        tokio::spawn(async move {
            // An answer before its question would be refused.
            far.read_exact(&mut [0; 1]).await.unwrap();
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.unwrap();
            write(far).await;
        });
        let request = http::Request::get("/").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let download = Download::new(Body::Http(response.into_body()), 0, Some(moved), Reach::new(), "server".to_owned());
        Download { stall, ..download }
    }

    /// Twice as long as a stall, and never still for a quarter of one.
    #[tokio::test]
    async fn a_record_that_takes_longer_than_a_stall_is_waited_for_while_it_moves() {
        let moved = Moved::new();
        let seen = moved.clone();
        let mut download = answered(moved, Duration::from_secs(4), |mut far| async move {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                seen.now();
            }
            far.write_all(b"full").await.unwrap();
        })
        .await;
        assert_eq!(download.next().await.unwrap().as_deref(), Some(&b"full"[..]));
    }

    #[tokio::test]
    async fn a_connection_that_stands_still_ends() {
        let moved = Moved::new();
        let seen = moved.clone();
        let mut download = answered(moved, Duration::from_millis(200), |far| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            seen.now();
            std::future::pending::<()>().await;
            drop(far);
        })
        .await;
        let error = download.next().await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    }
}
