//! An engine whose layers cannot be read in place: patches are made from an export of the base image.
//!
//! Needs root, Docker and the built programs.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use skerry_testkit::Bed;
use skerry_testkit::app::WebApp;
use skerry_tests::stage::{self, DEPLOY};

/// Files of exports in the agent's folder.
fn exports(bed: &Bed) -> Result<usize> {
    let entries = fs::read_dir(bed.agent_data().join("bundles"))?;
    Ok(entries.flatten().filter(|entry| entry.file_name().to_string_lossy().contains(".spool")).count())
}

/// What the agent found out about its engine.
fn remembered(bed: &Bed) -> Result<Value> {
    let path = bed.agent_data().join("engine.json");
    Ok(serde_json::from_slice(&fs::read(&path).with_context(|| path.display().to_string())?)?)
}

#[test]
fn patches_from_an_export() -> Result<()> {
    let Some(mut bed) = stage::enrolled_on("vfs")? else { return Ok(()) };
    let mut apps = ["1", "2", "3"].map(|v| WebApp::small("web", v).write(bed.folder())).into_iter();
    let mut next = || apps.next().context("an image")?;
    let (one, two, three) = (next()?, next()?, next()?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    let full = bed.object_bytes_sent()?;
    let mut tried = remembered(&bed)?;
    ensure!(tried["layers_in_place"] == json!(false), "vfs layers cannot be read in place: {tried}");
    ensure!(tried["accepts_partial_load"] == json!(true), "Docker takes a part of an image: {tried}");

    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    bed.wait_deployed("web", DEPLOY)?;
    stage::wait_switch(&bed, &old, &two.image_id, DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    let patch = bed.object_bytes_sent()? - full;
    ensure!(patch > 0 && patch < 16 * 1024, "the patch of one small file took {patch} bytes");
    let set = bed.newest_set("web")?;
    ensure!(set["rows"][0]["base"].as_str().is_some_and(|base| !base.is_empty()), "not a patch: {set}");
    ensure!(exports(&bed)? == 0, "an export stays after its image is there");

    // An engine that wants every layer: as remembered, for Docker is none.
    let running = bed.engine.containers()?;
    bed.stop_agent()?;
    tried["accepts_partial_load"] = json!(false);
    fs::write(bed.agent_data().join("engine.json"), serde_json::to_vec(&tried)?)?;
    // What a power cut leaves of an export of another image goes.
    fs::write(bed.agent_data().join("bundles").join(format!("{}-{}.spool.part", "0".repeat(64), "1".repeat(64))), "left")?;
    bed.start_agent()?;
    bed.publish(&three.path, &three.reference)?;
    bed.run_job("web", &three.reference)?;
    bed.wait_deployed("web", DEPLOY)?;
    let old = running.first().context("nothing ran")?;
    stage::wait_switch(&bed, old, &three.image_id, DEPLOY)?;
    bed.wait_version("3", DEPLOY)?;
    ensure!(remembered(&bed)? == tried, "the engine was tried out again");
    ensure!(exports(&bed)? == 0, "an export stays");
    let again = bed.object_bytes_sent()? - full - patch;
    ensure!(again > 0 && again < 16 * 1024, "the second patch took {again} bytes");
    bed.stop_agent()?;
    bed.stop_server()
}
