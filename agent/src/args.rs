//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use skerry_reconcile::OrderKind;

use crate::config::socket_path;
use crate::control::Request;
use crate::process::launch::Launch;

/// What is shown for `help` and after a wrong command line.
pub(crate) const USAGE: &str = "\
skerry-agent: keeps a node's allocations running

  skerry-agent run --config FILE --data DIR [--docker unix:///PATH] [--name NAME]
  skerry-agent status --data DIR [--json]
  skerry-agent logs --data DIR ALLOC [TASK] [--tail N] [--follow] [--docker unix:///PATH]
  skerry-agent retry --data DIR ALLOC
  skerry-agent override-lock --data DIR ALLOC
  skerry-agent meta --data DIR list | set KEY=VALUE | unset KEY
  skerry-agent version

run            runs the agent in the foreground; SIGTERM ends it, containers and processes go on
status         shows what runs here and why; works without the server, and without the agent
logs           shows what a task wrote; works without the server, and without the agent
retry          tries again what failed on this node
override-lock  switches in spite of the application's update lock
meta           shows and changes what `${meta.KEY}` stands for on this node
ALLOC is the id of an allocation, or the beginning of it.
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
    /// `logs`
    Logs(LogsArgs),
    /// `retry`, `override-lock`, `meta`: something that the running agent is told.
    Tell {
        /// Data folder.
        data: PathBuf,
        /// What.
        request: Request,
    },
    /// The process that becomes a task's program; started by the agent itself.
    Launch(Launch),
    /// The child process that makes an image; started by the agent itself.
    Reconstruct,
    /// `version`
    Version,
    /// `help`
    Help,
}

/// Arguments of `logs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogsArgs {
    /// Data folder.
    pub(crate) data: PathBuf,
    /// The allocation, by the beginning of its id.
    pub(crate) alloc: String,
    /// The task; may be left out where there is one.
    pub(crate) task: Option<String>,
    /// Lines.
    pub(crate) tail: u32,
    /// Go on with what comes?
    pub(crate) follow: bool,
    /// Path of the engine's socket, instead of the agent's.
    pub(crate) docker: Option<PathBuf>,
}

/// Lines that `logs` shows unless it is told otherwise.
const TAIL: u32 = 100;

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
            let docker = options.docker()?;
            let config = options.path("config")?;
            Ok(Command::Run(RunArgs { config, data: options.path("data")?, docker, name: options.text("name")? }))
        }
        "status" => {
            let mut options = Options::read(words, &["data"], &["json"])?;
            Ok(Command::Status { data: options.path("data")?, json: options.flags.contains(&"json".to_owned()) })
        }
        "logs" => {
            let (words, places) = split(words, &["follow"]);
            let mut options = Options::read(words.into_iter(), &["data", "tail", "docker"], &["follow"])?;
            let [alloc, task @ ..] = &places[..] else { return Err("the allocation is missing".to_owned()) };
            if let [_, more, ..] = task {
                return Err(format!("`{more}` is one word too many"));
            }
            let tail = options.text("tail")?.map(|t| t.parse().map_err(|_| format!("--tail `{t}` is no number of lines"))).transpose()?;
            let follow = options.flags.contains(&"follow".to_owned());
            let (docker, data) = (options.docker()?, options.path("data")?);
            Ok(Command::Logs(LogsArgs {
                data,
                alloc: alloc.clone(),
                task: task.first().cloned(),
                tail: tail.unwrap_or(TAIL),
                follow,
                docker,
            }))
        }
        "retry" | "override-lock" | "meta" => {
            let (words, places) = split(words, &[]);
            let request = request(command.to_str().unwrap_or_default(), &places.iter().map(String::as_str).collect::<Vec<_>>())?;
            Ok(Command::Tell { data: Options::read(words.into_iter(), &["data"], &[])?.path("data")?, request })
        }
        "launch" => {
            let mut options = Options::read(words, &["folder", "run", "script"], &[])?;
            let folder = options.path("folder")?;
            match (options.text("run")?, options.text("script")?) {
                (Some(run), None) => {
                    Ok(Command::Launch(Launch::Program { folder, run: run.parse().map_err(|_| format!("--run `{run}` is no number"))? }))
                }
                (None, Some(command)) => Ok(Command::Launch(Launch::Script { folder, command })),
                _ => Err("--run or --script is missing".to_owned()),
            }
        }
        "reconstruct" => Options::read(words, &[], &[]).map(|_| Command::Reconstruct),
        "version" | "--version" | "-V" => Ok(Command::Version),
        "help" | "--help" | "-h" => Ok(Command::Help),
        _ => Err(format!("`{}` is not a command", command.to_string_lossy())),
    }
}

/// Words that are options with their values, and words that stand for themselves.
fn split(words: impl Iterator<Item = OsString>, flags: &[&str]) -> (Vec<OsString>, Vec<String>) {
    let (mut options, mut places) = (Vec::new(), Vec::new());
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let Some(key) = text.strip_prefix("--") else {
            places.push(text);
            continue;
        };
        let alone = key.contains('=') || flags.contains(&key);
        options.push(word);
        options.extend(words.next_if(|_| !alone));
    }
    (options, places)
}

/// What the agent is told by `retry`, `override-lock` and `meta`.
fn request(command: &str, places: &[&str]) -> Result<Request, String> {
    let order = |order, alloc: &str| Ok(Request::Order { order, alloc: alloc.to_owned() });
    match (command, places) {
        ("retry", [alloc]) => order(OrderKind::Retry, alloc),
        ("override-lock", [alloc]) => order(OrderKind::OverrideLock, alloc),
        ("retry" | "override-lock", []) => Err("the allocation is missing".to_owned()),
        ("meta", ["list"]) => Ok(Request::MetaList),
        ("meta", ["unset", key]) => Ok(Request::MetaUnset { key: (*key).to_owned() }),
        ("meta", ["set", pair]) => {
            let (key, value) = pair.split_once('=').ok_or(format!("`{pair}` is not KEY=VALUE"))?;
            Ok(Request::MetaSet { key: key.to_owned(), value: value.to_owned() })
        }
        ("meta", _) => Err("`meta` is followed by list, set KEY=VALUE, or unset KEY".to_owned()),
        (_, words) => Err(format!("`{}` is one word too many", words.last().unwrap_or(&""))),
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

    fn docker(&mut self) -> Result<Option<PathBuf>, String> {
        let docker = self.text("docker")?;
        docker.map(|d| socket_path(&d).ok_or(format!("--docker `{d}` must be `unix://` and an absolute path"))).transpose()
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
        let logs = LogsArgs { data: "d".into(), alloc: "ab".into(), task: Some("web".into()), tail: 5, follow: true, docker: None };
        assert_eq!(read("logs ab --data d web --tail=5 --follow"), Ok(Command::Logs(logs)));
        let order = Request::Order { order: OrderKind::Retry, alloc: "ab".into() };
        assert_eq!(read("retry --data d ab"), Ok(Command::Tell { data: "d".into(), request: order }));
        let set = Request::MetaSet { key: "k".into(), value: "v=w".into() };
        assert_eq!(read("meta set k=v=w --data d"), Ok(Command::Tell { data: "d".into(), request: set }));
        let launch = Launch::Program { folder: "/f".into(), run: 3 };
        assert_eq!(parse(launch.words()), Ok(Command::Launch(launch)));
        for (line, part) in [
            ("", "command is missing"),
            ("walk", "`walk` is not a command"),
            ("run --data d", "--config is missing"),
            ("run --config c --data d --docker tcp://x", "unix://"),
            ("run --config", "needs a value"),
            ("status --data d --data e", "twice"),
            ("status --data d x", "one word too many"),
            ("logs --data d", "allocation is missing"),
            ("logs --data d a b c", "`c` is one word too many"),
            ("retry --data d a b", "one word too many"),
            ("meta --data d set k", "not KEY=VALUE"),
            ("meta --data d", "is followed by"),
            ("launch --folder f", "--run or --script"),
            ("status --data d --json=1", "not known"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
