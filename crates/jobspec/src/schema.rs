//! What may be written where: the fields that Skerry has, and what it says about the others of Nomad's dialect.
//!
//! Rule: a field of Nomad that Skerry does not have is an error where ignoring it would change what runs, and a warning where it
//! would not. `docs/jobspec.md` lists every name of these tables; a test holds the two together.

/// What is done with a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// `name = value`
    Field,
    /// `name { ... }`
    Block,
    /// Either of them.
    Map,
    /// An error, with what to do instead.
    Refused(&'static str),
    /// A warning, with why it does not matter.
    Ignored(&'static str),
}

mod config;
mod policy;

pub(crate) use config::{DEVICE, DOCKER, PROCESS};
pub(crate) use policy::{
    CHECK, CHECK_RESTART, DISCONNECT, EPHEMERAL_DISK, LIFECYCLE, LOGS, PERIODIC, RESCHEDULE, RESTART, SERVICE, TEMPLATE, UPDATE,
};

use Verdict::{Block, Field, Ignored, Map, Refused};

/// The names of one kind of block.
#[derive(Debug)]
pub(crate) struct Schema {
    /// What it is, for messages: `a group`.
    pub(crate) what: &'static str,
    pub(crate) names: &'static [(&'static str, Verdict)],
}

const NO_VAULT: &str = "nodes reach no Vault; use a variable in a template";
const NO_SECRET: &str = "there are no secrets from providers; use a variable in a template";
const NO_SCORING: &str = "groups are placed by constraints alone; write a constraint if it must hold";
const NO_MOVING: &str = "a drained node stops what it runs; where else it runs, count and constraints say";
const NO_CONSUL: &str = "there is no Consul; remove it";
const NO_CSI: &str = "write a bind mount: volumes = [\"/path/on/node:/path/in/container\"] in config";

pub(crate) const TOP: Schema = Schema { what: "a jobspec", names: &[("job", Block), ("variable", Block), ("locals", Block)] };

pub(crate) const JOB: Schema = Schema {
    what: "a job",
    names: &[
        ("id", Field),
        ("name", Field),
        ("type", Field),
        ("priority", Field),
        ("node_pool", Field),
        ("datacenters", Field),
        ("namespace", Field),
        ("region", Field),
        ("constraint", Block),
        ("meta", Map),
        ("group", Block),
        ("task", Block),
        ("periodic", Block),
        ("reschedule", Block),
        ("update", Block),
        ("affinity", Ignored(NO_SCORING)),
        ("spread", Ignored(NO_SCORING)),
        ("migrate", Ignored(NO_MOVING)),
        ("ui", Ignored("it is shown nowhere; put it in meta")),
        ("all_at_once", Ignored("every node is planned by itself")),
        ("parameterized", Refused("dispatched jobs are not there; write one job for each set of values")),
        ("multiregion", Refused("there is one region; use datacenters or node_pool")),
        ("vault", Refused(NO_VAULT)),
        ("vault_token", Refused(NO_VAULT)),
        ("consul", Refused(NO_CONSUL)),
        ("consul_token", Refused(NO_CONSUL)),
        ("secret", Refused(NO_SECRET)),
        ("dynamic", Refused("write the blocks out")),
    ],
};

pub(crate) const GROUP: Schema = Schema {
    what: "a group",
    names: &[
        ("count", Field),
        ("constraint", Block),
        ("network", Block),
        ("restart", Block),
        ("meta", Map),
        ("task", Block),
        ("reschedule", Block),
        ("update", Block),
        ("disconnect", Block),
        ("service", Block),
        ("shutdown_delay", Field),
        ("max_run_duration", Field),
        ("ephemeral_disk", Block),
        ("affinity", Ignored(NO_SCORING)),
        ("spread", Ignored(NO_SCORING)),
        ("migrate", Ignored(NO_MOVING)),
        ("scaling", Ignored("there is no autoscaler; set count")),
        ("prevent_reschedule_on_lost", Ignored("nothing is placed on another node unless disconnect says replace = true")),
        ("stop_after_client_disconnect", Refused("write: disconnect { stop_on_client_after = \"1h\" }")),
        (
            "max_client_disconnect",
            Refused("write: disconnect { lost_after = \"1h\", replace = true }, a field in a line; without it nothing is ever lost"),
        ),
        ("volume", Refused(NO_CSI)),
        ("vault", Refused(NO_VAULT)),
        ("consul", Refused(NO_CONSUL)),
        ("secret", Refused(NO_SECRET)),
        ("dynamic", Refused("write the blocks out")),
    ],
};

pub(crate) const TASK: Schema = Schema {
    what: "a task",
    names: &[
        ("driver", Field),
        ("config", Block),
        ("env", Map),
        ("meta", Map),
        ("resources", Block),
        ("constraint", Block),
        ("kill_timeout", Field),
        ("kill_signal", Field),
        ("shutdown_delay", Field),
        ("user", Field),
        ("lifecycle", Block),
        ("leader", Field),
        ("restart", Block),
        ("template", Block),
        ("service", Block),
        ("logs", Block),
        ("affinity", Ignored(NO_SCORING)),
        ("scaling", Ignored("there is no autoscaler")),
        ("action", Ignored("actions cannot be called yet")),
        ("artifact", Refused("nothing is downloaded for a task; put the file in the image, or its text in a template")),
        ("kind", Refused("remove it")),
        ("volume_mount", Refused(NO_CSI)),
        ("csi_plugin", Refused(NO_CSI)),
        ("dispatch_payload", Refused("dispatched jobs are not there")),
        ("identity", Refused("tasks have no workload identity; remove it")),
        ("schedule", Refused("tasks cannot be paused by the clock")),
        ("vault", Refused(NO_VAULT)),
        ("consul", Refused(NO_CONSUL)),
        ("secret", Refused(NO_SECRET)),
        ("dynamic", Refused("write the blocks out")),
    ],
};

pub(crate) const NETWORK: Schema = Schema {
    what: "a network",
    names: &[
        ("mode", Field),
        ("port", Block),
        ("mbits", Ignored("it has had no effect in Nomad for years")),
        ("device", Refused("the node's address is used; remove it")),
        ("cidr", Refused("the node's address is used; remove it")),
        ("ip", Refused("the node's address is used; remove it")),
        ("hostname", Refused("use ${node.unique.name} in env")),
        ("dns", Refused("the engine's settings hold")),
        ("cni", Refused("use mode = \"bridge\" or \"host\"")),
    ],
};

pub(crate) const PORT: Schema = Schema {
    what: "a port",
    names: &[
        ("static", Field),
        ("to", Field),
        ("host_network", Refused("ports are published on all addresses of the node; remove it")),
        ("ignore_collision", Refused("two groups cannot have one port; remove it")),
    ],
};

pub(crate) const RESOURCES: Schema = Schema {
    what: "resources",
    names: &[
        ("cpu", Field),
        ("memory", Field),
        ("memory_max", Field),
        ("disk", Field),
        ("iops", Ignored("it has had no effect in Nomad for years")),
        ("cores", Refused("use cpu, in MHz")),
        ("device", Refused("name the device in config: devices = [{ host_path = \"/dev/video0\" }]")),
        ("network", Refused("write the network block in the group")),
        ("numa", Refused("remove it")),
        ("secrets", Refused("there is no folder for secrets")),
    ],
};

pub(crate) const CONSTRAINT: Schema = Schema {
    what: "a constraint",
    names: &[
        ("attribute", Field),
        ("operator", Field),
        ("value", Field),
        ("regexp", Field),
        ("version", Field),
        ("set_contains", Field),
        ("set_contains_all", Field),
        ("set_contains_any", Field),
        ("is_set", Field),
        ("is_not_set", Field),
        ("semver", Refused("use version")),
        ("distinct_hosts", Refused("use type = \"system\" for one allocation on every node")),
        ("distinct_property", Refused("use one group for each value, with a constraint")),
    ],
};

/// Every table, for the test that holds the reference to it.
#[cfg(test)]
pub(crate) const ALL: [&Schema; 23] = [
    &TOP,
    &JOB,
    &GROUP,
    &TASK,
    &DOCKER,
    &PROCESS,
    &DEVICE,
    &NETWORK,
    &PORT,
    &RESOURCES,
    &CONSTRAINT,
    &RESTART,
    &RESCHEDULE,
    &UPDATE,
    &DISCONNECT,
    &PERIODIC,
    &EPHEMERAL_DISK,
    &LIFECYCLE,
    &LOGS,
    &TEMPLATE,
    &SERVICE,
    &CHECK,
    &CHECK_RESTART,
];

#[cfg(test)]
mod tests {
    use skerry_wire::job::{DockerConfig, Driver, Logs, Reschedule, Resources, RestartPolicy, Task, Update};

    use super::*;

    #[test]
    fn the_reference_names_every_field() {
        let reference = reference();
        for schema in ALL {
            for (name, verdict) in schema.names {
                let (is, why) = match verdict {
                    Field | Block | Map => {
                        assert!(reference.contains(&format!("`{name}`")), "`{name}` of {} is not in docs/jobspec.md", schema.what);
                        continue;
                    }
                    Ignored(why) => ("warning", why),
                    Refused(why) => ("error", why),
                };
                let row = format!("| `{name}` | {is} | {why} |");
                assert!(reference.contains(&row), "{}: docs/jobspec.md has no line {row}", schema.what);
            }
        }
    }

    #[test]
    fn the_reference_has_the_defaults() {
        let (edge, batch) = (RestartPolicy::EDGE, RestartPolicy::BATCH);
        let (service, run) = (Reschedule::SERVICE, Reschedule::BATCH);
        let (update, logs, resources) = (Update::default(), Logs::default(), Resources::default());
        let task = Task::new("x", Driver::Docker(DockerConfig::default()));
        let reference = reference();
        for row in [
            format!("| `attempts` | {} | {} |", edge.attempts, batch.attempts),
            format!("| `interval` | \"{}\" | \"{}\" |", edge.interval, batch.interval),
            format!("| `delay` | \"{}\" | \"{}\" |", edge.delay, batch.delay),
            format!("| `attempts` | none | {} |", run.attempts),
            format!("| `interval` | none | \"{}\" |", run.interval),
            format!("| `delay` | \"{}\" | \"{}\" |", service.delay, run.delay),
            format!("| `max_delay` | \"{}\" | \"{}\" |", service.max_delay, run.max_delay),
            format!("| `unlimited` | `{}` | `{}` |", service.unlimited, run.unlimited),
            format!("| `min_healthy_time` | \"{}\" |", update.min_healthy_time),
            format!("| `healthy_deadline` | \"{}\" |", update.healthy_deadline),
            format!("| `auto_revert` | `{}` |", update.auto_revert),
            format!("| `lock_limit` | \"{}\" |", update.lock_limit),
            format!("| `max_files` | {} |", logs.max_files),
            format!("| `max_file_size` | {} |", logs.max_file_size),
            format!("| `disabled` | `{}` |", logs.disabled),
            format!("| `cpu` | {} |", resources.cpu),
            format!("| `memory` | {} |", resources.memory),
            format!("| `disk` | {} |", resources.disk),
            format!("| `kill_timeout` | \"{}\" |", task.kill_timeout),
            format!("| `leader` | `{}` |", task.leader),
        ] {
            // Durations and words stand in quotes and backticks.
            let row = row.replace("\"", "\u{1}");
            let page = reference.replace("`\"", "\u{1}").replace("\"`", "\u{1}");
            assert!(page.contains(&row), "docs/jobspec.md has no line {}", row.replace('\u{1}', "\""));
        }
    }

    fn reference() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/jobspec.md")).unwrap()
    }

    #[test]
    fn names_are_there_once() {
        for schema in ALL {
            for (i, (name, _)) in schema.names.iter().enumerate() {
                assert!(schema.names[..i].iter().all(|(n, _)| n != name), "{name} in {}", schema.what);
            }
        }
    }
}
