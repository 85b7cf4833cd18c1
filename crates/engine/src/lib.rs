//! The container engine of a machine: images, containers, and the layers that it keeps.
//!
//! - [`Engine`] says what Skerry wants of an engine, in terms of use cases; [`DockerEngine`] does it over Docker's socket.
//! - [`EngineLayers`] reads layers in place, from the engine's own folders, as old bytes for patches; [`SpooledImages`] reads images that
//!   the engine exported by [`spool`], where it keeps layers in another form.
//! - [`probe`] finds out what the engine at hand can do.
//! - [`sync`] brings what the engine wrote onto the disk.
//! - [`archive_pipe`] connects a thread that writes an archive with [`Engine::load`].
//!
//! A shell: it talks to sockets and files, and promises that every call ends: with a result, or with an [`EngineError`] that names the
//! container or image and says what to do. Calls that change something can be repeated after a power cut.

mod docker;
mod engine;
mod error;
mod layers;
mod pipe;
mod probe;
mod sync;

pub use docker::{DockerEngine, LOG_TAIL};
pub use engine::{
    ArchiveStream, ContainerSpec, ContainerState, ContainerStatus, Device, Engine, Info, LogBounds, Mount, NetworkMode, PinnedImage,
    PublishedPort, Ran, go_architecture,
};
pub use error::EngineError;
pub use layers::{EngineLayers, SpooledImages, spool};
pub use pipe::{ArchivePipe, archive_pipe};
pub use probe::{Abilities, probe};
pub use sync::sync;
