//! The rules of one task, and of the texts in constraints.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use regex_lite::RegexBuilder;
use skerry_wire::job::{DockerConfig, Driver, Group, Resources, Task, Volume};

use crate::rules::{At, Images, LONGEST_ID, MOST_ITEMS, NODE_NAMES, Rules};

/// The longest reference to an image, and the longest path of a volume.
const LONGEST_TEXT: usize = 1024;
/// Docker refuses containers with less, in MiB; Nomad has the same bound.
const LEAST_MEMORY: u32 = 10;
/// 4 TiB: more is a slip of the unit.
const MOST_MEMORY: u32 = 4 * 1024 * 1024;
/// Memory of a task, in MiB.
pub const MEMORY: RangeInclusive<u32> = LEAST_MEMORY..=MOST_MEMORY;
/// Processor share of a task, in MHz.
pub const CPU: RangeInclusive<u32> = 1..=1_000_000;
/// A day: longer than this nobody waits for a program to end.
const LONGEST_KILL: u64 = 24 * 3600 * 1000;
/// Memory that a compiled expression may take, bytes; the planner has the same bound.
const REGEX_SIZE: usize = 64 * 1024;

impl Rules {
    pub(crate) fn task(&mut self, at: &At, task: &Task, group: &Group) {
        self.name(&at.field("name"), &task.name, crate::rules::LONGEST_NAME);
        self.env(&at.field("env"), task);
        self.meta(&at.field("meta"), &task.meta);
        self.constraints(at, &task.constraints);
        self.resources(&at.field("resources"), task.resources);
        if task.kill_timeout.0 > LONGEST_KILL {
            self.error(&at.field("kill_timeout"), format!("{} is longer than 24h", task.kill_timeout), "5s is the default");
        }
        let Driver::Docker(config) = &task.driver else { return };
        self.docker(&at.field("config"), config, group);
    }

    fn env(&mut self, at: &At, task: &Task) {
        for (key, value) in &task.env {
            let at = at.field(key);
            if key.is_empty() || key.len() > LONGEST_ID || key.chars().any(|c| c.is_control() || c == '=' || c.is_whitespace()) {
                self.error(&at, format!("variable name {key:?} cannot be used"), "no `=`, no spaces and no control characters");
            }
            if value.contains('\0') {
                self.error(&at, "a value with a zero byte", "remove it");
            }
            self.filled_in(&at, value);
            if key.starts_with("NOMAD_") {
                self.warning(&at, format!("the node may set {key} itself"), "use a name without NOMAD_");
            }
        }
    }

    fn resources(&mut self, at: &At, resources: Resources) {
        let Resources { cpu, memory, memory_max, .. } = resources;
        if !CPU.contains(&cpu) {
            self.error(&at.field("cpu"), format!("cpu {cpu} is not from {} to {} MHz", CPU.start(), CPU.end()), "100 is the default");
        }
        if !MEMORY.contains(&memory) {
            let message = format!("memory {memory} is not from {LEAST_MEMORY} to {MOST_MEMORY} MiB");
            self.error(&at.field("memory"), message, "300 is the default");
        }
        let Some(most) = memory_max else { return };
        if most < memory {
            let message = format!("memory_max {most} is less than memory {memory}");
            self.error(&at.field("memory_max"), message, "memory is reserved, memory_max is the limit");
        } else if most > MOST_MEMORY {
            self.error(&at.field("memory_max"), format!("memory_max {most} is more than {MOST_MEMORY} MiB"), "");
        }
    }

    fn docker(&mut self, at: &At, config: &DockerConfig, group: &Group) {
        let DockerConfig { image, image_id, command, args, ports, volumes, .. } = config;
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
            if command.contains("${") {
                self.error(&place, "a command is not filled in by the node", "use ${...} in args or env");
            }
        }
        self.at_most(&at.field("args"), args.len(), 1024, "args");
        for (i, _) in args.iter().enumerate().filter(|(_, a)| a.contains('\0')) {
            self.error(&at.field(&format!("args.{i}")), "an argument with a zero byte", "remove it");
        }
        self.at_most(&at.field("ports"), ports.len(), MOST_ITEMS, "ports");
        for (i, arg) in args.iter().enumerate() {
            self.filled_in(&at.field(&format!("args.{i}")), arg);
        }
        for (i, label) in ports.iter().enumerate().take(MOST_ITEMS) {
            let place = at.field(&format!("ports.{i}"));
            if ports[..i].contains(label) {
                self.error(&place, format!("port {label:?} is there twice"), "remove one of them");
            } else if !group.network.ports.iter().any(|p| p.label == *label) {
                let labels: Vec<&str> = group.network.ports.iter().map(|p| &*p.label).take(MOST_ITEMS).collect();
                let declare = format!("declare it in the group: network {{ port \"{label}\" {{ to = 80 }} }}");
                let help = crate::names::did_you_mean(label, labels.iter().copied()).unwrap_or(declare);
                self.error(&place, format!("group {:?} has no port {label:?}", group.name), &help);
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
    }

    /// Does the node know what it is to fill in? Its attributes and meta values are not known here, its own names are.
    fn filled_in(&mut self, at: &At, text: &str) {
        for part in text.split("${").skip(1) {
            let name = part.split('}').next().unwrap_or("").trim();
            if name.starts_with("node.") && !NODE_NAMES.contains(&name) && name != "node.region" && name != "node.class" {
                let name: String = name.chars().take(LONGEST_ID).collect();
                self.warning(at, format!("a node has no {name:?}, so it stays as it is written"), "use ${node.unique.name} or another");
            }
        }
    }

    pub(crate) fn regexp(&mut self, at: &At, text: &str) {
        // With something of the node in it, it is known only there.
        if text.contains("${") {
            return;
        }
        if let Err(e) = RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
            self.error(at, format!("{text:?} is not a regular expression: {e}"), "look-around and back-references are not there");
        }
    }

    pub(crate) fn version(&mut self, at: &At, text: &str) {
        let good = |condition: &str| {
            let condition = condition.trim();
            let version = condition.trim_start_matches(['<', '>', '=', '!', '~']);
            let operator = &condition[..condition.len() - version.len()];
            let version = version.trim();
            let version = version.strip_prefix('v').unwrap_or(version);
            ["", "=", "!=", "<", "<=", ">", ">=", "~>"].contains(&operator) && version.starts_with(|c: char| c.is_ascii_digit())
        };
        if !text.contains("${") && !text.split(',').all(good) {
            self.error(at, format!("{text:?} is not a condition on versions"), "write for example \">= 1.2, < 2\"");
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
