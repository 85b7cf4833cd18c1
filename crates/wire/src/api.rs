//! The operator's API: JSON over HTTPS under `/v1`, with a bearer token.
//!
//! Every error has the body [`ApiError`]. Lists are sorted and bounded by what the store keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod operate;

pub use operate::*;

use crate::job::Job;
use crate::node::{Fingerprint, Inventory};
use crate::poll::AllocStatus;
use crate::{AllocId, Blob, DiffId, Digest, ImageId, Millis, NodeId, SetId, Timestamp, TokenId};

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable word for programs: `unknown_image`, `bad_signature`, `unauthorized`, ...
    pub code: String,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

/// Who orders something; written into deployment sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Submitter {
    /// Name.
    pub name: String,
    /// E-mail address.
    pub email: String,
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Version of the server.
    pub version: String,
    /// Version of the root document in force.
    pub root_version: u64,
    /// Does the server hold all keys itself (`skerry-server dev`)?
    pub development: bool,
    /// Enrolled nodes.
    pub nodes: u64,
    /// Jobs that are not stopped.
    pub jobs: u64,
    /// Bundles waiting or in the making.
    pub builds_pending: u64,
}

// ---- images ----

/// `POST /v1/images/prepare`: which layers must be uploaded?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareRequest {
    /// The layers of the image, lowest first.
    pub diff_ids: Vec<DiffId>,
}

/// Answer of `POST /v1/images/prepare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReply {
    /// The layers that the server lacks; upload each with `PUT /v1/layers/{diff_id}` in the layer format.
    pub missing: Vec<DiffId>,
}

/// `POST /v1/images`: makes a release known. All its layers must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// Envelope of a [`crate::release::Release`].
    pub release: Blob,
    /// The image configuration, exactly: its SHA-256 is the image id.
    pub config: Blob,
}

/// An image in lists, and the answer of `POST /v1/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Name without tag.
    pub name: String,
    /// Tag.
    pub tag: String,
    /// The image.
    pub image_id: ImageId,
    /// Architecture.
    pub architecture: String,
    /// Bytes of the uncompressed layers.
    pub size: u64,
    /// Bytes of the layers as the server keeps them.
    pub stored: u64,
    /// Number of layers.
    pub layers: u32,
    /// When the server got it.
    pub published_at: Timestamp,
}

/// `GET /v1/image?ref=NAME[:TAG]` or `?ref=sha256:...`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDetail {
    /// Summary.
    #[serde(flatten)]
    pub summary: ImageSummary,
    /// The layers, lowest first.
    pub layer_list: Vec<LayerDetail>,
    /// Id of the release key that signed it, hex.
    pub signed_by: String,
    /// The signed release.
    pub release: Blob,
}

/// One layer of an [`ImageDetail`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDetail {
    /// The layer.
    pub diff_id: DiffId,
    /// Bytes uncompressed.
    pub size: u64,
    /// Bytes as the server keeps them.
    pub stored: u64,
}

// ---- jobs ----

/// `POST /v1/jobs/plan`: what would a submit do? The job need not be signed, its images must be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The job; image references are resolved by the server where `image_id` is none.
    pub job: Job,
}

/// Answer of a plan, and part of the answer of a submit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReply {
    /// The job with its images resolved, as it must be signed.
    pub job: Option<Job>,
    /// Version it would get; the current one when nothing changes.
    pub version: u64,
    /// Is it the same as the current version?
    pub unchanged: bool,
    /// Allocations to place, sorted.
    pub placements: Vec<Placement>,
    /// Allocations to stop.
    pub stops: Vec<Placement>,
    /// Groups that could not be placed as often as asked, with the reason per group.
    pub failures: Vec<PlacementFailure>,
    /// The price per (node, image), sorted.
    pub price: Vec<PriceRow>,
}

/// One allocation of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    /// The node.
    pub node: NodeId,
    /// The node's name.
    pub node_name: String,
    /// Group.
    pub group: String,
    /// Index.
    pub index: u32,
    /// Allocation that it replaces on that node.
    pub replaces: Option<AllocId>,
}

/// Why a group could not be placed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlacementFailure {
    /// Group.
    pub group: String,
    /// Allocations that found no node.
    pub missing: u32,
    /// Reasons, each with the number of nodes it ruled out.
    pub reasons: Vec<String>,
}

/// What one image costs on one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PriceRow {
    /// The node.
    pub node: NodeId,
    /// The node's name.
    pub node_name: String,
    /// The image.
    pub image: ImageId,
    /// `name:tag`.
    pub reference: String,
    /// The base that it will be patched from; none for a full bundle.
    pub base: Option<ImageId>,
    /// Bytes to fetch: exact when `built`, else predicted from indexes.
    pub bytes: u64,
    /// Is the bundle there already?
    pub built: bool,
    /// Most bytes that it takes on the node's disk while it is reconstructed, bundle included.
    pub disk_peak: u64,
}

/// `POST /v1/jobs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitRequest {
    /// Envelope of a [`crate::release::Specification`].
    pub specification: Blob,
    /// The jobspec as written.
    pub source: String,
    /// Who orders it.
    pub submitter: Submitter,
    /// Refuse when the plan costs more than this many bytes over all nodes.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Make a new version although nothing changed: batch jobs run once more, everything else is made anew.
    #[serde(default)]
    pub again: bool,
}

/// Answer of `POST /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitReply {
    /// Job id.
    pub job: String,
    /// Version it got.
    pub version: u64,
    /// Its deployment set; the current one when nothing changed.
    pub set: SetId,
    /// What was decided.
    pub plan: PlanReply,
}

/// A job in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Job id.
    pub id: String,
    /// Type as in the jobspec.
    #[serde(rename = "type")]
    pub kind: crate::job::JobType,
    /// Current version.
    pub version: u64,
    /// Stopped by an operator?
    pub stopped: bool,
    /// Allocations wanted, running, failed.
    pub desired: u32,
    /// Allocations that run.
    pub running: u32,
    /// Allocations that failed.
    pub failed: u32,
    /// When the current version was submitted.
    pub submitted_at: Timestamp,
    /// Health of the current version.
    #[serde(default)]
    pub health: Health,
}

/// `GET /v1/jobs/{id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Summary.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// The current version's job.
    pub job: Job,
    /// The jobspec as written.
    pub source: String,
    /// Its allocations, newest version first.
    pub allocs: Vec<AllocSummary>,
    /// Its deployment sets, newest first.
    pub sets: Vec<SetSummary>,
}

/// `POST /v1/jobs/{id}/stop`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// Who orders it.
    pub submitter: Submitter,
}

/// Desired status of an allocation: what the server wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredStatus {
    /// It is in the node's manifest.
    Run,
    /// It is replaced or stopped.
    Stop,
}

/// An allocation in lists; `GET /v1/allocations`, `GET /v1/allocations/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocSummary {
    /// The allocation.
    pub id: AllocId,
    /// Job id.
    pub job: String,
    /// Job version.
    pub version: u64,
    /// Group.
    pub group: String,
    /// Index.
    pub index: u32,
    /// The node.
    pub node: NodeId,
    /// The node's name.
    pub node_name: String,
    /// What the server wants.
    pub desired: DesiredStatus,
    /// What the node last said.
    pub status: AllocStatus,
    /// Why, as the node last said.
    pub reason: String,
    /// Restarts so far.
    pub restarts: u32,
    /// When the node last said something of it, on the server's clock.
    pub updated_at: Timestamp,
    /// The node's judgement of its health, once there is one.
    #[serde(default)]
    pub healthy: Option<bool>,
    /// What it waits for ends by itself then, on the server's clock.
    #[serde(default)]
    pub waits_until: Option<Timestamp>,
    /// Since when its node was silent for too long: whether it runs is not known.
    #[serde(default)]
    pub lost_since: Option<Timestamp>,
}

/// An allocation that a node keeps and that the server does not know; `GET /v1/unknown-allocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownSummary {
    /// The allocation.
    pub id: AllocId,
    /// Job id.
    pub job: String,
    /// Job version.
    pub version: u64,
    /// Group.
    pub group: String,
    /// Index.
    pub index: u32,
    /// The node.
    pub node: NodeId,
    /// The node's name.
    pub node_name: String,
    /// What the node last said.
    pub status: AllocStatus,
    /// When it said so, on the server's clock.
    pub told_at: Timestamp,
    /// Why it is ordered to stop; none while it is not.
    #[serde(default)]
    pub stopping: Option<String>,
    /// Digest of its specification.
    pub specification: Digest,
    /// Has the node handed over the specification, so that it can be adopted?
    pub handed_over: bool,
}

/// What was adopted; `POST /v1/unknown-allocations/{id}/adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The job.
    pub job: String,
    /// Its version, in force again.
    pub version: u64,
    /// The allocations.
    pub allocs: Vec<AllocId>,
}

// ---- deployment sets ----

/// State of a deployment set or of one of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetState {
    /// Nothing was fetched yet.
    Queued,
    /// Bytes are on their way, or the image is reconstructed.
    InTransit,
    /// The image is on the node; for a set: on all of its nodes.
    Succeeded,
    /// It could not be brought there; the row's reason says why.
    Failed,
}

/// A deployment set in lists; `GET /v1/deployment-sets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSummary {
    /// The set.
    pub id: SetId,
    /// Job id.
    pub job: String,
    /// Job version.
    pub version: u64,
    /// Who ordered it.
    pub submitter: Submitter,
    /// When.
    pub created_at: Timestamp,
    /// When its last row came to an end.
    pub finished_at: Option<Timestamp>,
    /// State of the whole.
    pub state: SetState,
    /// Health of the allocations of its job version.
    #[serde(default)]
    pub health: Health,
}

/// `GET /v1/deployment-sets/{id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStatus {
    /// Summary.
    #[serde(flatten)]
    pub summary: SetSummary,
    /// A row per (node, image), sorted.
    pub rows: Vec<SetRow>,
}

/// One image on its way to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRow {
    /// The node.
    pub node: NodeId,
    /// The node's name.
    pub node_name: String,
    /// The image.
    pub image: ImageId,
    /// `name:tag`.
    pub reference: String,
    /// State.
    pub state: SetState,
    /// Why it failed.
    pub reason: Option<String>,
    /// Bytes of the bundle, once it is known.
    pub size: Option<u64>,
    /// The base of the bundle; none for a full one or when not known yet.
    pub base: Option<ImageId>,
    /// Last change, on the server's clock.
    pub updated_at: Timestamp,
}

// ---- nodes, tokens ----

/// A node in lists; `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its node pool.
    pub pool: String,
    /// Architecture.
    pub architecture: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Last poll, on the server's clock.
    pub last_seen: Option<Timestamp>,
    /// Counter of the manifest it holds, and of the newest one for it.
    pub counter: u64,
    /// Counter of the newest manifest for it.
    pub latest_counter: u64,
    /// May it get new allocations?
    #[serde(default = "yes")]
    pub eligible: bool,
    /// Work is taken off it.
    #[serde(default)]
    pub drain: Option<DrainStatus>,
    /// Is any of its allocations lost?
    #[serde(default)]
    pub lost: bool,
}

/// What a server that does not know eligibility means.
fn yes() -> bool {
    true
}

/// `GET /v1/nodes/{id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Summary.
    #[serde(flatten)]
    pub summary: NodeSummary,
    /// Its facts.
    pub fingerprint: Fingerprint,
    /// Its images.
    pub inventory: Inventory,
    /// Meta set on the server.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Its allocations.
    pub allocs: Vec<AllocSummary>,
    /// Images on their way to it, with what they wait for.
    #[serde(default)]
    pub arriving: Vec<SetRow>,
}

/// `POST /v1/tokens`: makes an enrolment token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Node pool of the nodes that enrol with it.
    pub pool: String,
    /// How many nodes may use it.
    pub uses: u32,
    /// How long it lives, by the server's clock; for ever when none.
    #[serde(default)]
    pub ttl: Option<Millis>,
}

/// Answer of `POST /v1/tokens`: the only time that the secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReply {
    /// The token's public half.
    pub id: TokenId,
    /// `skt_<id>_<secret>`.
    pub token: String,
}

/// An enrolment token in lists; `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSummary {
    /// The token's public half.
    pub id: TokenId,
    /// Node pool.
    pub pool: String,
    /// Uses allowed.
    pub uses: u32,
    /// Uses so far.
    pub used: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A bundle in lists; `GET /v1/bundles`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleSummary {
    /// The image that it makes.
    pub target: ImageId,
    /// What it starts from; empty for a full bundle.
    pub bases: Vec<ImageId>,
    /// `queued`, `building`, `ready` or `failed`.
    pub state: BuildState,
    /// SHA-256 of the file, once ready.
    pub digest: Option<Digest>,
    /// Bytes of the file, once ready.
    pub size: Option<u64>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// State of a bundle's build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Building,
    /// Proven and signed.
    Ready,
    /// It could not be made.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command of this version, and a server of the one before it.
    #[test]
    fn answers_of_an_older_server_are_read() {
        let id = "01010101010101010101010101010101";
        let alloc = format!(
            r#"{{"id":"{id}","job":"till","version":1,"group":"g","index":0,"node":"{id}","node_name":"n","desired":"run","status":"running","reason":"","restarts":0,"updated_at":5}}"#
        );
        let summary: AllocSummary = serde_json::from_str(&alloc).unwrap();
        assert_eq!((summary.healthy, summary.waits_until, summary.lost_since), (None, None, None));
        let detail: AllocDetail = serde_json::from_str(&alloc).unwrap();
        assert_eq!((detail.summary, detail.states.len(), detail.retry), (summary, 0, 0));
        let node = format!(
            r#"{{"id":"{id}","name":"n","pool":"p","architecture":"arm64","agent_version":"","last_seen":null,"counter":1,"latest_counter":1,"of_a_newer_server":7}}"#
        );
        let node: NodeSummary = serde_json::from_str(&node).unwrap();
        assert!(node.eligible && node.drain.is_none() && !node.lost);
        let order: SubmitRequest =
            serde_json::from_str(r#"{"specification":"00","source":"","submitter":{"name":"a","email":"b"}}"#).unwrap();
        assert!(!order.again);
    }
}
