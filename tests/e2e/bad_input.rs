//! Bad input: each gives a clear error that says what to do, a non-zero exit code, and loses nothing.
//!
//! Needs root, Docker and the built programs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skerry_testkit::app::{self, WebApp};
use skerry_testkit::command::{output, until};
use skerry_testkit::image::without_first_layer;
use skerry_testkit::{Bed, Process, SmallDisk};
use skerry_tests::stage::{self, DEPLOY};

/// An error must name what it is about.
fn says(said: &str, words: &[&str]) -> Result<()> {
    let lower = said.to_lowercase();
    ensure!(words.iter().all(|w| lower.contains(&w.to_lowercase())), "the error does not say {words:?}: {said}");
    ensure!(!lower.contains("panicked"), "it panicked: {said}");
    Ok(())
}

fn publish_must_fail(bed: &Bed, archive: &Path, words: &[&str]) -> Result<()> {
    let path = archive.display().to_string();
    says(&bed.refuse(&["image", "publish", &path, "--name", "bad", "--tag", "1"])?, words)?;
    let images = bed.ask(&["image", "list"])?;
    ensure!(!images.to_string().contains("\"bad\""), "a bad archive was published: {images}");
    Ok(())
}

#[test]
fn archives_and_jobspecs() -> Result<()> {
    let Some(bed) = stage::enrolled()? else { return Ok(()) };
    let good = WebApp::small("web", "1").write(bed.folder())?;
    let bytes = fs::read(&good.path)?;
    let write = |name: &str, bytes: &[u8]| -> Result<_> {
        let path = bed.folder().join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    };

    publish_must_fail(&bed, &bed.folder().join("nowhere.tar"), &["nowhere.tar"])?;
    publish_must_fail(&bed, &write("garbage.tar", &[0xa5; 10_000])?, &["garbage.tar"])?;
    publish_must_fail(&bed, &write("short.tar", &bytes[..bytes.len() / 2])?, &["short.tar"])?;
    let mut flipped = bytes.clone();
    // Deep in busybox, which is the first layer's content.
    flipped[500_000] ^= 0x40;
    publish_must_fail(&bed, &write("flipped.tar", &flipped)?, &["flipped.tar"])?;
    let lacking = bed.folder().join("lacking.tar");
    without_first_layer(&good.path, &lacking)?;
    publish_must_fail(&bed, &lacking, &["lacking.tar", "layer"])?;

    let jobs = [
        ("broken.hcl", "job \"web\" {\n  group \"g\" {\n", &["broken.hcl", "2"][..]),
        ("unknown.hcl", &app::jobspec("web", "never-published:1"), &["never-published:1"]),
        ("field.hcl", &app::jobspec("web", "web:1").replace("count = 1", "cuont = 1"), &["field.hcl", "cuont"]),
    ];
    for (name, text, words) in jobs {
        let path = write(name, text.as_bytes())?.display().to_string();
        says(&bed.refuse(&["job", "run", &path])?, words)?;
    }
    let jobs = bed.ask(&["job", "status"])?;
    ensure!(jobs.as_array().is_some_and(Vec::is_empty), "a bad jobspec became a job: {jobs}");
    says(&bed.refuse(&["job", "status", "nothing"])?, &["nothing"])?;
    stage::deploy(&bed, "web", &good, "1").map(drop)
}

#[test]
fn a_used_up_token_and_a_second_agent() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };

    let second = output(&mut bed.agent_command(&bed.agent_data())?)?;
    ensure!(!second.status.success(), "two agents run on one data folder");
    says(&String::from_utf8_lossy(&second.stderr), &[&bed.agent_data().display().to_string()])?;
    ensure!(bed.agent()?.is_running(), "the first agent ended\n{}", bed.logs());

    let token = bed.ask(&["token", "create", "--uses", "1"])?;
    let token = token["token"].as_str().with_context(|| format!("no token in {token}"))?;
    let config = bed.server_data().join("agent.toml");
    let text = fs::read_to_string(&config)?;
    let start = text.find("skt_").with_context(|| format!("no token in {}", config.display()))?;
    let length = text[start..].find('"').context("an open string")?;
    fs::write(&config, format!("{}{token}{}", &text[..start], &text[start + length..]))?;
    let run_agent = |name: &str| -> Result<Process> {
        let mut command = bed.agent_command(&bed.folder().join(name))?;
        Process::spawn(name, &mut command, &bed.folder().join(format!("{name}.log")))
    };
    let mut other = run_agent("other")?;
    stage::wait_enrolled(&bed, 2)?;
    other.kill9()?;
    let third = run_agent("third")?;
    let told = until("the refusal of a used-up token", Duration::from_secs(30), || {
        Ok(third.output().to_lowercase().contains("token").then(|| third.output()))
    })?;
    says(&told, &["token"])?;
    stage::wait_enrolled(&bed, 2)
}

#[test]
fn a_full_disk_and_a_stopped_engine() -> Result<()> {
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let one = WebApp::small("web", "1").write(bed.folder())?;
    let old = stage::deploy(&bed, "web", &one, "1")?;

    // The engine is stopped while a new version comes: nothing is lost, and all goes on when it is back.
    let two = WebApp::small("web", "2").write(bed.folder())?;
    bed.engine.kill9()?;
    bed.publish(&two.path, &two.reference)?;
    bed.run_job("web", &two.reference)?;
    std::thread::sleep(Duration::from_secs(5));
    ensure!(bed.agent()?.is_running(), "the agent ended with the engine\n{}", bed.logs());
    ensure!(bed.newest_set("web")?["state"] != "succeeded", "deployed without an engine");
    bed.engine.start_again()?;
    bed.wait_deployed("web", DEPLOY)?;
    bed.wait_version("2", DEPLOY)?;
    ensure!(bed.engine.containers()? != [old], "the old version still runs");

    // No room for the bundle: the row fails with a reason, the old version goes on, and it works when there is room.
    bed.stop_agent()?;
    let disk = SmallDisk::mount_with_content(&bed.agent_data(), 8)?;
    bed.start_agent()?;
    let three = WebApp::bulky("web", "3").write(bed.folder())?;
    bed.publish(&three.path, &three.reference)?;
    bed.run_job("web", &three.reference)?;
    let reason = until("a failed row", DEPLOY, || {
        let set = bed.newest_set("web")?;
        Ok((set["state"] == "failed").then(|| set["rows"][0]["reason"].as_str().unwrap_or_default().to_owned()))
    })
    .with_context(|| bed.logs())?;
    says(&reason, &["disk"])?;
    bed.wait_version("2", Duration::from_secs(10))?;
    disk.resize(200)?;
    bed.run_job("web", &three.reference)?;
    bed.wait_version("3", DEPLOY)?;
    bed.stop_agent()
}
