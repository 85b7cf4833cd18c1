//! Docker, over its socket.
//!
//! Requests go out without an API version, so the engine answers by its newest one: old and new engines both work. Every call has a
//! deadline of its own, every stream is read to its end, and errors inside a stream are errors.

mod containers;
mod events;
mod exec;
mod images;
mod store;
mod whole;
mod words;

pub use containers::TAIL as LOG_TAIL;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use bytes::Bytes;
use futures_util::Stream;
use skerry_wire::ImageId;

use crate::EngineError;
use crate::engine::{ArchiveStream, ContainerSpec, ContainerState, Engine, Info, PinnedImage, Ran};

/// An ordinary call.
const CALL: Duration = Duration::from_secs(60);
/// A load or a save that shows no progress. Slow cards need minutes to unpack a layer.
const STALL: Duration = Duration::from_secs(15 * 60);
/// The client's own deadline, up to the answer's headers: above every one of ours, so that ours decide.
const CLIENT: u64 = 24 * 60 * 60;

/// A Docker engine.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    /// Made when the socket is there for the first time: the client refuses one that is not.
    docker: Arc<OnceLock<Docker>>,
    socket: PathBuf,
    /// How it calls its images.
    known: Arc<store::Known>,
}

impl DockerEngine {
    /// An engine by the path of its socket, e.g. `/run/docker.sock`, which need not be there yet. Opens no connection yet; there is one
    /// per call.
    pub fn connect(socket: &Path) -> Result<Self, EngineError> {
        if socket.to_str().is_none() {
            let reason = "its path is not UTF-8".into();
            return Err(EngineError::Unreachable { socket: socket.display().to_string(), reason });
        }
        Ok(Self { docker: Arc::default(), socket: socket.into(), known: Arc::default() })
    }

    fn docker(&self) -> Result<&Docker, EngineError> {
        if let Some(docker) = self.docker.get() {
            return Ok(docker);
        }
        let unreachable = |e: Error| EngineError::Unreachable { socket: self.socket(), reason: e.to_string() };
        let made = Docker::connect_with_unix(&self.socket(), CLIENT, API_DEFAULT_VERSION).map_err(unreachable)?;
        Ok(self.docker.get_or_init(|| made))
    }

    fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// Waits for an answer, at most `deadline`.
    async fn call<T>(&self, what: &str, deadline: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer.map_err(|error| self.error(what, error)),
            Err(_) => Err(EngineError::Timeout { socket: self.socket(), what: what.into(), after: deadline }),
        }
    }

    fn error(&self, what: &str, error: Error) -> EngineError {
        let (socket, what) = (self.socket(), what.to_string());
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let status = words::status(status_code, &message);
                EngineError::Refused { what, status, message: message.trim().chars().take(2000).collect() }
            }
            // The client says only "client error (Connect)": ask the socket itself.
            Error::HyperLegacyError { .. } | Error::SocketNotFoundError(_) => {
                self.known.forget();
                match std::os::unix::net::UnixStream::connect(&self.socket) {
                    Err(reason) => EngineError::Unreachable { socket, reason: reason.to_string() },
                    Ok(_) => EngineError::Broken { socket, what, reason: causes(&error) },
                }
            }
            other => {
                self.known.forget();
                EngineError::Broken { socket, what, reason: causes(&other) }
            }
        }
    }
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

impl Engine for DockerEngine {
    async fn info(&self) -> Result<Info, EngineError> {
        self.ask_info().await.map(|(info, _)| info)
    }

    async fn images(&self) -> Result<Vec<ImageId>, EngineError> {
        self.list_images().await
    }

    async fn image_present(&self, id: &ImageId) -> Result<bool, EngineError> {
        match self.inspect_image(&id.to_string()).await {
            Ok(found) => Ok(found == *id),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn resolve(&self, reference: &str) -> Result<ImageId, EngineError> {
        self.inspect_image(reference).await
    }

    async fn image_size(&self, id: &ImageId) -> Result<u64, EngineError> {
        self.size_of_image(id).await
    }

    async fn load(&self, archive: ArchiveStream) -> Result<(), EngineError> {
        self.load_archive(archive, STALL).await
    }

    fn save(&self, reference: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send {
        self.save_archive(reference, STALL)
    }

    async fn pin(&self, id: &ImageId, name: &str) -> Result<(), EngineError> {
        self.tag_pin(id, name).await
    }

    async fn pinned(&self) -> Result<Vec<PinnedImage>, EngineError> {
        self.list_pinned().await
    }

    async fn is_whole(&self, id: &ImageId) -> Result<bool, EngineError> {
        self.read_back(id, STALL).await
    }

    async fn unpin(&self, name: &str) -> Result<(), EngineError> {
        images::check_pin(name)?;
        self.delete_image(&images::pin_reference(name)).await
    }

    async fn remove_image(&self, id: &ImageId) -> Result<(), EngineError> {
        let ids = match self.own_ids(id).await {
            Err(error) if error.is_not_found() => return Ok(()),
            ids => ids?,
        };
        for id in ids {
            self.delete_image(&id.to_string()).await?;
        }
        Ok(())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        self.create_container(spec).await
    }

    async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.start_container(name).await
    }

    async fn signal(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        self.signal_container(name, signal).await
    }

    async fn exec(&self, name: &str, command: &[String], timeout: Duration, most: usize) -> Result<Ran, EngineError> {
        self.exec_in(name, command, timeout, most).await
    }

    async fn stop(&self, name: &str, timeout: Duration) -> Result<(), EngineError> {
        self.stop_container(name, timeout).await
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.remove_container(name).await
    }

    async fn containers(&self, label: &str) -> Result<Vec<ContainerState>, EngineError> {
        self.list_containers(label, &[]).await
    }

    fn changes(&self, label: &str) -> impl Stream<Item = Result<(), EngineError>> + Send {
        self.container_events(label)
    }

    async fn look(&self, label: &str, before: &[ContainerState]) -> Result<Vec<ContainerState>, EngineError> {
        self.list_containers(label, before).await
    }

    fn follow(&self, name: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send {
        self.follow_logs(name)
    }

    async fn logs(&self, name: &str, lines: u32) -> Result<Vec<u8>, EngineError> {
        self.tail(name, lines).await
    }
}
