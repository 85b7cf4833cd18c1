//! `skerry alloc logs`: the end of what a task wrote, ordered from its node, which sends it with its next poll.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use skerry_client::Client;
use skerry_wire::api::{AllocSummary, LogRequest, LogStatus};
use skerry_wire::{Millis, Timestamp};
use tokio::time::Instant;

use crate::output;

/// Between two looks for the answer.
const LOOK: Duration = Duration::from_millis(500);

/// Orders the output and waits for it.
pub(crate) async fn order(client: &Client, alloc: &AllocSummary, request: LogRequest, wait: Millis, json: bool) -> Result<()> {
    let mut status = client.order_log(&alloc.id, &request).await?;
    if status.answered_at.is_none() {
        output::note(&format!("{} (last heard of {}) sends it with its next poll", alloc.node_name, seen(status.last_seen)));
    }
    let end = Instant::now() + Duration::from_millis(wait.0);
    while status.answered_at.is_none() {
        if Instant::now() >= end {
            bail!(
                "{} has not answered yet; the order stays with the server. Once it has: skerry alloc logs --order {}",
                alloc.node_name,
                status.id
            );
        }
        tokio::time::sleep(LOOK).await;
        status = match client.log_order(&status.id).await {
            Ok(next) => next,
            // The server may be away for a while; the order is on its disk.
            Err(error) if error.is_transient() => continue,
            Err(error) => return Err(error).with_context(|| format!("waiting for the answer to order {}", status.id)),
        };
    }
    show(&status, json)
}

/// What came of an order of before.
pub(crate) async fn read(client: &Client, order: &str, json: bool) -> Result<()> {
    let id = order.parse().context("the order is named by the whole id that `skerry alloc logs` gave")?;
    let status = client.log_order(&id).await?;
    if status.answered_at.is_none() && !json {
        bail!("{} (last heard of {}) has not answered yet", status.node_name, seen(status.last_seen));
    }
    show(&status, json)
}

fn seen(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), output::time)
}

fn show(status: &LogStatus, json: bool) -> Result<()> {
    if json {
        return output::json(status);
    }
    if let Some(error) = &status.error {
        bail!("{}: {error}", status.node_name);
    }
    if status.cut {
        output::note("older lines are left out: they would not fit into one answer");
    }
    let text = status.text.as_deref().unwrap_or_default();
    // A program that reads it gets what the task wrote; a terminal nothing that could steer it.
    if std::io::stdout().is_terminal() { output::print(text) } else { output::raw(text) }
}
