//! The dependency rule: pure core, thin shells, server and agent strangers to each other.
//!
//! Needs cargo and the lock file, no network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::command::run;

/// The pure core: no runtime, no sockets, no database, no clock.
const PURE: [&str; 12] = [
    "skerry-wire",
    "skerry-trust",
    "skerry-image",
    "skerry-jobspec",
    "skerry-plan",
    "skerry-delta",
    "skerry-bundle",
    "skerry-reconstruct",
    "skerry-template",
    "skerry-cron",
    "skerry-transfer",
    "skerry-reconcile",
];

/// What makes a crate a shell.
const SHELL: [&str; 10] =
    ["tokio", "hyper", "axum", "rusqlite", "libsqlite3-sys", "bollard", "tokio-cron-scheduler", "rustls", "rand", "tempfile"];

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command
}

/// Crate of the workspace -> (dependency, is it for tests only?).
fn workspace() -> Result<BTreeMap<String, BTreeSet<(String, bool)>>> {
    let text = run(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let json: Value = serde_json::from_str(&text)?;
    let mut crates = BTreeMap::new();
    for package in json["packages"].as_array().context("cargo metadata has no packages")? {
        let name = package["name"].as_str().context("a package without a name")?.to_owned();
        let dependencies = package["dependencies"].as_array().context("a package without dependencies")?;
        let dependencies = dependencies.iter().filter_map(|d| Some((d["name"].as_str()?.to_owned(), d["kind"].as_str() == Some("dev"))));
        crates.insert(name, dependencies.collect());
    }
    Ok(crates)
}

/// Everything that is linked into a crate when it is built alone, with the features that it then has.
fn linked(name: &str) -> Result<BTreeSet<String>> {
    let text = run(cargo().args(["tree", "--offline", "--package", name, "--edges", "normal", "--prefix", "none", "--format", "{p}"]))?;
    Ok(text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}

#[test]
fn pure_crates_depend_on_pure_crates_only() -> Result<()> {
    let crates = workspace()?;
    for name in PURE {
        let dependencies = crates.get(name).with_context(|| format!("{name} is not in the workspace"))?;
        for (dependency, test_only) in dependencies {
            let own = dependency.starts_with("skerry-");
            let allowed = PURE.contains(&dependency.as_str()) || (*test_only && dependency == "skerry-testkit");
            ensure!(!own || allowed, "{name} is pure and must not depend on {dependency}");
        }
        let linked = linked(name)?;
        for shell in SHELL {
            ensure!(!linked.contains(shell), "{name} is pure but links {shell}");
        }
    }
    Ok(())
}

#[test]
fn server_and_agent_are_strangers() -> Result<()> {
    let crates = workspace()?;
    for (name, other) in [("skerry-server", "skerry-agent"), ("skerry-agent", "skerry-server")] {
        let dependencies = crates.get(name).with_context(|| format!("{name} is not in the workspace"))?;
        ensure!(!dependencies.iter().any(|(d, _)| d == other), "{name} depends on {other}");
        ensure!(!linked(name)?.contains(other), "{name} links {other}");
    }
    Ok(())
}

#[test]
fn the_scheduler_is_the_servers_alone() -> Result<()> {
    for (name, dependencies) in workspace()? {
        let has = dependencies.iter().any(|(d, _)| d == "tokio-cron-scheduler");
        ensure!(!has || name == "skerry-server", "{name} depends on tokio-cron-scheduler, which wakes twice a second");
    }
    Ok(())
}

#[test]
fn the_agent_is_lean() -> Result<()> {
    let linked = linked("skerry-agent")?;
    for heavy in ["clap", "reqwest", "regex", "regex-automata", "matchers", "aws-lc-sys", "openssl-sys", "chrono", "axum"] {
        ensure!(!linked.contains(heavy), "the agent links {heavy}");
    }
    Ok(())
}

#[test]
fn nothing_that_ships_depends_on_the_tests() -> Result<()> {
    for (name, dependencies) in workspace()? {
        let tests = ["skerry-tests", "skerry-testkit", "skerry-sim", "skerry-steps"];
        let uses = dependencies.iter().any(|(d, test_only)| !test_only && tests.contains(&d.as_str()));
        ensure!(!uses || tests.contains(&name.as_str()), "{name} depends on test code");
    }
    Ok(())
}
