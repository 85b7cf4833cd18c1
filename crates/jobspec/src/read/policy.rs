//! What a node does by itself: restarts, re-creation, updates, without a server, by the clock.

use hcl_edit::structure::Block;
use skerry_wire::Millis;
use skerry_wire::job::{
    DelayFunction, Disconnect, HealthCheck, Hook, Lifecycle, Logs, MissedRun, OnDeltaFailure, Periodic, Reconcile, Reschedule, RestartMode,
    RestartPolicy, UnknownTime, Update,
};

use super::{Entries, Reader, head};
use crate::diagnostic::Fault;
use crate::eval::span_of;
use crate::policy_rules::{FILE_SIZE, FILES};
use crate::rules::{ATTEMPTS, DISK};
use crate::schema;

impl Reader<'_> {
    /// `restart`; what it does not say is as in `base`.
    pub(super) fn restart(&mut self, block: &Block, path: &str, base: RestartPolicy) -> RestartPolicy {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::RESTART);
        let modes = [("delay", RestartMode::Delay), ("fail", RestartMode::Fail)];
        let help = "modes are \"delay\" (go on in the next interval) and \"fail\" (the allocation fails)";
        RestartPolicy {
            attempts: self.number(&e, "attempts", &format!("{path}.attempts"), &ATTEMPTS).unwrap_or(base.attempts),
            interval: self.span(&e, "interval", &format!("{path}.interval")).unwrap_or(base.interval),
            delay: self.span(&e, "delay", &format!("{path}.delay")).unwrap_or(base.delay),
            mode: self.choice(&e, "mode", &format!("{path}.mode"), "restart mode", &modes, help).unwrap_or(base.mode),
        }
    }

    /// `reschedule`; what it does not say is as in `base`.
    pub(super) fn reschedule(&mut self, block: &Block, path: &str, base: Reschedule) -> Reschedule {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::RESCHEDULE);
        let functions =
            [("constant", DelayFunction::Constant), ("exponential", DelayFunction::Exponential), ("fibonacci", DelayFunction::Fibonacci)];
        let help = "there are \"constant\", \"exponential\" and \"fibonacci\"";
        let attempts = self.number(&e, "attempts", &format!("{path}.attempts"), &ATTEMPTS);
        let unlimited = self.flag(&e, "unlimited", &format!("{path}.unlimited"));
        // Who counts the attempts means a limit, who asks for no limit counts none.
        let unlimited = unlimited.unwrap_or(base.unlimited && attempts.is_none());
        Reschedule {
            attempts: attempts.unwrap_or(if unlimited { 0 } else { base.attempts }),
            interval: self.span(&e, "interval", &format!("{path}.interval")).unwrap_or(base.interval),
            delay: self.span(&e, "delay", &format!("{path}.delay")).unwrap_or(base.delay),
            delay_function: self
                .choice(&e, "delay_function", &format!("{path}.delay_function"), "delay function", &functions, help)
                .unwrap_or(base.delay_function),
            max_delay: self.span(&e, "max_delay", &format!("{path}.max_delay")).unwrap_or(base.max_delay),
            unlimited,
        }
    }

    /// `update`; what it does not say is as in `base`.
    pub(super) fn update(&mut self, block: &Block, path: &str, base: Update) -> Update {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::UPDATE);
        let kinds = [("checks", HealthCheck::Checks), ("task_states", HealthCheck::TaskStates)];
        let help = "there are \"checks\" and \"task_states\"; the node itself judges, so nobody can be asked";
        let ways = [("hold", OnDeltaFailure::Hold), ("retry", OnDeltaFailure::Retry), ("full", OnDeltaFailure::Full)];
        let ways_help = "there are \"hold\", \"retry\" and \"full\"; without it the node's own configuration says";
        Update {
            health_check: self
                .choice(&e, "health_check", &format!("{path}.health_check"), "health check", &kinds, help)
                .unwrap_or(base.health_check),
            min_healthy_time: self.span(&e, "min_healthy_time", &format!("{path}.min_healthy_time")).unwrap_or(base.min_healthy_time),
            healthy_deadline: self.span(&e, "healthy_deadline", &format!("{path}.healthy_deadline")).unwrap_or(base.healthy_deadline),
            auto_revert: self.flag(&e, "auto_revert", &format!("{path}.auto_revert")).unwrap_or(base.auto_revert),
            lock_limit: self.span(&e, "lock_limit", &format!("{path}.lock_limit")).unwrap_or(base.lock_limit),
            on_delta_failure: self
                .choice(&e, "on_delta_failure", &format!("{path}.on_delta_failure"), "way after a failed patch", &ways, ways_help)
                .or(base.on_delta_failure),
        }
    }

    pub(super) fn disconnect(&mut self, block: &Block, path: &str) -> Disconnect {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::DISCONNECT);
        let rules = [
            ("keep_original", Reconcile::KeepOriginal),
            ("keep_replacement", Reconcile::KeepReplacement),
            ("longest_running", Reconcile::LongestRunning),
            // Nodes are not scored; what ran longest is what Nomad's scores come to.
            ("best_score", Reconcile::LongestRunning),
        ];
        let help = "there are \"keep_original\", \"keep_replacement\", \"longest_running\" and \"best_score\", which means the same";
        let lost_after = self.span(&e, "lost_after", &format!("{path}.lost_after"));
        let replace = self.flag(&e, "replace", &format!("{path}.replace"));
        if let (Some(_), None) = (lost_after, replace) {
            let fault =
                Fault::new(self.spans.find(&format!("{path}.lost_after")), "lost allocations are not replaced unless `replace` says so");
            self.sink.warning(fault.help("write: replace = true (Nomad's default) or replace = false"));
        }
        Disconnect {
            lost_after,
            replace: replace.unwrap_or(false),
            reconcile: self.choice(&e, "reconcile", &format!("{path}.reconcile"), "rule of reconcile", &rules, help).unwrap_or_default(),
            stop_on_client_after: self.span(&e, "stop_on_client_after", &format!("{path}.stop_on_client_after")),
        }
    }

    pub(super) fn periodic(&mut self, block: &Block) -> Periodic {
        const PATH: &str = "periodic";
        self.spans.set(PATH, head(block));
        let e = self.sort(&block.body, &schema::PERIODIC);
        let mut crons = self.texts(&e, "crons", "periodic.crons");
        if let Some(cron) = self.text(&e, "cron", "periodic.crons.0") {
            if e.attributes.contains_key("crons") {
                let at = self.spans.find("periodic.crons.0");
                self.sink.error(Fault::new(at, "`cron` beside `crons`").help("write all expressions in crons"));
            }
            crons = vec![cron];
        } else if crons.is_empty() && !e.attributes.contains_key("cron") && !e.attributes.contains_key("crons") {
            let fault = Fault::new(head(block), "periodic without a cron expression");
            self.sink.error(fault.help("write for example: crons = [\"30 3 * * *\"]"));
            // Not judged again by the rules: the fault is told already.
            crons = vec!["* * * * *".to_owned()];
        }
        let missed = [("skip", MissedRun::Skip), ("once", MissedRun::Once)];
        let unknown = [("interval", UnknownTime::Interval), ("closed", UnknownTime::Closed)];
        let missed_help = "there are \"skip\" (the next is the next) and \"once\" (one run for all that were missed)";
        let unknown_help = "there are \"interval\" (by the time since boot) and \"closed\" (no run)";
        Periodic {
            crons,
            time_zone: self.text(&e, "time_zone", "periodic.time_zone").unwrap_or_else(|| "UTC".to_owned()),
            prohibit_overlap: self.flag(&e, "prohibit_overlap", "periodic.prohibit_overlap").unwrap_or(false),
            enabled: self.flag(&e, "enabled", "periodic.enabled").unwrap_or(true),
            missed: self.choice(&e, "missed", "periodic.missed", "rule for missed runs", &missed, missed_help).unwrap_or_default(),
            unknown_time: self
                .choice(&e, "unknown_time", "periodic.unknown_time", "rule for an unknown time", &unknown, unknown_help)
                .unwrap_or_default(),
        }
    }

    /// The size of Nomad's `ephemeral_disk`, with its place.
    pub(super) fn ephemeral_disk(&mut self, block: &Block, path: &str) -> Option<u32> {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::EPHEMERAL_DISK);
        for name in ["sticky", "migrate"] {
            let at = format!("{path}.{name}");
            if self.flag(&e, name, &at) == Some(true) {
                let fault = Fault::new(self.spans.find(&at), format!("the folders of an allocation go with it, `{name}` is not there"));
                self.sink.error(fault.help("use volumes = [\"/path/on/node:/path/in/container\"] for data that must stay"));
            }
        }
        self.number(&e, "size", &format!("{path}.size"), &DISK)
    }

    pub(super) fn lifecycle(&mut self, block: &Block, path: &str) -> Option<Lifecycle> {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::LIFECYCLE);
        let hooks = [("prestart", Hook::Prestart), ("poststart", Hook::Poststart), ("poststop", Hook::Poststop)];
        let help = "hooks are \"prestart\", \"poststart\" and \"poststop\"";
        let hook = self.choice(&e, "hook", &format!("{path}.hook"), "hook", &hooks, help);
        if hook.is_none() && !e.attributes.contains_key("hook") {
            self.sink.error(Fault::new(head(block), "a lifecycle without a hook").help(help));
        }
        let sidecar = self.flag(&e, "sidecar", &format!("{path}.sidecar")).unwrap_or(false);
        Some(Lifecycle { hook: hook?, sidecar })
    }

    pub(super) fn logs(&mut self, block: &Block, path: &str) -> Logs {
        self.spans.set(path, head(block));
        let e = self.sort(&block.body, &schema::LOGS);
        let base = Logs::default();
        Logs {
            max_files: self.number(&e, "max_files", &format!("{path}.max_files"), &FILES).unwrap_or(base.max_files),
            max_file_size: self.number(&e, "max_file_size", &format!("{path}.max_file_size"), &FILE_SIZE).unwrap_or(base.max_file_size),
            disabled: self.flag(&e, "disabled", &format!("{path}.disabled")).unwrap_or(base.disabled),
        }
    }

    /// A span that is nothing when it is not written.
    pub(super) fn wait(&mut self, e: &Entries<'_>, name: &str, path: &str) -> Millis {
        self.span(e, name, &format!("{path}.{name}")).unwrap_or_default()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        e: &Entries<'_>,
        name: &str,
        path: &str,
        what: &str,
        words: &[(&str, T)],
        help: &str,
    ) -> Option<T> {
        let text = self.text(e, name, path)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let hint = crate::names::did_you_mean(&text, words.iter().map(|(word, _)| *word)).unwrap_or_else(|| help.to_owned());
        let shown: String = text.chars().take(64).collect();
        self.sink.error(Fault::new(self.spans.find(path), format!("there is no {what} `{shown}`")).help(hint));
        None
    }

    /// Is a field written at all, whatever its value?
    pub(super) fn missing(&mut self, e: &Entries<'_>, name: &str, block: &Block, message: &str, help: &str) {
        if !e.attributes.contains_key(name) {
            let end = block.labels.last().map_or_else(|| span_of(&block.ident).end, |l| span_of(l).end);
            self.sink.error(Fault::new(span_of(&block.ident).start..end, message).help(help));
        }
    }
}
