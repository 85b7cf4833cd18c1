//! What can go wrong with an engine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use skerry_wire::ImageId;

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers at the socket.
    #[error("the Docker engine at unix://{socket} does not answer: is dockerd running, and may this user open the socket? ({reason})")]
    Unreachable {
        /// Path of the socket.
        socket: String,
        /// What the system says.
        reason: String,
    },
    /// No answer in time.
    #[error("the Docker engine at unix://{socket} did not finish in {after:?}: {what}; look at the engine's own log")]
    Timeout {
        /// Path of the socket.
        socket: String,
        /// What was asked for.
        what: String,
        /// How long was waited without progress.
        after: Duration,
    },
    /// The engine said no.
    #[error("the Docker engine refused: {what}: {message} (status {status})")]
    Refused {
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// What the engine says.
        message: String,
    },
    /// The connection broke, or the answer makes no sense.
    #[error("the conversation with the Docker engine at unix://{socket} broke off: {what}: {reason}")]
    Broken {
        /// Path of the socket.
        socket: String,
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
    },
    /// No such image.
    #[error("the engine has no image `{reference}`: check the name and tag with `docker image ls`")]
    NoImage {
        /// Reference or id.
        reference: String,
    },
    /// A container was made of the image, another image builds on it, or it has several tags.
    #[error("image `{reference}` is in use and stays: {message}")]
    InUse {
        /// Reference or id.
        reference: String,
        /// What the engine says.
        message: String,
    },
    /// No such container.
    #[error("the engine has no container `{name}`")]
    NoContainer {
        /// Name or id.
        name: String,
    },
    /// Another container has the name.
    #[error("container `{name}` exists and is another one ({difference}): remove it with `docker rm -f {name}`, or run under another name")]
    NameTaken {
        /// The name.
        name: String,
        /// How it differs.
        difference: String,
    },
    /// The engine did not take an archive.
    #[error("the engine did not load the image: {message}")]
    Load {
        /// What the engine says, or what is wrong with the archive.
        message: String,
    },
    /// A value that the engine would misread.
    #[error("{what} `{value}` cannot be used: {why}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// The value.
        value: String,
        /// Why.
        why: &'static str,
    },
    /// The engine keeps its layers in a form that is not known.
    #[error("layers cannot be read in place with storage driver `{driver}`: only overlay2 and fuse-overlayfs can")]
    NotInPlace {
        /// The driver.
        driver: String,
    },
    /// A file or folder of the engine cannot be read or synced.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A loaded image is not there afterwards.
    #[error("the engine took the archive but does not have {image_id} afterwards")]
    NotLoaded {
        /// The image.
        image_id: ImageId,
    },
}

impl EngineError {
    /// Is it only that the image or the container is not there?
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoImage { .. } | Self::NoContainer { .. })
    }
}
