//! The agent's configuration: one TOML file, every key documented in `agent.example.toml`.
//!
//! What it promises: a wrong value is an error that names file and key; a key that is not known is a warning, so that a configuration
//! written for a newer agent still starts this one.

mod transfer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skerry_reconcile::Policy;
use skerry_transfer::Marks;
pub(crate) use transfer::Transfer;

/// Folder below which jobs may mount nothing unless it is named: there is no default.
const MAX_CONFIG: usize = 256 * 1024;

/// The configuration, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// `https://HOST[:PORT]`
    pub(crate) server: String,
    /// PEM file of the certificate authorities that the server's certificate is checked against.
    pub(crate) ca: PathBuf,
    /// The root document that trust begins with.
    pub(crate) root: PathBuf,
    /// Enrolment token; not needed once enrolled.
    pub(crate) token: Option<String>,
    /// Name of the node; the host name when none.
    pub(crate) name: Option<String>,
    /// Site.
    pub(crate) datacenter: String,
    /// Path of the engine's socket.
    pub(crate) docker: PathBuf,
    /// Longest wait between two polls.
    pub(crate) poll_interval: Duration,
    /// `${meta.*}` of the node.
    pub(crate) meta: BTreeMap<String, String>,
    /// What the node's owner allows.
    pub(crate) policy: Policy,
    /// Bytes that may be under way to the node at once: bounds what a cut of a slow link costs.
    pub(crate) receive_window: u32,
    /// What is fetched when, and when it is switched to.
    pub(crate) transfer: Transfer,
    /// How full the engine's disk may be before images go that nobody needs.
    pub(crate) marks: Marks,
    /// Bytes of bundles that are kept to mend images with.
    pub(crate) keep_bundles: u64,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("the configuration {path} is not valid TOML: {reason}", path = path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A key is missing or has a value that makes no sense.
    #[error("the configuration {path}: `{key}` {reason}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it must be.
        reason: String,
    },
}

/// Takes keys out of a table; what is left is not known.
struct Keys<'a> {
    path: &'a Path,
    prefix: &'static str,
    table: toml::Table,
}

impl Keys<'_> {
    fn error(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Key { path: self.path.to_owned(), key: format!("{}{key}", self.prefix), reason: reason.into() }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.error(key, "must be a text that is not empty")),
        }
    }

    fn needed(&mut self, key: &str, example: &str) -> Result<String, ConfigError> {
        self.text(key)?.ok_or_else(|| self.error(key, format!("is missing; set it, e.g. {key} = \"{example}\"")))
    }

    fn path(&mut self, key: &str, example: &str) -> Result<PathBuf, ConfigError> {
        let text = self.needed(key, example)?;
        Ok(self.path.parent().unwrap_or(Path::new("")).join(text))
    }

    fn table(&mut self, key: &'static str) -> Result<toml::Table, ConfigError> {
        match self.table.remove(key) {
            None => Ok(toml::Table::new()),
            Some(toml::Value::Table(table)) => Ok(table),
            Some(_) => Err(self.error(key, "must be a table")),
        }
    }

    fn unknown(self) -> Vec<String> {
        self.table.keys().map(|k| format!("{}{k}", self.prefix)).collect()
    }
}

impl Config {
    /// Reads a file. Gives the keys that are not known beside it.
    pub(crate) fn read(path: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        if text.len() > MAX_CONFIG {
            return Err(read(std::io::Error::other(format!("longer than {MAX_CONFIG} bytes"))));
        }
        Self::parse(path, &text)
    }

    /// Reads a text. Relative paths in it are relative to the folder of `path`.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let table = text.parse().map_err(|e: toml::de::Error| ConfigError::Toml { path: path.to_owned(), reason: e.to_string() })?;
        let mut keys = Keys { path, prefix: "", table };
        let server = keys.needed("server", "https://skerry.example.org:7443")?;
        if !server.starts_with("https://") {
            return Err(keys.error("server", "must begin with `https://`"));
        }
        let poll_interval = match keys.text("poll_interval")? {
            None => Duration::from_secs(60),
            Some(text) => duration(&text)
                .filter(|d| *d >= Duration::from_secs(1))
                .ok_or_else(|| keys.error("poll_interval", "must be a span of at least a second, e.g. \"30s\" or \"5m\""))?,
        };
        let receive_window = match keys.text("receive_window")? {
            None => 64 * 1024,
            Some(text) => size(&text)
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| (4 * 1024..=16 * 1024 * 1024).contains(n))
                .ok_or_else(|| keys.error("receive_window", "must be a size from \"4KiB\" to \"16MiB\", e.g. \"64KiB\""))?,
        };
        let docker = keys.text("docker")?.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let docker = socket_path(&docker).ok_or_else(|| keys.error("docker", "must be `unix://` and an absolute path"))?;

        let mut meta = BTreeMap::new();
        for (key, value) in keys.table("meta")? {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(n) => n.to_string(),
                toml::Value::Boolean(b) => b.to_string(),
                _ => return Err(keys.error(&format!("meta.{key}"), "must be a text")),
            };
            meta.insert(key, value);
        }
        let table = keys.table("policy")?;
        let mut policy_keys = Keys { path, prefix: "policy.", table };
        let policy = policy(&mut policy_keys)?;

        let table = keys.table("images")?;
        let mut images_keys = Keys { path, prefix: "images.", table };
        let (marks, keep_bundles) = transfer::images(&mut images_keys)?;
        let table = keys.table("transfer")?;
        let mut transfer_keys = Keys { path, prefix: "transfer.", table };
        let transfer = transfer::transfer(&mut transfer_keys)?;

        let config = Self {
            server: server.trim_end_matches('/').to_owned(),
            ca: keys.path("ca", "ca.pem")?,
            root: keys.path("root", "root.cose")?,
            token: keys.text("token")?,
            name: keys.text("name")?,
            datacenter: keys.text("datacenter")?.unwrap_or_else(|| "dc1".to_owned()),
            docker,
            poll_interval,
            meta,
            policy,
            receive_window,
            transfer,
            marks,
            keep_bundles,
        };
        let mut unknown = keys.unknown();
        unknown.extend(images_keys.unknown());
        unknown.extend(transfer_keys.unknown());
        unknown.extend(policy_keys.unknown());
        Ok((config, unknown))
    }
}

fn policy(keys: &mut Keys<'_>) -> Result<Policy, ConfigError> {
    const REASON: &str = "must be a list of absolute paths without `..`, e.g. [\"/srv/data\"]";
    let list = match keys.table.remove("host_volumes") {
        None => vec![],
        Some(toml::Value::Array(list)) => list,
        Some(_) => return Err(keys.error("host_volumes", REASON)),
    };
    let mut checked = Vec::new();
    for entry in list {
        match entry {
            toml::Value::String(path) if path.starts_with('/') && !path.split('/').any(|p| p == "..") => checked.push(path.into()),
            _ => return Err(keys.error("host_volumes", REASON)),
        }
    }
    let mut table = std::mem::take(&mut keys.table);
    table.insert("host_volumes".to_owned(), toml::Value::Array(checked));
    let policy: Policy = toml::Value::Table(table.clone()).try_into().map_err(|e| {
        let reason = e.to_string();
        keys.error("*", reason.lines().next().unwrap_or_default().to_owned())
    })?;
    // The policy's own words are those that it is written with.
    let known = toml::Table::try_from(&policy).unwrap_or_default();
    keys.table = table.into_iter().filter(|(key, _)| !known.contains_key(key)).collect();
    Ok(policy)
}

/// The path in `unix:///run/docker.sock`.
pub(crate) fn socket_path(text: &str) -> Option<PathBuf> {
    text.strip_prefix("unix://").filter(|p| p.starts_with('/')).map(PathBuf::from)
}

/// `250ms`, `30s`, `5m`, `1h`, `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let n: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let ms: u64 = match &unit[..end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(n.checked_mul(ms)?))?;
        rest = &unit[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// `4096`, `64KiB`, `1MiB`, `2GiB`, and the decimal ones that links are sold in: `50MB`.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let n: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    n.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
        Config::parse(Path::new("/etc/skerry/agent.toml"), text).map_err(|e| e.to_string())
    }

    const LEAST: &str = "server = \"https://s:7443/\"\nca = \"ca.pem\"\nroot = \"/r/root.cose\"\n";

    #[test]
    fn the_example_is_whole() {
        let (config, unknown) = parse(include_str!("../agent.example.toml")).unwrap();
        assert_eq!(unknown, Vec::<String>::new());
        let (_, not_shown) = parse(LEAST).unwrap();
        assert_eq!(not_shown, Vec::<String>::new());
        for key in [
            "server",
            "ca",
            "root",
            "token",
            "name",
            "datacenter",
            "docker",
            "poll_interval",
            "receive_window",
            "host_volumes",
            "collect_above",
            "collect_below",
            "keep_bundles",
            "budget",
            "reserve",
            "reserve_priority",
            "month_begins",
            "rate",
            "download",
            "apply",
            "zone",
            "unknown_time",
            "on_delta_failure",
        ] {
            assert!(include_str!("../agent.example.toml").contains(&format!("\n{key} = ")), "{key} is not documented");
        }
        assert_eq!(config.policy.host_volumes, ["/srv/data"]);
    }

    #[test]
    fn defaults_paths_and_unknown_keys() {
        let (config, unknown) = parse(&format!("{LEAST}colour = 1\n[policy]\nraw_exec = true\ncolour = 2\n[meta]\nn = 5\n")).unwrap();
        assert_eq!(config.server, "https://s:7443");
        assert_eq!(config.ca, Path::new("/etc/skerry/ca.pem"));
        assert_eq!(config.root, Path::new("/r/root.cose"));
        assert_eq!(config.docker, Path::new("/var/run/docker.sock"));
        assert_eq!((config.receive_window, config.poll_interval), (65_536, Duration::from_secs(60)));
        assert_eq!(config.meta["n"], "5");
        assert!(config.policy.host_volumes.is_empty());
        assert!(config.policy.raw_exec && !config.policy.exec);
        assert_eq!(unknown, ["colour", "policy.colour"]);
    }

    #[test]
    fn wrong_values_name_the_key() {
        for (text, part) in [
            ("", "`server` is missing"),
            ("server = \"http://s\"", "`server` must begin"),
            ("server = 5", "`server` must be a text"),
            ("x = ", "not valid TOML"),
            ("server = \"https://s\"\nroot = \"r\"", "`ca` is missing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part) && error.contains("/etc/skerry/agent.toml"), "{error}");
        }
        for (line, part) in [
            ("poll_interval = \"0s\"", "`poll_interval`"),
            ("poll_interval = \"fast\"", "`poll_interval`"),
            ("receive_window = \"1B\"", "`receive_window`"),
            ("docker = \"tcp://1.2.3.4\"", "`docker`"),
            ("[policy]\nhost_volumes = [\"srv\"]", "`policy.host_volumes`"),
            ("[policy]\nhost_volumes = [\"/srv/../etc\"]", "`policy.host_volumes`"),
        ] {
            let error = parse(&format!("{LEAST}{line}\n")).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn spans_and_sizes() {
        for (text, ms) in
            [("250ms", Some(250)), ("1h30m", Some(5_400_000)), ("5", None), ("", None), ("5x", None), ("99999999999999999999h", None)]
        {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
        for (text, n) in [
            ("4096", Some(4096)),
            ("64KiB", Some(65_536)),
            ("1 MiB", Some(1 << 20)),
            ("9999MiB", Some(10_484_711_424)),
            ("50MB", Some(50_000_000)),
            ("99999999999GiB", None),
            ("KiB", None),
        ] {
            assert_eq!(size(text), n, "{text}");
        }
    }
}
