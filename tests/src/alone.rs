//! Jobs of processes for the tests of what a node decides alone: written in seconds, without images.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use skerry_testkit::Bed;
use skerry_testkit::command::until;

use crate::stage;

/// Things happen on the node within this time, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// A bed with server and agent, whose node lets processes run.
///
/// # Errors
/// When something does not start.
pub fn enrolled() -> Result<Option<Bed>> {
    enrolled_in(Bed::start)
}

/// The same with no other bed on this machine, for what measures memory.
///
/// # Errors
/// When something does not start.
pub fn enrolled_undisturbed() -> Result<Option<Bed>> {
    enrolled_in(Bed::start_alone)
}

fn enrolled_in(bed: impl FnOnce() -> Result<Bed>) -> Result<Option<Bed>> {
    if !skerry_testkit::need::bed()? {
        return Ok(None);
    }
    let mut bed = bed()?;
    bed.start_server()?;
    bed.configure_agent("[policy]\nexec = true\nraw_exec = true\ndevices = [\"/dev\"]\n")?;
    bed.start_agent()?;
    stage::wait_enrolled(&bed, 1)?;
    Ok(Some(bed))
}

/// Where tasks of a test write, and the test reads.
#[must_use]
pub fn board(bed: &Bed, name: &str) -> PathBuf {
    bed.folder().join(name)
}

/// The lines of a file; none when there is no such file.
#[must_use]
pub fn lines(path: &std::path::Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Submits a jobspec.
///
/// # Errors
/// When it is refused.
pub fn submit(bed: &Bed, name: &str, text: &str) -> Result<()> {
    let path = bed.folder().join(format!("{name}.hcl"));
    fs::write(&path, text)?;
    bed.operate(&["job", "run", &path.display().to_string()]).map(drop)
}

/// A task that runs a line of shell as a process of the node; `more` goes into its block.
#[must_use]
pub fn task(name: &str, line: &str, more: &str) -> String {
    let line = line.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "$${");
    format!(
        "    task \"{name}\" {{\n      driver = \"raw_exec\"\n      config {{\n        command = \"/bin/sh\"\n        args = [\"-c\", \"{line}\"]\n      }}\n      {more}\n    }}\n"
    )
}

/// A job of one group; `head` goes into the job block, `body` into the group's.
#[must_use]
pub fn job(name: &str, head: &str, body: &str) -> String {
    format!("job \"{name}\" {{\n  {head}\n  group \"g\" {{\n{body}  }}\n}}\n")
}

/// What the node says of a job's allocation, from `skerry-agent status`.
///
/// # Errors
/// When the agent does not answer.
pub fn alloc(bed: &Bed, job: &str) -> Result<Option<Value>> {
    let status = bed.agent_status()?;
    let allocs = status["allocs"].as_array().context("no allocs in the status")?;
    Ok(allocs.iter().find(|a| a["job"] == job && a["current"] == true).or_else(|| allocs.iter().find(|a| a["job"] == job)).cloned())
}

/// Waits until the node says of a job what `fits`; gives what it said.
///
/// # Errors
/// When it does not within [`SOON`].
pub fn wait(bed: &Bed, what: &str, job: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(what, SOON, || {
        last = alloc(bed, job)?.unwrap_or_default();
        Ok(fits(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("last seen: {last:#}\n{}", bed.logs()))
}

/// Waits until a file has at least so many lines.
///
/// # Errors
/// When it has not within `limit`.
pub fn wait_lines(bed: &Bed, path: &std::path::Path, count: usize, limit: Duration) -> Result<Vec<String>> {
    let found = until(&format!("{count} lines in {}", path.display()), limit, || {
        let found = lines(path);
        Ok((found.len() >= count).then_some(found))
    });
    found.with_context(|| format!("found {:?}\n{}", lines(path), bed.logs()))
}

/// What a task of the job wrote, as `skerry-agent logs` shows it.
///
/// # Errors
/// When the node has no such allocation.
pub fn log(bed: &Bed, job: &str, task: &str) -> Result<String> {
    let found = alloc(bed, job)?.with_context(|| format!("the node has no allocation of {job}"))?;
    let id = found["id"].as_str().context("an allocation without id")?.to_owned();
    bed.on_node(&["logs", "--data", &bed.agent_data().display().to_string(), &id, task])
}

/// Is there a process with this id?
#[must_use]
pub fn is_alive(pid: &str) -> bool {
    !pid.is_empty() && fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The only alloc id that the server knows of a job.
///
/// # Errors
/// When it knows none.
pub fn alloc_id(bed: &Bed, job: &str) -> Result<String> {
    let status = bed.ask(&["job", "status", job])?;
    let Some(id) = status["allocs"][0]["id"].as_str() else { bail!("no allocation of {job}: {status}") };
    Ok(id.to_owned())
}
