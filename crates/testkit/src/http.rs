//! A plain HTTP GET in a bounded time, as a probe needs it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Largest answer that is read.
const LIMIT: u64 = 1 << 20;

/// Gets `path` from `address` over HTTP/1.0; all of it within `limit`.
///
/// # Errors
/// When there is no answer in time, or it is not a 200.
pub fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let end = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&address, limit).context("connect")?;
    stream.set_write_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("send")?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || answer.len() as u64 > LIMIT {
            bail!("no whole answer within {} ms", limit.as_millis());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("receive"),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no header")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("status {status}");
    }
    Ok(body.to_owned())
}
