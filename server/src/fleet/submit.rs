//! `POST /v1/jobs`, `POST /v1/jobs/{id}/stop`: orders.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;
use skerry_wire::api::{JobSummary, PlanReply, StopRequest, SubmitReply, SubmitRequest, Submitter};
use skerry_wire::release::Specification;
use skerry_wire::{Digest, limits};

use super::{plan, resolve, views};
use crate::app::App;
use crate::http::Failure;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::store::Submission;

/// The longest name or e-mail address of who orders something, bytes.
const SUBMITTER: usize = 256;

pub(super) async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<SubmitRequest>,
) -> Result<Json<SubmitReply>, Failure> {
    check_submitter(&request.submitter)?;
    if request.source.len() > limits::JOBSPEC {
        let message = format!("the jobspec has {} bytes; at most {} are kept", request.source.len(), limits::JOBSPEC);
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "jobspec_too_large", message));
    }
    let envelope = request.specification.0;
    let opened = app.director.root().open_release::<Specification>(&envelope, Specification::PURPOSE, limits::SPECIFICATION);
    let (specification, key) = opened.map_err(|e| {
        Failure::new(StatusCode::FORBIDDEN, "bad_signature", format!("the specification is refused: {e}"))
            .hint("sign it with a release key that the root names: `release_key` in the CLI's configuration")
    })?;
    let job = specification.job;
    plan::check(&job)?;
    let fleet = app.store.fleet().await?;
    resolve::check_known(&fleet, &job)?;
    let expected = plan::preview(&app, fleet.clone(), job.clone()).await?;
    check_price(&expected, request.max_bytes)?;
    let id = job.id.clone();
    let digest = ring::digest::digest(&ring::digest::SHA256, &envelope);
    let digest = Digest::new(digest.as_ref().try_into().map_err(Failure::internal)?);
    let submission = Submission {
        job: job.clone(),
        specification: envelope,
        digest,
        source: request.source,
        submitter: request.submitter,
        again: request.again,
    };
    let done = app.store.submit(submission, Arc::clone(&app.director), caller.by()).await?;
    tracing::info!(job = id, version = done.version, unchanged = done.unchanged, %key, "submitted");
    let described = plan::describe(&done.before, &done.plan, &id);
    let plan = PlanReply { job: Some(job), version: done.version, unchanged: done.unchanged, price: expected.price, ..described };
    Ok(Json(SubmitReply { job: id, version: done.version, set: done.set, plan }))
}

pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<StopRequest>,
) -> Result<Json<JobSummary>, Failure> {
    check_submitter(&request.submitter)?;
    if !app.store.stop_job(id.clone(), request.submitter, Arc::clone(&app.director), caller.by()).await? {
        return Err(views::unknown_job(&id));
    }
    tracing::info!(job = id, "stopped");
    let status = app.store.job(id.clone()).await?.ok_or_else(|| views::unknown_job(&id))?;
    Ok(Json(status.summary))
}

pub(super) fn check_submitter(submitter: &Submitter) -> Result<(), Failure> {
    let plain = |text: &str| !text.trim().is_empty() && text.len() <= SUBMITTER && !text.chars().any(char::is_control);
    if plain(&submitter.name) && plain(&submitter.email) && submitter.email.contains('@') {
        return Ok(());
    }
    let message = "an order needs the name and the e-mail address of who gives it";
    Err(Failure::new(StatusCode::BAD_REQUEST, "bad_submitter", message).hint("set [submitter] in the CLI's configuration"))
}

fn check_price(plan: &PlanReply, max_bytes: Option<u64>) -> Result<(), Failure> {
    let bytes: u64 = plan.price.iter().fold(0, |sum, row| sum.saturating_add(row.bytes));
    match max_bytes {
        Some(max) if bytes > max && !plan.unchanged => {
            let message = format!("the plan costs {bytes} bytes over all nodes, more than the {max} that are allowed");
            Err(Failure::new(StatusCode::CONFLICT, "too_expensive", message)
                .hint("`skerry job plan` shows the price per node; raise the limit to submit it all the same"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::api::PriceRow;
    use skerry_wire::{ImageId, NodeId};

    #[test]
    fn the_price_is_checked_over_all_nodes() {
        let row = |n: u8, bytes| PriceRow {
            node: NodeId::new([n; 16]),
            node_name: String::new(),
            image: ImageId(Digest::new([1; 32])),
            reference: String::new(),
            base: None,
            bytes,
            built: false,
            disk_peak: 0,
        };
        let plan = PlanReply { price: vec![row(1, 60), row(2, 50)], ..PlanReply::default() };
        assert!(check_price(&plan, None).is_ok());
        assert!(check_price(&plan, Some(110)).is_ok());
        assert_eq!(check_price(&plan, Some(109)).unwrap_err().error.code, "too_expensive");
        assert!(check_price(&PlanReply { unchanged: true, ..plan }, Some(1)).is_ok());
    }

    #[test]
    fn who_orders_is_named() {
        let who = |name: &str, email: &str| check_submitter(&Submitter { name: name.to_owned(), email: email.to_owned() }).is_ok();
        assert!(who("Ada Lovelace", "ada@example.org"));
        for (name, email) in [("", "ada@example.org"), ("Ada", ""), ("Ada", "ada"), ("Ada\n", "ada@example.org"), ("Ada", &"@".repeat(300))]
        {
            assert!(!who(name, email), "{name} {email}");
        }
    }
}
