//! Who may do what: bearer tokens and roles.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;
use http::{HeaderMap, StatusCode, header};
use skerry_wire::Timestamp;

use super::error::Failure;
use crate::app::App;
use crate::clock;
use crate::secret::{Token, TokenKind, equal};
use crate::store::{By, Role};

/// The operator of a request that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token.
    pub name: String,
    /// Its role.
    pub role: Role,
}

impl Caller {
    /// For the audit log, now.
    pub fn by(&self) -> By {
        self.by_at(clock::now())
    }

    /// For the audit log.
    pub fn by_at(&self, at: Timestamp) -> By {
        By { who: self.name.clone(), at }
    }
}

/// Lets only callers with `role` reach these methods, and gives the handler a [`Caller`] as an extension.
pub fn guarded(app: &Arc<App>, role: Role, methods: MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>> {
    methods.route_layer(from_fn_with_state((Arc::clone(app), role), guard))
}

async fn guard(State((app, role)): State<(Arc<App>, Role)>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let caller = authenticate(&app, request.headers()).await?;
    if !caller.role.covers(role) {
        let message = format!("the token `{}` is a {}'s, this takes a {}'s", caller.name, caller.role.name(), role.name());
        return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", message).hint("use a token with that role, or an admin's"));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Caller, Failure> {
    let refused = |message: &str| {
        Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .hint("send `authorization: Bearer sko_...` with an operator token of this server; the CLI reads it from its configuration")
    };
    let header = headers.get(header::AUTHORIZATION).ok_or_else(|| refused("no operator token was sent"))?;
    let text = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    let (id, secret_hash) =
        text.and_then(|text| Token::parse(TokenKind::Operator, text)).ok_or_else(|| refused("what was sent is not an operator token"))?;
    let operator = app.store.operator(id).await?;
    // The same answer for an unknown id and a wrong secret, after the same work.
    let kept = operator.as_ref().map_or([0; 32], |operator| operator.secret_hash);
    match operator {
        Some(operator) if equal(&kept, &secret_hash) => Ok(Caller { name: operator.name, role: operator.role }),
        _ => Err(refused("the operator token is not known here")),
    }
}
