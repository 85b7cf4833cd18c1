//! The container of a task: its name, its labels, and all that the engine must be told to make it.
//!
//! The labels carry what is needed to go on without any memory: the place, the version, the ports and the restart of a task.

use std::collections::BTreeMap;

use skerry_wire::job::{Driver, Group, Job, NetworkMode, Task};
use skerry_wire::{AllocId, Digest, ImageId, Millis, NodeId};

use crate::env::{TaskEnv, task_env};
use crate::facts::{Node, Slot};
use crate::hash::stable;
use crate::memory::Version;
use crate::policy::{Policy, Refusal, climbs, names_a_folder};

/// Names of the labels.
pub mod label {
    /// Node id; tells the containers of one agent from those of another on the same engine.
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

/// What the labels of a container say.
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

/// Name of a task's container: `skerry-<task>-<alloc id>`. What the engine would not take in a name is replaced, and told apart.
pub fn container_name(alloc: &AllocId, task: &str) -> String {
    let plain: String = task.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' }).take(80).collect();
    if plain == task {
        format!("skerry-{task}-{alloc}")
    } else {
        format!("skerry-{plain}.{:08x}-{alloc}", stable(&[task.as_bytes()]) >> 32)
    }
}

/// The label that all containers of a node's agent carry, as `key=value`.
pub fn container_label_of(node: &NodeId) -> String {
    format!("{}={node}", label::NODE)
}

/// All that the engine must be told to make a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Its name.
    pub name: String,
    /// The image, by id.
    pub image: ImageId,
    /// Instead of the image's `Cmd`; the image's own when none.
    pub command: Option<Vec<String>>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: Labels,
    /// Mounts, in order.
    pub binds: Vec<Bind>,
    /// Network.
    pub network: NetworkPlan,
    /// Memory limit in bytes.
    pub memory_limit: u64,
    /// Memory that is reserved, in bytes, when it is below the limit.
    pub memory_reservation: Option<u64>,
    /// Relative share of the processor.
    pub cpu_shares: u32,
    /// From the signal to the kill.
    pub kill_timeout: Millis,
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
    /// As `Alloc`, for secrets: readable by root only.
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

/// Everything about one version in one place that its containers are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making<'a> {
    pub(crate) node: &'a Node,
    pub(crate) policy: &'a Policy,
    pub(crate) job: &'a Job,
    pub(crate) group: &'a Group,
    pub(crate) slot: &'a Slot,
    pub(crate) version: &'a Version,
}

impl Making<'_> {
    /// The container of one task, or why the node refuses it. A task without a resolved image has no container.
    pub(crate) fn container(&self, task: &Task) -> Result<Option<ContainerPlan>, Refusal> {
        let Self { node, job, group, slot, version, .. } = *self;
        let Driver::Docker(config) = &task.driver;
        let Some(image) = config.image_id else { return Ok(None) };
        let host_network = uses_host_network(group);
        let env = TaskEnv { node, job, group, task, slot, alloc: &version.born, ports: &version.ports, host_network };
        let nomad = env.nomad();
        let words: Vec<String> = config.command.iter().chain(&config.args).map(|w| env.fill(&nomad, w)).collect();
        let (memory, max) = (task.resources.memory, task.resources.memory_max);
        let mib = |n: u32| u64::from(n) << 20;
        Ok(Some(ContainerPlan {
            name: container_name(&version.born, &task.name),
            image,
            command: (!words.is_empty()).then_some(words),
            env: task_env(&env),
            labels: Labels {
                node: node.id,
                alloc: version.born,
                slot: slot.clone(),
                task: task.name.clone(),
                version: version.version,
                specification: version.specification,
                kill_timeout: task.kill_timeout,
                ports: version.ports.clone(),
            },
            binds: self.binds(task, &env, &nomad)?,
            network: self.network(task, &env, host_network),
            memory_limit: mib(max.map_or(memory, |m| m.max(memory))),
            memory_reservation: max.filter(|m| *m > memory).map(|_| mib(memory)),
            cpu_shares: task.resources.cpu.clamp(2, 262_144),
            kill_timeout: task.kill_timeout,
        }))
    }

    /// The allocation's own folders, then the jobspec's volumes.
    fn binds(&self, task: &Task, env: &TaskEnv<'_>, nomad: &BTreeMap<String, String>) -> Result<Vec<Bind>, Refusal> {
        if !names_a_folder(&task.name) {
            return Err(Refusal::TaskName { task: task.name.clone() });
        }
        let alloc = format!("{}/{}", self.node.alloc_folder, self.version.born);
        let own = format!("{alloc}/{}", task.name);
        let bind = |source: String, destination: &str, kind| Bind { source, destination: destination.to_owned(), read_only: false, kind };
        let mut binds = vec![
            bind(format!("{alloc}/alloc"), "/alloc", BindKind::Alloc),
            bind(format!("{own}/local"), "/local", BindKind::Alloc),
            bind(format!("{own}/secrets"), "/secrets", BindKind::Secrets),
        ];
        let Driver::Docker(config) = &task.driver;
        for volume in &config.volumes {
            let source = env.fill(nomad, &volume.source);
            let destination = env.fill(nomad, &volume.destination);
            if climbs(&source) {
                return Err(Refusal::Climbs { task: task.name.clone(), path: source });
            }
            if !destination.starts_with('/') || climbs(&destination) {
                return Err(Refusal::Destination { task: task.name.clone(), path: destination });
            }
            let (source, kind) = if source.starts_with('/') {
                if !self.policy.allows_mount(&source) {
                    return Err(Refusal::HostVolume { task: task.name.clone(), path: source });
                }
                (source, BindKind::Host)
            } else {
                (format!("{own}/{source}"), BindKind::Alloc)
            };
            binds.push(Bind { source, destination, read_only: volume.read_only, kind });
        }
        Ok(binds)
    }

    fn network(&self, task: &Task, env: &TaskEnv<'_>, host_network: bool) -> NetworkPlan {
        let Driver::Docker(config) = &task.driver;
        let group = self.group;
        if group.network.mode == NetworkMode::None {
            return NetworkPlan::None;
        }
        if host_network {
            return NetworkPlan::Host;
        }
        // In bridge mode the group's ports are published even when its only task does not list them, as in Nomad.
        let all = group.network.mode == NetworkMode::Bridge && group.tasks.len() == 1;
        let labels = group.network.ports.iter().map(|p| &p.label).filter(|l| all || config.ports.contains(l));
        let published = labels.filter_map(|l| Some(PublishedPort { outer: *self.version.ports.get(l)?, inner: env.inner_port(l)? }));
        NetworkPlan::Bridge(published.collect())
    }

    /// Would the node refuse any task of the group?
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.group.tasks.iter().try_for_each(|t| self.container(t).map(|_| ()))
    }
}

/// A group in host mode that declares ports which none of its tasks maps listens on them itself: its tasks see the node's own network.
/// Other docker tasks get the engine's bridge, as in Nomad.
fn uses_host_network(group: &Group) -> bool {
    group.network.mode == NetworkMode::Host && !group.network.ports.is_empty() && group.images().all(|c| c.ports.is_empty())
}
