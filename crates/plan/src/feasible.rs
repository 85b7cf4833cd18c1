//! May a group run on a node? Every no has its reason.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::ImageId;
use skerry_wire::job::{Group, Job, Task};

use crate::constraint;
use crate::glob;
use crate::model::{Claim, Image, Node};

/// Why a node cannot have a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ruling {
    /// The job says that it does not belong there: an allocation of an older version is stopped.
    Excluded(String),
    /// The node cannot take it as it is now: an allocation of an older version goes on.
    Unable(String),
}

impl Ruling {
    /// The sentence for people.
    pub fn reason(&self) -> &str {
        match self {
            Self::Excluded(reason) | Self::Unable(reason) => reason,
        }
    }
}

/// What the group reserves.
pub fn claim(group: &Group) -> Claim {
    Claim {
        memory: group.tasks.iter().map(|t| u64::from(t.resources.memory)).sum(),
        ports: group.network.ports.iter().filter_map(|p| p.fixed).collect(),
    }
}

/// Architectures of the nodes that a group belongs on: what an image of several is resolved for.
pub fn architectures<'a>(job: &Job, group: &Group, nodes: impl IntoIterator<Item = &'a Node>) -> BTreeSet<String> {
    let on = nodes.into_iter().filter(|n| belongs(job, group, n).is_ok());
    on.filter_map(|n| n.fingerprint.attributes.get("cpu.arch").cloned()).collect()
}

/// What the job asks of a node, whatever else runs there.
pub(crate) fn wanted(job: &Job, group: &Group, node: &Node, images: &BTreeMap<ImageId, Image>) -> Result<(), Ruling> {
    belongs(job, group, node)?;
    let architecture = node.fingerprint.attributes.get("cpu.arch").map_or("", String::as_str);
    for config in group.images() {
        let known = config.image_id.and_then(|id| images.get(&id));
        let Some(image) = known else {
            return Err(Ruling::Unable(format!("image `{}` is not known to the server", config.image)));
        };
        if image.architecture != architecture {
            let has = if architecture.is_empty() { "does not say its architecture".to_owned() } else { format!("is {architecture}") };
            return Err(Ruling::Unable(format!("image `{}` is for {}, the node {has}", config.image, image.architecture)));
        }
    }
    Ok(())
}

/// Node pool, site and constraints.
fn belongs(job: &Job, group: &Group, node: &Node) -> Result<(), Ruling> {
    if job.node_pool != "all" && job.node_pool != node.pool {
        return Err(Ruling::Excluded(format!("not in node pool `{}`", job.node_pool)));
    }
    let site = &node.fingerprint.datacenter;
    if !job.datacenters.iter().any(|d| glob::matches(d, site)) {
        return Err(Ruling::Excluded(format!("not in datacenters {}", job.datacenters.join(", "))));
    }
    let tasks = group.tasks.iter().flat_map(|t: &Task| &t.constraints);
    for condition in job.constraints.iter().chain(&group.constraints).chain(tasks) {
        match constraint::meets(condition, node) {
            Ok(true) => {}
            Ok(false) => return Err(Ruling::Excluded(format!("constraint `{}` is not met", constraint::describe(condition)))),
            // A condition that nobody can read is a mistake in the job, no order to stop what runs.
            Err(reason) => return Err(Ruling::Unable(format!("constraint `{}`: {reason}", constraint::describe(condition)))),
        }
    }
    Ok(())
}

/// What is taken on a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// Memory in MiB.
    pub(crate) memory: u64,
    /// Ports, each with how many allocations claim it.
    pub(crate) ports: BTreeMap<u16, u32>,
    /// Allocations.
    pub(crate) allocs: usize,
}

impl Taken {
    pub(crate) fn add(&mut self, claim: &Claim) {
        self.memory = self.memory.saturating_add(claim.memory);
        self.allocs += 1;
        for port in &claim.ports {
            *self.ports.entry(*port).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, claim: &Claim) {
        self.memory = self.memory.saturating_sub(claim.memory);
        self.allocs = self.allocs.saturating_sub(1);
        for port in &claim.ports {
            if let Some(users) = self.ports.get_mut(port) {
                *users -= 1;
                if *users == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }

    /// Is there room for a further claim?
    pub(crate) fn room_for(&self, claim: &Claim, node: &Node) -> Result<(), Ruling> {
        if let Some(port) = claim.ports.iter().find(|p| self.ports.contains_key(p)) {
            return Err(Ruling::Unable(format!("port {port} is taken by another allocation")));
        }
        let memory = node.fingerprint.memory_mib;
        // A node that does not say its memory is not judged by it.
        if memory > 0 && self.memory.saturating_add(claim.memory) > memory {
            return Err(Ruling::Unable(format!("not enough memory: {} MiB are asked for", claim.memory)));
        }
        if self.allocs >= skerry_wire::limits::ALLOCS_PER_NODE {
            return Err(Ruling::Unable(format!("{} allocations run there already, the most a node takes", self.allocs)));
        }
        Ok(())
    }
}
