//! What the tasks of an allocation wrote: of programs it is in files, of containers the engine has it.
//!
//! [`show`]: `skerry-agent logs`, on the node. [`answer`]: an order of the server. This file finds the places and reads their ends.

pub(crate) mod answer;
pub(crate) mod show;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use skerry_engine::{DockerEngine, Engine, EngineError};
use skerry_reconcile::{Labels, label};
use skerry_wire::AllocId;

use crate::process::output_file;
use crate::process::record::Home;

/// Read of the end of a file at most, bytes.
const TAIL: u64 = 256 * 1024;

/// Where a task's output is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Container(String),
    Nowhere,
}

/// Tasks and where their output is.
type Tasks = BTreeMap<(AllocId, String), Place>;

/// Why there is no output of a task.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    /// No such task.
    #[error("allocation {} has no task `{task}` on this node; it has {has}", alloc.short())]
    NoTask { alloc: AllocId, task: String, has: String },
    /// Which one?
    #[error("allocation {} has several tasks, name one: {has}", alloc.short())]
    Several { alloc: AllocId, has: String },
    /// Nothing is kept of it.
    #[error("no output of task `{0}` is kept: its jobspec says so")]
    NotKept(String),
    /// A file of it.
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The engine has it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The programs, with the files of their output.
fn processes(data: &Path) -> Tasks {
    let entries = std::fs::read_dir(data.join("run")).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| {
        let plan = Home(entry.path()).plan()?;
        let labels = Labels::from_map(&plan.labels).ok()?;
        let place = plan.log.map_or(Place::Nowhere, |folder| Place::File(output_file(&folder, &labels.task)));
        Some(((labels.alloc, labels.task), place))
    };
    entries.filter_map(one).collect()
}

/// The containers.
async fn containers(engine: &DockerEngine) -> Result<Tasks, EngineError> {
    let one = |c: skerry_engine::ContainerState| {
        let labels = Labels::from_map(&c.labels).ok()?;
        Some(((labels.alloc, labels.task), Place::Container(c.name)))
    };
    Ok(engine.containers(label::NODE).await?.into_iter().filter_map(one).collect())
}

/// The task that is meant, and where its output is.
fn pick(tasks: &Tasks, alloc: AllocId, task: Option<&str>) -> Result<(String, Place), LogsError> {
    let of_alloc: Vec<&String> = tasks.keys().filter(|(a, _)| *a == alloc).map(|(_, task)| task).collect();
    let has = || of_alloc.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(", ");
    let task = match (task, &of_alloc[..]) {
        (Some(task), _) => task.to_owned(),
        (None, [only]) => (*only).clone(),
        (None, _) => return Err(LogsError::Several { alloc, has: has() }),
    };
    match tasks.get(&(alloc, task.clone())) {
        Some(Place::Nowhere) => Err(LogsError::NotKept(task)),
        Some(place) => Ok((task, place.clone())),
        None => Err(LogsError::NoTask { alloc, task, has: has() }),
    }
}

/// The last lines of a file that is kept in two parts, the older one beside it.
fn end_of_both(path: &Path, lines: u32) -> Result<Vec<u8>, LogsError> {
    let older = PathBuf::from(format!("{}.1", path.display()));
    let mut bytes = end_of(&older).unwrap_or_default();
    bytes.extend(end_of(path).map_err(|source| LogsError::File { path: path.to_owned(), source })?);
    Ok(last_lines(&bytes, lines).to_vec())
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn last_lines(bytes: &[u8], lines: u32) -> &[u8] {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if lines == 0 {
        return &[];
    }
    let mut left = lines;
    for (at, byte) in body.iter().enumerate().rev() {
        if *byte == b'\n' {
            left = left.saturating_sub(1);
            if left == 0 {
                return &bytes[at + 1..];
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        for (text, lines, expected) in [("a\nb\nc\n", 2, "b\nc\n"), ("a\nb\nc", 1, "c"), ("a\n", 5, "a\n"), ("", 3, ""), ("a\nb\n", 0, "")]
        {
            assert_eq!(last_lines(text.as_bytes(), lines), expected.as_bytes(), "{text:?} {lines}");
        }
    }

    #[test]
    fn the_task_that_is_meant() {
        let (one, two) = (AllocId::new([1; 16]), AllocId::new([2; 16]));
        let place = Place::Container("c".into());
        let tasks = Tasks::from([
            ((one, "web".into()), place.clone()),
            ((two, "web".into()), place.clone()),
            ((two, "quiet".into()), Place::Nowhere),
        ]);
        for (alloc, task, expected) in [
            (one, None, Ok("web")),
            (two, Some("web"), Ok("web")),
            (two, None, Err("allocation 02020202 has several tasks, name one: quiet, web")),
            (two, Some("quiet"), Err("no output of task `quiet` is kept: its jobspec says so")),
            (one, Some("quiet"), Err("allocation 01010101 has no task `quiet` on this node; it has web")),
        ] {
            let found = pick(&tasks, alloc, task).map_err(|e| e.to_string());
            assert_eq!(found, expected.map(|t| (t.to_owned(), place.clone())).map_err(str::to_owned));
        }
    }
}
