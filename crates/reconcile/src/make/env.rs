//! The environment of a task: Nomad's `NOMAD_*` names, then the jobspec's own with `${...}` filled in.

use std::collections::BTreeMap;

use skerry_wire::AllocId;
use skerry_wire::job::{Driver, Group, Job, Task};

use super::interpolate;
use crate::facts::{Node, Slot};

/// A task in its place, for which environment and paths are made.
#[derive(Debug, Clone, Copy)]
pub struct TaskEnv<'a> {
    /// The node.
    pub node: &'a Node,
    /// The job.
    pub job: &'a Job,
    /// Its group.
    pub group: &'a Group,
    /// The task.
    pub task: &'a Task,
    /// The place.
    pub slot: &'a Slot,
    /// The allocation.
    pub alloc: &'a AllocId,
    /// The node's ports, by label.
    pub ports: &'a BTreeMap<String, u16>,
    /// Does the task see the node's own network?
    pub host_network: bool,
}

impl TaskEnv<'_> {
    /// What `${name}` stands for: `NOMAD_*`, `node.*`, `attr.*`, `meta.*`.
    pub fn lookup(&self, nomad: &BTreeMap<String, String>, name: &str) -> Option<String> {
        let node = self.node;
        match name {
            "node.unique.id" => Some(node.id.to_string()),
            "node.unique.name" => Some(node.name.clone()),
            "node.datacenter" => Some(node.datacenter.clone()),
            "node.region" => Some("global".to_owned()),
            "node.class" => Some(String::new()),
            "node.pool" => Some(node.pool.clone()),
            _ => match name.split_once('.') {
                Some(("attr", key)) => node.attributes.get(key).cloned(),
                Some(("meta", key)) => node.meta.get(key).cloned(),
                _ => nomad.get(name).cloned(),
            },
        }
    }

    /// Fills in `${...}`.
    pub fn fill(&self, nomad: &BTreeMap<String, String>, text: &str) -> String {
        interpolate(text, &|name| self.lookup(nomad, name))
    }

    /// The folders as the task's process sees them: shared by the group, its own, for secrets.
    pub fn folders(&self) -> [String; 3] {
        if matches!(self.task.driver, Driver::Docker(_)) {
            return ["/alloc".to_owned(), "/local".to_owned(), "/secrets".to_owned()];
        }
        let alloc = format!("{}/{}", self.node.alloc_folder, self.alloc);
        let own = format!("{alloc}/{}", self.task.name);
        [format!("{alloc}/alloc"), format!("{own}/local"), format!("{own}/secrets")]
    }

    /// The port as the task's process sees it.
    pub fn inner_port(&self, label: &str) -> Option<u16> {
        let port = self.group.network.ports.iter().find(|p| p.label == label)?;
        let outer = *self.ports.get(label)?;
        Some(if self.host_network { outer } else { port.to.unwrap_or(outer) })
    }

    /// Nomad's variables.
    pub fn nomad(&self) -> BTreeMap<String, String> {
        let Self { node, job, group, task, slot, alloc, .. } = self;
        let mut env = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            env.insert(format!("NOMAD_{name}"), value);
        };
        let [shared, local, secrets] = self.folders();
        set("ALLOC_DIR", shared);
        set("TASK_DIR", local);
        set("SECRETS_DIR", secrets);
        set("MEMORY_LIMIT", task.resources.memory.to_string());
        if let Some(max) = task.resources.memory_max {
            set("MEMORY_MAX_LIMIT", max.to_string());
        }
        set("CPU_LIMIT", task.resources.cpu.to_string());
        set("ALLOC_ID", alloc.to_string());
        set("SHORT_ALLOC_ID", alloc.short());
        set("ALLOC_NAME", slot.to_string());
        set("ALLOC_INDEX", slot.index.to_string());
        set("TASK_NAME", task.name.clone());
        set("GROUP_NAME", group.name.clone());
        set("JOB_ID", slot.job.clone());
        if slot.run().is_some() {
            set("JOB_PARENT_ID", job.id.clone());
        }
        set("JOB_NAME", job.name.clone());
        set("DC", node.datacenter.clone());
        set("REGION", "global".into());
        set("NAMESPACE", "default".into());
        for (label, outer) in self.ports {
            let inner = self.inner_port(label).unwrap_or(*outer);
            let key = env_key(label);
            for (prefix, value) in [
                ("IP", node.address.clone()),
                ("HOST_IP", node.address.clone()),
                ("PORT", inner.to_string()),
                ("ALLOC_PORT", inner.to_string()),
                ("HOST_PORT", outer.to_string()),
                ("ADDR", join_address(&node.address, *outer)),
                ("HOST_ADDR", join_address(&node.address, *outer)),
            ] {
                set(&format!("{prefix}_{key}"), value);
            }
        }
        // The task's value wins over the group's, the group's over the job's.
        for (key, value) in job.meta.iter().chain(&group.meta).chain(&task.meta) {
            set(&format!("META_{}", env_key(key)), value.clone());
            set(&format!("META_{}", env_key(key).to_uppercase()), value.clone());
        }
        env
    }
}

/// The whole environment of a task.
pub fn task_env(task: &TaskEnv<'_>) -> BTreeMap<String, String> {
    let nomad = task.nomad();
    let mut env = nomad.clone();
    for (key, value) in &task.task.env {
        env.insert(key.clone(), task.fill(&nomad, value));
    }
    env
}

/// A label as part of a variable's name: as Nomad does, what is no letter, digit or `_` becomes `_`.
fn env_key(label: &str) -> String {
    label.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// `address:port`, with brackets for IPv6.
pub(crate) fn join_address(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
