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
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use skerry_wire::{NodeId, Timestamp};
use tokio::sync::watch;

pub use capability::Capabilities;
pub use contacts::{Contacts, Place};

use crate::app::App;
use crate::http::deadline;

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

/// The agents' addresses. Polls have the deadline of other requests; a download lasts as long as the link needs, and its connection
/// must not stand still.
pub fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/agent/v1/enrol", post(enrol::enrol))
        .route("/agent/v1/poll", post(poll::poll))
        .layer(from_fn_with_state(Arc::clone(app), deadline))
        .route("/agent/v1/objects/{digest}", get(download::object))
}

/// How often it is kept on disk when nodes were last heard of.
const KEEP: Duration = Duration::from_secs(60);

/// Keeps on disk when nodes were last heard of: one write a minute for all of them, and one at the end.
pub async fn keep_contacts(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        // Cancel-safe: both only wait.
        let ended = tokio::select! {
            () = tokio::time::sleep(KEEP) => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let contacts = app.agents.contacts.take_unkept();
        if !contacts.is_empty()
            && let Err(error) = app.store.keep_contacts(contacts).await
        {
            tracing::warn!(%error, "when nodes were last heard of could not be kept");
        }
        if ended {
            return;
        }
    }
}

/// When the node was last heard of: the later of memory and store.
pub fn last_seen(app: &App, node: &NodeId, stored: Option<Timestamp>) -> Option<Timestamp> {
    app.agents.contacts.last_seen(node).max(stored)
}
