//! A worn card: the file system with the agent's data meets an error and is read-only from then on, as ext4 does it. What runs goes on, the
//! operator is told, and after a check of the card the node comes to what was ordered meanwhile.
//!
//! Needs root, Docker and the built programs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::{VERSION_PATH, WebApp};
use skerry_testkit::command::until;
use skerry_testkit::{Bed, Card, Probe, need};
use skerry_tests::stage::{self, DEPLOY};

use crate::files::agent_refuses;

#[test]
fn a_card_that_fails_under_the_agent() -> Result<()> {
    if !need::card_bed()? {
        return Ok(());
    }
    let mut bed = Bed::start()?;
    let card = Card::mount(&bed.folder().join("card.ext4"), &bed.agent_data(), 128)?;
    bed.start_server()?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;
    let [one, two] = ["1", "2"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two) = (one?, two?);
    let old = stage::deploy(&bed, "web", &one, "1")?;

    let probe = Probe::start(Some(&bed.node), bed.app_address()?, VERSION_PATH);
    let node = bed.ask(&["node", "list"])?[0]["id"].as_str().context("no node")?.to_owned();
    let status = bed.ask(&["node", "status", &node])?;
    ensure!(status["fingerprint"]["trouble"].is_null(), "trouble before there is any: {status}");
    card.fail()?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    let trouble = until("the trouble of the node", DEPLOY, || {
        Ok(bed.ask(&["node", "status", &node])?["fingerprint"]["trouble"].as_str().map(str::to_owned))
    });
    let trouble = trouble.with_context(|| bed.logs())?;
    println!("told: {trouble}");
    ensure!(trouble.contains("read-only"), "not what is the matter: {trouble}");
    std::thread::sleep(Duration::from_secs(5));
    let samples = probe.stop();
    let silent = samples.iter().filter(|s| s.answer.is_err()).count();
    ensure!(silent == 0, "{silent} of {} questions had no answer\n{}", samples.len(), bed.logs());
    ensure!(bed.engine.containers()? == [old.clone()], "what runs was touched\n{}", bed.logs());

    // The agent that starts on it says why it cannot, and leaves what runs alone.
    bed.agent()?.kill9()?;
    agent_refuses(&bed, &old, &["read-only"])?;

    // The node is started again: a container has a folder of the card, so that it cannot be checked before.
    bed.engine.stop()?;
    card.repair()?;
    bed.engine.start_again()?;
    bed.start_agent()?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    let now = bed.engine.containers()?;
    ensure!(now.len() == 1 && now[0].image == two.image_id, "one container of the second version was to run: {now:?}\n{}", bed.logs());
    bed.stop_agent()?;
    bed.stop_server()
}
