//! HTTP to the one server: few headers, one kept connection, and an end to every wait.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use skerry_trust::TimeBound;
use skerry_wire::api::ApiError;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::tls::{self, TlsError};

/// Until a TCP connection stands.
const CONNECT: Duration = Duration::from_secs(20);
/// From the request to the head of the answer, connecting and TLS included: several round trips of 600 ms with losses.
const HEAD: Duration = Duration::from_secs(60);
/// Without a byte of a body.
const STALL: Duration = Duration::from_secs(30);
/// A whole exchange, however steadily it trickles; a bundle's body has no such end.
const WHOLE: Duration = Duration::from_secs(15 * 60);
/// Data sent and not confirmed by the other end's kernel: the connection is dead.
const UNCONFIRMED: Duration = Duration::from_secs(45);
/// A connection without use is closed before a NAT on the way forgets it. Above the usual poll interval of a minute.
const IDLE: Duration = Duration::from_secs(100);
/// The most of a body that is read before it is handed on, and of a head.
const READ_BUFFER: usize = 32 * 1024;
/// The longest error body that is read.
const ERROR_BODY: usize = 16 * 1024;

/// Why a call to the server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No connection, or it broke.
    #[error("{server}: {reason}")]
    Link {
        /// The server's URL.
        server: String,
        /// What the system, TLS or HTTP says.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("{server}: no answer within {after:?} while {what}")]
    TimedOut {
        /// The server's URL.
        server: String,
        /// What was awaited.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The server answered that it will not.
    #[error("{server} refused: {} ({status}, {})", .error.message, .error.code)]
    Refused {
        /// The server's URL.
        server: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        error: ApiError,
    },
    /// Longer than it may be.
    #[error("{server}: the answer is longer than the {limit} bytes that it may have")]
    TooLong {
        /// The server's URL.
        server: String,
        /// Bytes allowed.
        limit: usize,
    },
}

impl CallError {
    /// The server's word for why it refused; empty when it did not.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { error, .. } => &error.code,
            _ => "",
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server's URL is no good.
    #[error("server URL `{url}`: {why}; expected https://HOST or https://HOST:PORT")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The client of the one server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// `https://HOST:PORT`, without a slash at its end.
    server: String,
    /// A link that is played, in place of the network.
    #[cfg(feature = "simulation")]
    link: Option<std::sync::Arc<dyn crate::simulate::Link>>,
}

impl Client {
    /// A client of `server`. `receive_window` bounds what the kernel takes before the agent has it: what a cut can cost.
    pub(crate) fn new(server: &str, ca_pem: &[u8], receive_window: usize, time: watch::Receiver<TimeBound>) -> Result<Self, ClientError> {
        let refuse = |why: &str| ClientError::Url { url: server.to_owned(), why: why.to_owned() };
        let uri: Uri = server.parse().map_err(|e: http::uri::InvalidUri| refuse(&e.to_string()))?;
        if uri.scheme_str() != Some("https") {
            return Err(refuse("it does not begin with https://"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("it has no host"))?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("it has more than a host and a port"));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_recv_buffer_size(Some(receive_window));
        tcp.set_tcp_user_timeout(Some(UNCONFIRMED));
        tcp.set_keepalive(None);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls::config(ca_pem, time)?).https_only().enable_http1().wrap_connector(tcp);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .http1_max_buf_size(READ_BUFFER)
            .build(connector);
        Ok(Self {
            http,
            server: format!("https://{authority}"),
            #[cfg(feature = "simulation")]
            link: None,
        })
    }

    /// The same over a link that is played.
    #[cfg(feature = "simulation")]
    pub(crate) fn over(self, link: std::sync::Arc<dyn crate::simulate::Link>) -> Self {
        Self { link: Some(link), ..self }
    }

    /// The server's URL.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Posts a body and gives the body of the answer, of at most `limit` bytes.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, CallError> {
        #[cfg(feature = "simulation")]
        if let Some(link) = &self.link {
            let answer = timeout(HEAD, link.post(path, body)).await.map_err(|_| self.timed_out("waiting for an answer", HEAD))?;
            return answer.map_err(|error| self.played(error));
        }
        let request = self.request(Method::POST, path, body)?;
        let whole = async {
            let response = self.send(request).await?;
            let response = self.successful(response, &[StatusCode::OK]).await?;
            self.collect(response.into_body(), limit).await
        };
        timeout(WHOLE, whole).await.map_err(|_| self.timed_out("answering a request", WHOLE))?
    }

    /// Gets the bytes `from..to` of a file, to its end when `to` is none. The answer may begin elsewhere ([`Download::from`]).
    pub(crate) async fn get_range(&self, path: &str, from: u64, to: Option<u64>) -> Result<Download, CallError> {
        #[cfg(feature = "simulation")]
        if let Some(link) = &self.link {
            let answer = timeout(HEAD, link.get(path, from, to)).await.map_err(|_| self.timed_out("waiting for an answer", HEAD))?;
            let (body, from) = answer.map_err(|error| self.played(error))?;
            return Ok(Download { body: Body::Played(body), from, server: self.server.clone() });
        }
        let mut request = self.request(Method::GET, path, Vec::new())?;
        if from > 0 || to.is_some() {
            let last = to.map_or(String::new(), |to| to.saturating_sub(1).to_string());
            let range = HeaderValue::try_from(format!("bytes={from}-{last}")).expect("digits are a header value");
            request.headers_mut().insert(RANGE, range);
        }
        let response = self.send(request).await?;
        let response = self.successful(response, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT]).await?;
        // A server, or a proxy on the way, may pass over the range and send the whole file, or another range.
        let from = if response.status() == StatusCode::PARTIAL_CONTENT { range_start(&response).unwrap_or(from) } else { 0 };
        Ok(Download { body: Body::Http(response.into_body()), from, server: self.server.clone() })
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, CallError> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.link(&e.to_string()))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError> {
        let answer = timeout(HEAD, self.http.request(request)).await.map_err(|_| self.timed_out("waiting for an answer", HEAD))?;
        answer.map_err(|error| self.link(&reasons(&error)))
    }

    /// Passes the answer on when its status is one of these, else reads what the server says.
    async fn successful(&self, response: Response<Incoming>, statuses: &[StatusCode]) -> Result<Response<Incoming>, CallError> {
        let status = response.status();
        if statuses.contains(&status) {
            return Ok(response);
        }
        let body = self.collect(response.into_body(), ERROR_BODY).await.unwrap_or_default();
        let error = serde_json::from_slice(&body).unwrap_or_else(|_| ApiError {
            code: "unknown".to_owned(),
            message: format!("it answered {status}"),
            hint: None,
        });
        Err(CallError::Refused { server: self.server.clone(), status: status.as_u16(), error })
    }

    async fn collect(&self, body: Incoming, limit: usize) -> Result<Vec<u8>, CallError> {
        let mut download = Download { body: Body::Http(body), from: 0, server: self.server.clone() };
        let mut all = BytesMut::new();
        while let Some(bytes) = download.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(CallError::TooLong { server: self.server.clone(), limit });
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    fn link(&self, reason: &str) -> CallError {
        CallError::Link { server: self.server.clone(), reason: reason.to_owned() }
    }

    #[cfg(feature = "simulation")]
    fn played(&self, error: crate::simulate::LinkError) -> CallError {
        match error {
            crate::simulate::LinkError::Broken(reason) => self.link(&reason),
            crate::simulate::LinkError::Refused(status, code) => {
                let error = ApiError { code: code.to_owned(), message: code.to_owned(), hint: None };
                CallError::Refused { server: self.server.clone(), status, error }
            }
        }
    }

    fn timed_out(&self, what: &'static str, after: Duration) -> CallError {
        CallError::TimedOut { server: self.server.clone(), what, after }
    }
}

/// The first offset in `content-range: bytes A-B/SIZE`.
fn range_start(response: &Response<Incoming>) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// Where a body comes from.
#[derive(Debug)]
enum Body {
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
    server: String,
}

impl Download {
    /// Offset in the file of the first byte that comes.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// The next bytes; none at the end of the body, which may come too early. Dropping the future loses nothing: what it had not
    /// given out stays in the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let deadline = Instant::now() + STALL;
        loop {
            let frame = tokio::time::timeout_at(deadline, self.body.frame());
            let frame = frame.await.map_err(|_| CallError::TimedOut { server: self.server.clone(), what: "receiving", after: STALL })?;
            match frame {
                None => return Ok(None),
                Some(Err(reason)) => return Err(CallError::Link { server: self.server.clone(), reason }),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    // Trailers, or nothing: neither is progress.
                    _ => {}
                },
            }
        }
    }
}

/// An error with its causes, the outermost first, without saying the same twice.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let mut more = error.to_string();
        // rustls explains this one at length; for us it is the ordinary way of a link to break.
        if more.contains("without sending TLS close_notify") {
            more = "the connection was cut".to_owned();
        }
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::Timestamp;

    #[test]
    fn only_plain_https_urls() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let (_keep, time) = watch::channel(TimeBound::new(Timestamp(0), None));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        for (url, good) in [
            ("https://server.example", true),
            ("https://192.0.2.1:4646/", true),
            ("https://[2001:db8::1]:4646", true),
            ("http://server.example", false),
            ("server.example", false),
            ("https://server.example/base", false),
            ("https://me:pass@server.example", false),
            ("", false),
        ] {
            assert_eq!(Client::new(url, ca.as_bytes(), 65536, time.clone()).is_ok(), good, "{url}");
        }
    }
}
