//! `POST /v1/nodes/{id}/...`, `POST /v1/allocations/{id}/...`: orders about what runs.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;
use skerry_wire::api::{AllocDetail, AllocOrder, Changed, DrainRequest, EligibilityRequest, MetaRequest, Submitter};
use skerry_wire::{AllocId, NodeId, limits};

use super::submit::check_submitter;
use super::views::{Answer, bad_id, unknown};
use crate::app::App;
use crate::clock;
use crate::http::Failure;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::store::{AllocOrdered, NodeOrder, OrderRefusal};

/// The longest key of meta, bytes.
const KEY: usize = 128;

pub(super) async fn eligibility(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<EligibilityRequest>,
) -> Answer<Changed> {
    order_node(&app, &caller, &id, NodeOrder::Eligible(request.eligible), &request.submitter).await
}

pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<DrainRequest>,
) -> Answer<Changed> {
    let order = match request.enable {
        true => {
            NodeOrder::Drain { deadline: request.deadline.map(|after| clock::now().after(after)), ignore_system: request.ignore_system }
        }
        false => NodeOrder::Undrain,
    };
    order_node(&app, &caller, &id, order, &request.submitter).await
}

pub(super) async fn meta(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<MetaRequest>,
) -> Answer<Changed> {
    for key in request.set.keys().chain(&request.unset) {
        let plain = !key.is_empty() && key.len() <= KEY && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !plain {
            let message = format!("`{}` is not a key of node meta", key.escape_debug());
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_meta", message)
                .hint(format!("a key has 1 to {KEY} letters, digits, `-`, `_` and `.`")));
        }
    }
    if let Some((key, value)) = request.set.iter().find(|(_, value)| value.len() > limits::META_VALUE) {
        let message = format!("the value of `{key}` has {} bytes; at most {} are kept", value.len(), limits::META_VALUE);
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_meta", message));
    }
    order_node(&app, &caller, &id, NodeOrder::Meta { set: request.set, unset: request.unset }, &request.submitter).await
}

pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<AllocOrder>,
) -> Answer<AllocDetail> {
    order_alloc(&app, &caller, &id, AllocOrdered::Retry, &request.submitter).await
}

pub(super) async fn override_lock(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<AllocOrder>,
) -> Answer<AllocDetail> {
    order_alloc(&app, &caller, &id, AllocOrdered::OverrideLock, &request.submitter).await
}

fn whose(submitter: &Submitter) -> String {
    format!("{} <{}>", submitter.name, submitter.email)
}

async fn order_node(app: &Arc<App>, caller: &Caller, id: &str, order: NodeOrder, submitter: &Submitter) -> Answer<Changed> {
    check_submitter(submitter)?;
    let node: NodeId = id.parse().map_err(|e| bad_id(&e))?;
    tracing::info!(%node, ?order, by = caller.name, "ordered");
    let drains = matches!(order, NodeOrder::Drain { .. });
    let changed = app.store.order_node(node, order, whose(submitter), Arc::clone(&app.director), caller.by()).await;
    if drains {
        // The order may have waited, and its deadline passed meanwhile, which ticks look for only once.
        app.watch.stir();
    }
    changed.map(Json).map_err(|refusal| match refusal {
        OrderRefusal::Unknown => unknown("unknown_node", "node", id, "skerry node list"),
        OrderRefusal::Store(error) => error.into(),
        other => Failure::new(StatusCode::CONFLICT, "refused", format!("node {id}: {other}")),
    })
}

async fn order_alloc(app: &Arc<App>, caller: &Caller, id: &str, order: AllocOrdered, submitter: &Submitter) -> Answer<AllocDetail> {
    check_submitter(submitter)?;
    let alloc: AllocId = id.parse().map_err(|e| bad_id(&e))?;
    tracing::info!(%alloc, ?order, by = caller.name, "ordered");
    let done = app.store.order_alloc(alloc, order, whose(submitter), Arc::clone(&app.director), caller.by()).await;
    let missing = || unknown("unknown_alloc", "allocation", id, "skerry alloc list");
    done.map_err(|refusal| {
        let (code, hint) = match &refusal {
            OrderRefusal::Unknown => return missing(),
            OrderRefusal::Store(error) => return error.clone().into(),
            OrderRefusal::NotWanted => ("not_wanted", "`skerry alloc list` shows the allocation that has its place"),
            OrderRefusal::Complete => ("complete", "`skerry job run --again` runs a job once more"),
            OrderRefusal::Running | OrderRefusal::TooManyKeys => ("running", "the update lock matters until a newer version has switched"),
        };
        Failure::new(StatusCode::CONFLICT, code, format!("allocation {id}: {refusal}")).hint(hint)
    })?;
    app.store.alloc(alloc).await?.map(Json).ok_or_else(missing)
}
