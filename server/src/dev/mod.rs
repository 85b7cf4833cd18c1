//! A server for development: makes every key itself on first start, and keeps them on later ones.
//!
//! Each file is made if it is not there, whole or not at all, so that a start that was cut off is completed by the next one.

mod certificates;
mod files;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ring::rand::SystemRandom;
use skerry_trust::{Role, RoleKeys, Root, SigningKey, TrustedRoot, sign_root};
use skerry_wire::Timestamp;

use crate::app::App;
use crate::clock;
use crate::config::{Builds, Config, Housekeeping, Limits, Polling, Span, Tls, Trust};
use crate::secret::{Token, TokenKind};
use crate::store::{self, By, NewToken, Operator};

use files::{make_once, replace};

/// Nodes that may enrol with the token of `agent.toml`.
const ENROLMENTS: u32 = 100_000;
/// Node pool of those nodes.
const POOL: &str = "default";
/// What to do about a file that the fleet is known by.
const PUT_BACK: &str = "help: put it back from a backup; for a new fleet, give an empty --data folder";
/// Name of the operator of `cli.toml` in the audit log.
const OPERATOR: &str = "development";

/// Where the server listens, and where others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    listen: SocketAddr,
    advertised: Option<String>,
    host: Option<String>,
}

/// What is advertised is not an address of ours.
#[derive(Debug, thiserror::Error)]
#[error("--advertise {0}: not an address\nhelp: write https://HOST:PORT, for example https://10.0.0.1:7443")]
pub struct AddressError(String);

impl Address {
    /// Checks what is advertised.
    pub fn new(listen: SocketAddr, advertised: Option<&str>) -> Result<Self, AddressError> {
        let Some(text) = advertised else { return Ok(Self { listen, advertised: None, host: None }) };
        let wrong = || AddressError(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/") && uri.query().is_none());
        let host = host.ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { listen, advertised: Some(text.trim_end_matches('/').to_owned()), host: Some(host) })
    }

    /// The address that others are told, once it is known where the server really listens.
    pub fn url(&self, listens: SocketAddr) -> String {
        self.advertised.clone().unwrap_or_else(|| {
            let ip = match listens.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
                ip => ip,
            };
            format!("https://{}", SocketAddr::new(ip, listens.port()))
        })
    }

    /// Names of the certificate, sorted.
    fn names(&self) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if !self.listen.ip().is_unspecified() {
            names.push(self.listen.ip().to_string());
        }
        names.extend(self.host.clone());
        names.sort();
        names.dedup();
        names
    }
}

/// Makes what is missing in `data` and gives the configuration. Blocks.
pub fn prepare(data: &Path, address: &Address) -> anyhow::Result<Config> {
    let random = SystemRandom::new();
    let data = std::path::absolute(data)?;
    let file = |name: &str| data.join(name);
    // Nodes trust the keys of a folder that had a fleet: other ones in their place would be another fleet.
    let is_new = !store::had_database(&data);
    for name in ["root.key", "release.key", "director.key", "ca.key"].into_iter().filter(|_| !is_new) {
        let there = file(name).try_exists().with_context(|| format!("{}: cannot be looked for", file(name).display()))?;
        anyhow::ensure!(there, "{}: is gone, though this folder has a fleet, whose nodes know this key\n{PUT_BACK}", file(name).display());
    }
    let key = |name: &str| -> anyhow::Result<SigningKey> {
        let text = make_once(&file(name), 0o600, || Ok(SigningKey::to_text(&SigningKey::generate(&random)?)))?;
        SigningKey::from_text(&text).map_err(|error| anyhow::anyhow!("{}: {error}\n{PUT_BACK}", file(name).display()))
    };
    let (root, release, director) = (key("root.key")?, key("release.key")?, key("director.key")?);
    if !file("root.cose").exists() {
        replace(&file("root.cose"), 0o644, &first_root(&root, &release, &director))?;
    }
    let document = std::fs::read(file("root.cose")).with_context(|| format!("{}: cannot be read", file("root.cose").display()))?;
    let trusted = TrustedRoot::first(&document).map_err(|error| anyhow::anyhow!("{}: {error}\n{PUT_BACK}", file("root.cose").display()))?;
    // Newer ones, as `skerry-server renew-root` makes them, may name other keys.
    let newer: Vec<_> = (2..).map(|version: u64| file(&format!("root-{version}.cose"))).take_while(|path| path.exists()).collect();
    let mut trusted = trusted;
    for path in &newer {
        let document = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        trusted = trusted.update(&document).map_err(|error| anyhow::anyhow!("{}: {error}\n{PUT_BACK}", path.display()))?;
    }
    let keys = [(Role::Root, &root, "root.key"), (Role::Release, &release, "release.key"), (Role::Director, &director, "director.key")];
    for (role, key, name) in keys {
        anyhow::ensure!(
            trusted.keys(role).get(&key.public().id()).is_some(),
            "{}: root version {} does not name this key\nhelp: put the key back that it names, or start with an empty --data folder",
            file(name).display(),
            trusted.root().version
        );
    }
    let roots = std::iter::once(file("root.cose")).chain(newer).collect();
    certificates::make(&data, &address.names())?;
    for (name, kind) in [("operator.token", TokenKind::Operator), ("enrolment.token", TokenKind::Enrolment)] {
        make_once(&file(name), 0o600, || Ok(format!("{}\n", Token::generate(kind, &random)?.text)))?;
    }
    Ok(Config {
        listen: address.listen,
        data: data.clone(),
        log: std::env::var("SKERRY_LOG").unwrap_or_else(|_| "info".to_owned()),
        tls: Tls { certificate: file("tls.pem"), key: file("tls.key") },
        trust: Trust { roots, director_key: file("director.key") },
        limits: Limits::default(),
        polling: Polling { idle: Span::secs(5), busy: Span::secs(1) },
        builds: Builds::default(),
        housekeeping: Housekeeping::default(),
        development: true,
    })
}

fn first_root(root: &SigningKey, release: &SigningKey, director: &SigningKey) -> Vec<u8> {
    let one = |key: &SigningKey| RoleKeys { keys: vec![key.public()], threshold: 1 };
    let document = Root {
        version: 1,
        roles: [(Role::Root, one(root)), (Role::Release, one(release)), (Role::Director, one(director))].into(),
        time_cap: Timestamp(i64::MAX),
    };
    sign_root(&document, &[root])
}

/// Makes the tokens of the folder known to the server, and writes `cli.toml` and `agent.toml` for the address where it listens.
pub async fn finish(app: &App, url: &str) -> anyhow::Result<()> {
    let data = &app.config.data;
    let (operator, operator_id, hash) = read_token(data, "operator.token", TokenKind::Operator)?;
    let by = By { who: "skerry-server dev".to_owned(), at: clock::now() };
    let new = Operator { id: operator_id, secret_hash: hash, role: store::Role::Admin, name: OPERATOR.to_owned() };
    if app.store.operator(operator_id).await?.as_ref() != Some(&new) {
        app.store.put_operator(new, by.clone()).await?;
    }
    let (enrolment, id, secret_hash) = read_token(data, "enrolment.token", TokenKind::Enrolment)?;
    if app.store.tokens().await?.iter().all(|token| token.id != id) {
        let new = NewToken { id, secret_hash, pool: POOL.to_owned(), uses: ENROLMENTS, expires_at: None };
        app.store.add_token(new, by).await?;
    }
    let path = |name: &str| toml::Value::from(data.join(name).display().to_string());
    let text = |text: String| toml::Value::from(text);
    let cli = toml::Table::from_iter([
        ("server".to_owned(), text(url.to_owned())),
        ("ca".to_owned(), path("ca.pem")),
        ("token".to_owned(), text(operator)),
        ("release_key".to_owned(), path("release.key")),
        ("root".to_owned(), path("root.cose")),
    ]);
    let agent = toml::Table::from_iter([
        ("server".to_owned(), text(url.to_owned())),
        ("ca".to_owned(), path("ca.pem")),
        ("root".to_owned(), path("root.cose")),
        ("token".to_owned(), text(enrolment)),
    ]);
    replace(&data.join("cli.toml"), 0o600, toml::to_string(&cli)?.as_bytes())?;
    replace(&data.join("agent.toml"), 0o600, toml::to_string(&agent)?.as_bytes())?;
    Ok(())
}

fn read_token(data: &Path, name: &str, kind: TokenKind) -> anyhow::Result<(String, skerry_wire::TokenId, [u8; 32])> {
    let path: PathBuf = data.join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?.trim().to_owned();
    let (id, hash) = Token::parse(kind, &text)
        .with_context(|| format!("{}: not a token\nhelp: delete the file and start again; a new token is made", path.display()))?;
    Ok((text, id, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Address {
        Address::new("127.0.0.1:7443".parse().unwrap(), None).unwrap()
    }

    #[test]
    fn a_second_start_keeps_everything() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "root.key",
            "release.key",
            "director.key",
            "root.cose",
            "ca.pem",
            "ca.key",
            "tls.pem",
            "tls.key",
            "operator.token",
            "enrolment.token",
        ];
        let contents = || names.map(|name| std::fs::read(folder.path().join(name)).unwrap());
        prepare(folder.path(), &local()).unwrap();
        let before = contents();
        prepare(folder.path(), &local()).unwrap();
        assert_eq!(contents(), before);
        // A start that was cut off before the root document was written is completed.
        std::fs::remove_file(folder.path().join("root.cose")).unwrap();
        prepare(folder.path(), &local()).unwrap();
        assert_eq!(contents(), before);
    }

    #[test]
    fn secrets_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path(), &local()).unwrap();
        for name in ["root.key", "release.key", "director.key", "ca.key", "tls.key", "operator.token", "enrolment.token"] {
            assert_eq!(std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn another_name_makes_another_certificate_under_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        prepare(folder.path(), &local()).unwrap();
        let (ca, certificate) = (read("ca.pem"), read("tls.pem"));
        prepare(folder.path(), &Address::new("0.0.0.0:1".parse().unwrap(), Some("https://edge.example:7443")).unwrap()).unwrap();
        assert_eq!(read("ca.pem"), ca);
        assert_ne!(read("tls.pem"), certificate);
    }

    #[test]
    fn another_key_than_the_root_names_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path(), &local()).unwrap();
        std::fs::remove_file(folder.path().join("director.key")).unwrap();
        let error = prepare(folder.path(), &local()).unwrap_err().to_string();
        assert!(error.contains("director.key") && error.contains("help: "), "{error}");
    }

    #[test]
    fn addresses() {
        let listen: SocketAddr = "0.0.0.0:7443".parse().unwrap();
        assert_eq!(Address::new(listen, None).unwrap().url(listen), "https://127.0.0.1:7443");
        let advertised = Address::new(listen, Some("https://10.1.2.3:99/")).unwrap();
        assert_eq!(advertised.url(listen), "https://10.1.2.3:99");
        assert!(advertised.names().contains(&"10.1.2.3".to_owned()));
        for text in ["", "10.1.2.3:99", "http://10.1.2.3", "https://", "https://h/path"] {
            assert!(Address::new(listen, Some(text)).is_err(), "{text}");
        }
    }
}
