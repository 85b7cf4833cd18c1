//! The job and its groups.

use hcl_edit::structure::{Block, Body};
use skerry_wire::job::{Constraint, Group, Job, JobType, Network, NetworkMode, Operator, Port, Reschedule, RestartPolicy, Task, Update};

use super::{Entries, Reader, head};
use crate::diagnostic::Fault;
use crate::names::did_you_mean;
use crate::rules::{COUNT, PORT, PRIORITY};
use crate::schema;

/// Operators as they are written, and the sugar fields of the same name.
const OPERATORS: [(&str, Operator); 16] = [
    ("=", Operator::Equal),
    ("==", Operator::Equal),
    ("is", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("not", Operator::NotEqual),
    (">", Operator::Greater),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    ("<=", Operator::LessOrEqual),
    ("regexp", Operator::Regexp),
    ("version", Operator::Version),
    ("set_contains", Operator::SetContainsAll),
    ("set_contains_all", Operator::SetContainsAll),
    ("set_contains_any", Operator::SetContainsAny),
    ("is_set", Operator::IsSet),
    ("is_not_set", Operator::IsNotSet),
];

/// Reads the one job of a text; its faults are in the sink.
pub(crate) fn read_job(reader: &mut Reader<'_>, body: &Body) -> Option<Job> {
    let top = reader.sort(body, &schema::TOP);
    let jobs = top.blocks("job");
    for extra in jobs.iter().skip(1) {
        reader.sink.error(Fault::new(head(extra), "a second job in one file").help("write one job per file"));
    }
    let Some(block) = jobs.first() else {
        if !reader.sink.has_errors() {
            reader.sink.whole("there is no job in this file", "write: job \"name\" { ... }");
        }
        return None;
    };
    let label = reader.label(block)?;
    let spans = &mut reader.spans;
    spans.set("", head(block));
    spans.set("id", block.labels.first().map_or_else(|| head(block), super::span_of));
    let e = reader.sort(&block.body, &schema::JOB);
    for (field, only) in [("namespace", "default"), ("region", "global")] {
        if let Some(text) = reader.text(&e, field, field)
            && text != only
        {
            let at = reader.spans.find(field);
            let fault = Fault::new(at, format!("there is no {field} `{text}`"));
            reader.sink.error(fault.help(format!("remove it, or write \"{only}\"; node_pool and datacenters part a fleet")));
        }
    }
    let id = reader.text(&e, "id", "id").unwrap_or(label);
    let name = reader.text(&e, "name", "name").unwrap_or_else(|| id.clone());
    let kind = job_type(reader, &e);
    let priority = reader.number(&e, "priority", "priority", &PRIORITY).unwrap_or(50);
    let node_pool = reader.text(&e, "node_pool", "node_pool").unwrap_or_else(|| "default".to_owned());
    let mut datacenters = reader.texts(&e, "datacenters", "datacenters");
    if datacenters.is_empty() {
        datacenters.push("*".to_owned());
    }
    let constraints = read_constraints(reader, &e, "constraints");
    let meta = reader.map(&e, "meta", "meta");
    let periodic = reader.one(&e, "periodic").map(|b| reader.periodic(b));
    let base = base(reader, &e, kind);
    let mut groups = Vec::new();
    for block in e.blocks("group") {
        let path = format!("groups.{}", groups.len());
        groups.extend(read_group(reader, block, &path, &id, base));
    }
    // A task directly in the job is a group of its own with the same name.
    for block in e.blocks("task") {
        let path = format!("groups.{}", groups.len());
        reader.spans.set(path.as_str(), head(block));
        let label = block.labels.first().map_or("", |l| l.as_str());
        if let Some(task) = reader.task(block, &format!("{path}.tasks.0"), base.restart, &format!("{id}-{label}")) {
            let Base { restart, reschedule, update } = base;
            groups.push(Group { restart, reschedule, update, ..Group::new(&task.name.clone(), vec![task]) });
        }
    }
    Some(Job { id, name, kind, priority, node_pool, datacenters, constraints, meta, periodic, groups })
}

/// What holds for groups that do not say it themselves.
#[derive(Debug, Clone, Copy)]
struct Base {
    restart: RestartPolicy,
    reschedule: Reschedule,
    update: Update,
}

/// The defaults of the job's type, with what the job itself says for all its groups.
fn base(reader: &mut Reader<'_>, e: &Entries<'_>, kind: JobType) -> Base {
    let (restart, reschedule) = match kind.runs_to_end() {
        true => (RestartPolicy::BATCH, Reschedule::BATCH),
        false => (RestartPolicy::EDGE, Reschedule::SERVICE),
    };
    Base {
        restart,
        reschedule: reader.one(e, "reschedule").map_or(reschedule, |b| reader.reschedule(b, "reschedule", reschedule)),
        update: reader.one(e, "update").map_or_else(Update::default, |b| reader.update(b, "update", Update::default())),
    }
}

fn job_type(reader: &mut Reader<'_>, e: &Entries<'_>) -> JobType {
    let types = [("service", JobType::Service), ("system", JobType::System), ("batch", JobType::Batch), ("sysbatch", JobType::SysBatch)];
    let help = "types are \"service\" and \"batch\" (count allocations), \"system\" and \"sysbatch\" (on every node)";
    reader.choice(e, "type", "type", "job type", &types, help).unwrap_or(JobType::Service)
}

fn read_group(reader: &mut Reader<'_>, block: &Block, path: &str, job: &str, base: Base) -> Option<Group> {
    let name = reader.label(block)?;
    reader.spans.set(path, head(block));
    reader.spans.set(format!("{path}.name"), block.labels.first().map_or_else(|| head(block), super::span_of));
    let e = reader.sort(&block.body, &schema::GROUP);
    let count = reader.number(&e, "count", &format!("{path}.count"), &COUNT).unwrap_or(1);
    let constraints = read_constraints(reader, &e, &format!("{path}.constraints"));
    let network = match reader.one(&e, "network") {
        Some(block) => read_network(reader, block, &format!("{path}.network")),
        None => Network::default(),
    };
    let at = |name: &str| format!("{path}.{name}");
    let restart = reader.one(&e, "restart").map_or(base.restart, |b| reader.restart(b, &at("restart"), base.restart));
    let reschedule = reader.one(&e, "reschedule").map_or(base.reschedule, |b| reader.reschedule(b, &at("reschedule"), base.reschedule));
    let update = reader.one(&e, "update").map_or(base.update, |b| reader.update(b, &at("update"), base.update));
    let disconnect = reader.one(&e, "disconnect").map(|b| reader.disconnect(b, &at("disconnect"))).unwrap_or_default();
    let owner = format!("{job}-{name}");
    let services = reader.services(&e, path, &owner);
    let shutdown_delay = reader.wait(&e, "shutdown_delay", path);
    let max_run_duration = reader.span(&e, "max_run_duration", &at("max_run_duration"));
    let meta = reader.map(&e, "meta", &at("meta"));
    let disk = reader.one(&e, "ephemeral_disk").and_then(|b| reader.ephemeral_disk(b, &at("ephemeral_disk")));
    let mut tasks = Vec::new();
    for block in e.blocks("task") {
        let task = reader.task(block, &format!("{path}.tasks.{}", tasks.len()), restart, &owner);
        tasks.extend(task);
    }
    if let Some(disk) = disk {
        share_disk(reader, path, disk, &mut tasks);
    }
    Some(Group {
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
    })
}

/// The size of Nomad's `ephemeral_disk` is of the allocation; here a task says what it needs. The first one speaks for all.
fn share_disk(reader: &mut Reader<'_>, path: &str, disk: u32, tasks: &mut [Task]) {
    let at = reader.spans.find(&format!("{path}.ephemeral_disk.size"));
    if tasks.iter().any(|t| t.resources.disk > 0) {
        let fault = Fault::new(at, "the size of ephemeral_disk beside `disk` in resources");
        reader.sink.error(fault.help("write one of them"));
    } else if let Some(first) = tasks.first_mut() {
        first.resources.disk = disk;
        reader.spans.set(format!("{path}.tasks.0.resources.disk"), at);
    }
}

fn read_network(reader: &mut Reader<'_>, block: &Block, path: &str) -> Network {
    reader.spans.set(path, head(block));
    let e = reader.sort(&block.body, &schema::NETWORK);
    let modes = [("host", NetworkMode::Host), ("bridge", NetworkMode::Bridge), ("none", NetworkMode::None)];
    let help = "modes are \"host\", \"bridge\" and \"none\"";
    let mode = reader.choice(&e, "mode", &format!("{path}.mode"), "network mode", &modes, help).unwrap_or_default();
    let mut ports = Vec::new();
    for block in e.blocks("port") {
        ports.extend(read_port(reader, block, &format!("{path}.ports.{}", ports.len())));
    }
    Network { mode, ports }
}

fn read_port(reader: &mut Reader<'_>, block: &Block, path: &str) -> Option<Port> {
    let label = reader.label(block)?;
    reader.spans.set(path, head(block));
    let e = reader.sort(&block.body, &schema::PORT);
    let fixed = reader.number(&e, "static", &format!("{path}.static"), &PORT);
    // Nomad writes -1 for "the same as outside", which is what none means.
    let same = match e.attributes.get("to") {
        Some(a) => matches!(reader.eval.eval(&a.value), Ok(v) if v.as_number().and_then(hcl::Number::as_i64) == Some(-1)),
        None => false,
    };
    let to = if same { None } else { reader.number(&e, "to", &format!("{path}.to"), &PORT) };
    Some(Port { label, fixed, to })
}

pub(super) fn read_constraints(reader: &mut Reader<'_>, entries: &Entries<'_>, path: &str) -> Vec<Constraint> {
    let mut out = Vec::new();
    for block in entries.blocks("constraint") {
        let path = format!("{path}.{}", out.len());
        out.extend(read_constraint(reader, block, &path));
    }
    out
}

fn read_constraint(reader: &mut Reader<'_>, block: &Block, path: &str) -> Option<Constraint> {
    reader.spans.set(path, head(block));
    let e = reader.sort(&block.body, &schema::CONSTRAINT);
    let (value_at, operator_at) = (format!("{path}.value"), format!("{path}.operator"));
    let written = reader.text(&e, "operator", &operator_at);
    let mut value = reader.text(&e, "value", &value_at);
    let mut operator = match written.as_deref() {
        None => Operator::Equal,
        Some(word) => match OPERATORS.iter().find(|(w, _)| *w == word) {
            Some((_, operator)) => *operator,
            None => {
                let refused = schema::CONSTRAINT.names.iter().find_map(|(n, v)| match v {
                    schema::Verdict::Refused(help) if *n == word => Some((*help).to_owned()),
                    _ => None,
                });
                let words: Vec<&str> = OPERATORS.iter().map(|(w, _)| *w).collect();
                let hint = did_you_mean(word, words.iter().copied());
                let help = refused.or(hint).unwrap_or_else(|| format!("there are: {}", words.join(" ")));
                reader.sink.error(Fault::new(reader.spans.find(&operator_at), format!("there is no operator `{word}`")).help(help));
                return None;
            }
        },
    };
    let mut sugar: Option<&str> = None;
    for (word, meant) in OPERATORS.iter().filter(|(w, _)| e.attributes.contains_key(w)) {
        if written.is_some() || value.is_some() || sugar.is_some() {
            let fault = Fault::new(head(block), format!("`{word}` beside another operator"));
            reader.sink.error(fault.help("write one constraint block for each condition"));
            return None;
        }
        sugar = Some(*word);
        operator = *meant;
        if matches!(meant, Operator::IsSet | Operator::IsNotSet) {
            if reader.flag(&e, word, &operator_at) == Some(false) {
                let other = if *word == "is_set" { "is_not_set" } else { "is_set" };
                let fault = Fault::new(reader.spans.find(&operator_at), format!("`{word}` cannot be false"));
                reader.sink.error(fault.help(format!("write: {other} = true")));
            }
        } else {
            value = Some(reader.text(&e, word, &value_at)?);
        }
    }
    let Some(attribute) = reader.text(&e, "attribute", &format!("{path}.attribute")) else {
        if !e.attributes.contains_key("attribute") {
            let fault = Fault::new(head(block), "a constraint without an attribute");
            reader.sink.error(fault.help("write for example: attribute = \"${attr.cpu.arch}\""));
        }
        return None;
    };
    Some(Constraint { attribute, operator, value: value.unwrap_or_default() })
}
