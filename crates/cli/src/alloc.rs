//! `skerry alloc`: what runs where, why it is as it is, and orders about it.

use anyhow::Result;
use skerry_client::Client;
use skerry_wire::api::{AllocDetail, AllocOrder, AllocSummary, DesiredStatus, LogRequest};

use crate::args::AllocCommand;
use crate::config::Config;
use crate::node::span;
use crate::{logs, output, unknown};

/// `skerry alloc ...`
pub(crate) async fn run(config: &Config, client: &Client, command: AllocCommand, json: bool) -> Result<()> {
    if let AllocCommand::Logs { order: Some(order), .. } = &command {
        return logs::read(client, order, json).await;
    }
    let all = client.allocs().await?;
    let pick = |id: &str| output::pick(&all, id, "allocation", |a| vec![a.id.to_string()]);
    let (detail, done) = match command {
        AllocCommand::List if json => return output::json(&all),
        AllocCommand::List => return output::print(&table(&all)),
        AllocCommand::Status { id } => {
            let detail = client.alloc(&pick(&id)?.id).await?;
            return if json { output::json(&detail) } else { output::print(&describe(&detail)) };
        }
        AllocCommand::Logs { id, task, lines, wait, .. } => {
            let request = LogRequest { task, lines, submitter: config.submitter()? };
            return logs::order(client, pick(&id.unwrap_or_default())?, request, span(&wait)?, json).await;
        }
        AllocCommand::Retry { id } => {
            let order = AllocOrder { submitter: config.submitter()? };
            (client.retry_alloc(&pick(&id)?.id, &order).await?, "is ordered to be tried again")
        }
        AllocCommand::OverrideLock { id } => {
            let order = AllocOrder { submitter: config.submitter()? };
            (client.override_lock(&pick(&id)?.id, &order).await?, "is ordered to switch in spite of an update lock")
        }
        AllocCommand::Unknown(command) => return unknown::run(config, client, command, json).await,
    };
    if json {
        return output::json(&detail);
    }
    let a = &detail.summary;
    output::print(&format!("Allocation {} on {} {done}; its node hears of it with its next poll.\n", a.id.short(), a.node_name))
}

/// A table of allocations.
pub(crate) fn table(all: &[AllocSummary]) -> String {
    output::table(
        &["ALLOC", "JOB", "VERSION", "GROUP", "NODE", "DESIRED", "STATUS", "HEALTH", "RESTARTS", "REASON"],
        &["VERSION", "RESTARTS"],
        all.iter().map(|a| {
            vec![
                a.id.short(),
                a.job.clone(),
                a.version.to_string(),
                format!("{}[{}]", a.group, a.index),
                a.node_name.clone(),
                desired(a.desired).to_owned(),
                status(a),
                health(a.healthy).to_owned(),
                a.restarts.to_string(),
                a.reason.clone(),
            ]
        }),
    )
}

/// The client status; of a node that was silent for too long it is what was known last.
fn status(a: &AllocSummary) -> String {
    match a.lost_since {
        Some(_) => format!("lost (was {})", a.status),
        None => a.status.to_string(),
    }
}

fn health(healthy: Option<bool>) -> &'static str {
    match healthy {
        Some(true) => "healthy",
        Some(false) => "unhealthy",
        None => "",
    }
}

fn desired(status: DesiredStatus) -> &'static str {
    match status {
        DesiredStatus::Run => "run",
        DesiredStatus::Stop => "stop",
    }
}

/// An allocation with its last states and runs.
fn describe(detail: &AllocDetail) -> String {
    let a = &detail.summary;
    let mut text = format!(
        "Allocation  {}\nJob         {} version {}\nGroup       {}[{}]\nNode        {} ({})\nDesired     {}\nStatus      {}\nReason      {}\nRestarts    {}\nUpdated     {}\n",
        a.id,
        a.job,
        a.version,
        a.group,
        a.index,
        a.node_name,
        a.node,
        desired(a.desired),
        status(a),
        a.reason,
        a.restarts,
        output::time(a.updated_at),
    );
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{value}\n"));
    if a.healthy.is_some() {
        line("Health", health(a.healthy).to_owned());
    }
    if let Some(until) = a.waits_until {
        line("Waits until", format!("{} at the latest", output::time(until)));
    }
    if let Some(since) = a.lost_since {
        line("Lost since", format!("{}: its node is silent, it may be running still", output::time(since)));
    }
    if detail.retry > 0 {
        line("Tried again", format!("{} times by order", detail.retry));
    }
    if detail.override_lock {
        line("Update lock", "overridden until the switch".to_owned());
    }
    if !detail.states.is_empty() {
        text.push_str("\nLast states, newest first\n");
        text.push_str(&output::table(
            &["TIME", "STATUS", "HEALTH", "RESTARTS", "WAITS UNTIL", "REASON"],
            &["RESTARTS"],
            detail.states.iter().map(|s| {
                vec![
                    output::time(s.at),
                    s.status.to_string(),
                    health(s.healthy).to_owned(),
                    s.restarts.to_string(),
                    s.waits_until.map(output::time).unwrap_or_default(),
                    s.reason.clone(),
                ]
            }),
        ));
    }
    if !detail.runs.is_empty() {
        text.push_str("\nLast runs, newest first\n");
        text.push_str(&output::table(
            &["RUN", "STATUS", "FIRST HEARD", "LAST HEARD", "REASON"],
            &["RUN"],
            detail
                .runs
                .iter()
                .map(|r| vec![r.run.to_string(), r.status.to_string(), output::time(r.first_at), output::time(r.at), r.reason.clone()]),
        ));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use skerry_wire::api::{AllocRun, AllocState};
    use skerry_wire::poll::AllocStatus;
    use skerry_wire::{AllocId, NodeId, Timestamp};

    const AT: Timestamp = Timestamp(1_795_200_000_000);

    /// An allocation on a node that was silent for too long.
    pub(crate) fn lost() -> AllocSummary {
        AllocSummary {
            id: AllocId::new([0xcd; 16]),
            job: "till".to_owned(),
            version: 2,
            group: "web".to_owned(),
            index: 0,
            node: NodeId::new([0xab; 16]),
            node_name: "till-1".to_owned(),
            desired: DesiredStatus::Run,
            status: AllocStatus::Running,
            reason: "all tasks run".to_owned(),
            restarts: 1,
            updated_at: AT,
            healthy: Some(true),
            waits_until: None,
            lost_since: Some(Timestamp(AT.0 + 60_000)),
        }
    }

    #[test]
    fn an_allocation_for_people() {
        let state = |seconds: i64, status, healthy, reason: &str| AllocState {
            at: Timestamp(AT.0 - seconds * 1000),
            status,
            reason: reason.to_owned(),
            healthy,
            restarts: 1,
            waits_until: (status == AllocStatus::Pending).then_some(AT),
        };
        let waiting = AllocSummary { waits_until: Some(Timestamp(AT.0 + 1)), lost_since: None, ..lost() };
        let runs = [(8, AllocStatus::Running, "runs"), (7, AllocStatus::Failed, "task `app` ended with 1")];
        let runs = runs.map(|(run, status, reason)| AllocRun { run, status, reason: reason.to_owned(), first_at: AT, at: AT });
        let detail = AllocDetail {
            summary: waiting,
            retry: 2,
            override_lock: true,
            states: vec![
                state(1, AllocStatus::Running, Some(true), "all tasks run"),
                state(30, AllocStatus::Pending, None, "waits for \u{1b}[2Kan image"),
            ],
            runs: runs.into(),
        };
        let bare = AllocDetail { summary: lost(), retry: 0, override_lock: false, states: Vec::new(), runs: Vec::new() };
        let both = format!("{}\n{}", describe(&detail), describe(&bare));
        assert_eq!(both, include_str!("../tests/golden/alloc-status.txt"));
    }
}
