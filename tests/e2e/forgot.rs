//! What one side forgot: a server that was put back to a backup from before a job, and a node that lost every copy of its mark. What runs
//! goes on in both, and an operator's word settles it.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{run, until};
use skerry_testkit::dockerd::Container;
use skerry_testkit::{Bed, need};
use skerry_tests::stage::{self, DEPLOY};

/// A few polls of a bed, which polls every five seconds.
const SOON: Duration = Duration::from_secs(60);
/// In which a node that polls every five seconds would have accepted a manifest.
const POLLS: u64 = 4;

/// The allocations that the server does not know, once there are so many, each with its specification at hand.
fn unknown(bed: &Bed, count: usize) -> Result<Vec<Value>> {
    until("the node to tell what it keeps", SOON, || {
        let all = bed.ask(&["alloc", "unknown", "list"])?.as_array().cloned().unwrap_or_default();
        Ok((all.len() == count && all.iter().all(|a| a["handed_over"] == true)).then_some(all))
    })
    .with_context(|| bed.logs())
}

/// The containers are these, and have not started anew.
fn still(bed: &Bed, running: &Container) -> Result<()> {
    let now = bed.engine.containers()?;
    ensure!(now == [running.clone()], "{running:?} is now {now:?}\n{}", bed.logs());
    Ok(())
}

/// Waits until the node has polled some more times, by what the server counts.
fn more_polls(bed: &Bed) -> Result<()> {
    let polls = || -> Result<u64> {
        let text = bed.metrics()?;
        let line = text.lines().find(|line| line.starts_with("skerry_polls_total ")).context("no count of polls")?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    let before = polls()?;
    until("some polls", SOON, || Ok((polls()? >= before + POLLS).then_some(())))
}

#[test]
fn what_a_server_forgot_is_adopted_or_buried() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let [one, two] = ["1", "2"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two) = (one?, two?);
    bed.publish(&one.path, &one.reference)?;
    bed.stop_server()?;
    let path = bed.server_data().join("server.db");
    let backup = fs::read(&path)?;
    bed.start_server()?;
    let running = stage::deploy(&bed, "web", &one, "1")?;

    bed.stop_server()?;
    fs::write(&path, &backup)?;
    bed.start_server()?;
    let listed = unknown(&bed, 1)?;
    ensure!(listed[0]["job"] == "web" && listed[0]["status"] == "running", "{listed:?}");
    still(&bed, &running)?;
    let id = listed[0]["id"].as_str().context("an allocation without an id")?;
    bed.operate(&["alloc", "unknown", "adopt", id])?;
    more_polls(&bed)?;
    let alloc = bed.ask(&["alloc", "status", id])?;
    ensure!(alloc["desired"] == "run" && alloc["status"] == "running", "{alloc}");
    ensure!(bed.ask(&["alloc", "unknown", "list"])? == Value::Array(vec![]), "it is known now");
    still(&bed, &running)?;
    // It is an allocation like any other.
    let running = stage::deploy(&bed, "web", &two, "2")?;

    bed.stop_server()?;
    fs::write(&path, &backup)?;
    bed.start_server()?;
    let listed = unknown(&bed, 1)?;
    still(&bed, &running)?;
    let id = listed[0]["id"].as_str().context("an allocation without an id")?;
    let said = bed.refuse(&["alloc", "unknown", "adopt", id])?;
    ensure!(said.contains("publish"), "the image of the second version is not here: {said}");
    bed.operate(&["alloc", "unknown", "bury", id])?;
    until("the allocation to stop", SOON, || Ok(bed.engine.containers()?.is_empty().then_some(()))).with_context(|| bed.logs())?;
    until("the server to hear of it", SOON, || Ok((bed.ask(&["alloc", "unknown", "list"])? == Value::Array(vec![])).then_some(())))?;
    bed.stop_agent()?;
    bed.stop_server()
}

#[test]
fn a_node_that_lost_every_mark_takes_a_newer_root_only() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let [one, two] = ["1", "2"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two) = (one?, two?);
    let running = stage::deploy(&bed, "web", &one, "1")?;
    bed.stop_agent()?;
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "mark.0", "mark.1", "copies/manifest"] {
        let path = bed.agent_data().join(name);
        if path.exists() {
            fs::write(&path, b"garbled")?;
        }
    }
    bed.start_agent()?;
    let nodes = bed.ask(&["node", "list"])?;
    let node = nodes[0]["id"].as_str().context("no node")?.to_owned();
    until("the operator to be told", SOON, || {
        let status = bed.ask(&["node", "status", &node])?;
        Ok(status["fingerprint"]["trouble"].as_str().is_some_and(|t| t.contains("renew-root")).then_some(()))
    })
    .with_context(|| bed.logs())?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    more_polls(&bed)?;
    still(&bed, &running)?;

    let at = |name: &str| bed.server_data().join(name);
    let mut renew = Command::new(need::binary("skerry-server")?);
    renew.arg("renew-root").arg("--root").arg(at("root.cose")).arg("--root-key").arg(at("root.key")).arg("--out").arg(at("root-2.cose"));
    println!("{}", run(&mut renew)?.trim());
    bed.stop_server()?;
    bed.start_server()?;
    bed.wait_deployed("web", DEPLOY).with_context(|| bed.logs())?;
    bed.wait_version("2", SOON)?;
    until("the trouble to be over", SOON, || Ok(bed.ask(&["node", "status", &node])?["fingerprint"]["trouble"].is_null().then_some(())))?;
    bed.stop_agent()?;
    bed.stop_server()
}
