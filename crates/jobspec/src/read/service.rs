//! Services of a group or a task, and their checks.

use std::collections::BTreeMap;

use hcl::Value;
use hcl_edit::structure::{Block, Structure};
use skerry_wire::Millis;
use skerry_wire::job::{Check, CheckKind, CheckRestart, Service};

use super::{Entries, Reader, head};
use crate::diagnostic::Fault;
use crate::eval::{kind, scalar_text, span_of};
use crate::schema;
use crate::service_rules::THRESHOLD;

/// Nomad's span in which failures after a start do not count.
const GRACE: Millis = Millis::from_secs(1);

impl Reader<'_> {
    /// The services of a group or a task; `owner` is what a service without a name is called.
    pub(super) fn services(&mut self, e: &Entries<'_>, path: &str, owner: &str) -> Vec<Service> {
        let mut out = Vec::new();
        for block in e.blocks("service") {
            let service = self.service(block, &format!("{path}.services.{}", out.len()), owner);
            out.push(service);
        }
        out
    }

    fn service(&mut self, block: &Block, path: &str, owner: &str) -> Service {
        self.spans.set(path, head(block));
        self.no_label(block);
        let e = self.sort(&block.body, &schema::SERVICE);
        let name = self.text(&e, "name", &format!("{path}.name")).unwrap_or_else(|| owner.to_owned());
        let port = self.text(&e, "port", &format!("{path}.port"));
        let tags = self.texts(&e, "tags", &format!("{path}.tags"));
        let at = format!("{path}.provider");
        if self.choice(&e, "provider", &at, "provider", &[("nomad", false), ("consul", true)], "write \"nomad\", or nothing") == Some(true)
        {
            let fault = Fault::new(self.spans.find(&at), "there is no Consul, the service is not registered");
            self.sink.warning(fault.help("write \"nomad\"; the node itself runs the checks"));
        }
        self.address_mode(&e, path);
        let task = self.text(&e, "task", &format!("{path}.task"));
        let check_restart = self.one(&e, "check_restart").map(|b| self.check_restart(b, &format!("{path}.check_restart")));
        let mut checks: Vec<Check> = Vec::new();
        for block in e.blocks("check") {
            let check = self.check(block, &format!("{path}.checks.{}", checks.len()), &name, task.as_deref());
            checks.extend(check);
        }
        Service { name, port, tags, checks, check_restart }
    }

    fn check(&mut self, block: &Block, path: &str, service: &str, task: Option<&str>) -> Option<Check> {
        self.spans.set(path, head(block));
        self.no_label(block);
        let e = self.sort(&block.body, &schema::CHECK);
        let kinds = [("http", "http"), ("tcp", "tcp"), ("script", "script")];
        let help = "checks are \"http\", \"tcp\" and \"script\"";
        let kind = self.choice(&e, "type", &format!("{path}.type"), "type of check", &kinds, help);
        self.missing(&e, "type", block, "a check without a type", help);
        let mut spans = [None, None];
        for (slot, name) in spans.iter_mut().zip(["interval", "timeout"]) {
            *slot = self.span(&e, name, &format!("{path}.{name}"));
            self.missing(&e, name, block, &format!("a check without {name}"), "write for example: interval = \"10s\" and timeout = \"2s\"");
        }
        self.address_mode(&e, path);
        let success = self.number(&e, "success_before_passing", &format!("{path}.success_before_passing"), &THRESHOLD);
        let failures = self.number(&e, "failures_before_critical", &format!("{path}.failures_before_critical"), &THRESHOLD);
        let written = self.text(&e, "task", &format!("{path}.task"));
        let check_restart = self.one(&e, "check_restart").map(|b| self.check_restart(b, &format!("{path}.check_restart")));
        let name = self.text(&e, "name", &format!("{path}.name"));
        let (kind, word) = match kind? {
            "http" => (self.http(&e, path), "http"),
            "tcp" => (CheckKind::Tcp { port: self.text(&e, "port", &format!("{path}.port")) }, "tcp"),
            _ => (self.script(&e, block, path), "script"),
        };
        let others: &[&str] = match word {
            "http" => &["command", "args"],
            "tcp" => &["command", "args", "path", "method", "header", "body", "protocol"],
            _ => &["port", "path", "method", "header", "body", "protocol"],
        };
        for name in others {
            if let Some(at) = e.place(name) {
                self.sink.warning(Fault::new(at, format!("`{name}` has no effect in a {word} check")).help("remove it"));
            }
        }
        let [interval, timeout] = spans;
        Some(Check {
            name: name.unwrap_or_else(|| format!("{service}-{word}")),
            kind,
            interval: interval?,
            timeout: timeout?,
            success_before_passing: success.unwrap_or(0),
            failures_before_critical: failures.unwrap_or(0),
            check_restart,
            task: written.or_else(|| task.map(str::to_owned)),
        })
    }

    fn http(&mut self, e: &Entries<'_>, path: &str) -> CheckKind {
        let at = format!("{path}.protocol");
        if let Some(protocol) = self.text(e, "protocol", &at).filter(|p| p != "http") {
            let shown: String = protocol.chars().take(64).collect();
            let fault = Fault::new(self.spans.find(&at), format!("checks do not speak `{shown}`"));
            self.sink.error(fault.help("checks speak plain HTTP; use type = \"tcp\", or a script"));
        }
        CheckKind::Http {
            port: self.text(e, "port", &format!("{path}.port")),
            path: self.text(e, "path", &format!("{path}.path")).unwrap_or_else(|| "/".to_owned()),
            method: self.text(e, "method", &format!("{path}.method")).unwrap_or_else(|| "GET".to_owned()),
            headers: self.headers(e, &format!("{path}.headers")),
            body: self.text(e, "body", &format!("{path}.body")).unwrap_or_default(),
        }
    }

    fn script(&mut self, e: &Entries<'_>, block: &Block, path: &str) -> CheckKind {
        self.missing(e, "command", block, "a script check without a command", "write for example: command = \"/bin/check\"");
        CheckKind::Script {
            // Not judged again by the rules when it is missing: the fault is told already.
            command: self.text(e, "command", &format!("{path}.command")).unwrap_or_else(|| "missing".to_owned()),
            args: self.texts(e, "args", &format!("{path}.args")),
        }
    }

    fn check_restart(&mut self, block: &Block, path: &str) -> CheckRestart {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::CHECK_RESTART);
        self.missing(&e, "limit", block, "check_restart without a limit", "write for example: limit = 3");
        CheckRestart {
            limit: self.number(&e, "limit", &format!("{path}.limit"), &THRESHOLD).unwrap_or(0),
            grace: self.span(&e, "grace", &format!("{path}.grace")).unwrap_or(GRACE),
        }
    }

    fn address_mode(&mut self, e: &Entries<'_>, path: &str) {
        let at = format!("{path}.address_mode");
        let help = "checks ask the address where the port is; remove it, or write \"auto\"";
        self.choice(e, "address_mode", &at, "address mode", &[("auto", ()), ("host", ())], help);
    }

    /// Headers: a text, or as Nomad writes them a list of texts, which HTTP joins by commas.
    fn headers(&mut self, e: &Entries<'_>, path: &str) -> BTreeMap<String, String> {
        let mut found: Vec<(String, Value, std::ops::Range<usize>)> = Vec::new();
        if let Some((value, span)) = self.value(e, "header", path) {
            match value {
                Value::Object(map) => found.extend(map.into_iter().map(|(key, value)| (key, value, span.clone()))),
                other => self.sink.error(Fault::new(span, format!("`header` must be an object, this is {}", kind(&other)))),
            }
        }
        if let Some(block) = self.one(e, "header") {
            for structure in block.body.iter() {
                match structure {
                    Structure::Attribute(a) => match self.eval.eval(&a.value) {
                        Ok(value) => found.push((a.key.value().to_string(), value, span_of(&a.value))),
                        Err(fault) => self.sink.error(fault),
                    },
                    Structure::Block(b) => {
                        self.sink.error(Fault::new(head(b), "a block inside `header`").help("write lines of the form: NAME = [\"value\"]"));
                    }
                }
            }
        }
        let mut out = BTreeMap::new();
        for (key, value, span) in found {
            self.spans.set(format!("{path}.{key}"), span.clone());
            let text = match &value {
                Value::Array(items) => items.iter().map(scalar_text).collect::<Option<Vec<_>>>().map(|texts| texts.join(", ")),
                other => scalar_text(other),
            };
            match text {
                Some(text) => _ = out.insert(key, text),
                None if value.is_null() => {}
                None => {
                    let message = format!("`{key}` in `header` must be a string or a list of strings, this is {}", kind(&value));
                    self.sink.error(Fault::new(span, message).help("write: NAME = [\"value\"]"));
                }
            }
        }
        out
    }
}
