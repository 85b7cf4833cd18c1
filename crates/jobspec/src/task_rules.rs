//! The rules of one task, and of the texts in constraints.

use std::ops::RangeInclusive;

use regex_lite::RegexBuilder;
use skerry_wire::job::{Driver, Group, Resources, Task};

use crate::names::did_you_mean;
use crate::policy_rules::DAY;
use crate::rules::{At, DISK, LONGEST_ID, NODE_NAMES, Rules};
use crate::service_rules::short;

/// Docker refuses containers with less, in MiB; Nomad has the same bound.
const LEAST_MEMORY: u32 = 10;
/// 4 TiB: more is a slip of the unit.
const MOST_MEMORY: u32 = 4 * 1024 * 1024;
/// Memory of a task, in MiB.
pub const MEMORY: RangeInclusive<u32> = LEAST_MEMORY..=MOST_MEMORY;
/// Processor share of a task, in MHz.
pub const CPU: RangeInclusive<u32> = 1..=1_000_000;
/// Memory that a compiled expression may take, bytes; the planner has the same bound.
const REGEX_SIZE: usize = 64 * 1024;

/// Signals of Linux by name.
const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

impl Rules {
    pub(crate) fn task(&mut self, at: &At, task: &Task, group: &Group) {
        // Lifecycles, services and templates are judged for the whole group, by rules of their own.
        let Task {
            name: _,
            driver,
            env: _,
            meta: _,
            constraints: _,
            resources: _,
            kill_timeout: _,
            kill_signal,
            shutdown_delay,
            user,
            lifecycle: _,
            leader: _,
            restart,
            templates: _,
            services: _,
            logs,
        } = task;
        self.name(&at.field("name"), &task.name, crate::rules::LONGEST_NAME);
        self.env(&at.field("env"), task);
        self.meta(&at.field("meta"), &task.meta);
        self.constraints(at, &task.constraints);
        self.resources(&at.field("resources"), task.resources);
        self.bounded(&at.field("kill_timeout"), task.kill_timeout, DAY);
        self.bounded(&at.field("shutdown_delay"), *shutdown_delay, DAY);
        if let Some(signal) = kill_signal {
            self.signal(&at.field("kill_signal"), signal);
        }
        if let Some(user) = user {
            let odd = |c: char| c.is_control() || c.is_whitespace();
            let place = at.field("user");
            self.unfilled(&place, user, "a user");
            if user.is_empty() || user.len() > LONGEST_ID || user.chars().any(odd) {
                self.error(
                    &place,
                    format!("{:?} is not a user", short(user)),
                    "write a name or a number, for example \"nobody\" or \"1000:20\"",
                );
            }
        }
        if let Some(restart) = restart {
            self.restart(&at.field("restart"), restart);
        }
        self.logs(&at.field("logs"), *logs);
        let config = at.field("config");
        match driver {
            Driver::Docker(docker) => self.docker(&config, docker, group),
            Driver::Exec(process) | Driver::RawExec(process) => self.process(&config, process, group),
        }
    }

    /// A signal by its name.
    pub(crate) fn signal(&mut self, at: &At, signal: &str) {
        if SIGNALS.contains(&signal) {
            return;
        }
        let upper = signal.to_ascii_uppercase();
        let whole = SIGNALS.into_iter().find(|s| *s == upper || s.strip_prefix("SIG") == Some(upper.as_str()));
        let help = match whole {
            Some(signal) => format!("write {signal:?}"),
            None => did_you_mean(signal, SIGNALS.into_iter()).unwrap_or_else(|| "write for example \"SIGTERM\" or \"SIGHUP\"".to_owned()),
        };
        self.error(at, format!("there is no signal {:?}", short(signal)), &help);
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
        let Resources { cpu, memory, memory_max, disk } = resources;
        if !DISK.contains(&disk) {
            self.error(&at.field("disk"), format!("disk {disk} is more than {} MiB", DISK.end()), "");
        }
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

    /// Does the node know what it is to fill in? Its attributes and meta values are not known here, its own names are.
    pub(crate) fn filled_in(&mut self, at: &At, text: &str) {
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
