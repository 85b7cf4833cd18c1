//! Bad input of jobs: refused or degraded with a clear reason that reaches the operator; what runs keeps running.
//!
//! Needs root, Docker and the built programs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::Bed;
use skerry_testkit::command::{output, until};
use skerry_tests::alone::{self, SOON, alloc_id, board, is_alive, job, submit, task, wait, wait_lines};

/// Submits a job that the node cannot run. The operator is told why, at once or by the job's status, and what runs keeps running.
fn refused(bed: &Bed, name: &str, text: &str, pid: &str, words: &[&str]) -> Result<()> {
    let path = bed.folder().join(format!("{name}.hcl"));
    std::fs::write(&path, text)?;
    let ran = output(&mut bed.skerry(&["job", "run", &path.display().to_string()])?)?;
    let told = |text: &str| words.iter().all(|w| text.to_lowercase().contains(&w.to_lowercase()));
    let mut said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if ran.status.success() {
        // Of what a run prints, the plan's own words: not what the jobspec says.
        let plan = String::from_utf8_lossy(&ran.stdout).into_owned();
        let plan = plan.lines().filter(|l| !l.trim_start().starts_with('+')).collect::<Vec<_>>().join("\n");
        let found = until(&format!("the reason of {name}"), SOON, || {
            said = alloc_id(bed, name).and_then(|id| bed.operate(&["alloc", "status", &id])).unwrap_or_default();
            said.push_str(&plan);
            Ok(told(&said).then_some(()))
        });
        found.with_context(|| format!("{said}\n{:#}\n{}", bed.ask(&["job", "status", name]).unwrap_or_default(), bed.logs()))?;
    } else {
        ensure!(told(&said), "{name} was refused without its reason: {said}");
    }
    ensure!(is_alive(pid), "what ran does not run any more after {name}");
    Ok(())
}

#[test]
fn what_a_node_cannot_run_is_refused_with_its_reason() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let pid = board(&bed, "pid");
    let good = task("t", &format!("echo $$ >> {}; exec sleep 10000", pid.display()), "");
    submit(
        &bed,
        "good",
        &job("good", "type = \"system\"", &format!("    network {{\n      port \"a\" {{\n        static = 9911\n      }}\n    }}\n{good}")),
    )?;
    let pid = wait_lines(&bed, &pid, 1, SOON)?.remove(0);
    wait(&bed, "the good one", "good", |a| a["status"] == "running")?;

    let system = "type = \"system\"";
    let sleep = |more: &str| task("t", "exec sleep 10000", more);
    refused(&bed, "bad1", &job("bad1", system, &sleep("resources { memory = 900000 }")), &pid, &["MiB"])?;
    refused(&bed, "bad2", &job("bad2", system, &sleep("resources { disk = 16000000 }")), &pid, &["of disk"])?;
    let port = "    network {\n      port \"b\" {\n        static = 9911\n      }\n    }\n";
    refused(&bed, "bad3", &job("bad3", system, &format!("{port}{}", sleep(""))), &pid, &["port", "9911"])?;
    let broken = "template {\n        data = \"{{ with nomadVar \\\"nomad/jobs/nothing\\\" }}{{ .x }}{{ end }}{{ key \\\"nothing/here\\\" }}\"\n        destination = \"local/x\"\n        error_on_missing_key = true\n      }\n";
    refused(&bed, "bad4", &job("bad4", system, &sleep(broken)), &pid, &["template", "nothing"])?;
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
