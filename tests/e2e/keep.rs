//! Which images stay on a node, and how one that the engine lost comes back.
//!
//! Needs root, Docker and the built programs.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::Bed;
use skerry_testkit::app::{self, WebApp};
use skerry_testkit::command::{output, run, until};
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
    // The agent starts it again at once: whoever wants the image away must be quicker.
    until("the end of the image", DEPLOY, || {
        for container in bed.engine.containers()? {
            run(bed.engine.docker().args(["rm", "--force", &container.id]))?;
        }
        Ok(output(bed.engine.docker().args(["rmi", "--force", &two.image_id]))?.status.success().then_some(()))
    })?;
    until("the image again", DEPLOY, || Ok(images(&bed)?.contains(&two.image_id).then_some(()))).with_context(|| bed.logs())?;
    bed.wait_version("2", Duration::from_secs(120))?;
    ensure!(bed.logs().contains("made again from a kept bundle"), "{}", bed.logs());
    bed.stop_agent()
}

/// Without kept bundles an image that is gone cannot be made on the node: the node and the server say so, and it is fetched again.
#[test]
fn without_kept_bundles_a_lost_image_is_fetched_again_and_told() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    bed.stop_agent()?;
    bed.configure_agent("[images]\ncollect_above = 100\nkeep_bundles = \"0B\"\n")?;
    bed.start_agent()?;
    let (one, two) = (WebApp::small("web", "1").write(bed.folder())?, WebApp::bulky("web", "2").write(bed.folder())?);
    stage::deploy(&bed, "web", &one, "1")?;
    stage::deploy(&bed, "web", &two, "2")?;
    let bundles = std::fs::read_dir(bed.agent_data().join("bundles"))?.count();
    ensure!(bundles == 0, "{bundles} bundles are kept although none was to be");
    let size = bed.newest_set("web")?["rows"][0]["size"].as_u64().context("no size")?;
    // While nobody looks, so that the container goes with its image.
    bed.stop_server()?;
    bed.stop_agent()?;
    for container in bed.engine.containers()? {
        run(bed.engine.docker().args(["rm", "--force", &container.id]))?;
    }
    run(bed.engine.docker().args(["rmi", "--force", &two.image_id]))?;
    bed.start_agent()?;
    // Without the server nothing comes, and the node says what is gone and whom it asks.
    let (lost, mut seen) = ("are gone; fetches the image again", Value::Null);
    until("the node's word of the lost image", DEPLOY, || {
        seen = bed.agent_status()?;
        let (alloc, image) = (&seen["allocs"][0], &seen["images"][0]);
        let told = alloc["status"] == "pending" && alloc["reason"].as_str().is_some_and(|reason| reason.contains(lost));
        Ok((told && image["reference"] == two.reference.as_str() && image["state"] == "asks the server for it").then_some(()))
    })
    .with_context(|| format!("{seen:#}\n{}", bed.logs()))?;
    ensure!(!images(&bed)?.contains(&two.image_id), "it came from somewhere");
    // With it the image is fetched as any other, and the operator sees that while it comes.
    bed.server_link.limit(8_000)?;
    bed.start_server()?;
    let sent = bed.object_bytes_sent()?;
    until("the operator's sight of it", DEPLOY, || {
        seen = bed.ask(&["job", "status", "web"])?;
        let allocs = seen["allocs"].as_array().context("no allocations")?;
        Ok(allocs.iter().any(|a| a["status"] == "pending" && a["reason"].as_str().is_some_and(|r| r.contains(lost))).then_some(()))
    })
    .with_context(|| format!("{seen:#}\n{}", bed.logs()))?;
    until("the node's word of what comes", DEPLOY, || {
        seen = bed.agent_status()?;
        let coming = format!("of {size} bytes of its bundle are here");
        Ok(seen["images"][0]["state"].as_str().is_some_and(|state| state.contains(&coming)).then_some(()))
    })
    .with_context(|| format!("{seen:#}\n{}", bed.logs()))?;
    bed.server_link.unlimit()?;
    bed.wait_version("2", DEPLOY)?;
    let sent = bed.object_bytes_sent()? - sent;
    ensure!(sent == size, "{sent} bytes were sent of a bundle of {size}");
    bed.stop_agent()?;
    bed.stop_server()
}

#[test]
fn an_emptied_engine_is_filled_again_without_the_server() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let (one, two) = (WebApp::small("web", "1").write(bed.folder())?, WebApp::small("web", "2").write(bed.folder())?);
    stage::deploy(&bed, "web", &one, "1")?;
    stage::deploy(&bed, "web", &two, "2")?;
    bed.stop_server()?;
    // All that the engine had is gone, containers too.
    bed.engine.stop()?;
    let root = bed.engine.data_root();
    for entry in std::fs::read_dir(&root)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
            .with_context(|| path.display().to_string())?;
    }
    bed.engine.start_again()?;
    ensure!(images(&bed)?.is_empty(), "the engine is not empty");
    // The second version is a patch of the first: both come from their kept bundles.
    bed.wait_version("2", DEPLOY)?;
    ensure!(images(&bed)? == [one.image_id, two.image_id].into(), "{:?}", images(&bed)?);
    bed.stop_agent()
}

/// The power went between the load of an image and the sync of the engine's disk: the ledger still has its bundle, the engine lists the
/// image, and a file of it is not what it was.
#[test]
fn an_image_that_a_power_cut_garbled_is_made_again() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let app = WebApp::bulky("web", "1").write(bed.folder())?;
    bed.publish(&app.path, &app.reference)?;
    // Fetched, and not run before next year: no container holds the image.
    let text = app::jobspec("yearly", &app.reference).replace("\"service\"", "\"batch\"\n  periodic {\n    crons = [\"0 0 1 1 *\"]\n  }");
    let path = bed.folder().join("yearly.hcl");
    std::fs::write(&path, text)?;
    bed.link.limit(8_000)?;
    bed.operate(&["job", "run", &path.display().to_string()])?;
    bed.wait_received(2 << 20, DEPLOY)?;
    bed.agent()?.kill9()?;
    let ledger = ["ledger.sqlite", "ledger.sqlite-wal"].map(|name| bed.agent_data().join(name));
    let during = ledger.iter().map(|path| Ok((path, std::fs::read(path)?))).collect::<Result<Vec<_>>>()?;
    bed.link.unlimit()?;
    bed.start_agent()?;
    bed.wait_deployed("yearly", DEPLOY)?;
    bed.agent()?.kill9()?;
    for path in &ledger {
        let _ = std::fs::remove_file(path);
    }
    for (path, bytes) in during {
        std::fs::write(path, bytes)?;
    }
    let overlay = bed.engine.data_root().join("overlay2");
    let page = || {
        let mut find = std::process::Command::new("find");
        let found = run(find.arg(&overlay).args(["-path", "*/diff/www/index.html"]))?;
        Ok::<_, anyhow::Error>(found.lines().next().map(str::to_owned))
    };
    let whole = page()?.context("the page is not to be found in the engine's folder")?;
    let content = std::fs::read(&whole)?;
    std::fs::write(&whole, vec![0; content.len()])?;
    bed.start_agent()?;
    let mended = || Ok(page()?.is_some_and(|path| std::fs::read(path).is_ok_and(|c| c == content)).then_some(()));
    until("the image to be whole", DEPLOY, mended).with_context(|| bed.logs())?;
    ensure!(bed.logs().contains("in the engine and damaged"), "{}", bed.logs());
    // The engine unpacks a layer before it knows the image.
    let expected = [app.image_id].into();
    until("the engine to know the image", DEPLOY, || Ok((images(&bed)? == expected).then_some(()))).with_context(|| bed.logs())?;
    bed.stop_agent()?;
    bed.stop_server()
}

#[test]
fn a_damaged_image_is_noticed_and_made_again_without_the_server() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    let running = stage::deploy(&bed, "web", &one, "1")?;
    bed.stop_server()?;
    let mut find = std::process::Command::new("find");
    let found = run(find.arg(bed.engine.data_root().join("overlay2")).args(["-path", "*/diff/www/version"]))?;
    let layer = found.lines().next().and_then(|path| path.strip_suffix("/diff/www/version")).context("the layer is not to be found")?;
    std::fs::rename(layer, format!("{layer}.lost"))?;
    run(bed.engine.docker().args(["rm", "--force", &running.id]))?;
    bed.wait_version("1", DEPLOY)?;
    ensure!(bed.engine.containers()?.iter().all(|c| c.image == one.image_id && c.id != running.id));
    let gone = removed(&bed)?;
    ensure!(gone.len() == 1 && gone[0].0 == one.image_id && gone[0].1.contains("damaged in the engine"), "{gone:?}\n{}", bed.logs());
    bed.stop_agent()
}
