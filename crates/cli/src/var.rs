//! `skerry var`: variables that jobs read through their nodes' manifests.
//!
//! The server keeps them unencrypted: nothing is put here that its disk must not hold.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use skerry_client::Client;
use skerry_wire::api::{PutVariable, VariableSummary};
use skerry_wire::limits;

use crate::args::VarCommand;
use crate::output;

/// `skerry var ...`
pub(crate) async fn run(client: &Client, command: VarCommand, json: bool) -> Result<()> {
    match command {
        VarCommand::Put { path, items } => {
            let items = parse(&items)?;
            let changed = client.put_variable(&PutVariable { path: path.clone(), items }).await?;
            if json {
                return output::json(&changed);
            }
            output::print(&match (changed.changed, changed.nodes) {
                (false, _) => format!("Variable {path} is unchanged.\n"),
                (true, 1) => format!("Variable {path} is put; 1 node gets it with its next manifest.\n"),
                (true, n) => format!("Variable {path} is put; {n} nodes get it with their next manifest.\n"),
            })
        }
        VarCommand::Get { path } => {
            let variable = client.variable(&path).await?;
            if json {
                return output::json(&variable);
            }
            let rows = variable.items.into_iter().map(|(key, value)| vec![key, value]);
            output::print(&output::table(&["KEY", "VALUE"], &[], rows))
        }
        VarCommand::List { prefix } => {
            let list = client.variables(&prefix).await?;
            if json { output::json(&list) } else { output::print(&table(&list)) }
        }
        VarCommand::Purge { path } => {
            client.purge_variable(&path).await?;
            if json { output::json(&serde_json::json!({ "path": path })) } else { output::print(&format!("Variable {path} is gone.\n")) }
        }
    }
}

fn table(list: &[VariableSummary]) -> String {
    output::table(
        &["PATH", "KEYS", "SIZE", "UPDATED"],
        &["SIZE"],
        list.iter().map(|v| vec![v.path.clone(), v.keys.join(", "), output::bytes(v.size), output::time(v.updated_at)]),
    )
}

/// `KEY=VALUE`, and `KEY=@FILE` for what stands in a file.
fn parse(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let mut items = BTreeMap::new();
    for pair in pairs {
        // A value may be secret: only its key is said.
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else { bail!("an item has the form KEY=VALUE") };
        let value = match value.strip_prefix('@') {
            Some(file) => {
                let size = std::fs::metadata(file).with_context(|| format!("value of {key}: {file}"))?.len();
                ensure!(size <= limits::VARIABLE as u64, "value of {key}: {file} has {size} bytes; at most {} are kept", limits::VARIABLE);
                std::fs::read_to_string(file).with_context(|| format!("value of {key}: {file}"))?
            }
            None => value.to_owned(),
        };
        ensure!(items.insert(key.to_owned(), value).is_none(), "{key} is given twice");
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::Timestamp;

    #[test]
    fn items() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("value");
        std::fs::write(&file, "two\nlines").unwrap();
        let read = parse(&["a=b=c".to_owned(), "empty=".to_owned(), format!("file=@{}", file.display())]).unwrap();
        let pairs: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "b=c"), ("empty", ""), ("file", "two\nlines")]);
        for bad in [vec!["a"], vec!["=secret"], vec!["a=1", "a=2"], vec!["a=@/nonexistent"]] {
            let bad: Vec<_> = bad.into_iter().map(str::to_owned).collect();
            let error = format!("{:#}", parse(&bad).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_list_without_values() {
        let keys = vec!["rate".to_owned(), "url".to_owned()];
        let list = [VariableSummary { path: "nomad/jobs/till".to_owned(), keys, size: 1234, updated_at: Timestamp(1_795_200_000_000) }];
        assert_eq!(table(&list), "PATH             KEYS         SIZE  UPDATED\nnomad/jobs/till  rate, url  1.2 KB  2026-11-20 18:40:00Z\n");
    }
}
