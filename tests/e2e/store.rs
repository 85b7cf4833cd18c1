//! The whole way on an engine that keeps its images in containerd's store, as a new installation of Docker does from version 29 on.
//!
//! Needs root, Docker, the built programs, and in `SKERRY_OTHER_ENGINE` a folder with the programs of Docker 24 or newer
//! (`scripts/other-engine` makes one, `make test` has it make one); without it nothing is tried.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{run, until};
use skerry_tests::stage::{self, DEPLOY};

#[test]
fn the_whole_way_with_containerds_store() -> Result<()> {
    let Some(mut bed) = stage::enrolled_on_containerd_store()? else { return Ok(()) };
    let [one, two, three] = ["1", "2", "3"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two, three) = (one?, two?, three?);
    let about = until("the agent's word of its engine", DEPLOY, || Ok(bed.agent_status()?["engine"]["about"].as_str().map(str::to_owned)))?;
    ensure!(about.ends_with("with overlayfs of containerd"), "the engine has another store: {about}");
    let tried: Value = serde_json::from_slice(&fs::read(bed.agent_data().join("engine.json"))?)?;
    ensure!(tried["layers_in_place"] == false && tried["accepts_partial_load"] == false, "the engine can do other things: {tried}");

    // An image that somebody else loaded, without any name of ours, is found by its manifest: nothing of it is sent.
    bed.engine.load(&one.path)?;
    bed.publish(&one.path, &one.reference)?;
    let old = stage::deploy(&bed, "web", &one, "1")?;
    ensure!(bed.object_bytes_sent()? == 0, "{} bytes were sent of an image that is there", bed.object_bytes_sent()?);

    let new = stage::update_while_asked(&bed, "web", &old, &two, ["1", "2"])?;
    let patch = bed.object_bytes_sent()?;
    ensure!(patch > 0 && patch < 16 * 1024, "the patch of one small file took {patch} bytes");
    ensure!(bed.engine.containers()? == [new.clone()], "the old container is still there\n{}", bed.logs());

    // The agent finds its container again, and the container's image.
    stage::kill_the_agent(&mut bed, &new)?;

    // A container that ends is made again of the same image.
    run(bed.engine.docker().args(["kill", &new.id]))?;
    let restarted = || Ok(bed.engine.containers()?.into_iter().find(|container| *container != new));
    let again = until("the restart", DEPLOY, restarted).with_context(|| bed.logs())?;
    ensure!(again.image == new.image, "another image runs: {again:?}\n{}", bed.logs());
    bed.wait_version("2", DEPLOY)?;

    // A patch upon what a patch made.
    bed.publish(&three.path, &three.reference)?;
    bed.run_job("web", &three.reference)?;
    stage::wait_switch(&bed, &again, &three.image_id, DEPLOY)?;
    bed.wait_version("3", DEPLOY)?;
    ensure!(bed.object_bytes_sent()? - patch < 16 * 1024, "the second patch took {} bytes", bed.object_bytes_sent()? - patch);

    bed.wait_deployed("web", DEPLOY)?;
    bed.operate(&["job", "stop", "web"])?;
    let all = || Ok(run(bed.engine.docker().args(["ps", "--all", "--quiet"]))?.trim().is_empty().then_some(()));
    until("the end of the allocation", DEPLOY, all).with_context(|| bed.logs())?;
    bed.stop_agent()?;
    bed.stop_server()
}
