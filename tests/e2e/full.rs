//! Disks that are full at any stage of an update: the bundle's, the one of what is made from it, that of scratch files, the engine's, the
//! ledger's, that of the switch. What runs goes on, the operator is told why, and the update goes on by itself when there is room again.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{run, until};
use skerry_testkit::dockerd::Container;
use skerry_testkit::image::{Archive, Content, ImageSpec, LayerSpec, Member};
use skerry_testkit::{Bed, SmallDisk, need};
use skerry_tests::alone::{SOON, board, is_alive, job, lines, submit, task, wait, wait_lines};
use skerry_tests::stage::{self, DEPLOY};

use crate::reconstruct::stopped;

/// What has come of the bundle of a [`bulky`](WebApp::bulky) image when the disk fills.
const BEGUN: u64 = 3 << 20;
/// Bytes of the payload of such a bundle.
const BULK: u64 = 12 << 20;

/// The agent's data and the engine's are each on a small disk. With the storage driver vfs layers cannot be read in place: base images are
/// exported into the agent's folder.
pub(crate) fn small(driver: &'static str) -> Result<Option<(Bed, SmallDisk, SmallDisk)>> {
    if !need::bed()? {
        return Ok(None);
    }
    let mut bed = Bed::start_on(driver)?;
    bed.start_server()?;
    let ours = SmallDisk::mount(&bed.agent_data(), 128)?;
    bed.engine.stop()?;
    let theirs = SmallDisk::mount(&bed.engine.data_root(), 512)?;
    bed.engine.start_again()?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;
    Ok(Some((bed, ours, theirs)))
}

/// Orders a version that takes long to come, and waits until some of it is here.
fn begin(bed: &Bed, image: &Archive) -> Result<()> {
    bed.publish(&image.path, &image.reference)?;
    bed.server_link.limit(16_000)?;
    bed.run_job("web", &image.reference)?;
    bed.wait_received(BEGUN, DEPLOY)
}

/// Waits until the deployment says that it failed for want of room.
fn told(bed: &Bed, words: &[&str]) -> Result<String> {
    let mut last = Value::Null;
    let reason = until("the reason of the failure", DEPLOY, || {
        last = bed.newest_set("web")?;
        let row = &last["rows"][0];
        Ok((row["state"] == "failed").then(|| row["reason"].as_str().unwrap_or_default().to_owned()))
    });
    let reason = reason.with_context(|| format!("last seen: {last}\n{}", bed.logs()))?;
    let lower = reason.to_lowercase();
    ensure!(words.iter().any(|w| lower.contains(w)), "the reason says nothing of {words:?}: {reason}");
    println!("told: {reason}");
    Ok(reason)
}

/// The old version runs and was not touched; with room the new one comes by itself.
fn goes_on(bed: &Bed, old: &Container, disk: &SmallDisk, image: &Archive, version: &str) -> Result<Container> {
    ensure!(bed.engine.containers()? == [old.clone()], "what runs was touched\n{}", bed.logs());
    disk.clear()?;
    let new = stage::wait_switch(bed, old, &image.image_id, DEPLOY)?;
    bed.wait_version(version, DEPLOY)?;
    bed.wait_deployed("web", DEPLOY)?;
    Ok(new)
}

#[test]
#[ignore = "takes minutes: make faults"]
fn a_full_disk_at_every_stage() -> Result<()> {
    let Some((mut bed, ours, theirs)) = small("vfs")? else { return Ok(()) };
    let small = |version: &str| WebApp::small("web", version).write(bed.folder());
    let bulky = |version: &str| WebApp::bulky("web", version).write(bed.folder());
    let (one, two, three, four) = (small("1")?, bulky("2")?, bulky("3")?, bulky("4")?);
    let five = small("5")?;
    let old = stage::deploy(&bed, "web", &one, "1")?;

    // While the bundle comes.
    begin(&bed, &two)?;
    ours.fill_but(0)?;
    told(&bed, &["make room", "not enough space"])?;
    bed.server_link.unlimit()?;
    let old = goes_on(&bed, &old, &ours, &two, "2")?;

    // While a base is exported: the bundle has its room, and little more.
    begin(&bed, &three)?;
    ours.fill_but(BULK - BEGUN + (1 << 20))?;
    told(&bed, &["no space", "not enough space", "make room"])?;
    bed.server_link.unlimit()?;
    let old = goes_on(&bed, &old, &ours, &three, "3")?;

    // While the engine takes the image.
    begin(&bed, &four)?;
    theirs.fill_but(1 << 20)?;
    told(&bed, &["no space left", "not enough space"])?;
    bed.server_link.unlimit()?;
    let old = goes_on(&bed, &old, &theirs, &four, "4")?;

    // Before anything comes: the ledger has room of its own, so the order is taken, the reason told, and what ends is started again.
    ours.fill_but(0)?;
    bed.publish(&five.path, &five.reference)?;
    bed.run_job("web", &five.reference)?;
    told(&bed, &["not enough space"])?;
    run(bed.engine.docker().args(["kill", &old.id]))?;
    bed.wait_version("4", DEPLOY)?;
    let old = bed.engine.containers()?.first().cloned().context("nothing runs")?;
    // An agent that starts on such a disk leaves all as it is, too.
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(bed.engine.containers()? == [old.clone()], "what runs was touched\n{}", bed.logs());
    if !bed.agent()?.is_running() {
        println!("the agent does not start: {}", bed.agent()?.log_tail());
        ours.clear()?;
        bed.start_agent()?;
    }
    goes_on(&bed, &old, &ours, &five, "5")?;
    bed.stop_agent()?;
    bed.stop_server()
}

/// The agent's data alone is on a small disk.
fn small_agent(policy: &str) -> Result<Option<(Bed, SmallDisk)>> {
    if !need::bed()? {
        return Ok(None);
    }
    let mut bed = Bed::start()?;
    bed.start_server()?;
    bed.configure_agent(policy)?;
    let ours = SmallDisk::mount(&bed.agent_data(), 96)?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;
    Ok(Some((bed, ours)))
}

/// An image that has the same new bytes twice: whoever makes it keeps the first of them in a scratch file for the second.
fn twice(bed: &Bed, version: &str, seed: u64) -> Result<Archive> {
    let busybox = need::program("busybox").context("no busybox")?;
    let base = vec![Member::folder("bin"), Member::program("bin/busybox", Content::Copy(busybox))];
    let noise = || Content::Noise { seed, size: BULK };
    let bulk = vec![Member::folder("data"), Member::file("data/one", noise()), Member::file("data/two", noise())];
    let www = vec![Member::folder("www"), Member::file("www/version", Content::Bytes(version.as_bytes().to_vec()))];
    let command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"].map(str::to_owned);
    ImageSpec {
        reference: format!("web:{version}"),
        layers: [base, bulk, www].map(|members| LayerSpec { mtime: 1_700_000_000, members }).into(),
        command: command.into(),
        env: vec!["PATH=/bin".to_owned()],
        stop_signal: Some("SIGKILL".to_owned()),
    }
    .write(bed.folder())
}

/// A scratch file does not fit: that is told as what it is, and costs neither the patch nor a byte more of the link. Where it is known
/// before, nothing is fetched.
#[test]
#[ignore = "takes minutes: make faults"]
fn a_full_disk_under_the_scratch_files_of_a_reconstruct() -> Result<()> {
    let Some((mut bed, ours)) = small_agent("")? else { return Ok(()) };
    let (one, two, three) = (twice(&bed, "1", 1)?, twice(&bed, "2", 2)?, twice(&bed, "3", 3)?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    let sent = bed.object_bytes_sent()?;
    begin(&bed, &two)?;
    // What is left of the bundle has its room, and the scratch file has not.
    ours.fill_but(BULK - BEGUN + (2 << 20))?;
    bed.server_link.unlimit()?;
    let reason = told(&bed, &["no space left"])?;
    ensure!(reason.contains("scratch file") && reason.contains("make room"), "not what lacks room, and what to do: {reason}");
    let new = goes_on(&bed, &old, &ours, &two, "2")?;
    let row = bed.newest_set("web")?["rows"][0].take();
    ensure!(row["base"].as_str() == Some(old.image.as_str()) && new.image == two.image_id, "another bundle than the patch came: {row}");
    let (sent, size) = (bed.object_bytes_sent()? - sent, row["size"].as_u64().context("no size")?);
    ensure!(sent == size, "{sent} bytes were sent of a bundle of {size}\n{}", bed.logs());

    // There is room for the bundle and what must stay free, and not for the scratch file beside them.
    ours.fill_but(size + (32 << 20) + BULK / 2)?;
    let sent = bed.object_bytes_sent()?;
    bed.publish(&three.path, &three.reference)?;
    bed.run_job("web", &three.reference)?;
    told(&bed, &["not enough space"])?;
    let sent = bed.object_bytes_sent()? - sent;
    ensure!(sent < BULK / 8, "{sent} bytes were fetched for an image that has no room\n{}", bed.logs());
    goes_on(&bed, &new, &ours, &three, "3")?;
    bed.stop_agent()?;
    bed.stop_server()
}

/// The image is coming into the engine when the agent's disk fills: the ledger has room of its own to write down what it switches to.
#[test]
#[ignore = "takes minutes: make faults"]
fn a_switch_on_a_full_disk_is_written_down() -> Result<()> {
    let Some((mut bed, ours)) = small_agent("")? else { return Ok(()) };
    let (one, two) = (WebApp::small("web", "1").write(bed.folder())?, WebApp::bulky("web", "2").write(bed.folder())?);
    let old = stage::deploy(&bed, "web", &one, "1")?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    let child = stopped(&mut bed, |child| child.written().is_some_and(|written| written > 0))?;
    let child = child.context("the reconstruct was quicker than this test")?;
    ours.fill_but(0)?;
    child.go_on()?;
    let new = stage::wait_switch(&bed, &old, &two.image_id, DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    ensure!(ours.free()? < 2 << 20, "the disk was not full");
    // An agent that starts on such a disk knows what was switched to.
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    let knows = || {
        let status = bed.agent_status()?;
        Ok((status["allocs"][0]["version"] == 2 && status["allocs"][0]["status"] == "running" && status["running"] == true).then_some(()))
    };
    until("the agent to know what runs", DEPLOY, knows)
        .with_context(|| format!("{:#}\n{}", bed.agent_status().unwrap_or_default(), bed.logs()))?;
    ensure!(bed.engine.containers()? == [new.clone()], "what runs was touched\n{}", bed.logs());
    bed.wait_deployed("web", DEPLOY)?;
    ours.clear()?;
    ensure!(bed.engine.containers()? == [new], "what runs was touched\n{}", bed.logs());
    bed.stop_agent()?;
    bed.stop_server()
}

/// Not even the ledger has room: what cannot be written down is not done. The old version runs, that is said, and with room it switches.
#[test]
#[ignore = "takes minutes: make faults"]
fn a_switch_that_cannot_be_written_down_waits() -> Result<()> {
    let Some((mut bed, ours)) = small_agent("[policy]\nraw_exec = true\n")? else { return Ok(()) };
    let (starts, flag) = (board(&bed, "starts"), board(&bed, "flag"));
    let lock = format!("flock \"$NOMAD_ALLOC_DIR/update.lock\" sh -c 'while [ ! -e {} ]; do sleep 0.2; done'", flag.display());
    let note = |more: &str| format!("echo $$ >> {}; {more}exec sleep 10000", starts.display());
    submit(&bed, "pump", &job("pump", "", &task("t", &note(&format!("{lock}; ")), "")))?;
    wait(&bed, "the first version", "pump", |a| a["status"] == "running" && a["healthy"] == true)?;
    submit(&bed, "pump", &job("pump", "", &task("t", &note(""), "")))?;
    until("the lock to hold up the switch", SOON, || Ok(bed.agent_status()?.to_string().contains("update lock").then_some(())))
        .with_context(|| bed.logs())?;
    let old = lines(&starts).first().cloned().context("nothing runs")?;
    ours.fill_but(0)?;
    fs::remove_file(bed.agent_data().join("ledger.reserve")).context("the ledger had no room of its own")?;
    ours.fill_but(0)?;
    fs::write(&flag, "")?;
    let mut seen = Value::Null;
    let said =
        |seen: &Value| seen["engine"]["error"].as_str().is_some_and(|e| e.contains("decisions cannot be kept") && e.contains("make room"));
    until("the word of what keeps it from its work", SOON, || {
        seen = bed.agent_status()?;
        Ok(said(&seen).then_some(()))
    })
    .with_context(|| format!("{seen:#}\n{}", bed.logs()))?;
    println!("said: {}", seen["engine"]["error"]);
    ensure!(is_alive(&old) && lines(&starts).len() == 1, "it switched without writing it down\n{}", bed.logs());
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    until("an agent that ends, or says why it does nothing", SOON, || {
        Ok((!bed.agent()?.is_running() || said(&bed.agent_status()?)).then_some(()))
    })
    .with_context(|| bed.logs())?;
    ensure!(is_alive(&old) && lines(&starts).len() == 1, "it switched without writing it down\n{}", bed.logs());
    ours.clear()?;
    if !bed.agent()?.is_running() {
        println!("the agent did not start: {}", bed.agent()?.log_tail());
        bed.start_agent()?;
    }
    wait_lines(&bed, &starts, 2, SOON)?;
    wait(&bed, "the second version", "pump", |a| a["version"] == 2 && a["status"] == "running")?;
    ensure!(!is_alive(&old) && lines(&starts).len() == 2, "{:?}\n{}", lines(&starts), bed.logs());
    until("the report", SOON, || {
        let status = bed.ask(&["job", "status", "pump"])?;
        let runs = |a: &Value| a["version"] == 2 && a["status"] == "running";
        Ok(status["allocs"].as_array().into_iter().flatten().any(runs).then_some(()))
    })
    .with_context(|| bed.logs())?;
    bed.stop_agent()?;
    bed.stop_server()
}
