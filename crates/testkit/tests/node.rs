//! The bed itself: an engine in a namespace, a container that answers over the link, a link that can be cut.
//!
//! Needs root and Docker.

use std::time::Duration;

use anyhow::{Result, ensure};
use skerry_testkit::app::{self, WebApp};
use skerry_testkit::command::{run, until};
use skerry_testkit::{Bed, Probe, need, probe};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_container_in_the_nodes_engine_answers_over_the_link_until_it_is_cut() -> Result<()> {
    if !need::bed()? {
        return Ok(());
    }
    let mut bed = Bed::start()?;
    let home = bed.folder().to_owned();
    let archive = WebApp::small("web", "1").write(bed.folder())?;
    bed.engine.load(&archive.path)?;
    ensure!(bed.engine.images()? == [archive.image_id.clone()], "the engine computes another image id");

    for network in [&["--network", "host"][..], &["--publish", "8080:8080"]] {
        let mut start = bed.engine.docker();
        start.args(["run", "--detach", "--rm"]).args(network);
        let id = run(start.arg(&archive.reference))?;
        bed.wait_version("1", SOON)?;
        let containers = bed.engine.containers()?;
        ensure!(containers.len() == 1 && containers[0].id == id.trim() && containers[0].image == archive.image_id, "{containers:?}");
        if network[0] == "--publish" {
            run(bed.engine.docker().args(["kill", id.trim()]))?;
        } else {
            outage(&bed)?;
            run(bed.engine.docker().args(["kill", id.trim()]))?;
            let gone = || Ok(bed.engine.containers()?.is_empty().then_some(()));
            until("the container's end", SOON, gone)?;
        }
    }

    bed.engine.stop()?;
    bed.engine.start_again()?;
    ensure!(bed.engine.images()? == [archive.image_id], "the image is gone after a restart");
    drop(bed);
    ensure!(!home.exists(), "{} was left behind", home.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&home.display().to_string()), "a mount was left behind");
    Ok(())
}

/// The probe sees an outage of about a second, and the link counts what passes.
fn outage(bed: &Bed) -> Result<()> {
    let probe = Probe::start(Some(&bed.shore), bed.app_address()?, app::VERSION_PATH);
    until("ten answers", SOON, || Ok((probe.samples().len() >= 10).then_some(())))?;
    ensure!(probe.failures() == 0, "failures on a whole link: {:?}", probe.samples());
    let before = bed.link.bytes()?;
    bed.link.cut()?;
    until("a failure", SOON, || Ok((probe.failures() > 0).then_some(())))?;
    bed.link.heal()?;
    until("an answer", SOON, || Ok(probe.last_answer()))?;
    let samples = probe.stop();
    let gap = probe::longest_gap(&samples);
    ensure!(gap >= probe::TIMEOUT && gap < Duration::from_secs(10), "gap of {gap:?}");
    bed.link.limit(1000)?;
    bed.link.unlimit()?;
    let after = bed.link.bytes()?;
    ensure!(after.received > before.received && after.sent > before.sent, "{before:?} {after:?}");
    Ok(())
}
