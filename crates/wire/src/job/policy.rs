//! What a node does by itself: when tasks end, when a new version comes, when the server is away, and by the clock.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// What the node does when a task ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Restarts allowed within `interval`.
    pub attempts: u32,
    /// The span that `attempts` counts in.
    pub interval: Millis,
    /// Wait before each restart.
    pub delay: Millis,
    /// What happens when the attempts are spent.
    pub mode: RestartMode,
}

impl RestartPolicy {
    /// The default on the edge for what runs for ever: as Nomad's for services, but it never gives up.
    pub const EDGE: Self =
        Self { attempts: 2, interval: Millis::from_secs(30 * 60), delay: Millis::from_secs(15), mode: RestartMode::Delay };

    /// The default for what runs to its end: Nomad's for batch.
    pub const BATCH: Self =
        Self { attempts: 3, interval: Millis::from_secs(24 * 3600), delay: Millis::from_secs(15), mode: RestartMode::Fail };
}

/// What happens when the restart attempts of an interval are spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartMode {
    /// Wait for the rest of the interval, then go on.
    Delay,
    /// The allocation fails; what follows is its [`Reschedule`].
    Fail,
}

/// What the node does when an allocation failed: makes it anew, on the same node, with growing waits. No server takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reschedule {
    /// Re-creations within `interval`; not counted when `unlimited`.
    pub attempts: u32,
    /// The span that `attempts` counts in.
    pub interval: Millis,
    /// The first wait.
    pub delay: Millis,
    /// How waits grow.
    pub delay_function: DelayFunction,
    /// The longest wait.
    pub max_delay: Millis,
    /// Never give up.
    pub unlimited: bool,
}

impl Reschedule {
    /// What runs for ever is made anew for ever: Nomad's default for services.
    pub const SERVICE: Self = Self {
        attempts: 0,
        interval: Millis(0),
        delay: Millis::from_secs(30),
        delay_function: DelayFunction::Exponential,
        max_delay: Millis::from_secs(3600),
        unlimited: true,
    };

    /// What runs to its end is made anew once a day: Nomad's default for batch.
    pub const BATCH: Self = Self {
        attempts: 1,
        interval: Millis::from_secs(24 * 3600),
        delay: Millis::from_secs(5),
        delay_function: DelayFunction::Constant,
        max_delay: Millis::from_secs(3600),
        unlimited: false,
    };
}

impl Default for Reschedule {
    fn default() -> Self {
        Self::SERVICE
    }
}

/// How waits grow from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DelayFunction {
    /// Always the same.
    Constant,
    /// Doubled.
    Exponential,
    /// The sum of the two before.
    Fibonacci,
}

/// How a newer version takes over on a node, and over the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What an allocation's health is judged by.
    pub health_check: HealthCheck,
    /// It is healthy after this long without a fault.
    pub min_healthy_time: Millis,
    /// A new version that is not healthy this long after its switch is unhealthy. Fetching images does not count.
    pub healthy_deadline: Millis,
    /// Does the node go back to the last good version when the new one is unhealthy?
    pub auto_revert: bool,
    /// An application's update lock puts a switch off for at most this long; zero for no limit.
    pub lock_limit: Millis,
    /// What the node does when a patch to an image of the group fails there; none: what the node's own configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delta_failure: Option<OnDeltaFailure>,
}

impl Default for Update {
    /// Nomad's spans; on the edge a node goes back by itself.
    fn default() -> Self {
        Self {
            health_check: HealthCheck::Checks,
            min_healthy_time: Millis::from_secs(10),
            healthy_deadline: Millis::from_secs(5 * 60),
            auto_revert: true,
            lock_limit: Millis::from_secs(24 * 3600),
            on_delta_failure: None,
        }
    }
}

/// What a node does about an image when a patch did not lead to it. The order is from careful to costly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDeltaFailure {
    /// Nothing more is fetched for it until a newer manifest comes.
    Hold,
    /// Patches are fetched, a full bundle is not.
    Retry,
    /// A full bundle may be fetched; the failure was told to the server before.
    Full,
}

/// What health is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthCheck {
    /// Tasks run and checks pass.
    Checks,
    /// Tasks run.
    TaskStates,
}

/// What holds while node and server do not reach each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// The server counts a silent node's allocations as lost after this long; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_after: Option<Millis>,
    /// Does the server place a replacement on another node when they are lost?
    #[serde(default)]
    pub replace: bool,
    /// Which of the two goes on when the node comes back with the same job version.
    #[serde(default)]
    pub reconcile: Reconcile,
    /// The node stops the group after this long without a word from the server; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on_client_after: Option<Millis>,
}

/// Which allocation goes on when a node comes back to a replacement of the same version. A newer version always wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reconcile {
    /// The one of the node that was away.
    #[default]
    KeepOriginal,
    /// The replacement.
    KeepReplacement,
    /// The one that ran longer without a restart. Nomad's `best_score` means the same here: nodes are not scored.
    LongestRunning,
}

/// When the nodes run a job by their own clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Periodic {
    /// Cron expressions of five fields (minute hour day month weekday), or six with seconds first; the earliest counts.
    pub crons: Vec<String>,
    /// IANA name of the time zone they are read in.
    pub time_zone: String,
    /// Is a run left out while the one before still runs?
    pub prohibit_overlap: bool,
    /// Does it run at all?
    pub enabled: bool,
    /// What follows when the node was off, or the job waited, at the time of a run.
    #[serde(default)]
    pub missed: MissedRun,
    /// What is done while the node does not know the time.
    #[serde(default)]
    pub unknown_time: UnknownTime,
}

/// What follows missed runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissedRun {
    /// Nothing: the next is the next. Nomad's way.
    #[default]
    Skip,
    /// One run, for however many were missed.
    Once,
}

/// What a job by the clock does while the time is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTime {
    /// It runs each time the shortest interval between two of its times has passed since boot.
    #[default]
    Interval,
    /// It does not run.
    Closed,
}
