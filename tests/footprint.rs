//! The agent's footprint against the figures of SPECIFICATION.md.
//!
//! Needs root, Docker and the built programs; `make footprint` shows the figures.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::WebApp;
use skerry_testkit::memory::{ChildrenPeak, pss_kib};
use skerry_testkit::{Bed, need};
use skerry_tests::promise::hold;
use skerry_tests::stage;

/// A pause in the traffic that is longer ends a poll.
const PAUSE: Duration = Duration::from_millis(400);
/// Polls that are measured.
const POLLS: u64 = 3;
/// They come within this time: the bed's agent polls every few seconds.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn the_agent_keeps_its_figures() -> Result<()> {
    if !need::bed()? {
        return Ok(());
    }
    let binary = need::binary("skerry-agent")?;
    hold("agent-binary", std::fs::metadata(&binary)?.len())?;

    let Some(mut bed) = stage::enrolled_alone()? else { return Ok(()) };
    let pid = bed.agent()?.pid();
    let peak = ChildrenPeak::watch(pid);
    let one = WebApp::bulky("web", "1").write(bed.folder())?;
    let two = WebApp::bulky("web", "2").write(bed.folder())?;
    stage::deploy(&bed, "web", &one, "1")?;
    stage::deploy(&bed, "web", &two, "2")?;
    ensure!(peak.kib() > 0, "no reconstruct process was seen\n{}", bed.logs());
    hold("reconstruct-peak", peak.kib() * 1024)?;
    drop(peak);

    // A fresh agent, as after a reboot of the node; its connection goes through the relay.
    bed.stop_agent()?;
    bed.count_payload()?;
    bed.start_agent()?;
    let poll = idle_poll(&bed)?;
    let pid = bed.agent()?.pid();
    hold("agent-idle", pss_kib(pid)? * 1024)?;
    hold("idle-poll", poll)
}

/// Bytes of TCP payload per idle poll, both ways, on a kept connection.
fn idle_poll(bed: &Bed) -> Result<u64> {
    let end = Instant::now() + PATIENCE;
    // The first polls report what has changed: let three bursts pass.
    for _ in 0..3 {
        next_burst(bed, end)?;
    }
    let start = bed.relay()?.payload();
    for _ in 0..POLLS {
        next_burst(bed, end)?;
    }
    let passed = bed.relay()?.payload().since(&start);
    ensure!(passed.connections == 0, "{} new connections in {POLLS} idle polls", passed.connections);
    ensure!(passed.up > 0 && passed.down > 0, "no poll passed: {passed:?}");
    Ok(passed.total() / POLLS)
}

/// Waits for the next traffic and then for its end.
fn next_burst(bed: &Bed, end: Instant) -> Result<()> {
    let relay = bed.relay()?;
    let mut last = relay.payload();
    let (mut began, mut quiet) = (false, Instant::now());
    loop {
        ensure!(Instant::now() < end, "no idle poll passed within {} s\n{}", PATIENCE.as_secs(), bed.logs());
        std::thread::sleep(Duration::from_millis(10));
        let now = relay.payload();
        if now != last {
            (last, began, quiet) = (now, true, Instant::now());
        } else if began && quiet.elapsed() > PAUSE {
            return Ok(());
        }
    }
}

#[test]
fn an_idle_agent_writes_next_to_nothing() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    stage::deploy(&bed, "web", &one, "1")?;
    std::thread::sleep(Duration::from_secs(20));
    let pid = bed.agent()?.pid();
    let before = written(pid)?;
    std::thread::sleep(Duration::from_secs(40));
    let wrote = written(pid)? - before;
    println!("written in 40 s of idling: {wrote} bytes");
    // 5 MB a day are 2,300 bytes in 40 s; one page of the periodic write may fall into them.
    ensure!(wrote <= 16 * 1024, "the idle agent wrote {wrote} bytes in 40 s");
    Ok(())
}

/// Bytes that a process has caused to be written to disk.
fn written(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("write_bytes: ")).context("no write_bytes")?;
    line.trim().parse().context("write_bytes is no number")
}
