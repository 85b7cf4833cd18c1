//! What the node's owner allows, whatever was signed.

use serde::{Deserialize, Serialize};

/// The node's own policy. Everything not allowed here is forbidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Folders of the node that jobs may mount, with all below them.
    #[serde(default)]
    pub host_volumes: Vec<String>,
    /// May `exec` tasks run programs of the node as an ordinary user?
    #[serde(default)]
    pub exec: bool,
    /// May `raw_exec` tasks run programs of the node as root?
    #[serde(default)]
    pub raw_exec: bool,
    /// May containers have all rights?
    #[serde(default)]
    pub privileged: bool,
    /// Devices that jobs may use, by path; a folder stands for all below it.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Rights beside the usual ones that containers may have: `net_admin`.
    #[serde(default)]
    pub cap_add: Vec<String>,
}

/// Why a job may not run on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path is not below one of the allowed folders.
    #[error(
        "task `{task}` mounts {path} of the node, which the node's policy does not allow; allow it with `host_volumes` under `[policy]` in the agent's configuration"
    )]
    HostVolume {
        /// The task.
        task: String,
        /// The path on the node.
        path: String,
    },
    /// The path leaves where it seems to be.
    #[error("task `{task}` mounts `{path}`: a path may not contain `..`")]
    Climbs {
        /// The task.
        task: String,
        /// The path as written.
        path: String,
    },
    /// The task's name is also the name of its folder.
    #[error("task `{task}` cannot have a folder: a task's name may not be empty, `.`, `..` or `alloc`, nor contain `/`")]
    TaskName {
        /// The task.
        task: String,
    },
    /// The policy forbids something else.
    #[error(
        "task `{task}` {what}, which the node's policy does not allow; allow it with `{option}` under `[policy]` in the agent's configuration"
    )]
    Forbidden {
        /// The task.
        task: String,
        /// What it asks for.
        what: String,
        /// Name of the option.
        option: &'static str,
    },
    /// A template does not render.
    #[error("task `{task}`: template of {destination}: {why}")]
    Template {
        /// The task.
        task: String,
        /// Where the file goes.
        destination: String,
        /// What is wrong.
        why: String,
    },
    /// A file would be outside of the allocation.
    #[error("task `{task}`: template of `{path}`: a destination is below `local/`, `secrets/` or `alloc/`")]
    FilePath {
        /// The task.
        task: String,
        /// As written.
        path: String,
    },
    /// The path in the container is not absolute.
    #[error("task `{task}` mounts at `{path}` in the container: the path must begin with `/`")]
    Destination {
        /// The task.
        task: String,
        /// The path as written.
        path: String,
    },
}

impl Policy {
    /// May `path`, absolute and without `..`, be mounted?
    pub fn allows_mount(&self, path: &str) -> bool {
        below(path, &self.host_volumes)
    }

    /// May the device be used?
    pub fn allows_device(&self, path: &str) -> bool {
        !climbs(path) && below(path, &self.devices)
    }

    /// May the right be given? Case and the prefix `CAP_` do not matter.
    pub fn allows_cap(&self, name: &str) -> bool {
        let plain = |n: &str| n.to_ascii_lowercase().trim_start_matches("cap_").to_owned();
        self.cap_add.iter().any(|allowed| plain(allowed) == plain(name))
    }
}

/// Is the path one of these, or below one?
fn below(path: &str, allowed: &[String]) -> bool {
    let wanted: Vec<&str> = parts(path).collect();
    allowed.iter().any(|prefix| {
        let prefix: Vec<&str> = parts(prefix).collect();
        wanted.starts_with(&prefix)
    })
}

/// The names in a path.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|p| !p.is_empty() && *p != ".")
}

/// May a task of this name have a folder of that name beside the group's own?
pub(crate) fn names_a_folder(task: &str) -> bool {
    !matches!(task, "" | "." | ".." | "alloc") && !task.contains(['/', '\0'])
}

/// Does the path contain `..`?
pub(crate) fn climbs(path: &str) -> bool {
    path.split('/').any(|p| p == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_only() {
        let policy = Policy { host_volumes: vec!["/srv/data".into(), "/dev/snd/".into()], ..Policy::default() };
        for (path, allowed) in [
            ("/srv/data", true),
            ("/srv/data/", true),
            ("/srv//data/./x", true),
            ("/srv/database", false),
            ("/srv", false),
            ("/", false),
            ("/dev/snd/pcm", true),
        ] {
            assert_eq!(policy.allows_mount(path), allowed, "{path}");
        }
        assert!(!Policy::default().allows_mount("/srv"));
    }

    #[test]
    fn devices_and_rights() {
        let policy =
            Policy { devices: vec!["/dev/snd".into(), "/dev/ttyUSB0".into()], cap_add: vec!["NET_ADMIN".into()], ..Policy::default() };
        for (path, allowed) in
            [("/dev/snd/pcm", true), ("/dev/ttyUSB0", true), ("/dev/ttyUSB1", false), ("/dev/snd/../sda", false), ("/dev", false)]
        {
            assert_eq!(policy.allows_device(path), allowed, "{path}");
        }
        for (name, allowed) in [("net_admin", true), ("CAP_NET_ADMIN", true), ("sys_admin", false), ("all", false)] {
            assert_eq!(policy.allows_cap(name), allowed, "{name}");
        }
    }

    #[test]
    fn names_of_tasks_stay_within_their_allocation() {
        for (name, good) in
            [("web", true), ("a.b", true), ("...", true), ("", false), ("..", false), ("../../etc", false), ("alloc", false)]
        {
            assert_eq!(names_a_folder(name), good, "{name}");
        }
    }
}
