//! `skerry-agent logs`: what the tasks of an allocation wrote, read on the node, with or without an agent and a server.
//!
//! In: the data folder, an allocation, perhaps a task. Out: the end of its output on standard output, and what follows. Of programs it is
//! read from the files, of containers from the engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use skerry_engine::{DockerEngine, Engine};
use skerry_reconcile::{Labels, label};
use skerry_wire::AllocId;

use crate::args::LogsArgs;
use crate::control::{self, Request, one_of};
use crate::process::output_file;
use crate::process::record::Home;
use crate::status::Status;

/// Read of a file at once, and of its end at most.
const TAIL: u64 = 256 * 1024;
/// Between two looks at a file that is followed.
const AGAIN: Duration = Duration::from_millis(500);

/// Where a task's output is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Container(String),
    Nowhere,
}

pub(crate) async fn show(args: &LogsArgs) -> Result<()> {
    let mut tasks = processes(&args.data);
    let socket = match &args.docker {
        Some(socket) => socket.clone(),
        None => {
            let status: Option<Status> = control::ask(&args.data, Request::Status).await.unwrap_or(None);
            status.map_or_else(|| PathBuf::from("/var/run/docker.sock"), |s| s.engine.socket.into())
        }
    };
    let engine = DockerEngine::connect(&socket).ok();
    if let Some(engine) = &engine {
        match engine.containers(label::NODE).await {
            Ok(found) => tasks.extend(found.into_iter().filter_map(|c| {
                let labels = Labels::from_map(&c.labels).ok()?;
                Some(((labels.alloc, labels.task), Place::Container(c.name)))
            })),
            Err(error) if tasks.is_empty() => return Err(error.into()),
            // Programs have their output all the same.
            Err(error) => tracing::debug!("{error}"),
        }
    }
    let alloc = one_of(&args.alloc, tasks.keys().map(|(alloc, _)| *alloc)).map_err(anyhow::Error::msg)?;
    let names: Vec<String> = tasks.keys().filter(|(a, _)| *a == alloc).map(|(_, task)| task.clone()).collect();
    let task = match (&args.task, &names[..]) {
        (Some(task), _) if names.contains(task) => task.clone(),
        (Some(task), _) => bail!("allocation {} has no task `{task}`; it has {}", alloc.short(), names.join(", ")),
        (None, [only]) => only.clone(),
        (None, _) => bail!("allocation {} has several tasks, name one: {}", alloc.short(), names.join(", ")),
    };
    let place = tasks.remove(&(alloc, task.clone())).unwrap_or(Place::Nowhere);
    match (place, engine) {
        (Place::File(path), _) => file(&path, args.tail, args.follow).await,
        (Place::Container(name), Some(engine)) => container(&engine, &name, args.tail, args.follow).await,
        _ => bail!("no output of task `{task}` is kept: its jobspec says so"),
    }
}

/// The programs, with the files of their output.
fn processes(data: &Path) -> BTreeMap<(AllocId, String), Place> {
    let entries = std::fs::read_dir(data.join("run")).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| {
        let plan = Home(entry.path()).plan()?;
        let labels = Labels::from_map(&plan.labels).ok()?;
        let place = plan.log.map_or(Place::Nowhere, |folder| Place::File(output_file(&folder, &labels.task)));
        Some(((labels.alloc, labels.task), place))
    };
    entries.filter_map(one).collect()
}

async fn file(path: &Path, lines: u32, follow: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let older = PathBuf::from(format!("{}.1", path.display()));
    let mut bytes = end_of(&older).unwrap_or_default();
    bytes.extend(end_of(path).with_context(|| format!("{}", path.display()))?);
    out.write_all(last_lines(&bytes, lines))?;
    let mut at = std::fs::metadata(path).map_or(0, |m| m.len());
    if !follow {
        return Ok(());
    }
    loop {
        out.flush()?;
        tokio::time::sleep(AGAIN).await;
        let length = std::fs::metadata(path).map_or(0, |m| m.len());
        if length < at {
            // It was cut: what is in it now is new.
            at = 0;
        }
        if length > at {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(at))?;
            at += io::copy(&mut file.take(length - at), &mut out)?;
        }
    }
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

async fn container(engine: &DockerEngine, name: &str, lines: u32, follow: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(&engine.logs(name, lines).await?)?;
    out.flush()?;
    if follow {
        let mut pieces = std::pin::pin!(engine.follow(name));
        while let Some(piece) = pieces.next().await {
            out.write_all(&piece?)?;
            out.flush()?;
        }
    }
    Ok(())
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
}
