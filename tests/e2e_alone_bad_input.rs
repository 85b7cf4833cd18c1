//! Bad input of jobs: refused or degraded with a clear reason that reaches the operator; what runs keeps running.
//!
//! Needs root, Docker and the built programs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::Bed;
use skerry_testkit::command::until;
use skerry_tests::alone::{self, SOON, alloc_id, board, is_alive, job, submit, task, wait, wait_lines};

/// The operator is told the reason, and what runs keeps running.
fn refused(bed: &Bed, name: &str, pid: &str, words: &[&str]) -> Result<()> {
    let found = until(&format!("the reason of {name}"), SOON, || {
        let status = bed.ask(&["job", "status", name])?.to_string().to_lowercase();
        let by_alloc = alloc_id(bed, name).and_then(|id| bed.operate(&["alloc", "status", &id])).unwrap_or_default().to_lowercase();
        let told = |text: &str| words.iter().all(|w| text.contains(&w.to_lowercase()));
        Ok((told(&status) || told(&by_alloc)).then_some(()))
    });
    found.with_context(|| format!("{:#}\n{}", bed.ask(&["job", "status", name]).unwrap_or_default(), bed.logs()))?;
    ensure!(is_alive(pid), "what ran does not run any more after {name}");
    Ok(())
}

#[test]
fn what_a_node_cannot_run_is_refused_with_its_reason() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let pid = board(&bed, "pid");
    let good = task("t", &format!("echo $$ >> {}; exec sleep 10000", pid.display()), "");
    submit(&bed, "good", &job("good", "type = \"system\"", &format!("    network {{\n      port \"a\" {{\n        static = 9911\n      }}\n    }}\n{good}")))?;
    let pid = wait_lines(&bed, &pid, 1, SOON)?.remove(0);
    wait(&bed, "the good one", "good", |a| a["status"] == "running")?;

    let system = "type = \"system\"";
    let sleep = |more: &str| task("t", "exec sleep 10000", more);
    submit(&bed, "memory", &job("memory", system, &sleep("resources { memory = 9000000 }"))).ok();
    refused(&bed, "memory", &pid, &["memory"])?;
    submit(&bed, "disk", &job("disk", system, &sleep("resources { disk = 90000000 }"))).ok();
    refused(&bed, "disk", &pid, &["disk"])?;
    let port = "    network {\n      port \"b\" {\n        static = 9911\n      }\n    }\n";
    submit(&bed, "port", &job("port", system, &format!("{port}{}", sleep("")))).ok();
    refused(&bed, "port", &pid, &["9911"])?;
    let broken = "template {\n        data = \"{{ with nomadVar \\\"nomad/jobs/nothing\\\" }}{{ .x }}{{ end }}{{ key \\\"nothing/here\\\" }}\"\n        destination = \"local/x\"\n        error_on_missing_key = true\n      }\n";
    submit(&bed, "template", &job("template", system, &sleep(broken)))?;
    refused(&bed, "template", &pid, &["template"])?;
    Ok(())
}

#[test]
fn a_task_that_ignores_its_signal_is_killed() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let pid = board(&bed, "pid");
    let line = format!("trap '' TERM; echo $$ >> {}; while true; do sleep 1; done", pid.display());
    submit(&bed, "deaf", &job("deaf", "", &task("t", &line, "kill_timeout = \"3s\"")))?;
    let pid = wait_lines(&bed, &pid, 1, SOON)?.remove(0);
    wait(&bed, "the deaf one", "deaf", |a| a["status"] == "running")?;
    let start = Instant::now();
    bed.operate(&["job", "stop", "deaf"])?;
    until("its end", SOON, || Ok((!is_alive(&pid)).then_some(())))?;
    ensure!(start.elapsed() >= Duration::from_millis(2500), "killed after {:?}", start.elapsed());
    Ok(())
}
