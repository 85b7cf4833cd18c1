//! The agent killed with -9 at every named step of an update, one step per version, and started again: the update ends all the same, the
//! old version runs until the switch, nothing runs twice, nothing is fetched or told twice.
//!
//! Needs root, Docker and the built programs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use skerry_agent::steps::{HALF, Step, VARIABLE};
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{run, until};
use skerry_testkit::dockerd::Container;
use skerry_testkit::image::Archive;
use skerry_testkit::{Bed, need};
use skerry_tests::stage::{self, DEPLOY};

/// What a cut may cost.
const CHUNK: u64 = 64 * 1024;

/// A version with [`HALF`] twice of bytes that no other version has.
fn version(bed: &Bed, number: usize) -> Result<Archive> {
    let (version, seed) = (number.to_string(), 1000 + number as u64);
    WebApp { name: "web".to_owned(), version, bulk: 2 * HALF, seed }.write(bed.folder())
}

/// Has the agent ask every second.
fn ask_often(bed: &Bed) -> Result<()> {
    let path = bed.server_data().join("agent.toml");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.replace("poll_interval = \"3s\"", "poll_interval = \"1s\"")).context("cannot write agent.toml")
}

/// What the engine told of its containers' lives since then: (what, container), oldest first.
fn lives(bed: &Bed, since: &str) -> Result<Vec<(String, String)>> {
    let mut command = bed.engine.docker();
    command.args(["events", "--since", since, "--until", &now()?, "--filter", "type=container", "--format", "{{.Action}} {{.ID}}"]);
    let text = run(&mut command)?;
    let words = text.lines().filter_map(|line| line.rsplit_once(' '));
    let lives = words.filter(|(what, _)| ["create", "start", "die", "destroy"].contains(what));
    Ok(lives.map(|(what, id)| (what.to_owned(), id.to_owned())).collect())
}

/// The time as `docker events` reads it.
fn now() -> Result<String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
}

/// The old container ended once and the new one started once, behind it; no other lived.
fn one_after_the_other(lives: &[(String, String)], old: &Container, new: &Container) -> Result<()> {
    let of = |what: &str| lives.iter().enumerate().filter(|(_, l)| l.0 == what).map(|(at, l)| (at, l.1.as_str())).collect::<Vec<_>>();
    let (starts, ends) = (of("start"), of("die"));
    ensure!(matches!(starts[..], [(_, id)] if id == new.id), "starts other than that of {}: {lives:?}", new.id);
    ensure!(matches!(ends[..], [(_, id)] if id == old.id), "ends other than that of {}: {lives:?}", old.id);
    ensure!(ends[0].0 < starts[0].0, "two versions ran at once: {lives:?}");
    Ok(())
}

/// The server was told that the new version runs, and no state twice.
fn told_once(bed: &Bed) -> Result<()> {
    let status = bed.ask(&["job", "status", "web"])?;
    let allocs = status["allocs"].as_array().context("no allocs")?;
    let newest = allocs.iter().max_by_key(|a| a["version"].as_u64()).context("no allocation")?;
    let id = newest["id"].as_str().context("no id")?;
    let states = until("the report that the new version runs", DEPLOY, || {
        let said = bed.ask(&["alloc", "status", id])?;
        let states = said["states"].as_array().cloned().with_context(|| format!("no states in {said}"))?;
        Ok(states.iter().any(|s| s["status"] == "running").then_some(states))
    })?;
    let facts = ["status", "reason", "healthy", "restarts"];
    let told: Vec<String> = states.iter().map(|s| facts.map(|f| s[f].to_string()).join(" ")).collect();
    ensure!(told.iter().collect::<BTreeSet<_>>().len() == told.len(), "a state was told twice: {told:?}");
    Ok(())
}

/// Version `number` comes, the agent dies at `step` of it and is started again. Gives the new container.
fn update(bed: &mut Bed, step: Step, number: usize, old: &Container) -> Result<Container> {
    let next = version(bed, number)?;
    bed.publish(&next.path, &next.reference)?;
    bed.stop_agent()?;
    bed.agent_setup.environment = vec![(VARIABLE.to_owned(), step.name())];
    let since = now()?;
    bed.start_agent()?;
    let before = bed.relay()?.payload();
    bed.run_job("web", &next.reference)?;
    let status = bed.agent()?.wait_exit(DEPLOY).context("the step was not reached")?;
    ensure!(status.signal() == Some(9), "the agent ended with {status}");
    let running = bed.engine.containers()?;
    let switching = [Step::OldStopped, Step::OldRemoved, Step::NewStarted, Step::SwitchTold, Step::ReportDelivered, Step::ReportForgotten];
    if switching.contains(&step) {
        ensure!(running.iter().all(|c| c.image == next.image_id), "the old version runs: {running:?}");
    } else {
        ensure!(running == [old.clone()], "the old container was touched: {running:?}");
    }
    bed.agent_setup.environment.clear();
    bed.start_agent()?;
    bed.wait_version(&number.to_string(), DEPLOY)?;
    let set = bed.wait_deployed("web", DEPLOY)?;
    told_once(bed)?;
    let down = bed.relay()?.payload().since(&before).down;
    let size = set["rows"][0]["size"].as_u64().with_context(|| format!("no size in {set}"))?;
    ensure!(size >= 2 * HALF, "the bundle has only {size} bytes");
    // TLS records and HTTP headers take under 1.5 %; polls and handshakes of these seconds under a chunk.
    let most = size + CHUNK + size / 64 + CHUNK;
    ensure!(down >= size && down <= most, "{down} bytes came to the node for a bundle of {size}; at most {most} were allowed");
    let running = bed.engine.containers()?;
    ensure!(running.len() == 1 && running[0].image == next.image_id, "one container was to run: {running:?}");
    one_after_the_other(&lives(bed, &since)?, old, &running[0])?;
    fs::remove_file(&next.path)?;
    Ok(running[0].clone())
}

#[test]
#[ignore = "takes minutes: make faults"]
fn killed_at_every_step() -> Result<()> {
    if need::bed()? { at_every_step(Bed::start()?) } else { Ok(()) }
}

/// There a loaded image is another thing to look for, and other folders are synced.
#[test]
#[ignore = "takes minutes: make faults"]
fn killed_at_every_step_with_containerds_store() -> Result<()> {
    match need::containerd_store_bed()? {
        Some(programs) => at_every_step(Bed::start_on_containerd_store(&programs)?),
        None => Ok(()),
    }
}

fn at_every_step(mut bed: Bed) -> Result<()> {
    bed.agent_setup.program = Some(PathBuf::from(env!("CARGO_BIN_EXE_skerry-agent-steps")));
    bed.start_server()?;
    ask_often(&bed)?;
    bed.count_payload()?;
    bed.server_link.limit(20_000)?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;
    let first = version(&bed, 0)?;
    let mut old = stage::deploy(&bed, "web", &first, "0")?;
    for (number, step) in Step::ALL.into_iter().enumerate() {
        let began = Instant::now();
        old = update(&mut bed, step, number + 1, &old).with_context(|| format!("killed at {}\n{}", step.name(), bed.logs()))?;
        println!("{:20} {:.1} s", step.name(), began.elapsed().as_secs_f64());
    }
    bed.stop_agent()?;
    bed.stop_server()
}

/// What ships knows nothing of all this.
#[test]
fn the_agent_that_ships_has_no_steps() -> Result<()> {
    if !need::bed()? {
        return Ok(());
    }
    let holds = |path: PathBuf| Ok::<_, anyhow::Error>(fs::read(path)?.windows(VARIABLE.len()).any(|w| w == VARIABLE.as_bytes()));
    ensure!(holds(PathBuf::from(env!("CARGO_BIN_EXE_skerry-agent-steps")))?, "the agent of this test has no steps");
    ensure!(!holds(need::binary("skerry-agent")?)?, "the agent that ships can be made to kill itself");
    Ok(())
}
