//! Control groups (version 2) of processes: limits, and an end for all that a program started.
//!
//! All groups are below `skerry` in the root of the hierarchy, not below the agent's own group: a supervisor that ends the agent's group
//! must not end them. Where the hierarchy cannot be written, or has no controllers, that is a fact of the node, and programs run without
//! limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What can be done with control groups on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// Below this folder, with limits.
    Limits(PathBuf),
    /// Below this folder; groups end together, but memory and processor are not bounded.
    NoLimits(PathBuf),
    /// None.
    None(String),
}

const PARENT: &str = "skerry";

impl Cgroups {
    /// Finds the hierarchy and makes the parent of all groups.
    pub(crate) fn find() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::in_mounts(&mounts)
    }

    fn in_mounts(mounts: &str) -> Self {
        let mount = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>()).find(|f| f.get(2) == Some(&"cgroup2"));
        let Some(mount) = mount.and_then(|f| Some(PathBuf::from(f.get(1)?))) else {
            return Self::None("control groups of version 2 are not mounted".to_owned());
        };
        let parent = mount.join(PARENT);
        if let Err(error) = fs::create_dir(&parent)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Self::None(format!("{} cannot be made: {error}", parent.display()));
        }
        for folder in [&mount, &parent] {
            for controller in ["+memory", "+cpu"] {
                // What is not there stays away; what came of it is read below.
                let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
            }
        }
        let enabled = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        let has = |name: &str| enabled.split_whitespace().any(|c| c == name);
        if has("memory") && has("cpu") { Self::Limits(parent) } else { Self::NoLimits(parent) }
    }

    /// The value of the node's attribute `cgroup`.
    pub(crate) fn fact(&self) -> &'static str {
        match self {
            Self::Limits(_) => "v2",
            Self::NoLimits(_) => "v2-no-limits",
            Self::None(_) => "none",
        }
    }

    /// Why there are no limits; none when there are.
    pub(crate) fn lacking(&self) -> Option<String> {
        match self {
            Self::Limits(_) => None,
            Self::NoLimits(parent) => Some(format!("{} has no controllers for memory and cpu", parent.display())),
            Self::None(why) => Some(why.clone()),
        }
    }

    /// The group of an instance.
    pub(crate) fn group(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Limits(parent) | Self::NoLimits(parent) => Some(parent.join(name)),
            Self::None(_) => None,
        }
    }
}

/// Makes the group and sets its limits, as far as they can be set.
pub(crate) fn make(group: &Path, memory: u64, reserved: Option<u64>, shares: u32) -> io::Result<()> {
    if let Err(error) = fs::create_dir(group)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let set = |file: &str, value: String| {
        let path = group.join(file);
        if path.exists() { fs::write(path, value) } else { Ok(()) }
    };
    if memory > 0 {
        set("memory.max", memory.to_string())?;
        set("memory.swap.max", "0".to_owned())?;
    }
    if let Some(reserved) = reserved {
        set("memory.low", reserved.to_string())?;
    }
    set("cpu.weight", weight(shares).to_string())
}

/// Takes the calling process into the group.
pub(crate) fn join(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// Kills all that is in the group.
pub(crate) fn kill(group: &Path) {
    // Kernels before 5.14 have no such file: then each by itself.
    if fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in listed.lines().filter_map(|l| rustix::process::Pid::from_raw(l.parse().ok()?)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Did the kernel kill anything in it for want of memory?
pub(crate) fn was_short_of_memory(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("memory.events")).unwrap_or_default();
    events.lines().filter_map(|l| l.strip_prefix("oom_kill ")).any(|n| n.trim() != "0")
}

/// Removes the group, which must be empty; fine when it is gone.
pub(crate) fn remove(group: &Path) {
    let _ = fs::remove_dir(group);
}

/// Docker's shares as the kernel's weight, by the formula that container engines use.
fn weight(shares: u32) -> u64 {
    let shares = u64::from(shares.clamp(2, 262_144));
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (shares, expected) in [(2, 1), (1024, 39), (262_144, 10_000), (0, 1)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    /// On files in the place of the kernel's: not every machine that tests has controllers.
    #[test]
    fn limits_are_set_where_they_can_be_and_a_kill_for_memory_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path();
        let has = |name: &str| fs::read_to_string(group.join(name)).ok();
        make(group, 48 << 20, Some(16 << 20), 1024).unwrap();
        assert_eq!(fs::read_dir(group).unwrap().count(), 0, "without controllers there are no files, and none is made");
        for name in ["memory.max", "memory.swap.max", "memory.low", "cpu.weight"] {
            fs::write(group.join(name), "").unwrap();
        }
        make(group, 0, None, 2).unwrap();
        assert_eq!(["memory.max", "memory.low", "cpu.weight"].map(has), [Some("".into()), Some("".into()), Some("1".into())]);
        make(group, 48 << 20, Some(16 << 20), 1024).unwrap();
        let limits = ["memory.max", "memory.swap.max", "memory.low", "cpu.weight"].map(|n| has(n).unwrap());
        assert_eq!(limits, ["50331648", "0", "16777216", "39"]);
        for (events, expected) in [("oom 1\noom_kill 0\n", false), ("oom 3\noom_kill 2\noom_group_kill 0\n", true)] {
            fs::write(group.join("memory.events"), events).unwrap();
            assert_eq!(was_short_of_memory(group), expected, "{events}");
        }
        assert!(!was_short_of_memory(&group.join("gone")));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let none = Cgroups::in_mounts("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n");
        assert_eq!((none.fact(), none.group("x")), ("none", None));
        assert!(none.lacking().unwrap().contains("not mounted"));
        let folder = tempfile::tempdir().unwrap();
        let text = format!("cgroup2 {} cgroup2 rw 0 0\n", folder.path().display());
        let found = Cgroups::in_mounts(&text);
        assert!(found.group("x").unwrap().ends_with("skerry/x"));
    }
}
