//! `PUT /v1/layers/{diff_id}`: a layer comes in, is checked while it passes by, and is kept.
//!
//! Memory does not grow with the layer: the body goes in pieces to a blocking thread that checks and writes it. An upload that breaks
//! off leaves nothing; the same layer again is a success; two uploads of one layer at once do each other no harm.

use std::io::BufWriter;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Request, State};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{StatusCode, header};
use skerry_image::frames::{FrameError, FrameSummary, FrameVerifier};
use skerry_wire::DiffId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::app::App;
use crate::http::Failure;
use crate::http::auth::Caller;
use crate::objects::NewObject;
use crate::store::StoredLayer;

/// Pieces of the body that wait for the checking thread.
const PIECES: usize = 8;
/// Free space is looked at again after this many bytes.
const SPACE_CHECK: u64 = 64 << 20;
/// Bytes buffered before they are written.
const WRITE_BUFFER: usize = 256 * 1024;

/// `PUT /v1/layers/{diff_id}`: 201 when it was kept, 200 when it was there already.
pub async fn layer(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(diff_id): Path<String>,
    request: Request,
) -> Result<StatusCode, Failure> {
    let diff_id: DiffId =
        diff_id.parse().map_err(|e| Failure::new(StatusCode::BAD_REQUEST, "bad_digest", format!("the layer's address is wrong: {e}")))?;
    let end = Instant::now() + app.config.limits.upload.duration();
    let announced = announced(&request);
    let body = Pieces { stream: request.into_body().into_data_stream(), app: &app, end };
    let known = app.store.layer(diff_id).await?;
    let is_whole = match &known {
        Some(layer) => app.checked.open(&app.objects, layer.object, layer.stored).await.map_err(|e| Failure::io(&e))?.is_some(),
        None => false,
    };
    if is_whole {
        // The client has begun to send: an answer in the middle of its body would look like a broken connection to it.
        body.discard().await?;
        return Ok(StatusCode::OK);
    }
    let _permit = Arc::clone(&app.uploads)
        .try_acquire_owned()
        .map_err(|_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many layers are being uploaded").hint("try again soon"))?;
    let (object, summary) = body.receive(diff_id, announced).await?;
    let pin = app.objects.pin().await;
    let (pin, kept) = blocking(move || {
        let kept = object.keep(&pin);
        (pin, kept)
    })
    .await?;
    let (object, stored) = kept.map_err(|e| Failure::io(&e))?;
    let layer = StoredLayer { diff_id, size: summary.size, stored, object };
    let new = match known {
        Some(damaged) => {
            tracing::warn!(%diff_id, object = %damaged.object, "the file of a layer was damaged; it came again");
            app.store.mend_layer(layer, caller.by()).await?;
            true
        }
        None => app.store.add_layer(layer, caller.by()).await?,
    };
    drop(pin);
    app.indexes.wake();
    app.metrics.layer_bytes.inc_by(stored);
    tracing::info!(%diff_id, size = summary.size, stored, new, "layer kept");
    Ok(if new { StatusCode::CREATED } else { StatusCode::OK })
}

/// Bytes that the client said it would send.
fn announced(request: &Request<Body>) -> u64 {
    request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::internal("a thread panicked"))
}

/// The body, with its deadlines.
struct Pieces<'a> {
    stream: BodyDataStream,
    app: &'a App,
    end: Instant,
}

impl Pieces<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let limits = &self.app.config.limits;
        let late = |limit| {
            Failure::new(StatusCode::REQUEST_TIMEOUT, "deadline", format!("the upload stood still, or took longer than {limit}"))
                .hint("try again; layers that were complete are not sent twice")
        };
        match timeout_at(self.end, timeout(limits.stalled.duration(), self.stream.next())).await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(Ok(piece)))) => Ok(Some(piece)),
            Ok(Ok(Some(Err(error)))) => Err(Failure::new(StatusCode::BAD_REQUEST, "body_broken", format!("the upload broke off: {error}"))
                .hint("try again; layers that were complete are not sent twice")),
            Ok(Err(_)) => Err(late(limits.stalled.0)),
            Err(_) => Err(late(limits.upload.0)),
        }
    }

    async fn discard(mut self) -> Result<(), Failure> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Gives the checked object, not yet in its place.
    async fn receive(mut self, diff_id: DiffId, announced: u64) -> Result<(NewObject, FrameSummary), Failure> {
        space_for(self.app, announced).await?;
        let (pieces, mut received) = mpsc::channel::<Bytes>(PIECES);
        let (objects, limit) = (self.app.objects.clone(), self.app.config.limits.layer.0);
        let checking = tokio::task::spawn_blocking(move || {
            let out = BufWriter::with_capacity(WRITE_BUFFER, objects.begin()?);
            let mut verifier = FrameVerifier::new(out, diff_id, limit)?;
            while let Some(piece) = received.blocking_recv() {
                verifier.push(&piece)?;
            }
            let (out, summary) = verifier.finish()?;
            let object = out.into_inner().map_err(|e| FrameError::Io(e.into_error()))?;
            Ok::<_, FrameError>((object, summary))
        });
        let (mut got, mut checked) = (0u64, 0u64);
        let mut broken = None;
        while broken.is_none() {
            match self.next().await {
                Ok(Some(piece)) => {
                    got = got.saturating_add(piece.len() as u64);
                    // The thread ended early: it has an error to tell.
                    if pieces.send(piece).await.is_err() {
                        break;
                    }
                    if got - checked >= SPACE_CHECK {
                        checked = got;
                        broken = space_for(self.app, 0).await.err();
                    }
                }
                Ok(None) => break,
                Err(failure) => broken = Some(failure),
            }
        }
        drop(pieces);
        let outcome = checking.await.map_err(|_| Failure::internal("the checking thread panicked"))?;
        match (broken, outcome) {
            (Some(failure), _) => Err(failure),
            (None, Ok(done)) => Ok(done),
            (None, Err(error)) => {
                // Let a client that is still sending finish, so that it reads why.
                let _ = timeout(self.app.config.limits.request.duration(), self.discard()).await;
                Err(refusal(&error, diff_id))
            }
        }
    }
}

/// Is there space for `bytes` more beside the reserve?
async fn space_for(app: &App, bytes: u64) -> Result<(), Failure> {
    let objects = app.objects.clone();
    let free = blocking(move || objects.free()).await?.map_err(|e| Failure::io(&e))?;
    let reserve = app.config.limits.disk_reserve;
    if free < bytes.saturating_add(reserve.0) {
        return Err(Failure::disk_full(format!(
            "the server's disk has {free} bytes free; the layer needs {bytes}, and {reserve} are kept in reserve"
        )));
    }
    Ok(())
}

fn refusal(error: &FrameError, diff_id: DiffId) -> Failure {
    let code = match error {
        FrameError::Io(error) => return Failure::io(error),
        FrameError::DiffId { .. } => "wrong_digest",
        FrameError::TooLarge { .. } => {
            return Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "layer_too_large", format!("layer {diff_id}: {error}"))
                .hint("raise limits.layer of the server, or build the image with smaller layers");
        }
        FrameError::Header | FrameError::Truncated { .. } | FrameError::Damaged { .. } => "broken_layer",
    };
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, code, format!("layer {diff_id}: {error}"))
        .hint("nothing was kept; check the image archive (docker save it again) and publish again")
}
