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
    /// A warning, unless one of these fields is set in it: then an error.
    IgnoredWithout(&'static str, &'static [&'static str]),
}

use Verdict::{Block, Field, Ignored, IgnoredWithout, Map, Refused};

/// The names of one kind of block.
#[derive(Debug)]
pub(crate) struct Schema {
    /// What it is, for messages: `a group`.
    pub(crate) what: &'static str,
    pub(crate) names: &'static [(&'static str, Verdict)],
}

const NO_VAULT: &str = "nodes reach no Vault; give the value in env";
const NO_SECRET: &str = "there are no secrets from providers; give the value in env";
const NO_SCORING: &str = "groups are placed by constraints alone; write a constraint if it must hold";
const NO_MOVING: &str = "work is not moved to other nodes: a node keeps what it was given";
const NO_WAVES: &str = "a node switches when all images of the new version are there; rollout settings have no effect yet";
const NO_SERVICE: &str = "services are not registered or checked yet; the tasks run all the same";
const NO_CONSUL: &str = "there is no Consul; remove it";
const NO_CSI: &str = "write a bind mount: volumes = [\"/path/on/node:/path/in/container\"] in config";
const DATA_FOLDER: &str = "use volumes = [\"/path/on/node:/path/in/container\"] for data that must stay";

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
        ("affinity", Ignored(NO_SCORING)),
        ("spread", Ignored(NO_SCORING)),
        ("reschedule", Ignored(NO_MOVING)),
        ("migrate", Ignored(NO_MOVING)),
        ("update", Ignored(NO_WAVES)),
        ("ui", Ignored("it is shown nowhere; put it in meta")),
        ("all_at_once", Ignored("every node is planned by itself")),
        ("periodic", Refused("jobs that run by the clock are not there; use a program with its own timer")),
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
        ("affinity", Ignored(NO_SCORING)),
        ("spread", Ignored(NO_SCORING)),
        ("reschedule", Ignored(NO_MOVING)),
        ("migrate", Ignored(NO_MOVING)),
        ("update", Ignored(NO_WAVES)),
        ("service", Ignored(NO_SERVICE)),
        ("scaling", Ignored("there is no autoscaler; set count")),
        ("disconnect", IgnoredWithout("a node that is cut off always keeps running what it runs", &["stop_on_client_after"])),
        ("max_client_disconnect", Ignored("a node that is cut off always keeps running what it runs")),
        ("prevent_reschedule_on_lost", Ignored(NO_MOVING)),
        ("shutdown_delay", Ignored("it delays the stop after a service is deregistered, and services are not registered yet")),
        ("ephemeral_disk", IgnoredWithout("the folder of a task has no size limit", &["sticky", "migrate"])),
        ("stop_after_client_disconnect", Refused("a node that is cut off always keeps running what it runs; remove it")),
        ("max_run_duration", Refused("tasks run for ever; remove it")),
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
        ("affinity", Ignored(NO_SCORING)),
        ("service", Ignored(NO_SERVICE)),
        ("scaling", Ignored("there is no autoscaler")),
        ("action", Ignored("actions cannot be called yet")),
        ("logs", Ignored("the Docker engine keeps the logs by its own settings")),
        ("shutdown_delay", Ignored("it delays the stop after a service is deregistered, and services are not registered yet")),
        ("artifact", Refused("nothing is downloaded for a task; put the file in the image")),
        ("template", Refused("there are no templates; give the values in env, or put the file in the image")),
        ("lifecycle", Refused("all tasks of a group start together and run for ever; do the work in the task that needs it")),
        ("restart", Refused("write it in the group: it holds for all its tasks")),
        ("user", Refused("set USER in the image")),
        ("kill_signal", Refused("set STOPSIGNAL in the image")),
        ("leader", Refused("no task ends the others of its group; put both programs in one image")),
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

pub(crate) const CONFIG: Schema = Schema {
    what: "config of a docker task",
    names: &[
        ("image", Field),
        ("command", Field),
        ("args", Field),
        ("ports", Field),
        ("volumes", Field),
        ("force_pull", Ignored("images come in bundles and run by image id; nothing is pulled")),
        ("image_pull_timeout", Ignored("images come in bundles; nothing is pulled")),
        ("auth", Ignored("images come in bundles; no registry is asked")),
        ("auth_soft_fail", Ignored("images come in bundles; no registry is asked")),
        ("advertise_ipv6_address", Ignored("services are not registered yet")),
        ("entrypoint", Refused("set ENTRYPOINT in the image, or use command and args")),
        ("work_dir", Refused("set WORKDIR in the image")),
        ("hostname", Refused("use ${node.unique.name} in env")),
        ("network_mode", Refused("set mode in the network block of the group")),
        ("network_aliases", Refused("set the network block of the group")),
        ("port_map", Refused("use ports, with labels of the network block of the group")),
        ("mount", Refused("use volumes = [\"/path/on/node:/path/in/container\"]")),
        ("mounts", Refused("use volumes = [\"/path/on/node:/path/in/container\"]")),
        ("volume_driver", Refused("use volumes with a path of the node")),
        ("privileged", Refused("tasks do not get more rights than the engine's default")),
        ("cap_add", Refused("tasks do not get more rights than the engine's default")),
        ("cap_drop", Refused("tasks get the engine's default rights")),
        ("security_opt", Refused("tasks get the engine's default rights")),
        ("devices", Refused("devices of the node cannot be given to tasks yet")),
        ("runtime", Refused("tasks run in the engine's default runtime")),
        ("load", Refused("publish the archive: skerry image publish FILE")),
        ("cgroupns", Refused("remove it")),
        ("cpu_cfs_period", Refused("use cpu in resources")),
        ("cpu_hard_limit", Refused("use cpu in resources")),
        ("dns_options", Refused("the engine's settings hold")),
        ("dns_search_domains", Refused("the engine's settings hold")),
        ("dns_servers", Refused("the engine's settings hold")),
        ("extra_hosts", Refused("the engine's settings hold")),
        ("group_add", Refused("set USER in the image")),
        ("healthchecks", Refused("set HEALTHCHECK in the image")),
        ("init", Refused("put an init in the image")),
        ("interactive", Refused("tasks have no terminal")),
        ("ipc_mode", Refused("remove it")),
        ("ipv4_address", Refused("the engine chooses the address")),
        ("ipv6_address", Refused("the engine chooses the address")),
        ("isolation", Refused("remove it")),
        ("labels", Refused("put the values in meta")),
        ("logging", Refused("the engine's settings hold")),
        ("mac_address", Refused("the engine chooses the address")),
        ("memory_hard_limit", Refused("use memory_max in resources")),
        ("oom_score_adj", Refused("remove it")),
        ("pid_mode", Refused("remove it")),
        ("pids_limit", Refused("the engine's settings hold")),
        ("readonly_rootfs", Refused("the file system of a container is writable")),
        ("shm_size", Refused("the engine's settings hold")),
        ("storage_opt", Refused("the engine's settings hold")),
        ("sysctl", Refused("the engine's settings hold")),
        ("tty", Refused("tasks have no terminal")),
        ("ulimit", Refused("the engine's settings hold")),
        ("userns_mode", Refused("the engine's settings hold")),
        ("uts_mode", Refused("the engine's settings hold")),
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

pub(crate) const RESTART: Schema = Schema {
    what: "restart",
    names: &[
        ("attempts", Field),
        ("interval", Field),
        ("delay", Field),
        ("mode", Field),
        ("render_templates", Ignored("there are no templates")),
    ],
};

pub(crate) const RESOURCES: Schema = Schema {
    what: "resources",
    names: &[
        ("cpu", Field),
        ("memory", Field),
        ("memory_max", Field),
        ("disk", Ignored("disk is not limited per task")),
        ("iops", Ignored("it has had no effect in Nomad for years")),
        ("cores", Refused("use cpu, in MHz")),
        ("device", Refused("devices of the node cannot be given to tasks yet")),
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

/// What to say about fields inside an ignored block that must not be ignored.
pub(crate) const fn inside(name: &str) -> &'static str {
    match name.as_bytes() {
        b"ephemeral_disk" => DATA_FOLDER,
        _ => "a node that is cut off always keeps running what it runs; remove it",
    }
}

/// Every table, for the test that holds the reference to it.
#[cfg(test)]
pub(crate) const ALL: [&Schema; 10] = [&TOP, &JOB, &GROUP, &TASK, &CONFIG, &NETWORK, &PORT, &RESTART, &RESOURCES, &CONSTRAINT];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_field() {
        let reference = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/jobspec.md")).unwrap();
        for schema in ALL {
            for (name, _) in schema.names {
                assert!(reference.contains(&format!("`{name}`")), "`{name}` of {} is not in docs/jobspec.md", schema.what);
            }
        }
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
