//! Two nodes with an engine each: one is lost, replaced on the other, and comes back.
//!
//! Needs root, Docker and the built programs.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::app::WebApp;
use skerry_testkit::command::until;
use skerry_testkit::dockerd::Container;
use skerry_testkit::{Bed, Dockerd, SecondNode};
use skerry_tests::alone::{self, SOON, board, is_alive, job, lines, submit, task, wait, wait_lines};
use skerry_tests::stage::{self, DEPLOY};

/// The group's rule: lost soon, replaced elsewhere.
fn replaced(reconcile: &str) -> String {
    format!("    disconnect {{\n      lost_after = \"15s\"\n      replace = true\n      reconcile = \"{reconcile}\"\n    }}\n")
}

/// The only container that an engine runs.
fn container(engine: &Dockerd) -> Result<Option<Container>> {
    Ok(engine.containers()?.into_iter().next())
}

/// Waits until the server says so of a job.
fn told(bed: &Bed, what: &str, job: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(what, SOON, || {
        last = bed.ask(&["job", "status", job])?;
        Ok(fits(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("{last:#}\n{}", bed.logs()))
}

#[test]
fn a_lost_node_is_replaced_and_settled_with_when_it_is_back() -> Result<()> {
    let Some(bed) = alone::enrolled()? else { return Ok(()) };
    let [second, third] = ["second", "third"].map(|n| board(&bed, n));
    let stay = |path: &std::path::Path| format!("echo $$ >> {}; exec sleep 10000", path.display());
    let image = WebApp::small("web", "1").write(bed.folder())?;
    bed.publish(&image.path, &image.reference)?;
    // All begin on the first node: there is no other yet.
    let web = format!(
        "    task \"app\" {{\n      driver = \"docker\"\n      config {{\n        image = \"{}\"\n      }}\n      resources {{\n        memory = 64\n      }}\n    }}\n",
        image.reference
    );
    submit(&bed, "original", &job("original", "", &format!("{}{web}", replaced("keep_original"))))?;
    let body = |rule: &str, path: &std::path::Path, more: &str| format!("{}{}", replaced(rule), task("t", &stay(path), more));
    submit(&bed, "replacement", &job("replacement", "", &body("keep_replacement", &second, "")))?;
    submit(&bed, "newest", &job("newest", "", &body("keep_original", &third, "")))?;
    bed.wait_deployed("original", DEPLOY)?;
    for name in ["original", "replacement", "newest"] {
        wait(&bed, "it to run on the first node", name, |a| a["status"] == "running")?;
        told(&bed, "the server to know", name, |s| s["allocs"][0]["status"] == "running")?;
    }
    let original = container(&bed.engine)?.context("no container on the first node")?;
    let node = SecondNode::start(&bed, "second")?;
    stage::wait_enrolled(&bed, 2)?;

    // Lost: a replacement of each starts on the other node, and what the lost one runs goes on there.
    bed.link.cut()?;
    for path in [&second, &third] {
        wait_lines(&bed, path, 2, DEPLOY)?;
    }
    let copy = until("the replacement's container", DEPLOY, || container(&node.engine)).with_context(|| bed.logs())?;
    ensure!(copy.image == original.image, "the replacement runs {copy:?}");
    for name in ["original", "replacement", "newest"] {
        told(&bed, "two allocations, one of them lost", name, |s| {
            let all = s["allocs"].as_array().map(Vec::as_slice).unwrap_or_default();
            all.len() == 2 && all.iter().all(|a| a["status"] == "running") && all.iter().filter(|a| !a["lost_since"].is_null()).count() == 1
        })?;
    }
    // A newer version of one of them, while the first node is away: it starts where the replacement is.
    submit(&bed, "newest", &job("newest", "", &body("keep_original", &third, "env {\n        VERSION = \"2\"\n      }")))?;
    wait_lines(&bed, &third, 3, DEPLOY)?;
    told(&bed, "the newer version to run", "newest", |s| {
        let all = s["allocs"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().any(|a| a["version"] == 2 && a["status"] == "running")
    })?;
    let pids = [lines(&second), lines(&third)];
    ensure!(is_alive(&pids[0][0]) && is_alive(&pids[1][0]), "the lost node stopped something by itself");
    ensure!(container(&bed.engine)?.as_ref() == Some(&original), "the lost node's container is another one");

    // Back: the rule of each job says who goes on, and the newest version wins whatever the rule.
    bed.link.heal()?;
    let gone = |what: &str, pid: &str| until(what, DEPLOY, || Ok((!is_alive(pid)).then_some(()))).with_context(|| bed.logs());
    gone("the end of the original, whose replacement is kept", &pids[0][0])?;
    gone("the end of the older version", &pids[1][0])?;
    until("the end of the replacement, whose original is kept", DEPLOY, || Ok(node.engine.containers()?.is_empty().then_some(())))
        .with_context(|| bed.logs())?;
    for name in ["original", "replacement", "newest"] {
        told(&bed, "one allocation that is wanted, the other one over", name, |s| {
            let all = s["allocs"].as_array().map(Vec::as_slice).unwrap_or_default();
            let wanted: Vec<&Value> = all.iter().filter(|a| a["desired"] == "run").collect();
            let rest = || all.iter().filter(|a| a["desired"] != "run");
            wanted.len() == 1
                && wanted[0]["status"] == "running"
                && wanted[0]["lost_since"].is_null()
                && rest().all(|a| a["status"] == "complete")
        })?;
    }
    // What went on was never touched.
    ensure!(container(&bed.engine)?.as_ref() == Some(&original), "the original was started again");
    ensure!(is_alive(&pids[0][1]) && is_alive(&pids[1][2]), "a replacement that was to go on has ended");
    ensure!([lines(&second), lines(&third)] == pids, "something was started again");
    Ok(())
}
