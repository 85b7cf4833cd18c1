//! `skerry-agent logs`: read on the node, with or without an agent and a server.
//!
//! In: the data folder, an allocation, perhaps a task. Out: the end of its output on standard output, and what follows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::StreamExt;
use skerry_engine::{DockerEngine, Engine};

use super::{Place, containers, end_of_both, pick, processes};
use crate::args::LogsArgs;
use crate::control::{self, Request, one_of};
use crate::status::Status;

/// Between two looks at a file that is followed.
const AGAIN: Duration = Duration::from_millis(500);

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
        match containers(engine).await {
            Ok(found) => tasks.extend(found),
            Err(error) if tasks.is_empty() => return Err(error.into()),
            // Programs have their output all the same.
            Err(error) => tracing::debug!("{error}"),
        }
    }
    let alloc = one_of(&args.alloc, tasks.keys().map(|(alloc, _)| *alloc)).map_err(anyhow::Error::msg)?;
    match (pick(&tasks, alloc, args.task.as_deref())?, engine) {
        ((_, Place::File(path)), _) => file(&path, args.tail, args.follow).await,
        ((_, Place::Container(name)), Some(engine)) => container(&engine, &name, args.tail, args.follow).await,
        ((task, _), _) => bail!("the output of task `{task}` is with the engine, which cannot be reached"),
    }
}

async fn file(path: &Path, lines: u32, follow: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(&end_of_both(path, lines)?.bytes)?;
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
