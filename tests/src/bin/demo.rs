//! `make demo`: two versions of a Python service on a node behind a slow link that is cut, in a few minutes.
//!
//! What it shows is checked: it ends with an error when the old version missed an answer, a byte too many was sent, or something
//! was left behind.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::{self, VERSION_PATH};
use skerry_testkit::command::until;
use skerry_testkit::image::Archive;
use skerry_testkit::{Bed, Probe, need};
use skerry_tests::stage;

/// The link for the first image: a good mobile network.
const FAST: u32 = 20_000;
/// The link for the update: a bad radio, in kbit/s.
const SLOW: u32 = 256;
/// How long the link is lost.
const CUT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(600);

/// A row of the table at the end.
struct Row {
    version: &'static str,
    size: u64,
    bundle: u64,
    /// All that passed the link both ways: bundle, polls, TLS, TCP.
    wire: u64,
    without_service: Option<Duration>,
}

fn main() -> Result<()> {
    for name in ["skerry-server", "skerry-agent", "skerry"] {
        need::binary(name)?;
    }
    ensure!(need::bed()?, "the demo cannot run here; `make setup` as root installs what is needed");
    let begin = Instant::now();
    say("")?;
    say("Skerry: two versions of a service on a node behind a link that is slow and gets lost.")?;
    say("Server and node live in network namespaces of this machine; the node has a Docker engine of its own.")?;
    say("")?;
    let bed = Bed::start()?;
    let home = bed.folder().to_owned();
    let rows = play(bed)?;
    ensure!(!home.exists(), "{} was left behind", home.display());
    table(&rows)?;
    say(&format!("Done in {} s; containers, engine, namespaces and files are gone again.", begin.elapsed().as_secs()))
}

fn play(mut bed: Bed) -> Result<[Row; 2]> {
    step("making two versions of the image, Python with its library and a small web service")?;
    let (one, two) = app::python_pair(bed.folder())?;
    step("starting the server (it makes its keys) and the agent (it enrols with a token)")?;
    bed.start_server()?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;

    bed.server_link.limit(FAST)?;
    step(&format!("skerry image publish, skerry job run: {} in full, over {} Mbit/s", one.reference, FAST / 1000))?;
    let before = passed(&bed)?;
    let old = stage::deploy(&bed, "tide", &one, "1")?;
    let full_wire = passed(&bed)? - before;
    let full = bundle_size(&bed)?.context("the set of version 1 does not say how large its bundle was")?;
    step("version 1 answers; from now on it is asked ten times a second")?;

    let probe = Probe::start(Some(&bed.node), bed.app_address()?, VERSION_PATH);
    step(&format!("publishing {}: every layer rebuilt, the program edited, a busybox added", two.reference))?;
    bed.publish(&two.path, &two.reference)?;
    bed.server_link.limit(SLOW)?;
    step(&format!("skerry job run: {} as a patch, over {SLOW} kbit/s", two.reference))?;
    let before = passed(&bed)?;
    bed.run_job("tide", &two.reference)?;
    let size = wait_middle(&bed)?;
    step(&format!("in the middle of the {} patch the link is lost for {} s", bytes(size), CUT.as_secs()))?;
    bed.link.cut()?;
    std::thread::sleep(CUT);
    ensure!(bed.engine.containers()? == [old.clone()], "version 1 was touched while the link was lost\n{}", bed.logs());
    ensure!(probe.failures() == 0, "version 1 missed an answer while the link was lost");
    step("the link is back; version 1 answered all the time")?;
    bed.link.heal()?;
    stage::wait_switch(&bed, &old, &two.image_id, LONG)?;
    bed.wait_deployed("tide", LONG)?;
    bed.wait_version("2", LONG)?;
    let gap = stage::answered_all_the_time(&probe.stop(), "1", "2", Duration::from_secs(20)).with_context(|| bed.logs())?;
    let patch_wire = passed(&bed)? - before;
    step("version 2 answers; docker inspect on the node shows the image id that was published")?;
    ensure!(patch_wire >= size, "{patch_wire} bytes passed the link for a patch of {size}");
    // Headers of TLS and TCP take under a tenth; polls, a handshake and the cut under 128 KiB.
    let most = size + size / 10 + 128 * 1024;
    ensure!(patch_wire <= most, "{patch_wire} bytes passed the link for a patch of {size}; at most {most} were to\n{}", bed.logs());
    step("stopping the job")?;
    bed.operate(&["job", "stop", "tide"])?;
    until("the end of the allocation", LONG, || Ok(bed.engine.containers()?.is_empty().then_some(()))).with_context(|| bed.logs())?;
    bed.stop_agent()?;
    bed.stop_server()?;
    let row = |version, image: &Archive, bundle, wire, without_service| Row { version, size: image.size, bundle, wire, without_service };
    Ok([row("1, in full", &one, full, full_wire, None), row("2, as a patch", &two, size, patch_wire, Some(gap))])
}

/// Bytes that have passed the link, both ways.
fn passed(bed: &Bed) -> Result<u64> {
    let bytes = bed.link.bytes()?;
    Ok(bytes.received + bytes.sent)
}

/// Bytes of the newest bundle, once it is known.
fn bundle_size(bed: &Bed) -> Result<Option<u64>> {
    Ok(bed.newest_set("tide")?["rows"][0]["size"].as_u64())
}

/// Waits until about a third of the patch has come over the link, and returns its size.
fn wait_middle(bed: &Bed) -> Result<u64> {
    let size = until("the patch to be on its way", LONG, || {
        let set = bed.newest_set("tide")?;
        let row = &set["rows"][0];
        ensure!(row["state"] != "failed", "the deployment set failed: {set}");
        Ok(row["size"].as_u64().filter(|_| row["state"] == "in_transit"))
    })
    .with_context(|| bed.logs())?;
    let start = bed.link.bytes()?.received;
    let look = || Ok((bed.link.bytes()?.received >= start + size / 3).then_some(()));
    until("a third of the patch", LONG, look).with_context(|| bed.logs())?;
    let state = bed.newest_set("tide")?["state"].clone();
    ensure!(state != "succeeded", "the patch of {size} bytes was through before the link could be cut");
    Ok(size)
}

fn table(rows: &[Row]) -> Result<()> {
    say("")?;
    say("  version           image size     bundle   bytes over the wire   of the image   seconds without service")?;
    for row in rows {
        let share = row.wire * 100_000 / row.size;
        let percent = format!("{}.{:03} %", share / 1000, share % 1000);
        let gap = row.without_service.map_or_else(|| "first start".to_owned(), |g| format!("{:.1}", g.as_secs_f64()));
        let [size, bundle, wire] = [row.size, row.bundle, row.wire].map(bytes);
        say(&format!("  {:<16} {size:>11} {bundle:>10} {wire:>21} {percent:>14} {gap:>25}", row.version))?;
    }
    say("  Bytes over the wire are all bytes on the link, both ways: bundle, polls, TLS and TCP.")?;
    say("")
}

/// 1,234,567 -> `1.23 MB`
fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{}.{} KB", count / 1_000, count / 100 % 10),
        _ => format!("{}.{:02} MB", count / 1_000_000, count / 10_000 % 100),
    }
}

fn step(text: &str) -> Result<()> {
    say(&format!("  * {text}"))
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
