//! The server's configuration: one TOML file. `server.example.toml` documents every key.

mod units;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skerry_wire::limits;

pub use units::{Size, Span};

use crate::store::Keep;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}\nhelp: give the path of a configuration with --config; server.example.toml is a start", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong form.
    #[error("{}: {source}help: server.example.toml documents every key", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Says line and column.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot work.
    #[error("{}: line {line}: {key}: {what}\nhelp: {help}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Line of the key.
        line: usize,
        /// The key with its tables.
        key: &'static str,
        /// What is wrong.
        what: String,
        /// What to do.
        help: &'static str,
    },
}

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port.
    #[serde(default = "Config::default_listen")]
    pub listen: SocketAddr,
    /// Folder of the database and the objects.
    pub data: PathBuf,
    /// Filter of the log.
    #[serde(default = "Config::default_log")]
    pub log: String,
    /// Certificate and key.
    pub tls: Tls,
    /// Roots and the director's key.
    pub trust: Trust,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// How often nodes poll.
    #[serde(default)]
    pub polling: Polling,
    /// Building of bundles.
    #[serde(default)]
    pub builds: Builds,
    /// Housekeeping.
    #[serde(default)]
    pub housekeeping: Housekeeping,
    /// Does this server hold all keys itself? Only `skerry-server dev` sets it.
    #[serde(skip)]
    pub development: bool,
}

/// Certificate and key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the chain.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// Roots and the director's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Root files, oldest first.
    pub roots: Vec<PathBuf>,
    /// Key file.
    pub director_key: PathBuf,
}

/// Limits of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: u32,
    /// For the TLS handshake.
    pub handshake: Span,
    /// Idle connections.
    pub keep_alive: Span,
    /// Connections that stand still in a request.
    pub stalled: Span,
    /// Requests.
    pub request: Span,
    /// Uploads of layers.
    pub upload: Span,
    /// Uncompressed bytes of a layer.
    pub layer: Size,
    /// Uploads at the same time.
    pub uploads: u32,
    /// Bytes that stay free.
    pub disk_reserve: Size,
    /// For requests under way at a stop.
    pub shutdown: Span,
}

/// How often nodes poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Polling {
    /// When nothing is awaited.
    pub idle: Span,
    /// When something is.
    pub busy: Span,
}

/// Building of bundles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Builds {
    /// At the same time.
    pub workers: u32,
    /// Before a build counts as failed.
    pub attempts: u32,
    /// Memory for making, about; the workers share it, and none has less than the least that is of use.
    pub memory: Size,
}

impl Builds {
    /// Memory for making of one worker, bytes.
    pub fn memory_of_each(&self) -> u64 {
        (self.memory.0 / u64::from(self.workers.max(1))).max(BUILD_MEMORY)
    }
}

/// The least memory that a worker makes bundles of use with.
const BUILD_MEMORY: u64 = 64 << 20;

/// Housekeeping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Housekeeping {
    /// Cron expression of forgetting.
    pub retention: String,
    /// Cron expression of removing expired tokens.
    pub tokens: String,
    /// Cron expression of deleting objects.
    pub objects: String,
    /// See [`Keep`].
    pub ended_sets: Span,
    /// See [`Keep`].
    pub manifests_per_node: u32,
    /// See [`Keep`].
    pub audit_rows: u32,
    /// See [`Keep`].
    pub bundles: Span,
    /// See [`Keep`].
    pub logs: Span,
    /// Objects younger than this stay.
    pub object_grace: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshake: Span::secs(60),
            keep_alive: Span::secs(150),
            stalled: Span::secs(60),
            request: Span::secs(30),
            upload: Span::secs(12 * 3600),
            layer: Size(64 << 30),
            uploads: 4,
            disk_reserve: Size(256 << 20),
            shutdown: Span::secs(10),
        }
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self { idle: Span::secs(60), busy: Span::secs(2) }
    }
}

impl Default for Builds {
    fn default() -> Self {
        Self { workers: 1, attempts: 3, memory: Size(1 << 30) }
    }
}

impl Default for Housekeeping {
    fn default() -> Self {
        Self {
            retention: "0 15 3 * * *".to_owned(),
            tokens: "0 5 * * * *".to_owned(),
            objects: "0 45 3 * * *".to_owned(),
            ended_sets: Span::secs(90 * 86_400),
            manifests_per_node: 20,
            audit_rows: 1_000_000,
            bundles: Span::secs(60 * 86_400),
            logs: Span::secs(7 * 86_400),
            object_grace: Span::secs(86_400),
        }
    }
}

impl Housekeeping {
    /// What retention keeps.
    pub fn keep(&self) -> Keep {
        Keep {
            ended_sets: self.ended_sets.0,
            manifests_per_node: self.manifests_per_node,
            audit_rows: self.audit_rows,
            bundles: self.bundles.0,
            logs: self.logs.0,
        }
    }
}

impl Config {
    /// Reads and checks a file; opens nothing that it names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        match config.fault() {
            None => Ok(config),
            Some((key, what, help)) => Err(ConfigError::Value { path: path.to_owned(), line: line_of(text, key), key, what, help }),
        }
    }

    /// The first value that cannot work: its key, what is wrong, what to do.
    fn fault(&self) -> Option<(&'static str, String, &'static str)> {
        let crons = [
            ("housekeeping.retention", &self.housekeeping.retention),
            ("housekeeping.tokens", &self.housekeeping.tokens),
            ("housekeeping.objects", &self.housekeeping.objects),
        ];
        for (key, expression) in crons {
            if let Err(error) = parse_cron(expression) {
                let what = format!("`{expression}` is not a cron expression: {error}");
                return Some((key, what, "write six fields: second minute hour day month weekday, for example \"0 15 3 * * *\""));
            }
        }
        let zero = |key, what: &str| Some((key, what.to_owned(), "give a larger value, or leave the key out for its default"));
        if self.trust.roots.is_empty() {
            return Some(("trust.roots", "no root document".to_owned(), "name the root file that the nodes trust"));
        }
        for (key, count) in [("limits.connections", self.limits.connections), ("limits.uploads", self.limits.uploads)] {
            if count == 0 {
                return zero(key, "0 lets nobody in");
            }
        }
        let spans = [
            ("limits.handshake", self.limits.handshake),
            ("limits.stalled", self.limits.stalled),
            ("limits.request", self.limits.request),
            ("limits.upload", self.limits.upload),
            ("polling.idle", self.polling.idle),
            ("polling.busy", self.polling.busy),
        ];
        for (key, span) in spans {
            if span < Span::secs(1) {
                return zero(key, "shorter than a second");
            }
        }
        // Agents close a connection themselves when polls are further apart.
        let kept = self.polling.idle < Span::secs(limits::KEPT_CONNECTION_S);
        if kept && self.limits.keep_alive <= self.polling.idle {
            let what = "not longer than polling.idle: every poll would pay for a new TLS connection".to_owned();
            return Some(("limits.keep_alive", what, "give at least twice polling.idle"));
        }
        if self.builds.workers == 0 || self.builds.attempts == 0 {
            return zero(if self.builds.workers == 0 { "builds.workers" } else { "builds.attempts" }, "0 builds nothing");
        }
        if self.builds.memory.0 < BUILD_MEMORY {
            let what = format!("less than the {} that are of use", Size(BUILD_MEMORY));
            return Some(("builds.memory", what, "give more"));
        }
        None
    }

    fn default_listen() -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 7443))
    }

    fn default_log() -> String {
        "info".to_owned()
    }
}

/// A cron expression with seconds, as the scheduler reads it.
fn parse_cron(expression: &str) -> Result<croner::Cron, String> {
    let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Required).build();
    parser.parse(expression).map_err(|e| e.to_string())
}

/// Line of a key `table.key` in a text that has it, or of its table when the key is left out; 1 when neither is there.
fn line_of(text: &str, key: &str) -> usize {
    let (table, name) = key.split_once('.').unwrap_or(("", key));
    let (mut current, mut table_line) = (String::new(), 1);
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if let Some(header) = line.strip_prefix('[') {
            current = header.trim_end_matches(']').trim().to_owned();
            if current == table {
                table_line = number;
            }
        }
        if current == table && line.split('=').next().is_some_and(|found| found.trim() == name) {
            return number;
        }
    }
    table_line
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../server.example.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("server.toml"))
    }

    /// All keys of a TOML value with their tables.
    fn keys(value: &toml::Value, prefix: &str, out: &mut Vec<String>) {
        let toml::Value::Table(table) = value else { return out.push(prefix.to_owned()) };
        for (key, value) in table {
            keys(value, &if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, out);
        }
    }

    #[test]
    fn the_example_has_every_key_and_its_default() {
        let config = parse(EXAMPLE).unwrap();
        let (mut documented, mut known) = (Vec::new(), Vec::new());
        keys(&toml::from_str(EXAMPLE).unwrap(), "", &mut documented);
        keys(&toml::Value::try_from(&config).unwrap(), "", &mut known);
        documented.sort();
        known.sort();
        assert_eq!(documented, known);
        let defaults = (Limits::default(), Polling::default(), Builds::default(), Housekeeping::default());
        assert_eq!((config.limits, config.polling, config.builds, config.housekeeping), defaults);
        assert_eq!((config.listen, config.log), (Config::default_listen(), Config::default_log()));
    }

    #[test]
    fn every_key_of_the_example_has_a_comment() {
        let lines: Vec<_> = EXAMPLE.lines().collect();
        for pair in lines.windows(2) {
            assert!(!pair[1].contains(" = ") || pair[1].starts_with('#') || pair[0].starts_with('#'), "no comment above `{}`", pair[1]);
        }
    }

    #[test]
    fn only_what_has_no_default_is_needed() {
        parse("data = 'd'\n[tls]\ncertificate = 'c'\nkey = 'k'\n[trust]\nroots = ['r']\ndirector_key = 'd'\n").unwrap();
    }

    #[test]
    fn polls_that_are_far_apart_share_no_connection() {
        parse(&EXAMPLE.replace("idle = \"60s\"", "idle = \"1h\"")).unwrap();
        assert!(parse(&EXAMPLE.replace("keep_alive = \"150s\"", "keep_alive = \"50s\"")).is_err());
    }

    #[test]
    fn refused_with_line_and_help() {
        for (from, to, says) in [
            ("workers = 1", "workers = 0", "builds.workers: 0 builds nothing"),
            ("memory = \"1GiB\"", "memory = \"63MiB\"", "builds.memory: less than the 64MiB that are of use"),
            ("workers = 1", "worker = 1", "unknown field `worker`"),
            ("idle = \"60s\"", "idle = \"60\"", "`60` is not a span of time"),
            ("disk_reserve = \"256MiB\"", "disk_reserve = \"256MB\"", "`256MB` is not a size"),
            ("keep_alive = \"150s\"", "keep_alive = \"60s\"", "limits.keep_alive: not longer than polling.idle"),
            ("tokens = \"0 5 * * * *\"", "tokens = \"often\"", "housekeeping.tokens: `often` is not a cron expression"),
            ("roots = [\"/etc/skerry-server/root.cose\"]", "roots = []", "trust.roots: no root document"),
            ("listen = \"0.0.0.0:7443\"", "listen = \"example\"", "invalid socket address"),
        ] {
            let line = EXAMPLE.lines().position(|line| line == from).unwrap() + 1;
            let error = parse(&EXAMPLE.replace(from, to)).unwrap_err().to_string();
            for says in [says, &format!("line {line}"), "server.toml: ", "\nhelp: "] {
                assert!(error.contains(says), "{to}: `{says}` is missing in: {error}");
            }
        }
        let error = Config::load(Path::new("/nonexistent/server.toml")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/server.toml") && error.contains("--config"), "{error}");
    }
}
