//! The whole way on podman, by its socket that speaks as Docker's does.
//!
//! Needs root, podman, Docker's command and the built programs.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{run, until};
use skerry_tests::stage::{self, DEPLOY};

use crate::engine::away;

#[test]
fn the_whole_way_on_podman() -> Result<()> {
    let Some(mut bed) = stage::enrolled_on_podman()? else { return Ok(()) };
    let [one, two] = ["1", "2"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two) = (one?, two?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    let full = bed.object_bytes_sent()?;
    ensure!(full > 256 * 1024 && full < one.size, "the full bundle took {full} bytes for {} bytes of layers", one.size);
    let tried: Value = serde_json::from_slice(&fs::read(bed.agent_data().join("engine.json"))?)?;
    ensure!(
        tried["layers_in_place"] == false && tried["accepts_partial_load"] == false,
        "podman can do other things than it could: {tried}"
    );

    // The service goes and comes back; the container goes on under its monitor.
    away(&mut bed, &old, |bed| bed.engine.stop())?;
    away(&mut bed, &old, |bed| bed.engine.kill9())?;

    let new = stage::update_while_asked(&bed, "web", &old, &two, ["1", "2"])?;
    let patch = bed.object_bytes_sent()? - full;
    ensure!(patch > 0 && patch < 16 * 1024, "the patch of one small file took {patch} bytes");
    ensure!(bed.engine.containers()? == [new.clone()], "the old container is still there\n{}", bed.logs());

    stage::kill_the_agent(&mut bed, &new)?;

    // By its restart policy: 15 s after podman told of the end.
    let ended = Instant::now();
    run(bed.engine.docker().args(["kill", &new.id]))?;
    let again =
        until("the restart", DEPLOY, || Ok(bed.engine.containers()?.into_iter().find(|c| *c != new))).with_context(|| bed.logs())?;
    println!("started again {:.1} s after its end", ended.elapsed().as_secs_f64());
    ensure!(again.image == new.image, "another image runs: {again:?}\n{}", bed.logs());
    bed.wait_version("2", DEPLOY)?;

    bed.operate(&["job", "stop", "web"])?;
    let all = || Ok(run(bed.engine.docker().args(["ps", "--all", "--quiet"]))?.trim().is_empty().then_some(()));
    until("the end of the allocation", DEPLOY, all).with_context(|| bed.logs())?;
    bed.stop_agent()?;
    bed.stop_server()
}
