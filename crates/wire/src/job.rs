//! A job as the system knows it: parsed, validated, with defaults filled in and images resolved.
//!
//! The jobspec crate makes it from HCL; a release key signs it inside a [`crate::release::Specification`]; agents run it. Names and
//! meanings follow Nomad's job specification; spans are milliseconds, sizes say their unit in the name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Millis;

mod policy;
mod service;
mod task;

pub use policy::{
    DelayFunction, Disconnect, HealthCheck, MissedRun, OnDeltaFailure, Periodic, Reconcile, Reschedule, RestartMode, RestartPolicy,
    UnknownTime, Update,
};
pub use service::{Check, CheckKind, CheckRestart, Service};
pub use task::{ChangeMode, Device, DockerConfig, Driver, Hook, Lifecycle, Logs, ProcessConfig, Resources, Task, Template, Volume};

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
    /// When the nodes run it, by their own clocks; batch and sysbatch only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub periodic: Option<Periodic>,
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
    /// `count` allocations over the fleet, each run to its end.
    Batch,
    /// One allocation on every feasible node, run to its end.
    SysBatch,
}

impl JobType {
    /// Is it placed on every feasible node?
    pub const fn is_everywhere(self) -> bool {
        matches!(self, Self::System | Self::SysBatch)
    }

    /// Is it done when its tasks end with 0?
    pub const fn runs_to_end(self) -> bool {
        matches!(self, Self::Batch | Self::SysBatch)
    }
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
    /// What the node does when the restarts are spent.
    #[serde(default)]
    pub reschedule: Reschedule,
    /// How a newer version takes over.
    #[serde(default)]
    pub update: Update,
    /// What holds while node and server do not reach each other.
    #[serde(default)]
    pub disconnect: Disconnect,
    /// Services with checks of the whole group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Wait between the order to stop and the first kill signal.
    #[serde(default)]
    pub shutdown_delay: Millis,
    /// The longest that one run may take; batch and sysbatch only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_run_duration: Option<Millis>,
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

impl Job {
    /// A job of these groups with nothing else said: the defaults of a jobspec.
    pub fn new(id: &str, kind: JobType, groups: Vec<Group>) -> Self {
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            kind,
            priority: 50,
            node_pool: "default".to_owned(),
            datacenters: vec!["*".to_owned()],
            constraints: Vec::new(),
            meta: BTreeMap::new(),
            periodic: None,
            groups,
        }
    }

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
    /// A group of these tasks with nothing else said: the defaults of a jobspec for what runs for ever.
    pub fn new(name: &str, tasks: Vec<Task>) -> Self {
        Self {
            name: name.to_owned(),
            count: 1,
            constraints: Vec::new(),
            network: Network::default(),
            restart: RestartPolicy::EDGE,
            reschedule: Reschedule::SERVICE,
            update: Update::default(),
            disconnect: Disconnect::default(),
            services: Vec::new(),
            shutdown_delay: Millis(0),
            max_run_duration: None,
            meta: BTreeMap::new(),
            tasks,
        }
    }

    /// Every docker image reference of the group, in the order of tasks.
    pub fn images(&self) -> impl Iterator<Item = &DockerConfig> {
        self.tasks.iter().filter_map(|t| match &t.driver {
            Driver::Docker(config) => Some(config),
            Driver::Exec(_) | Driver::RawExec(_) => None,
        })
    }
}
