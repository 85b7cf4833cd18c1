//! Job, group and task as names and texts.
//!
//! Every struct is taken apart by name, without `..`, so that a new field cannot be forgotten here.

use skerry_wire::job::{
    ChangeMode, Check, CheckKind, CheckRestart, Constraint, Device, DockerConfig, Driver, Group, Hook, Job, JobType, Lifecycle, Logs,
    Network, NetworkMode, Operator, Port, ProcessConfig, Resources, Service, Task, Template, Volume,
};

use super::Part;

pub(super) fn of_job(job: &Job) -> Part {
    let Job { id, name, kind, priority, node_pool, datacenters, constraints, meta, periodic, groups } = job;
    let mut part = Part { name: format!("job {id:?}"), ..Part::default() };
    part.text("id", id);
    part.text("name", name);
    part.plain(
        "type",
        match kind {
            JobType::Service => "service",
            JobType::System => "system",
            JobType::Batch => "batch",
            JobType::SysBatch => "sysbatch",
        },
    );
    part.plain("priority", priority);
    part.text("node_pool", node_pool);
    part.list("datacenters", datacenters);
    part.constraints(constraints);
    part.map("meta", meta);
    if let Some(periodic) = periodic {
        part.periodic(periodic);
    }
    part.parts = groups.iter().map(of_group).collect();
    part
}

fn of_group(group: &Group) -> Part {
    let Group {
        name,
        count,
        constraints,
        network,
        restart,
        reschedule,
        update,
        disconnect,
        services,
        shutdown_delay,
        max_run_duration,
        meta,
        tasks,
    } = group;
    let mut part = Part { name: format!("group {name:?}"), ..Part::default() };
    part.plain("count", count);
    part.constraints(constraints);
    let Network { mode, ports } = network;
    part.plain(
        "network.mode",
        match mode {
            NetworkMode::Host => "host",
            NetworkMode::Bridge => "bridge",
            NetworkMode::None => "none",
        },
    );
    for Port { label, fixed, to } in ports {
        let outside = fixed.map_or_else(|| "dynamic".to_owned(), |n| n.to_string());
        let inside = to.map_or_else(|| outside.clone(), |n| n.to_string());
        part.plain(&format!("network.port.{label}"), format!("{outside} to {inside}"));
    }
    part.restart(restart);
    part.reschedule(reschedule);
    part.update(update);
    part.disconnect(disconnect);
    part.maybe("shutdown_delay", Some(shutdown_delay).filter(|d| d.0 > 0));
    part.maybe("max_run_duration", *max_run_duration);
    part.map("meta", meta);
    part.parts = of_services(services);
    part.parts.extend(tasks.iter().map(of_task));
    part
}

fn of_task(task: &Task) -> Part {
    let Task {
        name,
        driver,
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
    } = task;
    let mut part = Part { name: format!("task {name:?}"), ..Part::default() };
    part.plain("driver", driver.name());
    match driver {
        Driver::Docker(config) => part.docker(config),
        Driver::Exec(config) | Driver::RawExec(config) => part.process(config),
    }
    part.map("env", env);
    part.map("meta", meta);
    part.constraints(constraints);
    let Resources { cpu, memory, memory_max, disk } = resources;
    part.plain("resources.cpu", format!("{cpu} MHz"));
    part.plain("resources.memory", format!("{memory} MiB"));
    part.maybe("resources.memory_max", memory_max.map(|most| format!("{most} MiB")));
    part.maybe("resources.disk", Some(disk).filter(|d| **d > 0).map(|disk| format!("{disk} MiB")));
    part.plain("kill_timeout", kill_timeout);
    part.maybe("kill_signal", kill_signal.as_ref());
    part.maybe("shutdown_delay", Some(shutdown_delay).filter(|d| d.0 > 0));
    part.maybe("user", user.as_ref().map(|user| format!("{user:?}")));
    if let Some(Lifecycle { hook, sidecar }) = lifecycle {
        let hook = match hook {
            Hook::Prestart => "prestart",
            Hook::Poststart => "poststart",
            Hook::Poststop => "poststop",
        };
        part.plain("lifecycle.hook", hook);
        part.plain("lifecycle.sidecar", sidecar);
    }
    part.on("leader", *leader);
    if let Some(restart) = restart {
        part.restart(restart);
    }
    let Logs { max_files, max_file_size, disabled } = logs;
    part.plain("logs.max_files", max_files);
    part.plain("logs.max_file_size", format!("{max_file_size} MiB"));
    part.on("logs.disabled", *disabled);
    part.parts = templates.iter().map(of_template).collect();
    part.parts.extend(of_services(services));
    part
}

fn of_template(template: &Template) -> Part {
    let Template { data, destination, env, change_mode, perms, left_delimiter, right_delimiter, error_on_missing_key } = template;
    let mut part = Part { name: format!("template {destination:?}"), ..Part::default() };
    for (i, line) in data.split('\n').enumerate() {
        part.text(format!("data[{i:0>6}]"), line);
    }
    part.on("env", *env);
    match change_mode {
        ChangeMode::Noop => part.plain("change_mode", "noop"),
        ChangeMode::Restart => part.plain("change_mode", "restart"),
        ChangeMode::Signal(signal) => {
            part.plain("change_mode", "signal");
            part.plain("change_signal", signal);
        }
    }
    part.plain("perms", format!("{perms:04o}"));
    part.text("left_delimiter", left_delimiter);
    part.text("right_delimiter", right_delimiter);
    part.on("error_on_missing_key", *error_on_missing_key);
    part
}

/// Services by name; of those with one name the second is `#2`.
fn of_services(services: &[Service]) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::with_capacity(services.len());
    for (i, service) in services.iter().enumerate() {
        let Service { name, port, tags, checks, check_restart } = service;
        let same = services[..i].iter().filter(|s| s.name == *name).count();
        let number = if same == 0 { String::new() } else { format!(" #{}", same + 1) };
        let mut part = Part { name: format!("service {name:?}{number}"), ..Part::default() };
        part.maybe("port", port.as_ref().map(|port| format!("{port:?}")));
        part.list("tags", tags);
        part.check_restart(*check_restart);
        part.parts = checks.iter().map(of_check).collect();
        out.push(part);
    }
    out
}

fn of_check(check: &Check) -> Part {
    let Check { name, kind, interval, timeout, success_before_passing, failures_before_critical, check_restart, task } = check;
    let mut part = Part { name: format!("check {name:?}"), ..Part::default() };
    match kind {
        CheckKind::Http { port, path, method, headers, body } => {
            part.plain("type", "http");
            part.maybe("port", port.as_ref().map(|port| format!("{port:?}")));
            part.text("path", path);
            part.plain("method", method);
            part.map("header", headers);
            part.maybe("body", Some(body).filter(|b| !b.is_empty()).map(|body| format!("{body:?}")));
        }
        CheckKind::Tcp { port } => {
            part.plain("type", "tcp");
            part.maybe("port", port.as_ref().map(|port| format!("{port:?}")));
        }
        CheckKind::Script { command, args } => {
            part.plain("type", "script");
            part.text("command", command);
            part.list("args", args);
        }
    }
    part.plain("interval", interval);
    part.plain("timeout", timeout);
    part.maybe("success_before_passing", Some(success_before_passing).filter(|n| **n > 0));
    part.maybe("failures_before_critical", Some(failures_before_critical).filter(|n| **n > 0));
    part.check_restart(*check_restart);
    part.maybe("task", task.as_ref().map(|task| format!("{task:?}")));
    part
}

impl Part {
    fn constraints(&mut self, list: &[Constraint]) {
        for (i, Constraint { attribute, operator, value }) in list.iter().enumerate() {
            let space = if value.is_empty() { "" } else { " " };
            self.text(format!("constraint[{i:0>3}]"), &format!("{attribute} {}{space}{value}", word(*operator)));
        }
    }

    fn check_restart(&mut self, restart: Option<CheckRestart>) {
        if let Some(CheckRestart { limit, grace }) = restart {
            self.plain("check_restart.limit", limit);
            self.plain("check_restart.grace", grace);
        }
    }

    fn process(&mut self, config: &ProcessConfig) {
        let ProcessConfig { command, args, work_dir } = config;
        self.text("config.command", command);
        self.list("config.args", args);
        self.maybe("config.work_dir", work_dir.as_ref().map(|folder| format!("{folder:?}")));
    }

    fn docker(&mut self, config: &DockerConfig) {
        let DockerConfig { image, image_id, command, args, ports, volumes, entrypoint, work_dir, devices, privileged, cap_add, cap_drop } =
            config;
        self.text("config.image", image);
        self.maybe("config.image_id", *image_id);
        self.maybe("config.command", command.as_ref().map(|command| format!("{command:?}")));
        self.list("config.args", args);
        self.list("config.ports", ports);
        for Volume { source, destination, read_only } in volumes {
            self.text(format!("config.volume.{destination}"), &format!("{source}{}", if *read_only { " (read-only)" } else { "" }));
        }
        self.list("config.entrypoint", entrypoint.as_deref().unwrap_or_default());
        self.maybe("config.work_dir", work_dir.as_ref().map(|folder| format!("{folder:?}")));
        for Device { host_path, container_path, cgroup_permissions } in devices {
            let inside = container_path.as_ref().unwrap_or(host_path);
            self.text(format!("config.device.{inside}"), &format!("{host_path} ({cgroup_permissions})"));
        }
        self.on("config.privileged", *privileged);
        self.list("config.cap_add", cap_add);
        self.list("config.cap_drop", cap_drop);
    }
}

const fn word(operator: Operator) -> &'static str {
    match operator {
        Operator::Equal => "=",
        Operator::NotEqual => "!=",
        Operator::Greater => ">",
        Operator::GreaterOrEqual => ">=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Regexp => "regexp",
        Operator::Version => "version",
        Operator::SetContainsAll => "set_contains_all",
        Operator::SetContainsAny => "set_contains_any",
        Operator::IsSet => "is_set",
        Operator::IsNotSet => "is_not_set",
    }
}
