//! The uplink: the agent's one way to its server. It enrols, then polls, for ever.
//!
//! In: facts about the node, the images to ask for, the outbox. Out: accepted manifests in the ledger, offers of bundles, and
//! [`Contact`], what is known about the server for people; and the end of what a task wrote, where the server orders it. It never decides what runs.

pub(crate) mod backoff;
pub(crate) mod client;
mod download;
mod enrol;
mod exchange;
pub(crate) mod meter;
pub(crate) mod network;
pub(crate) mod reach;
mod resolve;
mod run;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skerry_trust::SigningKey;
use skerry_wire::node::{Fingerprint, Inventory, UnknownAlloc};
use skerry_wire::poll::OfferState;
use skerry_wire::{ImageId, NodeId, Timestamp};
use tokio::sync::{Notify, mpsc, watch};

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::logs::answer::Outputs;
use crate::run::Hint;
use crate::silence::Silence;
use crate::trust::RootStore;
use client::Client;

pub(crate) use run::run;

/// What the agent knows about its server, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contact {
    /// The server's URL.
    pub(crate) server: String,
    /// The node's id, once it has enrolled.
    pub(crate) node: Option<NodeId>,
    /// The server's clock at the last good answer since the agent began; none when there was none.
    pub(crate) last: Option<Timestamp>,
    /// Why the last try gave nothing; none when it was good.
    pub(crate) error: Option<String>,
    /// Tries in a row that gave nothing.
    pub(crate) failures: u32,
    /// Reports that wait in the outbox.
    pub(crate) reports: u64,
    /// Is the error one of this node, and the server answered?
    #[serde(default)]
    pub(crate) own: bool,
}

impl Contact {
    /// What on this node keeps an answer of the server from being taken.
    pub(crate) fn own_error(&self) -> Option<&str> {
        self.error.as_deref().filter(|_| self.own)
    }
}

/// What the server said last about each image that it was asked for.
pub(crate) type Offers = Arc<BTreeMap<ImageId, OfferState>>;

/// What the uplink needs to begin.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// The way to the server.
    pub(crate) client: Client,
    /// The node's key.
    pub(crate) key: Arc<SigningKey>,
    /// The enrolment token: `skt_<id>_<secret>`.
    pub(crate) token: Option<String>,
    /// The longest time between polls.
    pub(crate) poll_interval: Duration,
    /// What is trusted.
    pub(crate) roots: RootStore,
    /// What is remembered.
    pub(crate) ledger: Ledger,
    /// Told the time of every signed answer.
    pub(crate) clock: Clock,
    /// Told of every answer, and of every one that did not come.
    pub(crate) silence: Silence,
    /// What tasks wrote, for the server when it orders it.
    pub(crate) outputs: Outputs,
    /// The other ends.
    pub(crate) wires: Wires,
}

/// The uplink's ends of the channels to the rest of the agent.
#[derive(Debug)]
pub(crate) struct Wires {
    /// Facts about the node.
    pub(crate) facts: watch::Receiver<Arc<Fingerprint>>,
    /// Images of the engine; none until it was asked once.
    pub(crate) inventory: watch::Receiver<Option<Inventory>>,
    /// What is kept beyond the manifest; none before the first decision.
    pub(crate) unknown: watch::Receiver<Option<Arc<Vec<UnknownAlloc>>>>,
    /// Images to ask the server for.
    pub(crate) asking: watch::Receiver<Arc<BTreeSet<ImageId>>>,
    /// Asks for a poll now.
    pub(crate) wake: Arc<Notify>,
    /// What the server said about them.
    pub(crate) offers: watch::Sender<Offers>,
    /// Told when the server answers again, and when the time of day becomes known.
    pub(crate) hints: mpsc::Sender<Hint>,
    /// For `status`.
    pub(crate) contact: watch::Sender<Contact>,
}

#[cfg(test)]
mod tests;
