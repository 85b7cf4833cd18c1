//! A second node beside that of the bed: an agent with an engine and a link of its own.
//!
//! ```text
//!   server namespace 10.77.1.1 ---- veth ---- 10.77.1.2 second node's namespace
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::run;
use crate::netns::{Interface, Netns};
use crate::process::Process;
use crate::{Bed, Dockerd, need};

const SHORE_ADDRESS: &str = "10.77.1.1";
const NODE_ADDRESS: &str = "10.77.1.2";
/// The folder of its engine, in the bed's.
pub(crate) const ENGINE: &str = "engine2";

/// The node; gone when dropped, which must be before the bed is.
#[derive(Debug)]
pub struct SecondNode {
    // Dropped in this order: process, engine, link.
    agent: Process,
    /// Its engine.
    pub engine: Dockerd,
    /// Its end of the link.
    pub link: Interface,
    /// Where its agent and containers are.
    pub namespace: Netns,
    data: PathBuf,
}

impl SecondNode {
    /// Starts an agent named `name` with the bed's agent's configuration.
    ///
    /// # Errors
    /// When the agent or its engine does not start.
    pub fn start(bed: &Bed, name: &str) -> Result<Self> {
        let namespace = Netns::create("node2")?;
        let ends = [SHORE_ADDRESS, NODE_ADDRESS].map(|a| format!("{a}/24"));
        let (_, link) = Netns::join((&bed.shore, &ends[0]), (&namespace, &ends[1]))?;
        // To the server, whose address is on the other link.
        run(namespace.command("ip").args(["route", "add", "default", "via", SHORE_ADDRESS]))?;
        let engine = Dockerd::start(&bed.folder().join(ENGINE), Some(&namespace))?;
        let data = bed.folder().join("agent2");
        let mut command = namespace.command(need::binary("skerry-agent")?);
        command.arg("run").arg("--config").arg(bed.server_data().join("agent.toml")).arg("--data").arg(&data);
        command.args(["--docker", &engine.address(), "--name", name]);
        let agent = Process::spawn("skerry-agent", &mut command, &bed.folder().join("agent2.log"))?;
        Ok(Self { agent, engine, link, namespace, data })
    }

    /// Its agent's process.
    #[must_use]
    pub fn agent(&self) -> &Process {
        &self.agent
    }

    /// `skerry-agent status --json`, on the node.
    ///
    /// # Errors
    /// When the agent has nothing to say.
    pub fn status(&self) -> Result<Value> {
        let mut command = self.namespace.command(need::binary("skerry-agent")?);
        let text = run(command.arg("status").arg("--data").arg(&self.data).arg("--json"))?;
        serde_json::from_str(&text).with_context(|| format!("skerry-agent status said {text}"))
    }
}
