//! Reboots, updates that fail and the agent's weight with many allocations: containers and processes, without a server.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::WebApp;
use skerry_testkit::command::until;
use skerry_testkit::memory::pss_kib;
use skerry_tests::alone::{self, SOON, board, job, lines, submit, task, wait, wait_lines};
use skerry_tests::promise::hold;
use skerry_tests::stage::DEPLOY;

/// A container that serves the image's pages at `port`; `check` is a path that must be there, `more` goes into the group.
fn web(name: &str, kind: &str, image: &str, port: u16, check: &str, more: &str) -> String {
    let network = format!("    network {{\n      port \"http\" {{\n        static = {port}\n        to = 8080\n      }}\n    }}\n");
    let service = format!(
        "    service {{\n      name = \"web\"\n      port = \"http\"\n      check {{\n        type = \"http\"\n        path = \"{check}\"\n        interval = \"1s\"\n        timeout = \"2s\"\n      }}\n    }}\n"
    );
    let task = format!(
        "    task \"app\" {{\n      driver = \"docker\"\n      config {{\n        image = \"{image}\"\n        ports = [\"http\"]\n      }}\n      resources {{\n        memory = 64\n      }}\n    }}\n"
    );
    job(name, &format!("type = \"{kind}\""), &format!("{network}{service}{more}{task}"))
}

#[test]
fn every_job_type_comes_back_offline() -> Result<()> {
    let Some(mut bed) = alone::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    bed.publish(&one.path, &one.reference)?;
    let [service, system, batch, done, tick] = ["service", "system", "batch", "done", "tick"].map(|n| board(&bed, n));
    let stay = |path: &Path| format!("echo $$ >> {}; exec sleep 10000", path.display());
    submit(&bed, "web", &web("web", "service", &one.reference, 8080, "/version", ""))?;
    submit(&bed, "service", &job("service", "type = \"service\"", &task("t", &stay(&service), "")))?;
    submit(&bed, "system", &job("system", "type = \"system\"", &task("t", &stay(&system), "")))?;
    submit(&bed, "batch", &job("batch", "type = \"batch\"", &task("t", &stay(&batch), "")))?;
    submit(&bed, "done", &job("done", "type = \"sysbatch\"", &task("t", &format!("echo done >> {}", done.display()), "")))?;
    let head = "type = \"sysbatch\"\n  periodic {\n    crons = [\"*/5 * * * * *\"]\n  }";
    submit(&bed, "tick", &job("tick", head, &task("t", &format!("date +%s >> {}", tick.display()), "")))?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("1", DEPLOY)?;
    for path in [&service, &system, &batch, &done, &tick] {
        wait_lines(&bed, path, 1, SOON)?;
    }
    wait(&bed, "the end of the sysbatch job", "done", |a| a["status"] == "complete")?;

    bed.server()?.kill9()?;
    let pids: Vec<String> = [&service, &system, &batch].iter().flat_map(|p| lines(p)).collect();
    bed.reboot(&pids)?;
    let fired = lines(&tick).len();

    bed.wait_version("1", DEPLOY)?;
    for path in [&service, &system, &batch] {
        wait_lines(&bed, path, 2, SOON)?;
    }
    wait_lines(&bed, &tick, fired + 2, SOON)?;
    ensure!(lines(&done) == ["done"], "what was done was done again: {:?}", lines(&done));
    for path in [&service, &system, &batch] {
        ensure!(lines(path).len() == 2, "started twice after the reboot: {:?}", lines(path));
    }
    Ok(())
}

#[test]
fn an_unhealthy_update_reverts_offline_and_stays_so_until_ordered() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let update = "    update {\n      min_healthy_time = \"3s\"\n      healthy_deadline = \"20s\"\n      auto_revert = true\n    }\n";
    let [one, two] = ["1", "2"].map(|v| WebApp::small("web", v).write(bed.folder()));
    let (one, two) = (one?, two?);
    bed.publish(&one.path, &one.reference)?;
    submit(&bed, "web", &web("web", "service", &one.reference, 8080, "/version", update))?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("1", DEPLOY)?;
    wait(&bed, "health", "web", |a| a["healthy"] == true)?;

    bed.publish(&two.path, &two.reference)?;
    submit(&bed, "web", &web("web", "service", &two.reference, 8080, "/nothing", update))?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    bed.link.cut()?;
    let switched = Instant::now();
    wait(&bed, "the way back", "web", |a| a["version"] == 1 && a["status"] == "running")?;
    let took = switched.elapsed();
    ensure!(took <= Duration::from_secs(35), "it took {took:?} to go back");
    bed.link.heal()?;
    bed.wait_version("1", SOON)?;
    // Not tried again by itself.
    sleep(Duration::from_secs(12));
    bed.wait_version("1", Duration::from_secs(5))?;
    let status = bed.ask(&["job", "status", "web"])?;
    let failed = status["allocs"].as_array().into_iter().flatten().find(|a| a["version"] == 2).cloned();
    let failed = failed.with_context(|| format!("no allocation of version 2: {status:#}"))?;
    let id = failed["id"].as_str().context("no id")?;
    let said = bed.operate(&["alloc", "status", id])?;
    ensure!(said.contains("healthy") || said.contains("check"), "the operator is not told why: {said}");
    bed.operate(&["alloc", "retry", id])?;
    bed.wait_version("2", SOON)?;
    bed.wait_version("1", SOON)
}

#[test]
fn ten_allocations_weigh_little() -> Result<()> {
    let Some(mut bed) = alone::enrolled_undisturbed()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    bed.publish(&one.path, &one.reference)?;
    for n in 0..5 {
        let plain = web(&format!("web{n}"), "service", &one.reference, 8080 + n, "/version", "");
        submit(&bed, &format!("web{n}"), &plain.replace("interval = \"1s\"", "interval = \"60s\""))?;
        let line = "exec sleep 10000";
        submit(&bed, &format!("task{n}"), &job(&format!("task{n}"), "", &task("t", line, "")))?;
    }
    for n in 0..5 {
        for name in [format!("web{n}"), format!("task{n}")] {
            until(&format!("{name} to run"), DEPLOY, || {
                Ok(alone::alloc(&bed, &name)?.is_some_and(|a| a["status"] == "running").then_some(()))
            })
            .with_context(|| bed.logs())?;
        }
    }
    // As after a reboot of the agent: what is adopted weighs, not what was fetched. Server and agent ask and answer as in the field.
    bed.stop_agent()?;
    bed.serve_as_in_the_field()?;
    bed.start_agent()?;
    sleep(Duration::from_secs(20));
    let pid = bed.agent()?.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    ensure!(children.trim().is_empty(), "the agent has helper processes: {children}");
    hold("agent-ten", pss_kib(pid)? * 1024)?;
    // By then a start has told what it has to tell, every check has passed, and what text is needed for all that is in memory again.
    sleep(Duration::from_secs(80));
    let before = wakeups(pid)?;
    sleep(Duration::from_secs(60));
    hold("agent-wakeups", wakeups(pid)? - before)
}

/// How often the threads of a process have waited so far.
fn wakeups(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).context("no count")?;
        sum += line.trim().parse::<u64>()?;
    }
    Ok(sum)
}
