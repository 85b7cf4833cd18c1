//! The agent's footprint against the figures of SPECIFICATION.md.
//!
//! Needs root, Docker and the built programs; `make footprint` shows the figures.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::WebApp;
use skerry_testkit::memory::{ChildrenPeak, pss_kib};
use skerry_testkit::{Bed, need};
use skerry_tests::course::seconds;
use skerry_tests::promise::hold;
use skerry_tests::stage;

/// A pause in the traffic that is longer ends a poll.
const PAUSE: Duration = Duration::from_millis(400);
/// Polls that are measured.
const POLLS: u64 = 3;
/// An agent is idle so long after its start.
const SETTLED: Duration = Duration::from_secs(25);
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
    let started = Instant::now();
    let poll = idle_poll(&bed)?;
    let pid = bed.agent()?.pid();
    // Before that it has not given back what it needed to start.
    std::thread::sleep(SETTLED.saturating_sub(started.elapsed()));
    hold("agent-idle", pss_kib(pid)? * 1024)?;
    hold("idle-poll", poll)?;
    let anew = poll_on_a_new_connection(&bed)?;
    hold("new-poll", anew)?;
    // The agent keeps a connection for 100 s without a poll: those of a minute share one, those of a quarter of an hour do not.
    hold("idle-day-minute", poll * 24 * 60)?;
    hold("idle-day-quarter", anew * 24 * 4)?;
    hold("idle-day-hour", anew * 24)
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

/// Bytes of TCP payload per idle poll, both ways, when the connection was closed since the last one: the close, a handshake that resumes
/// the session, the poll.
fn poll_on_a_new_connection(bed: &Bed) -> Result<u64> {
    let relay = bed.relay()?;
    let start = relay.payload();
    for poll in 1..=POLLS {
        let end = Instant::now() + PATIENCE;
        relay.hang_up();
        // The goodbye may be a burst of its own.
        while relay.payload().connections < start.connections + poll {
            next_burst(bed, end)?;
        }
    }
    let passed = relay.payload().since(&start);
    ensure!(passed.connections == POLLS, "{} new connections in {POLLS} idle polls", passed.connections);
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

/// At the pace of the field, a poll a minute: no new connection, and next to nothing on the disk. `SKERRY_IDLE_S` is how long; from a
/// thousand seconds on the figure of a day is held, too, for what is written every quarter of an hour is in it.
#[test]
fn an_idle_agent_keeps_its_connection_and_writes_next_to_nothing() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    stage::deploy(&bed, "web", &one, "1")?;
    bed.stop_agent()?;
    bed.serve_as_in_the_field()?;
    bed.count_payload()?;
    bed.start_agent()?;
    // What a start has to say, and to write.
    std::thread::sleep(Duration::from_secs(20));
    let (pid, idle) = (bed.agent()?.pid(), seconds("SKERRY_IDLE_S", 130));
    let (before, passed) = (written(pid)?, bed.relay()?.payload());
    ensure!(passed.connections > 0, "the agent did not come through the relay\n{}", bed.logs());
    std::thread::sleep(idle);
    let (wrote, passed) = (written(pid)? - before, bed.relay()?.payload().since(&passed));
    let day = wrote * 86_400 / idle.as_secs();
    println!("{} s of idling: {wrote} bytes written ({day} a day), {passed:?}", idle.as_secs());
    ensure!(passed.up > 0, "no poll passed\n{}", bed.logs());
    ensure!(passed.connections == 0, "polls a minute apart made {} connections\n{}", passed.connections, bed.logs());
    if idle >= Duration::from_secs(1000) {
        return hold("idle-writes", day);
    }
    // 5 MB a day are 60 bytes a second; one of the periodic writes may fall into the time.
    ensure!(wrote <= 16 * 1024 + 60 * idle.as_secs(), "the idle agent wrote {wrote} bytes in {} s", idle.as_secs());
    Ok(())
}

/// Bytes that a process has caused to be written to disk.
fn written(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("write_bytes: ")).context("no write_bytes")?;
    line.trim().parse().context("write_bytes is no number")
}
