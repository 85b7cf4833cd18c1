//! `skerry node`, `skerry alloc`, `skerry token`, `skerry bundle`, `skerry status`: what the server knows.

use anyhow::{Result, bail};
use skerry_client::Client;
use skerry_wire::Millis;
use skerry_wire::api::{AllocSummary, BuildState, DesiredStatus, TokenRequest};

use crate::args::{AllocCommand, BundleCommand, NodeCommand, TokenCommand};
use crate::output;

/// `skerry node ...`
pub(crate) async fn node(client: &Client, command: NodeCommand, json: bool) -> Result<()> {
    let nodes = client.nodes().await?;
    match command {
        NodeCommand::List if json => output::json(&nodes),
        NodeCommand::List => output::print(&output::table(
            &["ID", "NAME", "POOL", "ARCH", "AGENT", "LAST SEEN", "COUNTER"],
            &["COUNTER"],
            nodes.iter().map(|n| {
                vec![
                    n.id.short(),
                    n.name.clone(),
                    n.pool.clone(),
                    n.architecture.clone(),
                    n.agent_version.clone(),
                    n.last_seen.map_or_else(|| "never".to_owned(), output::time),
                    if n.counter == n.latest_counter { n.counter.to_string() } else { format!("{} of {}", n.counter, n.latest_counter) },
                ]
            }),
        )),
        NodeCommand::Status { id } => {
            let found = output::pick(&nodes, &id, "node", |n| vec![n.id.to_string(), n.name.clone()])?;
            let status = client.node(&found.id).await?;
            if json {
                return output::json(&status);
            }
            let (s, f) = (&status.summary, &status.fingerprint);
            let mut text = format!(
                "Node       {} ({})\nPool       {}\nAgent      {} on {}\nLast seen  {}\nManifest   {} of {}\nMemory     {} MiB\nDisk free  {}\n",
                s.name,
                s.id,
                s.pool,
                s.agent_version,
                s.architecture,
                s.last_seen.map_or_else(|| "never".to_owned(), output::time),
                s.counter,
                s.latest_counter,
                f.memory_mib,
                output::bytes(f.disk_free),
            );
            match &f.engine {
                Some(e) => text.push_str(&format!("Engine     {} ({})\n", e.version, e.storage_driver)),
                None => text.push_str("Engine     does not answer\n"),
            }
            for (key, value) in &f.attributes {
                text.push_str(&format!("  {key} = {value}\n"));
            }
            text.push_str(&format!("\nImages     {}\n\n", status.inventory.images.len()));
            text.push_str(&allocs(&status.allocs));
            output::print(&text)
        }
    }
}

/// `skerry alloc ...`
pub(crate) async fn alloc(client: &Client, command: AllocCommand, json: bool) -> Result<()> {
    let all = client.allocs().await?;
    match command {
        AllocCommand::List if json => output::json(&all),
        AllocCommand::List => output::print(&allocs(&all)),
        AllocCommand::Status { id } => {
            let a = output::pick(&all, &id, "allocation", |a| vec![a.id.to_string()])?;
            if json {
                return output::json(a);
            }
            output::print(&format!(
                "Allocation  {}\nJob         {} version {}\nGroup       {}[{}]\nNode        {} ({})\nDesired     {}\nStatus      {}\nReason      {}\nRestarts    {}\nUpdated     {}\n",
                a.id,
                a.job,
                a.version,
                a.group,
                a.index,
                a.node_name,
                a.node,
                desired(a.desired),
                a.status,
                a.reason,
                a.restarts,
                output::time(a.updated_at),
            ))
        }
    }
}

/// A table of allocations.
pub(crate) fn allocs(all: &[AllocSummary]) -> String {
    output::table(
        &["ALLOC", "JOB", "VERSION", "GROUP", "NODE", "DESIRED", "STATUS", "RESTARTS", "REASON"],
        &["VERSION", "RESTARTS"],
        all.iter().map(|a| {
            vec![
                a.id.short(),
                a.job.clone(),
                a.version.to_string(),
                format!("{}[{}]", a.group, a.index),
                a.node_name.clone(),
                desired(a.desired).to_owned(),
                a.status.to_string(),
                a.restarts.to_string(),
                a.reason.clone(),
            ]
        }),
    )
}

fn desired(status: DesiredStatus) -> &'static str {
    match status {
        DesiredStatus::Run => "run",
        DesiredStatus::Stop => "stop",
    }
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
fn span(text: &str) -> Result<Millis> {
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

    #[test]
    fn spans() {
        assert_eq!(span("90s").unwrap(), Millis(90_000));
        assert_eq!(span("30d").unwrap(), Millis::from_secs(30 * 86_400));
        for text in ["", "0s", "s", "5", "5w", "-1s", "99999999999999999999d", "1é"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
