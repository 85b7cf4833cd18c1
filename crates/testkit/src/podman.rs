//! What is different about a private engine that is podman: its configuration, its command line, and what a killed one leaves behind.
//!
//! In: the engine's folder and namespace. Out: the command `podman`, on images and containers of its own. What it promises: the machine's
//! configuration is not read, and its own podman's images and containers are not touched. Shared with those is only what podman has one
//! of on each machine: the record of the addresses that containers have, and a cache of digests.
//!
//! podman is no daemon: each container has a monitor of its own (conmon), and goes on when the service behind the socket ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::run;

/// Where control groups are.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// Where namespaces have their names.
const NAMESPACES: &str = "/run/netns";
/// What podman's namespaces of containers are called.
const NAMESPACE: &str = "netns-";

/// Writes the configuration.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn prepare(home: &Path) -> Result<()> {
    let at = |name: &str| home.join(name).display().to_string();
    // Limits: the usual ones are more than a container may raise its own to on a machine that is itself one. runc: crun does not start
    // beside control groups of both versions. Locks in a file: the usual ones are the machine's.
    let text = format!(
        r#"[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
tmp_dir = "{}"
[network]
network_backend = "netavark"
network_config_dir = "{}"
"#,
        at("state"),
        at("networks")
    );
    fs::create_dir_all(home.join("tmp")).with_context(|| format!("cannot make {}", at("tmp")))?;
    fs::write(configuration(home), text).with_context(|| format!("cannot write {}", configuration(home).display()))
}

fn configuration(home: &Path) -> PathBuf {
    home.join("containers.conf")
}

/// `podman` with this engine's images and containers.
pub(crate) fn command(home: &Path, namespace: Option<&Path>, driver: &str) -> Command {
    // Not `ip netns exec`: that shows another /sys, in which the runtime finds no control groups.
    let mut command = Command::new("nsenter");
    command.args(namespace.map(|path| format!("--net={}", path.display()))).args(["--", "podman"]);
    command.env("CONTAINERS_CONF", configuration(home)).env("TMPDIR", home.join("tmp"));
    command.arg("--root").arg(home.join("data")).arg("--runroot").arg(home.join("run"));
    command.args(["--storage-driver", driver]);
    command
}

/// The ids of the containers that have files under this folder.
pub(crate) fn container_ids(home: &Path) -> Vec<String> {
    let folders = containers(home).into_iter();
    folders.filter_map(|folder| folder.file_name().map(|name| name.to_string_lossy().into_owned())).collect()
}

fn containers(home: &Path) -> Vec<PathBuf> {
    let drivers = ["overlay", "vfs"].map(|driver| home.join(format!("data/{driver}-containers")));
    let entries = drivers.iter().filter_map(|folder| fs::read_dir(folder).ok()).flat_map(Iterator::flatten);
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Removes what podman, or a killed one's containers, have outside its folder: the runtime's state, control groups, namespaces.
pub(crate) fn remove_remains(home: &Path) {
    if !configuration(home).exists() {
        return;
    }
    for container in containers(home) {
        let Some(id) = container.file_name() else { continue };
        let _ = run(Command::new("runc").args(["delete", "--force"]).arg(id));
        let text = fs::read_to_string(container.join("userdata/config.json")).unwrap_or_default();
        for name in namespaces(&text) {
            let _ = run(Command::new("ip").args(["netns", "delete", name]));
        }
    }
    // The groups of monitors and of all: one of each per controller, or one. They stay while another podman has something in them.
    let controllers = fs::read_dir(CONTROL_GROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
    for folder in controllers.chain([PathBuf::from(CONTROL_GROUPS)]) {
        for group in ["libpod_parent/conmon", "libpod_parent"] {
            let _ = fs::remove_dir(folder.join(group));
        }
    }
}

/// Names of the namespaces in a container's configuration that podman made for it.
fn namespaces(text: &str) -> Vec<&str> {
    let words = text.split('"').filter_map(|word| word.strip_prefix(NAMESPACES)?.strip_prefix('/'));
    words.filter(|name| name.starts_with(NAMESPACE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_podmans_own_namespaces_go() {
        let text = r#"{"namespaces":[{"type":"network","path":"/run/netns/netns-1b-2c"},{"path":"/run/netns/123-node"},{"path":"/proc/1/ns/net"}]}"#;
        assert_eq!(namespaces(text), ["netns-1b-2c"]);
        assert!(namespaces("").is_empty());
    }
}
