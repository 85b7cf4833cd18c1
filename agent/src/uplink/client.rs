//! HTTP to the one server: few headers, one kept connection, and an end to every wait.
//!
//! Waits end in seconds, for a link that is back is noticed only by trying anew; a try that ended costs a handshake, and no byte of a
//! bundle. Where the kernel says that the address of the connections is gone, they end at once.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_RANGE, RANGE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{HttpConnector, HttpInfo};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use skerry_trust::TimeBound;
use skerry_wire::api::ApiError;
use skerry_wire::limits;
use tokio::sync::watch;
use tokio::time::timeout;

use super::download::{Body, Download};
use super::meter::{Meter, Metered, Moved};
use super::reach::{Reach, counts};
use super::resolve::Resolver;
use super::tls::{self, TlsError};
#[cfg(feature = "simulation")]
use crate::simulate::LinkError;

/// Until a TCP connection stands. The kernel asks at 0, 1, 3 and 7 seconds; then a new try is sooner than its next one.
const CONNECT: Duration = Duration::from_secs(10);
/// From the request to the head of the answer, connecting and TLS included: several round trips of 600 ms with losses. A body that is
/// sent gets more, see [`head_limit`].
const HEAD: Duration = Duration::from_secs(30);
/// Bytes per second of the slowest link that a handshake and a request's body must pass.
const SLOWEST: u64 = 250;
/// Bytes of a TLS handshake and of an answer's head.
const HANDSHAKE: usize = 4 * 1024;
/// A whole exchange, however steadily it trickles; a bundle's body has no such end.
const WHOLE: Duration = Duration::from_secs(15 * 60);
/// Data sent and not confirmed by the other end's kernel: the connection is dead.
const UNCONFIRMED: Duration = Duration::from_secs(20);
/// A connection without use is closed before a NAT on the way forgets it.
const IDLE: Duration = Duration::from_secs(limits::KEPT_CONNECTION_S);
/// The most of a body that is read before it is handed on, and of a head.
const READ_BUFFER: usize = 32 * 1024;
/// The longest wait that a server is believed to want.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// The longest error body that is read.
const ERROR_BODY: usize = 16 * 1024;

/// Why connections end at once.
pub(super) const LOST: &str = "the address that this node had is gone";

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
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
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

    /// How long the server wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
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

type Connector = HttpsConnector<Metered>;
type Http = hyper_util::client::legacy::Client<Connector, Full<Bytes>>;

/// Replaced when its connections are of no use any more.
#[derive(Debug)]
struct Kept {
    http: Http,
    /// What [`Reach::lost`] counted when it was made.
    lost: u64,
}

/// The client of the one server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    kept: Arc<Mutex<Kept>>,
    connector: Connector,
    resolver: Resolver,
    reach: Reach,
    /// `https://HOST:PORT`, without a slash at its end.
    server: String,
    /// The server's name or address.
    host: String,
    /// A link that is played, in place of the network.
    #[cfg(feature = "simulation")]
    link: Option<Arc<dyn crate::simulate::Link>>,
}

impl Client {
    /// A client of `server`, whose bytes `meter` counts. `receive_window` bounds what the kernel takes before the agent has it: what a cut can cost.
    pub(crate) fn new(
        server: &str,
        ca_pem: &[u8],
        receive_window: usize,
        time: watch::Receiver<TimeBound>,
        meter: Meter,
    ) -> Result<Self, ClientError> {
        let refuse = |why: &str| ClientError::Url { url: server.to_owned(), why: why.to_owned() };
        let uri: Uri = server.parse().map_err(|e: http::uri::InvalidUri| refuse(&e.to_string()))?;
        if uri.scheme_str() != Some("https") {
            return Err(refuse("it does not begin with https://"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("it has no host"))?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("it has more than a host and a port"));
        }
        let resolver = Resolver::default();
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_recv_buffer_size(Some(receive_window));
        tcp.set_tcp_user_timeout(Some(UNCONFIRMED));
        tcp.set_keepalive(None);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::config(ca_pem, time)?).https_only().enable_http1();
        let connector = connector.wrap_connector(Metered::new(tcp, meter));
        let kept = Arc::new(Mutex::new(Kept { http: over(connector.clone()), lost: 0 }));
        let (server, host) = (format!("https://{authority}"), authority.host().to_owned());
        Ok(Self {
            kept,
            connector,
            resolver,
            reach: Reach::new(),
            server,
            host,
            #[cfg(feature = "simulation")]
            link: None,
        })
    }

    /// The same over a link that is played.
    #[cfg(feature = "simulation")]
    pub(crate) fn with_link(self, link: Arc<dyn crate::simulate::Link>) -> Self {
        Self { link: Some(link), ..self }
    }

    /// Keeps the address that led to the server in a file, and takes up what is there.
    pub(crate) fn remember_address(&self, file: &Path) {
        self.resolver.remember(&self.host, file);
    }

    /// What is known of the way to the server.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The server's URL.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Posts a body and gives the body of the answer, of at most `limit` bytes.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, CallError> {
        let length = body.len();
        #[cfg(feature = "simulation")]
        if let Some(link) = &self.link {
            return self.played(head_limit(length), link.post(path, body)).await;
        }
        let request = self.request(Method::POST, path, body)?;
        let head = head_limit(length);
        let whole = async {
            let response = self.send(request, head).await?;
            let response = self.successful(response, &[StatusCode::OK]).await?;
            self.collect(response, limit).await
        };
        timeout(WHOLE, whole).await.unwrap_or_else(|_| Err(self.timed_out("answering a request", WHOLE)))
    }

    /// Gets the bytes `from..to` of a file, to its end when `to` is none. The answer may begin elsewhere ([`Download::from`]).
    pub(crate) async fn get_range(&self, path: &str, from: u64, to: Option<u64>) -> Result<Download, CallError> {
        #[cfg(feature = "simulation")]
        if let Some(link) = &self.link {
            let (body, from) = self.played(HEAD, link.get(path, from, to)).await?;
            return Ok(self.download(Body::Played(body), from, None));
        }
        let mut request = self.request(Method::GET, path, Vec::new())?;
        if from > 0 || to.is_some() {
            let last = to.map_or(String::new(), |to| to.saturating_sub(1).to_string());
            let range = HeaderValue::try_from(format!("bytes={from}-{last}")).expect("digits are a header value");
            request.headers_mut().insert(RANGE, range);
        }
        let response = self.send(request, head_limit(0)).await?;
        let response = self.successful(response, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT]).await?;
        // A server, or a proxy on the way, may pass over the range and send the whole file, or another range.
        let from = if response.status() == StatusCode::PARTIAL_CONTENT { range_start(&response).unwrap_or(from) } else { 0 };
        let moved = response.extensions().get().cloned();
        Ok(self.download(Body::Http(response.into_body()), from, moved))
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, CallError> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.link(&e.to_string()))
    }

    async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Response<Incoming>, CallError> {
        let mut lost = self.reach.lost();
        let http = self.http(*lost.borrow());
        let answer = async {
            // Cancel-safe: a request that is dropped takes its connection with it.
            tokio::select! {
                biased;
                answer = timeout(limit, http.request(request)) => match answer {
                    Ok(answer) => answer.map_err(|error| self.link(&reasons(&error))),
                    Err(_) => Err(self.timed_out("waiting for an answer", limit)),
                },
                () = counts(&mut lost) => Err(self.link(LOST)),
            }
        };
        let answer = answer.await;
        match &answer {
            Ok(response) => {
                let info = response.extensions().get::<HttpInfo>();
                if let Some(info) = info {
                    self.resolver.proved(info.remote_addr().ip());
                }
                self.reach.answered(info.map(|i| i.local_addr().ip()));
            }
            Err(_) => {
                self.reach.failed();
                // A kept connection may be as dead as the one that failed, and nobody would say so.
                let lost = *lost.borrow();
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept { http: over(self.connector.clone()), lost };
            }
        }
        answer
    }

    /// Without kept connections from an address that went away since: a request on one would stand still.
    fn http(&self, lost: u64) -> Http {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.lost != lost {
            *kept = Kept { http: over(self.connector.clone()), lost };
        }
        kept.http.clone()
    }

    /// Passes the answer on when its status is one of these, else reads what the server says.
    async fn successful(&self, response: Response<Incoming>, statuses: &[StatusCode]) -> Result<Response<Incoming>, CallError> {
        let status = response.status();
        if statuses.contains(&status) {
            return Ok(response);
        }
        let retry_after = retry_after(&response);
        let body = self.collect(response, ERROR_BODY).await.unwrap_or_default();
        let error = serde_json::from_slice(&body).unwrap_or_else(|_| ApiError {
            code: "unknown".to_owned(),
            message: format!("it answered {status}"),
            hint: None,
        });
        Err(CallError::Refused { server: self.server.clone(), status: status.as_u16(), error, retry_after })
    }

    async fn collect(&self, response: Response<Incoming>, limit: usize) -> Result<Vec<u8>, CallError> {
        let moved = response.extensions().get().cloned();
        let mut download = self.download(Body::Http(response.into_body()), 0, moved);
        let mut all = BytesMut::new();
        while let Some(bytes) = download.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(CallError::TooLong { server: self.server.clone(), limit });
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    fn download(&self, body: Body, from: u64, moved: Option<Moved>) -> Download {
        Download::new(body, from, moved, self.reach.clone(), self.server.clone())
    }

    fn link(&self, reason: &str) -> CallError {
        CallError::Link { server: self.server.clone(), reason: reason.to_owned() }
    }

    /// What a played link answers, or that it did not in time.
    #[cfg(feature = "simulation")]
    async fn played<T>(&self, limit: Duration, answer: impl Future<Output = Result<T, LinkError>>) -> Result<T, CallError> {
        let answer = match timeout(limit, answer).await {
            Err(_) => Err(self.timed_out("waiting for an answer", limit)),
            Ok(Err(LinkError::Broken(reason))) => Err(self.link(&reason)),
            Ok(Err(LinkError::Refused(status, code))) => {
                let error = ApiError { code: code.to_owned(), message: code.to_owned(), hint: None };
                Err(CallError::Refused { server: self.server.clone(), status, error, retry_after: None })
            }
            Ok(Ok(answer)) => Ok(answer),
        };
        match &answer {
            Ok(_) | Err(CallError::Refused { .. }) => self.reach.answered(None),
            Err(_) => self.reach.failed(),
        }
        answer
    }

    fn timed_out(&self, what: &'static str, after: Duration) -> CallError {
        CallError::TimedOut { server: self.server.clone(), what, after }
    }
}

/// Seconds in `retry-after`. Nobody signed them: no more than an hour is believed.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// A client that keeps at most one connection.
fn over(connector: Connector) -> Http {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1)
        .http1_max_buf_size(READ_BUFFER)
        .build(connector)
}

/// How long a request with so many bytes waits for the head of its answer, with a handshake before it: after months offline there is much to say, and a slow link
/// must get it through, or it would be begun anew for ever.
fn head_limit(body: usize) -> Duration {
    HEAD + Duration::from_secs(u64::try_from(HANDSHAKE.saturating_add(body)).unwrap_or(u64::MAX) / SLOWEST)
}

/// The first offset in `content-range: bytes A-B/SIZE`.
fn range_start(response: &Response<Incoming>) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// An error with its causes, the outermost first, without saying the same twice.
pub(super) fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn a_long_body_gets_the_time_of_a_slow_link() {
        assert_eq!(head_limit(0), HEAD + Duration::from_secs(16));
        assert_eq!(head_limit(60_000), HEAD + Duration::from_secs(256));
    }

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
            assert_eq!(Client::new(url, ca.as_bytes(), 65536, time.clone(), Meter::default()).is_ok(), good, "{url}");
        }
    }

    /// A connection costs a third of the bytes when it resumes the session of one before; also when the client was made anew after a failure.
    #[tokio::test]
    async fn new_connections_resume_the_session() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let private = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let mut kinds = Vec::new();
            while kinds.len() < 3 {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut tls = acceptor.accept(tcp).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(tls.read_u8().await.unwrap());
                }
                kinds.push(tls.get_ref().1.handshake_kind());
                tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
                tls.shutdown().await.unwrap();
            }
            kinds
        });
        let (_keep, time) = watch::channel(TimeBound::new(Timestamp(0), None));
        let client = Client::new(&url, certificate.pem().as_bytes(), 65536, time, Meter::default()).unwrap();
        for request in 0..3 {
            if request == 2 {
                client.kept.lock().unwrap().http = over(client.connector.clone());
            }
            client.post("/", Vec::new(), 10).await.unwrap();
        }
        let (full, resumed) = (Some(rustls::HandshakeKind::Full), Some(rustls::HandshakeKind::Resumed));
        assert_eq!(server.await.unwrap(), [full, resumed, resumed]);
    }
}
