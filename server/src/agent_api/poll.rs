//! `POST /agent/v1/poll`: a node says what happened and what it lacks, and hears what it must run.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use skerry_trust::{KeyRing, envelope};
use skerry_wire::logs::LogAnswer;
use skerry_wire::manifest::Mark;
use skerry_wire::poll::{Event, Offer, OfferState, PollReply, PollRequest, Report};
use skerry_wire::release::Specification;
use skerry_wire::{Blob, NodeId, Timestamp, limits};

use super::{Place, offers};
use crate::app::App;
use crate::clock;
use crate::http::{Failure, body};
use crate::secret;
use crate::store::{KnownNode, Told, short};

/// Bytes of a reply that specifications and offers may fill; the rest is for the envelope and the fields.
const ROOM: usize = limits::POLL_REPLY - 64 * 1024;

/// Images that one poll is answered for; the node asks again for the others.
const IMAGES: usize = 64;

/// Specifications that one poll is answered for.
const SPECIFICATIONS: usize = 256;

/// Seconds until a node with more to say or to hear is wanted again.
const AT_ONCE: u32 = 1;

pub(super) async fn poll(State(app): State<Arc<App>>, body: Body) -> Result<Response, Failure> {
    let bytes = body::read(body, limits::POLL_REQUEST).await?;
    let bad = |e: envelope::EnvelopeError| Failure::new(StatusCode::BAD_REQUEST, "bad_signature", format!("poll refused: {e}"));
    // Only to find the key; nothing is believed before it has verified the same bytes.
    let (unverified, _) = envelope::peek::<PollRequest>(&bytes, limits::POLL_REQUEST).map_err(bad)?;
    let known = app.store.known_node(unverified.node).await?.ok_or_else(|| unknown(&unverified))?;
    let keys = KeyRing::from(known.key);
    let (mut request, _) = envelope::open::<PollRequest>(&bytes, PollRequest::PURPOSE, &keys, limits::POLL_REQUEST).map_err(bad)?;
    check_numbers(&request)?;
    let now = clock::now();
    let server_nonce = secret::random(&app.random).map_err(Failure::internal)?;
    let place = app.agents.contacts.judge(&request, &known, server_nonce, now);
    let mut reply = PollReply {
        node: request.node,
        nonce: request.nonce,
        server_nonce,
        time: now,
        next_poll_s: AT_ONCE,
        acknowledged: known.acknowledged,
        send_facts: true,
        manifest: None,
        specifications: Vec::new(),
        offers: Vec::new(),
        roots: Vec::new(),
        log: None,
        wanted: Vec::new(),
    };
    match place {
        Place::Replayed => {
            let message = format!("poll {} of this boot, or a later one, was answered already", request.seq);
            return Err(Failure::new(StatusCode::CONFLICT, "replayed", message).hint("poll again with a higher sequence"));
        }
        Place::Unproven => {}
        Place::Next => answer(&app, &mut request, &known, &mut reply, now).await?,
    }
    app.metrics.polls.inc();
    Ok(Response::new(Body::from(app.director.seal(PollReply::PURPOSE, &reply))))
}

/// Numbers that only rise are kept, and counted on from: one at the end of its range would leave no room for the next. No honest node
/// gets there.
fn check_numbers(request: &PollRequest) -> Result<(), Failure> {
    let Mark { root, epoch, counter } = request.mark;
    let reports = request.reports.iter().map(|report| report.seq);
    if [root, epoch, counter, request.seq].into_iter().chain(reports).all(|number| number <= limits::COUNTER) {
        return Ok(());
    }
    let message = format!("a counter of node {} is above {}", request.node, limits::COUNTER);
    Err(Failure::new(StatusCode::BAD_REQUEST, "bad_counter", message)
        .hint("the agent's ledger is damaged: stop the agent, and let it enrol anew with an empty data folder"))
}

fn unknown(request: &PollRequest) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "unknown_node", format!("node {} is not enrolled here", request.node))
        .hint("the agent enrols again by itself, with the token in its configuration; what it runs goes on")
}

async fn answer(
    app: &Arc<App>,
    request: &mut PollRequest,
    known: &KnownNode,
    reply: &mut PollReply,
    now: Timestamp,
) -> Result<(), Failure> {
    let node = request.node;
    let mut facts = known.facts;
    let tells = request.fingerprint.is_some() || request.inventory.is_some() || !request.reports.is_empty();
    let more_reports = request.reports.len() >= limits::REPORTS_PER_POLL;
    let mut latest = known.latest;
    // Under a newer root every node gets its manifest anew.
    let root = app.director.root().root().version;
    let outdated = (known.latest != Mark::default() || request.mark.is_lost() && request.mark.root < root) && known.latest.root < root;
    doubt(app, node, &request.reports).await;
    take_given(app, &request.given).await?;
    if tells || known.holds_another(request, app.director.root().root().version) || outdated || known.lost {
        let told = Told {
            boot: Some((request.boot, request.seq)),
            mark: request.mark,
            issued: request.issued,
            fingerprint: request.fingerprint.take().map(|f| *f),
            inventory: request.inventory.take(),
            reports: std::mem::take(&mut request.reports).into_iter().take(limits::REPORTS_PER_POLL).collect(),
        };
        let recorded = app.store.record_poll(node, told, Arc::clone(&app.director), now).await?;
        reply.acknowledged = recorded.acknowledged;
        if recorded.stirred {
            app.watch.stir();
        }
        if let Some(known) = app.store.known_node(node).await? {
            (facts, latest) = (known.facts, known.latest);
        }
    }
    reply.send_facts = !facts;
    reply.roots = app.roots_after(request.mark.root);
    let mut room = ROOM;
    let mut wanted: Vec<_> = request.specifications.iter().copied().take(SPECIFICATIONS).collect();
    if latest > request.mark
        && let Some(new) = app.store.manifest(node, request.mark).await?
    {
        room = room.saturating_sub(new.envelope.len());
        wanted.extend(new.specifications);
        reply.manifest = Some(Blob(new.envelope));
    }
    wanted.sort_unstable();
    wanted.dedup();
    for (_, envelope) in app.store.specifications(wanted).await? {
        if let Some(left) = room.checked_sub(envelope.len() + 16) {
            room = left;
            reply.specifications.push(Blob(envelope));
        }
    }
    for image in request.images.iter().take(IMAGES) {
        let state = offers::state(app, node, *image, request.full.contains(image), now).await?;
        let size = match &state {
            OfferState::Ready { release, .. } => release.0.len() + 256,
            OfferState::Building | OfferState::Unknown => 64,
            OfferState::Failed { reason } => reason.len() + 64,
        };
        let Some(left) = room.checked_sub(size) else { break };
        room = left;
        reply.offers.push(Offer { image: *image, bundle: state });
    }
    if known.keeps_unknown || tells {
        reply.wanted = app.store.wanted_specifications(node).await?;
    }
    if known.log_ordered {
        if let Some(answer) = request.log.take() {
            app.store.answer_log(node, bounded(*answer), now).await?;
        }
        reply.log = app.store.open_log_order(node).await?;
    }
    reply.next_poll_s = next_poll(app, request, reply, more_reports);
    Ok(())
}

/// A bundle by which a node did not come to its image may have been damaged on the server's disk.
async fn doubt(app: &App, node: NodeId, reports: &[Report]) {
    let failed = reports.iter().take(limits::REPORTS_PER_POLL).filter_map(|report| match report.event {
        Event::ImageFailed { image, .. } => Some(image),
        _ => None,
    });
    for image in failed.collect::<BTreeSet<_>>() {
        match app.store.offered(node, image).await {
            Ok(offered) => offered.and_then(|offered| offered.object).into_iter().for_each(|(object, _)| app.checked.doubt(&object)),
            Err(error) => tracing::warn!(%node, %image, %error, "what the node was offered cannot be read"),
        }
    }
}

/// Keeps specifications that were asked back: what no release key of the root signed is nobody's.
async fn take_given(app: &App, given: &[Blob]) -> Result<(), Failure> {
    let mut found = Vec::new();
    for envelope in given.iter().take(SPECIFICATIONS) {
        match app.director.root().open_release::<Specification>(&envelope.0, Specification::PURPOSE, limits::SPECIFICATION) {
            Ok(_) => found.push((skerry_image::sha256(&envelope.0), envelope.0.clone())),
            Err(error) => tracing::warn!(%error, "a specification that a node handed over is refused"),
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    app.store.keep_found(found).await.map_err(Failure::from)
}

/// An answer with no more in it than is kept.
fn bounded(answer: LogAnswer) -> LogAnswer {
    let lines = match answer.lines {
        Ok(lines) if lines.packed.0.len() > limits::LOG_ANSWER || lines.task.len() > limits::TASK => {
            Err(format!("the node sent more than the {} bytes that are taken", limits::LOG_ANSWER))
        }
        Ok(lines) => Ok(lines),
        Err(reason) => Err(short(&reason).to_owned()),
    };
    LogAnswer { lines, ..answer }
}

/// Soon while something is on its way, else as configured.
fn next_poll(app: &App, request: &PollRequest, reply: &PollReply, more_reports: bool) -> u32 {
    let seconds = |span: skerry_wire::Millis| u32::try_from(span.0.div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    let building = reply.offers.iter().any(|o| o.bundle == OfferState::Building) || reply.offers.len() < request.images.len();
    if reply.manifest.is_some() || reply.send_facts || more_reports || reply.specifications.len() < request.specifications.len() {
        AT_ONCE
    } else if building {
        seconds(app.config.polling.busy.0).min(seconds(app.config.polling.idle.0))
    } else {
        seconds(app.config.polling.idle.0)
    }
}
