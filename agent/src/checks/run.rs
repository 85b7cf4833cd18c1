//! One run of one check: a request, a connection, a script.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use skerry_engine::Engine;
use skerry_reconcile::{CheckPlan, CheckRun};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Found, OUTPUT};
use crate::runner::Drivers;

/// The longest head of an answer.
const HEAD: usize = 16 * 1024;

/// Runs it once, within its time.
pub(super) async fn one<E: Engine>(drivers: &Drivers<E>, plan: &CheckPlan) -> Found {
    let limit = plan.timeout.duration().max(Duration::from_millis(1));
    let (passed, output) = match &plan.kind {
        CheckRun::Tcp { address } => {
            within(limit, async { TcpStream::connect(address).await.map(|_| (true, "connected".to_owned())) }).await
        }
        CheckRun::Http { address, method, path, headers, body } => {
            let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
            if !headers.keys().any(|k| k.eq_ignore_ascii_case("user-agent")) {
                head.push_str("User-Agent: skerry-agent\r\n");
            }
            for (key, value) in headers {
                let _ = write!(head, "{key}: {value}\r\n");
            }
            let _ = write!(head, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // One line each: a value from a jobspec must not become two headers.
            if [path, method].into_iter().chain(headers.keys()).chain(headers.values()).any(|t| t.contains(['\r', '\n'])) {
                (false, "a header, or the path, has a line end in it".to_owned())
            } else {
                head.push_str(body);
                within(limit, http(address, head.as_bytes())).await
            }
        }
        CheckRun::Script { instance, command } => script(drivers, instance, command, limit).await,
    };
    Found { passed, output: first_words(&output) }
}

async fn within(limit: Duration, run: impl Future<Output = io::Result<(bool, String)>> + Send) -> (bool, String) {
    match timeout(limit, run).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => (false, error.to_string()),
        Err(_) => (false, format!("no answer within {} ms", limit.as_millis())),
    }
}

/// Sends the request and reads the status and the beginning of the body.
async fn http(address: &str, request: &[u8]) -> io::Result<(bool, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(1024);
    let mut buffer = [0; 1024];
    loop {
        let n = stream.read(&mut buffer).await?;
        answer.extend_from_slice(&buffer[..n]);
        let body = end_of_head(&answer);
        // What an answer without a body announces is not waited for longer than it takes to come.
        if n == 0 || body.is_some_and(|at| answer.len() - at >= OUTPUT || is_whole(&answer[..at], answer.len() - at)) {
            break;
        }
        if body.is_none() && answer.len() > HEAD {
            return Err(io::Error::other("the head of the answer is too long"));
        }
    }
    let head_end = end_of_head(&answer).ok_or_else(|| io::Error::other("this is no answer in HTTP"))?;
    let head = String::from_utf8_lossy(&answer[..head_end]);
    let line = head.lines().next().unwrap_or_default();
    let code: u16 = line
        .strip_prefix("HTTP/1.")
        .and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| io::Error::other("this is no answer in HTTP"))?;
    let reason = line.splitn(3, ' ').nth(2).unwrap_or_default();
    let body = String::from_utf8_lossy(&answer[head_end..]);
    Ok(((200..300).contains(&code), format!("HTTP {code} {reason}: {body}")))
}

fn end_of_head(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Has the whole body of an answer come, by its own word for its length?
fn is_whole(head: &[u8], body: usize) -> bool {
    let head = String::from_utf8_lossy(head);
    let length = head.lines().filter_map(|l| l.split_once(':')).find(|(k, _)| k.eq_ignore_ascii_case("content-length"));
    length.and_then(|(_, v)| v.trim().parse::<usize>().ok()).is_some_and(|n| body >= n)
}

async fn script<E: Engine>(drivers: &Drivers<E>, instance: &str, command: &[String], limit: Duration) -> (bool, String) {
    let ran = if drivers.processes.has(instance) {
        drivers.processes.script(instance, command, limit, OUTPUT).await.map(|r| (r.code, r.output)).map_err(|e| e.to_string())
    } else {
        drivers.engine.exec(instance, command, limit, OUTPUT).await.map(|r| (r.code, r.output)).map_err(|e| e.to_string())
    };
    match ran {
        Ok((code, output)) => (code == 0, format!("exit code {code}: {}", String::from_utf8_lossy(&output))),
        Err(error) => (false, error),
    }
}

/// The beginning, on one line.
fn first_words(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.trim().trim_end_matches(':');
    plain[..plain.floor_char_boundary(OUTPUT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answer(with: &'static str) -> (bool, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(with.as_bytes()).await;
            if with.contains("keep") {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        });
        let found = within(Duration::from_secs(2), http(&address, b"GET / HTTP/1.1\r\n\r\n")).await;
        (found.0, first_words(&found.1))
    }

    #[tokio::test]
    async fn answers_in_http() {
        for (with, passed, said) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: keep\r\n\r\nhi", true, "HTTP 200 OK: hi"),
            ("HTTP/1.0 204 No Content\r\n\r\n", true, "HTTP 204 No Content"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\nnot\nyet", false, "HTTP 503 Service Unavailable: not yet"),
            ("HTTP/1.1 301 Moved\r\n\r\n", false, "HTTP 301 Moved"),
            ("hello", false, "this is no answer in HTTP"),
            ("", false, "this is no answer in HTTP"),
            ("HTTP/1.1 keep", false, "no answer within 2000 ms"),
        ] {
            assert_eq!(answer(with).await, (passed, said.to_owned()), "{with}");
        }
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let (passed, said) = within(Duration::from_secs(2), http(&address, b"")).await;
        assert!(!passed && said.contains("refused"), "{said}");
    }

    #[test]
    fn output_is_bounded() {
        assert_eq!(first_words(&"ü".repeat(1000)).len(), OUTPUT);
        assert_eq!(first_words("a\x1b[2J\nb:"), "a [2J b");
    }
}
