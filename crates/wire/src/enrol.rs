//! Enrolment: how a new node becomes known.

use serde::{Deserialize, Serialize};

use crate::manifest::Mark;
use crate::node::Fingerprint;
use crate::{Blob, BootId, NodeId, Timestamp};

/// What a new node sends. Envelope with purpose [`EnrolRequest::PURPOSE`], signed by the node key that it carries, which proves that
/// the sender holds it. Safe to repeat: the same key gets the same node id and uses its token once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The token as the operator got it: `skt_<id>_<secret>`.
    pub token: String,
    /// The node's Ed25519 public key.
    #[serde(with = "serde_bytes")]
    pub key: [u8; 32],
    /// The boot.
    pub boot: BootId,
    /// Fresh random bytes; the reply must carry them.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 8],
    /// Facts, hardware serials among them.
    pub fingerprint: Fingerprint,
}

impl EnrolRequest {
    /// Purpose string of the envelope.
    pub const PURPOSE: &'static str = "skerry/enrol/1";
}

/// What the server answers. Envelope with purpose [`EnrolReply::PURPOSE`], signed by the director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolReply {
    /// The node's id.
    pub node: NodeId,
    /// The nonce of the request.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 8],
    /// The server's clock.
    pub time: Timestamp,
    /// Root documents newer than version 1, in order.
    #[serde(default)]
    pub roots: Vec<Blob>,
    /// The mark that this node showed last, when it is known already: one that has none any more has lost it. Zero of a new node, and from
    /// servers that do not say it.
    #[serde(default, skip_serializing_if = "is_first")]
    pub mark: Mark,
}

/// Serde asks by reference.
fn is_first(mark: &Mark) -> bool {
    *mark == Mark::default()
}

impl EnrolReply {
    /// Purpose string of the envelope.
    pub const PURPOSE: &'static str = "skerry/enrol-reply/1";
}
