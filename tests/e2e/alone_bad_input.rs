//! Bad input of jobs: refused or degraded with a clear reason that reaches the operator; what runs keeps running.
//!
//! Needs root, Docker and the built programs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ciborium::Value;
use skerry_testkit::Bed;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::{output, until};
use skerry_tests::alone::{self, SOON, alloc_id, board, is_alive, job, lines, submit, task, wait, wait_lines};
use skerry_trust::{SigningKey, envelope};
use skerry_wire::Timestamp;
use skerry_wire::api::{SubmitRequest, Submitter};
use skerry_wire::job::Job;
use skerry_wire::release::Specification;

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
    let image = WebApp::small("web", "1").write(bed.folder())?;
    bed.publish(&image.path, &image.reference)?;
    let device = format!(
        "    task \"app\" {{\n      driver = \"docker\"\n      config {{\n        image = \"{}\"\n        devices = [{{ host_path = \"/dev/skerry-nothing\" }}]\n      }}\n    }}\n",
        image.reference
    );
    refused(&bed, "bad5", &job("bad5", system, &device), &pid, &["device /dev/skerry-nothing is not on the node"])?;
    what_a_newer_server_says_is_refused_and_the_version_before_goes_on(&bed, &pid)
}

/// A specification with a field that this agent does not know, signed with the fleet's release key.
fn what_a_newer_server_says_is_refused_and_the_version_before_goes_on(bed: &Bed, other: &str) -> Result<()> {
    let pid = board(bed, "till");
    submit(bed, "till", &job("till", "type = \"system\"", &task("t", &format!("echo $$ >> {}; exec sleep 10000", pid.display()), "")))?;
    let first = wait_lines(bed, &pid, 1, SOON)?.remove(0);
    wait(bed, "the till", "till", |a| a["status"] == "running")?;

    let known: Job = serde_json::from_value(bed.ask(&["job", "status", "till"])?["job"].clone())?;
    let specification = Specification { job: Job { priority: 51, ..known }, signed_at: Timestamp(1_800_000_000_000) };
    let mut value = Value::serialized(&specification)?;
    let inner = ["job", "groups", "tasks"].into_iter().try_fold(&mut value, |value, key| inside(value, key)).context("no task")?;
    inner.as_map_mut().context("a task is no map")?.push((Value::from("gravity"), Value::from(9)));
    let key = SigningKey::from_text(&std::fs::read_to_string(bed.server_data().join("release.key"))?)?;
    let request = SubmitRequest {
        specification: envelope::seal(&key, Specification::PURPOSE, &value).into(),
        source: String::new(),
        submitter: Submitter { name: "Ada".to_owned(), email: "ada@example.org".to_owned() },
        max_bytes: None,
        again: false,
    };
    bed.post("/v1/jobs", &serde_json::to_value(&request)?)?;
    let told = until("the reason", SOON, || {
        let status = bed.ask(&["job", "status", "till"])?;
        let all = status["allocs"].as_array().into_iter().flatten();
        Ok(all.into_iter().find(|a| a["version"] == 2 && a["status"] == "failed").cloned())
    })
    .with_context(|| bed.logs())?;
    let said = bed.operate(&["alloc", "status", told["id"].as_str().context("no id")?])?;
    ensure!(said.contains("job.groups[0].tasks[0].gravity") && said.contains("update the agent"), "{said}");
    ensure!(is_alive(&first) && is_alive(other) && lines(&pid).len() == 1, "what ran was touched");
    // Known again, it goes on: the next version is followed.
    let newer = format!("echo $$ >> {}; exec sleep 10001", pid.display());
    submit(bed, "till", &job("till", "type = \"system\"", &task("t", &newer, "")))?;
    wait_lines(bed, &pid, 2, SOON)?;
    until("the end of the old version", SOON, || Ok((!is_alive(&first)).then_some(())))
}

/// What a map has under a key; of a list the first.
fn inside<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    let found = value.as_map_mut()?.iter_mut().find(|(k, _)| k.as_text() == Some(key)).map(|(_, v)| v)?;
    if found.is_array() { found.as_array_mut()?.first_mut() } else { Some(found) }
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
