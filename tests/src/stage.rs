//! The first act of most tests: server and agent run, the node has enrolled, the first version answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::VERSION_PATH;
use skerry_testkit::command::until;
use skerry_testkit::dockerd::Container;
use skerry_testkit::image::Archive;
use skerry_testkit::probe::{self, Sample};
use skerry_testkit::{Bed, Probe, need};

/// A deployment of a small image is done within this time, on a busy machine.
pub const DEPLOY: Duration = Duration::from_secs(180);

/// A bed with server and agent running and the node enrolled; none when tests of this kind are skipped here.
///
/// # Errors
/// When something does not start.
pub fn enrolled() -> Result<Option<Bed>> {
    enrolled_in(Bed::start)
}

/// The same with no other bed on this machine, for what measures memory.
///
/// # Errors
/// When something does not start.
pub fn enrolled_alone() -> Result<Option<Bed>> {
    enrolled_in(Bed::start_alone)
}

/// The same with an engine on this storage driver.
///
/// # Errors
/// When something does not start.
pub fn enrolled_on(driver: &'static str) -> Result<Option<Bed>> {
    enrolled_in(|| Bed::start_on(driver))
}

/// The same with podman as the node's engine.
///
/// # Errors
/// When something does not start.
pub fn enrolled_on_podman() -> Result<Option<Bed>> {
    if need::podman_bed()? { enrolled_in(Bed::start_on_podman) } else { Ok(None) }
}

/// The same with an engine that keeps its images in containerd's store.
///
/// # Errors
/// When something does not start.
pub fn enrolled_on_containerd_store() -> Result<Option<Bed>> {
    match need::containerd_store_bed()? {
        Some(programs) => enrolled_in(|| Bed::start_on_containerd_store(&programs)),
        None => Ok(None),
    }
}

fn enrolled_in(bed: impl FnOnce() -> Result<Bed>) -> Result<Option<Bed>> {
    if !need::bed()? {
        return Ok(None);
    }
    let mut bed = bed()?;
    bed.start_server()?;
    bed.start_agent()?;
    wait_enrolled(&bed, 1)?;
    Ok(Some(bed))
}

/// Waits until the server knows this many nodes.
///
/// # Errors
/// When it does not within half a minute.
pub fn wait_enrolled(bed: &Bed, nodes: usize) -> Result<()> {
    let look = || Ok((bed.ask(&["node", "list"])?.as_array().map_or(0, Vec::len) == nodes).then_some(()));
    until(&format!("{nodes} enrolled nodes"), Duration::from_secs(30), look).with_context(|| bed.logs())
}

/// Publishes an image, runs it as `job`, waits until it answers with `version`, and returns its container.
///
/// # Errors
/// When one of these fails, or another image runs than was published.
pub fn deploy(bed: &Bed, job: &str, image: &Archive, version: &str) -> Result<Container> {
    bed.publish(&image.path, &image.reference)?;
    bed.run_job(job, &image.reference)?;
    bed.wait_deployed(job, DEPLOY)?;
    bed.wait_version(version, DEPLOY)?;
    // It may answer before the engine lists it.
    let listed = || Ok(Some(bed.engine.containers()?).filter(|containers| !containers.is_empty()));
    let containers = until("a container in the engine's list", Duration::from_secs(30), listed).with_context(|| bed.logs())?;
    ensure!(containers.len() == 1, "one container was to run: {containers:?}\n{}", bed.logs());
    ensure!(containers[0].image == image.image_id, "the node runs {}, published was {}", containers[0].image, image.image_id);
    Ok(containers[0].clone())
}

/// Waits until a container of `image` runs; until then `old` must be the one that runs, never started again.
///
/// # Errors
/// When the old one stops or starts again before, or nothing happens within `limit`.
pub fn wait_switch(bed: &Bed, old: &Container, image: &str, limit: Duration) -> Result<Container> {
    let mut lost = None;
    let found = until("the switch", limit, || {
        let running = bed.engine.containers()?;
        if let Some(new) = running.iter().find(|c| c.image == image) {
            return Ok(Some(Some(new.clone())));
        }
        // The old one may just be stopping for the new one: it is lost only when it came back as another.
        match running.iter().find(|c| c.image == old.image) {
            Some(same) if same != old => {
                lost = Some(running.clone());
                Ok(Some(None))
            }
            _ => Ok(None),
        }
    });
    let new = found.with_context(|| bed.logs())?;
    new.with_context(|| format!("the old container was {old:?}, then {lost:?} ran\n{}", bed.logs()))
}

/// Publishes an image and runs it in the place of `old`, which answers while it is asked; gives the new container. `versions` are the old
/// one's answer and the new one's.
///
/// # Errors
/// When one of these fails, or an answer is missing but in the switch, or that takes longer than 15 s.
pub fn update_while_asked(bed: &Bed, job: &str, old: &Container, image: &Archive, versions: [&str; 2]) -> Result<Container> {
    let probe = Probe::start(Some(&bed.node), bed.app_address()?, VERSION_PATH);
    until("ten answers", DEPLOY, || Ok((probe.samples().len() >= 10).then_some(())))?;
    bed.publish(&image.path, &image.reference)?;
    bed.run_job(job, &image.reference)?;
    let new = wait_switch(bed, old, &image.image_id, DEPLOY)?;
    bed.wait_deployed(job, DEPLOY)?;
    let [before, after] = versions;
    until("an answer of the new version", DEPLOY, || Ok(probe.last_answer().is_some_and(|a| a.trim() == after).then_some(())))?;
    answered_all_the_time(&probe.stop(), before, after, Duration::from_secs(15))?;
    Ok(new)
}

/// Kills the agent and starts it again: it takes over what runs, the one container of one allocation.
///
/// # Errors
/// When it does not, or touches the container.
pub fn kill_the_agent(bed: &mut Bed, running: &Container) -> Result<()> {
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    let mut status = Value::Null;
    let taken_over = until("the agent to take the container over", DEPLOY, || {
        status = bed.agent_status()?;
        let seen = status["running"] == true && status["engine"]["about"].is_string();
        Ok((seen && status["allocs"][0]["status"] == "running").then_some(()))
    });
    taken_over.with_context(|| format!("last seen: {status}\n{}", bed.logs()))?;
    ensure!(bed.engine.containers()? == [running.clone()], "the container was touched\n{}", bed.logs());
    Ok(())
}

/// The old version answered every question until the switch, and the new one every question after it.
///
/// # Errors
/// When an answer is missing elsewhere, or the switch took longer than `longest`.
pub fn answered_all_the_time(samples: &[Sample], old: &str, new: &str, longest: Duration) -> Result<Duration> {
    let says = |s: &Sample, version: &str| s.answer.as_deref().is_ok_and(|a| a.trim() == version);
    let last_old = samples.iter().rposition(|s| says(s, old)).context("the old version never answered")?;
    let first_new = samples.iter().position(|s| says(s, new)).context("the new version never answered")?;
    ensure!(last_old < first_new, "the old version answered again after the new one");
    for (at, sample) in samples.iter().enumerate() {
        if let Err(reason) = &sample.answer {
            ensure!((last_old..first_new).contains(&at), "question {at} of {} had no answer: {reason}", samples.len());
        }
    }
    let gap = probe::longest_gap(samples);
    ensure!(gap <= longest, "{gap:?} without service");
    Ok(gap)
}
