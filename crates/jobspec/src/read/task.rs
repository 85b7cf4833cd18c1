//! A task, its templates and its resources.

use hcl_edit::structure::Block;
use skerry_wire::job::{ChangeMode, Logs, Resources, RestartPolicy, Task, Template};

use super::job::read_constraints;
use super::{Reader, head};
use crate::diagnostic::Fault;
use crate::eval::span_of;
use crate::rules::DISK;
use crate::schema;
use crate::task_rules::{CPU, MEMORY};

/// Nomad's mode of a file, which everyone may read.
const PERMS: u32 = 0o644;

impl Reader<'_> {
    /// A task of a group whose restart policy is `restart`.
    pub(super) fn task(&mut self, block: &Block, path: &str, restart: RestartPolicy, service: &str) -> Option<Task> {
        let name = self.label(block)?;
        self.spans.set(path, head(block));
        self.spans.set(format!("{path}.name"), block.labels.first().map_or_else(|| head(block), span_of));
        let e = self.sort(&block.body, &schema::TASK);
        let driver = self.driver(&e, block, &name, path);
        let resources = match self.one(&e, "resources") {
            Some(block) => self.resources(block, &format!("{path}.resources")),
            None => Resources::default(),
        };
        let env = self.map(&e, "env", &format!("{path}.env"));
        let meta = self.map(&e, "meta", &format!("{path}.meta"));
        let constraints = read_constraints(self, &e, &format!("{path}.constraints"));
        let kill_timeout = self.span(&e, "kill_timeout", &format!("{path}.kill_timeout")).unwrap_or(Task::KILL_TIMEOUT);
        let kill_signal = self.text(&e, "kill_signal", &format!("{path}.kill_signal"));
        let shutdown_delay = self.wait(&e, "shutdown_delay", path);
        let user = self.text(&e, "user", &format!("{path}.user"));
        let lifecycle = self.one(&e, "lifecycle").and_then(|b| self.lifecycle(b, &format!("{path}.lifecycle")));
        let leader = self.flag(&e, "leader", &format!("{path}.leader")).unwrap_or(false);
        let restart = self.one(&e, "restart").map(|b| self.restart(b, &format!("{path}.restart"), restart));
        let mut templates = Vec::new();
        for block in e.blocks("template") {
            let template = self.template(block, &format!("{path}.templates.{}", templates.len()));
            templates.extend(template);
        }
        let services = self.services(&e, path, &format!("{service}-{name}"));
        let logs = self.one(&e, "logs").map_or_else(Logs::default, |b| self.logs(b, &format!("{path}.logs")));
        Some(Task {
            name,
            driver: driver?,
            env,
            meta,
            constraints,
            resources,
            kill_timeout,
            kill_signal,
            shutdown_delay,
            user,
            lifecycle,
            leader,
            restart,
            templates,
            services,
            logs,
        })
    }

    fn template(&mut self, block: &Block, path: &str) -> Option<Template> {
        self.spans.set(path, head(block));
        self.no_label(block);
        let e = self.sort(&block.body, &schema::TEMPLATE);
        if !block.body.has_attribute("source") {
            self.missing(&e, "data", block, "a template without data", "write: data = \"...\", or <<-EOT ... EOT");
        }
        let data = self.text(&e, "data", &format!("{path}.data"));
        self.missing(&e, "destination", block, "a template without a destination", "write for example: destination = \"local/app.conf\"");
        let destination = self.text(&e, "destination", &format!("{path}.destination")).map(|d| below(&d));
        let at = format!("{path}.change_mode");
        let signal = self.text(&e, "change_signal", &format!("{path}.change_signal"));
        let modes = [("noop", "noop"), ("restart", "restart"), ("signal", "signal")];
        let help = match e.attributes.get("change_mode").map(|a| self.eval.eval(&a.value)) {
            Some(Ok(value)) if value.as_str() == Some("script") => "scripts are not run on a change; use \"signal\" or \"restart\"",
            _ => "there are \"noop\", \"restart\" and \"signal\"",
        };
        let mode = self.choice(&e, "change_mode", &at, "change mode", &modes, help);
        let change_mode = match (mode, signal) {
            (Some("signal"), Some(signal)) => ChangeMode::Signal(signal),
            (Some("signal"), None) => {
                if !e.attributes.contains_key("change_signal") {
                    let fault = Fault::new(self.spans.find(&at), "change_mode \"signal\" without a signal");
                    self.sink.error(fault.help("write: change_signal = \"SIGHUP\""));
                }
                ChangeMode::Restart
            }
            (other, signal) => {
                if signal.is_some() {
                    let at = self.spans.find(&format!("{path}.change_signal"));
                    self.sink.error(Fault::new(at, "change_signal without change_mode").help("write: change_mode = \"signal\""));
                }
                if other == Some("noop") { ChangeMode::Noop } else { ChangeMode::Restart }
            }
        };
        let perms = self.perms(&e, &format!("{path}.perms"));
        Some(Template {
            env: self.flag(&e, "env", &format!("{path}.env")).unwrap_or(false),
            left_delimiter: self.text(&e, "left_delimiter", &format!("{path}.left_delimiter")).unwrap_or_else(|| "{{".to_owned()),
            right_delimiter: self.text(&e, "right_delimiter", &format!("{path}.right_delimiter")).unwrap_or_else(|| "}}".to_owned()),
            error_on_missing_key: self.flag(&e, "error_on_missing_key", &format!("{path}.error_on_missing_key")).unwrap_or(false),
            change_mode,
            perms,
            data: data?,
            destination: destination?,
        })
    }

    /// The mode of a file, in octal digits as `chmod` takes them.
    fn perms(&mut self, e: &super::Entries<'_>, path: &str) -> u32 {
        let Some(text) = self.text(e, "perms", path) else { return PERMS };
        let digits = (3..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(&text, 8) {
            Ok(perms) if digits => perms,
            _ => {
                let shown: String = text.chars().take(40).collect();
                let fault = Fault::new(self.spans.find(path), format!("`perms` must be octal digits, this is `{shown}`"));
                self.sink.error(fault.help("write for example \"0644\", or \"0600\" for secrets"));
                PERMS
            }
        }
    }

    fn resources(&mut self, block: &Block, path: &str) -> Resources {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::RESOURCES);
        let base = Resources::default();
        Resources {
            cpu: self.number(&e, "cpu", &format!("{path}.cpu"), &CPU).unwrap_or(base.cpu),
            memory: self.number(&e, "memory", &format!("{path}.memory"), &MEMORY).unwrap_or(base.memory),
            memory_max: self.number(&e, "memory_max", &format!("{path}.memory_max"), &MEMORY),
            disk: self.number(&e, "disk", &format!("{path}.disk"), &DISK).unwrap_or(base.disk),
        }
    }
}

/// Nomad's names for the folders of a task, as the folders themselves: the node has them in one place.
fn below(destination: &str) -> String {
    for (name, folder) in [("NOMAD_TASK_DIR", "local"), ("NOMAD_SECRETS_DIR", "secrets"), ("NOMAD_ALLOC_DIR", "alloc")] {
        let rest = [format!("${{{name}}}/"), format!("${{env[\"{name}\"]}}/")]
            .into_iter()
            .find_map(|p| destination.strip_prefix(&p).map(str::to_owned));
        if let Some(rest) = rest {
            return format!("{folder}/{rest}");
        }
    }
    destination.to_owned()
}
