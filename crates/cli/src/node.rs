//! `skerry node`, `skerry token`, `skerry bundle`, `skerry status`: what the server knows.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use skerry_client::Client;
use skerry_wire::Millis;
use skerry_wire::api::{BuildState, DesiredStatus, DrainRequest, EligibilityRequest, MetaRequest, NodeStatus, NodeSummary, TokenRequest};
use skerry_wire::poll::AllocStatus;

use crate::args::{BundleCommand, MetaCommand, NodeCommand, TokenCommand};
use crate::config::Config;
use crate::{alloc, output};

/// `skerry node ...`
pub(crate) async fn node(config: &Config, client: &Client, command: NodeCommand, json: bool) -> Result<()> {
    let nodes = client.nodes().await?;
    let pick = |id: &str| output::pick(&nodes, id, "node", |n| vec![n.id.to_string(), n.name.clone()]);
    let (node, changed, done) = match command {
        NodeCommand::List if json => return output::json(&nodes),
        NodeCommand::List => return output::print(&list(&nodes)),
        NodeCommand::Status { id } => {
            let status = client.node(&pick(&id)?.id).await?;
            return if json { output::json(&status) } else { output::print(&describe(&status)) };
        }
        NodeCommand::Eligibility { id, switch } => {
            let (node, eligible) = (pick(&id)?, switch.enable);
            let request = EligibilityRequest { eligible, submitter: config.submitter()? };
            let done = if eligible { "eligible for new allocations" } else { "not eligible for new allocations; it keeps what it has" };
            (node, client.set_eligibility(&node.id, &request).await?, done)
        }
        NodeCommand::Drain { id, switch, deadline, ignore_system } => {
            let (node, deadline) = (pick(&id)?, deadline.as_deref().map(span).transpose()?);
            let request = DrainRequest { enable: switch.enable, deadline, ignore_system, submitter: config.submitter()? };
            let done = if switch.enable { "drained: its services move to other nodes" } else { "drained no more, and eligible" };
            (node, client.drain_node(&node.id, &request).await?, done)
        }
        NodeCommand::Meta(MetaCommand::Apply { id, changes }) => {
            let (node, (set, unset)) = (pick(&id)?, meta(&changes)?);
            let request = MetaRequest { set, unset, submitter: config.submitter()? };
            (node, client.apply_meta(&node.id, &request).await?, "given this meta with its next manifest")
        }
    };
    if json {
        return output::json(&changed);
    }
    match changed.changed {
        true => output::print(&format!("Node {} is {done}.\n", node.name)),
        false => output::print(&format!("Node {}: nothing changes.\n", node.name)),
    }
}

/// `k=v` and `k-`.
fn meta(changes: &[String]) -> Result<(BTreeMap<String, String>, Vec<String>)> {
    let (mut set, mut unset) = (BTreeMap::new(), Vec::new());
    for change in changes {
        match (change.split_once('='), change.strip_suffix('-')) {
            (Some((key, value)), _) => drop(set.insert(key.to_owned(), value.to_owned())),
            (None, Some(key)) => unset.push(key.to_owned()),
            (None, None) => bail!("`{change}` is no change of meta: expected KEY=VALUE or KEY-"),
        }
    }
    Ok((set, unset))
}

fn list(nodes: &[NodeSummary]) -> String {
    output::table(
        &["ID", "NAME", "POOL", "ARCH", "AGENT", "LAST SEEN", "STATE", "COUNTER"],
        &["COUNTER"],
        nodes.iter().map(|n| {
            vec![
                n.id.short(),
                n.name.clone(),
                n.pool.clone(),
                n.architecture.clone(),
                n.agent_version.clone(),
                n.last_seen.map_or_else(|| "never".to_owned(), output::time),
                state(n),
                if n.counter == n.latest_counter { n.counter.to_string() } else { format!("{} of {}", n.counter, n.latest_counter) },
            ]
        }),
    )
}

/// What an operator ordered, and whether the node is silent for too long: `ready`, `drained, lost`.
fn state(n: &NodeSummary) -> String {
    let order = match (&n.drain, n.eligible) {
        (Some(_), _) => "drained",
        (None, false) => "ineligible",
        (None, true) => "ready",
    };
    if n.lost { format!("{order}, lost") } else { order.to_owned() }
}

/// A node for people.
fn describe(status: &NodeStatus) -> String {
    let (s, f) = (&status.summary, &status.fingerprint);
    let never = || "never".to_owned();
    let mut text = format!(
        "Node        {} ({})\nPool        {}\nAgent       {} on {}\nLast seen   {}{}\nManifest    {} of {}\nEligible    {}\n",
        s.name,
        s.id,
        s.pool,
        s.agent_version,
        s.architecture,
        s.last_seen.map_or_else(never, output::time),
        if s.lost { ", and silent for too long since" } else { "" },
        s.counter,
        s.latest_counter,
        if s.eligible { "yes" } else { "no" },
    );
    if let Some(drain) = &s.drain {
        let left = status.allocs.iter().filter(|a| a.desired == DesiredStatus::Run && a.status != AllocStatus::Complete).count();
        let deadline = drain.deadline.map_or_else(|| "no deadline".to_owned(), |at| format!("deadline {}", output::time(at)));
        let system = if drain.ignore_system { ", system jobs stay" } else { "" };
        text.push_str(&format!("Drain       {left} left, {deadline}{system}\n"));
    }
    text.push_str(&format!("Memory      {} MiB\nDisk free   {}\n", f.memory_mib, output::bytes(f.disk_free)));
    match &f.engine {
        Some(e) => text.push_str(&format!("Engine      {} ({})\n", e.version, e.storage_driver)),
        None => text.push_str("Engine      does not answer\n"),
    }
    if let Some(trouble) = &f.trouble {
        text.push_str(&format!("Trouble     {trouble}\n"));
    }
    for (key, value) in &f.attributes {
        text.push_str(&format!("  {key} = {value}\n"));
    }
    if !(f.meta.is_empty() && status.meta.is_empty()) {
        text.push_str("Meta\n");
        let own = f.meta.iter().filter(|(key, _)| !status.meta.contains_key(*key));
        for (key, value) in own {
            text.push_str(&format!("  {key} = {value}\n"));
        }
        for (key, value) in &status.meta {
            text.push_str(&format!("  {key} = {value} (set on the server)\n"));
        }
    }
    text.push_str(&format!("\nImages      {}\n\n", status.inventory.images.len()));
    for row in &status.arriving {
        let state = crate::deployment::word(row.state);
        let reason = row.reason.as_deref().unwrap_or("-");
        text.push_str(&format!("Image       {} {state}: {reason}\n", row.reference));
    }
    if !status.arriving.is_empty() {
        text.push('\n');
    }
    text.push_str(&alloc::table(&status.allocs));
    text
}

/// `skerry token ...`
pub(crate) async fn token(client: &Client, command: TokenCommand, json: bool) -> Result<()> {
    match command {
        TokenCommand::Create { pool, uses, ttl } => {
            let ttl = ttl.as_deref().map(span).transpose()?;
            let reply = client.create_token(&TokenRequest { pool, uses, ttl }).await?;
            if json {
                return output::json(&reply);
            }
            output::note("Keep this token now: its secret is not shown again.");
            output::print(&format!("{}\n", reply.token))
        }
        TokenCommand::List => {
            let tokens = client.tokens().await?;
            if json {
                return output::json(&tokens);
            }
            output::print(&output::table(
                &["ID", "POOL", "USED", "CREATED", "EXPIRES"],
                &["USED"],
                tokens.iter().map(|t| {
                    vec![
                        t.id.short(),
                        t.pool.clone(),
                        format!("{} of {}", t.used, t.uses),
                        output::time(t.created_at),
                        t.expires_at.map_or_else(|| "never".to_owned(), output::time),
                    ]
                }),
            ))
        }
        TokenCommand::Delete { id } => {
            let tokens = client.tokens().await?;
            let found = output::pick(&tokens, &id, "token", |t| vec![t.id.to_string()])?;
            client.delete_token(&found.id).await?;
            if json { output::json(found) } else { output::print(&format!("Token {} ended; nodes that used it stay.\n", found.id.short())) }
        }
    }
}

/// `skerry bundle ...`
pub(crate) async fn bundle(client: &Client, command: BundleCommand, json: bool) -> Result<()> {
    let BundleCommand::List = command;
    let bundles = client.bundles().await?;
    if json {
        return output::json(&bundles);
    }
    output::print(&output::table(
        &["TARGET", "BASES", "STATE", "SIZE", "DIGEST", "REASON"],
        &["SIZE"],
        bundles.iter().map(|b| {
            let bases: Vec<_> = b.bases.iter().map(|i| i.digest().short()).collect();
            vec![
                b.target.digest().short(),
                if bases.is_empty() { "full".to_owned() } else { bases.join(",") },
                match b.state {
                    BuildState::Queued => "queued",
                    BuildState::Building => "building",
                    BuildState::Ready => "ready",
                    BuildState::Failed => "failed",
                }
                .to_owned(),
                b.size.map(output::bytes).unwrap_or_default(),
                b.digest.map(|d| d.short()).unwrap_or_default(),
                b.reason.clone().unwrap_or_default(),
            ]
        }),
    ))
}

/// `skerry status`
pub(crate) async fn status(client: &Client, json: bool) -> Result<()> {
    let s = client.status().await?;
    if json {
        return output::json(&s);
    }
    let kind = if s.development { " (development: it holds all keys)" } else { "" };
    output::print(&format!(
        "Server   {}{kind}\nRoot     version {}\nNodes    {}\nJobs     {}\nBuilds   {} pending\n",
        s.version, s.root_version, s.nodes, s.jobs, s.builds_pending
    ))
}

/// A span as people write it: a number and `s`, `m`, `h` or `d`.
pub(crate) fn span(text: &str) -> Result<Millis> {
    let seconds = text.char_indices().last().and_then(|(at, unit)| {
        let unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        text[..at].parse::<u64>().ok()?.checked_mul(unit)
    });
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Millis::from_secs(seconds)),
        _ => bail!("`{text}` is not a time: expected 90s, 15m, 12h or 30d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::api::{DrainStatus, SetRow};
    use skerry_wire::node::Fingerprint;
    use skerry_wire::{NodeId, Timestamp};

    #[test]
    fn changes_of_meta() {
        let (set, unset) = meta(&["site=a=b".to_owned(), "rack-".to_owned(), "x=-".to_owned()]).unwrap();
        assert_eq!(set, [("site".to_owned(), "a=b".to_owned()), ("x".to_owned(), "-".to_owned())].into());
        assert_eq!(unset, ["rack"]);
        assert!(meta(&["rack".to_owned()]).is_err());
    }

    fn waiting() -> SetRow {
        SetRow {
            node: NodeId::new([0xab; 16]),
            node_name: "till-1".to_owned(),
            image: skerry_wire::ImageId(skerry_wire::Digest::new([7; 32])),
            reference: "till:2".to_owned(),
            state: skerry_wire::api::SetState::Queued,
            reason: Some("waits for the download window, until 2026-11-21 22:00 UTC".to_owned()),
            size: Some(5),
            base: None,
            updated_at: Timestamp(1_795_200_000_000),
        }
    }

    fn golden() -> NodeStatus {
        let fingerprint = Fingerprint {
            name: "till-1".to_owned(),
            attributes: [("cpu.arch".to_owned(), "arm64".to_owned())].into(),
            meta: [("rack".to_owned(), "2".to_owned()), ("site".to_owned(), "own".to_owned())].into(),
            memory_mib: 1024,
            disk_free: 5_000_000_000,
            trouble: Some("ledger /var/lib/skerry/ledger.sqlite: database or disk is full".to_owned()),
            ..Fingerprint::default()
        };
        NodeStatus {
            summary: NodeSummary {
                id: NodeId::new([0xab; 16]),
                name: "till-1".to_owned(),
                pool: "default".to_owned(),
                architecture: "arm64".to_owned(),
                agent_version: "0.1.0".to_owned(),
                last_seen: Some(Timestamp(1_795_200_000_000)),
                counter: 3,
                latest_counter: 4,
                eligible: false,
                drain: Some(DrainStatus { deadline: Some(Timestamp(1_795_203_600_000)), ignore_system: true }),
                lost: true,
            },
            fingerprint,
            inventory: Default::default(),
            meta: [("site".to_owned(), "shop-12".to_owned())].into(),
            allocs: vec![alloc::tests::lost()],
            arriving: vec![waiting()],
        }
    }

    #[test]
    fn a_node_for_people() {
        assert_eq!(describe(&golden()), include_str!("../tests/golden/node-status.txt"));
        let mut ready = golden().summary;
        (ready.eligible, ready.drain, ready.lost) = (true, None, false);
        assert_eq!(list(&[golden().summary, ready]), include_str!("../tests/golden/node-list.txt"));
    }

    #[test]
    fn spans() {
        assert_eq!(span("90s").unwrap(), Millis(90_000));
        assert_eq!(span("30d").unwrap(), Millis::from_secs(30 * 86_400));
        for text in ["", "0s", "s", "5", "5w", "-1s", "99999999999999999999d", "1é"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
