//! Every file of the agent cut short or garbled at sampled bytes, one after the other, without the server: what runs is not touched, and the
//! agent comes back and knows what it runs.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::Bed;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::until;
use skerry_tests::alone::{self, SOON, board, is_alive, job, submit, task, wait, wait_lines};
use skerry_tests::stage;

/// Files of the agent; not those of its tasks, nor bundles, which are hashed whenever they are opened, nor room that is set aside.
fn files(folder: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(below)?.to_path_buf();
        if path.is_dir() {
            if !["alloc", "bundles"].iter().any(|n| name.starts_with(n)) {
                files(&path, below, found)?;
            }
        } else if path.is_file() && fs::metadata(&path)?.len() > 0 && !name.ends_with("ledger.reserve") {
            found.push(name);
        }
    }
    Ok(())
}

/// What a worn card may make of a file.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let garbled = |at: usize| {
        let mut bytes = whole.to_vec();
        for byte in bytes.iter_mut().skip(at).take(64) {
            *byte ^= 0x5a;
        }
        bytes
    };
    let length = whole.len();
    vec![vec![], whole[..length / 2].to_vec(), garbled(0), garbled(length / 3), garbled(length * 2 / 3), garbled(length.saturating_sub(40))]
}

/// The agent answers and says that both jobs run. One that ends is started again, as a supervisor does.
fn knows(bed: &mut Bed) -> Result<()> {
    let mut last = Value::Null;
    let found = until("the agent to know what it runs", SOON, || {
        if !bed.agent()?.is_running() {
            bed.start_agent()?;
        }
        last = bed.agent_status().unwrap_or_default();
        let allocs = last["allocs"].as_array().cloned().unwrap_or_default();
        let runs = |name: &str| allocs.iter().any(|a| a["job"] == name && a["status"] == "running" && a["current"] == true);
        Ok((last["running"] == true && runs("web") && runs("tide")).then_some(()))
    });
    found.with_context(|| format!("last seen: {last}\n{}", bed.logs()))
}

#[test]
fn any_file_of_the_agent_may_be_damaged() -> Result<()> {
    let Some(mut bed) = alone::enrolled()? else { return Ok(()) };
    let pid = board(&bed, "pid");
    let line = format!("echo $$ >> {}; exec sleep 10000", pid.display());
    submit(&bed, "tide", &job("tide", "type = \"system\"", &task("t", &line, "")))?;
    wait(&bed, "the process", "tide", |a| a["status"] == "running")?;
    let pids = wait_lines(&bed, &pid, 1, SOON)?;
    let web = WebApp::small("web", "1").write(bed.folder())?;
    stage::deploy(&bed, "web", &web, "1")?;
    let running = bed.engine.containers()?;
    bed.stop_server()?;

    bed.agent()?.kill9()?;
    let mut names = Vec::new();
    files(&bed.agent_data(), &bed.agent_data(), &mut names)?;
    names.sort();
    ensure!(names.iter().any(|n| n.ends_with("ledger.sqlite")) && names.len() > 8, "too few files: {names:?}");
    let (mut tried, mut refused) = (0, Vec::new());
    for name in &names {
        let path = bed.agent_data().join(name);
        // A file that an earlier damage took with it, or that was folded into another.
        let Ok(whole) = fs::read(&path) else { continue };
        for (n, damaged) in damages(&whole).into_iter().enumerate() {
            fs::write(&path, damaged)?;
            bed.start_agent()?;
            tried += 1;
            let found = knows(&mut bed).with_context(|| format!("{} with damage {n}", name.display()));
            if let Err(error) = found {
                refused.push(format!("{error:#}"));
            }
            ensure!(bed.engine.containers()? == running, "{} with damage {n}: the container was touched", name.display());
            ensure!(is_alive(&pids[0]) && alone::lines(&pid).len() == 1, "{} with damage {n}: the process was touched", name.display());
            bed.agent()?.kill9()?;
            if !refused.is_empty() {
                break;
            }
            fs::write(&path, &whole)?;
        }
        ensure!(refused.is_empty(), "{}", refused.join("\n"));
    }
    println!("{tried} damages of {} files", names.len());

    // All that is remembered is lost at once: labels and records say what runs.
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = fs::remove_file(bed.agent_data().join(name));
    }
    fs::remove_dir_all(bed.agent_data().join("copies"))?;
    bed.start_agent()?;
    std::thread::sleep(Duration::from_secs(5));
    ensure!(bed.engine.containers()? == running && is_alive(&pids[0]), "what runs was touched when all was lost");
    bed.start_server()?;
    knows(&mut bed)?;
    ensure!(bed.engine.containers()? == running && is_alive(&pids[0]), "what runs was touched when the server was back");
    ensure!(alone::lines(&pid).len() == 1, "the process was started twice");
    bed.stop_agent()?;
    bed.stop_server()
}
