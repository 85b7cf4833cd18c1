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
    /// Nothing of it.
    #[error("nothing of allocation {} is on this node", .0.short())]
    NotHere(AllocId),
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
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
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
        (_, []) => return Err(LogsError::NotHere(alloc)),
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

/// The end of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    /// Whole lines, where there are any.
    bytes: Vec<u8>,
    /// Were lines that were asked for left out?
    cut: bool,
}

impl End {
    /// The last lines of the last bytes of an output; was there `more` before these?
    fn of(bytes: &[u8], lines: u32, more: bool) -> Self {
        let end = last_lines(bytes, lines);
        let cut = more && end.len() == bytes.len();
        // What is left of the first line would look like a line.
        let whole = end.iter().position(|byte| *byte == b'\n').filter(|at| cut && at + 1 < end.len()).map_or(end, |at| &end[at + 1..]);
        Self { bytes: whole.to_vec(), cut }
    }
}

/// The last lines of a file that is kept in two parts, the older one beside it.
fn end_of_both(path: &Path, lines: u32) -> Result<End, LogsError> {
    let (mut bytes, mut more) = end_of(path, TAIL).map_err(|source| LogsError::File { path: path.to_owned(), source })?;
    let room = TAIL.saturating_sub(bytes.len() as u64);
    let older = PathBuf::from(format!("{}.1", path.display()));
    if !more && let Ok((before, more_before)) = end_of(&older, room) {
        bytes = [before, bytes].concat();
        more = more_before;
    }
    Ok(End::of(&bytes, lines, more))
}

/// The last `most` bytes of a file; are there more before them?
fn end_of(path: &Path, most: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok((bytes, length > most))
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
    fn the_end_has_no_hole_and_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let lines = |from: u32, to: u32| (from..to).map(|n| format!("{n:07}\n")).collect::<String>();
        let half = u32::try_from(TAIL / 16).unwrap();
        std::fs::write(&path, lines(half, 2 * half)).unwrap();
        let read = |wanted| end_of_both(&path, wanted).unwrap();
        assert_eq!(read(9999), End { bytes: lines(2 * half - 9999, 2 * half).into_bytes(), cut: false });
        assert_eq!(read(u32::MAX), End { bytes: lines(half, 2 * half).into_bytes(), cut: false });
        // The older part fits beside it; then it does not.
        std::fs::write(folder.path().join("web.log.1"), lines(0, half)).unwrap();
        assert_eq!(read(u32::MAX), End { bytes: lines(0, 2 * half).into_bytes(), cut: false });
        std::fs::write(folder.path().join("web.log.1"), format!("abc{}", lines(0, half))).unwrap();
        assert_eq!(read(u32::MAX), End { bytes: lines(1, 2 * half).into_bytes(), cut: true });
        // As long as what is read by itself: nothing older is put before it.
        std::fs::write(&path, lines(half, 4 * half)).unwrap();
        assert_eq!(read(u32::MAX), End { bytes: lines(2 * half + 1, 4 * half).into_bytes(), cut: true });
        assert_eq!(read(3), End { bytes: lines(4 * half - 3, 4 * half).into_bytes(), cut: false });
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
            (AllocId::new([3; 16]), None, Err("nothing of allocation 03030303 is on this node")),
            (AllocId::new([3; 16]), Some("web"), Err("nothing of allocation 03030303 is on this node")),
            (one, Some("quiet"), Err("allocation 01010101 has no task `quiet` on this node; it has web")),
        ] {
            let found = pick(&tasks, alloc, task).map_err(|e| e.to_string());
            assert_eq!(found, expected.map(|t| (t.to_owned(), place.clone())).map_err(str::to_owned));
        }
    }
}
