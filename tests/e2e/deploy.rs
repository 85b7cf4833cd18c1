//! The main way: enrol, publish, run, a full bundle, then a patch; then stop.
//!
//! Needs root, Docker and the built programs.

use std::time::Duration;

use anyhow::{Result, ensure};
use skerry_testkit::app::{VERSION_PATH, WebApp};
use skerry_testkit::command::until;
use skerry_testkit::{Probe, probe};
use skerry_tests::stage::{self, DEPLOY};

#[test]
fn a_first_image_goes_in_full_and_its_successor_as_a_patch() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let [one, two] = ["1", "2"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two) = (one?, two?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    let full = bed.object_bytes_sent()?;
    ensure!(full > 256 * 1024 && full < one.size, "the full bundle took {full} bytes for {} bytes of layers", one.size);
    let set = bed.newest_set("web")?;
    ensure!(set["rows"][0]["base"].is_null(), "the first bundle has a base: {set}");
    ensure!(set["submitter"]["name"].as_str().is_some_and(|n| !n.is_empty()), "the set does not say who ordered it: {set}");

    let link = bed.link.bytes()?;
    let probe = Probe::start(Some(&bed.node), bed.app_address()?, VERSION_PATH);
    until("ten answers", DEPLOY, || Ok((probe.samples().len() >= 10).then_some(())))?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    bed.wait_deployed("web", DEPLOY)?;
    stage::wait_switch(&bed, &old, &two.image_id, DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    let samples = probe.stop();
    stage::answered_all_the_time(&samples, "1", "2", Duration::from_secs(15))?;
    let patch = bed.object_bytes_sent()? - full;
    let received = bed.link.bytes()?.received - link.received;
    ensure!(patch > 0 && patch < 16 * 1024, "the patch of one small file took {patch} bytes");
    ensure!(received >= patch, "the server counts {patch} bytes sent, the link {received} received");
    let set = bed.newest_set("web")?;
    let base = set["rows"][0]["base"].as_str().unwrap_or_default();
    ensure!(one.image_id.ends_with(base) && !base.is_empty(), "the patch was not made from {}: {set}", one.image_id);

    // What is there needs no bytes: back to the first version, and a set that is done at once.
    bed.run_job("web", &one.reference)?;
    bed.wait_deployed("web", Duration::from_secs(20))?;
    bed.wait_version("1", DEPLOY)?;
    ensure!(bed.object_bytes_sent()? - full - patch < 4096, "an image that is there was sent again");

    // What the container wrote of the last requests, by way of the server.
    let told = bed.ask(&["alloc", "logs", &skerry_tests::alone::alloc_id(&bed, "web")?, "-n", "3"])?;
    ensure!(told["text"].as_str().is_some_and(|t| t.contains("response:200") && t.lines().count() <= 3), "the server has {told}");

    let status = bed.agent_status()?;
    ensure!(status.to_string().contains("web"), "skerry-agent status does not name the job: {status}");
    bed.operate(&["job", "stop", "web"])?;
    until("the end of the allocation", DEPLOY, || Ok(bed.engine.containers()?.is_empty().then_some(())))?;
    bed.stop_agent()?;
    bed.stop_server()
}

#[test]
fn allocations_go_on_when_server_and_agent_are_gone() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    let container = stage::deploy(&bed, "web", &one, "1")?;
    let probe = Probe::start(Some(&bed.node), bed.app_address()?, VERSION_PATH);
    bed.server()?.kill9()?;
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    until("thirty answers", DEPLOY, || Ok((probe.samples().len() >= 30).then_some(())))?;
    ensure!(bed.engine.containers()? == [container.clone()], "the allocation was touched\n{}", bed.logs());

    // A node that starts without a server runs what it ran.
    bed.agent()?.kill9()?;
    skerry_testkit::command::run(bed.engine.docker().args(["kill", &container.id]))?;
    until("the outage", DEPLOY, || Ok((probe.failures() > 0).then_some(())))?;
    bed.start_agent()?;
    bed.wait_version("1", DEPLOY)?;
    let samples = probe.stop();
    ensure!(probe::failures(&samples) < samples.len());
    Ok(())
}
