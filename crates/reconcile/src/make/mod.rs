//! From a version in a place to the plan of each task's instance.

use std::collections::BTreeMap;

use skerry_wire::ImageId;
use skerry_wire::job::{DockerConfig, Driver, Group, Job, NetworkMode, ProcessConfig, Task};
use skerry_wire::manifest::Values;

use crate::facts::{Node, Policy, Refusal, Slot, climbs, names_a_folder};
use crate::memory::Version;

mod env;
mod envfile;
mod files;
mod instance;
mod interpolate;
mod plan;
mod ports;

pub(crate) use env::join_address;
pub use env::{TaskEnv, task_env};
pub use instance::{LabelError, Labels, instance_name, label, node_label};
pub use interpolate::interpolate;
pub use plan::{Bind, BindKind, CommonPlan, ContainerPlan, File, InstancePlan, NetworkPlan, ProcessPlan, PublishedPort};
pub use ports::{DYNAMIC_PORTS, NoPortFree, assign_ports};

/// Everything about one version in one place that its containers are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making<'a> {
    pub(crate) node: &'a Node,
    pub(crate) policy: &'a Policy,
    pub(crate) values: Option<&'a Values>,
    pub(crate) job: &'a Job,
    pub(crate) group: &'a Group,
    pub(crate) slot: &'a Slot,
    pub(crate) version: &'a Version,
}

impl Making<'_> {
    /// The instance of one task, or why the node refuses it. A docker task without a resolved image has none.
    pub(crate) fn instance(&self, task: &Task) -> Result<Option<InstancePlan>, Refusal> {
        let Self { node, slot, version, .. } = *self;
        self.allowed(task)?;
        let env = self.task_env(task);
        let host_network = env.host_network;
        let nomad = env.nomad();
        let files = self.rendered(task)?;
        let (memory, max) = (task.resources.memory, task.resources.memory_max);
        let mib = |n: u32| u64::from(n) << 20;
        let common = CommonPlan {
            name: instance_name(&version.born, &task.name),
            env: task_env(&env).into_iter().chain(self.file_env(task, &files)?).collect(),
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
            files: files.into_iter().map(|(file, _)| file).collect(),
            work_dir: None,
            user: task.user.clone(),
            memory_limit: mib(max.map_or(memory, |m| m.max(memory))),
            memory_reservation: max.filter(|m| *m > memory).map(|_| mib(memory)),
            cpu_shares: task.resources.cpu.clamp(2, 262_144),
            logs: task.logs,
            kill_timeout: task.kill_timeout,
            kill_signal: task.kill_signal.clone(),
        };
        let fill = |word: &String| env.fill(&nomad, word);
        Ok(match &task.driver {
            Driver::Docker(config) => config.image_id.map(|image| {
                let network = self.network(config, &env, host_network);
                InstancePlan::Container(container(config, image, network, common, &fill))
            }),
            Driver::Exec(config) => Some(InstancePlan::Process(self.process(task, config, common, false, &fill)?)),
            Driver::RawExec(config) => Some(InstancePlan::Process(self.process(task, config, common, true, &fill)?)),
        })
    }

    /// The task in its place.
    pub(crate) fn task_env<'s>(&'s self, task: &'s Task) -> TaskEnv<'s> {
        let Self { node, job, group, slot, version, .. } = *self;
        let host_network = uses_host_network(group) || !matches!(task.driver, Driver::Docker(_));
        TaskEnv { node, job, group, task, slot, alloc: &version.born, ports: &version.ports, host_network }
    }

    /// The task's own folder on the node.
    pub(crate) fn task_folder(&self, task: &Task) -> String {
        format!("{}/{}/{}", self.node.alloc_folder, self.version.born, task.name)
    }

    /// Does the node's policy allow what the task asks for?
    fn allowed(&self, task: &Task) -> Result<(), Refusal> {
        let policy = self.policy;
        let forbidden = |what: String, option| Err(Refusal::Forbidden { task: task.name.clone(), what, option });
        match &task.driver {
            Driver::Exec(_) if !policy.exec => forbidden("runs a program of the node (`exec`)".to_owned(), "exec"),
            Driver::RawExec(_) if !policy.raw_exec => forbidden("runs a program of the node as root (`raw_exec`)".to_owned(), "raw_exec"),
            Driver::Docker(config) if config.privileged && !policy.privileged => {
                forbidden("asks for all rights (`privileged`)".to_owned(), "privileged")
            }
            Driver::Docker(config) => {
                if let Some(device) = config.devices.iter().find(|d| !policy.allows_device(&d.host_path)) {
                    return forbidden(format!("uses the device {}", device.host_path), "devices");
                }
                match config.cap_add.iter().find(|c| !policy.allows_cap(c)) {
                    Some(cap) => forbidden(format!("asks for the right `{cap}`"), "cap_add"),
                    None => Ok(()),
                }
            }
            Driver::Exec(_) | Driver::RawExec(_) => Ok(()),
        }
    }

    /// A process of the node. A program that is not named by an absolute path is one of the task's own folder.
    fn process(
        &self,
        task: &Task,
        config: &ProcessConfig,
        common: CommonPlan,
        root: bool,
        fill: &dyn Fn(&String) -> String,
    ) -> Result<ProcessPlan, Refusal> {
        let own = |path: String| {
            if climbs(&path) {
                return Err(Refusal::Climbs { task: task.name.clone(), path });
            }
            Ok(if path.starts_with('/') { path } else { format!("{}/{path}", self.task_folder(task)) })
        };
        let work_dir = config.work_dir.as_ref().map(|d| own(fill(d))).transpose()?;
        let program = own(fill(&config.command))?;
        let args = config.args.iter().map(fill).collect();
        Ok(ProcessPlan { common: CommonPlan { work_dir, ..common }, program, args, root })
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
        let volumes = match &task.driver {
            Driver::Docker(config) => &config.volumes[..],
            Driver::Exec(_) | Driver::RawExec(_) => &[],
        };
        for volume in volumes {
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

    fn network(&self, config: &DockerConfig, env: &TaskEnv<'_>, host_network: bool) -> NetworkPlan {
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
        self.group.tasks.iter().try_for_each(|t| self.instance(t).map(|_| ()))
    }
}

fn container(
    config: &DockerConfig,
    image: ImageId,
    network: NetworkPlan,
    common: CommonPlan,
    fill: &dyn Fn(&String) -> String,
) -> ContainerPlan {
    let words: Vec<String> = config.command.iter().chain(&config.args).map(fill).collect();
    ContainerPlan {
        common: CommonPlan { work_dir: config.work_dir.clone(), ..common },
        image,
        entrypoint: config.entrypoint.as_ref().map(|words| words.iter().map(fill).collect()),
        command: (!words.is_empty()).then_some(words),
        network,
        devices: config.devices.clone(),
        privileged: config.privileged,
        cap_add: config.cap_add.clone(),
        cap_drop: config.cap_drop.clone(),
    }
}

/// A group in host mode that declares ports which none of its tasks maps listens on them itself: its tasks see the node's own network.
/// Other docker tasks get the engine's bridge, as in Nomad.
fn uses_host_network(group: &Group) -> bool {
    group.network.mode == NetworkMode::Host && !group.network.ports.is_empty() && group.images().all(|c| c.ports.is_empty())
}
