//! What runs a task: the driver and its config.

use hcl::Value;
use hcl_edit::expr::Expression;
use hcl_edit::structure::Block;
use skerry_wire::job::{Device, DockerConfig, Driver, ProcessConfig, Volume};

use super::{Entries, Reader, head};
use crate::diagnostic::Fault;
use crate::eval::kind;
use crate::names::did_you_mean;
use crate::schema;

/// Drivers by name.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Docker,
    Exec,
    RawExec,
}

impl Reader<'_> {
    /// The driver of a task; none when there is no config.
    pub(super) fn driver(&mut self, e: &Entries<'_>, block: &Block, name: &str, path: &str) -> Option<Driver> {
        let kind = self.kind(e, block, path);
        let Some(config) = self.one(e, "config") else {
            let help = match kind {
                Kind::Docker => "write: config { image = \"name:tag\" }",
                Kind::Exec | Kind::RawExec => "write: config { command = \"/path/of/program\" }",
            };
            self.sink.error(Fault::new(head(block), format!("task `{name}` has no config")).help(help));
            return None;
        };
        let path = format!("{path}.config");
        Some(match kind {
            Kind::Docker => Driver::Docker(self.docker(config, &path)),
            Kind::Exec => Driver::Exec(self.process(config, &path)),
            Kind::RawExec => Driver::RawExec(self.process(config, &path)),
        })
    }

    fn kind(&mut self, e: &Entries<'_>, block: &Block, path: &str) -> Kind {
        let at = format!("{path}.driver");
        match self.text(e, "driver", &at).as_deref() {
            Some("docker") => return Kind::Docker,
            Some("exec") => return Kind::Exec,
            Some("raw_exec") => return Kind::RawExec,
            Some("podman") => {
                let fault = Fault::new(self.spans.find(&at), "there is no driver `podman`");
                self.sink.error(fault.help("write \"docker\": it uses podman's socket where that is the node's engine"));
            }
            Some(other) => {
                let known = ["java", "qemu", "exec2", "containerd-driver", "mock_driver"];
                let help = match did_you_mean(other, ["docker", "exec", "raw_exec"].into_iter()) {
                    Some(hint) => hint,
                    None if known.contains(&other) => "put the program in an image and use docker, or use exec".to_owned(),
                    None => "drivers are \"docker\", \"exec\" and \"raw_exec\"".to_owned(),
                };
                let shown: String = other.chars().take(64).collect();
                self.sink.error(Fault::new(self.spans.find(&at), format!("there is no driver `{shown}`")).help(help));
            }
            None if e.attributes.contains_key("driver") => {}
            None => self.sink.error(Fault::new(head(block), "a task without a driver").help("write: driver = \"docker\"")),
        }
        // Judged by what its config looks like, so that one fault does not bring others.
        let process = e.blocks("config").first().is_some_and(|b| !b.body.has_attribute("image") && b.body.has_attribute("command"));
        if process { Kind::Exec } else { Kind::Docker }
    }

    fn process(&mut self, block: &Block, path: &str) -> ProcessConfig {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::PROCESS);
        self.missing(&e, "command", block, "config without a command", "write: command = \"/path/of/program\"");
        ProcessConfig {
            // Not judged again by the rules when it is missing: the fault is told already.
            command: self.text(&e, "command", &format!("{path}.command")).unwrap_or_else(|| "/missing".to_owned()),
            args: self.texts(&e, "args", &format!("{path}.args")),
            work_dir: self.text(&e, "work_dir", &format!("{path}.work_dir")),
        }
    }

    fn docker(&mut self, block: &Block, path: &str) -> DockerConfig {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::DOCKER);
        self.missing(&e, "image", block, "config without an image", "write: image = \"name:tag\"");
        // Not judged again by the rules when it is missing: the fault is told already.
        let image = self.text(&e, "image", &format!("{path}.image")).unwrap_or_else(|| "missing".to_owned());
        // A fault of the list is told already: without its words there is nothing to judge.
        let is_list = e.attributes.get("entrypoint").is_some_and(|a| matches!(a.value, Expression::Array(_)));
        let words = self.texts(&e, "entrypoint", &format!("{path}.entrypoint"));
        let entrypoint = (is_list || !words.is_empty()).then_some(words);
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
        DockerConfig {
            image,
            image_id: None,
            command: self.text(&e, "command", &format!("{path}.command")),
            args: self.texts(&e, "args", &format!("{path}.args")),
            ports: self.texts(&e, "ports", &format!("{path}.ports")),
            volumes,
            entrypoint,
            work_dir: self.text(&e, "work_dir", &format!("{path}.work_dir")),
            devices: self.devices(&e, &format!("{path}.devices")),
            privileged: self.flag(&e, "privileged", &format!("{path}.privileged")).unwrap_or(false),
            cap_add: self.rights(&e, "cap_add", path),
            cap_drop: self.rights(&e, "cap_drop", path),
        }
    }

    /// Rights of the kernel in one spelling: `CAP_NET_ADMIN` is `net_admin`.
    fn rights(&mut self, e: &Entries<'_>, name: &str, path: &str) -> Vec<String> {
        let plain = |word: &String| {
            let word = word.to_lowercase();
            word.strip_prefix("cap_").map_or(word.clone(), str::to_owned)
        };
        self.texts(e, name, &format!("{path}.{name}")).iter().map(plain).collect()
    }

    /// Devices: a list of objects, or one block for each.
    fn devices(&mut self, e: &Entries<'_>, path: &str) -> Vec<Device> {
        let mut out: Vec<Device> = Vec::new();
        let new = || Device { host_path: String::new(), container_path: None, cgroup_permissions: "rwm".to_owned() };
        if let Some((value, span)) = self.value(e, "devices", path) {
            let items = match value {
                Value::Array(items) => items,
                other => {
                    let fault = Fault::new(span, format!("`devices` must be a list of objects, this is {}", kind(&other)));
                    self.sink.error(fault.help("write: devices = [{ host_path = \"/dev/video0\" }]"));
                    Vec::new()
                }
            };
            for (i, item) in items.into_iter().enumerate() {
                let at = self.spans.find(&format!("{path}.{i}"));
                let mut device = new();
                let Value::Object(map) = item else {
                    let fault = Fault::new(at, format!("a device must be an object, this is {}", kind(&item)));
                    self.sink.error(fault.help("write: devices = [{ host_path = \"/dev/video0\" }]"));
                    continue;
                };
                for (key, value) in map {
                    match (key.as_str(), value.as_str()) {
                        ("host_path", Some(text)) => text.clone_into(&mut device.host_path),
                        ("container_path", Some(text)) => device.container_path = Some(text.to_owned()),
                        ("cgroup_permissions", Some(text)) => text.clone_into(&mut device.cgroup_permissions),
                        ("host_path" | "container_path" | "cgroup_permissions", None) => {
                            self.sink.error(Fault::new(at.clone(), format!("`{key}` must be a string, this is {}", kind(&value))));
                        }
                        _ => {
                            let names = schema::DEVICE.names.iter().map(|(name, _)| *name);
                            let help = did_you_mean(&key, names)
                                .unwrap_or_else(|| "there are: host_path, container_path, cgroup_permissions".to_owned());
                            let shown: String = key.chars().take(64).collect();
                            self.sink.error(Fault::new(at.clone(), format!("unknown name `{shown}` in a device")).help(help));
                        }
                    }
                }
                self.spans.set(format!("{path}.{}", out.len()), at);
                out.push(device);
            }
        }
        for block in e.blocks("devices") {
            let path = format!("{path}.{}", out.len());
            self.spans.set(path.as_str(), head(block));
            let e = self.sort(&block.body, &schema::DEVICE);
            let base = new();
            out.push(Device {
                host_path: self.text(&e, "host_path", &format!("{path}.host_path")).unwrap_or_default(),
                container_path: self.text(&e, "container_path", &format!("{path}.container_path")),
                cgroup_permissions: self
                    .text(&e, "cgroup_permissions", &format!("{path}.cgroup_permissions"))
                    .unwrap_or(base.cgroup_permissions),
            });
        }
        out
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
