//! Performs single actions on the engine.
//!
//! In: one [`Action`] of the reconciler. Out: done, or why not. Every action may be repeated; what is done already is no error.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use skerry_engine::{ContainerSpec, ContainerState, ContainerStatus, Engine, EngineError, Mount, NetworkMode, PublishedPort};
use skerry_reconcile::{Action, ActionKind, Bind, BindKind, ContainerPlan, Instance, InstancePlan, Labels, NetworkPlan, Policy, State};

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The engine said no.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Only containers are run.
    #[error("this agent runs containers only")]
    NoProcesses,
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

impl RunError {
    /// Does the engine not answer at all?
    pub(crate) fn engine_is_away(&self) -> bool {
        matches!(self, Self::Engine(EngineError::Unreachable { .. } | EngineError::Broken { .. } | EngineError::Timeout { .. }))
    }
}

/// Performs one action. The folders of allocations are in `alloc_folder`.
pub(crate) async fn perform(engine: &impl Engine, policy: &Policy, alloc_folder: &Path, action: &Action) -> Result<(), RunError> {
    let name = &action.instance;
    match &action.kind {
        ActionKind::Create(plan) => match &**plan {
            InstancePlan::Container(plan) => {
                let spec = container_spec(plan, policy, alloc_folder)?;
                engine.create(&spec).await?;
            }
            InstancePlan::Process(_) => return Err(RunError::NoProcesses),
        },
        ActionKind::Start => engine.start(name).await?,
        ActionKind::Stop { timeout, .. } => engine.stop(name, timeout.duration()).await?,
        ActionKind::Remove => engine.remove(name).await?,
        ActionKind::Write(_) | ActionKind::Signal(_) => return Err(RunError::NoProcesses),
    }
    Ok(())
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
fn container_spec(plan: &ContainerPlan, policy: &Policy, alloc_folder: &Path) -> Result<ContainerSpec, RunError> {
    let common = &plan.common;
    let own = alloc_folder.join(common.labels.alloc.to_string());
    let mounts: Result<Vec<Mount>, RunError> = common.binds.iter().map(|b| mount(b, policy, &own)).collect();
    let (network, ports) = match &plan.network {
        NetworkPlan::Host => (NetworkMode::Host, vec![]),
        NetworkPlan::None => (NetworkMode::None, vec![]),
        NetworkPlan::Bridge(ports) => {
            (NetworkMode::Bridge, ports.iter().map(|p| PublishedPort { host: p.outer, container: p.inner }).collect())
        }
    };
    Ok(ContainerSpec {
        cmd: plan.command.clone(),
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
            make(own)?;
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
    let real_policy =
        Policy { host_volumes: real_roots.map(|p| p.to_string_lossy().into_owned()).collect(), ..Policy::default() };
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
        symlink(&outside, own.join("t/local/data")).unwrap();
        assert!(matches!(mount(&bind("t/local/data"), &policy, &own), Err(RunError::Forbidden { .. })));
        assert!(mount(&bind("../2/t/local"), &policy, &own).is_err(), "another allocation's");
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
