//! A task, what runs it, and what it is given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Constraint, RestartPolicy, Service};
use crate::{ImageId, Millis};

/// One container or process.
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
    /// Name of the first signal, `SIGTERM`; the image's own, else `SIGTERM`, when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_signal: Option<String>,
    /// Wait between the order to stop and the first kill signal, beside the group's.
    #[serde(default)]
    pub shutdown_delay: Millis,
    /// User that it runs as; the image's own, or `nobody` for exec and root for raw_exec, when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it runs; with the others of its group when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Does its end stop the others of its group?
    #[serde(default)]
    pub leader: bool,
    /// Instead of the group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// Files made before it starts, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<Template>,
    /// Services with checks of this task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Bounds of what its output takes on the disk.
    #[serde(default)]
    pub logs: Logs,
}

impl Task {
    /// A task with nothing said but what runs it: the defaults of a jobspec.
    pub fn new(name: &str, driver: Driver) -> Self {
        Self {
            name: name.to_owned(),
            driver,
            env: BTreeMap::new(),
            meta: BTreeMap::new(),
            constraints: Vec::new(),
            resources: Resources::default(),
            kill_timeout: Self::KILL_TIMEOUT,
            kill_signal: None,
            shutdown_delay: Millis(0),
            user: None,
            lifecycle: None,
            leader: false,
            restart: None,
            templates: Vec::new(),
            services: Vec::new(),
            logs: Logs::default(),
        }
    }

    /// From the kill signal to the hard kill, unless the jobspec says otherwise.
    pub const KILL_TIMEOUT: Millis = Millis::from_secs(5);
}

impl Default for Resources {
    /// Nomad's.
    fn default() -> Self {
        Self { cpu: 100, memory: 300, memory_max: None, disk: 0 }
    }
}

/// When a task of a group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// In which part of the allocation's life.
    pub hook: Hook,
    /// Does it go on beside the main tasks? Else they wait for its end (prestart), or do not.
    #[serde(default)]
    pub sidecar: bool,
}

/// A part of an allocation's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Before the main tasks.
    Prestart,
    /// Once all main tasks run.
    Poststart,
    /// Once all main tasks have ended.
    Poststop,
}

/// A file, or environment, made on the node from text and values that the node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The text.
    pub data: String,
    /// Where it goes: below `local/`, `secrets/` or `alloc/` of the task.
    pub destination: String,
    /// Are its lines `KEY=value` of the environment too?
    #[serde(default)]
    pub env: bool,
    /// What follows when its text becomes another one while the task runs.
    pub change_mode: ChangeMode,
    /// Mode of the file, as `0o644`.
    pub perms: u32,
    /// What opens an expression.
    pub left_delimiter: String,
    /// What closes it.
    pub right_delimiter: String,
    /// Is a value that is not there an error, rather than empty?
    #[serde(default)]
    pub error_on_missing_key: bool,
}

/// What follows when a template's text becomes another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeMode {
    /// The file is replaced.
    Noop,
    /// The file is replaced and the task restarted.
    Restart,
    /// The file is replaced and the task gets a signal, `SIGHUP`.
    Signal(String),
}

/// Bounds of what a task's output takes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Files kept.
    pub max_files: u32,
    /// MiB of one file.
    pub max_file_size: u32,
    /// Is no output kept at all?
    #[serde(default)]
    pub disabled: bool,
}

impl Default for Logs {
    /// 2 files of 1 MiB: an SD card is small and wears.
    fn default() -> Self {
        Self { max_files: 2, max_file_size: 1, disabled: false }
    }
}

/// What runs a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "most tasks are containers, and a job has few tasks")]
pub enum Driver {
    /// A container of the node's engine.
    Docker(DockerConfig),
    /// A program of the node, as an ordinary user, bounded by a control group.
    Exec(ProcessConfig),
    /// A program of the node, as root, bounded by a control group.
    #[serde(rename = "raw_exec")]
    RawExec(ProcessConfig),
}

impl Driver {
    /// Its name in a jobspec.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Docker(_) => "docker",
            Self::Exec(_) => "exec",
            Self::RawExec(_) => "raw_exec",
        }
    }
}

/// Configuration of an exec or raw_exec task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessConfig {
    /// The program: an absolute path, or a path below the task's folder (`local/tool`); may hold `${...}`.
    pub command: String,
    /// Arguments; may hold `${...}`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Folder that it starts in; the task's own when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_dir: Option<String>,
}

/// Configuration of a docker task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Program and arguments instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Folder that it starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_dir: Option<String>,
    /// Devices of the node seen in the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// All rights on the node.
    #[serde(default)]
    pub privileged: bool,
    /// Rights beside the usual ones: `net_admin`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Rights taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
}

/// A device of the node seen in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path on the node.
    pub host_path: String,
    /// Absolute path in the container; the same when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_path: Option<String>,
    /// Of `r`, `w`, `m`.
    #[serde(default = "all_rights")]
    pub cgroup_permissions: String,
}

fn all_rights() -> String {
    "rwm".to_owned()
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
    /// Disk that it needs free in the allocation's folder, in MiB.
    #[serde(default)]
    pub disk: u32,
}
