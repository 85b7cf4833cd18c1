//! The operator's configuration: where the server is, who the operator is, where keys are.
//!
//! Looked for in `--config`, then `SKERRY_CONFIG`, then `skerry/cli.toml` in the user's configuration folder. Paths in the file are
//! relative to the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use skerry_client::{Client, Connection};
use skerry_trust::{Role, SigningKey, TrustedRoot};
use skerry_wire::api::Submitter;

/// `cli.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// `https://HOST:PORT`.
    server: String,
    /// The CA of the server's certificate, PEM.
    ca: PathBuf,
    /// Operator token.
    token: String,
    /// Release key to sign with.
    release_key: Option<PathBuf>,
    /// The root document, to check releases with.
    root: Option<PathBuf>,
    /// Who orders; git's user when not given.
    submitter: Option<SubmitterConfig>,
    /// Folder of the file.
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitterConfig {
    name: String,
    email: String,
}

impl Config {
    /// Reads the configuration.
    pub(crate) fn load(given: Option<&Path>) -> Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => default_path()?,
        };
        let text = fs::read_to_string(&path).map_err(|error| {
            anyhow!(
                "configuration {}: {error}\n  Give one with --config or SKERRY_CONFIG. `skerry-server dev --data DIR` writes DIR/cli.toml.",
                path.display()
            )
        })?;
        let mut config: Self = toml::from_str(&text).with_context(|| format!("configuration {}", path.display()))?;
        config.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(config)
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// A client of the server.
    pub(crate) fn client(&self) -> Result<Client> {
        let ca = self.path(&self.ca);
        let ca_pem = fs::read(&ca).with_context(|| format!("CA file {}", ca.display()))?;
        Ok(Client::new(&Connection { server: self.server.clone(), ca_pem, token: self.token.clone() })?)
    }

    /// The release key: `given`, else the configured one.
    pub(crate) fn release_key(&self, given: Option<&Path>) -> Result<SigningKey> {
        let path = match (given, &self.release_key) {
            (Some(path), _) => path.to_owned(),
            (None, Some(path)) => self.path(path),
            (None, None) => bail!(
                "no release key to sign with\n  Give one with --key or `release_key` in the configuration; `skerry key generate` makes one."
            ),
        };
        read_key(&path)
    }

    /// May this key sign releases? Asked before much work is done for a release; with no root document only the server can say.
    pub(crate) fn check_release_key(&self, key: &SigningKey) -> Result<()> {
        let id = key.public().id();
        match (self.root()?, &self.root) {
            (Some(root), Some(path)) if root.keys(Role::Release).get(&id).is_none() => bail!(
                "key {id} is no release key by the root document {}\n  Sign with a key that it names, or bring it up to date.",
                self.path(path).display()
            ),
            _ => Ok(()),
        }
    }

    /// The trusted root, where one is configured.
    pub(crate) fn root(&self) -> Result<Option<TrustedRoot>> {
        let Some(path) = self.root.as_deref().map(|p| self.path(p)) else { return Ok(None) };
        let bytes = fs::read(&path).with_context(|| format!("root document {}", path.display()))?;
        Ok(Some(TrustedRoot::first(&bytes).with_context(|| format!("root document {}", path.display()))?))
    }

    /// Who orders.
    pub(crate) fn submitter(&self) -> Result<Submitter> {
        if let Some(submitter) = &self.submitter {
            return Ok(Submitter { name: submitter.name.clone(), email: submitter.email.clone() });
        }
        match (git("user.name"), git("user.email")) {
            (Some(name), Some(email)) => Ok(Submitter { name, email }),
            _ => bail!(
                "who orders this?\n  Set `[submitter]` with `name` and `email` in the configuration, or git's user.name and user.email."
            ),
        }
    }
}

/// Reads a private key file.
pub(crate) fn read_key(path: &Path) -> Result<SigningKey> {
    let text = fs::read_to_string(path).with_context(|| format!("key file {}", path.display()))?;
    SigningKey::from_text(&text).with_context(|| format!("key file {}", path.display()))
}

fn default_path() -> Result<PathBuf> {
    Ok(folder("give one with --config or SKERRY_CONFIG")?.join("cli.toml"))
}

/// The user's folder for what belongs to this command; `else_do` says what helps where there is none.
pub(crate) fn folder(else_do: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        // As the specification of base directories has it: a path that depends on where one stands is none.
        .filter(|folder| folder.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".config")));
    let folder = folder.with_context(|| format!("HOME is not set, nor is XDG_CONFIG_HOME to a full path: {else_do}"))?;
    Ok(folder.join("skerry"))
}

fn git(key: &str) -> Option<String> {
    let output = Command::new("git").args(["config", "--get", key]).output().ok()?;
    let value = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use skerry_trust::{RoleKeys, Root, sign_root};

    use super::*;

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cli.toml");
        fs::write(
            &file,
            "server = \"https://h:1\"\nca = \"ca.pem\"\ntoken = \"t\"\n[submitter]\nname = \"Ada\"\nemail = \"ada@example.org\"\n",
        )
        .unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!(config.path(&config.ca), folder.path().join("ca.pem"));
        assert_eq!(config.submitter().unwrap().email, "ada@example.org");
        let error = format!("{:#}", config.client().unwrap_err());
        assert!(error.contains("ca.pem"), "{error}");
        assert!(config.release_key(None).is_err());
    }

    #[test]
    fn a_key_that_the_root_does_not_name() {
        let key = || SigningKey::from_pkcs8(&SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap();
        let (root, release, other) = (key(), key(), key());
        let role = |key: &SigningKey| RoleKeys { keys: vec![key.public()], threshold: 1 };
        let roles = [(Role::Root, role(&root)), (Role::Release, role(&release)), (Role::Director, role(&other))].into();
        let document = Root { version: 1, roles, time_cap: skerry_wire::Timestamp(0) };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cli.toml");
        fs::write(folder.path().join("root.cose"), sign_root(&document, &[&root])).unwrap();
        fs::write(&file, "server = \"https://h:1\"\nca = \"ca.pem\"\ntoken = \"t\"\n").unwrap();
        Config::load(Some(&file)).unwrap().check_release_key(&other).unwrap();
        fs::write(&file, "server = \"https://h:1\"\nca = \"ca.pem\"\ntoken = \"t\"\nroot = \"root.cose\"\n").unwrap();
        let config = Config::load(Some(&file)).unwrap();
        config.check_release_key(&release).unwrap();
        let error = config.check_release_key(&other).unwrap_err().to_string();
        assert!(error.contains("root.cose") && error.contains(&other.public().id().to_string()), "{error}");
    }

    #[test]
    fn the_hint_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Config::load(Some(&folder.path().join("none.toml"))).unwrap_err());
        assert!(error.contains("none.toml: No such file") && error.ends_with("writes DIR/cli.toml."), "{error}");
    }

    #[test]
    fn unknown_keys_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cli.toml");
        fs::write(&file, "server = \"https://h:1\"\nca = \"ca.pem\"\ntoken = \"t\"\ntokken = \"t\"\n").unwrap();
        let error = format!("{:#}", Config::load(Some(&file)).unwrap_err());
        assert!(error.contains("tokken"), "{error}");
    }
}
