//! Enrolment: how the node gets its id. Safe to repeat: the same key gets the same id and uses its token once.

use skerry_trust::envelope;
use skerry_wire::enrol::{EnrolReply, EnrolRequest};
use skerry_wire::manifest::Mark;
use skerry_wire::{NodeId, limits};

use super::Uplink;
use super::exchange::{ExchangeError, nonce};

const PATH: &str = "/agent/v1/enrol";

/// Asks once for the node's id and keeps it.
pub(super) async fn enrol(uplink: &Uplink) -> Result<NodeId, ExchangeError> {
    let token = uplink.token.clone().ok_or(ExchangeError::NoToken)?;
    let nonce = nonce()?;
    let fingerprint = uplink.wires.facts.borrow().as_ref().clone();
    let request = EnrolRequest { token, key: uplink.key.public().0, boot: uplink.clock.boot(), nonce, fingerprint };
    let body = envelope::seal(&uplink.key, EnrolRequest::PURPOSE, &request);
    let answer = uplink.client.post(PATH, body, limits::ENROL).await?;
    // Newer roots prove themselves and may name the director key that signed this very answer.
    let (unproven, _) = envelope::peek::<EnrolReply>(&answer, limits::ENROL)?;
    uplink.roots.follow(&unproven.roots)?;
    let root = uplink.roots.current();
    let (reply, _) = root.open_director::<EnrolReply>(&answer, EnrolReply::PURPOSE, limits::ENROL)?;
    if reply.nonce != nonce {
        return Err(ExchangeError::NotOurs("an answer to another request"));
    }
    uplink.ledger.saw_time(reply.time, root.root().time_cap, true).await?;
    if reply.mark != Mark::default() {
        // Whatever this node held when it showed that mark.
        uplink.ledger.lose_mark(root.root().version).await?;
    }
    uplink.ledger.enrolled(reply.node).await?;
    tracing::info!(node = %reply.node, server = uplink.client.server(), "enrolled");
    Ok(reply.node)
}
