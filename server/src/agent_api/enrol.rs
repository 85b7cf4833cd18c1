//! `POST /agent/v1/enrol`: a new node becomes known, or a known one is found again by its key.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use skerry_trust::{KeyRing, PublicKey, envelope};
use skerry_wire::enrol::{EnrolReply, EnrolRequest};
use skerry_wire::limits;

use crate::app::App;
use crate::clock;
use crate::http::{Failure, body};
use crate::secret::{Token, TokenKind};
use crate::store::{Enrolment, TokenRefusal};

pub(super) async fn enrol(State(app): State<Arc<App>>, body: Body) -> Result<Response, Failure> {
    let bytes = body::read(body, limits::ENROL).await?;
    let bad = |e: envelope::EnvelopeError| Failure::new(StatusCode::BAD_REQUEST, "bad_signature", format!("enrolment refused: {e}"));
    // The request carries the key that it must be signed with: that proves that the sender holds it.
    let (unverified, _) = envelope::peek::<EnrolRequest>(&bytes, limits::ENROL).map_err(bad)?;
    let key = PublicKey(unverified.key);
    let (request, _) = envelope::open::<EnrolRequest>(&bytes, EnrolRequest::PURPOSE, &KeyRing::from(key), limits::ENROL).map_err(bad)?;
    let now = clock::now();
    let name = request.fingerprint.name.clone();
    let enrolment =
        Enrolment { token: Token::parse(TokenKind::Enrolment, &request.token), key, boot: request.boot, fingerprint: request.fingerprint };
    let node = app.store.enrol(enrolment, Arc::clone(&app.director), now).await.map_err(refused)?;
    app.metrics.enrolments.inc();
    tracing::info!(%node, name, "enrolled");
    let mark = app.store.known_node(node).await?.map(|known| known.mark).unwrap_or_default();
    let reply = EnrolReply { node, nonce: request.nonce, time: now, roots: app.roots_after(1), mark };
    Ok(Response::new(Body::from(app.director.seal(EnrolReply::PURPOSE, &reply))))
}

fn refused(refusal: TokenRefusal) -> Failure {
    let (code, hint) = match &refusal {
        TokenRefusal::Unknown => ("token_unknown", "give the agent a token of this server: `skerry token create`"),
        TokenRefusal::Expired => ("token_expired", "make a new token: `skerry token create`, and put it into the agent's configuration"),
        TokenRefusal::UsedUp(_) => {
            ("token_used_up", "make a token with more uses: `skerry token create --uses N`, and put it into the agent's configuration")
        }
        TokenRefusal::Store(error) => return error.clone().into(),
    };
    Failure::new(StatusCode::FORBIDDEN, code, refusal.to_string()).hint(hint)
}
