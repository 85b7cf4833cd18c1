//! `skerry deployment`: sets, their rows, and waiting for their end.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use skerry_client::Client;
use skerry_wire::SetId;
use skerry_wire::api::{Health, SetRow, SetState, SetStatus, SetSummary};
use tokio::time::Instant;

use crate::args::DeploymentCommand;
use crate::output;

/// Between two looks while waiting.
const LOOK: Duration = Duration::from_millis(500);
/// How long the server may be away meanwhile.
const AWAY: Duration = Duration::from_secs(5 * 60);

/// `skerry deployment ...`
pub(crate) async fn run(client: &Client, command: DeploymentCommand, json: bool) -> Result<()> {
    let sets = client.sets().await?;
    match command {
        DeploymentCommand::List if json => output::json(&sets),
        DeploymentCommand::List => output::print(&table(&sets)),
        DeploymentCommand::Status { id } => {
            let found = output::pick(&sets, &id, "deployment set", |s| vec![s.id.to_string()])?;
            let status = client.set(&found.id).await?;
            if json { output::json(&status) } else { output::print(&describe(&status)) }
        }
    }
}

/// A table of sets.
pub(crate) fn table(sets: &[SetSummary]) -> String {
    output::table(
        &["SET", "JOB", "VERSION", "STATE", "ORDERED BY", "CREATED", "FINISHED"],
        &["VERSION"],
        sets.iter().map(|s| {
            vec![
                s.id.short(),
                s.job.clone(),
                s.version.to_string(),
                word(s.state).to_owned(),
                format!("{} <{}>", s.submitter.name, s.submitter.email),
                output::time(s.created_at),
                s.finished_at.map(output::time).unwrap_or_default(),
            ]
        }),
    )
}

/// A set with its rows.
pub(crate) fn describe(status: &SetStatus) -> String {
    let s = &status.summary;
    let head = format!(
        "Deployment set  {}\nJob             {} version {}\nOrdered by      {} <{}>\nCreated         {}\nState           {}\nAllocations     {}\n\n",
        s.id,
        s.job,
        s.version,
        s.submitter.name,
        s.submitter.email,
        output::time(s.created_at),
        word(s.state),
        health(&s.health),
    );
    head + &output::table(
        &["NODE", "IMAGE", "STATE", "SIZE", "BASE", "REASON"],
        &["SIZE"],
        status.rows.iter().map(|r| {
            vec![
                r.node_name.clone(),
                r.reference.clone(),
                word(r.state).to_owned(),
                r.size.map(output::bytes).unwrap_or_default(),
                match (r.base, r.size) {
                    (Some(base), _) => base.digest().short(),
                    (None, Some(_)) => "full".to_owned(),
                    (None, None) => String::new(),
                },
                r.reason.clone().unwrap_or_default(),
            ]
        }),
    )
}

/// Health for people: `2 wanted, 1 healthy, 1 unhealthy`.
fn health(h: &Health) -> String {
    let counted = [(h.healthy, "healthy"), (h.unhealthy, "unhealthy"), (h.complete, "complete"), (h.lost, "lost")];
    let counted = counted.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
    format!("{} wanted{}", h.wanted, counted.collect::<String>())
}

/// Waits until a set has come to its end; `timeout` in seconds. Gives it as it is then, and what is wrong when it failed or the time
/// ran out. A server that is away for a while is waited for.
pub(crate) async fn wait(client: &Client, id: &SetId, timeout: Option<u64>) -> Result<(SetStatus, Option<String>)> {
    // A time that no clock reaches is for ever.
    let deadline = timeout.and_then(|s| Instant::now().checked_add(Duration::from_secs(s)));
    let bar = if output::interactive() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{spinner} {pos} of {len} rows done  {msg}").expect("a template of ours"));
    let mut answered = Instant::now();
    loop {
        let status = match client.set(id).await {
            Ok(status) => status,
            Err(error) if error.is_transient() && answered.elapsed() < AWAY && deadline.is_none_or(|d| Instant::now() < d) => {
                bar.set_message("the server does not answer; still waiting");
                bar.tick();
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => {
                bar.finish_and_clear();
                return Err(error).with_context(|| format!("waiting for deployment set {id}; it goes on without this command"));
            }
        };
        answered = Instant::now();
        let done = status.rows.iter().filter(|r| ended(r.state)).count();
        bar.set_length(status.rows.len() as u64);
        bar.set_position(done as u64);
        bar.set_message(status.rows.iter().find(|r| !ended(r.state)).map(waiting_for).unwrap_or_default());
        bar.tick();
        let fault = match status.summary.state {
            SetState::Succeeded => None,
            SetState::Failed => Some("the deployment set failed".to_owned()),
            SetState::Queued | SetState::InTransit if deadline.is_some_and(|d| Instant::now() >= d) => {
                Some(format!("not at its end after {} s; it goes on without this command", timeout.unwrap_or_default()))
            }
            SetState::Queued | SetState::InTransit => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        bar.finish_and_clear();
        return Ok((status, fault));
    }
}

fn ended(state: SetState) -> bool {
    matches!(state, SetState::Succeeded | SetState::Failed)
}

fn waiting_for(row: &SetRow) -> String {
    output::shown(&format!("{} on {}: {}", row.reference, row.node_name, word(row.state)), &[]).into_owned()
}

/// A state for people.
pub(crate) fn word(state: SetState) -> &'static str {
    match state {
        SetState::Queued => "queued",
        SetState::InTransit => "in transit",
        SetState::Succeeded => "succeeded",
        SetState::Failed => "failed",
    }
}
