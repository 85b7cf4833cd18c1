//! What the server does about slow links: a body that moves is waited for, a handshake that stands still is not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use skerry_server::config::Span;
use skerry_trust::envelope;
use skerry_wire::poll::PollRequest;
use support::TestServer;
use support::node::{TestNode, connect};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Limits that every body of this test takes longer than.
const LIMIT: Span = Span::secs(1);

/// A poll whose body takes three times as long as a request may: over a few kbit/s it would never get through otherwise.
#[tokio::test]
async fn a_poll_over_a_slow_link_is_answered() {
    let server = TestServer::start_with(|config| {
        config.limits.request = LIMIT;
        config.limits.stalled = LIMIT;
    })
    .await;
    let folder = server.folder.path();
    let mut node = TestNode::new(folder, "slow");
    node.enrol(&server.url, &TestNode::token(folder)).await.unwrap();
    let message = node.next();
    let body = envelope::seal(&node.key, PollRequest::PURPOSE, &message);
    let length = body.len();
    let pieces: Vec<Bytes> = body.chunks(length.div_ceil(10)).map(Bytes::copy_from_slice).collect();
    let stream = futures_util::stream::unfold(pieces.into_iter(), |mut left| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        left.next().map(|piece| (Ok::<_, Infallible>(Frame::data(piece)), left))
    });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connect(folder, &server.url).await)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/agent/v1/poll").header("host", "127.0.0.1").header("content-length", length);
    let request = request.body(BodyExt::boxed_unsync(StreamBody::new(stream))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200, "{:?}", response.into_body().collect().await.unwrap().to_bytes());
    server.stop().await;
}

/// Who opens a connection and says nothing is sent away.
#[tokio::test]
async fn a_handshake_that_stands_still_is_bounded() {
    let server = TestServer::start_with(|config| config.limits.handshake = LIMIT).await;
    let mut stream = TcpStream::connect(server.url.strip_prefix("https://").unwrap()).await.unwrap();
    // The end of the connection, however it comes; a server that waits for ever fails the test by its own limit.
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    server.stop().await;
}
