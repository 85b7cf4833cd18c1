//! What must hold for every job, whether it was written as text or came signed over the wire.
//!
//! In: a [`Job`]. Out: [`Problem`]s, each with a path that the parser turns into a place in the text. The rules know nothing of
//! text; the parser knows none of the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use skerry_wire::job::{Constraint, Group, Job, JobType, NetworkMode, Operator};
use skerry_wire::{cbor, limits};

use crate::diagnostic::Severity;
use crate::names::{bad_name, did_you_mean};

/// The longest id of a job, and the longest name of anything that a job refers to.
pub const LONGEST_ID: usize = 128;
/// The longest name of a group or a task; container names are made of them.
pub const LONGEST_NAME: usize = 64;
/// Allocations of a group of a service job.
pub const COUNT: RangeInclusive<u32> = 0..=10_000;
/// Priorities of a job.
pub const PRIORITY: RangeInclusive<u8> = 1..=100;
/// Ports, outside and inside.
pub const PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// Restarts in one interval.
pub const ATTEMPTS: RangeInclusive<u32> = 0..=10_000;
/// Disk that a task needs free, in MiB; 16 TiB: more is a slip of the unit.
pub const DISK: RangeInclusive<u32> = 0..=16 * 1024 * 1024;
/// Constraints, ports, volumes or datacenters in one list.
pub const MOST_ITEMS: usize = 64;

/// What a constraint can look at beside attributes and meta values.
pub(crate) const NODE_NAMES: [&str; 4] = ["node.unique.id", "node.unique.name", "node.datacenter", "node.pool"];

/// What kind of job is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Images may be as the operator wrote them.
    AsWritten,
    /// Every image must be resolved to an image id: a specification to be signed, or one that was.
    Resolved,
}

/// One rule that a job breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The part of the job, for people: `group "web", task "app", config.image`.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The same part for the parser: `groups.0.tasks.1.config.image`.
    pub(crate) path: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// Judges a job; an empty list means that it is good. The list is bounded.
pub fn validate(job: &Job, images: Images) -> Vec<Problem> {
    let mut rules = Rules { problems: Vec::new(), images };
    rules.job(job);
    rules.problems
}

/// A part of a job, in both spellings.
#[derive(Debug, Clone, Default)]
pub(crate) struct At {
    path: String,
    place: String,
}

impl At {
    /// A list item that people know by its name.
    pub(crate) fn item(&self, list: &str, index: usize, word: &str, name: &str) -> Self {
        let name: String = name.chars().take(LONGEST_ID).collect();
        Self { path: join(&self.path, &format!("{list}.{index}"), "."), place: join(&self.place, &format!("{word} {name:?}"), ", ") }
    }

    /// A field.
    pub(crate) fn field(&self, name: &str) -> Self {
        Self { path: join(&self.path, name, "."), place: join(&self.place, name, ", ") }
    }
}

fn join(a: &str, b: &str, by: &str) -> String {
    if a.is_empty() { b.to_owned() } else { format!("{a}{by}{b}") }
}

/// More problems than this are not told.
const MOST_PROBLEMS: usize = 100;

#[derive(Debug)]
pub(crate) struct Rules {
    problems: Vec<Problem>,
    pub(crate) images: Images,
}

impl Rules {
    pub(crate) fn error(&mut self, at: &At, message: impl Into<String>, help: &str) {
        self.push(Severity::Error, at, message.into(), help);
    }

    pub(crate) fn warning(&mut self, at: &At, message: impl Into<String>, help: &str) {
        self.push(Severity::Warning, at, message.into(), help);
    }

    fn push(&mut self, severity: Severity, at: &At, message: String, help: &str) {
        if self.problems.len() < MOST_PROBLEMS {
            let help = (!help.is_empty()).then(|| help.to_owned());
            self.problems.push(Problem { severity, place: at.place.clone(), message, help, path: at.path.clone() });
        }
    }

    pub(crate) fn name(&mut self, at: &At, name: &str, longest: usize) {
        if let Some(message) = bad_name(name, longest) {
            self.error(at, message, "");
        }
    }

    pub(crate) fn at_most(&mut self, at: &At, have: usize, most: usize, what: &str) {
        if have > most {
            self.error(at, format!("{have} {what} are too many: at most {most}"), "");
        }
    }

    pub(crate) fn unique<'n>(&mut self, items: impl Iterator<Item = (At, &'n str)>, what: &str) {
        let mut seen = BTreeSet::new();
        for (at, name) in items {
            if !seen.insert(name) {
                self.error(&at, format!("{what} {name:?} is there twice"), "give each its own name");
            }
        }
    }

    fn job(&mut self, job: &Job) {
        // Taken apart, so that a new field cannot be forgotten.
        let Job { id: _, name: _, kind: _, priority: _, node_pool: _, datacenters: _, constraints: _, meta: _, periodic: _, groups: _ } =
            job;
        let root = At::default();
        self.name(&root.field("id"), &job.id, LONGEST_ID);
        self.plain(&root.field("name"), &job.name, LONGEST_ID);
        if !PRIORITY.contains(&job.priority) {
            self.error(&root.field("priority"), format!("priority {} is not from 1 to 100", job.priority), "50 is the default");
        }
        self.name(&root.field("node_pool"), &job.node_pool, LONGEST_ID);
        self.datacenters(&root.field("datacenters"), &job.datacenters);
        self.constraints(&root, &job.constraints);
        self.meta(&root.field("meta"), &job.meta);
        self.periodic(&root, job);
        if job.groups.is_empty() {
            self.error(&root, "a job without a group", "write: group \"name\" { task \"name\" { ... } }");
        }
        self.at_most(&root, job.groups.len(), limits::GROUPS_PER_JOB, "groups");
        self.unique(
            job.groups.iter().enumerate().map(|(i, g)| (root.item("groups", i, "group", &g.name).field("name"), &*g.name)),
            "group",
        );
        for (i, group) in job.groups.iter().enumerate().take(limits::GROUPS_PER_JOB) {
            self.group(&root.item("groups", i, "group", &group.name), group, job.kind);
        }
        self.static_ports(&root, job);
        // What is signed holds the job and a little more.
        let bytes = cbor::encode(job).len();
        let most = limits::SPECIFICATION - 8 * 1024;
        if bytes > most {
            self.error(&root, format!("the job has {bytes} bytes, more than {most}"), "put long values into files of the image");
        }
    }

    /// Text for people: not empty, no control characters.
    pub(crate) fn plain(&mut self, at: &At, text: &str, longest: usize) {
        if text.is_empty() || text.len() > longest || text.chars().any(char::is_control) {
            self.error(at, format!("must have 1 to {longest} bytes and no control characters"), "");
        }
    }

    fn datacenters(&mut self, at: &At, datacenters: &[String]) {
        if datacenters.is_empty() {
            self.error(at, "no datacenter", "write [\"*\"] for all");
        }
        self.at_most(at, datacenters.len(), MOST_ITEMS, "datacenters");
        for (i, glob) in datacenters.iter().enumerate() {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.*?".contains(c);
            if glob.is_empty() || glob.len() > LONGEST_ID || !glob.chars().all(good) {
                let at = at.field(&i.to_string());
                self.error(&at, format!("datacenter {glob:?} is not a name"), "letters, digits, `-`, `_`, `.`, and the globs `*` and `?`");
            }
        }
    }

    /// Free values.
    pub(crate) fn meta(&mut self, at: &At, meta: &BTreeMap<String, String>) {
        for (key, value) in meta {
            if key.is_empty() || key.len() > LONGEST_ID || key.chars().any(|c| c.is_control() || c == '=') {
                self.error(&at.field(key), format!("name {key:?} cannot be used"), "no `=` and no control characters");
            }
            if value.contains('\0') {
                self.error(&at.field(key), "a value with a zero byte", "remove it");
            }
            if value.contains("${") {
                self.warning(&at.field(key), "a value in meta is not filled in by the node", "use ${...} in args or env");
            }
        }
    }

    pub(crate) fn constraints(&mut self, at: &At, constraints: &[Constraint]) {
        self.at_most(&at.field("constraints"), constraints.len(), MOST_ITEMS, "constraints");
        for (i, constraint) in constraints.iter().enumerate().take(MOST_ITEMS) {
            let at = at.item("constraints", i, "constraint", &constraint.attribute);
            self.constraint(&at, constraint);
        }
    }

    fn constraint(&mut self, at: &At, c: &Constraint) {
        let inner = c.attribute.strip_prefix("${").and_then(|a| a.strip_suffix('}'));
        match inner {
            None => {
                let help = format!("write: attribute = \"${{{}}}\"", c.attribute.trim());
                let place = at.field("attribute");
                self.error(&place, format!("attribute {:?} is not something of a node", c.attribute), &help);
            }
            Some(name) => {
                let known = ["attr.", "meta.", "node."].iter().any(|root| name.len() > root.len() && name.starts_with(root));
                let place = at.field("attribute");
                if !known || name.contains(['{', '}', '$']) {
                    let message = format!("a constraint cannot look at {:?}", c.attribute);
                    self.error(&place, message, "it can look at ${attr...}, ${node...} and ${meta...}");
                } else if name.starts_with("node.") && !NODE_NAMES.contains(&name) {
                    let names = NODE_NAMES.join(", ");
                    let help = did_you_mean(name, NODE_NAMES.into_iter()).unwrap_or_else(|| format!("there are: {names}"));
                    self.error(&place, format!("a node has no {:?}", c.attribute), &help);
                }
            }
        }
        let value = at.field("value");
        match c.operator {
            Operator::IsSet | Operator::IsNotSet if c.value.is_empty() => {}
            Operator::IsSet | Operator::IsNotSet => self.error(&value, "is_set and is_not_set take no value", "remove it"),
            _ if c.value.is_empty() => self.error(&value, "a constraint without a value", "write value = \"...\", or use is_set"),
            Operator::Regexp => self.regexp(&value, &c.value),
            Operator::Version => self.version(&value, &c.value),
            _ => {}
        }
    }

    fn group(&mut self, at: &At, group: &Group, kind: JobType) {
        let Group {
            name: _,
            count: _,
            constraints: _,
            network: _,
            restart: _,
            reschedule: _,
            update: _,
            disconnect: _,
            services: _,
            shutdown_delay: _,
            max_run_duration: _,
            meta: _,
            tasks: _,
        } = group;
        self.name(&at.field("name"), &group.name, LONGEST_NAME);
        let count = at.field("count");
        if !COUNT.contains(&group.count) {
            self.error(&count, format!("count {} is more than {}", group.count, COUNT.end()), "use type = \"system\" for every node");
        }
        match kind {
            JobType::Service | JobType::Batch => {}
            JobType::System if group.count != 1 => {
                self.error(&count, "a system job has one allocation on every node", "remove count, or use type = \"service\"");
            }
            JobType::SysBatch if group.count == 0 => {
                self.error(&count, "a sysbatch job has one allocation on every node", "stop the job, or remove count");
            }
            JobType::SysBatch if group.count != 1 => {
                self.warning(
                    &count,
                    "count has no effect: a sysbatch job runs once on every node",
                    "remove count, or use type = \"batch\"",
                );
            }
            JobType::System | JobType::SysBatch => {}
        }
        self.constraints(at, &group.constraints);
        self.network(&at.field("network"), group);
        self.policies(at, group, kind);
        self.services(at, group);
        self.templates(at, group);
        self.meta(&at.field("meta"), &group.meta);
        if group.tasks.is_empty() {
            self.error(at, "a group without a task", "write: task \"name\" { driver = \"docker\" ... }");
        }
        self.at_most(at, group.tasks.len(), limits::TASKS_PER_GROUP, "tasks");
        self.unique(group.tasks.iter().enumerate().map(|(i, t)| (at.item("tasks", i, "task", &t.name).field("name"), &*t.name)), "task");
        for (i, task) in group.tasks.iter().enumerate().take(limits::TASKS_PER_GROUP) {
            self.task(&at.item("tasks", i, "task", &task.name), task, group);
        }
    }

    fn network(&mut self, at: &At, group: &Group) {
        let ports = &group.network.ports;
        self.at_most(at, ports.len(), MOST_ITEMS, "ports");
        if group.network.mode == NetworkMode::None && !ports.is_empty() {
            self.error(at, "ports in a network of mode none", "remove them, or use mode = \"bridge\"");
        }
        let mut labels: BTreeMap<String, &str> = BTreeMap::new();
        let mut fixed: BTreeMap<u16, &str> = BTreeMap::new();
        for (i, port) in ports.iter().enumerate() {
            let at = at.item("ports", i, "port", &port.label);
            self.name(&at, &port.label, LONGEST_NAME);
            // NOMAD_PORT_a_b is one variable, so `a-b` and `a_b` cannot both be there.
            let variable: String = port.label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            if let Some(other) = labels.insert(variable, &port.label) {
                let message = if other == port.label {
                    format!("port {other:?} is there twice")
                } else {
                    format!("port {:?} has the same variable as {other:?}", port.label)
                };
                self.error(&at, message, "give each its own name");
            }
            for (name, number) in [("static", port.fixed), ("to", port.to)] {
                if number == Some(0) {
                    self.error(&at.field(name), "port 0 does not exist", "remove the field to let the node choose");
                }
            }
            if let Some(other) = port.fixed.filter(|n| *n != 0).and_then(|n| fixed.insert(n, &port.label)) {
                let number = port.fixed.unwrap_or_default();
                self.error(&at.field("static"), format!("port {number} is taken by {other:?} of this group"), "choose another one");
            }
        }
    }

    /// No two groups that can stand on one node may want the same port.
    fn static_ports(&mut self, root: &At, job: &Job) {
        let mut taken: BTreeMap<u16, &Group> = BTreeMap::new();
        for (i, group) in job.groups.iter().enumerate() {
            let at = root.item("groups", i, "group", &group.name).field("network");
            let own: BTreeMap<u16, usize> = group.network.ports.iter().enumerate().filter_map(|(p, x)| Some((x.fixed?, p))).collect();
            for (number, p) in own {
                let Some(other) = taken.insert(number, group) else { continue };
                // Constraints of their own may hold the groups on different nodes: the planner sees to it.
                if places(other) == places(group) {
                    let at = at.item("ports", p, "port", &group.network.ports[p].label).field("static");
                    let message = format!("port {number} is taken by group {:?}", other.name);
                    self.error(&at, message, "choose another one, or hold the groups apart by constraints");
                }
            }
        }
    }
}

/// What decides on which nodes a group can stand.
fn places(group: &Group) -> Vec<&Constraint> {
    group.constraints.iter().chain(group.tasks.iter().flat_map(|t| &t.constraints)).collect()
}
