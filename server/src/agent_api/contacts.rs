//! Who was heard of when, and in which order: kept in memory, so that a poll that changes nothing writes nothing to the disk.
//!
//! Within a boot the sequence of a node's polls only rises; what does not rise is a replay. A boot that is new to the server proves
//! itself by echoing a nonce that it was given: a poll of an older boot, recorded and sent again, cannot.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use skerry_plan::presence::Silence;
use skerry_wire::poll::PollRequest;
use skerry_wire::{BootId, Millis, NodeId, Timestamp};

use crate::store::{KnownNode, LastContact};

/// What to do with a poll whose signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the next of its boot.
    Next,
    /// Its boot is new: it must echo a nonce first, and nothing that it says counts yet.
    Unproven,
    /// It was seen before.
    Replayed,
}

#[derive(Debug, Clone, Copy)]
struct Contact {
    boot: BootId,
    seq: u64,
    /// A boot that was given a nonce and has not echoed it.
    unproven: Option<(BootId, [u8; 8])>,
    at: Timestamp,
    /// When it was last heard, on the clock that only runs forward; none while this server has not heard it.
    heard: Option<Instant>,
    /// Was it told to the store?
    kept: bool,
}

/// All contacts since the server started.
#[derive(Debug)]
pub struct Contacts {
    nodes: Mutex<BTreeMap<NodeId, Contact>>,
    /// Since when this server listens: silence from before is not its own observation.
    started: Instant,
}

impl Default for Contacts {
    fn default() -> Self {
        Self { nodes: Mutex::default(), started: Instant::now() }
    }
}

impl Contacts {
    /// Judges a poll and remembers it; `nonce` is what its reply will carry.
    pub fn judge(&self, request: &PollRequest, known: &KnownNode, nonce: [u8; 8], now: Timestamp) -> Place {
        let mut contacts = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = known.boot.map(|boot| Contact { boot, seq: known.seq, unproven: None, at: now, heard: None, kept: true });
        let contact = contacts.get(&request.node).copied().or(stored);
        let next = Contact { boot: request.boot, seq: request.seq, unproven: None, at: now, heard: Some(Instant::now()), kept: false };
        let (place, contact) = match contact {
            Some(c) if c.boot == request.boot && request.seq <= c.seq => return Place::Replayed,
            Some(c) if c.boot == request.boot => (Place::Next, Contact { unproven: c.unproven, ..next }),
            Some(Contact { unproven: Some((boot, given)), .. }) if boot == request.boot && given == request.server_nonce => {
                (Place::Next, next)
            }
            Some(c) => (Place::Unproven, Contact { unproven: Some((request.boot, nonce)), ..c }),
            // A node always enrols with its boot; a store without it was written by hand.
            None => (Place::Next, next),
        };
        contacts.insert(request.node, contact);
        place
    }

    /// When the node was last heard of since the server started.
    pub fn last_seen(&self, node: &NodeId) -> Option<Timestamp> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(node).map(|c| c.at)
    }

    /// How long each node that was asked about by a poll has been silent, and how long this server listens.
    pub fn silences(&self) -> (BTreeMap<NodeId, Silence>, Millis) {
        let now = Instant::now();
        let since = |then: Instant| Millis(u64::try_from(now.saturating_duration_since(then).as_millis()).unwrap_or(u64::MAX));
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let silence = |c: &Contact| Silence { observed: since(c.heard.unwrap_or(self.started)), heard: c.heard.is_some() };
        (nodes.iter().map(|(node, c)| (*node, silence(c))).collect(), since(self.started))
    }

    /// The contacts that the store has not been told of; they count as told.
    pub fn take_unkept(&self) -> Vec<LastContact> {
        let mut contacts = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let unkept = contacts.iter_mut().filter(|(_, c)| !c.kept);
        unkept
            .map(|(node, c)| {
                c.kept = true;
                LastContact { node: *node, at: c.at, boot: c.boot, seq: c.seq }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_trust::PublicKey;
    use skerry_wire::manifest::Mark;

    fn poll(boot: u8, seq: u64, server_nonce: u8) -> PollRequest {
        PollRequest {
            node: NodeId::new([1; 16]),
            boot: BootId::new([boot; 16]),
            seq,
            nonce: [0; 8],
            server_nonce: [server_nonce; 8],
            mark: Mark::default(),
            issued: None,
            fingerprint: None,
            inventory: None,
            images: Vec::new(),
            full: Vec::new(),
            specifications: Vec::new(),
            reports: Vec::new(),
            log: None,
            given: Vec::new(),
        }
    }

    #[test]
    fn in_order_and_proven() {
        use Place::*;
        let known = KnownNode {
            key: PublicKey([0; 32]),
            boot: Some(BootId::new([1; 16])),
            seq: 5,
            acknowledged: 0,
            mark: Mark::default(),
            issued: Timestamp(0),
            latest: Mark::default(),
            facts: false,
            lost: false,
            log_ordered: false,
            keeps_unknown: false,
        };
        let contacts = Contacts::default();
        // (boot, sequence, echoed nonce), nonce of the reply, verdict; in this order.
        for (n, ((boot, seq, echo), nonce, place)) in [
            ((1, 5, 0), 10, Replayed),
            ((1, 6, 0), 11, Next),
            ((1, 6, 0), 12, Replayed),
            ((1, 9, 11), 13, Next),
            ((2, 1, 0), 20, Unproven),
            ((1, 10, 13), 14, Next),
            ((2, 2, 19), 21, Unproven),
            ((2, 3, 21), 22, Next),
            ((2, 3, 21), 23, Replayed),
            ((1, 11, 14), 24, Unproven),
            ((2, 4, 22), 25, Next),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(contacts.judge(&poll(boot, seq, echo), &known, [nonce; 8], Timestamp(7)), place, "step {n}");
        }
        let unkept = contacts.take_unkept();
        assert_eq!((unkept.len(), unkept[0].seq, unkept[0].boot), (1, 4, BootId::new([2; 16])));
        assert!(contacts.take_unkept().is_empty());
    }
}
