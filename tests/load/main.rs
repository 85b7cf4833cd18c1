//! A server and a fleet of 10,000 nodes that ask it once a minute: what it needs for them.
//!
//! The server is the program as it ships, with the defaults of every figure; nodes are keys and connections that speak the real protocol
//! over real TLS, on loopback. `make load` runs it, with a limit of 20,000 open files.

mod swarm;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::memory::pss_kib;
use skerry_testkit::{Process, need};
use skerry_tests::promise::hold;

use swarm::Swarm;

/// Nodes that ask.
const NODES: usize = 10_000;
/// Every node asks once in this time, evenly spread.
const ROUND: Duration = Duration::from_secs(60);
/// The server is ready, or has ended, within this time.
const SOON: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let program = need::binary("skerry-server")?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("server");
    let log = folder.path().join("server.log");
    // Started once as for development: that makes keys, certificates and a token.
    let mut command = Command::new(&program);
    command.arg("dev").arg("--data").arg(&data).args(["--listen", "127.0.0.1:0"]);
    let mut server = Process::spawn("skerry-server", &mut command, &log)?;
    server.wait_for_line("ready", SOON)?;
    server.terminate(SOON)?;
    let config = folder.path().join("server.toml");
    fs::write(&config, configuration(&data))?;
    let mut command = Command::new(&program);
    let mut server = Process::spawn("skerry-server", command.arg("run").arg("--config").arg(&config), &log)?;
    let ready = server.wait_for_line("ready", SOON)?;
    let address = ready.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).find(|w| w.starts_with("127.0.0.1:"));
    let address = address.with_context(|| format!("no address in {ready}"))?.to_owned();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(async {
        let mut swarm = Swarm::enrol(&data, &address, NODES).await?;
        // The first round is of a fleet that settles; the second is measured.
        swarm.round(ROUND).await?;
        let (before, began) = (processor(server.pid())?, Instant::now());
        let made = swarm.connections();
        swarm.round(ROUND).await?;
        let spent = processor(server.pid())?.saturating_sub(before);
        let spent = spent.mul_f64(ROUND.as_secs_f64() / began.elapsed().as_secs_f64());
        ensure!(swarm.connections() == made, "{} connections were made anew", swarm.connections() - made);
        Ok((pss_kib(server.pid())? * 1024, spent))
    });
    let (memory, spent) = figures.with_context(|| server.log_tail())?;
    server.terminate(SOON)?;
    println!(
        "{NODES} nodes, one poll a minute each: {:.1} MB of memory, {:.1} s of processor time a minute",
        memory as f64 / 1e6,
        spent.as_secs_f64()
    );
    let memory = hold("server-memory", memory);
    hold("server-processor", spent.as_secs() + 1)?;
    memory
}

/// What a server must be told; all else is as it comes.
fn configuration(data: &Path) -> String {
    let at = |name: &str| data.join(name).display().to_string();
    format!(
        "listen = \"127.0.0.1:0\"\ndata = \"{}\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n[trust]\nroots = [\"{}\"]\ndirector_key = \"{}\"\n",
        data.display(),
        at("tls.pem"),
        at("tls.key"),
        at("root.cose"),
        at("director.key")
    )
}

/// Processor time that a process has used so far, of all its threads.
fn processor(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold spaces: fields are counted behind it, from the third on.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect();
    let ticks = |n: usize| -> Result<u64> { fields.get(n - 3).context("a short stat")?.parse().context("no number in stat") };
    // Linux counts in hundredths of a second towards programs, on every machine.
    Ok(Duration::from_millis((ticks(14)? + ticks(15)?) * 10))
}
