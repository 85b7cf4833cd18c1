//! All that engine or kernel must be told to make an instance of a task.

use std::collections::BTreeMap;

use skerry_wire::job::{Device, Logs};
use skerry_wire::{ImageId, Millis};

use super::Labels;

/// All that is needed to make an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstancePlan {
    /// A container of the engine.
    Container(ContainerPlan),
    /// A process of the node.
    Process(ProcessPlan),
}

impl InstancePlan {
    /// What both kinds have.
    pub fn common(&self) -> &CommonPlan {
        match self {
            Self::Container(plan) => &plan.common,
            Self::Process(plan) => &plan.common,
        }
    }
}

/// What containers and processes are both told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonPlan {
    /// Its name.
    pub name: String,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: Labels,
    /// Mounts, in order. For a process: folders of its allocation that must be there.
    pub binds: Vec<Bind>,
    /// Files that must be there before it starts, see [`File`].
    pub files: Vec<File>,
    /// Folder that it starts in; the image's own, or the task's folder, when none.
    pub work_dir: Option<String>,
    /// User: a name or `uid[:gid]`; the image's own, or as the driver says, when none.
    pub user: Option<String>,
    /// Memory limit in bytes.
    pub memory_limit: u64,
    /// Memory that is reserved, in bytes, when it is below the limit.
    pub memory_reservation: Option<u64>,
    /// Relative share of the processor.
    pub cpu_shares: u32,
    /// Bounds of its output.
    pub logs: Logs,
    /// From the signal to the kill.
    pub kill_timeout: Millis,
    /// The first signal; the image's own, else `SIGTERM`, when none.
    pub kill_signal: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPlan {
    /// What a process has too.
    pub common: CommonPlan,
    /// The image, by id.
    pub image: ImageId,
    /// Instead of the image's `Entrypoint`.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's `Cmd`; the image's own when none.
    pub command: Option<Vec<String>>,
    /// Network.
    pub network: NetworkPlan,
    /// Devices of the node.
    pub devices: Vec<Device>,
    /// All rights on the node.
    pub privileged: bool,
    /// Rights beside the usual ones.
    pub cap_add: Vec<String>,
    /// Rights taken away.
    pub cap_drop: Vec<String>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// What a container has too.
    pub common: CommonPlan,
    /// Absolute path of the program.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Does it run as root unless a user is named (`raw_exec`)? Else as `nobody`, without new privileges (`exec`).
    pub root: bool,
}

/// A file made from a template, below the allocation's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute path on the node.
    pub path: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its mode.
    pub perms: u32,
}

/// A folder of the node seen in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the node.
    pub source: String,
    /// Absolute path in the container.
    pub destination: String,
    /// May the container only read it?
    pub read_only: bool,
    /// Whose it is.
    pub kind: BindKind,
}

/// Whose a mounted folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindKind {
    /// The allocation's own: the agent makes it and removes it.
    Alloc,
    /// As `Alloc`, for secrets: of a process its user's alone; of a container closed by the allocation's folder above it.
    Secrets,
    /// The node's: it must be there, and must still be below an allowed folder once links are followed.
    Host,
}

/// Network of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkPlan {
    /// The node's own.
    Host,
    /// The engine's bridge, with these ports published.
    Bridge(Vec<PublishedPort>),
    /// None but loopback.
    None,
}

/// A published port, for TCP and UDP alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// On the node.
    pub outer: u16,
    /// In the container.
    pub inner: u16,
}
