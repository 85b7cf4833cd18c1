//! `POST /v1/jobs/plan`: what a submit would do, and what it would cost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use skerry_jobspec::{Images, Severity, validate};
use skerry_plan::{Fleet, JobVersion, Plan};
use skerry_wire::api::{Placement, PlanReply, PlanRequest, PriceRow};
use skerry_wire::job::Job;
use skerry_wire::{ImageId, NodeId};

use super::resolve;
use crate::app::App;
use crate::clock;
use crate::http::Failure;
use crate::http::body::JsonBody;

/// Problems told at most.
const TOLD: usize = 10;

pub(super) async fn plan(State(app): State<Arc<App>>, JsonBody(request): JsonBody<PlanRequest>) -> Result<Json<PlanReply>, Failure> {
    let mut job = request.job;
    let fleet = app.store.fleet().await?;
    resolve::resolve(&app, &fleet, &mut job).await?;
    resolve::check_known(&fleet, &job)?;
    check(&job)?;
    Ok(Json(preview(&app, fleet, job).await?))
}

/// The rules of a job that is ready to be signed.
pub(super) fn check(job: &Job) -> Result<(), Failure> {
    let problems = validate(job, Images::Resolved);
    let errors: Vec<String> = problems.iter().filter(|p| p.severity == Severity::Error).take(TOLD).map(ToString::to_string).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_job", errors.join("; "))
        .hint("`skerry job validate` shows the places in the file"))
}

/// What a submit of the job would do to this fleet.
pub(super) async fn preview(app: &Arc<App>, mut fleet: Fleet, job: Job) -> Result<PlanReply, Failure> {
    let id = job.id.clone();
    let current = fleet.jobs.get(&id);
    let unchanged = current.is_some_and(|c| c.stopped.is_none() && c.job == job);
    let version = match current {
        Some(current) if unchanged => current.version,
        Some(current) => current.version.saturating_add(1),
        None => 1,
    };
    fleet.now = clock::now();
    fleet.jobs.insert(id.clone(), JobVersion { version, job: job.clone(), stopped: None });
    let plan = skerry_plan::plan(&fleet);
    let before = fleet.clone();
    plan.apply(&mut fleet.allocs);
    let price = price(app, fleet, &id).await?;
    Ok(PlanReply { job: Some(job), version, unchanged, price, ..describe(&before, &plan, &id) })
}

/// The part of a plan that concerns one job, in the words of the API. `before` are the allocations that the plan was made for.
pub(super) fn describe(before: &Fleet, plan: &Plan, job: &str) -> PlanReply {
    let name = |node: &NodeId| before.nodes.get(node).map(|n| n.fingerprint.name.clone()).unwrap_or_default();
    let mut placements: Vec<_> = plan.starts.iter().filter(|s| s.alloc.job == job).collect();
    placements.sort_by_key(|s| (s.alloc.group.clone(), s.alloc.index, s.alloc.node));
    let placement = |alloc: &skerry_plan::Alloc, replaces| Placement {
        node: alloc.node,
        node_name: name(&alloc.node),
        group: alloc.group.clone(),
        index: alloc.index,
        replaces,
    };
    let mut stops: Vec<_> =
        plan.stops.iter().filter_map(|s| before.allocs.get(&s.alloc)).filter(|a| a.job == job).map(|a| placement(a, None)).collect();
    stops.sort();
    PlanReply {
        placements: placements.into_iter().map(|s| placement(&s.alloc, s.replaces)).collect(),
        stops,
        failures: plan.failures.get(job).cloned().unwrap_or_default(),
        ..PlanReply::default()
    }
}

/// The price rows of a job's current version in this fleet. Reads indexes from the disk.
pub(super) async fn price(app: &Arc<App>, fleet: Fleet, job: &str) -> Result<Vec<PriceRow>, Failure> {
    let images: BTreeSet<ImageId> = fleet.jobs.get(job).into_iter().flat_map(|j| j.job.images()).filter_map(|c| c.image_id).collect();
    let built: BTreeMap<_, _> = app.store.built(images.into_iter().collect()).await?.into_iter().collect();
    let (estimator, job) = (app.builds.estimator(), job.to_owned());
    tokio::task::spawn_blocking(move || skerry_plan::price(&fleet, &job, &built, estimator.as_ref())).await.map_err(Failure::internal)
}
