//! What is fetched when: windows, the month's budget, and patches that fail.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::Bed;
use skerry_testkit::app::{PORT, WebApp, jobspec};
use skerry_testkit::command::{run, until};
use skerry_tests::alone::submit;
use skerry_tests::stage::{self, DEPLOY};

/// A window of UTC that begins so many hours from now and is an hour long.
fn window(hours: u64) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 3600 + hours;
    Ok(format!("[\"{:02}:00-{:02}:00\"]", now % 24, (now + 1) % 24))
}

/// Starts the agent again with this table `[transfer]` in place of the one before.
fn configure(bed: &mut Bed, lines: &str) -> Result<()> {
    const MARK: &str = "# transfers\n";
    bed.stop_agent()?;
    let path = bed.server_data().join("agent.toml");
    let text = fs::read_to_string(&path)?;
    let kept = text.split(MARK).next().unwrap_or_default();
    fs::write(&path, format!("{}\n{MARK}[transfer]\n{lines}\n", kept.trim_end()))?;
    bed.start_agent()
}

/// Waits until agent and server both say this of the image that is on its way.
fn wait_says(bed: &Bed, words: &str) -> Result<()> {
    let mut seen = (Value::Null, Value::Null);
    let found = until(&format!("`{words}`"), DEPLOY, || {
        let node = bed.ask(&["node", "list"])?[0]["id"].as_str().unwrap_or_default().to_owned();
        seen = (bed.agent_status()?["images"].clone(), bed.ask(&["node", "status", &node])?["arriving"].clone());
        let says = |said: &Value| said.as_str().is_some_and(|s| s.contains(words));
        Ok((says(&seen.0[0]["state"]) && says(&seen.1[0]["reason"])).then_some(()))
    });
    found.with_context(|| format!("last seen: {seen:?}\n{}", bed.logs()))
}

#[test]
fn windows_hold_fetches_and_switches_apart() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let (one, two, three) = (WebApp::small("web", "1"), WebApp::small("web", "2"), WebApp::small("web", "3"));
    let (one, two, three) = (one.write(bed.folder())?, two.write(bed.folder())?, three.write(bed.folder())?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    configure(&mut bed, &format!("download = {}", window(12)?))?;
    let sent = bed.object_bytes_sent()?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    wait_says(&bed, "waits for the download window, until ")?;
    ensure!(bed.object_bytes_sent()? == sent, "bytes were fetched outside the window");
    ensure!(bed.engine.containers()? == [old.clone()], "what runs was touched");
    // The window of this hour and the next.
    let (now, next) = (window(0)?, window(1)?);
    let open = format!("{}, {}", now.trim_end_matches(']'), next.trim_start_matches('['));
    configure(&mut bed, &format!("download = {open}\napply = {}", window(12)?))?;
    bed.wait_deployed("web", DEPLOY)?;
    let waits = || {
        let status = bed.agent_status()?;
        let allocs = status["allocs"].as_array().context("no allocations")?;
        let waiting = allocs.iter().find(|a| a["reason"] == "waits for the apply window").cloned();
        Ok(waiting.filter(|w| w["until"].is_u64()))
    };
    let waiting = until("the wait for the apply window", DEPLOY, waits).with_context(|| bed.logs())?;
    ensure!(bed.engine.containers()? == [old.clone()], "switched outside the window");
    // The operator can do without it.
    bed.operate(&["alloc", "override-lock", waiting["id"].as_str().context("no id")?])?;
    let second = stage::wait_switch(&bed, &old, &two.image_id, DEPLOY)?;
    // And in the window it needs nobody.
    configure(&mut bed, &format!("apply = {open}"))?;
    bed.publish(&three.path, &three.reference)?;
    bed.run_job("web", &three.reference)?;
    stage::wait_switch(&bed, &second, &three.image_id, DEPLOY)?;
    bed.stop_agent()?;
    bed.stop_server()
}

#[test]
fn a_month_takes_no_more_than_its_budget() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let (one, two) = (WebApp::small("web", "1").write(bed.folder())?, WebApp::bulky("web", "2").write(bed.folder())?);
    stage::deploy(&bed, "web", &one, "1")?;
    // All that goes over the wire is counted, both ways, and not forgotten with the agent.
    let before = bed.agent_status()?["spent"].as_u64().context("no count")?;
    ensure!(before > 300_000, "the first image alone took more than {before} bytes");
    bed.stop_agent()?;
    bed.count_payload()?;
    let kept = bed.agent_status()?["spent"].as_u64().context("no count")?;
    ensure!(before - kept < 512 * 1024, "{kept} of {before} bytes were remembered");
    configure(&mut bed, "budget = \"6MB\"\nreserve = \"1MB\"")?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    // A bundle of more than a month takes what the month has, and goes on with the next.
    wait_says(&bed, "waits for the next month: ")?;
    let status = bed.agent_status()?;
    let (spent, payload) = (status["spent"].as_u64().context("no count")?, bed.relay()?.payload().total());
    ensure!((4_800_000..=5_000_000 + 100_000).contains(&spent), "{spent} bytes were spent of 5,000,000: {status}");
    let counted = spent - kept;
    ensure!(counted.abs_diff(payload) < payload / 50, "the agent counted {counted} bytes, the relay {payload}");
    ensure!(status["images"][0]["state"].as_str().is_some_and(|s| s.contains("until 20")), "{status}");
    bed.wait_version("1", DEPLOY)?;
    configure(&mut bed, "budget = \"60MB\"")?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    ensure!(bed.object_bytes_sent()? < fs::metadata(&two.path)?.len() + 2 * 1024 * 1024 + 256 * 1024, "bytes were fetched twice");
    bed.stop_agent()?;
    bed.stop_server()
}

/// What is ordered with a higher priority comes first, in the middle of a transfer too, and what came of the other is gone on with.
#[test]
fn a_job_of_higher_priority_overtakes_a_transfer() -> Result<()> {
    const PART: u64 = 2_000_000;
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let (one, two, alarm) = (WebApp::bulky("web", "1"), WebApp::bulky("web", "2"), WebApp::bulky("alarm", "3"));
    let (one, two, alarm) = (one.write(bed.folder())?, two.write(bed.folder())?, alarm.write(bed.folder())?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    bed.publish(&two.path, &two.reference)?;
    bed.publish(&alarm.path, &alarm.reference)?;
    bed.stop_agent()?;
    bed.count_payload()?;
    bed.server_link.limit(2_000)?;
    bed.start_agent()?;
    bed.run_job("web", &two.reference)?;
    until("a part of the first", DEPLOY, || Ok((bed.relay()?.payload().down >= PART).then_some(()))).with_context(|| bed.logs())?;
    // A port of its own, chosen by the node: the other has the fixed one.
    let spec = jobspec("alarm", &alarm.reference).replace(&format!("static = {PORT}"), "");
    let spec = spec.replace("type        = \"service\"", "type        = \"service\"\n  priority    = 90");
    ensure!(spec.contains("priority    = 90") && !spec.contains("static"), "{spec}");
    submit(&bed, "alarm", &spec)?;
    let alarm = bed.wait_deployed("alarm", DEPLOY)?;
    ensure!(bed.newest_set("web")?["state"] != "succeeded", "the other was here first\n{}", bed.logs());
    ensure!(bed.engine.containers()?.contains(&old), "what runs was touched");
    bed.server_link.unlimit()?;
    let web = bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    let size = |set: &Value| set["rows"][0]["size"].as_u64().with_context(|| format!("no size in {set}"));
    let (sizes, down) = (size(&web)? + size(&alarm)?, bed.relay()?.payload().down);
    // A chunk may come again where the first was put off, and where it is gone on with; TLS, headers, polls.
    let most = sizes + sizes / 64 + 3 * 64 * 1024;
    ensure!(sizes > 5 * PART && down <= most, "{down} bytes came for bundles of {sizes}, at most {most} were allowed\n{}", bed.logs());
    Ok(())
}

/// What the engine holds: images, folders of layers, and files of loads under way.
fn held(bed: &Bed) -> Result<(Vec<String>, usize, Vec<String>)> {
    let root = bed.engine.data_root();
    let layers = fs::read_dir(root.join("overlay2"))?.count();
    let mut files = Vec::new();
    for folder in ["tmp", "image/overlay2/layerdb/tmp"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            files.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    Ok((bed.engine.images()?, layers, files))
}

#[test]
fn a_failed_patch_is_held_and_full_only_with_leave() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let (one, two) = (WebApp::small("web", "1").write(bed.folder())?, WebApp::small("web", "2").write(bed.folder())?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    configure(&mut bed, "on_delta_failure = \"hold\"")?;
    // The card lost a page of the file that the patch starts from.
    let find =
        run(std::process::Command::new("find").arg(bed.engine.data_root().join("overlay2")).args(["-path", "*/diff/www/index.html"]))?;
    let page = find.lines().next().context("the page is not to be found in the engine's folder")?;
    fs::write(page, "<h1>xxx 0</h1>\n")?;
    let before = held(&bed)?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    let failed = || Ok((bed.newest_set("web")?["state"] == "failed").then_some(()));
    until("the failure to be told", DEPLOY, failed).with_context(|| bed.logs())?;
    let sent = bed.object_bytes_sent()?;
    std::thread::sleep(Duration::from_secs(20));
    ensure!(bed.object_bytes_sent()? == sent, "something was fetched in spite of the hold");
    ensure!(bed.engine.containers()? == [old.clone()], "what runs was touched");
    let after = held(&bed)?;
    ensure!(after == before, "the failed patch left something in the engine: {before:?} became {after:?}");
    // With leave it is fetched as a whole, and that is said.
    configure(&mut bed, "on_delta_failure = \"full\"")?;
    until("the full bundle", DEPLOY, || Ok((bed.newest_set("web")?["state"] == "succeeded").then_some(()))).with_context(|| bed.logs())?;
    bed.wait_version("2", DEPLOY)?;
    ensure!(bed.object_bytes_sent()? > sent + 256 * 1024, "no full bundle was fetched");
    bed.stop_agent()?;
    bed.stop_server()
}
