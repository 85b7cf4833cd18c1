//! All addresses of the server, with the role that each takes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::{Method, StatusCode, Uri};

use super::auth::guarded;
use super::error::Failure;
use super::{operators, trace};
use crate::app::App;
use crate::store::Role::{Admin, Publisher, Reader};
use crate::{agent_api, fleet, images};

/// The whole service.
pub fn router(app: &Arc<App>) -> Router {
    let timed = operator_routes(app).merge(fleet::routes(app)).layer(from_fn_with_state(Arc::clone(app), deadline));
    // A layer may take hours; it has a deadline of its own, and the connection must not stand still.
    let upload = Router::new().route("/v1/layers/{diff_id}", guarded(app, Publisher, put(images::upload::layer)));
    let operators = timed.merge(upload).layer(from_fn(trace::request));
    Router::new()
        .merge(operators)
        .merge(agent_api::routes(app))
        .route("/healthz", get(operators::health))
        .fallback(unknown_address)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(app))
}

fn operator_routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/v1/status", guarded(app, Reader, get(operators::status)))
        .route("/v1/metrics", guarded(app, Reader, get(operators::metrics)))
        .route("/v1/trust/root", guarded(app, Reader, get(operators::root)))
        .route("/v1/images/prepare", guarded(app, Publisher, post(images::publish::prepare)))
        .route(
            "/v1/images",
            guarded(app, Reader, get(images::publish::list)).merge(guarded(app, Publisher, post(images::publish::publish))),
        )
        .route("/v1/image", guarded(app, Reader, get(images::publish::detail)))
        .route("/v1/tokens", guarded(app, Admin, get(operators::tokens).post(operators::make_token)))
        .route("/v1/tokens/{id}", guarded(app, Admin, delete(operators::remove_token)))
}

/// Ends a request that takes too long. Its writes are done or not, as a whole.
pub async fn deadline(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let limit = app.config.limits.request;
    match tokio::time::timeout(limit.duration(), next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::new(StatusCode::REQUEST_TIMEOUT, "deadline", format!("the request was not done within {}", limit.0))
            .hint("try again; on a slow link raise limits.request of the server")
            .into_response(),
    }
}

async fn unknown_address(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "unknown_address", format!("there is nothing at {}", uri.path()))
        .hint("check the address, and that client and server have the same version")
}

async fn unknown_method(method: Method, uri: Uri) -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "unknown_method", format!("{} does not take {method}", uri.path()))
}
