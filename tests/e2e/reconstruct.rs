//! The reconstruct process ends before its time: killed at any byte of its output, or for want of memory. What runs goes on, the operator
//! is told why, nothing is fetched again, and the image comes.
//!
//! Needs root, Docker and the built programs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::until;
use skerry_testkit::dockerd::Container;
use skerry_testkit::image::Archive;
use skerry_testkit::{Bed, Foreign, need};
use skerry_tests::stage::{self, DEPLOY};

/// Bytes that a reconstruct of a [`bulky`](WebApp::bulky) image puts out at least.
const OUTPUT: u64 = 12 << 20;
/// Bytes of its output after which a reconstruct is killed: none, the first, and on to the last.
const POINTS: [u64; 12] = [
    0,
    1,
    OUTPUT / 10,
    OUTPUT / 5,
    3 * OUTPUT / 10,
    2 * OUTPUT / 5,
    OUTPUT / 2,
    3 * OUTPUT / 5,
    7 * OUTPUT / 10,
    4 * OUTPUT / 5,
    9 * OUTPUT / 10,
    OUTPUT - (256 << 10),
];
/// Kills of one version: more than a patch is tried before it counts as one that does not fit. Waits between tries grow with each.
const KILLS: usize = 4;
/// Versions that are tried: one whose reconstruct was quicker than the test is no use for the point that was next.
const VERSIONS: usize = 8;

/// The reconstruct that runs now, stopped when it is so far; none when it ended before.
pub(crate) fn stopped(bed: &mut Bed, so_far: impl Fn(&Foreign) -> bool) -> Result<Option<Foreign>> {
    let program = need::binary("skerry-agent")?.canonicalize()?;
    let (agent, end) = (bed.agent()?.pid(), Instant::now() + DEPLOY);
    let child = loop {
        if let Some(child) = Foreign::child_of(agent, &program, "reconstruct")? {
            break child;
        }
        ensure!(Instant::now() < end, "no reconstruct process was seen\n{}", bed.logs());
        // Tighter than `until` looks: a reconstruct of this image takes a fraction of a second.
        std::thread::sleep(Duration::from_millis(1));
    };
    while !so_far(&child) {
        if child.has_ended() {
            return Ok(None);
        }
    }
    Ok(child.stop()?.then_some(child))
}

/// Waits until the operator is told that the image failed, and why.
fn told(bed: &Bed) -> Result<String> {
    let mut last = Value::Null;
    let reason = until("the reason of the failure", DEPLOY, || {
        last = bed.newest_set("web")?;
        let row = &last["rows"][0];
        Ok((row["state"] == "failed").then(|| row["reason"].as_str().unwrap_or_default().to_owned()))
    });
    reason.with_context(|| format!("last seen: {last}\n{}", bed.logs()))
}

/// The new version takes the place of the old one; nothing of its bundle came twice. Gives its container.
fn comes(bed: &Bed, old: &Container, image: &Archive, version: &str, sent: u64) -> Result<Container> {
    let new = stage::wait_switch(bed, old, &image.image_id, DEPLOY)?;
    bed.wait_version(version, DEPLOY)?;
    let done = || Ok(Some(bed.newest_set("web")?).filter(|set| set["state"] == "succeeded"));
    let set = until("the deployment set", DEPLOY, done).with_context(|| bed.logs())?;
    let row = &set["rows"][0];
    let size = row["size"].as_u64().with_context(|| format!("no size in {set}"))?;
    // From whichever of the versions that are on the node: their new bytes have nothing in common.
    ensure!(size >= OUTPUT && row["base"].is_string(), "another bundle than a patch came: {set}");
    let sent = bed.object_bytes_sent()? - sent;
    ensure!(sent == size, "{sent} bytes were sent of a bundle of {size}\n{}", bed.logs());
    Ok(new)
}

#[test]
fn killed_at_many_points_of_its_output() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    let mut running = stage::deploy(&bed, "web", &one, "1")?;
    let (mut points, mut killed) = (POINTS.iter().peekable(), Vec::new());
    for version in (2..).map(|n: usize| n.to_string()).take(VERSIONS) {
        if points.peek().is_none() {
            break;
        }
        let next = WebApp::bulky("web", &version).write(bed.folder())?;
        bed.publish(&next.path, &next.reference)?;
        let sent = bed.object_bytes_sent()?;
        bed.run_job("web", &next.reference)?;
        for kill in 0..KILLS {
            let Some(point) = points.peek() else { break };
            let Some(child) = stopped(&mut bed, |child| child.written().is_some_and(|written| written >= **point))? else { break };
            let written = child.written().context("it ended while it was held")?;
            ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched\n{}", bed.logs());
            ensure!(!bed.engine.images()?.contains(&next.image_id), "the image is there before its last byte");
            child.kill9()?;
            points.next();
            killed.push(written);
            if kill == 0 {
                let reason = told(&bed)?;
                ensure!(reason.contains("reconstruct") && reason.contains("SIGKILL"), "the reason does not say what happened: {reason}");
            }
        }
        running = comes(&bed, &running, &next, &version, sent).with_context(|| format!("killed after {killed:?} bytes"))?;
    }
    println!("killed after {killed:?} bytes");
    ensure!(points.peek().is_none(), "only {} of {} points were met: {killed:?}", killed.len(), POINTS.len());
    bed.stop_agent()?;
    bed.stop_server()
}

/// Has the reconstruct that runs next get no more memory than it has when it bounds itself. Did it want more?
fn starve(bed: &mut Bed) -> Result<bool> {
    // No table of contents that holds gets it over its own bound: it gets another one instead.
    let Some(child) = stopped(bed, |child| child.data().is_some())? else { return Ok(false) };
    let (bound, has) = child.data().context("it ended while it was held")?;
    ensure!(bound < 128 << 20 && has < bound, "it has {has} bytes and is bounded to {bound}");
    child.bound_data(has)?;
    child.go_on()?;
    until("the end of the reconstruct", DEPLOY, || Ok(child.has_ended().then_some(()))).with_context(|| bed.logs())?;
    let mut state = Value::Null;
    let over = until("what came of the reconstruct", DEPLOY, || {
        state = bed.newest_set("web")?["rows"][0]["state"].take();
        Ok((state == "failed" || state == "succeeded").then_some(()))
    });
    over.with_context(|| format!("it is {state}\n{}", bed.logs()))?;
    Ok(state == "failed")
}

#[test]
fn memory_that_does_not_suffice_is_told_and_costs_nothing_else() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    let mut running = stage::deploy(&bed, "web", &one, "1")?;
    let (agent, mut hits) = (bed.agent()?.pid(), 0);
    for version in (2..).map(|n: usize| n.to_string()).take(VERSIONS) {
        if hits == 2 {
            break;
        }
        let next = WebApp::bulky("web", &version).write(bed.folder())?;
        bed.publish(&next.path, &next.reference)?;
        let sent = bed.object_bytes_sent()?;
        bed.run_job("web", &next.reference)?;
        if starve(&mut bed)? {
            hits += 1;
            let reason = told(&bed)?;
            println!("told: {reason}");
            ensure!(reason.contains("reconstruct: the process lacks memory, of which it may have 64 MiB"), "not what happened: {reason}");
            ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched\n{}", bed.logs());
            ensure!(bed.agent()?.is_running() && bed.agent()?.pid() == agent, "the agent was hit, too\n{}", bed.logs());
        }
        running = comes(&bed, &running, &next, &version, sent)?;
    }
    ensure!(hits == 2, "only {hits} reconstructs wanted more than they had");
    bed.stop_agent()?;
    bed.stop_server()
}
