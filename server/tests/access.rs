//! Who is let in, with what, and how errors look.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use skerry_server::clock;
use skerry_server::secret::{Token, TokenKind};
use skerry_server::store::{By, Operator, Role};
use skerry_wire::Millis;
use skerry_wire::api::{PublishRequest, TokenRequest};
use support::{TestImage, TestServer, body, code};

async fn token(server: &TestServer, role: Role) -> String {
    let token = Token::generate(TokenKind::Operator, &ring::rand::SystemRandom::new()).unwrap();
    let by = By { who: "test".to_owned(), at: clock::now() };
    let operator = Operator { id: token.id, secret_hash: token.secret_hash, role, name: role.name().to_owned() };
    server.server().app().store.put_operator(operator, by).await.unwrap();
    token.text
}

#[tokio::test]
async fn only_known_tokens_are_let_in() {
    let server = TestServer::start().await;
    let good = std::fs::read_to_string(server.folder.path().join("operator.token")).unwrap().trim().to_owned();
    let digit = if good.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{digit}", &good[..good.len() - 1]);
    let enrolment = std::fs::read_to_string(server.folder.path().join("enrolment.token")).unwrap();
    let stranger = Token::generate(TokenKind::Operator, &ring::rand::SystemRandom::new()).unwrap().text;
    for token in ["", "hello", &wrong, enrolment.trim(), &stranger] {
        assert_eq!(code(server.client_with(token).status().await), "401 unauthorized", "{token}");
    }
    assert!(server.client_with(&good).status().await.unwrap().development);
    server.stop().await;
}

#[tokio::test]
async fn roles_say_what_a_token_may() {
    let server = TestServer::start().await;
    let image = TestImage::new("a:1", &[b"x"]);
    for (role, publishes, makes_tokens) in
        [(Role::Reader, false, false), (Role::Operator, false, false), (Role::Publisher, true, false), (Role::Admin, true, true)]
    {
        let client = server.client_with(&token(&server, role).await);
        client.status().await.unwrap();
        client.images().await.unwrap();
        let published = image.publish(&client, &server.release_key()).await;
        assert_eq!(published.is_ok(), publishes, "{role:?}");
        let request = TokenRequest { pool: "edge".to_owned(), uses: 1, ttl: None };
        let made = client.create_token(&request).await;
        assert_eq!(made.is_ok(), makes_tokens, "{role:?}");
        if !publishes {
            assert_eq!(code(published), "403 forbidden");
            assert_eq!(code(client.put_layer(&image.layers[0].0, body(&image.layers[0].1)).await), "403 forbidden");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn enrolment_tokens_are_made_shown_and_removed_and_the_log_has_it() {
    let server = TestServer::start().await;
    let client = server.client();
    let request = TokenRequest { pool: "edge".to_owned(), uses: 3, ttl: Some(Millis::from_secs(60)) };
    let made = client.create_token(&request).await.unwrap();
    assert!(made.token.starts_with(&format!("skt_{}_", made.id)));
    let listed = client.tokens().await.unwrap().into_iter().find(|t| t.id == made.id).unwrap();
    assert_eq!((listed.pool.as_str(), listed.uses, listed.used), ("edge", 3, 0));
    assert_eq!(listed.expires_at.unwrap().since(listed.created_at), Millis::from_secs(60));
    client.delete_token(&made.id).await.unwrap();
    assert_eq!(code(client.delete_token(&made.id).await), "404 unknown_token");
    for request in [("", 1), ("all", 1), ("a b", 1), ("edge", 0)] {
        let request = TokenRequest { pool: request.0.to_owned(), uses: request.1, ttl: None };
        assert_eq!(code(client.create_token(&request).await), "400 bad_token_request");
    }
    let log = server.server().app().store.audit(2).await.unwrap();
    assert!(log[0].what.starts_with(&format!("removed enrolment token {}", made.id)), "{log:?}");
    assert!(log[1].what.starts_with(&format!("made enrolment token {}", made.id)), "{log:?}");
    assert!(log.iter().all(|entry| entry.by.who == "development"));
    server.stop().await;
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused() {
    let server = TestServer::start().await;
    let huge = PublishRequest { release: vec![0; 8_000_000].into(), config: vec![0; 4_000_000].into() };
    assert_eq!(code(server.client().publish_image(&huge).await), "413 body_too_large");
    server.stop().await;
}

#[tokio::test]
async fn the_server_stops_while_a_client_keeps_its_connection() {
    let server = TestServer::start().await;
    let client = server.client();
    client.status().await.unwrap();
    server.stop().await;
    assert!(client.status().await.is_err());
}
