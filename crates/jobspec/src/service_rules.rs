//! The rules for services and their checks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use skerry_wire::job::{Check, CheckKind, CheckRestart, Group, NetworkMode, Service};

use crate::names::did_you_mean;
use crate::policy_rules::DAY;
use crate::rules::{At, LONGEST_ID, MOST_ITEMS, Rules};

/// Successes or failures in a row.
pub const THRESHOLD: RangeInclusive<u32> = 0..=1000;
/// The longest path of a request, and the longest command.
const LONGEST_TEXT: usize = 1024;
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];
/// Headers that the node makes itself.
const OWN_HEADERS: [&str; 4] = ["host", "content-length", "connection", "transfer-encoding"];

impl Rules {
    /// The services of a group and of its tasks: one name of a check is one check.
    pub(crate) fn services(&mut self, at: &At, group: &Group) {
        let mut names = BTreeSet::new();
        self.some_services(at, &group.services, group, None, &mut names);
        for (i, task) in group.tasks.iter().enumerate() {
            self.some_services(&at.item("tasks", i, "task", &task.name), &task.services, group, Some(&task.name), &mut names);
        }
    }

    fn some_services<'g>(
        &mut self,
        at: &At,
        services: &'g [Service],
        group: &'g Group,
        owner: Option<&str>,
        names: &mut BTreeSet<&'g str>,
    ) {
        self.at_most(&at.field("services"), services.len(), MOST_ITEMS, "services");
        for (i, service) in services.iter().enumerate().take(MOST_ITEMS) {
            let at = at.item("services", i, "service", &service.name);
            self.plain(&at.field("name"), &service.name, LONGEST_ID);
            self.unfilled(&at.field("name"), &service.name, "the name of a service");
            self.at_most(&at.field("tags"), service.tags.len(), MOST_ITEMS, "tags");
            for (t, tag) in service.tags.iter().enumerate().take(MOST_ITEMS) {
                self.plain(&at.field("tags").field(&t.to_string()), tag, LONGEST_TEXT);
            }
            if let Some(label) = &service.port {
                self.port(&at.field("port"), label, group);
            }
            if service.checks.is_empty() {
                let help = "services are not registered; write a check, which the node runs";
                self.warning(&at, "a service without a check has no effect", help);
            }
            if let Some(restart) = service.check_restart {
                self.check_restart(&at.field("check_restart"), restart);
            }
            self.at_most(&at.field("checks"), service.checks.len(), MOST_ITEMS, "checks");
            for (c, check) in service.checks.iter().enumerate().take(MOST_ITEMS) {
                let at = at.item("checks", c, "check", &check.name);
                if !names.insert(&check.name) {
                    self.error(
                        &at,
                        format!("check {:?} is there twice in the group", check.name),
                        "give each a name of its own: name = \"...\"",
                    );
                }
                self.check(&at, check, service, group, owner);
            }
        }
    }

    fn check(&mut self, at: &At, check: &Check, service: &Service, group: &Group, owner: Option<&str>) {
        let Check { name, kind, interval, timeout, success_before_passing, failures_before_critical, check_restart, task } = check;
        self.plain(&at.field("name"), name, LONGEST_ID);
        self.unfilled(&at.field("name"), name, "the name of a check");
        if interval.0 < 1000 {
            self.error(&at.field("interval"), format!("interval {interval} is shorter than 1s"), "10s is usual");
        }
        self.bounded(&at.field("interval"), *interval, DAY);
        if timeout.0 == 0 {
            self.error(&at.field("timeout"), "a timeout of nothing", "2s is usual");
        }
        self.bounded(&at.field("timeout"), *timeout, DAY);
        if timeout > interval {
            self.warning(
                &at.field("timeout"),
                format!("timeout {timeout} is longer than interval {interval}"),
                "a slow run puts off the next one",
            );
        }
        let thresholds = [("success_before_passing", *success_before_passing), ("failures_before_critical", *failures_before_critical)];
        for (name, value) in thresholds.into_iter().filter(|(_, value)| !THRESHOLD.contains(value)) {
            self.error(&at.field(name), format!("{name} {value} is more than {}", THRESHOLD.end()), "0 is the default");
        }
        if let Some(restart) = check_restart {
            self.check_restart(&at.field("check_restart"), *restart);
        }
        if let Some(task) = task {
            self.task_of_check(&at.field("task"), task, group, owner);
        }
        match kind {
            CheckKind::Http { port, path, method, headers, body } => {
                self.port_of_check(at, port.as_ref(), service, group);
                self.request(at, path, method, headers, body);
            }
            CheckKind::Tcp { port } => self.port_of_check(at, port.as_ref(), service, group),
            CheckKind::Script { command, args } => {
                let place = at.field("command");
                if command.is_empty() || command.len() > LONGEST_TEXT || command.contains('\0') {
                    self.error(
                        &place,
                        format!("a command must have 1 to {LONGEST_TEXT} bytes"),
                        "write for example: command = \"/bin/check\"",
                    );
                }
                self.unfilled(&place, command, "the command of a check");
                self.args(&at.field("args"), args);
                if task.is_none() && owner.is_none() {
                    self.error(at, "a script check needs a task to run in", "write: task = \"name\", or write the service in the task");
                }
            }
        }
    }

    fn task_of_check(&mut self, at: &At, task: &str, group: &Group, owner: Option<&str>) {
        let known = group.tasks.iter().map(|t| &*t.name);
        if !group.tasks.iter().any(|t| t.name == task) {
            let names: Vec<&str> = known.take(MOST_ITEMS).collect();
            let help = did_you_mean(task, names.iter().copied()).unwrap_or_else(|| format!("there are: {}", names.join(", ")));
            self.error(at, format!("group {:?} has no task {:?}", group.name, short(task)), &help);
        } else if owner.is_some_and(|owner| owner != task) {
            self.error(at, "a service of a task with a check of another task", "write the service in the group");
        }
    }

    fn port_of_check(&mut self, at: &At, port: Option<&String>, service: &Service, group: &Group) {
        match port.or(service.port.as_ref()) {
            // A wrong port of the service is told there.
            Some(label) if port.is_some() => self.port(&at.field("port"), label, group),
            Some(_) => {}
            None => self.error(at, "a check without a port", "write port = \"label\" in the check or its service"),
        }
        if group.network.mode == NetworkMode::None {
            self.error(at, "a check by network in a network of mode none", "use a script, or mode = \"bridge\"");
        }
    }

    /// A label of a port of the group.
    pub(crate) fn port(&mut self, at: &At, label: &str, group: &Group) {
        if group.network.ports.iter().any(|p| p.label == label) {
            return;
        }
        let labels: Vec<&str> = group.network.ports.iter().map(|p| &*p.label).take(MOST_ITEMS).collect();
        let label = short(label);
        let number = label.bytes().all(|b| b.is_ascii_digit());
        let declare = if number {
            format!("declare it in the group: network {{ port \"http\" {{ to = {label} }} }}, and write its label here")
        } else {
            format!("declare it in the group: network {{ port \"{label}\" {{ to = 80 }} }}")
        };
        let help = did_you_mean(&label, labels.iter().copied()).unwrap_or(declare);
        self.error(at, format!("group {:?} has no port {label:?}", group.name), &help);
    }

    fn request(&mut self, at: &At, path: &str, method: &str, headers: &BTreeMap<String, String>, body: &str) {
        let place = at.field("path");
        let good = |c: char| c.is_ascii_graphic() && c != '#';
        if !path.starts_with('/') || path.len() > LONGEST_TEXT || !path.chars().all(good) {
            let help = "write for example path = \"/health?full=1\"; other characters as %20";
            self.error(&place, format!("{:?} is not the path of a request", short(path)), help);
        }
        self.unfilled(&place, path, "the path of a check");
        if !METHODS.contains(&method) {
            let help = format!("there are {}", METHODS.join(", "));
            self.error(&at.field("method"), format!("a check cannot use method {:?}", short(method)), &help);
        }
        let list = at.field("headers");
        self.at_most(&list, headers.len(), MOST_ITEMS, "headers");
        for (name, value) in headers.iter().take(MOST_ITEMS) {
            let at = list.field(name);
            let word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || name.len() > LONGEST_ID || !name.chars().all(word) {
                self.error(&at, format!("{:?} is not the name of a header", short(name)), "letters, digits and `-`");
            } else if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                self.error(&at, format!("the node itself sets header {name:?}"), "remove it");
            }
            if value.len() > LONGEST_TEXT || value.chars().any(char::is_control) {
                self.error(&at, "a header must have at most 1024 bytes and no control characters", "");
            }
            self.unfilled(&at, value, "a header");
        }
        self.unfilled(&at.field("body"), body, "the body of a check");
    }

    fn check_restart(&mut self, at: &At, restart: CheckRestart) {
        if !THRESHOLD.contains(&restart.limit) {
            self.error(&at.field("limit"), format!("limit {} is more than {}", restart.limit, THRESHOLD.end()), "0 never restarts");
        }
        self.bounded(&at.field("grace"), restart.grace, DAY);
    }

    /// A field that the node uses as it is written.
    pub(crate) fn unfilled(&mut self, at: &At, text: &str, what: &str) {
        if text.contains("${") {
            let help = "use var. or local., which are known when the job is submitted";
            self.error(at, format!("{what} is not filled in by the node"), help);
        }
    }
}

/// As much of a text as a message shows.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(LONGEST_ID).collect()
}
