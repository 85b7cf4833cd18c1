//! What a node says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ImageId;

/// Facts that the agent finds on its node and reports when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Name for people; the host name unless the agent's configuration says otherwise.
    pub name: String,
    /// Site, matched against a job's `datacenters`.
    #[serde(default)]
    pub datacenter: String,
    /// What `${attr.*}` stands for: `kernel.name`, `cpu.arch` (as Go and Docker name it: `amd64`, `arm64`), `memory.totalbytes`, ...
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What `${meta.*}` stands for: set by the operator on the node.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Memory of the node in MiB.
    pub memory_mib: u64,
    /// Bytes free where the engine keeps its images.
    pub disk_free: u64,
    /// The engine, when it answers.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// Serials of the hardware (SoC, disk, network), by kind; used to tell a cloned disk.
    #[serde(default)]
    pub hardware: BTreeMap<String, String>,
    /// Version of the agent.
    pub agent_version: String,
    /// The bundle formats and codecs that this agent can apply.
    #[serde(default)]
    pub features: Vec<String>,
    /// What keeps the agent from its work, for people: its disk is full, its engine does not answer. None while nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What the agent found out about its container engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Version as the engine says it.
    pub version: String,
    /// Storage driver: `overlay2`, `fuse-overlayfs`, ...
    pub storage_driver: String,
    /// May layers that the engine has be left out of what is loaded into it?
    pub accepts_partial_load: bool,
    /// Can the files of layers be read in place (else a spool is used)?
    pub layers_in_place: bool,
}

/// The images that a node's engine holds, sorted; sent when it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Image ids.
    pub images: Vec<ImageId>,
}
