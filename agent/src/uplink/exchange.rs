//! One poll: the request, the reply, and what the reply changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use skerry_trust::{EnvelopeError, TrustedRoot, envelope};
use skerry_wire::logs::{LogAnswer, LogOrder};
use skerry_wire::manifest::Mark;
use skerry_wire::node::Inventory;
use skerry_wire::poll::{AllocStatus, Event, PollReply, PollRequest};
use skerry_wire::{Blob, Digest, LogOrderId, NodeId, Timestamp, cbor, limits};

use super::Uplink;
use super::client::CallError;
use crate::accept::{self, Received, Verdict};
use crate::clock::boottime_ms;
use crate::ledger::{Confirmed, Desired, LedgerError, sha256};
use crate::run::Hint;
use crate::steps::{self, Step};
use crate::trust::TrustError;

const PATH: &str = "/agent/v1/poll";
/// The time bound goes to the disk when it moved by this.
const PERSIST_TIME: Duration = Duration::from_secs(15 * 60);
/// Specifications asked for at once, so that the reply stays within its limit.
const ASK: usize = 8;
/// An answer to an order for output is sent so often.
const LOG_TRIES: u32 = 3;
/// Specifications that may wait for a manifest that names them: twice those of the fullest node.
const RECEIVED: usize = 2 * limits::ALLOCS_PER_NODE;

/// The same specifications are handed back so often.
const GIVE_TRIES: u32 = 3;

/// Why an exchange with the server came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The answer is not signed by the director, or not whole.
    #[error("the server's answer cannot be trusted: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Roots.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The answer is for somebody else.
    #[error("the server's answer cannot be trusted: it is {0}")]
    NotOurs(&'static str),
    /// No randomness.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// No enrolment token.
    #[error("this node has not enrolled and has no token: set `token` in the configuration to one made with `skerry token create`")]
    NoToken,
}

/// Eight random bytes.
pub(super) fn nonce() -> Result<[u8; 8], ExchangeError> {
    let mut nonce = [0; 8];
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        nonce[..4].copy_from_slice(&machine.random().to_le_bytes());
        return Ok(nonce);
    }
    SystemRandom::new().fill(&mut nonce).map_err(|_| ExchangeError::NoRandomness)?;
    Ok(nonce)
}

/// What goes on from poll to poll.
#[derive(Debug)]
pub(super) struct Session {
    /// Sequence of the last request.
    seq: u64,
    /// To be echoed.
    server_nonce: [u8; 8],
    /// Facts that the server has.
    confirmed: Confirmed,
    /// Specifications that came before the manifest that names them could be accepted.
    received: Received,
    /// Specifications to ask for.
    lacking: BTreeSet<Digest>,
    /// Bound of time that is on the disk.
    persisted: Timestamp,
    /// The refusal that was reported last: a server that offers the same again is not answered again.
    refused: Option<(Mark, String)>,
    /// Specifications that the last reply wanted back.
    wanted: Vec<Digest>,
    /// Those that were given last, and how often.
    gave: (Vec<Digest>, u32),
    /// The order for output in the last reply.
    log_ordered: Option<LogOrder>,
    /// An order whose answer was sent and is not known to have come, and how often.
    log_tried: Option<(LogOrderId, u32)>,
}

/// What a poll led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    /// When the server wants the next poll.
    pub(super) after: Duration,
    /// There is more to say or to ask for right now.
    pub(super) at_once: bool,
}

impl Session {
    pub(super) async fn new(uplink: &Uplink) -> Result<Self, ExchangeError> {
        Ok(Self {
            seq: 0,
            server_nonce: [0; 8],
            confirmed: uplink.ledger.confirmed().await?,
            received: Received::new(),
            lacking: BTreeSet::new(),
            persisted: uplink.ledger.time().at(),
            refused: None,
            wanted: Vec::new(),
            gave: (Vec::new(), 0),
            log_ordered: None,
            log_tried: None,
        })
    }

    /// Rises within a boot, restarts of the agent included, and needs no disk: milliseconds since the boot, or one more than before.
    fn next_seq(&mut self) -> u64 {
        let millis = boottime_ms();
        self.seq = self.seq.saturating_add(1).max(millis);
        self.seq
    }

    /// Polls once.
    pub(super) async fn poll(&mut self, uplink: &Uplink, node: NodeId) -> Result<Next, ExchangeError> {
        let ledger = &uplink.ledger;
        let facts = uplink.wires.facts.borrow().clone();
        let inventory = inventory(uplink);
        let asking: Vec<_> = uplink.wires.asking.borrow().iter().copied().collect();
        let now = Confirmed { fingerprint: Some(sha256(&cbor::encode(facts.as_ref()))), inventory: inventory.as_ref().map(fingerprint_of) };
        let desired = ledger.desired();
        self.lacking.extend(desired.missing());
        self.lacking.retain(|d| !self.received.contains_key(d) && !desired.specifications.contains_key(d));
        let log = self.answer_log(uplink).await;
        let given = self.give(uplink).await?;
        // Both together could be more than a poll may have.
        let most = if given.is_empty() { limits::REPORTS_PER_POLL } else { 0 };
        let nonce = nonce()?;
        let request = PollRequest {
            node,
            boot: uplink.clock.boot(),
            seq: self.next_seq(),
            nonce,
            server_nonce: self.server_nonce,
            mark: desired.mark,
            issued: issued(&desired),
            fingerprint: (now.fingerprint != self.confirmed.fingerprint).then(|| Box::new(facts.as_ref().clone())),
            inventory: inventory.filter(|_| now.inventory != self.confirmed.inventory),
            full: asking.iter().filter(|i| ledger.keep().failed.get(i).is_some_and(|f| f.full)).copied().collect(),
            images: asking.clone(),
            specifications: self.lacking.iter().take(ASK).copied().collect(),
            reports: ledger.oldest_reports(most).await?,
            given,
            log,
        };
        let body = envelope::seal(&uplink.key, PollRequest::PURPOSE, &request);
        let answer = uplink.client.post(PATH, body, limits::POLL_REPLY).await?;
        let told = request.reports.iter().any(|r| steps::says_running(&r.event));
        if told {
            steps::reached(Step::ReportDelivered);
        }
        // Newer roots prove themselves and may name the director key that signed this very answer.
        let (unproven, _) = envelope::peek::<PollReply>(&answer, limits::POLL_REPLY)?;
        uplink.roots.follow(&unproven.roots)?;
        let root = uplink.roots.current();
        let (reply, _) = root.open_director::<PollReply>(&answer, PollReply::PURPOSE, limits::POLL_REPLY)?;
        if reply.node != node || reply.nonce != nonce {
            return Err(ExchangeError::NotOurs("an answer to another request"));
        }
        // Whatever the ledger makes of it.
        uplink.silence.answered(boottime_ms());
        self.server_nonce = reply.server_nonce;
        self.saw_time(uplink, &root, reply.time).await?;
        let waiting = self.received.len();
        let accepted = self.take_manifest(uplink, &root, node, &reply).await?;
        if reply.acknowledged > 0 {
            ledger.acknowledged(reply.acknowledged).await?;
            if told {
                steps::reached(Step::ReportForgotten);
            }
        }
        let facts_wanted = self.confirm(uplink, now, &request, reply.send_facts).await?;
        publish_offers(uplink, &asking, &reply);

        // At once only after progress: a server that repeats itself is asked at the pace that it names.
        let reports_went = request.reports.first().is_some_and(|oldest| oldest.seq <= reply.acknowledged);
        let more_reports = reports_went && ledger.watch_outbox().borrow().pending > 0;
        let more_specifications = self.received.len() > waiting && !self.lacking.is_empty();
        let more_output = reply.log.as_ref().is_some_and(|order| self.log_tried.is_none_or(|(tried, _)| tried != order.id));
        self.log_ordered = reply.log;
        self.wanted = reply.wanted;
        let asked = !self.wanted.is_empty() && self.wanted != self.gave.0;
        let at_once = asked || more_output || accepted || more_reports || more_specifications || facts_wanted;
        Ok(Next { after: Duration::from_secs(u64::from(reply.next_poll_s.max(1))), at_once })
    }

    /// The specifications that the last reply wanted back, as many as fit. The same ones are given a few times only: a server may want for
    /// ever what it does not believe.
    async fn give(&mut self, uplink: &Uplink) -> Result<Vec<Blob>, LedgerError> {
        let wanted = std::mem::take(&mut self.wanted);
        let tries = if self.gave.0 == wanted { self.gave.1 } else { 0 };
        if wanted.is_empty() || tries >= GIVE_TRIES {
            return Ok(Vec::new());
        }
        self.gave = (wanted.clone(), tries.saturating_add(1));
        let mut room = limits::SPECIFICATION;
        let fits = |bytes: &Vec<u8>| match room.checked_sub(bytes.len()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        Ok(uplink.ledger.specification_bytes(wanted).await?.into_iter().filter(fits).map(Blob).collect())
    }

    /// The answer to the last reply's order for output. The order is not kept: where this poll is lost on the way, the next costs no more than
    /// usual, and its reply orders it again; then the answer is half as long, and in the end says that the link does not carry it.
    async fn answer_log(&mut self, uplink: &Uplink) -> Option<Box<LogAnswer>> {
        let order = self.log_ordered.take()?;
        let (id, tries) = (order.id, self.log_tried.filter(|(tried, _)| *tried == order.id).map_or(0, |(_, tries)| tries));
        self.log_tried = Some((id, tries.saturating_add(1)));
        if tries >= LOG_TRIES {
            let lines = Err(format!("the link broke {LOG_TRIES} times while it was sent: order fewer lines"));
            return Some(Box::new(LogAnswer { id, lines }));
        }
        Some(Box::new(Box::pin(uplink.outputs.answer(order, limits::LOG_ANSWER >> tries)).await))
    }

    async fn saw_time(&mut self, uplink: &Uplink, root: &TrustedRoot, time: Timestamp) -> Result<(), ExchangeError> {
        let persist = u128::from(time.since(self.persisted).0) >= PERSIST_TIME.as_millis();
        uplink.ledger.saw_time(time, root.root().time_cap, persist).await?;
        if uplink.clock.told(time) {
            let _ = uplink.wires.hints.try_send(Hint::Look);
        }
        if persist {
            self.persisted = time;
        }
        Ok(())
    }

    /// Takes specifications and the manifest of a reply; true when a manifest came into force.
    async fn take_manifest(&mut self, uplink: &Uplink, root: &TrustedRoot, node: NodeId, reply: &PollReply) -> Result<bool, ExchangeError> {
        let ledger = &uplink.ledger;
        if self.received.len() >= RECEIVED {
            // No manifest came that names them; what one does name is asked for again.
            self.received.clear();
        }
        let refused = accept::receive(root, &reply.specifications, &mut self.received);
        for reason in &refused {
            tracing::error!("refused: {reason}");
        }
        let desired = ledger.desired();
        // Some that the manifest in force names had been lost: they go back at once.
        let mended: Vec<_> = desired
            .missing()
            .into_iter()
            .filter_map(|digest| self.received.remove(&digest).map(|(bytes, content)| (digest, bytes, content)))
            .collect();
        ledger.keep_specifications(mended).await?;

        let Some(manifest) = &reply.manifest else {
            if !refused.is_empty() {
                self.refuse(uplink, desired.mark, refused.join("; ")).await?;
            }
            return Ok(false);
        };
        match accept::judge(root, node, &ledger.desired(), &self.received, &manifest.0) {
            Verdict::Known => Ok(false),
            Verdict::Lacks(lacking) => {
                if !refused.is_empty() {
                    self.refuse(uplink, desired.mark, refused.join("; ")).await?;
                }
                self.lacking = lacking;
                Ok(false)
            }
            Verdict::Refuse { mark, reason } => {
                self.refuse(uplink, mark, reason).await?;
                Ok(false)
            }
            Verdict::Accept(accepted) => {
                let mark = accepted.manifest.mark;
                ledger.accept(*accepted).await?;
                tracing::info!(%mark, "manifest accepted");
                self.received.clear();
                self.lacking.clear();
                self.refused = None;
                if uplink.wires.unknown.borrow().as_ref().is_some_and(|unknown| !unknown.is_empty()) {
                    // It may be of a server that was put back once more.
                    self.confirmed.inventory = None;
                    ledger.set_confirmed(self.confirmed).await?;
                }
                Ok(true)
            }
        }
    }

    async fn refuse(&mut self, uplink: &Uplink, mark: Mark, reason: String) -> Result<(), ExchangeError> {
        let refusal = Some((mark, reason.clone()));
        if self.refused == refusal {
            return Ok(());
        }
        tracing::error!(%mark, "manifest refused: {reason}; the one in force stays");
        uplink.ledger.push_events(vec![Event::ManifestRefused { mark, reason }]).await?;
        self.refused = refusal;
        Ok(())
    }

    /// The server has the facts that this request carried, unless it says otherwise. True when it wants facts that the request did not
    /// carry and that the node has.
    async fn confirm(&mut self, uplink: &Uplink, now: Confirmed, request: &PollRequest, send_facts: bool) -> Result<bool, ExchangeError> {
        let mut confirmed = self.confirmed;
        if request.fingerprint.is_some() {
            confirmed.fingerprint = now.fingerprint;
        }
        if request.inventory.is_some() {
            confirmed.inventory = now.inventory;
        }
        if send_facts {
            // Also when it was just given some: a server that has restarted may have kept nothing of this request.
            confirmed = Confirmed::default();
        }
        if confirmed != self.confirmed {
            uplink.ledger.set_confirmed(confirmed).await?;
            self.confirmed = confirmed;
        }
        Ok(send_facts && (request.fingerprint.is_none() || request.inventory.is_none() && now.inventory.is_some()))
    }
}

/// What the node holds; none before both the engine and the reconciler have said it.
fn inventory(uplink: &Uplink) -> Option<Inventory> {
    let unknown = uplink.wires.unknown.borrow().clone()?;
    uplink.wires.inventory.borrow().clone().map(|i| Inventory { unknown: unknown.as_ref().clone(), ..i })
}

/// By what the server is told of it anew. Not by how what is unknown fares: one that crashes again and again would send all of it each time.
fn fingerprint_of(inventory: &Inventory) -> Digest {
    let mut still = inventory.clone();
    still.unknown.iter_mut().for_each(|a| a.status = AllocStatus::Pending);
    sha256(&cbor::encode(&still))
}

/// When the manifest of the mark was issued.
fn issued(desired: &Desired) -> Option<Timestamp> {
    let held = desired.manifest.as_ref().filter(|m| m.mark == desired.mark);
    (desired.mark != Mark::default()).then(|| held.map_or(Timestamp(0), |m| m.issued_at))
}

fn publish_offers(uplink: &Uplink, asking: &[skerry_wire::ImageId], reply: &PollReply) {
    uplink.wires.offers.send_if_modified(|offers| {
        let mut next = offers.as_ref().clone();
        // What is not asked for any more is not known any more.
        next.retain(|image, _| asking.contains(image));
        next.extend(reply.offers.iter().filter(|o| asking.contains(&o.image)).map(|o| (o.image, o.bundle.clone())));
        let changed = next != **offers;
        if changed {
            *offers = Arc::new(next);
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{manifest, mark};

    #[test]
    fn when_what_is_held_was_issued() {
        let held = |counter, at| Desired { mark: mark(at), manifest: Some(manifest(counter, &[])), ..Desired::default() };
        let cases = [
            (Desired::default(), None),
            (held(3, 3), Some(Timestamp(2000))),
            (held(2, 3), Some(Timestamp(0))),
            (Desired { mark: mark(3), ..Desired::default() }, Some(Timestamp(0))),
        ];
        for (desired, expected) in cases {
            assert_eq!(issued(&desired), expected, "{desired:?}");
        }
    }
}
