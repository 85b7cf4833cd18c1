//! Orders about running things, and what is shown of them: nodes, allocations, variables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AllocSummary, Submitter};
use crate::poll::AllocStatus;
use crate::{AllocId, LogOrderId, Millis, NodeId, Timestamp};

/// Health of a job version's allocations, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Allocations that are ordered to run.
    pub wanted: u32,
    /// Judged healthy by their nodes.
    pub healthy: u32,
    /// Judged unhealthy, or failed.
    pub unhealthy: u32,
    /// Run to their end.
    pub complete: u32,
    /// On nodes that were silent for longer than the job allows.
    pub lost: u32,
}

/// `GET /v1/allocations/{id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocDetail {
    /// Summary.
    #[serde(flatten)]
    pub summary: AllocSummary,
    /// Orders to try again so far.
    #[serde(default)]
    pub retry: u32,
    /// The update lock of what runs is overridden.
    #[serde(default)]
    pub override_lock: bool,
    /// The last states that its node told, newest first.
    #[serde(default)]
    pub states: Vec<AllocState>,
    /// The last runs of a periodic allocation, newest first.
    #[serde(default)]
    pub runs: Vec<AllocRun>,
}

/// What a node told of an allocation at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocState {
    /// When the server heard it, on its own clock.
    pub at: Timestamp,
    /// Client status.
    pub status: AllocStatus,
    /// Why.
    pub reason: String,
    /// The node's judgement, once there was one.
    pub healthy: Option<bool>,
    /// Restarts until then.
    pub restarts: u32,
    /// Until when it waited, if it did.
    pub waits_until: Option<Timestamp>,
}

/// One run of a periodic allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocRun {
    /// Counts the runs on the node, from 1.
    pub run: u64,
    /// Client status.
    pub status: AllocStatus,
    /// Why.
    pub reason: String,
    /// When the server first heard of it.
    pub first_at: Timestamp,
    /// When it last heard of it.
    pub at: Timestamp,
}

/// `POST /v1/allocations/{id}/retry`, `POST /v1/allocations/{id}/override-lock`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocOrder {
    /// Who orders it.
    pub submitter: Submitter,
}

/// `POST /v1/allocations/{id}/logs`: the node is to send the end of what a task wrote. The same order again, while it is not answered, is
/// the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// The task; none where the allocation has only one.
    #[serde(default)]
    pub task: Option<String>,
    /// Lines, from the end: 1 to [`crate::limits::LOG_LINES`].
    pub lines: u32,
    /// Who orders it.
    pub submitter: Submitter,
}

/// Its answer, and `GET /v1/log-orders/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// Id of the order.
    pub id: LogOrderId,
    /// The allocation.
    pub alloc: AllocId,
    /// Its node.
    pub node: NodeId,
    /// Name of the node.
    pub node_name: String,
    /// When the node was last heard of.
    pub last_seen: Option<Timestamp>,
    /// The task; none where none was named and there is no answer yet.
    pub task: Option<String>,
    /// Lines that were ordered.
    pub lines: u32,
    /// When.
    pub ordered_at: Timestamp,
    /// When the node answered; none while it has not.
    pub answered_at: Option<Timestamp>,
    /// What the task wrote; what is no UTF-8 in it is replaced.
    pub text: Option<String>,
    /// Were older lines left out, because there was no room for them?
    pub cut: bool,
    /// Why there are none.
    pub error: Option<String>,
}

/// Work is taken off a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// When what has not moved is stopped all the same; none: never.
    pub deadline: Option<Timestamp>,
    /// Do system and sysbatch jobs go on?
    pub ignore_system: bool,
}

/// `POST /v1/nodes/{id}/eligibility`: may new allocations come to the node?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EligibilityRequest {
    /// May they?
    pub eligible: bool,
    /// Who orders it.
    pub submitter: Submitter,
}

/// `POST /v1/nodes/{id}/drain`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// Take the work off it, or stop doing so and make it eligible again.
    pub enable: bool,
    /// What has not moved after this long is stopped all the same; none: it is waited for.
    #[serde(default)]
    pub deadline: Option<Millis>,
    /// System and sysbatch jobs go on.
    #[serde(default)]
    pub ignore_system: bool,
    /// Who orders it.
    pub submitter: Submitter,
}

/// `POST /v1/nodes/{id}/meta`: node meta set on the server; it wins over the node's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRequest {
    /// Keys to set.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys to take away; the node's own value counts again.
    #[serde(default)]
    pub unset: Vec<String>,
    /// Who orders it.
    pub submitter: Submitter,
}

/// A variable in lists, without its values; `GET /v1/variables`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableSummary {
    /// Its path, as `nomad/jobs/till`.
    pub path: String,
    /// The keys of its items.
    pub keys: Vec<String>,
    /// Bytes that it counts for.
    pub size: u64,
    /// Last change.
    pub updated_at: Timestamp,
}

/// `GET /v1/variable?path=PATH`, and the answer of `PUT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its path.
    pub path: String,
    /// Its items.
    pub items: BTreeMap<String, String>,
    /// Last change.
    pub updated_at: Timestamp,
}

/// `PUT /v1/variable`: these are all its items from now on. `DELETE /v1/variable?path=PATH` removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutVariable {
    /// Its path.
    pub path: String,
    /// Its items.
    pub items: BTreeMap<String, String>,
}

/// Answer of a change of variables or node meta.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Did anything change?
    pub changed: bool,
    /// Nodes that get a new manifest for it.
    pub nodes: u32,
}
