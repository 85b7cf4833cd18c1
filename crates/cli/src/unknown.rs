//! `skerry alloc unknown`: what nodes keep and the server does not know, and orders about it.

use anyhow::Result;
use skerry_client::Client;
use skerry_wire::api::{AllocOrder, UnknownSummary};

use crate::args::UnknownCommand;
use crate::config::Config;
use crate::output;

/// `skerry alloc unknown ...`
pub(crate) async fn run(config: &Config, client: &Client, command: UnknownCommand, json: bool) -> Result<()> {
    let all = client.unknown_allocs().await?;
    let pick = |id: &str| output::pick(&all, id, "unknown allocation", |a| vec![a.id.to_string()]);
    match command {
        UnknownCommand::List if json => output::json(&all),
        UnknownCommand::List => output::print(&table(&all)),
        UnknownCommand::Adopt { id } => {
            let adopted = client.adopt_alloc(&pick(&id)?.id, &AllocOrder { submitter: config.submitter()? }).await?;
            if json {
                return output::json(&adopted);
            }
            let (job, version) = (&adopted.job, adopted.version);
            output::print(&format!(
                "Job {job} version {version} is in force, with {} allocations that ran already.\n",
                adopted.allocs.len()
            ))
        }
        UnknownCommand::Bury { id } => {
            let buried = client.bury_alloc(&pick(&id)?.id, &AllocOrder { submitter: config.submitter()? }).await?;
            if json {
                return output::json(&buried);
            }
            let (id, node) = (buried.id.short(), &buried.node_name);
            output::print(&format!("Allocation {id} on {node} is ordered to stop; its node hears of it with its next poll.\n"))
        }
    }
}

/// A table of them.
fn table(all: &[UnknownSummary]) -> String {
    output::table(
        &["ALLOC", "JOB", "VERSION", "GROUP", "NODE", "STATUS", "TOLD", "NEXT"],
        &["VERSION"],
        all.iter().map(|a| {
            let next = match (&a.stopping, a.handed_over) {
                (Some(reason), _) => format!("stops: {reason}"),
                (None, true) => "adopt or bury".to_owned(),
                (None, false) => "bury, or adopt when its specification is here".to_owned(),
            };
            vec![
                a.id.short(),
                a.job.clone(),
                a.version.to_string(),
                format!("{}[{}]", a.group, a.index),
                a.node_name.clone(),
                a.status.to_string(),
                output::time(a.told_at),
                next,
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::poll::AllocStatus;
    use skerry_wire::{AllocId, Digest, NodeId, Timestamp};

    #[test]
    fn unknown_allocations_for_people() {
        let alloc = |n: u8, stopping: Option<&str>, handed_over| UnknownSummary {
            id: AllocId::new([n; 16]),
            job: "till".to_owned(),
            version: 3,
            group: "web".to_owned(),
            index: 0,
            node: NodeId::new([0xab; 16]),
            node_name: "till-1".to_owned(),
            status: AllocStatus::Running,
            told_at: Timestamp(1_795_200_000_000),
            stopping: stopping.map(str::to_owned),
            specification: Digest::new([7; 32]),
            handed_over,
        };
        let text = table(&[alloc(0xcd, None, true), alloc(0xce, None, false), alloc(0xcf, Some("stopped by ada@example.org"), true)]);
        assert_eq!(text, include_str!("../tests/golden/alloc-unknown.txt"));
    }
}
