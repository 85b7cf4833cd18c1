//! Status, metrics, the root document, enrolment tokens.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{StatusCode, header};
use skerry_wire::TokenId;
use skerry_wire::api::{ServerStatus, TokenReply, TokenRequest, TokenSummary};

use super::auth::Caller;
use super::body::JsonBody;
use super::error::Failure;
use crate::app::App;
use crate::secret::{Token, TokenKind};
use crate::store::NewToken;

/// The longest name of a node pool, bytes.
const POOL_NAME: usize = 128;

/// `GET /healthz`
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// `GET /v1/status`
pub(super) async fn status(State(app): State<Arc<App>>) -> Result<Json<ServerStatus>, Failure> {
    let counts = app.store.counts().await?;
    Ok(Json(ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        root_version: app.director.root().root().version,
        development: app.config.development,
        nodes: counts.nodes,
        jobs: counts.jobs,
        builds_pending: counts.builds_pending,
    }))
}

/// `GET /v1/metrics`
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], app.metrics.text()).into_response()
}

/// `GET /v1/trust/root`: the newest root file, as it was given to the server.
pub(super) async fn root(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], app.director.root().bytes().to_vec()).into_response()
}

/// `GET /v1/tokens`
pub(super) async fn tokens(State(app): State<Arc<App>>) -> Result<Json<Vec<TokenSummary>>, Failure> {
    Ok(Json(app.store.tokens().await?))
}

/// `POST /v1/tokens`
pub(super) async fn make_token(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<TokenRequest>,
) -> Result<Json<TokenReply>, Failure> {
    let bad = |message: &str| Err(Failure::new(StatusCode::BAD_REQUEST, "bad_token_request", message));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if request.pool.is_empty() || request.pool.len() > POOL_NAME || !request.pool.chars().all(plain) {
        return bad("a node pool's name has 1 to 128 letters, digits, `-`, `_` or `.`");
    }
    if request.pool == "all" {
        return bad("`all` stands for every node pool; name the one that the nodes join");
    }
    if request.uses == 0 {
        return bad("a token with 0 uses lets no node in");
    }
    let token = Token::generate(TokenKind::Enrolment, &app.random).map_err(Failure::internal)?;
    let by = caller.by();
    let expires_at = request.ttl.map(|ttl| by.at.after(ttl));
    let new = NewToken { id: token.id, secret_hash: token.secret_hash, pool: request.pool, uses: request.uses, expires_at };
    app.store.add_token(new, by).await?;
    Ok(Json(TokenReply { id: token.id, token: token.text }))
}

/// `DELETE /v1/tokens/{id}`
pub(super) async fn remove_token(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    let id: TokenId = id.parse().map_err(|e| Failure::new(StatusCode::BAD_REQUEST, "bad_id", format!("{e}")))?;
    if app.store.remove_token(id, caller.by()).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Failure::new(StatusCode::NOT_FOUND, "unknown_token", format!("there is no enrolment token {id}")))
}
