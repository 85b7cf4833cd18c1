//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::socket_path;

/// What is shown for `help` and after a wrong command line.
pub(crate) const USAGE: &str = "\
skerry-agent: keeps a node's allocations running

  skerry-agent run --config FILE --data DIR [--docker unix:///PATH] [--name NAME]
  skerry-agent status --data DIR [--json]
  skerry-agent version

run     runs the agent in the foreground; SIGTERM ends it, containers go on
status  shows what runs here and why; works without the server, and without the agent
";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// `run`
    Run(RunArgs),
    /// `status`
    Status {
        /// Data folder.
        data: PathBuf,
        /// For programs?
        json: bool,
    },
    /// The child process that makes an image; started by the agent itself.
    Reconstruct,
    /// `version`
    Version,
    /// `help`
    Help,
}

/// Arguments of `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunArgs {
    /// Configuration file.
    pub(crate) config: PathBuf,
    /// Data folder.
    pub(crate) data: PathBuf,
    /// Path of the engine's socket, instead of the configuration's.
    pub(crate) docker: Option<PathBuf>,
    /// Name of the node, instead of the configuration's.
    pub(crate) name: Option<String>,
}

/// Reads the command line, program name left out.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut words = words.into_iter();
    let command = words.next().ok_or("a command is missing")?;
    match command.to_str().unwrap_or_default() {
        "run" => {
            let mut options = Options::read(words, &["config", "data", "docker", "name"], &[])?;
            let docker = options.text("docker")?;
            let docker =
                docker.map(|d| socket_path(&d).ok_or(format!("--docker `{d}` must be `unix://` and an absolute path"))).transpose()?;
            let config = options.path("config")?;
            Ok(Command::Run(RunArgs { config, data: options.path("data")?, docker, name: options.text("name")? }))
        }
        "status" => {
            let mut options = Options::read(words, &["data"], &["json"])?;
            Ok(Command::Status { data: options.path("data")?, json: options.flags.contains(&"json".to_owned()) })
        }
        "reconstruct" => Options::read(words, &[], &[]).map(|_| Command::Reconstruct),
        "version" | "--version" | "-V" => Ok(Command::Version),
        "help" | "--help" | "-h" => Ok(Command::Help),
        _ => Err(format!("`{}` is not a command", command.to_string_lossy())),
    }
}

/// Options of a command: `--key value` or `--key=value`, and `--flag`.
struct Options {
    values: Vec<(String, OsString)>,
    flags: Vec<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = OsString>, keys: &[&str], flags: &[&str]) -> Result<Self, String> {
        let mut options = Self { values: vec![], flags: vec![] };
        while let Some(word) = words.next() {
            let text = word.to_str().unwrap_or_default();
            let Some(option) = text.strip_prefix("--") else {
                return Err(format!("`{}` is one word too many", word.to_string_lossy()));
            };
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(OsString::from(value))),
                None => (option, None),
            };
            if keys.contains(&key) {
                let value = value.or_else(|| words.next()).filter(|v| !v.is_empty()).ok_or(format!("--{key} needs a value"))?;
                if options.values.iter().any(|(k, _)| k == key) {
                    return Err(format!("--{key} is given twice"));
                }
                options.values.push((key.to_owned(), value));
            } else if flags.contains(&key) && value.is_none() {
                options.flags.push(key.to_owned());
            } else {
                return Err(format!("--{key} is not known here"));
            }
        }
        Ok(options)
    }

    fn take(&mut self, key: &str) -> Option<OsString> {
        let place = self.values.iter().position(|(k, _)| k == key)?;
        Some(self.values.swap_remove(place).1)
    }

    fn path(&mut self, key: &str) -> Result<PathBuf, String> {
        self.take(key).map(PathBuf::from).ok_or(format!("--{key} is missing"))
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        self.take(key).map(|v| v.into_string().map_err(|_| format!("--{key} is not UTF-8"))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn commands() {
        let run = RunArgs { config: "c".into(), data: "d".into(), docker: Some("/run/d.sock".into()), name: Some("n".into()) };
        assert_eq!(read("run --config c --data=d --docker unix:///run/d.sock --name n"), Ok(Command::Run(run)));
        assert_eq!(read("status --data d --json"), Ok(Command::Status { data: "d".into(), json: true }));
        assert_eq!(read("--version"), Ok(Command::Version));
        for (line, part) in [
            ("", "command is missing"),
            ("walk", "`walk` is not a command"),
            ("run --data d", "--config is missing"),
            ("run --config c --data d --docker tcp://x", "unix://"),
            ("run --config", "needs a value"),
            ("status --data d --data e", "twice"),
            ("status --data d x", "one word too many"),
            ("status --data d --json=1", "not known"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
