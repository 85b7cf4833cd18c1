//! Containers of a Docker engine.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummaryStateEnum, DeviceMapping, HostConfig,
    HostConfigLogConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, ListContainersOptions, LogsOptions, RemoveContainerOptions, StopContainerOptions,
};
use futures_util::StreamExt;
use skerry_wire::ImageId;

use super::{CALL, DockerEngine, words};
use crate::EngineError;
use crate::engine::{ContainerSpec, ContainerState, ContainerStatus, NetworkMode};

/// Most that a tail of the logs gives.
pub const TAIL: usize = 256 * 1024;
/// Least CPU weight that the kernel takes.
const SHARES_MIN: u32 = 2;
/// What the engine says for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

fn check_name(name: &str) -> Result<(), EngineError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Ok(());
    }
    let why = "1 to 255 letters, digits, `_`, `.`, `-`, beginning with a letter or digit";
    Err(EngineError::Invalid { what: "container name", value: name.chars().take(300).collect(), why })
}

/// The engine's form of a specification.
fn body(spec: &ContainerSpec) -> Result<ContainerCreateBody, EngineError> {
    check_name(&spec.name)?;
    let mut binds = Vec::new();
    for mount in &spec.mounts {
        for path in [&mount.source, &mount.destination] {
            if !path.starts_with('/') || path.contains(':') || path.contains('\0') {
                return Err(EngineError::Invalid { what: "mount path", value: path.clone(), why: "it must be absolute and without `:`" });
            }
        }
        binds.push(format!("{}:{}{}", mount.source, mount.destination, if mount.read_only { ":ro" } else { "" }));
    }
    for device in &spec.devices {
        for path in [&device.source, &device.destination] {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(EngineError::Invalid { what: "device path", value: path.clone(), why: "it must be absolute" });
            }
        }
    }
    let mut bindings = HashMap::new();
    let mut exposed = Vec::new();
    if spec.network == NetworkMode::Bridge {
        for port in &spec.ports {
            for protocol in ["tcp", "udp"] {
                let inside = format!("{}/{protocol}", port.container);
                let binding = PortBinding { host_ip: None, host_port: Some(port.host.to_string()) };
                bindings.entry(inside.clone()).or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(binding);
                exposed.push(inside);
            }
        }
    }
    let bytes = |n: Option<u64>| n.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let log_config = match spec.logs {
        None => HostConfigLogConfig { typ: Some("none".into()), config: None },
        Some(logs) => {
            let options = [("max-size", logs.max_size.max(1)), ("max-file", u64::from(logs.max_files.max(1)))];
            HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(options.map(|(key, value)| (key.into(), value.to_string())).into()),
            }
        }
    };
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let devices = spec.devices.iter().map(|d| DeviceMapping {
        path_on_host: Some(d.source.clone()),
        path_in_container: Some(d.destination.clone()),
        cgroup_permissions: Some(d.permissions.clone()),
    });
    let host_config = HostConfig {
        memory: bytes(spec.memory_limit),
        // Equal to the limit: no swap beside it.
        memory_swap: bytes(spec.memory_limit),
        memory_reservation: bytes(spec.memory_reservation),
        cpu_shares: spec.cpu_shares.map(|shares| i64::from(shares.max(SHARES_MIN))),
        network_mode: Some(
            match spec.network {
                NetworkMode::Host => "host",
                NetworkMode::Bridge => "bridge",
                NetworkMode::None => "none",
            }
            .into(),
        ),
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        binds: (!binds.is_empty()).then_some(binds),
        log_config: Some(log_config),
        devices: (!spec.devices.is_empty()).then(|| devices.collect()),
        privileged: spec.privileged.then_some(true),
        cap_add: some(&spec.cap_add),
        cap_drop: some(&spec.cap_drop),
        // Restarts are the reconciler's.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..Default::default()
    };
    Ok(ContainerCreateBody {
        image: Some(spec.image.to_string()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.cmd.clone(),
        working_dir: spec.work_dir.clone(),
        user: spec.user.clone(),
        stop_signal: spec.stop_signal.clone(),
        env: Some(spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        host_config: Some(host_config),
        ..Default::default()
    })
}

/// How a container differs from the one wanted; none when it is the one. Labels that the image brought do not count.
fn difference(state: &ContainerState, spec: &ContainerSpec) -> Option<String> {
    if state.image != spec.image {
        return Some(format!("it runs image {}, not {}", state.image, spec.image));
    }
    let (key, wanted) = spec.labels.iter().find(|(key, value)| state.labels.get(*key) != Some(value))?;
    Some(match state.labels.get(key) {
        Some(found) => format!("its label `{key}` is `{found}`, not `{wanted}`"),
        None => format!("it has no label `{key}`"),
    })
}

fn state(found: ContainerInspectResponse, image: Option<ImageId>) -> Option<ContainerState> {
    let state = found.state.unwrap_or_default();
    let status = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerStatus::Created,
        Some(ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD) => ContainerStatus::Removing,
        Some(ContainerStateStatusEnum::EXITED) => {
            ContainerStatus::Exited { code: state.exit_code.unwrap_or_default(), out_of_memory: state.oom_killed.unwrap_or_default() }
        }
        _ => ContainerStatus::Running,
    };
    Some(ContainerState {
        id: found.id?,
        name: found.name?.trim_start_matches('/').to_string(),
        image: image?,
        labels: found.config.and_then(|c| c.labels).unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
        status,
        started_at: state.started_at.filter(|at| at != NEVER).unwrap_or_default(),
    })
}

impl DockerEngine {
    pub(super) async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        // What is wrong with it is told before the engine is asked for anything.
        let mut body = body(spec)?;
        body.image = Some(self.own_id(&spec.image).await?.to_string());
        let what = format!("create container `{}`", spec.name);
        let options = CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
        match self.call(&what, CALL, self.docker()?.create_container(Some(options), body)).await {
            Ok(created) => Ok(created.id),
            Err(EngineError::Refused { status: 404, .. }) => Err(EngineError::NoImage { reference: spec.image.to_string() }),
            Err(EngineError::Refused { status: 409, message, .. }) => {
                let found = self.inspect_container(&spec.name).await?;
                match difference(&found, spec) {
                    None if found.status == ContainerStatus::Removing => Err(EngineError::Refused { what, status: 409, message }),
                    None => Ok(found.id),
                    Some(difference) => Err(EngineError::NameTaken { name: spec.name.clone(), difference }),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn inspect_container(&self, name: &str) -> Result<ContainerState, EngineError> {
        check_name(name)?;
        let what = format!("look at container `{name}`");
        let docker = self.docker()?;
        match self.call(&what, CALL, async { words::known(docker.inspect_container(name, None).await) }).await {
            Ok(found) => {
                let reason = "it has no id, name or image".into();
                let image = self.image_of(found.image.as_deref().unwrap_or_default()).await?;
                state(found, image).ok_or_else(|| EngineError::Broken { socket: self.socket(), what, reason })
            }
            Err(EngineError::Refused { status: 404, .. }) => Err(EngineError::NoContainer { name: name.into() }),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn start_container(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let what = format!("start container `{name}`");
        match self.call(&what, CALL, self.docker()?.start_container(name, None)).await {
            Err(EngineError::Refused { status: 404, message, .. }) if message.to_lowercase().contains("no such container") => {
                Err(EngineError::NoContainer { name: name.into() })
            }
            other => other,
        }
    }

    pub(super) async fn stop_container(&self, name: &str, timeout: Duration) -> Result<(), EngineError> {
        check_name(name)?;
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let options = StopContainerOptions { t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)), signal: None };
        let what = format!("stop container `{name}`");
        match self.call(&what, timeout.saturating_add(CALL), self.docker()?.stop_container(name, Some(options))).await {
            Err(EngineError::Refused { status: 304 | 404, .. }) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn signal_container(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.call(&format!("send {signal} to container `{name}`"), CALL, self.docker()?.kill_container(name, Some(options))).await {
            // Gone, or not running: there is nobody to be told.
            Err(EngineError::Refused { status: 404 | 409, .. }) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn remove_container(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        match self.call(&format!("remove container `{name}`"), CALL, self.docker()?.remove_container(name, Some(options))).await {
            Err(EngineError::Refused { status: 404, .. }) => Ok(()),
            // Somebody else is at it already.
            Err(EngineError::Refused { status: 409, message, .. }) if message.contains("already in progress") => Ok(()),
            other => other,
        }
    }

    /// Containers that have the label. One that ran at the last look and runs now is taken as it was: a look at an idle node is one
    /// request, not one per container.
    pub(super) async fn list_containers(&self, label: &str, before: &[ContainerState]) -> Result<Vec<ContainerState>, EngineError> {
        let filters = HashMap::from([("label".to_string(), vec![label.to_string()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let docker = self.docker()?;
        let listed = self.call("list the containers", CALL, async { words::known(docker.list_containers(Some(options)).await) }).await?;
        let mut found = Vec::new();
        for container in listed {
            let Some(id) = container.id else { continue };
            let runs = container.state == Some(ContainerSummaryStateEnum::RUNNING);
            let same = before.iter().find(|b| runs && b.id == id && b.status == ContainerStatus::Running);
            if let Some(same) = same {
                found.push(same.clone());
                continue;
            }
            match self.inspect_container(&id).await {
                Ok(state) => found.push(state),
                // It went between the two calls.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) async fn tail(&self, name: &str, lines: u32) -> Result<Vec<u8>, EngineError> {
        check_name(name)?;
        let options = LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..Default::default() };
        let what = format!("read the logs of container `{name}`");
        let mut answer = Box::pin(self.docker()?.logs(name, Some(options)));
        let mut tail: Vec<u8> = Vec::new();
        loop {
            let next = async { answer.next().await.transpose() };
            match self.call(&what, CALL, next).await {
                Ok(None) => return Ok(tail),
                Ok(Some(output)) => {
                    tail.extend_from_slice(&output.into_bytes());
                    tail.drain(..tail.len().saturating_sub(TAIL));
                }
                Err(EngineError::Refused { status: 404, .. }) => return Err(EngineError::NoContainer { name: name.into() }),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use skerry_wire::Digest;

    use super::*;
    use crate::engine::{Device, Mount, PublishedPort};

    fn spec() -> ContainerSpec {
        ContainerSpec::new("web", ImageId(Digest::new([7; 32])))
    }

    #[test]
    fn bounds_and_defaults() {
        let mut spec = spec();
        spec.memory_limit = Some(64 << 20);
        spec.cpu_shares = Some(1);
        spec.ports = vec![PublishedPort { host: 8080, container: 80 }];
        spec.mounts = vec![Mount { source: "/data".into(), destination: "/d".into(), read_only: true }];
        let body = body(&spec).unwrap();
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap, host.cpu_shares), (Some(64 << 20), Some(64 << 20), Some(2)));
        assert_eq!(host.binds.unwrap(), ["/data:/d:ro"]);
        assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], "1048576");
        assert_eq!(host.port_bindings.unwrap().len(), 2);
        assert_eq!((body.entrypoint, body.cmd), (None, None));
    }

    #[test]
    fn everything_else_that_a_task_may_ask_for() {
        let body = body(&ContainerSpec {
            entrypoint: Some(vec!["/bin/app".into()]),
            work_dir: Some("/srv".into()),
            user: Some("1000:5".into()),
            stop_signal: Some("SIGINT".into()),
            devices: vec![Device { source: "/dev/null".into(), destination: "/dev/nil".into(), permissions: "r".into() }],
            privileged: true,
            cap_add: vec!["net_admin".into()],
            cap_drop: vec!["all".into()],
            logs: None,
            ..spec()
        })
        .unwrap();
        assert_eq!((body.entrypoint.unwrap(), body.working_dir.unwrap()), (vec!["/bin/app".to_owned()], "/srv".to_owned()));
        assert_eq!((body.user.unwrap(), body.stop_signal.unwrap()), ("1000:5".to_owned(), "SIGINT".to_owned()));
        let host = body.host_config.unwrap();
        let device = host.devices.unwrap().remove(0);
        assert_eq!((device.path_in_container.unwrap(), device.cgroup_permissions.unwrap()), ("/dev/nil".to_owned(), "r".to_owned()));
        assert_eq!(
            (host.privileged, host.cap_add.unwrap(), host.cap_drop.unwrap()),
            (Some(true), vec!["net_admin".into()], vec!["all".into()])
        );
        assert_eq!(host.log_config.unwrap().typ.unwrap(), "none");
    }

    #[test]
    fn refused() {
        for name in ["", "-a", "a/b", "a b"] {
            assert!(body(&ContainerSpec { name: name.into(), ..spec() }).is_err(), "{name}");
        }
        for path in ["data", "/a:b"] {
            let mount = Mount { source: path.into(), destination: "/d".into(), read_only: false };
            assert!(body(&ContainerSpec { mounts: vec![mount], ..spec() }).is_err(), "{path}");
        }
    }

    #[test]
    fn ports_need_a_bridge() {
        let ports = vec![PublishedPort { host: 1, container: 1 }];
        let body = body(&ContainerSpec { network: NetworkMode::Host, ports, ..spec() }).unwrap();
        assert_eq!((body.exposed_ports, body.host_config.unwrap().port_bindings), (None, None));
    }
}
