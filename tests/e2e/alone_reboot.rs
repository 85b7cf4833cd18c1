//! Reboots, updates that fail and the agent's weight with many allocations: containers and processes, without a server.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::Bed;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::until;
use skerry_testkit::memory::pss_kib;
use skerry_tests::alone::{self, SOON, board, job, lines, submit, task, wait, wait_lines};
use skerry_tests::promise::hold;
use skerry_tests::stage::{self, DEPLOY};

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

/// A container that notes each of its starts on the board of its job, and then does this.
fn noting(name: &str, head: &str, image: &str, boards: &Path, then: &str) -> String {
    let line = format!("echo start >> /boards/{name}; {then}");
    let config = format!(
        "image = \"{image}\"\n        command = \"/bin/busybox\"\n        args = [\"sh\", \"-c\", \"{line}\"]\n        volumes = [\"{}:/boards\"]\n",
        boards.display()
    );
    let task = format!(
        "    task \"t\" {{\n      driver = \"docker\"\n      config {{\n        {config}      }}\n      resources {{\n        memory = 16\n      }}\n    }}\n"
    );
    job(name, head, &task)
}

/// Every job type in containers, and the power goes twice: once while all is well, once while what ran is just coming back.
#[test]
fn every_job_type_in_containers_comes_back_after_power_cuts() -> Result<()> {
    if !skerry_testkit::need::bed()? {
        return Ok(());
    }
    let mut bed = Bed::start()?;
    bed.start_server()?;
    let boards = bed.folder().join("boards");
    fs::create_dir(&boards)?;
    bed.configure_agent(&format!("[policy]\nhost_volumes = [\"{}\"]\n", boards.display()))?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;
    let one = WebApp::small("web", "1").write(bed.folder())?;
    bed.publish(&one.path, &one.reference)?;
    let cron = "\n  periodic {\n    crons = [\"*/5 * * * * *\"]\n  }";
    let stays = ["service", "system", "batch", "sysbatch"];
    for name in stays {
        submit(&bed, name, &noting(name, &format!("type = \"{name}\""), &one.reference, &boards, "exec sleep 10000"))?;
    }
    for kind in ["batch", "sysbatch"] {
        let (done, tick) = (format!("done-{kind}"), format!("tick-{kind}"));
        submit(&bed, &done, &noting(&done, &format!("type = \"{kind}\""), &one.reference, &boards, "true"))?;
        submit(&bed, &tick, &noting(&tick, &format!("type = \"{kind}\"{cron}"), &one.reference, &boards, "true"))?;
    }
    submit(&bed, "web", &web("web", "service", &one.reference, 8080, "/version", ""))?;
    let starts = |name: &str| lines(&boards.join(name)).len();
    let wait_starts = |bed: &Bed, name: &str, count: usize| wait_lines(bed, &boards.join(name), count, DEPLOY).map(drop);
    for name in stays.into_iter().chain(["done-batch", "done-sysbatch", "tick-batch", "tick-sysbatch"]) {
        wait_starts(&bed, name, 1)?;
    }
    for name in ["done-batch", "done-sysbatch"] {
        wait(&bed, "the end of what ends once", name, |a| a["status"] == "complete")?;
    }
    bed.wait_version("1", DEPLOY)?;

    bed.server()?.kill9()?;
    bed.cut_power(&[])?;
    until("the first container again", DEPLOY, || Ok(stays.iter().any(|name| starts(name) == 2).then_some(())))
        .with_context(|| bed.logs())?;
    bed.cut_power(&[])?;
    let before = stays.map(starts);
    let ticks = ["tick-batch", "tick-sysbatch"].map(|name| (name, starts(name)));

    bed.wait_version("1", DEPLOY)?;
    for (name, before) in stays.into_iter().zip(before) {
        wait_starts(&bed, name, before + 1)?;
        wait(&bed, "what stays to run", name, |a| a["status"] == "running")?;
    }
    for (name, before) in ticks {
        wait_starts(&bed, name, before + 2)?;
    }
    for (name, before) in stays.into_iter().zip(before) {
        ensure!(starts(name) == before + 1, "{name} was started {} times after the second cut\n{}", starts(name) - before, bed.logs());
        ensure!((2..=3).contains(&starts(name)), "{name} was started {} times", starts(name));
    }
    for name in ["done-batch", "done-sysbatch"] {
        ensure!(starts(name) == 1, "{name} was done, and was started {} times", starts(name));
    }
    bed.stop_agent()
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
