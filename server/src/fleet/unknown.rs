//! `/v1/unknown-allocations`: what nodes keep and this server does not know, and orders about it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;
use skerry_wire::AllocId;
use skerry_wire::api::{Adopted, AllocOrder, UnknownSummary};

use super::submit::check_submitter;
use super::views::{Answer, bad_id, unknown};
use crate::app::App;
use crate::http::Failure;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::store::AdoptRefusal;

pub(super) async fn list(State(app): State<Arc<App>>) -> Answer<Vec<UnknownSummary>> {
    Ok(Json(app.store.unknown_allocs().await?))
}

pub(super) async fn adopt(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<AllocOrder>,
) -> Answer<Adopted> {
    check_submitter(&request.submitter)?;
    let alloc: AllocId = id.parse().map_err(|e| bad_id(&e))?;
    let done = app.store.adopt(alloc, request.submitter, Arc::clone(&app.director), caller.by()).await;
    let allocs = done.map_err(|refusal| refused(refusal, &id))?;
    let summary = app.store.alloc(alloc).await?.ok_or_else(|| missing(&id))?.summary;
    tracing::info!(job = summary.job, version = summary.version, allocs = allocs.len(), by = caller.name, "adopted");
    Ok(Json(Adopted { job: summary.job, version: summary.version, allocs }))
}

pub(super) async fn bury(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<AllocOrder>,
) -> Answer<UnknownSummary> {
    check_submitter(&request.submitter)?;
    let alloc: AllocId = id.parse().map_err(|e| bad_id(&e))?;
    let done = app.store.bury(alloc, request.submitter, Arc::clone(&app.director), caller.by()).await;
    done.map_err(|refusal| refused(refusal, &id))?;
    tracing::info!(%alloc, by = caller.name, "an unknown allocation is ordered to stop");
    let all = app.store.unknown_allocs().await?;
    all.into_iter().find(|a| a.id == alloc).map(Json).ok_or_else(|| missing(&id))
}

fn missing(id: &str) -> Failure {
    unknown("unknown_alloc", "unknown allocation", id, "skerry alloc unknown list")
}

fn refused(refusal: AdoptRefusal, id: &str) -> Failure {
    let (code, hint) = match &refusal {
        AdoptRefusal::Unknown => return missing(id),
        AdoptRefusal::Store(error) => return error.clone().into(),
        AdoptRefusal::NoSpecification => {
            ("no_specification", "wait for the node's next polls; `skerry alloc unknown list` says when it is here")
        }
        AdoptRefusal::Older { .. } => {
            ("older", "submit the job again to have it in a newer version than any, or `skerry alloc unknown bury` the old one")
        }
        AdoptRefusal::NoImage { .. } => ("no_image", "publish the image again (`skerry image publish`), then adopt"),
        AdoptRefusal::Contradiction(_) => ("contradiction", "`skerry alloc unknown bury` stops it; submit the job again"),
    };
    Failure::new(StatusCode::CONFLICT, code, format!("unknown allocation {id}: {refusal}")).hint(hint)
}
