//! The poll: a node's one request. Field names are one letter because an idle poll is paid for by the byte.

use ciborium::Value;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::logs::{LogAnswer, LogOrder};
use crate::manifest::Mark;
use crate::node::{Fingerprint, Inventory};
use crate::{AllocId, Blob, BootId, Digest, ImageId, Millis, NodeId, Timestamp};

/// What a node sends. Envelope with purpose [`PollRequest::PURPOSE`], signed by the node key.
///
/// Replay: within one boot `seq` only rises, and a request echoes the newest server nonce; the server refuses an older `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollRequest {
    /// The node.
    #[serde(rename = "n")]
    pub node: NodeId,
    /// The boot.
    #[serde(rename = "b")]
    pub boot: BootId,
    /// Rises with every request of the boot.
    #[serde(rename = "s")]
    pub seq: u64,
    /// Fresh random bytes; the reply must carry them.
    #[serde(rename = "o", with = "serde_bytes")]
    pub nonce: [u8; 8],
    /// The nonce of the last reply, zeros when there was none in this boot.
    #[serde(rename = "k", with = "serde_bytes")]
    pub server_nonce: [u8; 8],
    /// Mark of the manifest that the node holds.
    #[serde(rename = "m")]
    pub mark: Mark,
    /// When that manifest was issued, as it says itself: by this a server that was restored from an older backup, and has given the same mark
    /// to another manifest since, sees that the node holds not what it means. Zero when the manifest of the mark was lost; none
    /// before the first one, and from older agents.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Timestamp>,
    /// Facts, when they changed since the server confirmed them.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Box<Fingerprint>>,
    /// Images of the engine, when they changed since the server confirmed them.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Images that the manifest needs and the engine lacks.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageId>,
    /// Of these, images that no patch led to on the node: their bundles must have no bases.
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    pub full: Vec<ImageId>,
    /// Specifications that the manifest names and the node lacks.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub specifications: Vec<Digest>,
    /// The oldest reports of the outbox, in order, at most [`crate::limits::REPORTS_PER_POLL`].
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<Report>,
    /// Specifications that the last reply wanted back.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<Blob>,
    /// The answer to the last reply's order for output.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Box<LogAnswer>>,
}

impl PollRequest {
    /// Purpose string of the envelope.
    pub const PURPOSE: &'static str = "skerry/poll/1";
}

/// What the server answers. Envelope with purpose [`PollReply::PURPOSE`], signed by the director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollReply {
    /// The node it is for.
    #[serde(rename = "n")]
    pub node: NodeId,
    /// The nonce of the request: freshness without a clock.
    #[serde(rename = "o", with = "serde_bytes")]
    pub nonce: [u8; 8],
    /// To be echoed by the next request.
    #[serde(rename = "k", with = "serde_bytes")]
    pub server_nonce: [u8; 8],
    /// The server's clock.
    #[serde(rename = "t")]
    pub time: Timestamp,
    /// Seconds until the next poll is wanted; the node adds jitter.
    #[serde(rename = "q")]
    pub next_poll_s: u32,
    /// Highest report sequence that the server has on its disk; 0 when none.
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub acknowledged: u64,
    /// The server has no fingerprint or inventory of this node: send them with the next poll.
    #[serde(rename = "x", default, skip_serializing_if = "is_false")]
    pub send_facts: bool,
    /// A manifest newer than the node's mark.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Blob>,
    /// Signed specifications: those asked for, and those that the new manifest adds.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub specifications: Vec<Blob>,
    /// What the server knows about each image asked for.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<Offer>,
    /// Root documents newer than the node's, in order.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<Blob>,
    /// Specifications of unknown allocations that the server wants back from the node.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<Digest>,
    /// The oldest order for output that the node has not answered.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogOrder>,
}

impl PollReply {
    /// Purpose string of the envelope.
    pub const PURPOSE: &'static str = "skerry/poll-reply/1";
}

/// Serde asks by reference.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Serde asks by reference.
fn is_false(b: &bool) -> bool {
    !*b
}

/// The server's answer for one image that a node lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The image.
    #[serde(rename = "i")]
    pub image: ImageId,
    /// The state of its bundle for this node.
    #[serde(rename = "b")]
    pub bundle: OfferState,
}

/// The state of a bundle for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum OfferState {
    /// Fetch it from `/agent/v1/objects/{digest}?n={node}&c={capability}`, with ranges.
    Ready {
        /// SHA-256 of the whole bundle file.
        #[serde(rename = "d")]
        digest: Digest,
        /// Bytes of the bundle file.
        #[serde(rename = "s")]
        size: u64,
        /// What admits this node to the object, hex.
        #[serde(rename = "c")]
        capability: String,
        /// The signed release of the image.
        #[serde(rename = "r")]
        release: Blob,
    },
    /// Still in the making: ask again with the next poll.
    Building,
    /// It cannot be made; the reason is for people.
    Failed {
        /// Why.
        #[serde(rename = "e")]
        reason: String,
    },
    /// A state of a newer server.
    Unknown,
}

impl OfferState {
    /// The states that this version knows, as they are written.
    const KNOWN: [&'static str; 3] = ["Ready", "Building", "Failed"];
}

impl Serialize for OfferState {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, s)
    }
}

impl<'de> Deserialize<'de> for OfferState {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        /// A state of a name that is known.
        #[derive(Deserialize)]
        struct Known(#[serde(with = "OfferState")] OfferState);

        let value = Value::deserialize(d)?;
        match variant(&value) {
            None => Err(D::Error::custom("a state is its name, or a map of its name and what it carries")),
            Some(name) if !Self::KNOWN.contains(&name) => Ok(Self::Unknown),
            Some(_) => value.deserialized::<Known>().map(|known| known.0).map_err(D::Error::custom),
        }
    }
}

/// The name of a variant, as it is written.
fn variant(value: &Value) -> Option<&str> {
    match value {
        Value::Text(name) => Some(name.as_str()),
        Value::Map(one) if one.len() == 1 => one[0].0.as_text(),
        _ => None,
    }
}

/// One entry of a node's outbox. Delivered at least once, counted once: the server keeps the highest sequence per node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Position in the node's outbox, from 1, never reused.
    #[serde(rename = "s")]
    pub seq: u64,
    /// The node's lower bound of time when it happened.
    #[serde(rename = "t")]
    pub at: Timestamp,
    /// What happened.
    #[serde(rename = "e")]
    pub event: Event,
}

/// What a report tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Event {
    /// A manifest was accepted.
    ManifestAccepted {
        /// Its mark.
        mark: Mark,
    },
    /// A manifest or one of its specifications was refused.
    ManifestRefused {
        /// Its mark.
        mark: Mark,
        /// Why.
        reason: String,
    },
    /// The node began, or went on with, fetching the bundle of an image.
    ImageInTransit {
        /// The image.
        image: ImageId,
        /// Bytes of the bundle that were there.
        have: u64,
        /// Bytes of the bundle.
        size: u64,
    },
    /// The image is in the engine, checked and on disk.
    ImagePresent {
        /// The image.
        image: ImageId,
    },
    /// The image could not be fetched or reconstructed.
    ImageFailed {
        /// The image.
        image: ImageId,
        /// Why.
        reason: String,
    },
    /// The bundle of an image waits: for a window, for the budget, for an order.
    ImageWaiting {
        /// The image.
        image: ImageId,
        /// What for, and until when, for people.
        reason: String,
    },
    /// An allocation's state changed.
    Alloc {
        /// The allocation.
        alloc: AllocId,
        /// Its client status.
        status: AllocStatus,
        /// Why, for people.
        reason: String,
        /// Restarts of its tasks so far.
        restarts: u32,
        /// The node's judgement of its health, once there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        healthy: Option<bool>,
        /// What it waits for ends by itself after this long, counted from the report.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait: Option<Millis>,
    },
    /// A run of a periodic allocation began or ended.
    Run {
        /// The periodic allocation.
        alloc: AllocId,
        /// Counts its runs on this node, from 1.
        run: u64,
        /// Client status.
        status: AllocStatus,
        /// Why, for people.
        reason: String,
    },
    /// Reports that were given up, counted here instead.
    Dropped {
        /// How many; 0 when nobody can say.
        count: u64,
        /// Why.
        reason: String,
    },
    /// An event of a newer agent.
    Unknown,
}

impl Event {
    /// The events that this version knows, as they are written.
    const KNOWN: [&'static str; 9] =
        ["ManifestAccepted", "ManifestRefused", "ImageInTransit", "ImagePresent", "ImageFailed", "ImageWaiting", "Alloc", "Run", "Dropped"];
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, s)
    }
}

impl<'de> Deserialize<'de> for Event {
    /// Serde's own `other` does not pass over what an event carries: everything behind it would be misread.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        /// An event of a name that is known.
        #[derive(Deserialize)]
        struct Known(#[serde(with = "Event")] Event);

        let value = Value::deserialize(d)?;
        let name = variant(&value).ok_or_else(|| D::Error::custom("an event is its name, or a map of its name and what it carries"))?;
        if !Self::KNOWN.contains(&name) {
            return Ok(Self::Unknown);
        }
        if has_new_status(&value) {
            return Ok(Self::Unknown);
        }
        value.deserialized::<Known>().map(|known| known.0).map_err(D::Error::custom)
    }
}

/// Is the event of a known name, with a client status of a newer agent? The reports beside it must not be spoiled by that either.
fn has_new_status(event: &Value) -> bool {
    let carried = event.as_map().and_then(|one| one.first()).and_then(|(_, carried)| carried.as_map());
    let status = carried.into_iter().flatten().find(|(key, _)| key.as_text() == Some("status"));
    let known = ["pending", "running", "complete", "failed"];
    status.and_then(|(_, value)| value.as_text()).is_some_and(|status| !known.contains(&status))
}

/// Client status of an allocation: what the node sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocStatus {
    /// Accepted, not started: an image or a port is awaited.
    Pending,
    /// All tasks run.
    Running,
    /// Stopped by order.
    Complete,
    /// A task failed and its policy gave up.
    Failed,
}

impl std::fmt::Display for AllocStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    /// An agent of tomorrow.
    #[derive(Serialize)]
    enum Newer {
        Plain,
        Named { image: u64, why: String },
        Value(Vec<u64>),
    }

    #[test]
    fn events_of_a_newer_agent_do_not_spoil_the_reports_beside_them() {
        #[derive(Serialize)]
        struct Sent {
            s: u64,
            t: i64,
            e: Newer,
        }
        let newer = [Newer::Plain, Newer::Named { image: 7, why: "x".to_owned() }, Newer::Value(vec![1, 2])];
        let sent: Vec<Sent> = (1..).zip(newer).map(|(s, e)| Sent { s, t: 5, e }).collect();
        let read: Vec<Report> = cbor::decode(&cbor::encode(&sent), 1000).unwrap();
        let expected: Vec<Report> = (1..=3).map(|seq| Report { seq, at: Timestamp(5), event: Event::Unknown }).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn offers_of_a_newer_server_do_not_spoil_those_beside_them() {
        #[derive(Serialize)]
        struct Sent {
            i: ImageId,
            b: Newer,
        }
        let image = ImageId(Digest::new([7; 32]));
        let newer = [Newer::Plain, Newer::Named { image: 7, why: "x".to_owned() }, Newer::Value(vec![1, 2])];
        let sent: Vec<Sent> = newer.into_iter().map(|b| Sent { i: image, b }).collect();
        let read: Vec<Offer> = cbor::decode(&cbor::encode(&sent), 1000).unwrap();
        assert!(read.iter().all(|o| o.bundle == OfferState::Unknown) && read.len() == 3);
        let ready = OfferState::Ready { digest: Digest::new([1; 32]), size: 5, capability: "c".into(), release: Blob(vec![1]) };
        for state in [ready, OfferState::Building, OfferState::Failed { reason: "why".into() }] {
            let offer = Offer { image, bundle: state };
            assert_eq!(cbor::decode::<Offer>(&cbor::encode(&offer), 1000).unwrap(), offer);
        }
    }

    #[test]
    fn a_poll_of_an_older_agent_names_no_full_bundles() {
        let request = PollRequest {
            node: NodeId::new([1; 16]),
            boot: BootId::new([2; 16]),
            seq: 3,
            nonce: [4; 8],
            server_nonce: [5; 8],
            mark: Mark::default(),
            issued: None,
            fingerprint: None,
            inventory: None,
            images: vec![ImageId(Digest::new([7; 32]))],
            full: vec![],
            specifications: vec![],
            reports: vec![],
            log: None,
            given: Vec::new(),
        };
        // As an agent sends it that knows no such field.
        let bytes = cbor::encode(&request);
        let value: Value = cbor::decode(&bytes, 1000).unwrap();
        assert!(value.as_map().unwrap().iter().all(|(key, _)| !matches!(key.as_text(), Some("u" | "l" | "h" | "g"))));
        assert_eq!(cbor::decode::<PollRequest>(&bytes, 1000).unwrap(), request);
        let (issued, given) = (Some(Timestamp(9)), vec![Blob(vec![1, 2])]);
        let full = PollRequest { full: request.images.clone(), issued, given, ..request };
        assert_eq!(cbor::decode::<PollRequest>(&cbor::encode(&full), 1000).unwrap(), full);
    }

    #[test]
    fn every_event_there_and_back() {
        let image = ImageId(Digest::new([7; 32]));
        let (mark, reason) = (Mark { root: 1, epoch: 2, counter: 3 }, "why".to_owned());
        let all = [
            Event::ManifestAccepted { mark },
            Event::ManifestRefused { mark, reason: reason.clone() },
            Event::ImageInTransit { image, have: 1, size: 2 },
            Event::ImagePresent { image },
            Event::ImageFailed { image, reason: reason.clone() },
            Event::ImageWaiting { image, reason: reason.clone() },
            Event::Alloc {
                alloc: AllocId::new([9; 16]),
                status: AllocStatus::Running,
                reason: reason.clone(),
                restarts: 4,
                healthy: Some(true),
                wait: Some(Millis(5)),
            },
            Event::Run { alloc: AllocId::new([9; 16]), run: 7, status: AllocStatus::Complete, reason: reason.clone() },
            Event::Dropped { count: 5, reason },
            Event::Unknown,
        ];
        assert_eq!(all.len(), Event::KNOWN.len() + 1);
        for event in all {
            let bytes = cbor::encode(&event);
            assert_eq!(cbor::decode::<Event>(&bytes, 1000).unwrap(), event);
        }
        assert!(cbor::decode::<Event>(&cbor::encode(&7u64), 1000).is_err());
        // A status of a newer agent.
        #[derive(Serialize)]
        enum Later {
            Alloc { alloc: AllocId, status: &'static str, reason: String, restarts: u32 },
        }
        for (status, known) in [("paused", false), ("failed", true)] {
            let later = Later::Alloc { alloc: AllocId::new([9; 16]), status, reason: String::new(), restarts: 0 };
            let event = cbor::decode::<Event>(&cbor::encode(&later), 1000).unwrap();
            assert_eq!(matches!(event, Event::Alloc { .. }), known, "{status}");
            assert_eq!(event == Event::Unknown, !known, "{status}");
        }
        assert!(cbor::decode::<Event>(&cbor::encode(&std::collections::BTreeMap::from([("ImagePresent", 7u64)])), 1000).is_err());
    }
}
