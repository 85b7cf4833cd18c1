//! `/v1/variable`, `/v1/variables`: what jobs read of the server through their manifests.
//!
//! Kept in the clear in the server's database: whoever can read that file reads them.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;
use skerry_plan::values::{self, Items};
use skerry_wire::api::{Changed, PutVariable, Variable, VariableSummary};
use skerry_wire::limits;

use super::views::{Answer, unknown};
use crate::app::App;
use crate::http::Failure;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::store::VariableRefusal;

/// The longest key, bytes.
const KEY: usize = 128;

/// Which variable.
#[derive(Debug, Deserialize)]
pub(super) struct Which {
    path: String,
}

/// Which variables.
#[derive(Debug, Deserialize)]
pub(super) struct Under {
    #[serde(default)]
    prefix: String,
}

pub(super) async fn list(State(app): State<Arc<App>>, Query(under): Query<Under>) -> Answer<Vec<VariableSummary>> {
    Ok(Json(app.store.variables(under.prefix).await?))
}

pub(super) async fn get(State(app): State<Arc<App>>, Query(which): Query<Which>) -> Answer<Variable> {
    app.store.variable(which.path.clone()).await?.map(Json).ok_or_else(|| none(&which.path))
}

fn none(path: &str) -> Failure {
    unknown("unknown_variable", "variable", &path.escape_debug().to_string(), "skerry var list")
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<PutVariable>,
) -> Answer<Changed> {
    check(&request.path, &request.items)?;
    change(&app, &caller, request.path, request.items).await.map(Json)
}

pub(super) async fn purge(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<Which>,
) -> Answer<Changed> {
    let changed = change(&app, &caller, which.path.clone(), Items::new()).await?;
    if changed.changed { Ok(Json(changed)) } else { Err(none(&which.path)) }
}

async fn change(app: &Arc<App>, caller: &Caller, path: String, items: Items) -> Result<Changed, Failure> {
    let named = path.clone();
    let changed = app.store.put_variable(path, items, Arc::clone(&app.director), caller.by()).await.map_err(|refusal| match refusal {
        VariableRefusal::Store(error) => error.into(),
        other => Failure::new(StatusCode::CONFLICT, "no_room", format!("variable {named}: {other}"))
            .hint("purge what is not needed: `skerry var list`, `skerry var purge`"),
    })?;
    tracing::info!(path = named, nodes = changed.nodes, by = caller.name, "variable changed");
    Ok(changed)
}

fn check(path: &str, items: &Items) -> Result<(), Failure> {
    let bad = |message: String| Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_variable", message));
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    let parts = path.split('/').all(|part| !part.is_empty() && part.chars().all(letter));
    if !parts || path.len() > limits::VARIABLE_PATH {
        let message = format!("`{}` is not the path of a variable", path.escape_debug());
        let hint = format!("letters, digits, `-`, `_`, `.` and `~` between single slashes, at most {} characters", limits::VARIABLE_PATH);
        return bad(message).map_err(|f: Failure| f.hint(hint));
    }
    if items.is_empty() {
        return bad("a variable has at least one item".to_owned()).map_err(|f: Failure| f.hint("`skerry var purge` removes one"));
    }
    if let Some(key) = items.keys().find(|k| k.is_empty() || k.len() > KEY || k.chars().any(char::is_control)) {
        return bad(format!("`{}` is not a key: 1 to {KEY} bytes without control characters", key.escape_debug()));
    }
    let size = values::size(path, items);
    if size > limits::VARIABLE {
        return bad(format!("variable {path} has {size} bytes; at most {} are kept", limits::VARIABLE));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_put() {
        let items = |key: &str, value: &str| Items::from([(key.to_owned(), value.to_owned())]);
        for path in ["nomad/jobs", "nomad/jobs/till-1.x/web_a/~", "a"] {
            assert!(check(path, &items("k", "")).is_ok(), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", "a b", "ä", &"a".repeat(257)] {
            assert!(check(path, &items("k", "v")).is_err(), "{path}");
        }
        for items in [Items::new(), items("", "v"), items("a\nb", "v"), items("k", &"v".repeat(limits::VARIABLE))] {
            assert!(check("a", &items).is_err());
        }
    }
}
