//! What a node does by itself, as names and texts.
//!
//! Every struct is taken apart by name, without `..`, so that a new field cannot be forgotten here.

use skerry_wire::job::{
    DelayFunction, Disconnect, HealthCheck, MissedRun, OnDeltaFailure, Periodic, Reconcile, Reschedule, RestartMode, RestartPolicy,
    UnknownTime, Update,
};

use super::Part;

impl Part {
    pub(super) fn periodic(&mut self, periodic: &Periodic) {
        let Periodic { crons, time_zone, prohibit_overlap, enabled, missed, unknown_time } = periodic;
        self.list("periodic.crons", crons);
        self.text("periodic.time_zone", time_zone);
        self.plain("periodic.prohibit_overlap", prohibit_overlap);
        self.plain("periodic.enabled", enabled);
        let missed = match missed {
            MissedRun::Skip => "skip",
            MissedRun::Once => "once",
        };
        self.plain("periodic.missed", missed);
        let unknown = match unknown_time {
            UnknownTime::Interval => "interval",
            UnknownTime::Closed => "closed",
        };
        self.plain("periodic.unknown_time", unknown);
    }

    pub(super) fn restart(&mut self, restart: &RestartPolicy) {
        let RestartPolicy { attempts, interval, delay, mode } = restart;
        self.plain("restart.attempts", attempts);
        self.plain("restart.interval", interval);
        self.plain("restart.delay", delay);
        let mode = match mode {
            RestartMode::Delay => "delay",
            RestartMode::Fail => "fail",
        };
        self.plain("restart.mode", mode);
    }

    pub(super) fn reschedule(&mut self, reschedule: &Reschedule) {
        let Reschedule { attempts, interval, delay, delay_function, max_delay, unlimited } = reschedule;
        self.plain("reschedule.attempts", attempts);
        self.plain("reschedule.interval", interval);
        self.plain("reschedule.delay", delay);
        let function = match delay_function {
            DelayFunction::Constant => "constant",
            DelayFunction::Exponential => "exponential",
            DelayFunction::Fibonacci => "fibonacci",
        };
        self.plain("reschedule.delay_function", function);
        self.plain("reschedule.max_delay", max_delay);
        self.plain("reschedule.unlimited", unlimited);
    }

    pub(super) fn update(&mut self, update: &Update) {
        let Update { health_check, min_healthy_time, healthy_deadline, auto_revert, lock_limit, on_delta_failure } = update;
        let kind = match health_check {
            HealthCheck::Checks => "checks",
            HealthCheck::TaskStates => "task_states",
        };
        self.plain("update.health_check", kind);
        self.plain("update.min_healthy_time", min_healthy_time);
        self.plain("update.healthy_deadline", healthy_deadline);
        self.plain("update.auto_revert", auto_revert);
        self.plain("update.lock_limit", lock_limit);
        let way = on_delta_failure.map(|way| match way {
            OnDeltaFailure::Hold => "hold",
            OnDeltaFailure::Retry => "retry",
            OnDeltaFailure::Full => "full",
        });
        self.maybe("update.on_delta_failure", way);
    }

    /// Nothing is shown of a group that says nothing.
    pub(super) fn disconnect(&mut self, disconnect: &Disconnect) {
        let Disconnect { lost_after, replace, reconcile, stop_on_client_after } = disconnect;
        self.maybe("disconnect.lost_after", *lost_after);
        self.on("disconnect.replace", *replace);
        let reconcile = match reconcile {
            Reconcile::KeepOriginal => None,
            Reconcile::KeepReplacement => Some("keep_replacement"),
            Reconcile::LongestRunning => Some("longest_running"),
        };
        self.maybe("disconnect.reconcile", reconcile);
        self.maybe("disconnect.stop_on_client_after", *stop_on_client_after);
    }
}
