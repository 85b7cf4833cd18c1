//! A task, its driver and its resources.

use hcl_edit::structure::Block;
use skerry_wire::Millis;
use skerry_wire::job::{DockerConfig, Driver, Resources, Task, Volume};

use super::job::read_constraints;
use super::{Reader, head};
use crate::diagnostic::Fault;
use crate::eval::span_of;
use crate::names::did_you_mean;
use crate::schema;
use crate::task_rules::{CPU, MEMORY};

/// Nomad's defaults.
const RESOURCES: Resources = Resources { cpu: 100, memory: 300, memory_max: None, disk: 0 };
const KILL_TIMEOUT: Millis = Millis::from_secs(5);

impl Reader<'_> {
    pub(super) fn task(&mut self, block: &Block, path: &str) -> Option<Task> {
        let name = self.label(block)?;
        self.spans.set(path, head(block));
        self.spans.set(format!("{path}.name"), block.labels.first().map_or_else(|| head(block), span_of));
        let e = self.sort(&block.body, &schema::TASK);
        self.driver(&e, block, path);
        let config = match self.one(&e, "config") {
            Some(block) => self.docker(block, &format!("{path}.config")),
            None => {
                let fault = Fault::new(head(block), format!("task `{name}` has no config"));
                self.sink.error(fault.help("write: config { image = \"name:tag\" }"));
                return None;
            }
        };
        let resources = match self.one(&e, "resources") {
            Some(block) => self.resources(block, &format!("{path}.resources")),
            None => RESOURCES,
        };
        let env = self.map(&e, "env", &format!("{path}.env"));
        let meta = self.map(&e, "meta", &format!("{path}.meta"));
        let constraints = read_constraints(self, &e, &format!("{path}.constraints"));
        let kill_timeout = self.span(&e, "kill_timeout", &format!("{path}.kill_timeout")).unwrap_or(KILL_TIMEOUT);
        Some(Task { env, meta, constraints, resources, kill_timeout, ..Task::new(&name, Driver::Docker(config)) })
    }

    fn driver(&mut self, e: &super::Entries<'_>, block: &Block, path: &str) {
        let at = format!("{path}.driver");
        match self.text(e, "driver", &at).as_deref() {
            Some("docker") => {}
            Some(other) => {
                let known = ["exec", "raw_exec", "java", "qemu", "podman", "containerd-driver", "mock_driver"];
                let help = match did_you_mean(other, ["docker"].into_iter()) {
                    Some(hint) => hint,
                    None if known.contains(&other) => "only docker is there; put the program in an image".to_owned(),
                    None => "write: driver = \"docker\"".to_owned(),
                };
                let at = self.spans.find(&at);
                self.sink.error(Fault::new(at, format!("there is no driver `{other}`")).help(help));
            }
            None if e.attributes.contains_key("driver") => {}
            None => self.sink.error(Fault::new(head(block), "a task without a driver").help("write: driver = \"docker\"")),
        }
    }

    fn docker(&mut self, block: &Block, path: &str) -> DockerConfig {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::CONFIG);
        let image = self.text(&e, "image", &format!("{path}.image")).unwrap_or_else(|| {
            if !e.attributes.contains_key("image") {
                self.sink.error(Fault::new(head(block), "config without an image").help("write: image = \"name:tag\""));
            }
            // Not judged again by the rules: the fault is told already.
            "missing".to_owned()
        });
        let command = self.text(&e, "command", &format!("{path}.command"));
        let args = self.texts(&e, "args", &format!("{path}.args"));
        let ports = self.texts(&e, "ports", &format!("{path}.ports"));
        let mut volumes = Vec::new();
        for (i, text) in self.texts(&e, "volumes", &format!("{path}.volumes")).iter().enumerate() {
            let at = self.spans.find(&format!("{path}.volumes.{i}"));
            match volume(text) {
                Ok(volume) => {
                    self.spans.set(format!("{path}.volumes.{}", volumes.len()), at);
                    volumes.push(volume);
                }
                Err(message) => {
                    let fault = Fault::new(at, message);
                    self.sink.error(fault.help("write: \"/path/on/node:/path/in/container\", with :ro at the end for read-only"));
                }
            }
        }
        DockerConfig { image, image_id: None, command, args, ports, volumes, ..DockerConfig::default() }
    }

    fn resources(&mut self, block: &Block, path: &str) -> Resources {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::RESOURCES);
        Resources {
            cpu: self.number(&e, "cpu", &format!("{path}.cpu"), &CPU).unwrap_or(RESOURCES.cpu),
            memory: self.number(&e, "memory", &format!("{path}.memory"), &MEMORY).unwrap_or(RESOURCES.memory),
            memory_max: self.number(&e, "memory_max", &format!("{path}.memory_max"), &MEMORY),
            disk: 0,
        }
    }
}

/// A bind mount as Docker writes it.
fn volume(text: &str) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, read_only) = match parts.as_slice() {
        [source, destination] => (*source, *destination, false),
        [source, destination, "ro"] => (*source, *destination, true),
        [source, destination, "rw"] => (*source, *destination, false),
        [_, _, option] => return Err(format!("there is no volume option `{option}`")),
        _ => return Err("a volume has a path on the node and a path in the container".to_owned()),
    };
    Ok(Volume { source: source.to_owned(), destination: destination.to_owned(), read_only })
}
