//! A request's id and its line in the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use tracing::Instrument;

/// Counts requests of this process.
static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// Gives every request an id, in its log lines and as `x-request-id` of the answer.
pub(super) async fn request(request: Request, next: Next) -> Response {
    let id = format!("{:x}-{:x}", std::process::id(), REQUESTS.fetch_add(1, Ordering::Relaxed));
    let span = tracing::info_span!("request", %id, method = %request.method(), path = request.uri().path());
    async move {
        let begun = Instant::now();
        let mut response = next.run(request).await;
        tracing::info!(status = response.status().as_u16(), ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-request-id", value);
        }
        response
    }
    .instrument(span)
    .await
}
