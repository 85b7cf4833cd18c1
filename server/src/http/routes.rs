//! All addresses of the server, with the role that each takes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::{Method, StatusCode, Uri};
use tokio::time::timeout;

use super::auth::guarded;
use super::error::Failure;
use super::pace::{End, LONGEST, Paced};
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

/// Ends a request that takes too long: its body as it moves ([`Paced`]), its work by a fixed limit once the body is here. Its writes are
/// done or not, as a whole.
pub async fn deadline(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let limits = &app.config.limits;
    let (parts, body) = request.into_parts();
    let (body, ended) = Paced::new(body, limits.request.duration(), limits.stalled.duration());
    let work = next.run(Request::from_parts(parts, Body::new(body)));
    tokio::pin!(work);
    // A body that nobody reads has no clock of its own.
    let arrives = async {
        // Cancel-safe: both are kept, or given up together.
        tokio::select! {
            biased;
            response = &mut work => Ok(response),
            end = ended => Err(end.unwrap_or(End::Here)),
        }
    };
    match timeout(LONGEST, arrives).await {
        Ok(Ok(response)) => return response,
        Ok(Err(End::Here)) => {}
        Ok(Err(End::Late)) | Err(_) => {
            return Failure::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body of the request stood still, or trickled".to_owned())
                .hint("try again; the link must bring more than 1 kbit/s, and the body must be here within a quarter of an hour")
                .into_response();
        }
    }
    match timeout(limits.request.duration(), work).await {
        Ok(response) => response,
        Err(_) => Failure::new(StatusCode::REQUEST_TIMEOUT, "deadline", format!("the request was not done within {}", limits.request.0))
            .hint("try again; if the server is busy for long, raise limits.request")
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
