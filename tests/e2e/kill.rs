//! What is killed or cut at the worst instants: in the middle of a transfer, in the middle of a reconstruct.
//!
//! Needs root, Docker and the built programs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::{VERSION_PATH, WebApp};
use skerry_testkit::command::{run, until};
use skerry_testkit::dockerd::Container;
use skerry_testkit::image::Archive;
use skerry_testkit::{Bed, Probe, memory, need};
use skerry_tests::stage::{self, DEPLOY};

/// What a cut may cost.
const CHUNK: u64 = 64 * 1024;
/// In the middle of a bundle of over 12 MB.
const MIDDLE: u64 = 5 << 20;

/// Version 1 runs in the container that is given, version 2 is published, and the relay counts what comes over a link of so many kbit/s.
fn staged(kbit: u32) -> Result<Option<(Bed, Container, Archive)>> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(None) };
    let (one, two) = (WebApp::bulky("web", "1").write(bed.folder())?, WebApp::bulky("web", "2").write(bed.folder())?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    bed.publish(&two.path, &two.reference)?;
    // Connections of before do not go through the relay: the agent makes new ones.
    bed.stop_agent()?;
    bed.count_payload()?;
    bed.server_link.limit(kbit)?;
    bed.start_agent()?;
    Ok(Some((bed, old, two)))
}

/// Version 2 is ordered; `cut` kills something in the middle and starts it again.
pub(crate) fn survives(cuts: u64, cut: impl FnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    let Some((mut bed, old, two)) = staged(20_000)? else { return Ok(()) };
    let probe = Probe::start(Some(&bed.node), bed.app_address()?, VERSION_PATH);
    let before = bed.relay()?.payload();
    bed.run_job("web", &two.reference)?;
    cut(&mut bed)?;
    ensure!(bed.engine.containers()? == [old.clone()], "the old container was touched\n{}", bed.logs());
    stage::wait_switch(&bed, &old, &two.image_id, DEPLOY)?;
    let set = bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    let down = bed.relay()?.payload().since(&before).down;
    let size = set["rows"][0]["size"].as_u64().with_context(|| format!("no size in {set}"))?;
    ensure!(size >= 10_000_000, "the bundle has only {size} bytes");
    // TLS records and HTTP headers take under 1.5 % of chunks of 64 KiB; polls and handshakes under a chunk.
    let most = size + cuts * CHUNK + size / 64 + CHUNK;
    println!("bundle {size} bytes, {down} bytes of TCP payload to the node, {cuts} cuts, at most {most}");
    ensure!(
        down >= size && down <= most,
        "{down} bytes came to the node for a bundle of {size}; at most {most} were allowed\n{}",
        bed.logs()
    );
    stage::answered_all_the_time(&probe.stop(), "1", "2", Duration::from_secs(15)).with_context(|| bed.logs())?;
    Ok(())
}

/// Waits until the middle of the bundle has passed the relay.
pub(crate) fn wait_middle(bed: &Bed) -> Result<()> {
    let start = bed.relay()?.payload().down;
    until("the middle of the transfer", DEPLOY, || Ok((bed.relay()?.payload().down >= start + MIDDLE).then_some(())))
        .with_context(|| bed.logs())
}

#[test]
fn server_killed_in_the_middle_of_a_transfer() -> Result<()> {
    survives(1, |bed| {
        wait_middle(bed)?;
        bed.server()?.kill9()?;
        bed.start_server()
    })
}

#[test]
fn agent_killed_in_the_middle_of_a_transfer() -> Result<()> {
    survives(1, |bed| {
        let before = spent(bed)?;
        wait_middle(bed)?;
        bed.agent()?.kill9()?;
        // What came since the count was written down is 256 KiB, or a second's worth of a link of 2.5 MB/s; more on a busy machine.
        let kept = spent(bed)?;
        ensure!(kept >= before + MIDDLE / 5, "{before} bytes were spent before over {MIDDLE} more, {kept} are remembered");
        bed.start_agent()
    })
}

/// What the month took, as the agent says or the ledger of one that is not running.
fn spent(bed: &Bed) -> Result<u64> {
    bed.agent_status()?["spent"].as_u64().context("no count")
}

/// P1 while a bundle comes: what dies is started again, and the transfer goes on.
#[test]
fn a_task_that_dies_while_a_bundle_comes_is_started_again() -> Result<()> {
    let Some((bed, old, two)) = staged(1_000)? else { return Ok(()) };
    bed.run_job("web", &two.reference)?;
    until("a part of the bundle", DEPLOY, || Ok((bed.relay()?.payload().down >= CHUNK).then_some(()))).with_context(|| bed.logs())?;
    run(bed.engine.docker().args(["kill", &old.id]))?;
    bed.wait_version("1", Duration::from_secs(60)).context("the task that died was not started again")?;
    ensure!(bed.engine.containers()? != [old], "it did not die");
    let down = bed.relay()?.payload().down;
    ensure!(down < 10_000_000, "the bundle was here already: {down} bytes came");
    bed.server_link.unlimit()?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    let down = bed.relay()?.payload().down;
    ensure!((10_000_000..15_000_000).contains(&down), "{down} bytes came for one bundle\n{}", bed.logs());
    Ok(())
}

#[test]
fn link_lost_in_the_middle_of_a_transfer() -> Result<()> {
    survives(1, |bed| {
        wait_middle(bed)?;
        bed.link.cut()?;
        std::thread::sleep(Duration::from_secs(5));
        bed.link.heal()
    })
}

#[test]
fn agent_killed_in_the_middle_of_a_reconstruct() -> Result<()> {
    survives(0, |bed| {
        let agent = need::binary("skerry-agent")?.canonicalize()?;
        let pid = bed.agent()?.pid();
        let is_agent = |child: &u32| Path::new("/proc").join(child.to_string()).join("exe").read_link().is_ok_and(|exe| exe == agent);
        // Tighter than `until` looks: a reconstruct of this image takes a fraction of a second.
        let end = std::time::Instant::now() + DEPLOY;
        while !memory::children(pid).iter().any(is_agent) {
            ensure!(std::time::Instant::now() < end, "no reconstruct process was seen\n{}", bed.logs());
            std::thread::sleep(Duration::from_millis(2));
        }
        bed.agent()?.kill9()?;
        ensure!(!bed.engine.images()?.is_empty());
        bed.start_agent()
    })
}
