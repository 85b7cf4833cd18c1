//! The listener: accepts, does TLS, hands each connection on, stops in order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection;
use super::pace::{RECORD, at_slowest};
use super::stall::Stall;
use crate::config::Limits;

/// Bytes that may wait in the kernel without having been sent. What is under way is bounded by the other end's receive window alone, so
/// that a long and fast link is filled by whoever makes that large.
const UNSENT: u32 = 32 * 1024;
/// Pause after an error of `accept` that is the machine's (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts until `stop` turns true; then lets requests under way end within `limits.shutdown`.
pub async fn serve(listener: TcpListener, tls: TlsAcceptor, router: Router, limits: Limits, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(usize::try_from(limits.connections).unwrap_or(Semaphore::MAX_PERMITS)));
    let limits = Arc::new(limits);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        // Both arms are cancel-safe: a permit is given back when dropped, and `accept` loses no connection.
        let (permit, accepted) = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
        };
        match accepted {
            Ok((stream, _)) => {
                let (tls, router, limits, stop) = (tls.clone(), router.clone(), Arc::clone(&limits), stop.clone());
                tokio::spawn(async move {
                    accepted_one(stream, tls, router, limits, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Every connection that is served has a permit.
    if tokio::time::timeout(limits.shutdown.duration(), permits.acquire_many(limits.connections)).await.is_err() {
        tracing::warn!("some requests did not end in time and were cut off");
    }
}

async fn accepted_one(stream: TcpStream, tls: TlsAcceptor, router: Router, limits: Arc<Limits>, mut stop: watch::Receiver<bool>) {
    // Small answers go out at once; they are written whole.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    // What waits in the buffer when a link is cut was sent in vain.
    if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "no TCP_NOTSENT_LOWAT");
    }
    // A peer that is gone, or takes nothing, is the kernel's to notice: it alone knows what was confirmed.
    let unconfirmed = u32::try_from(limits.stalled.duration().as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, unconfirmed) {
        tracing::debug!(%error, "no TCP_USER_TIMEOUT");
    }
    // Boxed, as is the stream: the task of a connection that is idle has no room for either.
    let handshake = Box::pin(shaken(stream, tls, Arc::clone(&limits)));
    let stream = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return,
        stream = handshake => stream,
    };
    let Some(stream) = stream else { return };
    connection::serve(stream, router, limits.keep_alive.duration(), stop).await;
}

/// The stream after its handshake.
async fn shaken(stream: TcpStream, tls: TlsAcceptor, limits: Arc<Limits>) -> Option<Box<Stall<TlsStream<TcpStream>>>> {
    match tokio::time::timeout(limits.handshake.duration(), tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            // Room is told of only when what waits has gone, and a record is taken whole.
            let moves = at_slowest(u64::from(UNSENT) + RECORD);
            return Some(Box::new(Stall::new(stream, limits.stalled.duration() + moves)));
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
    None
}
