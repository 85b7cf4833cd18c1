//! An engine that is restarted, killed, replaced by another version, or that lies, under allocations that run.
//!
//! Needs root, Docker and the built programs. With `SKERRY_OTHER_ENGINE`, a folder with the programs of another version of Docker
//! (`scripts/other-engine` makes one), the upgrade is one; else the engine comes back with another configuration.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::{VERSION_PATH, WebApp};
use skerry_testkit::command::until;
use skerry_testkit::dockerd::Container;
use skerry_testkit::probe::Sample;
use skerry_testkit::{Bed, Liar, Probe, need};
use skerry_tests::stage::{self, DEPLOY};

/// Containers outlive the engine.
const LIVE: &str = "{\"live-restore\": true}\n";
/// The same, and what a newer configuration may bring.
const LIVE_CHANGED: &str = "{\"live-restore\": true, \"max-concurrent-downloads\": 1, \"log-opts\": {\"max-size\": \"1m\"}}\n";

/// Waits until the agent says that its engine answers, or that it does not.
fn wait_engine(bed: &Bed, answers: bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = until("the agent's word of its engine", DEPLOY, || {
        last = bed.agent_status()?;
        Ok((last["engine"]["error"].is_null() == answers).then(|| last.clone()))
    });
    found.with_context(|| format!("last seen: {last}\n{}", bed.logs()))
}

/// The engine goes and comes back; where containers outlive it nothing of the allocation may change.
pub(crate) fn away(bed: &mut Bed, running: &Container, go: impl FnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    go(bed)?;
    let status = wait_engine(bed, false)?;
    ensure!(status["allocs"][0]["status"] == "running", "what runs counts as gone: {status}");
    bed.engine.start_again()?;
    wait_engine(bed, true)?;
    ensure!(bed.engine.containers()? == [running.clone()], "the container was touched\n{}", bed.logs());
    bed.wait_version("1", DEPLOY)
}

/// Questions that had no answer, and whether the version that answered ever went back.
fn unanswered(samples: &[Sample]) -> Result<usize> {
    let answers: Vec<u32> = samples.iter().filter_map(|s| s.answer.as_ref().ok()?.trim().parse().ok()).collect();
    ensure!(answers.is_sorted(), "an old version answered again");
    Ok(samples.len() - answers.len())
}

#[test]
fn restarted_upgraded_and_lying() -> Result<()> {
    if !need::bed()? {
        return Ok(());
    }
    let mut bed = Bed::start()?;
    bed.engine.configure(LIVE)?;
    bed.engine.stop()?;
    bed.engine.start_again()?;
    let liar = Liar::start(&bed.folder().join("liar.sock"), &bed.engine.address())?;
    bed.agent_setup.engine = Some(liar.address());
    bed.start_server()?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;
    let [one, two, three] = ["1", "2", "3"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two, three) = (one?, two?, three?);
    let running = stage::deploy(&bed, "web", &one, "1")?;

    // Restarted, and killed.
    let probe = Probe::start(Some(&bed.node), bed.app_address()?, VERSION_PATH);
    away(&mut bed, &running, |bed| bed.engine.stop())?;
    away(&mut bed, &running, |bed| bed.engine.kill9())?;
    println!("{} questions without an answer over two restarts", unanswered(&probe.stop())?);

    // Upgraded, and the agent deploys with what it finds.
    let before = bed.engine.version()?;
    let other = need::other_engine();
    away(&mut bed, &running, |bed| {
        bed.engine.stop()?;
        bed.engine.configure(LIVE_CHANGED)?;
        if let Some(programs) = &other {
            bed.engine.use_programs(programs);
        }
        Ok(())
    })?;
    let after = bed.engine.version()?;
    println!("engine {before}, then {after}");
    // A machine of that Debian release has the same one.
    let must_differ = std::env::var_os("SKERRY_UPGRADE").is_some();
    ensure!(!must_differ || before != after, "the other engine is the same: {after}");
    let about = format!("Docker {after} ");
    until("the agent to know its engine", DEPLOY, || {
        Ok(bed.agent_status()?["engine"]["about"].as_str().is_some_and(|a| a.starts_with(&about)).then_some(()))
    })
    .with_context(|| bed.logs())?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    let running = stage::wait_switch(&bed, &running, &two.image_id, DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;

    // It says that it loaded an image, and did not.
    liar.lie(true);
    bed.publish(&three.path, &three.reference)?;
    bed.run_job("web", &three.reference)?;
    let mut last = Value::Null;
    let reason = until("the reason of the failure", DEPLOY, || {
        last = bed.newest_set("web")?;
        let row = &last["rows"][0];
        ensure!(row["state"] != "succeeded", "an image that the engine lacks counts as present: {last}");
        Ok((row["state"] == "failed").then(|| row["reason"].as_str().unwrap_or_default().to_owned()))
    });
    let reason = reason.with_context(|| format!("last seen: {last}\n{}", bed.logs()))?;
    ensure!(reason.contains("does not have") && liar.told() > 0, "not what happened: {reason}");
    ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched\n{}", bed.logs());
    // It lies again and again: nothing changes, and when it stops lying all goes on.
    until("a second lie", DEPLOY, || Ok((liar.told() >= 2).then_some(())))?;
    ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched\n{}", bed.logs());
    liar.lie(false);
    let running = stage::wait_switch(&bed, &running, &three.image_id, DEPLOY)?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("3", DEPLOY)?;

    // Without live-restore containers end with their engine: the agent brings them back, each time one.
    bed.engine.configure("{}\n")?;
    for kill in [false, true] {
        if kill {
            bed.engine.kill9()?
        } else {
            bed.engine.stop()?
        }
        std::thread::sleep(Duration::from_secs(1));
        bed.engine.start_again()?;
        bed.wait_version("3", DEPLOY)?;
        wait_engine(&bed, true)?;
        let now = bed.engine.containers()?;
        ensure!(now.len() == 1 && now[0].image == running.image, "one container was to run: {now:?}\n{}", bed.logs());
    }
    bed.stop_agent()?;
    bed.stop_server()
}
