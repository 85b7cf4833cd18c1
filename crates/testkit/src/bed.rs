//! One server and one node, each in a namespace of its own, joined by a link, the node with its own Docker engine.
//!
//! The command lines and files of server, agent and CLI are all here, so that a change of theirs is a change of this file alone.
//!
//! ```text
//!   server namespace 10.77.0.1 ---- veth ---- 10.77.0.2 node namespace
//!   skerry-server dev                          skerry-agent, dockerd, containers
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{self, output, run, until};
use crate::dns::Names;
use crate::dockerd::{self, Dockerd};
use crate::netns::{Interface, Netns};
use crate::place::Place;
use crate::process::{Process, tail};
use crate::relay::Relay;
use crate::wire::{Way, Wire};
use crate::{app, need};

mod agent;
mod power;

pub use agent::AgentSetup;

const SERVER_ADDRESS: &str = "10.77.0.1";
pub(crate) const NODE_ADDRESS: &str = "10.77.0.2";
const SERVER_PORT: u16 = 4646;
/// What nodes call the server after [`Bed::name_server`].
const SERVER_NAME: &str = "server.skerry.test";
const RELAY_PORT: u16 = 4650;
/// The agent's longest wait between two polls.
const POLL: &str = "3s";
/// No image goes for want of room.
const KEEP_ALL: &str = "[images]\ncollect_above = 100\n";
/// A server or an agent is ready within this time after its start.
const START: Duration = Duration::from_secs(30);
/// What is said of an agent that is not ready yet.
const STARTING: &str = "runs but does not answer yet";
/// A server or an agent ends within this time after SIGTERM.
const STOP: Duration = Duration::from_secs(15);

/// The test bed; everything in it is gone when it is dropped.
#[derive(Debug)]
pub struct Bed {
    // Dropped in this order: processes, engine, links, files, place.
    agent: Option<Process>,
    server: Option<Process>,
    relay: Option<Relay>,
    names: Option<Names>,
    wire: Option<Wire>,
    /// The node's engine.
    pub engine: Dockerd,
    /// The node's end of the link.
    pub link: Interface,
    /// The server's end of the link.
    pub server_link: Interface,
    /// Where the agent and its containers are.
    pub node: Netns,
    /// Where the server and the operator are.
    pub shore: Netns,
    /// How agents are started from now on, where it is not as they ship.
    pub agent_setup: AgentSetup,
    _below: dockerd::Below,
    folder: TempDir,
    /// Reboots of the node so far.
    reboots: u32,
    /// Files of the machine that the agent sees another in place of: (what it sees, where).
    mounts: Vec<(PathBuf, &'static str)>,
    _place: Place,
}

impl Bed {
    /// Makes namespaces, link and engine; starts neither server nor agent. Waits for a place, see [`crate::place`].
    ///
    /// # Errors
    /// When the machine lacks something, see [`need::bed`].
    pub fn start() -> Result<Self> {
        Self::start_with(Place::among_others()?, Dockerd::start, None)
    }

    /// The same with no other bed on this machine, for what measures memory: agents of one file share its pages.
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub fn start_alone() -> Result<Self> {
        Self::start_with(Place::alone()?, Dockerd::start, None)
    }

    /// The same with a link whose ways, to the node and back, can be slowed and cut each for itself: [`Bed::wire`].
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub fn start_wired(ways: [Way; 2]) -> Result<Self> {
        Self::start_with(Place::among_others()?, Dockerd::start, Some(ways))
    }

    /// The same with an engine on this storage driver.
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub fn start_on(driver: &'static str) -> Result<Self> {
        Self::start_with(Place::among_others()?, |home, namespace| Dockerd::start_on(driver, home, namespace), None)
    }

    /// The same with podman as the node's engine.
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub fn start_on_podman() -> Result<Self> {
        let podman = |home: &Path, namespace: Option<&Netns>| Dockerd::start_podman(home, namespace.context("podman needs a namespace")?);
        Self::start_with(Place::among_others()?, podman, None)
    }

    /// The same with an engine whose programs are in this folder, and that keeps its images in containerd's store.
    ///
    /// # Errors
    /// As [`Bed::start`].
    pub fn start_on_containerd_store(programs: &Path) -> Result<Self> {
        Self::start_with(Place::among_others()?, |home, namespace| Dockerd::start_containerd_store(programs, home, namespace), None)
    }

    fn start_with(place: Place, engine: impl FnOnce(&Path, Option<&Netns>) -> Result<Dockerd>, ways: Option<[Way; 2]>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("skerry-{}-", std::process::id())).tempdir()?;
        let (shore, node) = (Netns::create("shore")?, Netns::create("node")?);
        let ends = [SERVER_ADDRESS, NODE_ADDRESS].map(|a| format!("{a}/24"));
        let (shore_end, node_end) = ((&shore, ends[0].as_str()), (&node, ends[1].as_str()));
        let (wire, server_link, link) = match ways {
            Some(ways) => {
                let (wire, server_link, link) = Netns::wire(shore_end, node_end, ways)?;
                (Some(wire), server_link, link)
            }
            None => {
                let (server_link, link) = Netns::join(shore_end, node_end)?;
                (None, server_link, link)
            }
        };
        let engine = engine(&folder.path().join("engine"), Some(&node))?;
        let (agent, server, relay, names, reboots, mounts) = (None, None, None, None, 0, Vec::new());
        let (agent_setup, _below) = (AgentSetup::default(), dockerd::Below(folder.path().to_owned()));
        Ok(Self {
            agent,
            server,
            relay,
            names,
            wire,
            engine,
            link,
            server_link,
            node,
            shore,
            agent_setup,
            _below,
            folder,
            reboots,
            mounts,
            _place: place,
        })
    }

    /// A folder for files of the test, gone with the bed.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's data folder.
    #[must_use]
    pub fn server_data(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// The agent's data folder.
    #[must_use]
    pub fn agent_data(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// Where the server listens.
    #[must_use]
    pub fn server_address(&self) -> String {
        format!("{SERVER_ADDRESS}:{SERVER_PORT}")
    }

    /// Where the node's application answers, seen from the shore.
    ///
    /// # Errors
    /// Never for the addresses of this file.
    pub fn app_address(&self) -> Result<SocketAddr> {
        format!("{NODE_ADDRESS}:{}", app::PORT).parse().context("address of the application")
    }

    // ---- server ----

    /// Starts the server and waits until it listens. Started a second time it finds its data again.
    ///
    /// # Errors
    /// When it is not built, or not ready within half a minute.
    pub fn start_server(&mut self) -> Result<()> {
        let mut command = self.shore.command(need::binary("skerry-server")?);
        command.arg("dev").arg("--data").arg(self.server_data()).args(["--listen", &self.server_address()]);
        if self.names.is_some() {
            command.args(["--advertise", &format!("https://{SERVER_NAME}:{SERVER_PORT}")]);
        }
        let mut server = Process::spawn("skerry-server", &mut command, &self.folder.path().join("server.log"))?;
        server.wait_for_line("ready", START)?;
        self.server = Some(server);
        if self.names.is_some() {
            // The operator is on the shore and needs no names.
            let path = self.server_data().join("cli.toml");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let named = format!("{SERVER_NAME}:{SERVER_PORT}");
            fs::write(&path, text.replace(&named, &self.server_address()))?;
        }
        self.poll_often()
    }

    /// Starts the server anew as in the field, from a configuration with the defaults of every figure, and has the agent ask at the pace
    /// that the server names. The agent heeds that from its next start.
    ///
    /// # Errors
    /// When the server does not end, or is not ready within half a minute.
    pub fn serve_as_in_the_field(&mut self) -> Result<()> {
        self.stop_server()?;
        let (data, listen) = (self.server_data(), self.server_address());
        let at = |name: &str| data.join(name).display().to_string();
        let text = format!(
            "listen = \"{listen}\"\ndata = \"{}\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n[trust]\nroots = [\"{}\"]\ndirector_key = \"{}\"\n",
            data.display(),
            at("tls.pem"),
            at("tls.key"),
            at("root.cose"),
            at("director.key")
        );
        let config = self.folder.path().join("server.toml");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = self.shore.command(need::binary("skerry-server")?);
        command.arg("run").arg("--config").arg(config);
        let mut server = Process::spawn("skerry-server", &mut command, &self.folder.path().join("server.log"))?;
        server.wait_for_line("ready", START)?;
        self.server = Some(server);
        self.set_poll(None)
    }

    /// From the next start of the server on, nodes know it by a name, which is resolved by what this gives. To be called first.
    ///
    /// # Errors
    /// When the resolver cannot listen.
    pub fn name_server(&mut self) -> Result<()> {
        let names = Names::start(&self.shore, format!("{SERVER_ADDRESS}:53").parse()?, SERVER_ADDRESS.parse()?)?;
        let path = self.folder.path().join("resolv.conf");
        fs::write(&path, format!("nameserver {SERVER_ADDRESS}\n")).with_context(|| format!("cannot write {}", path.display()))?;
        self.mounts.push((path, "/etc/resolv.conf"));
        self.names = Some(names);
        Ok(())
    }

    /// The resolver of [`Bed::name_server`].
    ///
    /// # Errors
    /// When there is none.
    pub fn names(&self) -> Result<&Names> {
        self.names.as_ref().context("name_server was not called")
    }

    /// The link of [`Bed::start_wired`].
    ///
    /// # Errors
    /// When the bed has another link.
    pub fn wire(&self) -> Result<&Wire> {
        self.wire.as_ref().context("the bed was not started with start_wired")
    }

    /// Has the agent ask every few seconds, a test has not the time of a fleet, and let no image go, however full this machine's disk is.
    fn poll_often(&self) -> Result<()> {
        self.set_poll(Some(POLL))?;
        let path = self.server_data().join("agent.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if text.contains("[images]") { Ok(()) } else { self.configure_agent(KEEP_ALL) }
    }

    fn set_poll(&self, poll: Option<&str>) -> Result<()> {
        let path = self.server_data().join("agent.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let others = text.lines().filter(|l| !l.trim_start().starts_with("poll_interval")).collect::<Vec<_>>().join("\n");
        // In front: what comes behind a table would belong to that table.
        let poll = poll.map(|poll| format!("poll_interval = \"{poll}\"\n")).unwrap_or_default();
        fs::write(&path, format!("{poll}{others}\n")).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The running server.
    ///
    /// # Errors
    /// When it was not started.
    pub fn server(&mut self) -> Result<&mut Process> {
        self.server.as_mut().context("the server was not started")
    }

    /// Stops the server gracefully.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop_server(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), |mut p| p.terminate(STOP).map(drop))
    }

    // ---- agent ----

    /// Starts the agent with the configuration that the server made; it enrols on its first start.
    ///
    /// # Errors
    /// When it is not built.
    pub fn start_agent(&mut self) -> Result<()> {
        let mut command = self.agent_command(&self.agent_data())?;
        self.agent = Some(Process::spawn("skerry-agent", &mut command, &self.folder.path().join("agent.log"))?);
        Ok(())
    }

    /// The running agent.
    ///
    /// # Errors
    /// When it was not started.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent was not started")
    }

    /// Stops the agent gracefully; its allocations go on.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop_agent(&mut self) -> Result<()> {
        self.agent.take().map_or(Ok(()), |mut p| p.terminate(STOP).map(drop))
    }

    /// Adds lines to the agent's configuration, for its next start.
    ///
    /// # Errors
    /// When the server has not made it yet.
    pub fn configure_agent(&self, lines: &str) -> Result<()> {
        let path = self.server_data().join("agent.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = if lines.contains("[images]") { text.replace(KEEP_ALL, "") } else { text };
        fs::write(&path, format!("{text}\n{lines}")).with_context(|| format!("cannot write {}", path.display()))
    }

    /// `skerry-agent status --json`, on the node, offline. An agent that is just starting is waited for.
    ///
    /// # Errors
    /// When the agent has nothing to say.
    pub fn agent_status(&self) -> Result<Value> {
        let mut command = self.node.command(need::binary("skerry-agent")?);
        command.arg("status").arg("--data").arg(self.agent_data()).arg("--json");
        let text = until("the agent's word of itself", START, || match run(&mut command) {
            Err(error) if error.to_string().contains(STARTING) => Ok(None),
            other => Ok(Some(other)),
        })??;
        serde_json::from_str(&text).with_context(|| format!("skerry-agent status said {text}"))
    }

    /// The agent's program with these arguments, on the node; returns what it said.
    ///
    /// # Errors
    /// When it ends with another code than 0.
    pub fn on_node(&self, arguments: &[&str]) -> Result<String> {
        run(self.node.command(need::binary("skerry-agent")?).args(arguments)).with_context(|| self.logs())
    }

    // ---- operator ----

    /// The operator's command with these arguments, on the shore.
    ///
    /// # Errors
    /// When it is not built.
    pub fn skerry(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.shore.command(need::binary("skerry")?);
        command.arg("--config").arg(self.server_data().join("cli.toml")).args(arguments);
        Ok(command)
    }

    /// Runs the operator's command and returns its output.
    ///
    /// # Errors
    /// When it ends with another code than 0; the error says what it said, and holds the ends of the logs.
    pub fn operate(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.skerry(arguments)?).with_context(|| self.logs())
    }

    /// Runs the operator's command with `--json` and returns what it said.
    ///
    /// # Errors
    /// As [`Bed::operate`], and when it is not JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.operate(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`skerry {}` said {text}", arguments.join(" ")))
    }

    /// Runs the operator's command where it must fail, and returns what it said on standard error.
    ///
    /// # Errors
    /// When it does not fail.
    pub fn refuse(&self, arguments: &[&str]) -> Result<String> {
        let said = output(&mut self.skerry(arguments)?)?;
        if said.status.success() {
            bail!("`skerry {}` was to fail but said: {}", arguments.join(" "), String::from_utf8_lossy(&said.stdout));
        }
        Ok(String::from_utf8_lossy(&said.stderr).into_owned())
    }

    /// Publishes a `docker save` archive.
    ///
    /// # Errors
    /// As [`Bed::operate`].
    pub fn publish(&self, archive: &Path, reference: &str) -> Result<()> {
        let (name, tag) = reference.rsplit_once(':').with_context(|| format!("{reference} has no tag"))?;
        self.operate(&["image", "publish", &archive.display().to_string(), "--name", name, "--tag", tag]).map(drop)
    }

    /// Submits the job that runs `reference`; does not wait for its deployment set.
    ///
    /// # Errors
    /// As [`Bed::operate`].
    pub fn run_job(&self, job: &str, reference: &str) -> Result<()> {
        let path = self.folder.path().join(format!("{job}.nomad.hcl"));
        fs::write(&path, app::jobspec(job, reference))?;
        self.operate(&["job", "run", &path.display().to_string()]).map(drop)
    }

    /// Status of the newest deployment set of a job.
    ///
    /// # Errors
    /// When the job has none yet.
    pub fn newest_set(&self, job: &str) -> Result<Value> {
        let status = self.ask(&["job", "status", job])?;
        let id = status["sets"][0]["id"].as_str().with_context(|| format!("job {job} has no deployment set: {status}"))?;
        self.ask(&["deployment", "status", id])
    }

    /// Waits until the newest deployment set of a job is done.
    ///
    /// # Errors
    /// When it fails, or is not done within `limit`; the error holds the ends of the logs.
    pub fn wait_deployed(&self, job: &str, limit: Duration) -> Result<Value> {
        let mut last = Value::Null;
        let found = until(&format!("the deployment set of {job}"), limit, || {
            last = self.newest_set(job)?;
            match last["state"].as_str() {
                Some("succeeded") => Ok(Some(true)),
                Some("failed") => Ok(Some(false)),
                _ => Ok(None),
            }
        });
        match found {
            Ok(true) => Ok(last),
            Ok(false) => bail!("the deployment set of {job} failed: {last}\n{}", self.logs()),
            Err(e) => Err(e.context(format!("last seen: {last}\n{}", self.logs()))),
        }
    }

    /// Waits until the node's application says `version`.
    ///
    /// # Errors
    /// When it does not within `limit`; the error holds the ends of the logs.
    pub fn wait_version(&self, version: &str, limit: Duration) -> Result<()> {
        let url = format!("http://{}{}", self.app_address()?, app::VERSION_PATH);
        until(&format!("version {version} at {url}"), limit, || {
            let said = run(self.shore.command("curl").args(["--silent", "--show-error", "--max-time", "2", &url]))?;
            Ok((said.trim() == version).then_some(()))
        })
        .with_context(|| self.logs())
    }

    // ---- measuring ----

    /// Bytes of the bodies of objects that the server has sent since its start, all objects together, by its own count.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn object_bytes_sent(&self) -> Result<u64> {
        let metrics = self.metrics()?;
        let lines = metrics.lines().filter(|l| l.starts_with("skerry_object_bytes_sent_total"));
        lines.map(|l| l.rsplit(' ').next().unwrap_or_default().parse::<u64>().with_context(|| format!("cannot read \"{l}\""))).sum()
    }

    /// `GET /v1/metrics`: Prometheus text.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn metrics(&self) -> Result<String> {
        let mut command = self.shore.command("curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "10", "--cacert"]).arg(self.server_data().join("ca.pem"));
        command.args(["--header", &format!("Authorization: Bearer {}", self.operator_token()?)]);
        run(command.arg(format!("https://{}/v1/metrics", self.server_address())))
    }

    /// Posts JSON to the server's API as the operator, as a program of another version might.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn post(&self, path: &str, json: &Value) -> Result<String> {
        let body = self.folder.path().join("body.json");
        fs::write(&body, json.to_string()).with_context(|| format!("cannot write {}", body.display()))?;
        let mut command = self.shore.command("curl");
        command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--cacert"]);
        command.arg(self.server_data().join("ca.pem"));
        command.args([
            "--header",
            &format!("Authorization: Bearer {}", self.operator_token()?),
            "--header",
            "Content-Type: application/json",
        ]);
        command.args(["--data-binary", &format!("@{}", body.display())]);
        run(command.arg(format!("https://{}{path}", self.server_address())))
    }

    fn operator_token(&self) -> Result<String> {
        let path = self.server_data().join("cli.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let token = text.lines().filter_map(|l| l.split_once('=')).find(|(key, _)| key.trim() == "token");
        let (_, value) = token.with_context(|| format!("no token in {}", path.display()))?;
        Ok(value.trim().trim_matches('"').to_owned())
    }

    /// From now on every new connection of the node to the server goes through a relay that counts its payload.
    ///
    /// # Errors
    /// When the relay cannot listen.
    pub fn count_payload(&mut self) -> Result<()> {
        let (listen, target) = (format!("{SERVER_ADDRESS}:{RELAY_PORT}"), self.server_address());
        self.relay = Some(Relay::start(Some(&self.shore), listen.parse()?, target.parse()?)?);
        self.server_link.redirect(SERVER_PORT, RELAY_PORT)
    }

    /// From now on the server's machine refuses the node: connections are reset and none is made. `false` ends it.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn refuse_node(&self, refuse: bool) -> Result<()> {
        if !refuse {
            return self.server_link.admit();
        }
        // Behind the redirection of `count_payload`.
        self.server_link.refuse(if self.relay.is_some() { RELAY_PORT } else { SERVER_PORT })
    }

    /// The relay of [`Bed::count_payload`].
    ///
    /// # Errors
    /// When there is none.
    pub fn relay(&self) -> Result<&Relay> {
        self.relay.as_ref().context("count_payload was not called")
    }

    /// The ends of all logs, for failures.
    #[must_use]
    pub fn logs(&self) -> String {
        let of = |name: &str| format!("{name}:\n{}", tail(&self.folder.path().join(name), 30));
        let logs = ["server.log", "agent.log", "agent2.log"];
        logs.into_iter().filter(|name| self.folder.path().join(name).exists()).map(of).collect::<Vec<_>>().join("\n")
    }

    /// Waits until `bytes` more have come in on the node's link.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub fn wait_received(&self, bytes: u64, limit: Duration) -> Result<()> {
        let start = self.link.bytes()?.received;
        let what = format!("{bytes} bytes on the node's link");
        command::until(&what, limit, || Ok((self.link.bytes()?.received >= start + bytes).then_some(()))).with_context(|| self.logs())
    }
}
