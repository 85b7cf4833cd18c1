//! Control groups of processes: limits, and an end for all that a program started.
//!
//! In: what is mounted, an instance's name and limits. Out: its groups, with those limits set. All are below `skerry` in the root of each
//! hierarchy, not below the agent's own group: a supervisor that ends the agent's group must not end them. Version 2 is taken where it
//! bounds memory and processor; where the controllers are still with version 1, those of version 1 bound, beside a group of version 2 if
//! there is one. Where neither can be written, or has no controllers, that is a fact of the node, and programs run without limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What can be done with control groups on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// Folders that groups are made in.
    parents: Groups,
    /// Why memory is not bounded; none when it is.
    lacking: Option<String>,
}

/// The folders of one instance, or of the parent of all: one in each hierarchy that is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    /// Version 2.
    #[serde(default, rename = "cgroup")]
    pub(crate) v2: Option<PathBuf>,
    /// Version 1: that of memory first.
    #[serde(default, rename = "cgroups_v1")]
    pub(crate) v1: Vec<PathBuf>,
}

const PARENT: &str = "skerry";

impl Cgroups {
    /// Finds the hierarchies and makes the parents of all groups.
    pub(crate) fn find() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::in_mounts(&mounts)
    }

    /// None, for this reason.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn none(why: &str) -> Self {
        Self { parents: Groups::default(), lacking: Some(why.to_owned()) }
    }

    fn in_mounts(mounts: &str) -> Self {
        let mounts: Vec<Vec<&str>> = mounts.lines().map(|l| l.split(' ').collect()).collect();
        let mount = |kind: &str, option: &str| {
            let is = |f: &&Vec<&str>| {
                f.get(2) == Some(&kind) && f.get(3).is_some_and(|o| option.is_empty() || o.split(',').any(|o| o == option))
            };
            mounts.iter().find(is).and_then(|f| f.get(1)).map(PathBuf::from)
        };
        let (v2, why) = match mount("cgroup2", "").map(|m| second(&m)) {
            None => (None, "control groups are not mounted".to_owned()),
            Some(Err(why)) => (None, why),
            Some(Ok((parent, true))) => return Self { parents: Groups { v2: Some(parent), v1: vec![] }, lacking: None },
            Some(Ok((parent, false))) => {
                let why = format!("{} has no controllers for memory and cpu", parent.display());
                (Some(parent), why)
            }
        };
        let first = |controller| mount("cgroup", controller).map(|m| m.join(PARENT));
        match first("memory").map(|parent| (made(&parent), parent)) {
            None => Self { parents: Groups { v2, v1: vec![] }, lacking: Some(why) },
            Some((Err(error), parent)) => {
                let why = format!("{why}, and {} cannot be made: {error}", parent.display());
                Self { parents: Groups { v2, v1: vec![] }, lacking: Some(why) }
            }
            Some((Ok(()), memory)) => {
                // Often one hierarchy for both names.
                let cpu = first("cpu").filter(|cpu| *cpu != memory && made(cpu).is_ok());
                Self { parents: Groups { v2, v1: std::iter::once(memory).chain(cpu).collect() }, lacking: None }
            }
        }
    }

    /// The value of the node's attribute `cgroup`.
    pub(crate) fn fact(&self) -> &'static str {
        match (&self.parents.v2, &self.lacking) {
            _ if !self.parents.v1.is_empty() => "v1",
            (Some(_), None) => "v2",
            (Some(_), Some(_)) => "v2-no-limits",
            (None, _) => "none",
        }
    }

    /// Why there are no limits; none when there are.
    pub(crate) fn lacking(&self) -> Option<&str> {
        self.lacking.as_deref()
    }

    /// The groups of an instance.
    pub(crate) fn groups(&self, name: &str) -> Groups {
        let Groups { v2, v1 } = &self.parents;
        Groups { v2: v2.as_ref().map(|p| p.join(name)), v1: v1.iter().map(|p| p.join(name)).collect() }
    }
}

fn made(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The parent in a hierarchy of version 2, and whether groups below it can be bounded.
fn second(mount: &Path) -> Result<(PathBuf, bool), String> {
    let parent = mount.join(PARENT);
    made(&parent).map_err(|error| format!("{} cannot be made: {error}", parent.display()))?;
    for folder in [mount, &parent] {
        for controller in ["+memory", "+cpu"] {
            // What is not there stays away; what came of it is read below.
            let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
        }
    }
    let enabled = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
    let has = |name: &str| enabled.split_whitespace().any(|c| c == name);
    Ok((parent, has("memory") && has("cpu")))
}

impl Groups {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.v2.iter().chain(&self.v1)
    }

    /// Makes the groups and sets the limits, as far as they can be set.
    pub(crate) fn make(&self, memory: u64, reserved: Option<u64>, shares: u32) -> io::Result<()> {
        self.all().try_for_each(|group| made(group).and_then(|()| limit(group, memory, reserved, shares)))
    }

    /// Takes the calling process into the groups.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.all().try_for_each(|group| fs::write(group.join("cgroup.procs"), "0"))
    }

    /// Can they bound memory? Then they must.
    pub(crate) fn bound(&self) -> bool {
        self.v2.iter().any(|g| g.join("memory.max").exists()) || !self.v1.is_empty()
    }

    /// Kills all that is in the groups.
    pub(crate) fn kill(&self) {
        self.all().for_each(|group| kill(group));
    }

    /// Did the kernel kill anything in them for want of memory?
    pub(crate) fn was_short_of_memory(&self) -> bool {
        let files = self.all().flat_map(|g| [g.join("memory.events"), g.join("memory.oom_control")]);
        let counts = |text: String| text.lines().filter_map(|l| l.strip_prefix("oom_kill ")).any(|n| n.trim() != "0");
        files.filter_map(|f| fs::read_to_string(f).ok()).any(counts)
    }

    /// Removes the groups, which must be empty; fine when they are gone.
    pub(crate) fn remove(&self) {
        for group in self.all() {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Sets those limits that the group has files for.
fn limit(group: &Path, memory: u64, reserved: Option<u64>, shares: u32) -> io::Result<()> {
    let set = |file: &str, value: String| {
        let path = group.join(file);
        if path.exists() { fs::write(path, value) } else { Ok(()) }
    };
    if memory > 0 {
        set("memory.max", memory.to_string())?;
        set("memory.swap.max", "0".to_owned())?;
        // A program that lost one of its processes is not what was started: it ends as a whole, and is started anew.
        set("memory.oom.group", "1".to_owned())?;
        // With swap it may not be less than without: when both rise, this one first.
        let _ = set("memory.memsw.limit_in_bytes", memory.to_string());
        set("memory.limit_in_bytes", memory.to_string())?;
        // Where the kernel does not count swap there is no such file, or it takes nothing.
        let _ = set("memory.memsw.limit_in_bytes", memory.to_string());
    }
    if let Some(reserved) = reserved {
        set("memory.low", reserved.to_string())?;
        set("memory.soft_limit_in_bytes", reserved.to_string())?;
    }
    set("cpu.shares", shares.clamp(2, 262_144).to_string())?;
    set("cpu.weight", weight(shares).to_string())
}

fn kill(group: &Path) {
    // Kernels before 5.14, and version 1, have no such file: then each by itself. One that is made by writing it kills nothing.
    let file = group.join("cgroup.kill");
    if file.exists() && fs::write(file, "1").is_ok() {
        return;
    }
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in listed.lines().filter_map(|l| rustix::process::Pid::from_raw(l.parse().ok()?)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
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

    /// On files in the place of the kernel's: not every machine that tests has all controllers.
    #[test]
    fn limits_are_set_where_they_can_be_and_a_kill_for_memory_is_seen() {
        const SECOND: [&str; 5] = ["memory.max", "memory.swap.max", "memory.oom.group", "memory.low", "cpu.weight"];
        const FIRST: [&str; 4] = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "cpu.shares"];
        let folder = tempfile::tempdir().unwrap();
        let groups = Groups { v2: Some(folder.path().join("2")), v1: vec![folder.path().join("1")] };
        let has = |group: &str, name: &str| fs::read_to_string(folder.path().join(group).join(name)).unwrap();
        groups.make(48 << 20, Some(16 << 20), 1024).unwrap();
        let files = |group: &str| fs::read_dir(folder.path().join(group)).unwrap().count();
        assert_eq!((files("1"), files("2")), (0, 0), "without controllers there are no files, and none is made");
        for (group, names) in [("2", &SECOND[..]), ("1", &FIRST[..])] {
            names.iter().for_each(|n| fs::write(folder.path().join(group).join(n), "").unwrap());
        }
        groups.make(0, None, 2).unwrap();
        assert_eq!(SECOND.map(|n| has("2", n)), ["", "", "", "", "1"]);
        assert_eq!(FIRST.map(|n| has("1", n)), ["", "", "", "2"]);
        groups.make(48 << 20, Some(16 << 20), 1024).unwrap();
        assert_eq!(SECOND.map(|n| has("2", n)), ["50331648", "0", "1", "16777216", "39"]);
        assert_eq!(FIRST.map(|n| has("1", n)), ["50331648", "50331648", "16777216", "1024"]);
        for (file, text, expected) in [
            ("2/memory.events", "oom 1\noom_kill 0\n", false),
            ("1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", false),
            ("1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", true),
            ("1/memory.oom_control", "oom_kill_disable 1\n", false),
            ("2/memory.events", "oom 3\noom_kill 2\noom_group_kill 0\n", true),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
            assert_eq!(groups.was_short_of_memory(), expected, "{file}: {text}");
        }
        assert!(!Groups::default().was_short_of_memory());
    }

    #[test]
    fn what_is_not_there_is_said() {
        let none = Cgroups::in_mounts("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n");
        assert_eq!((none.fact(), none.groups("x")), ("none", Groups::default()));
        assert!(none.lacking().unwrap().contains("not mounted"));
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let second = format!("cgroup2 {} cgroup2 rw 0 0\n", folder.path().display());
        let found = Cgroups::in_mounts(&second);
        assert_eq!(found.groups("x"), Groups { v2: Some(at("skerry/x")), v1: vec![] });
        assert!(!found.groups("x").bound());
        // Both versions: memory and processor are bounded by the first.
        for name in ["memory", "cpu"] {
            fs::create_dir(at(name)).unwrap();
        }
        let line = |name: &str, options: &str| format!("cgroup {} cgroup rw,{options} 0 0\n", at(name).display());
        let both =
            Cgroups::in_mounts(&[second.clone(), line("cpu", "cpuset"), line("memory", "memory"), line("cpu", "cpu,cpuacct")].concat());
        assert_eq!((both.fact(), both.lacking()), ("v1", None));
        let groups = both.groups("x");
        assert_eq!(groups, Groups { v2: Some(at("skerry/x")), v1: vec![at("memory/skerry/x"), at("cpu/skerry/x")] });
        assert!(groups.bound());
        // The processor alone bounds no memory; and what cannot be made says why.
        let cpu = Cgroups::in_mounts(&[second.clone(), line("cpu", "cpu")].concat());
        assert!(cpu.lacking().is_some() && cpu.groups("x").v1.is_empty());
        let gone = Cgroups::in_mounts(&[second, line("gone", "memory")].concat());
        assert!(gone.lacking().unwrap().contains("gone/skerry cannot be made"), "{:?}", gone.lacking());
    }
}
