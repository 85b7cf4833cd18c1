//! The names of what a node does by itself: restarts, updates, checks, templates, the clock.

use super::Schema;
use super::Verdict::{Block, Field, Ignored, Map, Refused};

const NO_FLEET_ROLLOUT: &str = "every node switches by itself as soon as it has all images; rollouts by steps are not there yet";
const NO_CATALOG: &str = "services are not registered anywhere; the node itself runs their checks";
const NO_GRPC: &str = "use type = \"tcp\", or a script";
const NO_TLS: &str = "checks do not speak TLS; use type = \"tcp\", or a script";
const AT_ONCE: &str = "a template is rendered when its values change, and that is followed at once";

pub(crate) const RESTART: Schema = Schema {
    what: "restart",
    names: &[
        ("attempts", Field),
        ("interval", Field),
        ("delay", Field),
        ("mode", Field),
        ("render_templates", Ignored("templates are rendered when their values change")),
    ],
};

pub(crate) const RESCHEDULE: Schema = Schema {
    what: "reschedule",
    names: &[
        ("attempts", Field),
        ("interval", Field),
        ("delay", Field),
        ("delay_function", Field),
        ("max_delay", Field),
        ("unlimited", Field),
    ],
};

pub(crate) const UPDATE: Schema = Schema {
    what: "update",
    names: &[
        ("health_check", Field),
        ("min_healthy_time", Field),
        ("healthy_deadline", Field),
        ("auto_revert", Field),
        ("lock_limit", Field),
        ("on_delta_failure", Field),
        ("max_parallel", Ignored(NO_FLEET_ROLLOUT)),
        ("canary", Ignored(NO_FLEET_ROLLOUT)),
        ("stagger", Ignored(NO_FLEET_ROLLOUT)),
        ("progress_deadline", Ignored(NO_FLEET_ROLLOUT)),
        ("auto_promote", Ignored(NO_FLEET_ROLLOUT)),
    ],
};

pub(crate) const DISCONNECT: Schema = Schema {
    what: "disconnect",
    names: &[("lost_after", Field), ("replace", Field), ("reconcile", Field), ("stop_on_client_after", Field)],
};

pub(crate) const PERIODIC: Schema = Schema {
    what: "periodic",
    names: &[
        ("cron", Field),
        ("crons", Field),
        ("time_zone", Field),
        ("prohibit_overlap", Field),
        ("enabled", Field),
        ("missed", Field),
        ("unknown_time", Field),
    ],
};

pub(crate) const EPHEMERAL_DISK: Schema =
    Schema { what: "ephemeral_disk", names: &[("size", Field), ("sticky", Field), ("migrate", Field)] };

pub(crate) const LIFECYCLE: Schema = Schema { what: "lifecycle", names: &[("hook", Field), ("sidecar", Field)] };

pub(crate) const LOGS: Schema = Schema { what: "logs", names: &[("max_files", Field), ("max_file_size", Field), ("disabled", Field)] };

pub(crate) const TEMPLATE: Schema = Schema {
    what: "a template",
    names: &[
        ("data", Field),
        ("destination", Field),
        ("env", Field),
        ("change_mode", Field),
        ("change_signal", Field),
        ("perms", Field),
        ("left_delimiter", Field),
        ("right_delimiter", Field),
        ("error_on_missing_key", Field),
        ("splay", Ignored(AT_ONCE)),
        ("wait", Ignored(AT_ONCE)),
        ("vault_grace", Ignored("nodes reach no Vault")),
        ("source", Refused("what is signed must hold the text; write it in data")),
        ("change_script", Refused("use change_mode = \"signal\" or \"restart\"")),
        ("once", Refused("use change_mode = \"noop\"")),
        ("uid", Refused("the file belongs to the user of the task; use perms")),
        ("gid", Refused("the file belongs to the user of the task; use perms")),
    ],
};

pub(crate) const SERVICE: Schema = Schema {
    what: "a service",
    names: &[
        ("name", Field),
        ("port", Field),
        ("tags", Field),
        ("provider", Field),
        ("task", Field),
        ("check", Block),
        ("check_restart", Block),
        ("address_mode", Field),
        ("canary_tags", Ignored(NO_CATALOG)),
        ("meta", Ignored(NO_CATALOG)),
        ("canary_meta", Ignored(NO_CATALOG)),
        ("tagged_addresses", Ignored(NO_CATALOG)),
        ("enable_tag_override", Ignored(NO_CATALOG)),
        ("weights", Ignored(NO_CATALOG)),
        ("cluster", Ignored(NO_CATALOG)),
        ("kind", Ignored(NO_CATALOG)),
        ("identity", Ignored(NO_CATALOG)),
        ("address", Refused("checks ask the address of the task; remove it")),
        ("on_update", Refused("with health_check = \"checks\" every check counts; remove it, or use \"task_states\"")),
        ("connect", Refused("there is no service mesh; use ports")),
    ],
};

pub(crate) const CHECK: Schema = Schema {
    what: "a check",
    names: &[
        ("name", Field),
        ("type", Field),
        ("interval", Field),
        ("timeout", Field),
        ("port", Field),
        ("path", Field),
        ("method", Field),
        ("header", Map),
        ("body", Field),
        ("protocol", Field),
        ("command", Field),
        ("args", Field),
        ("task", Field),
        ("success_before_passing", Field),
        ("failures_before_critical", Field),
        ("check_restart", Block),
        ("address_mode", Field),
        ("initial_status", Ignored("a check passes from its first success on")),
        ("failures_before_warning", Ignored("a check passes or is critical, there is no warning")),
        ("notes", Ignored("they are shown nowhere")),
        ("advertise", Ignored(NO_CATALOG)),
        ("expose", Refused("there is no service mesh; remove it")),
        ("on_update", Refused("with health_check = \"checks\" every check counts; remove it, or use \"task_states\"")),
        ("grpc_service", Refused(NO_GRPC)),
        ("grpc_use_tls", Refused(NO_GRPC)),
        ("tls_server_name", Refused(NO_TLS)),
        ("tls_skip_verify", Refused(NO_TLS)),
    ],
};

pub(crate) const CHECK_RESTART: Schema = Schema {
    what: "check_restart",
    names: &[("limit", Field), ("grace", Field), ("ignore_warnings", Ignored("a check passes or is critical, there is no warning"))],
};
