//! `GET /agent/v1/objects/{sha256}?n={node}&c={capability}`: the bytes of a bundle, from any offset.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use skerry_wire::{Digest, NodeId};

use crate::app::App;
use crate::clock;
use crate::http::Failure;

/// Bytes read and handed to the connection at a time: with the small send buffer of the socket, what a cut wastes at most.
const PIECE: usize = 16 * 1024;

#[derive(Debug, Deserialize)]
pub(super) struct Admission {
    n: String,
    c: String,
}

/// The bytes from `first` up to and without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u64,
    end: u64,
}

pub(super) async fn object(
    State(app): State<Arc<App>>,
    Path(digest): Path<String>,
    Query(admission): Query<Admission>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let unknown = |text: &str| Failure::new(StatusCode::NOT_FOUND, "unknown_object", format!("there is no object {text}"));
    let digest: Digest = digest.parse().map_err(|_| unknown(&digest))?;
    let node: Option<NodeId> = admission.n.parse().ok();
    if !node.is_some_and(|node| app.agents.capabilities.admits(&node, &digest, &admission.c)) {
        let message = format!("the capability does not admit node {} to object {digest}", admission.n);
        return Err(Failure::new(StatusCode::FORBIDDEN, "not_admitted", message).hint("poll: the offer has the capability"));
    }
    let size = app.store.object(digest).await?.ok_or_else(|| unknown(&digest.to_string()))?;
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    let unsatisfiable = || Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad_range", format!("the object has {size} bytes"));
    let span = match range {
        Some(range) => Some(parse_range(range, size).ok_or_else(unsatisfiable)?),
        None => None,
    };
    let Span { first, end } = span.unwrap_or(Span { first: 0, end: size });
    let Some(mut file) = app.checked.open(&app.objects, digest, size).await.map_err(|e| Failure::io(&e))? else {
        return Err(unknown(&damaged(&app, digest).await?));
    };
    file.seek(SeekFrom::Start(first)).map_err(|e| Failure::io(&e))?;
    let mut response = Response::new(stream(app, digest, file, Span { first, end }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (end - first).into());
    if span.is_some() {
        let range = format!("bytes {first}-{}/{size}", end.saturating_sub(1));
        headers.insert(header::CONTENT_RANGE, range.parse().map_err(Failure::internal)?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The file of a bundle is damaged or gone: it is built again, unless that came to nothing too often. Gives what the node is told.
async fn damaged(app: &App, digest: Digest) -> Result<String, Failure> {
    let now = clock::now();
    let again = app.checked.may_rebuild(&digest);
    let builds = if again {
        app.store.build_again(digest, now).await?
    } else {
        let reason = format!(
            "its file {} was found damaged again and again: the server's disk garbles what is written. See to the disk, then publish the \
             image again, which has it built again; else that is tried from time to time",
            app.objects.path(&digest).display()
        );
        app.store.give_build_up(digest, reason, now).await?
    };
    if builds > 0 {
        let outcome = if again { "it is built again" } else { "that came too often, and it is not built again for now" };
        tracing::error!(object = %digest, builds, "the file of a bundle is damaged or gone; {outcome}");
        app.metrics.objects_damaged.inc();
        if again {
            app.checked.rebuilt(&digest);
        }
        app.builds.wake();
    }
    Ok(format!("{digest} any more: its file is damaged{}", if again { ", and it is built again" } else { "" }))
}

/// `bytes=A-` or `bytes=A-B` (B inclusive) of an object of this size.
fn parse_range(text: &str, size: u64) -> Option<Span> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<u64>().ok()?.checked_add(1)?.min(size) };
    (first < end).then_some(Span { first, end })
}

/// Reads piece after piece, each when the connection has taken the one before. `file` stands at the span's first byte.
fn stream(app: Arc<App>, digest: Digest, file: File, span: Span) -> Body {
    let state = Some((file, span.first));
    Body::from_stream(futures_util::stream::unfold(state, move |state| {
        let app = Arc::clone(&app);
        async move {
            let (mut file, at) = state.filter(|(_, at)| *at < span.end)?;
            let wanted = usize::try_from(span.end - at).unwrap_or(PIECE).min(PIECE);
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; wanted];
                file.read_exact(&mut piece)?;
                io::Result::Ok((file, Bytes::from(piece)))
            });
            match read.await.map_err(io::Error::other).flatten() {
                Ok((file, piece)) => {
                    app.metrics.sent(&digest, piece.len() as u64);
                    Some((Ok(piece), Some((file, at + wanted as u64))))
                }
                // The connection ends before the promised length: the agent sees a cut, and goes on from there.
                Err(error) => {
                    tracing::error!(object = %digest, %error, "an object cannot be read");
                    app.checked.failed(&digest);
                    Some((Err(error), None))
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let span = |first, end| Some(Span { first, end });
        for (text, expected) in [
            ("bytes=0-", span(0, 100)),
            ("bytes=99-", span(99, 100)),
            ("bytes=100-", None),
            ("bytes=10-19", span(10, 20)),
            ("bytes=10-10", span(10, 11)),
            ("bytes=10-5", None),
            ("bytes=0-99999", span(0, 100)),
            ("bytes=0-18446744073709551615", None),
            ("bytes=-5", None),
            ("bytes=1-2,4-5", None),
            ("pieces=0-", None),
            ("", None),
        ] {
            assert_eq!(parse_range(text, 100), expected, "{text}");
        }
    }
}
