//! The job and its groups.

use hcl_edit::structure::{Block, Body};
use skerry_wire::job::{Constraint, Group, Job, JobType, Network, NetworkMode, Operator, Port, RestartMode, RestartPolicy};

use super::{Entries, Reader, head};
use crate::diagnostic::Fault;
use crate::names::did_you_mean;
use crate::rules::{ATTEMPTS, COUNT, PORT, PRIORITY};
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
    let mut groups = Vec::new();
    for block in e.blocks("group") {
        if let Some(group) = read_group(reader, block, &format!("groups.{}", groups.len())) {
            groups.push(group);
        }
    }
    // A task directly in the job is a group of its own with the same name.
    for block in e.blocks("task") {
        let path = format!("groups.{}", groups.len());
        reader.spans.set(path.as_str(), head(block));
        if let Some(task) = reader.task(block, &format!("{path}.tasks.0")) {
            groups.push(Group::new(&task.name.clone(), vec![task]));
        }
    }
    Some(Job { id, name, kind, priority, node_pool, datacenters, constraints, meta, groups, ..Job::new("", kind, Vec::new()) })
}

fn job_type(reader: &mut Reader<'_>, e: &Entries<'_>) -> JobType {
    let Some(text) = reader.text(e, "type", "type") else { return JobType::Service };
    let help = match text.as_str() {
        "service" => return JobType::Service,
        "system" => return JobType::System,
        "batch" | "sysbatch" => "jobs that end are not there yet; \"system\" and \"service\" run for ever".to_owned(),
        other => did_you_mean(other, ["service", "system"].into_iter())
            .unwrap_or_else(|| "types are \"system\" (on every node) and \"service\" (count allocations)".to_owned()),
    };
    let at = reader.spans.find("type");
    reader.sink.error(Fault::new(at, format!("there is no job type `{text}`")).help(help));
    JobType::Service
}

fn read_group(reader: &mut Reader<'_>, block: &Block, path: &str) -> Option<Group> {
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
    let restart = match reader.one(&e, "restart") {
        Some(block) => read_restart(reader, block, &format!("{path}.restart")),
        None => RestartPolicy::EDGE,
    };
    let meta = reader.map(&e, "meta", &format!("{path}.meta"));
    let mut tasks = Vec::new();
    for block in e.blocks("task") {
        tasks.extend(reader.task(block, &format!("{path}.tasks.{}", tasks.len())));
    }
    Some(Group { count, constraints, network, restart, meta, ..Group::new(&name, tasks) })
}

fn read_network(reader: &mut Reader<'_>, block: &Block, path: &str) -> Network {
    reader.spans.set(path, head(block));
    let e = reader.sort(&block.body, &schema::NETWORK);
    let at = format!("{path}.mode");
    let mode = match reader.text(&e, "mode", &at).as_deref() {
        None | Some("host") => NetworkMode::Host,
        Some("bridge") => NetworkMode::Bridge,
        Some("none") => NetworkMode::None,
        Some(other) => {
            let help = did_you_mean(other, ["host", "bridge", "none"].into_iter());
            let fault = Fault::new(reader.spans.find(&at), format!("there is no network mode `{other}`"));
            reader.sink.error(fault.help(help.unwrap_or_else(|| "modes are \"host\", \"bridge\" and \"none\"".to_owned())));
            NetworkMode::Host
        }
    };
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

fn read_restart(reader: &mut Reader<'_>, block: &Block, path: &str) -> RestartPolicy {
    reader.spans.set(path, head(block));
    let e = reader.sort(&block.body, &schema::RESTART);
    let default = RestartPolicy::EDGE;
    let at = format!("{path}.mode");
    let mode = match reader.text(&e, "mode", &at).as_deref() {
        None => default.mode,
        Some("delay") => RestartMode::Delay,
        Some("fail") => RestartMode::Fail,
        Some(other) => {
            let fault = Fault::new(reader.spans.find(&at), format!("there is no restart mode `{other}`"));
            reader.sink.error(fault.help("modes are \"delay\" (go on in the next interval) and \"fail\" (give up)"));
            default.mode
        }
    };
    RestartPolicy {
        attempts: reader.number(&e, "attempts", &format!("{path}.attempts"), &ATTEMPTS).unwrap_or(default.attempts),
        interval: reader.span(&e, "interval", &format!("{path}.interval")).unwrap_or(default.interval),
        delay: reader.span(&e, "delay", &format!("{path}.delay")).unwrap_or(default.delay),
        mode,
    }
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
