//! What Skerry wants of a container engine.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use skerry_wire::ImageId;

use crate::EngineError;

/// An archive on its way into the engine. An error in it aborts the load.
pub type ArchiveStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A container engine. Everything that changes something may be repeated: the second time finds it done.
pub trait Engine: Send + Sync {
    /// What the engine is.
    fn info(&self) -> impl Future<Output = Result<Info, EngineError>> + Send;

    /// The ids of all images, sorted.
    fn images(&self) -> impl Future<Output = Result<Vec<ImageId>, EngineError>> + Send;

    /// Is this image there?
    fn image_present(&self, id: &ImageId) -> impl Future<Output = Result<bool, EngineError>> + Send;

    /// The id of an image by `name:tag`, `name` (tag `latest`) or id; the engine's own id of it where nobody can tell another.
    fn resolve(&self, reference: &str) -> impl Future<Output = Result<ImageId, EngineError>> + Send;

    /// Bytes of the files of an image, as the engine counts them; its archive is a little longer. Where the archive has them compressed,
    /// of both together.
    fn image_size(&self, id: &ImageId) -> impl Future<Output = Result<u64, EngineError>> + Send;

    /// Loads an archive as `docker load` does. On an error nothing of it stays, but in containerd's store, which may go on listing an image
    /// that it did not unpack until that is removed.
    fn load(&self, archive: ArchiveStream) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// An image as a `docker save` archive.
    fn save(&self, reference: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send;

    /// Gives the image the tag `skerry-pin:<name>`, so that it, and with it its chain of layers, is not pruned away. A name that is
    /// in use moves to this image.
    fn pin(&self, id: &ImageId, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Takes the tag away; fine when it is gone. With its last tag the image goes too; while a container that was made of it exists,
    /// running or not, that is [`EngineError::InUse`] and both stay.
    fn unpin(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Every image that has a tag `skerry-pin:<name>`.
    fn pinned(&self) -> impl Future<Output = Result<Vec<PinnedImage>, EngineError>> + Send;

    /// Reads an image back as a whole and compares every layer with its digest. False when one is damaged, or cannot be read.
    fn is_whole(&self, id: &ImageId) -> impl Future<Output = Result<bool, EngineError>> + Send;

    /// Removes an image; fine when it is gone. [`EngineError::InUse`] while a container was made of it, another image builds on it, or
    /// it has several tags.
    fn remove_image(&self, id: &ImageId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Creates a container; gives its id. One of the same name, image and labels is taken as the one meant.
    fn create(&self, spec: &ContainerSpec) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// Starts a container; fine when it runs.
    fn start(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Sends a signal to a container's first process: `SIGHUP`; fine when it does not run or is gone.
    fn signal(&self, name: &str, signal: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Runs a program in a container and gives its exit code and the beginning of what it wrote, at most `most` bytes of it.
    fn exec(&self, name: &str, command: &[String], timeout: Duration, most: usize)
    -> impl Future<Output = Result<Ran, EngineError>> + Send;

    /// Stops a container, hard after `timeout`; fine when it does not run or is gone.
    fn stop(&self, name: &str, timeout: Duration) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a container and its anonymous volumes, running or not; fine when it is gone.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// All containers that have this label (`key` or `key=value`), running or not, by name.
    fn containers(&self, label: &str) -> impl Future<Output = Result<Vec<ContainerState>, EngineError>> + Send;

    /// A word each time a container that has this label ends or is removed. Words may be lost: they only say "look again". The
    /// stream ends, or gives an error, when the engine goes away.
    fn changes(&self, label: &str) -> impl Stream<Item = Result<(), EngineError>> + Send;

    /// As `containers`, with what is known from the last look: of what ran then and runs now nothing more is asked.
    fn look(&self, label: &str, before: &[ContainerState]) -> impl Future<Output = Result<Vec<ContainerState>, EngineError>> + Send;

    /// The last lines that a container wrote, both streams together; at most 256 KiB of them.
    fn logs(&self, name: &str, lines: u32) -> impl Future<Output = Result<Vec<u8>, EngineError>> + Send;

    /// What a container writes from now on, both streams together, until it ends.
    fn follow(&self, name: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send;
}

/// An image that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedImage {
    /// Its id.
    pub id: ImageId,
    /// The names that it is pinned under.
    pub names: Vec<String>,
    /// Has it tags beside these?
    pub others: bool,
    /// Bytes of its files, as the engine counts them; those shared with other images are in it.
    pub bytes: u64,
}

/// What a program in a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit code.
    pub code: i64,
    /// The beginning of what it wrote, both streams together.
    pub output: Vec<u8>,
}

/// What an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Version as the engine says it.
    pub version: String,
    /// Storage driver: `overlay2`, `fuse-overlayfs`, ...
    pub storage_driver: String,
    /// Does it keep images in containerd's store? Then layers are neither readable in place nor to be left out of archives.
    pub containerd_store: bool,
    /// The folder on this machine that images and layers are in: the engine's data root, which may not be to be seen from here, or that of
    /// its containerd, empty where that is not to be seen.
    pub data_root: PathBuf,
    /// Bytes free there for an ordinary user; none when the folder is not to be seen from here.
    pub disk_free: Option<u64>,
    /// Architecture as the kernel names it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
}

/// Go's and Docker's name of an architecture that the kernel calls so.
pub fn go_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i586" | "i386" => "386",
        other => other,
    }
}

/// A container to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its name, unique in the engine: letters, digits, `_`, `.`, `-`.
    pub name: String,
    /// The image, always by id.
    pub image: ImageId,
    /// Program instead of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the entrypoint; the image's own when none.
    pub cmd: Option<Vec<String>>,
    /// Folder that it starts in; the image's own when none.
    pub work_dir: Option<String>,
    /// User: a name or `uid[:gid]`; the image's own when none.
    pub user: Option<String>,
    /// First signal of a stop; the image's own, else `SIGTERM`, when none.
    pub stop_signal: Option<String>,
    /// Devices of the machine.
    pub devices: Vec<Device>,
    /// All rights on the machine.
    pub privileged: bool,
    /// Rights beside the usual ones: `net_admin`.
    pub cap_add: Vec<String>,
    /// Rights taken away.
    pub cap_drop: Vec<String>,
    /// Environment beside the image's.
    pub env: BTreeMap<String, String>,
    /// Labels beside the image's.
    pub labels: BTreeMap<String, String>,
    /// Most memory, bytes; none for no limit. Swap is not added to it.
    pub memory_limit: Option<u64>,
    /// Memory kept for it when memory is short, bytes.
    pub memory_reservation: Option<u64>,
    /// Weight against other containers; Nomad's MHz. At least 2 for the kernel: less is raised.
    pub cpu_shares: Option<u32>,
    /// Network.
    pub network: NetworkMode,
    /// Ports of the machine that lead into it, TCP and UDP; with [`NetworkMode::Bridge`] only.
    pub ports: Vec<PublishedPort>,
    /// Folders of the machine seen in it.
    pub mounts: Vec<Mount>,
    /// Bounds of what its output takes on the disk; none: no output is kept.
    pub logs: Option<LogBounds>,
}

impl ContainerSpec {
    /// A container of this image with nothing else said.
    pub fn new(name: &str, image: ImageId) -> Self {
        Self {
            name: name.into(),
            image,
            entrypoint: None,
            cmd: None,
            work_dir: None,
            user: None,
            stop_signal: None,
            devices: Vec::new(),
            privileged: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            memory_limit: None,
            memory_reservation: None,
            cpu_shares: None,
            network: NetworkMode::Bridge,
            ports: Vec::new(),
            mounts: Vec::new(),
            logs: Some(LogBounds::default()),
        }
    }
}

/// How a container sees the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// The machine's own.
    Host,
    /// The engine's default bridge.
    Bridge,
    /// Loopback only.
    None,
}

/// A port of the machine that leads into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// On the machine, on all its addresses.
    pub host: u16,
    /// In the container.
    pub container: u16,
}

/// A folder or file of the machine seen in a container. A source that is not there is made as a folder by the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the machine, without `:`.
    pub source: String,
    /// Absolute path in the container, without `:`.
    pub destination: String,
    /// May the container only read it?
    pub read_only: bool,
}

/// A device of the machine seen in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Absolute path on the machine.
    pub source: String,
    /// Absolute path in the container.
    pub destination: String,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// Bounds of a container's output on disk (`json-file`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes of one file.
    pub max_size: u64,
    /// Files kept.
    pub max_files: u32,
}

impl Default for LogBounds {
    /// 2 files of 1 MiB: an SD card is small and wears.
    fn default() -> Self {
        Self { max_size: 1024 * 1024, max_files: 2 }
    }
}

/// A container as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerState {
    /// The engine's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image that it was made of.
    pub image: ImageId,
    /// Its labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// What it does.
    pub status: ContainerStatus,
    /// When it last started, RFC 3339 on the machine's clock; empty when never.
    pub started_at: String,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerStatus {
    /// Made, never started.
    Created,
    /// Runs (or is paused, or the engine is restarting it).
    Running,
    /// Ended.
    Exited {
        /// Of its first process; 128 + signal when killed.
        code: i64,
        /// Did the kernel kill it for want of memory?
        out_of_memory: bool,
    },
    /// On its way out, or stuck on it.
    Removing,
}
