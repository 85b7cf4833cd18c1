//! What a node decides alone: lives of allocations, checks, templates, locks, the dead-man switch, with real processes.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use skerry_testkit::command::until;
use skerry_tests::alone::{self, SOON, alloc, alloc_id, board, is_alive, job, lines, submit, task, wait, wait_lines};

#[test]
fn a_group_lives_in_order() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let log = board(&bed, "log");
    let say = |word: &str| format!("echo {word} >> {}", log.display());
    let body = [
        "    shutdown_delay = \"100ms\"\n".to_owned(),
        task("init", &format!("{}; sleep 1", say("init")), "lifecycle { hook = \"prestart\" }"),
        task(
            "beside",
            &format!("{}; trap '{}; exit 0' TERM; while true; do sleep 0.1; done", say("beside"), say("beside-ends")),
            "lifecycle {\n hook = \"prestart\"\n sidecar = true\n }",
        ),
        task(
            "main",
            &format!("{}; trap '{}; exit 0' TERM; while true; do sleep 0.1; done", say("main"), say("main-ends")),
            "leader = true",
        ),
        task("after", &say("after"), "lifecycle { hook = \"poststart\" }"),
        task("last", &say("last"), "lifecycle { hook = \"poststop\" }"),
    ]
    .concat();
    submit(&bed, "life", &job("life", "", &body))?;
    let began = wait_lines(&bed, &log, 4, SOON)?;
    let place = |word: &str| began.iter().position(|l| l == word);
    ensure!(place("init") < place("main") && place("beside") < place("main") && place("main") < place("after"), "{began:?}");
    wait(&bed, "the group to run", "life", |a| a["status"] == "running")?;
    bed.operate(&["job", "stop", "life"])?;
    let all = wait_lines(&bed, &log, 7, SOON)?;
    ensure!(all[4..] == ["main-ends", "beside-ends", "last"], "{all:?}");
    until("the end", SOON, || Ok(alloc(&bed, "life")?.is_none_or(|a| a["status"] == "complete").then_some(())))
}

#[test]
fn batch_jobs_end_once_and_are_bounded() -> Result<()> {
    let Some(mut bed) = alone::enrolled()? else { return Ok(()) };
    let log = board(&bed, "log");
    let say = |word: &str| format!("echo {word} >> {}", log.display());
    submit(&bed, "once", &job("once", "type = \"sysbatch\"", &task("t", &say("once"), "")))?;
    submit(&bed, "count", &job("count", "type = \"batch\"", &task("t", &say("count"), "")))?;
    wait(&bed, "the end of the sysbatch job", "once", |a| a["status"] == "complete")?;
    wait(&bed, "the end of the batch job", "count", |a| a["status"] == "complete")?;
    let body = ["    max_run_duration = \"3s\"\n".to_owned(), task("t", "sleep 1000", "")].concat();
    let restart = "    restart { attempts = 0 }\n    reschedule { attempts = 0 }\n";
    submit(&bed, "long", &job("long", "type = \"batch\"", &format!("{restart}{body}")))?;
    let ended = wait(&bed, "the end of the long one", "long", |a| a["status"] == "failed")?;
    ensure!(ended["reason"].as_str().is_some_and(|r| r.contains("3s")), "{ended}");
    // What is done stays done, over a restart of the agent too.
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    sleep(Duration::from_secs(5));
    let mut found = lines(&log);
    found.sort();
    ensure!(found == ["count", "once"], "{found:?}");
    until("the server to know", SOON, || {
        let id = alloc_id(&bed, "once")?;
        Ok((bed.ask(&["alloc", "status", &id])?.to_string().contains("complete")).then_some(()))
    })
}

#[test]
fn cron_fires_offline() -> Result<()> {
    let Some(mut bed) = alone::enrolled()? else { return Ok(()) };
    let log = board(&bed, "log");
    let head = "type = \"sysbatch\"\n  periodic {\n    crons = [\"*/5 * * * * *\"]\n    prohibit_overlap = true\n  }";
    submit(&bed, "tick", &job("tick", head, &task("t", &format!("date +%s >> {}", log.display()), "")))?;
    wait_lines(&bed, &log, 1, SOON)?;
    bed.server()?.kill9()?;
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    let before = lines(&log).len();
    let found = wait_lines(&bed, &log, before + 4, SOON)?;
    let times: Vec<u64> = found[before..].iter().filter_map(|l| l.parse().ok()).collect();
    // One start may be late on a busy machine; the next one is not later for it.
    let lasted = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
    ensure!((9..=25).contains(&lasted), "three times five seconds: {times:?}");
    Ok(())
}

#[test]
fn an_update_lock_puts_the_switch_off_until_it_is_overridden_or_let_go() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let log = board(&bed, "log");
    let holding = format!("echo one $$ >> {}; exec flock \"$NOMAD_ALLOC_DIR/update.lock\" sleep 1000", log.display());
    submit(&bed, "pump", &job("pump", "", &task("t", &holding, "")))?;
    wait(&bed, "the first version", "pump", |a| a["status"] == "running" && a["healthy"] == true)?;
    let flag = board(&bed, "done");
    let holding = format!("while [ ! -e {} ]; do sleep 0.2; done", flag.display());
    let second = format!("echo two $$ >> {}; flock \"$NOMAD_ALLOC_DIR/update.lock\" sh -c '{holding}'; exec sleep 1000", log.display());
    submit(&bed, "pump", &job("pump", "", &task("t", &second, "")))?;
    until("the reason", SOON, || Ok(bed.agent_status()?.to_string().contains("update lock").then_some(())))
        .with_context(|| format!("{:#}\n{}", bed.agent_status().unwrap_or_default(), bed.logs()))?;
    sleep(Duration::from_secs(8));
    ensure!(lines(&log).len() == 1, "it switched in spite of the lock: {:?}", lines(&log));
    until("the server to know why", SOON, || {
        let id = alloc_id(&bed, "pump")?;
        Ok(bed.operate(&["alloc", "status", &id])?.contains("update lock").then_some(()))
    })?;
    let status = bed.ask(&["job", "status", "pump"])?;
    let waiting = status["allocs"].as_array().into_iter().flatten().find(|a| a["version"] == 2).cloned();
    let id = waiting.and_then(|a| a["id"].as_str().map(str::to_owned)).with_context(|| format!("no new allocation: {status}"))?;
    bed.operate(&["alloc", "override-lock", &id])?;
    wait_lines(&bed, &log, 2, SOON)?;
    wait(&bed, "the second version", "pump", |a| a["version"] == 2 && a["status"] == "running")?;
    // The application lets go of it by itself, and runs on: then the switch comes without an order.
    submit(&bed, "pump", &job("pump", "", &task("t", &format!("echo three $$ >> {}; exec sleep 1000", log.display()), "")))?;
    until("the reason of the third version", SOON, || {
        let status = bed.ask(&["job", "status", "pump"])?;
        let waits = |a: &serde_json::Value| a["version"] == 3 && a["reason"].as_str().is_some_and(|r| r.contains("update lock"));
        Ok(status["allocs"].as_array().into_iter().flatten().any(waits).then_some(()))
    })
    .with_context(|| bed.logs())?;
    ensure!(lines(&log).len() == 2, "it switched in spite of the lock: {:?}", lines(&log));
    fs::write(&flag, "")?;
    wait_lines(&bed, &log, 3, SOON)?;
    wait(&bed, "the third version", "pump", |a| a["version"] == 3 && a["status"] == "running").map(drop)
}

#[test]
fn the_dead_man_switch_fires_across_a_restart() -> Result<()> {
    let Some(mut bed) = alone::enrolled()? else { return Ok(()) };
    let pid = board(&bed, "pid");
    let line = format!("echo $$ >> {}; exec sleep 1000", pid.display());
    let body = ["    disconnect { stop_on_client_after = \"20s\" }\n".to_owned(), task("t", &line, "")].concat();
    submit(&bed, "crane", &job("crane", "", &body))?;
    let first = wait_lines(&bed, &pid, 1, SOON)?.remove(0);
    wait(&bed, "the crane to run", "crane", |a| a["status"] == "running")?;
    bed.link.cut()?;
    let cut = Instant::now();
    sleep(Duration::from_secs(8));
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    sleep(Duration::from_secs(3));
    ensure!(is_alive(&first), "stopped too soon");
    until("the stop", SOON, || Ok((!is_alive(&first)).then_some(())))?;
    ensure!(cut.elapsed() >= Duration::from_secs(18), "stopped after {:?}", cut.elapsed());
    ensure!(cut.elapsed() <= Duration::from_secs(45), "the restart of the agent began the count anew: {:?}", cut.elapsed());
    bed.link.heal()?;
    wait_lines(&bed, &pid, 2, SOON)?;
    wait(&bed, "the crane to run again", "crane", |a| a["status"] == "running").map(drop)
}

#[test]
fn fifty_kills_of_the_agent_start_nothing_twice() -> Result<()> {
    let Some(mut bed) = alone::enrolled()? else { return Ok(()) };
    let log = board(&bed, "log");
    let body: String = (0..4).map(|n| task(&format!("t{n}"), &format!("echo {n} $$ >> {}; exec sleep 10000", log.display()), "")).collect();
    submit(&bed, "four", &job("four", "", &body))?;
    // Some kills fall into the very start.
    for kill in 0..50u64 {
        sleep(Duration::from_millis(if kill < 15 { 40 * kill } else { 250 }));
        bed.agent()?.kill9()?;
        bed.start_agent()?;
    }
    wait(&bed, "all to run", "four", |a| a["status"] == "running")?;
    let mut found = lines(&log);
    found.sort();
    ensure!(found.len() == 4, "started twice: {found:?}\n{}", bed.logs());
    for (n, line) in found.iter().enumerate() {
        let (task, pid) = line.split_once(' ').context("no pid")?;
        ensure!(task == n.to_string() && is_alive(pid), "{found:?}");
    }
    Ok(())
}

#[test]
fn checks_judge_and_restart() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let (log, page) = (board(&bed, "log"), board(&bed, "page"));
    fs::create_dir(&page)?;
    fs::write(page.join("ok"), "yes")?;
    let line = format!("echo start >> {}; exec busybox httpd -f -p $NOMAD_PORT_http -h {}", log.display(), page.display());
    let body = [
        "    network {\n      port \"http\" {}\n    }\n    restart {\n      attempts = 10\n      delay = \"1s\"\n    }\n    update {\n      min_healthy_time = \"2s\"\n      healthy_deadline = \"30s\"\n    }\n"
            .to_owned(),
        "    service {\n      name = \"page\"\n      port = \"http\"\n      check {\n        name = \"ok\"\n        type = \"http\"\n        path = \"/ok\"\n        interval = \"1s\"\n        timeout = \"2s\"\n        check_restart {\n          limit = 3\n          grace = \"2s\"\n        }\n      }\n      check {\n        name = \"open\"\n        type = \"tcp\"\n        interval = \"1s\"\n        timeout = \"2s\"\n      }\n      check {\n        name = \"file\"\n        type = \"script\"\n        task = \"t\"\n        command = \"/bin/sh\"\n        args = [\"-c\", \"test -n $NOMAD_TASK_DIR\"]\n        interval = \"1s\"\n        timeout = \"2s\"\n      }\n    }\n"
            .to_owned(),
        task("t", &line, ""),
    ]
    .concat();
    submit(&bed, "page", &job("page", "", &body))?;
    wait(&bed, "health", "page", |a| a["status"] == "running" && a["healthy"] == true)?;
    ensure!(lines(&log).len() == 1);
    fs::remove_file(page.join("ok"))?;
    wait_lines(&bed, &log, 2, SOON)?;
    let seen = wait(&bed, "the reason", "page", |a| a["restarts"].as_u64() >= Some(1))?;
    fs::write(page.join("ok"), "yes")?;
    ensure!(seen.to_string().contains("check"), "{seen}");
    wait(&bed, "the page to run again", "page", |a| a["status"] == "running").map(drop)
}

#[test]
fn templates_follow_their_values() -> Result<()> {
    let Some(mut bed) = alone::enrolled()? else { return Ok(()) };
    let log = board(&bed, "log");
    bed.operate(&["var", "put", "nomad/jobs/till", "rate=3"])?;
    let line = format!(
        "trap 'echo hup $(cat $NOMAD_TASK_DIR/rate) >> {log}' HUP; echo start $RATE $(cat $NOMAD_TASK_DIR/rate) >> {log}; while true; do sleep 0.1; done",
        log = log.display()
    );
    let file = "template {\n        data = \"{{ with nomadVar \\\"nomad/jobs/till\\\" }}{{ .rate }}{{ end }}\"\n        destination = \"local/rate\"\n        change_mode = \"signal\"\n        change_signal = \"SIGHUP\"\n      }\n";
    let env = "template {\n        data = \"RATE=fixed-{{ env \\\"NOMAD_JOB_NAME\\\" }}\"\n        destination = \"secrets/env\"\n        env = true\n      }\n";
    submit(&bed, "till", &job("till", "", &task("t", &line, &format!("{file}{env}"))))?;
    let found = wait_lines(&bed, &log, 1, SOON)?;
    ensure!(found == ["start fixed-till 3"], "{found:?}");
    bed.operate(&["var", "put", "nomad/jobs/till", "rate=4"])?;
    let found = wait_lines(&bed, &log, 2, SOON)?;
    ensure!(found == ["start fixed-till 3", "hup 4"], "{found:?}");
    // The values are the node's: without a server they are still there.
    bed.server()?.kill9()?;
    bed.agent()?.kill9()?;
    bed.start_agent()?;
    sleep(Duration::from_secs(4));
    ensure!(lines(&log).len() == 2, "the restart of the agent changed something: {:?}", lines(&log));
    Ok(())
}

#[test]
fn a_crash_loop_backs_off_and_stays_small() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let log = board(&bed, "log");
    let noise = "head -c 3000000 /dev/zero | tr '\\0' x";
    let body = [
        "    restart {\n      attempts = 2\n      interval = \"6s\"\n      delay = \"1s\"\n      mode = \"delay\"\n    }\n".to_owned(),
        task("t", &format!("echo start >> {}; {noise}; exit 3", log.display()), ""),
    ]
    .concat();
    submit(&bed, "loop", &job("loop", "", &body))?;
    wait_lines(&bed, &log, 3, SOON)?;
    sleep(Duration::from_secs(30));
    let starts = lines(&log).len();
    ensure!((4..=16).contains(&starts), "{starts} starts");
    let seen = wait(&bed, "the reason", "loop", |a| a["reason"].as_str().is_some_and(|r| r.contains("exit code 3")))?;
    ensure!(seen["until"].is_u64() || seen.to_string().contains("until"), "it does not say until when it waits: {seen}");
    let size = size_of(&bed.agent_data())?;
    ensure!(size < 16 << 20, "the agent's folder has {size} bytes");
    Ok(())
}

/// Bytes below a folder.
fn size_of(folder: &std::path::Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        sum += if kind.is_dir() { size_of(&entry.path())? } else { entry.metadata().map_or(0, |m| m.len()) };
    }
    Ok(sum)
}

#[test]
fn a_drained_node_stops_and_goes_on() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let pid = board(&bed, "pid");
    let line = format!("echo $$ >> {}; exec sleep 10000", pid.display());
    submit(&bed, "pump", &job("pump", "type = \"system\"", &task("t", &line, "")))?;
    let first = wait_lines(&bed, &pid, 1, SOON)?.remove(0);
    let node = bed.ask(&["node", "list"])?[0]["id"].as_str().context("no node")?.to_owned();
    bed.operate(&["node", "drain", &node, "--enable"])?;
    until("the stop", SOON, || Ok((!is_alive(&first)).then_some(())))?;
    bed.operate(&["node", "drain", &node, "--disable"])?;
    bed.operate(&["node", "eligibility", &node, "--enable"])?;
    wait_lines(&bed, &pid, 2, SOON).map(drop)
}
