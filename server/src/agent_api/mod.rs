//! What agents speak: enrolment, the poll, and the bytes of bundles.
//!
//! In: envelopes that node keys signed. Out: replies that the director seals. A request is believed as far as its key reaches: a node
//! speaks for itself alone. Polls that change nothing are answered from reads and memory and write nothing to the disk.

mod capability;
mod contacts;
mod download;
mod enrol;
mod offers;
mod poll;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use skerry_wire::Timestamp;

pub use capability::Capabilities;
pub use contacts::{Contacts, Place};

use crate::app::App;
use crate::store::{LastContact, StoreError};

/// What the agents' addresses need beside the store.
#[derive(Debug)]
pub struct Agents {
    /// Who was heard of when.
    pub contacts: Contacts,
    /// Admits nodes to objects.
    pub capabilities: Capabilities,
}

impl Agents {
    /// With the server's object key.
    pub fn new(object_key: &[u8; 32]) -> Self {
        Self { contacts: Contacts::default(), capabilities: Capabilities::new(object_key) }
    }
}

/// The agents' addresses.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/agent/v1/enrol", post(enrol::enrol))
        .route("/agent/v1/poll", post(poll::poll))
        .route("/agent/v1/objects/{digest}", get(download::object))
}

/// Keeps on disk when nodes were last heard of: one write for all of them, to be called about once a minute and at the end.
pub async fn keep_contacts(app: &App) -> Result<(), StoreError> {
    let contacts: Vec<LastContact> = app.agents.contacts.take_unkept();
    if contacts.is_empty() {
        return Ok(());
    }
    app.store.keep_contacts(contacts).await
}

/// When the node was last heard of: the later of memory and store.
pub fn last_seen(app: &App, node: &skerry_wire::NodeId, stored: Option<Timestamp>) -> Option<Timestamp> {
    app.agents.contacts.last_seen(node).max(stored)
}
