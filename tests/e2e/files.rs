//! Files of the agent and of the server swapped for older copies, made read-only, given to another user; the server's database cut short
//! or garbled. What runs is not touched, errors say what to do, and nothing is lost.
//!
//! Needs root, Docker and the built programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{run, until};
use skerry_testkit::dockerd::Container;
use skerry_testkit::{Bed, Process, ReadOnly, need};
use skerry_tests::stage::{self, DEPLOY};

/// Files below a folder with what is in them; not those of tasks, nor bundles.
fn contents(folder: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(below)?.to_path_buf();
        let skipped = ["alloc", "bundles", "ledger.reserve", "lock"].iter().any(|n| name.starts_with(n));
        if path.is_dir() && !skipped {
            contents(&path, below, found)?;
        } else if path.is_file() && !skipped {
            found.insert(name, fs::read(&path)?);
        }
    }
    Ok(())
}

/// What the agent's folder holds; the agent must not run.
fn held(bed: &Bed) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    contents(&bed.agent_data(), &bed.agent_data(), &mut found)?;
    Ok(found)
}

/// Makes the agent's folder hold this.
fn put(bed: &Bed, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for name in held(bed)?.keys().filter(|name| !files.contains_key(*name)) {
        fs::remove_file(bed.agent_data().join(name))?;
    }
    for (name, bytes) in files {
        let path = bed.agent_data().join(name);
        fs::create_dir_all(path.parent().context("a file in no folder")?)?;
        fs::write(&path, bytes)?;
    }
    Ok(())
}

/// The agent answers and says that it runs this version of the job, and nothing was touched for it.
fn knows(bed: &mut Bed, version: u64, running: &Container) -> Result<()> {
    let mut last = Value::Null;
    let found = until("the agent to know what it runs", DEPLOY, || {
        if !bed.agent()?.is_running() {
            bed.start_agent()?;
        }
        last = bed.agent_status().unwrap_or_default();
        let alloc = &last["allocs"][0];
        let ensured = alloc["version"] == version && alloc["status"] == "running" && alloc["current"] == true;
        Ok((last["running"] == true && ensured).then_some(()))
    });
    found.with_context(|| format!("last seen: {last:#}\n{}", bed.logs()))?;
    ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched\n{}", bed.logs());
    Ok(())
}

/// Starts the agent where it cannot work: it ends by itself, says these words, and leaves what runs alone.
pub(crate) fn agent_refuses(bed: &Bed, running: &Container, words: &[&str]) -> Result<()> {
    let log = bed.folder().join("refused.log");
    let mut agent = Process::spawn("agent", &mut bed.agent_command(&bed.agent_data())?, &log)?;
    let status = agent.wait_exit(Duration::from_secs(30))?;
    let said = agent.output().to_lowercase();
    ensure!(!status.success() && words.iter().all(|w| said.contains(w)), "{status}, and not {words:?}: {said}");
    println!("told: {}", said.lines().last().unwrap_or_default());
    ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched: {said}");
    Ok(())
}

#[test]
fn files_of_the_agent_older_read_only_and_of_another_user() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let [one, two, three] = ["1", "2", "3"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two, three) = (one?, two?, three?);
    stage::deploy(&bed, "web", &one, "1")?;
    bed.agent()?.kill9()?;
    let older = held(&bed)?;
    bed.start_agent()?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    let running = bed.engine.containers()?.first().cloned().context("nothing runs")?;
    // Reports are there, and the old container is gone.
    std::thread::sleep(Duration::from_secs(3));
    knows(&mut bed, 2, &running)?;
    bed.stop_server()?;
    bed.agent()?.kill9()?;
    let newer = held(&bed)?;

    // Each file for an older copy of it, the ledger with its journal too.
    let changed: Vec<PathBuf> =
        older.iter().filter(|(name, bytes)| newer.get(*name) != Some(*bytes)).map(|(name, _)| name.clone()).collect();
    ensure!(changed.iter().any(|n| n.ends_with("ledger.sqlite-wal")) && changed.len() > 3, "too few files: {changed:?}");
    let mut swaps: Vec<Vec<PathBuf>> = changed.iter().map(|name| vec![name.clone()]).collect();
    let ledger = older.keys().filter(|n| n.starts_with("ledger.sqlite") || n.to_string_lossy().starts_with("ledger.sqlite"));
    swaps.push(ledger.cloned().collect());
    for names in &swaps {
        put(&bed, &newer)?;
        for name in names {
            fs::write(bed.agent_data().join(name), &older[name])?;
        }
        bed.start_agent()?;
        knows(&mut bed, 2, &running).with_context(|| format!("older: {names:?}"))?;
        bed.agent()?.kill9()?;
    }
    println!("{} files were older ones", swaps.len());

    // All of it is of before, as from a backup. With the server the node ends where it was.
    put(&bed, &older)?;
    bed.start_server()?;
    bed.start_agent()?;
    bed.wait_deployed("web", DEPLOY)?;
    let end = until("the version in force", DEPLOY, || {
        let status = bed.agent_status()?;
        let alloc = &status["allocs"][0];
        (alloc["version"] == 2 && alloc["status"] == "running").then(|| bed.engine.containers()).transpose()
    });
    let end = end.with_context(|| bed.logs())?;
    println!("all older: {}", if end == [running.clone()] { "not touched" } else { "started again" });
    ensure!(end.len() == 1 && end[0].image == two.image_id, "one container of the second version was to run: {end:?}\n{}", bed.logs());
    let running = end[0].clone();

    // Another user's, without any right for anybody.
    bed.agent()?.kill9()?;
    run(Command::new("chown").args(["--recursive", "65534:65534"]).arg(bed.agent_data()))?;
    for name in held(&bed)?.keys() {
        run(Command::new("chmod").arg("0").arg(bed.agent_data().join(name)))?;
    }
    bed.start_agent()?;
    knows(&mut bed, 2, &running)?;

    // Read-only while the agent runs: the operator is told, and it goes on by itself.
    let copies = ReadOnly::make(&bed.agent_data().join("copies"))?;
    bed.publish(&three.path, &three.reference)?;
    bed.run_job("web", &three.reference)?;
    let node = bed.ask(&["node", "list"])?[0]["id"].as_str().context("no node")?.to_owned();
    let trouble = until("the trouble of the node", DEPLOY, || {
        let status = bed.ask(&["node", "status", &node])?;
        Ok(status["fingerprint"]["trouble"].as_str().map(str::to_owned))
    });
    let trouble = trouble.with_context(|| bed.logs())?;
    println!("told: {trouble}");
    ensure!(trouble.contains("copies") && trouble.contains("read-only"), "not what is the matter: {trouble}");
    ensure!(bed.engine.containers()? == [running.clone()], "what runs was touched\n{}", bed.logs());
    drop(copies);
    let running = stage::wait_switch(&bed, &running, &three.image_id, DEPLOY)?;
    bed.wait_version("3", DEPLOY)?;
    bed.wait_deployed("web", DEPLOY)?;

    // And from the start.
    bed.agent()?.kill9()?;
    let folder = ReadOnly::make(&bed.agent_data())?;
    agent_refuses(&bed, &running, &["read-only"])?;
    drop(folder);
    let ledger = ReadOnly::make(&bed.agent_data().join("ledger.sqlite"))?;
    agent_refuses(&bed, &running, &["ledger.sqlite", "read-only"])?;
    drop(ledger);
    bed.start_agent()?;
    knows(&mut bed, 3, &running)?;
    bed.stop_agent()?;
    bed.stop_server()
}

/// Starts the server where it cannot work: it ends with an error that holds these words, and changes nothing.
fn server_refuses(bed: &mut Bed, what: &str, words: &[&str]) -> Result<()> {
    let path = bed.server_data().join("server.db");
    let before = fs::read(&path).ok();
    let said = match bed.start_server() {
        Ok(()) => anyhow::bail!("{what}: the server starts"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(said.contains("exit status: 1") || said.contains("exit status: 2"), "{what}: not an exit code that says so: {said}");
    ensure!(words.iter().all(|w| said.contains(w)), "{what}: the error does not say {words:?}: {said}");
    ensure!(!said.contains("panicked"), "{what}: {said}");
    ensure!(fs::read(&path).ok() == before, "{what}: the database was changed");
    let told = said.lines().filter(|l| l.contains("server.db") || l.contains("help:")).collect::<Vec<_>>().join(" | ");
    println!("{what}: {told}");
    Ok(())
}

#[test]
fn the_servers_database_cut_garbled_or_read_only() -> Result<()> {
    if !need::bed()? {
        return Ok(());
    }
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    let running = stage::deploy(&bed, "web", &one, "1")?;
    bed.stop_server()?;
    let path = bed.server_data().join("server.db");
    let whole = fs::read(&path)?;
    ensure!(whole.len() > 16 * 4096, "the database has only {} bytes", whole.len());
    let garbled = |at: usize, length: usize| {
        let mut bytes = whole.clone();
        bytes[at..at + length].iter_mut().for_each(|b| *b ^= 0x5a);
        bytes
    };
    let damages = [
        ("empty", vec![]),
        ("cut in its head", whole[..50].to_vec()),
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("its head garbled", garbled(0, 64)),
        ("a page garbled", garbled(4096, 4096)),
        ("zeros", vec![0; whole.len()]),
    ];
    for (what, bytes) in damages {
        fs::write(&path, bytes)?;
        server_refuses(&mut bed, what, &["server.db", "help:", "backup"])?;
    }
    fs::remove_file(&path)?;
    server_refuses(&mut bed, "gone", &["server.db", "help:", "backup"])?;
    fs::write(&path, &whole)?;
    let read_only = ReadOnly::make(&path)?;
    server_refuses(&mut bed, "read-only", &["server.db", "help:", "ead-only"])?;
    drop(read_only);
    let read_only = ReadOnly::make(&bed.server_data())?;
    server_refuses(&mut bed, "its folder read-only", &["help:", "ead-only"])?;
    drop(read_only);
    run(Command::new("chown").arg("65534:65534").arg(&path))?;

    // Put back, all is there.
    bed.start_server()?;
    ensure!(bed.ask(&["job", "status"])?.to_string().contains("web"), "the job is lost");
    bed.wait_deployed("web", DEPLOY)?;
    ensure!(bed.ask(&["node", "list"])?.as_array().is_some_and(|n| n.len() == 1), "the node is lost");
    ensure!(bed.engine.containers()? == [running], "what runs was touched\n{}", bed.logs());
    let [two, three] = ["2", "3"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (two, three) = (two?, three?);
    let running = stage::deploy(&bed, "web", &two, "2")?;

    // An older copy: the server knows nothing of the second version, and orders the first under a higher counter, which takes no place of
    // the second; it can be given the next version.
    bed.stop_server()?;
    fs::write(&path, &whole)?;
    bed.start_server()?;
    until("the node to tell what it keeps", DEPLOY, || {
        let all = bed.ask(&["alloc", "unknown", "list"])?;
        Ok((all[0]["version"] == 2 && all[0]["status"] == "running").then_some(()))
    })?;
    ensure!(bed.engine.containers()? == [running], "an older version took the place of what ran\n{}", bed.logs());
    stage::deploy(&bed, "web", &three, "3")?;
    bed.stop_agent()?;
    bed.stop_server()
}
