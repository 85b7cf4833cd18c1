//! Typed client of the operator's API: what the CLI, the tests and other tools speak to the server with.
//!
//! In: the server's address, its CA and an operator token. Out: the types of [`skerry_wire::api`], or a [`ClientError`] that says what
//! was asked of whom. Every request has a deadline; answers are bounded; nothing is retried, because only the caller knows what may
//! be repeated.
#![forbid(unsafe_code)]

mod connect;
mod error;
mod request;

use http::Method;
use skerry_wire::api::{
    Adopted, AllocDetail, AllocOrder, AllocSummary, BundleSummary, Changed, DrainRequest, EligibilityRequest, ImageDetail, ImageSummary,
    JobStatus, JobSummary, LogRequest, LogStatus, MetaRequest, NodeStatus, NodeSummary, PlanReply, PlanRequest, PrepareReply,
    PrepareRequest, PublishRequest, PutVariable, ServerStatus, SetStatus, SetSummary, StopRequest, SubmitReply, SubmitRequest, TokenReply,
    TokenRequest, TokenSummary, UnknownSummary, Variable, VariableSummary,
};
use skerry_wire::{AllocId, DiffId, LogOrderId, NodeId, SetId, TokenId};

pub use connect::{Client, Connection};
pub use error::ClientError;
pub use request::UploadBody;

impl Client {
    /// What the server is and has.
    pub async fn status(&self) -> Result<ServerStatus, ClientError> {
        self.get("/v1/status").await
    }

    /// The root file in force, as the server has it. Trust it only through a root that is trusted already.
    pub async fn root(&self) -> Result<Vec<u8>, ClientError> {
        self.get_bytes("/v1/trust/root").await
    }

    /// The server's metrics in Prometheus text.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.get_bytes("/v1/metrics").await?).into_owned())
    }

    /// Which of these layers must be uploaded?
    pub async fn prepare_image(&self, request: &PrepareRequest) -> Result<PrepareReply, ClientError> {
        self.send(Method::POST, "/v1/images/prepare", request).await
    }

    /// Uploads a layer in the layer format. Safe to repeat.
    pub async fn put_layer(&self, diff_id: &DiffId, body: UploadBody) -> Result<(), ClientError> {
        self.upload(&format!("/v1/layers/{diff_id}"), body).await
    }

    /// Makes a release known. Safe to repeat.
    pub async fn publish_image(&self, request: &PublishRequest) -> Result<ImageSummary, ClientError> {
        self.send(Method::POST, "/v1/images", request).await
    }

    /// All images, by name and tag.
    pub async fn images(&self) -> Result<Vec<ImageSummary>, ClientError> {
        self.get("/v1/images").await
    }

    /// One image by `name[:tag]` or id.
    pub async fn image(&self, reference: &str) -> Result<ImageDetail, ClientError> {
        self.get(&format!("/v1/image?ref={}", request::query_escape(reference))).await
    }

    /// What a submit of this job would do.
    pub async fn plan_job(&self, request: &PlanRequest) -> Result<PlanReply, ClientError> {
        self.send(Method::POST, "/v1/jobs/plan", request).await
    }

    /// Submits a signed specification.
    pub async fn submit_job(&self, request: &SubmitRequest) -> Result<SubmitReply, ClientError> {
        self.send(Method::POST, "/v1/jobs", request).await
    }

    /// All jobs, by id.
    pub async fn jobs(&self) -> Result<Vec<JobSummary>, ClientError> {
        self.get("/v1/jobs").await
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<JobStatus, ClientError> {
        self.get(&format!("/v1/jobs/{}", request::query_escape(id))).await
    }

    /// Stops a job on all nodes. Safe to repeat.
    pub async fn stop_job(&self, id: &str, request: &StopRequest) -> Result<JobSummary, ClientError> {
        self.send(Method::POST, &format!("/v1/jobs/{}/stop", request::query_escape(id)), request).await
    }

    /// All deployment sets, newest first.
    pub async fn sets(&self) -> Result<Vec<SetSummary>, ClientError> {
        self.get("/v1/deployment-sets").await
    }

    /// One deployment set.
    pub async fn set(&self, id: &SetId) -> Result<SetStatus, ClientError> {
        self.get(&format!("/v1/deployment-sets/{id}")).await
    }

    /// All allocations.
    pub async fn allocs(&self) -> Result<Vec<AllocSummary>, ClientError> {
        self.get("/v1/allocations").await
    }

    /// One allocation.
    pub async fn alloc(&self, id: &AllocId) -> Result<AllocDetail, ClientError> {
        self.get(&format!("/v1/allocations/{id}")).await
    }

    /// Orders a node to try again an allocation that failed there.
    pub async fn retry_alloc(&self, id: &AllocId, order: &AllocOrder) -> Result<AllocDetail, ClientError> {
        self.send(Method::POST, &format!("/v1/allocations/{id}/retry"), order).await
    }

    /// Orders a node to switch to an allocation in spite of an update lock. Safe to repeat.
    pub async fn override_lock(&self, id: &AllocId, order: &AllocOrder) -> Result<AllocDetail, ClientError> {
        self.send(Method::POST, &format!("/v1/allocations/{id}/override-lock"), order).await
    }

    /// Allocations that nodes keep and the server does not know.
    pub async fn unknown_allocs(&self) -> Result<Vec<UnknownSummary>, ClientError> {
        self.get("/v1/unknown-allocations").await
    }

    /// Takes up the job version of an unknown allocation, with all unknown allocations of it.
    pub async fn adopt_alloc(&self, id: &AllocId, order: &AllocOrder) -> Result<Adopted, ClientError> {
        self.send(Method::POST, &format!("/v1/unknown-allocations/{id}/adopt"), order).await
    }

    /// Orders a node to stop an unknown allocation. Safe to repeat.
    pub async fn bury_alloc(&self, id: &AllocId, order: &AllocOrder) -> Result<UnknownSummary, ClientError> {
        self.send(Method::POST, &format!("/v1/unknown-allocations/{id}/bury"), order).await
    }

    /// Orders from its node the end of what a task wrote. Safe to repeat while it is not answered.
    pub async fn order_log(&self, id: &AllocId, request: &LogRequest) -> Result<LogStatus, ClientError> {
        self.send(Method::POST, &format!("/v1/allocations/{id}/logs"), request).await
    }

    /// What came of such an order.
    pub async fn log_order(&self, id: &LogOrderId) -> Result<LogStatus, ClientError> {
        self.get(&format!("/v1/log-orders/{id}")).await
    }

    /// May new allocations come to a node? Safe to repeat.
    pub async fn set_eligibility(&self, id: &NodeId, request: &EligibilityRequest) -> Result<Changed, ClientError> {
        self.send(Method::POST, &format!("/v1/nodes/{id}/eligibility"), request).await
    }

    /// Takes the work off a node, or stops doing so. Safe to repeat; a deadline counts from the last time.
    pub async fn drain_node(&self, id: &NodeId, request: &DrainRequest) -> Result<Changed, ClientError> {
        self.send(Method::POST, &format!("/v1/nodes/{id}/drain"), request).await
    }

    /// Changes the meta that the server sets for a node. Safe to repeat.
    pub async fn apply_meta(&self, id: &NodeId, request: &MetaRequest) -> Result<Changed, ClientError> {
        self.send(Method::POST, &format!("/v1/nodes/{id}/meta"), request).await
    }

    /// The variables whose path starts like this, without their values.
    pub async fn variables(&self, prefix: &str) -> Result<Vec<VariableSummary>, ClientError> {
        self.get(&format!("/v1/variables?prefix={}", request::query_escape(prefix))).await
    }

    /// One variable.
    pub async fn variable(&self, path: &str) -> Result<Variable, ClientError> {
        self.get(&format!("/v1/variable?path={}", request::query_escape(path))).await
    }

    /// Puts all items of a variable. Safe to repeat.
    pub async fn put_variable(&self, variable: &PutVariable) -> Result<Changed, ClientError> {
        self.send(Method::PUT, "/v1/variable", variable).await
    }

    /// Removes a variable.
    pub async fn purge_variable(&self, path: &str) -> Result<(), ClientError> {
        self.delete(&format!("/v1/variable?path={}", request::query_escape(path))).await
    }

    /// All nodes, by name.
    pub async fn nodes(&self) -> Result<Vec<NodeSummary>, ClientError> {
        self.get("/v1/nodes").await
    }

    /// One node.
    pub async fn node(&self, id: &NodeId) -> Result<NodeStatus, ClientError> {
        self.get(&format!("/v1/nodes/{id}")).await
    }

    /// Makes an enrolment token.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenReply, ClientError> {
        self.send(Method::POST, "/v1/tokens", request).await
    }

    /// All enrolment tokens, newest first.
    pub async fn tokens(&self) -> Result<Vec<TokenSummary>, ClientError> {
        self.get("/v1/tokens").await
    }

    /// Ends an enrolment token; nodes that used it stay enrolled.
    pub async fn delete_token(&self, id: &TokenId) -> Result<(), ClientError> {
        self.delete(&format!("/v1/tokens/{id}")).await
    }

    /// All bundles and the state of their builds.
    pub async fn bundles(&self) -> Result<Vec<BundleSummary>, ClientError> {
        self.get("/v1/bundles").await
    }
}
