//! What the node's owner allows, whatever was signed.

use serde::{Deserialize, Serialize};

/// The node's own policy. Everything not allowed here is forbidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Folders of the node that jobs may mount, with all below them.
    #[serde(default)]
    pub host_volumes: Vec<String>,
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
        let wanted: Vec<&str> = parts(path).collect();
        self.host_volumes.iter().any(|prefix| {
            let prefix: Vec<&str> = parts(prefix).collect();
            wanted.starts_with(&prefix)
        })
    }
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
        let policy = Policy { host_volumes: vec!["/srv/data".into(), "/dev/snd/".into()] };
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
    fn names_of_tasks_stay_within_their_allocation() {
        for (name, good) in
            [("web", true), ("a.b", true), ("...", true), ("", false), ("..", false), ("../../etc", false), ("alloc", false)]
        {
            assert_eq!(names_a_folder(name), good, "{name}");
        }
    }
}
