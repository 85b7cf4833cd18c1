//! The fleet as operators see and order it: jobs, allocations, nodes, variables, deployment sets, bundles.
//!
//! In: signed specifications and orders. Out: what was decided, from the planner's mouth. What an order changes is written in one
//! transaction, with who ordered it.

mod logs;
mod operate;
mod plan;
mod resolve;
mod submit;
mod unknown;
mod variables;
mod views;
pub mod watch;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;
use crate::http::auth::guarded;
use crate::store::Role::{Operator, Reader};

/// The operators' addresses of the fleet.
pub fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/v1/jobs", guarded(app, Reader, get(views::jobs)).merge(guarded(app, Operator, post(submit::submit))))
        .route("/v1/jobs/plan", guarded(app, Reader, post(plan::plan)))
        .route("/v1/jobs/{id}", guarded(app, Reader, get(views::job)))
        .route("/v1/jobs/{id}/stop", guarded(app, Operator, post(submit::stop)))
        .route("/v1/allocations", guarded(app, Reader, get(views::allocs)))
        .route("/v1/allocations/{id}", guarded(app, Reader, get(views::alloc)))
        .route("/v1/deployment-sets", guarded(app, Reader, get(views::sets)))
        .route("/v1/deployment-sets/{id}", guarded(app, Reader, get(views::set)))
        .route("/v1/nodes", guarded(app, Reader, get(views::nodes)))
        .route("/v1/nodes/{id}", guarded(app, Reader, get(views::node)))
        .route("/v1/allocations/{id}/retry", guarded(app, Operator, post(operate::retry)))
        .route("/v1/allocations/{id}/override-lock", guarded(app, Operator, post(operate::override_lock)))
        .route("/v1/allocations/{id}/logs", guarded(app, Operator, post(logs::order)))
        .route("/v1/unknown-allocations", guarded(app, Reader, get(unknown::list)))
        .route("/v1/unknown-allocations/{id}/adopt", guarded(app, Operator, post(unknown::adopt)))
        .route("/v1/unknown-allocations/{id}/bury", guarded(app, Operator, post(unknown::bury)))
        .route("/v1/log-orders/{id}", guarded(app, Operator, get(logs::read)))
        .route("/v1/nodes/{id}/eligibility", guarded(app, Operator, post(operate::eligibility)))
        .route("/v1/nodes/{id}/drain", guarded(app, Operator, post(operate::drain)))
        .route("/v1/nodes/{id}/meta", guarded(app, Operator, post(operate::meta)))
        .route("/v1/variables", guarded(app, Reader, get(variables::list)))
        .route("/v1/variable", guarded(app, Operator, get(variables::get).put(variables::put).delete(variables::purge)))
        .route("/v1/bundles", guarded(app, Reader, get(views::bundles)))
}
