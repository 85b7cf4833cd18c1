//! A job as the system knows it: parsed, validated, with defaults filled in and images resolved.
//!
//! The jobspec crate makes it from HCL; a release key signs it inside a [`crate::release::Specification`]; agents run it. Names and
//! meanings follow Nomad's job specification; spans are milliseconds, sizes say their unit in the name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ImageId, Millis};

/// An operator's unit of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Identity of the job across its versions: letters, digits, `-`, `_`, `.`; at most 128 characters.
    pub id: String,
    /// Name for people; the id unless the jobspec says otherwise.
    pub name: String,
    /// How it is placed and when it is done.
    #[serde(rename = "type")]
    pub kind: JobType,
    /// 1 (least) to 100; order of fetching on a node.
    pub priority: u8,
    /// The node pool it is placed in; `all` is every pool.
    pub node_pool: String,
    /// Globs of sites (`datacenter` of a node); `*` is everywhere.
    pub datacenters: Vec<String>,
    /// What a node must be to get any group of this job.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// Free values for people and for `NOMAD_META_*`.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// The groups, in the order written; names are unique.
    pub groups: Vec<Group>,
}

/// How a job is placed and when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobType {
    /// `count` allocations over the fleet, running for ever.
    Service,
    /// One allocation on every feasible node, running for ever.
    System,
}

/// One condition that a node must meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// What to look at, as written: `${attr.cpu.arch}`, `${meta.site}`, `${node.unique.name}`.
    pub attribute: String,
    /// How to compare.
    pub operator: Operator,
    /// What to compare with; empty for `is_set` and `is_not_set`.
    #[serde(default)]
    pub value: String,
}

/// How a [`Constraint`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// `=`, `==`, `is`
    Equal,
    /// `!=`, `not`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// The attribute matches the regular expression.
    Regexp,
    /// The attribute is a version that meets the constraint (`>= 1.2, < 2`).
    Version,
    /// The comma-separated attribute has all listed values.
    SetContainsAll,
    /// The comma-separated attribute has one of the listed values.
    SetContainsAny,
    /// The attribute is there.
    IsSet,
    /// The attribute is not there.
    IsNotSet,
}

/// Tasks that are placed together on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Unique in the job.
    pub name: String,
    /// Allocations over the fleet (service); 1 for system jobs.
    pub count: u32,
    /// Conditions beside those of the job.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// Network of all tasks of the group.
    #[serde(default)]
    pub network: Network,
    /// What the node does when a task ends.
    pub restart: RestartPolicy,
    /// Free values.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// The tasks, in the order written; names are unique.
    pub tasks: Vec<Task>,
}

/// Network of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// How the tasks see the network.
    pub mode: NetworkMode,
    /// Ports by label, in the order written.
    #[serde(default)]
    pub ports: Vec<Port>,
}

/// How the tasks of a group see the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The node's own network. Nomad's default; a docker task that maps `ports` then gets the engine's bridge with those ports published.
    #[default]
    Host,
    /// The engine's bridge, ports published.
    Bridge,
    /// No network but loopback.
    None,
}

/// A port of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name, as in `NOMAD_PORT_<label>`.
    pub label: String,
    /// The node's port, or none when the node may choose one from 20000 to 32000.
    #[serde(default, rename = "static")]
    pub fixed: Option<u16>,
    /// The port inside the container; the node's port when none.
    #[serde(default)]
    pub to: Option<u16>,
}

/// What the node does when a task ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Restarts allowed within `interval`.
    pub attempts: u32,
    /// The span that `attempts` counts in.
    pub interval: Millis,
    /// Wait before each restart.
    pub delay: Millis,
    /// What happens when the attempts are spent.
    pub mode: RestartMode,
}

impl RestartPolicy {
    /// The default on the edge: as Nomad's for services, but it never gives up.
    pub const EDGE: Self =
        Self { attempts: 2, interval: Millis::from_secs(30 * 60), delay: Millis::from_secs(15), mode: RestartMode::Delay };
}

/// What happens when the restart attempts of an interval are spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartMode {
    /// Wait for the rest of the interval, then go on.
    Delay,
    /// The allocation fails.
    Fail,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Unique in the group.
    pub name: String,
    /// What runs it, with its configuration.
    pub driver: Driver,
    /// Environment; values may hold `${...}` that the node fills in.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Free values.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Conditions beside those of group and job.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// What it may use.
    pub resources: Resources,
    /// From the kill signal to the hard kill.
    pub kill_timeout: Millis,
}

/// What runs a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A container of the node's Docker engine.
    Docker(DockerConfig),
}

/// Configuration of a docker task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerConfig {
    /// The image as written: `name:tag`, `name` (tag `latest`) or `sha256:...`.
    pub image: String,
    /// What `image` was resolved to; every signed specification has it.
    #[serde(default)]
    pub image_id: Option<ImageId>,
    /// Program instead of the image's entrypoint arguments (Docker's `Cmd`, first word).
    #[serde(default)]
    pub command: Option<String>,
    /// Arguments; may hold `${...}`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Labels of the group's ports that this task publishes.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Folders of the node seen in the container.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Absolute path on the node, or a path relative to the task's folder.
    pub source: String,
    /// Absolute path in the container.
    pub destination: String,
    /// May the container only read it?
    #[serde(default)]
    pub read_only: bool,
}

/// What a task may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Share of the processor, in MHz.
    pub cpu: u32,
    /// Memory that is reserved, in MiB; the limit too unless `memory_max` is set.
    pub memory: u32,
    /// Memory limit in MiB.
    #[serde(default)]
    pub memory_max: Option<u32>,
}

impl Job {
    /// Every docker image reference of the job with its resolution, in the order of groups and tasks.
    pub fn images(&self) -> impl Iterator<Item = &DockerConfig> {
        self.groups.iter().flat_map(Group::images)
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }
}

impl Group {
    /// Every docker image reference of the group, in the order of tasks.
    pub fn images(&self) -> impl Iterator<Item = &DockerConfig> {
        self.tasks.iter().map(|t| {
            let Driver::Docker(config) = &t.driver;
            config
        })
    }
}
