//! `POST /v1/allocations/{id}/logs`, `GET /v1/log-orders/{id}`: what a task wrote, ordered from its node and read once it has come.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;
use skerry_wire::api::{LogRequest, LogStatus};
use skerry_wire::logs::LogOrder;
use skerry_wire::{AllocId, LogOrderId, limits};

use super::submit::check_submitter;
use super::views::{Answer, bad_id, unknown};
use crate::agent_api;
use crate::app::App;
use crate::http::Failure;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::secret;
use crate::store::LogRefusal;

pub(super) async fn order(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<LogRequest>,
) -> Answer<LogStatus> {
    check_submitter(&request.submitter)?;
    let alloc: AllocId = id.parse().map_err(|e| bad_id(&e))?;
    let bad = |message: String| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_log_order", message);
    if !(1..=limits::LOG_LINES).contains(&request.lines) {
        return Err(bad(format!("{} lines cannot be sent", request.lines)).hint(format!("order 1 to {} lines", limits::LOG_LINES)));
    }
    if request.task.as_ref().is_some_and(|task| task.is_empty() || task.len() > limits::TASK) {
        return Err(bad("this is no name of a task".to_owned()).hint(format!("a name has 1 to {} bytes", limits::TASK)));
    }
    let new = LogOrderId::new(secret::random(&app.random).map_err(Failure::internal)?);
    tracing::info!(%alloc, task = request.task, lines = request.lines, by = caller.name, "output ordered");
    let order = LogOrder { id: new, alloc, task: request.task, lines: request.lines };
    let whose = format!("{} <{}>", request.submitter.name, request.submitter.email);
    let kept = app.store.order_log(order, whose, caller.by()).await.map_err(|refusal| match refusal {
        LogRefusal::Unknown => unknown("unknown_alloc", "allocation", &id, "skerry alloc list"),
        LogRefusal::Store(error) => error.into(),
        LogRefusal::TooMany => Failure::new(StatusCode::CONFLICT, "too_many", format!("allocation {id}: {refusal}"))
            .hint("wait until it was heard of; orders that it does not answer are forgotten after a while"),
    })?;
    status(&app, kept).await
}

pub(super) async fn read(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<LogStatus> {
    status(&app, id.parse().map_err(|e| bad_id(&e))?).await
}

async fn status(app: &App, id: LogOrderId) -> Answer<LogStatus> {
    let mut status = app.store.log(id).await?.ok_or_else(|| {
        Failure::new(StatusCode::NOT_FOUND, "unknown_log_order", format!("there is no order {id} for output"))
            .hint("orders are forgotten after a while: order it again with `skerry alloc logs`")
    })?;
    status.last_seen = agent_api::last_seen(app, &status.node, status.last_seen);
    Ok(Json(status))
}
