//! The socket in the data folder: how people on the node talk to the agent, with or without the server.
//!
//! It speaks lines of JSON: one request, `{"v":1,"do":"status"}`, and one answer, `{"v":1,"ok":...}` or `{"v":1,"error":"..."}`. An order is
//! on the disk before it is acknowledged. A version that the agent does not know is refused with those that it knows.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skerry_reconcile::{Order, OrderKind};
use skerry_wire::AllocId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::facts::Facts;
use crate::ledger::{Ledger, LedgerError};
use crate::status::Sources;

const SOCKET: &str = "agent.sock";
/// Version of the protocol.
const VERSION: u32 = 1;
/// The longest answer: hundreds of allocations.
const ANSWER: u64 = 4 << 20;
/// The longest request, and how long one may take.
const REQUEST: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// A request with the version of its words.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    v: u32,
    #[serde(flatten)]
    request: Request,
}

/// What is asked of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Everything that is shown.
    Status,
    /// An order about an allocation, named by its id or the beginning of it.
    Order {
        /// What is wanted.
        order: OrderKind,
        /// The allocation.
        alloc: String,
    },
    /// Meta that holds on the node.
    MetaList,
    /// Sets meta.
    MetaSet {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
    /// Takes meta away, that of the configuration too.
    MetaUnset {
        /// Its name.
        key: String,
    },
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
struct Answer<T> {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What answers.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    /// For `status`.
    pub(crate) sources: Sources,
    /// For orders and meta.
    pub(crate) ledger: Ledger,
    /// For meta.
    pub(crate) facts: Facts,
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
pub(crate) async fn serve(listener: UnixListener, control: Control) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match tokio::time::timeout(PATIENCE, answer(stream, &control)).await {
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

async fn answer(mut stream: UnixStream, control: &Control) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST)).read_line(&mut line).await?;
    let done = match read_line(&line) {
        Ok(request) => control.perform(request).await,
        Err(error) => Err(error),
    };
    let (ok, error) = match done {
        Ok(ok) => (Some(ok), None),
        Err(error) => (None, Some(error)),
    };
    let mut answer = serde_json::to_vec(&Answer { v: VERSION, ok, error })?;
    answer.push(b'\n');
    write.write_all(&answer).await
}

fn read_line(line: &str) -> Result<Request, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let version: Version = serde_json::from_str(line).map_err(|e| format!("this is no request in JSON with a version `v`: {e}"))?;
    if version.v != VERSION {
        return Err(format!("version {} of the requests is not known to this agent; it knows {VERSION}", version.v));
    }
    serde_json::from_str::<Line>(line).map(|l| l.request).map_err(|e| format!("the request is not known to this agent: {e}"))
}

impl Control {
    async fn perform(&self, request: Request) -> Result<serde_json::Value, String> {
        let json = |value: serde_json::Result<serde_json::Value>| value.map_err(|e| e.to_string());
        match request {
            Request::Status => json(serde_json::to_value(self.sources.status())),
            Request::Order { order, alloc } => {
                let alloc = self.find(&alloc)?;
                let mut id = [0; 8];
                SystemRandom::new().fill(&mut id).map_err(|_| "the system gives no random bytes".to_owned())?;
                let order = Order { id: u64::from_le_bytes(id), alloc, kind: order };
                self.ledger.order(order).await.map_err(|e| e.to_string())?;
                json(serde_json::to_value(alloc))
            }
            Request::MetaList => json(serde_json::to_value(self.facts.meta())),
            Request::MetaSet { key, value } => self.meta(key, Some(value)).await,
            Request::MetaUnset { key } => self.meta(key, None).await,
        }
    }

    async fn meta(&self, key: String, value: Option<String>) -> Result<serde_json::Value, String> {
        if key.is_empty() || key.len() > 128 || key.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("`{key}` is no name for meta: 1 to 128 characters without spaces"));
        }
        let change = async {
            let mut meta = self.ledger.local_meta().await?;
            meta.insert(key, value);
            self.ledger.set_local_meta(meta.clone()).await?;
            self.facts.set_meta(meta);
            Ok::<(), LedgerError>(())
        };
        change.await.map_err(|e| e.to_string())?;
        serde_json::to_value(self.facts.meta()).map_err(|e| e.to_string())
    }

    /// The one allocation whose id begins like this.
    fn find(&self, begin: &str) -> Result<AllocId, String> {
        let status = self.sources.status();
        one_of(begin, status.allocs.iter().map(|a| a.id))
    }
}

/// The one id that begins like this.
pub(crate) fn one_of(begin: &str, ids: impl Iterator<Item = AllocId>) -> Result<AllocId, String> {
    let mut found: Vec<AllocId> = ids.filter(|id| !begin.is_empty() && id.to_string().starts_with(&begin.to_lowercase())).collect();
    found.sort();
    found.dedup();
    match found[..] {
        [id] => Ok(id),
        [] => Err(format!("no allocation on this node has an id that begins with `{begin}`; `skerry-agent status` lists them")),
        _ => Err(format!("{} allocations on this node have ids that begin with `{begin}`: give more of it", found.len())),
    }
}

/// Asks the running agent; none when none runs.
pub(crate) async fn ask<T: DeserializeOwned>(folder: &Path, request: Request) -> Result<Option<T>> {
    if !folder.is_dir() {
        bail!("there is no data folder {}: give the one that the agent runs with (--data)", folder.display());
    }
    let (path, _folder) = socket_path(folder)?;
    let Ok(mut stream) = UnixStream::connect(&path).await else { return Ok(None) };
    let mut line = serde_json::to_vec(&Line { v: VERSION, request })?;
    line.push(b'\n');
    let exchange = async {
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.context("the agent does not answer")??;
    let answer: Answer<T> = serde_json::from_slice(&answer).context("the agent's answer cannot be read: is it another version?")?;
    match answer {
        Answer { ok: Some(ok), .. } => Ok(Some(ok)),
        Answer { error, .. } => bail!("{}", error.unwrap_or_else(|| "the agent said nothing".to_owned())),
    }
}

/// As `ask`, where an agent must run.
pub(crate) async fn order<T: DeserializeOwned>(folder: &Path, request: Request) -> Result<T> {
    let answer = ask(folder, request).await?;
    answer.with_context(|| format!("no agent runs on {}: start it, and say it again", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_version() {
        assert_eq!(read_line(r#"{"v":1,"do":"status"}"#), Ok(Request::Status));
        let order = Request::Order { order: OrderKind::OverrideLock, alloc: "ab".into() };
        assert_eq!(read_line(r#"{"v":1,"do":"order","order":"override_lock","alloc":"ab"}"#), Ok(order.clone()));
        assert_eq!(read_line(&serde_json::to_string(&Line { v: 1, request: order.clone() }).unwrap()), Ok(order));
        for (line, part) in [
            ("status", "no request in JSON"),
            (r#"{"v":2,"do":"status"}"#, "it knows 1"),
            (r#"{"v":1,"do":"dance"}"#, "not known to this agent"),
        ] {
            let error = read_line(line).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn ids_by_their_beginning() {
        let ids = [AllocId::new([0x1a; 16]), AllocId::new([0x1b; 16])];
        assert_eq!(one_of("1a", ids.into_iter()), Ok(ids[0]));
        assert!(one_of("1", ids.into_iter()).unwrap_err().contains("2 allocations"));
        for begin in ["", "2"] {
            assert!(one_of(begin, ids.into_iter()).unwrap_err().contains("no allocation"), "{begin}");
        }
    }
}
