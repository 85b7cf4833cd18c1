//! An instance of a task, a container or a process: its name and its labels.
//!
//! The labels carry what is needed to go on without any memory: the place, the version, the ports and the restart of a task. An engine
//! keeps them with a container, the agent keeps them in a file beside a process.

use std::collections::BTreeMap;

use skerry_wire::{AllocId, Digest, Millis, NodeId};

use crate::facts::Slot;
use crate::hash::stable;

/// Names of the labels.
pub mod label {
    /// Node id; tells the instances of one agent from those of another on the same engine.
    pub const NODE: &str = "skerry.node";
    /// Allocation id.
    pub const ALLOC: &str = "skerry.alloc";
    /// Job id.
    pub const JOB: &str = "skerry.job";
    /// Group name.
    pub const GROUP: &str = "skerry.group";
    /// Index.
    pub const INDEX: &str = "skerry.index";
    /// Task name.
    pub const TASK: &str = "skerry.task";
    /// Version of the job.
    pub const VERSION: &str = "skerry.version";
    /// Digest of the specification.
    pub const SPECIFICATION: &str = "skerry.specification";
    /// Milliseconds from the signal to the kill.
    pub const KILL_TIMEOUT: &str = "skerry.kill_timeout_ms";
    /// The node's ports: `http=20080,admin=20081`.
    pub const PORTS: &str = "skerry.ports";
}

/// What the labels of an instance say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The node.
    pub node: NodeId,
    /// The allocation it was made for.
    pub alloc: AllocId,
    /// The place.
    pub slot: Slot,
    /// The task.
    pub task: String,
    /// Version of the job.
    pub version: u64,
    /// Digest of the specification it was made from.
    pub specification: Digest,
    /// From the signal to the kill.
    pub kill_timeout: Millis,
    /// The node's ports, by label.
    pub ports: BTreeMap<String, u16>,
}

/// Why labels are not an agent's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label `{0}` is missing or broken")]
pub struct LabelError(&'static str);

impl Labels {
    /// As the engine keeps them.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let ports: Vec<String> = self.ports.iter().map(|(label, port)| format!("{label}={port}")).collect();
        BTreeMap::from(
            [
                (label::NODE, self.node.to_string()),
                (label::ALLOC, self.alloc.to_string()),
                (label::JOB, self.slot.job.clone()),
                (label::GROUP, self.slot.group.clone()),
                (label::INDEX, self.slot.index.to_string()),
                (label::TASK, self.task.clone()),
                (label::VERSION, self.version.to_string()),
                (label::SPECIFICATION, self.specification.to_string()),
                (label::KILL_TIMEOUT, self.kill_timeout.0.to_string()),
                (label::PORTS, ports.join(",")),
            ]
            .map(|(k, v)| (k.to_owned(), v)),
        )
    }

    /// Reads them back.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, LabelError> {
        fn get<T: std::str::FromStr>(map: &BTreeMap<String, String>, key: &'static str) -> Result<T, LabelError> {
            map.get(key).and_then(|v| v.parse().ok()).ok_or(LabelError(key))
        }
        let mut ports = BTreeMap::new();
        for pair in map.get(label::PORTS).map_or("", String::as_str).split(',').filter(|p| !p.is_empty()) {
            let (name, port) = pair.rsplit_once('=').ok_or(LabelError(label::PORTS))?;
            ports.insert(name.to_owned(), port.parse().map_err(|_| LabelError(label::PORTS))?);
        }
        Ok(Self {
            node: get(map, label::NODE)?,
            alloc: get(map, label::ALLOC)?,
            slot: Slot { job: get(map, label::JOB)?, group: get(map, label::GROUP)?, index: get(map, label::INDEX)? },
            task: get(map, label::TASK)?,
            version: get(map, label::VERSION)?,
            specification: get(map, label::SPECIFICATION)?,
            kill_timeout: Millis(get(map, label::KILL_TIMEOUT)?),
            ports,
        })
    }
}

/// Name of a task's instance: `skerry-<task>-<alloc id>`. What the engine would not take in a name is replaced, and told apart.
pub fn instance_name(alloc: &AllocId, task: &str) -> String {
    let plain: String = task.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' }).take(80).collect();
    if plain == task {
        format!("skerry-{task}-{alloc}")
    } else {
        format!("skerry-{plain}.{:08x}-{alloc}", stable(&[task.as_bytes()]) >> 32)
    }
}

/// The label that all instances of a node's agent carry, as `key=value`.
pub fn node_label(node: &NodeId) -> String {
    format!("{}={node}", label::NODE)
}
