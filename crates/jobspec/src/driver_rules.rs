//! The rules for what runs a task: images, mounts, devices, rights, programs.

use std::collections::BTreeSet;

use skerry_wire::job::{Device, DockerConfig, Group, NetworkMode, ProcessConfig, Volume};

use crate::rules::{At, Images, MOST_ITEMS, Rules};
use crate::service_rules::short;

/// The longest reference to an image, and the longest path.
const LONGEST_TEXT: usize = 1024;
/// Arguments of one program.
const MOST_ARGS: usize = 1024;
/// Rights of the kernel, capabilities(7), and all of them at once.
const RIGHTS: [&str; 42] = [
    "all",
    "audit_control",
    "audit_read",
    "audit_write",
    "block_suspend",
    "bpf",
    "checkpoint_restore",
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "ipc_lock",
    "ipc_owner",
    "kill",
    "lease",
    "linux_immutable",
    "mac_admin",
    "mac_override",
    "mknod",
    "net_admin",
    "net_bind_service",
    "net_broadcast",
    "net_raw",
    "perfmon",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_admin",
    "sys_boot",
    "sys_chroot",
    "sys_module",
    "sys_nice",
    "sys_pacct",
    "sys_ptrace",
    "sys_rawio",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "syslog",
    "wake_alarm",
];

impl Rules {
    pub(crate) fn docker(&mut self, at: &At, config: &DockerConfig, group: &Group) {
        let DockerConfig { image, image_id, command, args, ports, volumes, entrypoint, work_dir, devices, privileged, cap_add, cap_drop } =
            config;
        let place = at.field("image");
        if let Some((message, help)) = bad_image(image) {
            self.error(&place, message, help);
        }
        if self.images == Images::Resolved && image_id.is_none() {
            self.error(&place, format!("image {image:?} is not resolved to an image id"), "publish it: skerry image publish FILE");
        }
        if let (Some(id), Some(written)) = (image_id, image.strip_prefix("sha256:"))
            && id.to_string().trim_start_matches("sha256:") != written
        {
            self.error(&place, format!("image {image} is resolved to another one, {id}"), "");
        }
        if let Some(command) = command {
            let place = at.field("command");
            if command.is_empty() || command.contains('\0') {
                self.error(&place, "an empty command", "remove it to run what the image says");
            }
            self.filled_in(&place, command);
        }
        self.args(&at.field("args"), args);
        self.at_most(&at.field("ports"), ports.len(), MOST_ITEMS, "ports");
        for (i, label) in ports.iter().enumerate().take(MOST_ITEMS) {
            let place = at.field(&format!("ports.{i}"));
            if ports[..i].contains(label) {
                self.error(&place, format!("port {label:?} is there twice"), "remove one of them");
            } else {
                self.port(&place, label, group);
            }
        }
        self.at_most(&at.field("volumes"), volumes.len(), MOST_ITEMS, "volumes");
        let mut seen = BTreeSet::new();
        for (i, volume) in volumes.iter().enumerate().take(MOST_ITEMS) {
            let place = at.field(&format!("volumes.{i}"));
            if let Some((message, help)) = bad_volume(volume) {
                self.error(&place, message, help);
            } else if !seen.insert(volume.destination.trim_end_matches('/')) {
                self.error(&place, format!("{} is mounted twice", volume.destination), "remove one of them");
            }
        }
        if let Some(words) = entrypoint {
            let place = at.field("entrypoint");
            if words.first().is_none_or(String::is_empty) {
                self.error(&place, "an empty entrypoint", "remove it to run what the image says");
            }
            self.args(&place, words);
        }
        if let Some(folder) = work_dir {
            let place = at.field("work_dir");
            self.unfilled(&place, folder, "the work_dir of a container");
            if let Some((message, help)) = bad_folder(folder).filter(|_| !folder.contains("${")) {
                self.error(&place, message, help);
            } else if !folder.starts_with('/') {
                self.error(&place, format!("{folder:?} is not a folder in the container"), "write for example \"/srv\"");
            }
        }
        self.devices(&at.field("devices"), devices);
        for (name, list) in [("cap_add", cap_add), ("cap_drop", cap_drop)] {
            self.rights(&at.field(name), list);
        }
        if *privileged && !(cap_add.is_empty() && cap_drop.is_empty()) {
            let help = "remove privileged, or cap_add and cap_drop";
            self.warning(&at.field("privileged"), "a privileged container has all rights already", help);
        }
        for (i, right) in cap_drop.iter().enumerate().filter(|(_, right)| cap_add.contains(right)) {
            let place = at.field("cap_drop").field(&i.to_string());
            self.error(&place, format!("{right:?} is both added and dropped"), "remove one of them");
        }
    }

    fn devices(&mut self, at: &At, devices: &[Device]) {
        self.at_most(at, devices.len(), MOST_ITEMS, "devices");
        let mut seen = BTreeSet::new();
        for (i, device) in devices.iter().enumerate().take(MOST_ITEMS) {
            let place = at.field(&i.to_string());
            let Device { host_path, container_path, cgroup_permissions } = device;
            let inside = container_path.as_ref().unwrap_or(host_path);
            for (name, path) in [("host_path", host_path), ("container_path", inside)] {
                let bad = !path.starts_with('/') || path.ends_with('/') || path.contains("${") || bad_folder(path).is_some();
                if bad && (name == "host_path" || container_path.is_some()) {
                    let message = format!("{:?} is not the path of a device", short(path));
                    self.error(&place.field(name), message, "write the whole path, for example \"/dev/video0\"");
                }
            }
            if !seen.insert(inside) {
                self.error(&place, format!("{:?} is there twice", short(inside)), "remove one of them");
            }
            let letters: BTreeSet<char> = cgroup_permissions.chars().collect();
            if letters.is_empty() || letters.len() != cgroup_permissions.len() || letters.iter().any(|c| !"rwm".contains(*c)) {
                let message = format!("{:?} are not permissions", short(cgroup_permissions));
                self.error(&place.field("cgroup_permissions"), message, "letters of \"rwm\": read, write, make");
            }
        }
    }

    fn rights(&mut self, at: &At, list: &[String]) {
        self.at_most(at, list.len(), MOST_ITEMS, "rights");
        for (i, right) in list.iter().enumerate().take(MOST_ITEMS) {
            let at = at.field(&i.to_string());
            if !RIGHTS.contains(&right.as_str()) {
                let help = crate::names::did_you_mean(right, RIGHTS.into_iter());
                self.error(
                    &at,
                    format!("there is no right {:?}", short(right)),
                    &help.unwrap_or_else(|| "see capabilities(7), for example \"net_admin\"".to_owned()),
                );
            } else if list[..i].contains(right) {
                self.error(&at, format!("{right:?} is there twice"), "remove one of them");
            }
        }
    }

    /// A program of the node.
    pub(crate) fn process(&mut self, at: &At, config: &ProcessConfig, group: &Group) {
        let ProcessConfig { command, args, work_dir } = config;
        let place = at.field("command");
        // With something of the node in it, it is known only there.
        if !command.contains("${") {
            if let Some((message, help)) = bad_folder(command) {
                self.error(&place, message, help);
            } else if command.ends_with('/') || !command.contains('/') {
                let help = "write the whole path, for example \"/usr/bin/rsync\", or a path below the task's folder (\"local/run.sh\")";
                self.error(&place, format!("{:?} is not the path of a program", short(command)), help);
            }
        } else if command.contains('\0') || command.split('/').any(|part| part == "..") || command.len() > LONGEST_TEXT {
            self.error(&place, format!("{:?} is not the path of a program", short(command)), "no `..`, at most 1024 bytes");
        }
        self.filled_in(&place, command);
        self.args(&at.field("args"), args);
        if let Some(folder) = work_dir {
            let place = at.field("work_dir");
            self.filled_in(&place, folder);
            if let Some((message, help)) = bad_folder(folder) {
                self.error(&place, message, help);
            }
        }
        match group.network.mode {
            NetworkMode::Host => {}
            NetworkMode::Bridge => {
                self.warning(
                    at,
                    "a program of the node sees the node's own network, not the bridge",
                    "use mode = \"host\", or driver = \"docker\"",
                );
            }
            NetworkMode::None => {
                self.error(at, "a program of the node cannot be kept from the network", "use mode = \"host\", or driver = \"docker\"");
            }
        }
    }

    /// Arguments; the node fills them in.
    pub(crate) fn args(&mut self, at: &At, args: &[String]) {
        self.at_most(at, args.len(), MOST_ARGS, "args");
        for (i, arg) in args.iter().enumerate().take(MOST_ARGS) {
            let at = at.field(&i.to_string());
            if arg.contains('\0') {
                self.error(&at, "an argument with a zero byte", "remove it");
            }
            self.filled_in(&at, arg);
        }
    }
}

type Finding = Option<(String, &'static str)>;

/// What is wrong with a reference to an image, and what to do; nothing when a jobspec may name an image so.
pub fn bad_image(image: &str) -> Option<(String, &'static str)> {
    const FORM: &str = "write \"name:tag\" or \"sha256:<image id>\"";
    if image.is_empty() || image.len() > LONGEST_TEXT {
        return Some(("an image must be named in 1 to 1024 bytes".to_owned(), FORM));
    }
    if image.contains("${") {
        let help = "use var. or local., which are known when the job is submitted";
        return Some(("an image is not filled in by the node".to_owned(), help));
    }
    if let Some(id) = image.strip_prefix("sha256:") {
        let good = id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        return (!good).then(|| (format!("{image:?} is not an image id"), "sha256: and 64 lower-case hexadecimal digits"));
    }
    if image.contains("://") {
        return Some((format!("image {image:?} is an address"), "images are published, not pulled: write \"name:tag\""));
    }
    if image.contains('@') {
        let help = "the digest of a registry is not an image id; write \"name:tag\" or \"sha256:<image id>\"";
        return Some((format!("image {image:?} has a registry's digest"), help));
    }
    // A colon before a slash is the port of a registry.
    let slash = image.rfind('/').map_or(0, |i| i + 1);
    let (name, tag) = match image[slash..].find(':') {
        Some(colon) => (&image[..slash + colon], &image[slash + colon + 1..]),
        None => (image, "latest"),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let tag_good = !tag.is_empty() && tag.len() <= 128 && !tag.starts_with(['-', '.']) && tag.chars().all(word);
    let part_good = |part: &str| !part.is_empty() && part.chars().all(word) && part.starts_with(|c: char| c.is_ascii_alphanumeric());
    // Only the first part can be the address of a registry, and only that may have a port or capitals.
    let lower = |part: &str| !part.contains(|c: char| c.is_ascii_uppercase());
    let name_good = name.split('/').enumerate().all(|(i, part)| match part.split_once(':') {
        Some((host, port)) => i == 0 && slash > 0 && part_good(host) && port.parse::<u16>().is_ok(),
        None => part_good(part) && (lower(part) || (i == 0 && slash > 0)),
    });
    (!tag_good || !name_good).then(|| (format!("{image:?} is not the name of an image"), FORM))
}

/// What is wrong with a bind mount.
fn bad_volume(volume: &Volume) -> Finding {
    let Volume { source, destination, .. } = volume;
    if source.contains("${") || destination.contains("${") {
        return Some(("a volume is not filled in by the node".to_owned(), "write the path out"));
    }
    for path in [source, destination] {
        if path.is_empty() || path.len() > LONGEST_TEXT || path.chars().any(|c| c.is_control() || c == ':') {
            return Some((format!("{path:?} is not a path"), "1 to 1024 bytes, no `:` and no control characters"));
        }
        if path.split('/').any(|part| part == "..") {
            return Some((format!("{path:?} has `..` in it"), "write the path that is meant"));
        }
    }
    if !destination.starts_with('/') || destination.trim_matches('/').is_empty() {
        let help = "write for example \"/srv/data:/data\"";
        return Some((format!("{destination:?} is not a folder in the container"), help));
    }
    None
}

/// What is wrong with a path of a folder or a program.
fn bad_folder(path: &str) -> Finding {
    if path.is_empty() || path.len() > LONGEST_TEXT || path.chars().any(char::is_control) {
        return Some((format!("{:?} is not a path", short(path)), "1 to 1024 bytes, no control characters"));
    }
    let climbs = path.split('/').any(|part| part == "..");
    climbs.then(|| (format!("{:?} has `..` in it", short(path)), "write the path that is meant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_references() {
        let id = format!("sha256:{}", "a1".repeat(32));
        for good in ["web", "web:1", "edge/web:1.2-rc.1", "registry.local:5000/edge/web:1", &id] {
            assert_eq!(bad_image(good), None, "{good}");
        }
        let upper = format!("sha256:{}", "A1".repeat(32));
        for bad in [
            "",
            "web:",
            "Web:1",
            "a//b",
            "web:1:2",
            "web 1",
            "https://x/y",
            "web@sha256:00",
            "sha256:12",
            "${x}",
            "/web",
            "a/Web",
            "a/b:c/d",
            "a:b/c",
            &upper,
        ] {
            assert!(bad_image(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn volumes() {
        let volume = |s: &str, d: &str| Volume { source: s.to_owned(), destination: d.to_owned(), read_only: false };
        for (s, d) in [("/srv", "/data"), ("data", "/data"), ("/srv/a..b", "/x/")] {
            assert_eq!(bad_volume(&volume(s, d)), None, "{s} {d}");
        }
        for (s, d) in [("", "/x"), ("/x", ""), ("/x", "x"), ("/x", "/"), ("../x", "/x"), ("/x", "/a/../b"), ("a\n", "/x"), ("${x}", "/x")] {
            assert!(bad_volume(&volume(s, d)).is_some(), "{s} {d}");
        }
    }
}
