//! The drivers: performs single actions, on the engine or on processes of the node.
//!
//! In: one [`Action`] of the reconciler. Out: done, or why not. Every action may be repeated; what is done already is no error.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use skerry_engine::{
    ContainerSpec, ContainerState, ContainerStatus, Device, Engine, EngineError, LogBounds, Mount, NetworkMode, PublishedPort,
};
use skerry_reconcile::{
    Action, ActionKind, Bind, BindKind, ContainerPlan, File, Instance, InstancePlan, Labels, NetworkPlan, Policy, ProcessPlan, State,
};
use skerry_wire::Millis;

use crate::files;
use crate::process::{ProcessError, Processes, user};
use crate::task_files::{self, TaskFileError};

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The engine said no.
    #[error("{0}")]
    Engine(EngineError),
    /// The engine said no, because something else listens where the task was to.
    #[error("another program of the node uses a port that was given to this task; stop it, or give the port another number ({0})")]
    PortTaken(EngineError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of the task.
    #[error(transparent)]
    File(#[from] TaskFileError),
    /// The user of a task.
    #[error("{0}")]
    User(String),
    /// A folder to be mounted cannot be made.
    #[error("cannot make the folder {path}: {source}", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Links lead out of what the policy allows.
    #[error("{path} leads to {real}, which may not be mounted: by the node's policy, or because a task put a link there", path = path.display(), real = real.display())]
    Forbidden {
        /// As asked for.
        path: PathBuf,
        /// Where it leads.
        real: PathBuf,
    },
}

impl From<EngineError> for RunError {
    fn from(error: EngineError) -> Self {
        const TAKEN: [&str; 2] = ["address already in use", "port is already allocated"];
        match &error {
            EngineError::Refused { message, .. } if TAKEN.iter().any(|t| message.contains(t)) => Self::PortTaken(error),
            _ => Self::Engine(error),
        }
    }
}

impl RunError {
    /// Does the engine not answer at all?
    pub(crate) fn engine_is_away(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Unreachable { .. } | EngineError::Broken { .. } | EngineError::Timeout { .. }))
    }
}

/// Everything that makes and ends instances. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Drivers<E> {
    /// Containers.
    pub(crate) engine: E,
    /// Processes.
    pub(crate) processes: Processes,
    /// What the node's owner allows.
    pub(crate) policy: Arc<Policy>,
    /// Folder that holds one folder per allocation.
    pub(crate) alloc_folder: Arc<PathBuf>,
}

impl<E: Engine> Drivers<E> {
    /// Performs one action that takes no longer than the disk and the engine need: everything but a stop.
    pub(crate) async fn perform(&self, action: &Action) -> Result<(), RunError> {
        let name = &action.instance;
        let process = self.processes.has(name);
        match &action.kind {
            ActionKind::Create(plan) => self.create(plan).await?,
            ActionKind::Start if process => self.processes.start(name).await?,
            ActionKind::Start => self.engine.start(name).await?,
            ActionKind::Stop { delay, timeout } => self.stop(name, *delay, *timeout).await?,
            ActionKind::Signal(signal) if process => self.processes.signal(name, signal)?,
            ActionKind::Signal(signal) => self.engine.signal(name, signal).await?,
            ActionKind::Write(files) => {
                let owner = self.processes.plan(name).map(|p| user::find(p.user.as_deref(), p.root)).transpose().map_err(RunError::User)?;
                self.write(files, owner.map(|u| (u.uid, u.gid)))?;
            }
            ActionKind::Remove if process => self.processes.remove(name)?,
            ActionKind::Remove => self.engine.remove(name).await?,
        }
        Ok(())
    }

    /// Ends an instance: waits, asks it to end, kills it after `timeout`.
    pub(crate) async fn stop(&self, name: &str, delay: Millis, timeout: Millis) -> Result<(), RunError> {
        if delay.0 > 0 {
            tokio::time::sleep(delay.duration()).await;
        }
        if self.processes.has(name) {
            return Ok(self.processes.stop(name, timeout.duration()).await?);
        }
        Ok(self.engine.stop(name, timeout.duration()).await?)
    }

    async fn create(&self, plan: &InstancePlan) -> Result<(), RunError> {
        let own = self.alloc_folder.join(plan.common().labels.alloc.to_string());
        match plan {
            InstancePlan::Container(plan) => {
                let spec = container_spec(plan, &self.policy, &own)?;
                self.write(&plan.common.files, None)?;
                self.engine.create(&spec).await?;
            }
            InstancePlan::Process(plan) => {
                let user = user::find(plan.common.user.as_deref(), plan.root).map_err(RunError::User)?;
                self.folders(plan, &user, &own)?;
                self.write(&plan.common.files, Some((user.uid, user.gid)))?;
                self.processes.create(plan, &own)?;
            }
        }
        Ok(())
    }

    /// The folders of a process, and the way to them for a user who is not root.
    fn folders(&self, plan: &ProcessPlan, user: &user::User, own: &Path) -> Result<(), RunError> {
        for bind in &plan.common.binds {
            let real = mount(bind, &self.policy, own)?.source;
            if bind.kind == BindKind::Secrets {
                let real = Path::new(&real);
                let closed = std::os::unix::fs::chown(real, Some(user.uid), Some(user.gid));
                let closed = closed.and_then(|()| fs::set_permissions(real, fs::Permissions::from_mode(0o700)));
                closed.map_err(|source| RunError::Folder { path: real.to_owned(), source })?;
            }
        }
        close(own)?;
        if user.uid != 0 {
            // To be passed through, not to be listed.
            for folder in [self.alloc_folder.parent(), Some(self.alloc_folder.as_path()), Some(own)].into_iter().flatten() {
                let open = fs::set_permissions(folder, fs::Permissions::from_mode(0o711));
                open.map_err(|source| RunError::Folder { path: folder.to_owned(), source })?;
            }
        }
        Ok(())
    }

    fn write(&self, files: &[File], owner: Option<(u32, u32)>) -> Result<(), RunError> {
        for file in files {
            task_files::write(&self.alloc_folder, file, owner)?;
        }
        Ok(())
    }
}

/// The reconciler's view of a container; none when it is not an agent's, or on its way out.
pub(crate) fn observe(found: &ContainerState) -> Option<Instance> {
    let labels = match Labels::from_map(&found.labels) {
        Ok(labels) => labels,
        Err(error) => {
            tracing::warn!("container {} is left alone: {error}", found.name);
            return None;
        }
    };
    let state = match found.status {
        ContainerStatus::Created => State::Created,
        ContainerStatus::Running => State::Running,
        // A container starts once per run: its id and last start tell one end from another.
        ContainerStatus::Exited { code, out_of_memory } => {
            State::Exited { code: Some(code), out_of_memory, mark: format!("{} {}", found.id, found.started_at) }
        }
        ContainerStatus::Removing => return None,
    };
    Some(Instance { name: found.name.clone(), labels, image: Some(found.image), state })
}

/// The engine's words for a plan. Makes the folders that are mounted.
fn container_spec(plan: &ContainerPlan, policy: &Policy, own: &Path) -> Result<ContainerSpec, RunError> {
    let common = &plan.common;
    let mounts: Result<Vec<Mount>, RunError> = common.binds.iter().map(|b| mount(b, policy, own)).collect();
    let (network, ports) = match &plan.network {
        NetworkPlan::Host => (NetworkMode::Host, vec![]),
        NetworkPlan::None => (NetworkMode::None, vec![]),
        NetworkPlan::Bridge(ports) => {
            (NetworkMode::Bridge, ports.iter().map(|p| PublishedPort { host: p.outer, container: p.inner }).collect())
        }
    };
    let logs = LogBounds { max_size: u64::from(common.logs.max_file_size.max(1)) << 20, max_files: common.logs.max_files.max(1) };
    let device = |d: &skerry_wire::job::Device| Device {
        source: d.host_path.clone(),
        destination: d.container_path.clone().unwrap_or_else(|| d.host_path.clone()),
        permissions: d.cgroup_permissions.clone(),
    };
    Ok(ContainerSpec {
        entrypoint: plan.entrypoint.clone(),
        cmd: plan.command.clone(),
        work_dir: common.work_dir.clone(),
        user: common.user.clone(),
        stop_signal: common.kill_signal.clone(),
        devices: plan.devices.iter().map(device).collect(),
        privileged: plan.privileged,
        cap_add: plan.cap_add.clone(),
        cap_drop: plan.cap_drop.clone(),
        logs: (!common.logs.disabled).then_some(logs),
        env: common.env.clone(),
        labels: common.labels.to_map(),
        memory_limit: (common.memory_limit > 0).then_some(common.memory_limit),
        memory_reservation: common.memory_reservation,
        cpu_shares: Some(common.cpu_shares),
        network,
        ports,
        mounts: mounts?,
        ..ContainerSpec::new(&common.name, plan.image)
    })
}

/// The mount of a bind; `own` is the allocation's folder.
fn mount(bind: &Bind, policy: &Policy, own: &Path) -> Result<Mount, RunError> {
    let path = Path::new(&bind.source);
    let source = match bind.kind {
        BindKind::Alloc | BindKind::Secrets => {
            close(own)?;
            // Tasks write in there: a link that one of them left must not lead out of it.
            let real = host_path(path, &Policy { host_volumes: vec![own.to_string_lossy().into_owned()], ..Policy::default() })?;
            // Tasks run as any user; the folder above is closed to everybody but root.
            let open = fs::set_permissions(&real, fs::Permissions::from_mode(0o777));
            open.map_err(|source| RunError::Folder { path: real.clone(), source })?;
            real
        }
        BindKind::Host => host_path(path, policy)?,
    };
    let source = source.to_string_lossy().into_owned();
    Ok(Mount { source, destination: bind.destination.clone(), read_only: bind.read_only })
}

/// Where a path of the node leads when links are followed; made as a folder when it is not there.
fn host_path(path: &Path, policy: &Policy) -> Result<PathBuf, RunError> {
    let failed = |source| RunError::Folder { path: path.to_owned(), source };
    // What the owner allows may be reached by a link too.
    let real_roots = policy.host_volumes.iter().map(|p| fs::canonicalize(p).unwrap_or_else(|_| p.into()));
    let real_policy = Policy { host_volumes: real_roots.map(|p| p.to_string_lossy().into_owned()).collect(), ..Policy::default() };
    let allowed = |real: &Path| real_policy.allows_mount(&real.to_string_lossy());

    // The deepest part that is there, and the names below it. A link that leads nowhere counts as there.
    let mut below = Vec::new();
    let mut there = path;
    while fs::symlink_metadata(there).is_err() {
        match (there.parent(), there.components().next_back()) {
            (Some(parent), Some(Component::Normal(name))) => {
                below.push(name);
                there = parent;
            }
            _ => break,
        }
    }
    let mut real = fs::canonicalize(there).map_err(failed)?;
    real.extend(below.iter().rev());
    if !allowed(&real) {
        return Err(RunError::Forbidden { path: path.to_owned(), real });
    }
    if !below.is_empty() {
        make(&real)?;
    }
    Ok(real)
}

/// The folder of an allocation, root's alone when it is new. Its name is in sight of every program of the node (in the names of control
/// groups), so that names that are hard to guess do not close it: programs of another allocation must find no way in.
fn close(own: &Path) -> Result<(), RunError> {
    files::make_folder(own).map_err(|e| RunError::Folder { path: own.to_owned(), source: e.source })
}

fn make(path: &Path) -> Result<(), RunError> {
    fs::create_dir_all(path).map_err(|source| RunError::Folder { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (allowed, outside) = (root.join("srv"), root.join("etc"));
        fs::create_dir(&allowed).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, allowed.join("out")).unwrap();
        symlink(root.join("nowhere"), allowed.join("broken")).unwrap();
        symlink(&allowed, root.join("link")).unwrap();
        let policy = Policy { host_volumes: vec![root.join("link").to_string_lossy().into_owned()], ..Policy::default() };

        assert_eq!(host_path(&root.join("link/new/deep"), &policy).unwrap(), allowed.join("new/deep"));
        assert!(allowed.join("new/deep").is_dir());
        let error = host_path(&root.join("link/out/x"), &policy).unwrap_err();
        assert!(matches!(&error, RunError::Forbidden { real, .. } if real.starts_with(&outside)), "{error}");
        assert!(!outside.join("x").exists());
        assert!(matches!(host_path(&root.join("link/broken/x"), &policy), Err(RunError::Folder { .. })));
        assert!(!root.join("nowhere").exists());
    }

    #[test]
    fn a_link_left_by_a_task_is_not_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let (own, outside) = (folder.path().join("alloc/1"), folder.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
        let bind = |below: &str| Bind {
            source: own.join(below).to_string_lossy().into_owned(),
            destination: "/x".into(),
            read_only: false,
            kind: BindKind::Alloc,
        };
        let policy = Policy::default();
        assert!(mount(&bind("t/local"), &policy, &own).is_ok());
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700, "closed to programs of other allocations");
        symlink(&outside, own.join("t/local/data")).unwrap();
        assert!(matches!(mount(&bind("t/local/data"), &policy, &own), Err(RunError::Forbidden { .. })));
        assert!(mount(&bind("../2/t/local"), &policy, &own).is_err(), "another allocation's");
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
