//! Bodies of requests, read under a limit.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::error::Failure;

/// The longest JSON body where nothing else is said, bytes.
pub const JSON: usize = 4 * 1024 * 1024;

/// Bytes over a limit that are still listened to.
const DRAIN: usize = 64 * 1024 * 1024;

/// A JSON body of at most `LIMIT` bytes.
#[derive(Debug)]
pub struct JsonBody<T, const LIMIT: usize = JSON>(pub T);

/// Reads a whole body of at most `limit` bytes.
///
/// A client that sends more is listened to for a while, so that it reads why it is refused; an answer in the middle of its body would
/// look like a broken connection to it.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, Failure> {
    let mut body = body.into_data_stream();
    let mut whole = BytesMut::new();
    let mut seen = 0usize;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| Failure::new(StatusCode::BAD_REQUEST, "body_broken", format!("the body broke off: {e}")))?;
        seen = seen.saturating_add(piece.len());
        if seen > limit.saturating_add(DRAIN) {
            break;
        }
        if seen <= limit {
            whole.extend_from_slice(&piece);
        } else {
            whole.clear();
        }
    }
    if seen > limit {
        let message = format!("the body has more than the {limit} bytes that this address takes");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
    }
    Ok(whole.freeze())
}

impl<S: Send + Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for JsonBody<T, LIMIT> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = read(request.into_body(), LIMIT).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, "bad_json", format!("the body is not what this address takes: {error}")))
    }
}
