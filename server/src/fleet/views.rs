//! What operators look at.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use skerry_wire::api::{AllocDetail, AllocSummary, BundleSummary, JobStatus, JobSummary, NodeStatus, NodeSummary, SetStatus, SetSummary};
use skerry_wire::{AllocId, IdError, NodeId, SetId};

use crate::agent_api;
use crate::app::App;
use crate::http::Failure;

pub(super) type Answer<T> = Result<Json<T>, Failure>;

pub(super) fn unknown(code: &str, what: &str, id: &str, command: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, code, format!("there is no {what} {id}")).hint(format!("`{command}` lists what there is"))
}

pub(super) fn bad_id(error: &IdError) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "bad_id", error.to_string())
}

pub(super) async fn jobs(State(app): State<Arc<App>>) -> Answer<Vec<JobSummary>> {
    Ok(Json(app.store.jobs().await?))
}

pub(super) async fn job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<JobStatus> {
    let job = app.store.job(id.clone()).await?;
    job.map(Json).ok_or_else(|| unknown_job(&id))
}

pub(super) fn unknown_job(id: &str) -> Failure {
    unknown("unknown_job", "job", id, "skerry job status")
}

pub(super) async fn allocs(State(app): State<Arc<App>>) -> Answer<Vec<AllocSummary>> {
    Ok(Json(app.store.allocs().await?))
}

pub(super) async fn alloc(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<AllocDetail> {
    let alloc: AllocId = id.parse().map_err(|e| bad_id(&e))?;
    app.store.alloc(alloc).await?.map(Json).ok_or_else(|| unknown("unknown_alloc", "allocation", &id, "skerry alloc list"))
}

pub(super) async fn sets(State(app): State<Arc<App>>) -> Answer<Vec<SetSummary>> {
    Ok(Json(app.store.sets().await?))
}

pub(super) async fn set(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<SetStatus> {
    let set: SetId = id.parse().map_err(|e| bad_id(&e))?;
    app.store.set(set).await?.map(Json).ok_or_else(|| unknown("unknown_set", "deployment set", &id, "skerry set list"))
}

pub(super) async fn nodes(State(app): State<Arc<App>>) -> Answer<Vec<NodeSummary>> {
    let mut nodes = app.store.nodes().await?;
    for node in &mut nodes {
        node.last_seen = agent_api::last_seen(&app, &node.id, node.last_seen);
    }
    Ok(Json(nodes))
}

pub(super) async fn node(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<NodeStatus> {
    let node: NodeId = id.parse().map_err(|e| bad_id(&e))?;
    let mut status = app.store.node(node).await?.ok_or_else(|| unknown("unknown_node", "node", &id, "skerry node list"))?;
    status.summary.last_seen = agent_api::last_seen(&app, &node, status.summary.last_seen);
    Ok(Json(status))
}

pub(super) async fn bundles(State(app): State<Arc<App>>) -> Answer<Vec<BundleSummary>> {
    Ok(Json(app.store.bundles().await?))
}
