//! What changes while tasks run: rights and groups of ordinary users' programs, meta of the node, templates that no longer render.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use skerry_testkit::Bed;
use skerry_testkit::command::{run, until};
use skerry_tests::alone::{self, SOON, board, is_alive, job, lines, submit, task, wait, wait_lines};

#[test]
fn what_changes_reaches_the_tasks_that_run() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    exec_tasks_are_ordinary_users(&bed)?;
    meta_and_variables_are_followed(&bed)
}

/// `exec`: an ordinary user without new privileges, in a control group of its own, which ends whole.
fn exec_tasks_are_ordinary_users(bed: &Bed) -> Result<()> {
    let lets_go = (3..10).map(|fd| format!("{fd}>&-")).collect::<Vec<_>>().join(" ");
    let line = format!(
        "echo uid $(id -u) gid $(id -g); grep NoNewPrivs /proc/self/status; grep ^0: /proc/self/cgroup; setsid sh -c 'exec {lets_go}; echo child $$; exec sleep 10000' & echo main $$; exec sleep 10000"
    );
    submit(bed, "plain", &job("plain", "", &task("t", &line, "resources { memory = 48 }").replace("raw_exec", "exec")))?;
    wait(bed, "the exec task", "plain", |a| a["status"] == "running")?;
    let said = until("its words", SOON, || {
        let said = alone::log(bed, "plain", "t")?;
        Ok((said.contains("child ") && said.contains("main ")).then_some(said))
    })
    .with_context(|| bed.logs())?;
    let word = |first: &str| said.lines().find_map(|l| l.strip_prefix(first)).map(str::trim).map(str::to_owned);
    ensure!(!said.contains("uid 0") && !said.contains("gid 0") && word("uid").is_some(), "it is root: {said}");
    ensure!(word("NoNewPrivs:").as_deref() == Some("1"), "{said}");
    let (main, child) = (word("main").context("no main")?, word("child").context("no child")?);
    ensure!(is_alive(&main) && is_alive(&child), "{said}");

    // The same by way of the server, from a node that only asks.
    let there = bed.operate(&["alloc", "logs", &alone::alloc_id(bed, "plain")?, "--lines", "1000"])?;
    ensure!(there == said, "the server has {there:?}");

    let node = bed.ask(&["node", "list"])?[0]["id"].as_str().context("no node")?.to_owned();
    let facts = bed.ask(&["node", "status", &node])?;
    let groups = facts["fingerprint"]["attributes"]["cgroup"].as_str().context("no fact about control groups")?.to_owned();
    let group = word("0::").unwrap_or_default();
    ensure!(groups == "none" || group.contains("/skerry/"), "{groups}: {said}");
    if groups == "v2" {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mount = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find(|f| f.get(2) == Some(&"cgroup2"));
        let folder = PathBuf::from(mount.context("no hierarchy")?[1]).join(group.trim_start_matches('/'));
        let limit = fs::read_to_string(folder.join("memory.max"))?;
        ensure!(limit.trim() == (48_u64 << 20).to_string(), "memory.max is {limit}");
    }
    if ["v1", "v2"].contains(&groups.as_str()) {
        memory_is_bounded(bed)?;
    } else {
        println!("limits of memory and processor are not tried: this machine's control groups are `{groups}`");
    }
    bed.operate(&["job", "stop", "plain"])?;
    until("its end", SOON, || Ok((!is_alive(&main)).then_some(())))?;
    if groups == "none" {
        // Nothing ties what left session and lock to the task. It is this test's to end.
        ensure!(child.parse::<u32>().is_ok_and(|pid| pid > 1), "{child} is no process id");
        return run(Command::new("kill").arg(&child)).map(drop);
    }
    until("the end of what it started", SOON, || Ok((!is_alive(&child)).then_some(())))
}

/// A program that takes more than it may have is killed, and the reason says so.
fn memory_is_bounded(bed: &Bed) -> Result<()> {
    let body = [
        "    restart {\n      attempts = 0\n      mode = \"fail\"\n    }\n    reschedule {\n      attempts = 0\n    }\n".to_owned(),
        task("t", "head -c 100000000 /dev/zero | tail", "resources { memory = 16 }").replace("raw_exec", "exec"),
    ]
    .concat();
    submit(bed, "greedy", &job("greedy", "type = \"batch\"", &body))?;
    let ended = wait(bed, "its end", "greedy", |a| a["status"] == "failed")?;
    ensure!(ended["reason"].as_str().is_some_and(|r| r.contains("memory")), "{ended}");
    Ok(())
}

/// Meta set on the node and by the server, and variables, reach the files of a task that runs; one that does not render changes nothing.
fn meta_and_variables_are_followed(bed: &Bed) -> Result<()> {
    let log = board(bed, "log");
    let data = bed.agent_data().display().to_string();
    let node = bed.ask(&["node", "list"])?[0]["id"].as_str().context("no node")?.to_owned();
    bed.operate(&["var", "put", "nomad/jobs/site", "rate=3"])?;
    let line = format!(
        "say() {{ echo \"$1 $(cat $NOMAD_TASK_DIR/site)\" >> {}; }}; trap 'say hup' HUP; say $$; while true; do sleep 0.1; done",
        log.display()
    );
    let file = "template {\n        data = \"{{ meta \\\"site\\\" }} {{ key \\\"nomad/jobs/site/rate\\\" }}\"\n        destination = \"local/site\"\n        change_mode = \"signal\"\n        change_signal = \"SIGHUP\"\n      }\n";
    submit(bed, "site", &job("site", "", &task("t", &line, file)))?;
    let first = wait_lines(bed, &log, 1, SOON)?.remove(0);
    let (pid, site) = first.split_once(' ').context("no pid")?;
    ensure!(site.trim() == "3", "{first}");
    wait(bed, "the task", "site", |a| a["status"] == "running")?;
    let mut heard = 1;
    let mut hears = |expected: &str| -> Result<()> {
        heard += 1;
        let found = wait_lines(bed, &log, heard, SOON)?;
        ensure!(found.len() == heard && found[heard - 1] == format!("hup {expected}"), "expected {expected}: {found:?}");
        Ok(())
    };
    bed.on_node(&["meta", "--data", &data, "set", "site=harbour"])?;
    hears("harbour 3")?;
    bed.operate(&["node", "meta", "apply", &node, "site=dock"])?;
    hears("dock 3")?;
    // What the server says wins.
    bed.on_node(&["meta", "--data", &data, "set", "site=quay"])?;
    bed.operate(&["node", "meta", "apply", &node, "site-"])?;
    hears("quay 3")?;

    bed.operate(&["var", "purge", "nomad/jobs/site"])?;
    let stays = |status: &serde_json::Value| status["allocs"].to_string().contains("files stay as they are");
    until("the reason", SOON, || Ok(stays(&bed.agent_status()?).then_some(()))).with_context(|| bed.logs())?;
    let still = wait(bed, "the task to run on", "site", |a| a["status"] == "running")?;
    ensure!(is_alive(pid) && lines(&log).len() == 4 && still["restarts"] == 0, "{:?} {still}", lines(&log));
    bed.operate(&["var", "put", "nomad/jobs/site", "rate=5"])?;
    hears("quay 5")?;
    ensure!(is_alive(pid), "the task was started again");
    Ok(())
}
