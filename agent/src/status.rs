//! What the agent shows of itself, on the node, with or without the server: a socket in the data folder, and the `status` command.
//!
//! The socket speaks lines: the client writes `status` and a line end, the agent answers one line of JSON. When no agent runs, the
//! command reads the ledger instead and says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use skerry_reconcile::{AllocView, Memory, NeededImage};
use skerry_wire::manifest::Mark;
use skerry_wire::poll::AllocStatus;
use skerry_wire::{ImageId, NodeId, Timestamp, cbor};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::lock::{Lock, LockError};
use crate::uplink::Contact;

const SOCKET: &str = "agent.sock";
/// The longest answer: hundreds of allocations.
const ANSWER: u64 = 4 << 20;
/// The longest request, and how long one may take.
const REQUEST: u64 = 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the agent that answers.
    pub(crate) version: String,
    /// Does the agent run? Else this is what its ledger says.
    pub(crate) running: bool,
    /// The node's id, once it has enrolled.
    pub(crate) node: Option<NodeId>,
    /// The node's name.
    pub(crate) name: Option<String>,
    /// The server, as far as it is known.
    pub(crate) contact: Contact,
    /// Mark of the manifest in force.
    pub(crate) mark: Mark,
    /// Allocations, by place.
    pub(crate) allocs: Vec<AllocView>,
    /// Images on their way.
    pub(crate) images: Vec<ImageReport>,
    /// The engine.
    pub(crate) engine: EngineReport,
}

/// An image that is needed and lacking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageReport {
    /// Which, and for what.
    #[serde(flatten)]
    pub(crate) needed: NeededImage,
    /// How far it is, for people.
    pub(crate) state: String,
}

/// The engine as the main loop sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EngineReport {
    /// Path of its socket.
    pub(crate) socket: String,
    /// Version and storage driver, once it answered.
    pub(crate) about: Option<String>,
    /// Why it cannot be worked with now.
    pub(crate) error: Option<String>,
}

/// The newest decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllocReport {
    /// Allocations, by place.
    pub(crate) allocs: Vec<AllocView>,
    /// Images that are lacking.
    pub(crate) needed: Vec<NeededImage>,
}

/// How far each image is, for people.
pub(crate) type Progress = Arc<BTreeMap<ImageId, String>>;

/// Where the pieces of a status come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The node's name.
    pub(crate) name: String,
    /// The ledger.
    pub(crate) ledger: Ledger,
    /// The uplink.
    pub(crate) contact: watch::Receiver<Contact>,
    /// The main loop.
    pub(crate) allocs: watch::Receiver<Arc<AllocReport>>,
    /// Those who fetch images.
    pub(crate) progress: watch::Receiver<Progress>,
    /// The main loop.
    pub(crate) engine: watch::Receiver<EngineReport>,
}

impl Sources {
    fn status(&self) -> Status {
        let report = self.allocs.borrow().clone();
        let progress = self.progress.borrow().clone();
        let state = |image| progress.get(image).cloned().unwrap_or_else(|| "waits for its turn".to_owned());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            running: true,
            node: self.ledger.node(),
            name: Some(self.name.clone()),
            contact: self.contact.borrow().clone(),
            mark: self.ledger.desired().mark,
            allocs: report.allocs.clone(),
            images: report.needed.iter().map(|n| ImageReport { needed: n.clone(), state: state(&n.image) }).collect(),
            engine: self.engine.borrow().clone(),
        }
    }
}

/// The socket of a data folder. A path that is too long for a socket's address goes through the folder's descriptor.
fn socket_path(folder: &Path) -> io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd;
    let plain = folder.join(SOCKET);
    if plain.as_os_str().len() < 100 {
        return Ok((plain, None));
    }
    let opened = std::fs::File::open(folder)?;
    Ok((format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()).into(), Some(opened)))
}

/// Opens the socket; the lock on the folder says that no other agent has it.
pub(crate) fn listen(folder: &Path) -> Result<UnixListener> {
    let plain = folder.join(SOCKET);
    let open = || {
        let (path, _folder) = socket_path(folder)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    open().with_context(|| format!("cannot listen on {}", plain.display()))
}

/// Answers one client after the other, for ever.
pub(crate) async fn serve(listener: UnixListener, sources: Sources) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match tokio::time::timeout(PATIENCE, answer(stream, &sources)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a client of the local socket went away: {error}"),
                Err(_) => tracing::debug!("a client of the local socket was too slow"),
            },
            Err(error) => {
                tracing::warn!("the local socket: {error}");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, sources: &Sources) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST)).read_line(&mut line).await?;
    let mut answer = match line.trim() {
        "status" => serde_json::to_vec(&sources.status())?,
        other => serde_json::to_vec(&serde_json::json!({ "error": format!("`{other}` is not a request; `status` is") }))?,
    };
    answer.push(b'\n');
    write.write_all(&answer).await
}

/// The status of a data folder: from the agent, else from its ledger.
pub(crate) async fn fetch(folder: &Path) -> Result<Status> {
    if !folder.is_dir() {
        bail!("there is no data folder {}: give the one that the agent runs with (--data)", folder.display());
    }
    if let Some(status) = ask(folder).await? {
        return Ok(status);
    }
    let lock = match Lock::take_existing(folder) {
        Ok(lock) => lock,
        Err(LockError::Held { .. }) => bail!("the agent on {} runs but does not answer yet; try again", folder.display()),
        Err(error) => return Err(error.into()),
    };
    let status = from_ledger(folder);
    drop(lock);
    status
}

/// Asks the running agent; none when none runs.
async fn ask(folder: &Path) -> Result<Option<Status>> {
    let (path, _folder) = socket_path(folder)?;
    let Ok(mut stream) = UnixStream::connect(&path).await else { return Ok(None) };
    let exchange = async {
        stream.write_all(b"status\n").await?;
        let mut answer = Vec::new();
        stream.take(ANSWER).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.context("the agent does not answer")??;
    let status = serde_json::from_slice(&answer).context("the agent's answer cannot be read: is it another version?")?;
    Ok(Some(status))
}

/// What is known while the agent is down.
fn from_ledger(folder: &Path) -> Result<Status> {
    if !folder.join("ledger.sqlite").exists() {
        bail!("{} has no ledger: no agent ran on it yet", folder.display());
    }
    let ledger = Ledger::open(folder, Timestamp(0))?;
    let desired = ledger.desired();
    let memory: Memory = ledger.memory().and_then(|m| cbor::decode(&m, 16 << 20).ok()).unwrap_or_default();
    let mut allocs = Vec::new();
    for (slot, held) in &memory.slots {
        let current = held.current.as_ref().map(|v| (v, true));
        let next = held.next.as_ref().map(|n| (&n.version, false));
        for (version, current) in current.into_iter().chain(next) {
            let last = held.reported.get(&version.alloc);
            allocs.push(AllocView {
                id: version.alloc,
                job: slot.job.clone(),
                group: slot.group.clone(),
                index: slot.index,
                version: Some(version.version),
                current,
                status: last.map_or(AllocStatus::Pending, |r| r.status),
                reason: last.map_or_else(String::new, |r| r.reason.clone()),
                restarts: last.map_or(0, |r| r.restarts),
                ports: version.ports.clone(),
                healthy: None,
                until: None,
                decisions: vec![],
            });
        }
    }
    let reports = ledger.watch_outbox().borrow().pending;
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        running: false,
        node: ledger.node(),
        name: None,
        contact: Contact { node: ledger.node(), reports, ..Contact::default() },
        mark: desired.mark,
        allocs,
        images: vec![],
        engine: EngineReport::default(),
    })
}

impl Status {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            // Reasons come from servers and engines: none of them gets at the terminal's controls.
            out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
            out.push('\n');
        };
        if !self.running {
            line("agent is not running; last known:".to_owned());
        }
        let node = self.node.map_or_else(|| "not enrolled yet".to_owned(), |n| n.to_string());
        line(format!("node      {}{node}", self.name.as_ref().map_or(String::new(), |n| format!("{n} "))));
        if self.running {
            let contact = &self.contact;
            let state = match (&contact.error, contact.last) {
                (Some(error), _) => format!("no answer ({} tries): {error}", contact.failures),
                (None, Some(_)) => "answers".to_owned(),
                (None, None) => "no contact yet".to_owned(),
            };
            line(format!("server    {} {state}", contact.server));
            let engine = self.engine.about.as_deref().unwrap_or("not asked yet");
            line(format!("engine    {}", self.engine.error.as_deref().unwrap_or(engine)));
        }
        line(format!("manifest  {}", self.mark));
        line(format!("reports   {} waiting", self.contact.reports));
        if self.allocs.is_empty() {
            line("no allocations".to_owned());
        }
        for alloc in &self.allocs {
            let version = alloc.version.map_or(String::new(), |v| format!(" v{v}"));
            let mut text =
                format!("{:<8}  {}.{}[{}]{version} {}", alloc.status.to_string(), alloc.job, alloc.group, alloc.index, alloc.id.short());
            for (label, port) in &alloc.ports {
                let _ = write!(text, " {label}={port}");
            }
            let _ = write!(text, " restarts={}: {}", alloc.restarts, alloc.reason);
            line(text);
        }
        for image in &self.images {
            let needed = &image.needed;
            line(format!("image     {} {} for {}: {}", needed.reference, needed.image.digest().short(), needed.job, image.state));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_reason_stays_on_its_line() {
        let contact = Contact { error: Some("no\x1b[2J\nnode      enrolled".to_owned()), failures: 2, ..Contact::default() };
        let (allocs, images, engine) = (vec![], vec![], EngineReport::default());
        let status =
            Status { version: "1".into(), running: true, node: None, name: None, contact, mark: Mark::default(), allocs, images, engine };
        let text = status.text();
        assert!(text.contains("no answer (2 tries): no [2J node      enrolled\n") && !text.contains('\x1b'), "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
    }
}
