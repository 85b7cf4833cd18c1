//! Which images stay on a node, and how one that the engine lost comes back.
//!
//! Needs root, Docker and the built programs.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::Bed;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{run, until};
use skerry_tests::stage::{self, DEPLOY};

const COLLECT: &str = "[images]\ncollect_above = 1\ncollect_below = 0\n";

fn images(bed: &Bed) -> Result<BTreeSet<String>> {
    Ok(bed.engine.images()?.into_iter().collect())
}

/// Ids of the images that the agent says it removed, in order, with the reasons.
fn removed(bed: &Bed) -> Result<Vec<(String, String)>> {
    let status = bed.agent_status()?;
    let list = status["removed"].as_array().with_context(|| format!("no removals in {status}"))?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    Ok(list.iter().map(|r| (text(&r["image"]), text(&r["why"]))).collect())
}

#[test]
fn images_go_when_the_disk_fills_and_the_last_good_stays() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let apps = ["1", "2", "3", "4"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let [one, two, three, four] = apps;
    let (one, two, three, four) = (one?, two?, three?, four?);
    stage::deploy(&bed, "web", &one, "1")?;
    stage::deploy(&bed, "web", &two, "2")?;
    let running = stage::deploy(&bed, "web", &three, "3")?;
    let healthy = || Ok((bed.agent_status()?["allocs"][0]["healthy"] == Value::Bool(true)).then_some(()));
    until("a healthy third version", DEPLOY, healthy)?;
    let all = images(&bed)?;
    for image in [&one, &two, &three] {
        ensure!(all.contains(&image.image_id), "an image went although the disk has room: {all:?}");
    }
    // What somebody else tagged is his.
    run(bed.engine.docker().args(["tag", &one.image_id, "mine:1"]))?;

    bed.stop_agent()?;
    bed.configure_agent(COLLECT)?;
    bed.start_agent()?;
    until("the end of the second image", DEPLOY, || Ok((!images(&bed)?.contains(&two.image_id)).then_some(())))
        .with_context(|| bed.logs())?;
    let left = images(&bed)?;
    ensure!(left.contains(&three.image_id), "the image of what runs went: {left:?}");
    ensure!(left.contains(&one.image_id), "an image with a tag of somebody else went: {left:?}");
    ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched");
    let gone = removed(&bed)?;
    ensure!(gone.len() == 1 && gone[0].0 == two.image_id && gone[0].1.contains("not in use; the disk is"), "{gone:?}");
    run(bed.engine.docker().args(["rmi", "mine:1"]))?;
    until("the end of the first image", DEPLOY, || Ok((!images(&bed)?.contains(&one.image_id)).then_some(())))
        .with_context(|| bed.logs())?;

    // The next version is patched from what stayed, and until it has proven itself the one before stays.
    bed.publish(&four.path, &four.reference)?;
    bed.run_job("web", &four.reference)?;
    stage::wait_switch(&bed, &running, &four.image_id, DEPLOY)?;
    let patched = bed.newest_set("web")?;
    ensure!(patched["rows"][0]["base"].as_str() == Some(three.image_id.as_str()), "not patched from what stayed: {patched}");
    until("the end of the third image", DEPLOY, || {
        let status = bed.agent_status()?;
        let here = images(&bed)?.contains(&three.image_id);
        let proven = status["allocs"][0]["healthy"] == Value::Bool(true);
        ensure!(here || bed.agent_status()?["allocs"][0]["healthy"] == Value::Bool(true), "the last good image went: {status}");
        Ok((!here && proven).then_some(()))
    })
    .with_context(|| bed.logs())?;
    bed.stop_agent()?;
    let gone: Vec<String> = removed(&bed)?.into_iter().map(|(image, _)| image).collect();
    ensure!(gone == [two.image_id, one.image_id, three.image_id], "not remembered while the agent is away: {gone:?}");
    bed.stop_server()
}

#[test]
fn an_image_that_the_engine_lost_comes_back_without_the_server() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let (one, two) = (WebApp::small("web", "1").write(bed.folder())?, WebApp::small("web", "2").write(bed.folder())?);
    stage::deploy(&bed, "web", &one, "1")?;
    stage::deploy(&bed, "web", &two, "2")?;
    bed.stop_server()?;
    let running = bed.engine.containers()?;
    run(bed.engine.docker().args(["rm", "--force", &running[0].id]))?;
    let tags = run(bed.engine.docker().args(["images", "--quiet", "--no-trunc"]))?;
    ensure!(tags.contains(&two.image_id), "{tags}");
    run(bed.engine.docker().args(["rmi", "--force", &two.image_id]))?;
    until("the image again", DEPLOY, || Ok(images(&bed)?.contains(&two.image_id).then_some(()))).with_context(|| bed.logs())?;
    bed.wait_version("2", Duration::from_secs(120))?;
    ensure!(bed.logs().contains("made again from a kept bundle"), "{}", bed.logs());
    bed.stop_agent()
}
