//! Every answer that is not a success: [`ApiError`] as JSON.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use skerry_wire::api::ApiError;

use crate::store::StoreError;

/// The shortest wait that is told, in seconds.
const SOONEST: u32 = 2;
/// So many waits are told in turn, each a second longer: of a fleet that came at once, a part comes back each second.
const WAITS: u32 = 20;

/// The next of the waits, in seconds.
fn wait() -> u32 {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    SOONEST + TOLD.fetch_add(1, Ordering::Relaxed) % WAITS
}

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub error: ApiError,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, error: ApiError { code: code.to_owned(), message: message.into(), hint: None } }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = Some(hint.into());
        self
    }

    /// A fault of the server: the log has the cause, the answer does not.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server could not do this")
            .hint("the server's log says why, under the x-request-id of this answer")
    }

    /// No space left on the server's disk.
    pub fn disk_full(what: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", what)
            .hint("free space on the server's disk, or give it a larger one; nothing was lost, try again afterwards")
    }

    /// The server's disk gives errors; the log has the cause.
    pub fn disk_error(what: &str, cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed: {what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "disk_error", what)
            .hint("the server's log says why, and its kernel's (dmesg); what was acknowledged is kept, try again when the disk works")
    }

    /// A failure of reading or writing a file.
    pub fn io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::disk_full("no space left on the server's disk"),
            // Paths are nobody's business but the log's.
            _ => Self::disk_error("the server's disk gives errors: a file could not be read or written", error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::disk_full("no space left on the disk of the server's database"),
            StoreError::Busy => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the server has too much to write at the moment").hint("try again soon")
            }
            StoreError::Closed => Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping").hint("try again soon"),
            StoreError::Disk(cause) => Self::disk_error("the disk of the server's database gives errors", cause),
            // SQLite's word for a page that it cannot read, too.
            damaged @ StoreError::Damaged(_) => Self::disk_error("the server's database is damaged, or its disk gives errors", damaged),
            other => Self::internal(other),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.error).expect("three strings have a JSON form");
        let mut response = (self.status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait()));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A fleet that comes at once and is sent away does not come back at once.
    #[test]
    fn a_busy_server_spreads_the_waits_that_it_tells() {
        let mut waits = BTreeMap::<u32, u32>::new();
        for _ in 0..1000 {
            let response = Failure::from(StoreError::Busy).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            *waits.entry(response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap()).or_default() += 1;
        }
        assert_eq!(waits.keys().copied().collect::<Vec<_>>(), (SOONEST..SOONEST + WAITS).collect::<Vec<_>>());
        // Other tests of this process may be told one in between.
        assert!(waits.values().all(|nodes| (40..=60).contains(nodes)), "{waits:?}");
        let other = Failure::internal("test").into_response();
        assert!(!other.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn errors_of_the_disk_are_told_apart() {
        let io = |errno: rustix::io::Errno| Failure::io(&errno.into()).error.code;
        assert_eq!(io(rustix::io::Errno::IO), "disk_error");
        assert_eq!(io(rustix::io::Errno::NOSPC), "disk_full");
    }
}
