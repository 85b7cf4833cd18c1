//! How the bed starts an agent.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Bed;
use crate::need;

/// What is not as agents ship.
#[derive(Debug, Clone, Default)]
pub struct AgentSetup {
    /// Another program than `skerry-agent`.
    pub program: Option<PathBuf>,
    /// Another way to the engine than its own socket: `unix:///...`.
    pub engine: Option<String>,
    /// Environment beside the test's own.
    pub environment: Vec<(String, String)>,
}

impl Bed {
    /// The command that runs an agent of this node on a data folder.
    ///
    /// # Errors
    /// When the agent is not built.
    pub fn agent_command(&self, data: &Path) -> Result<Command> {
        let setup = &self.agent_setup;
        let agent = setup.program.clone().map_or_else(|| need::binary("skerry-agent"), Ok)?;
        let mut command = if self.mounts.is_empty() {
            // With hangups ignored, as by hand in the background: what the agent starts must not inherit that.
            let mut command = self.node.command("nohup");
            command.arg(agent);
            command
        } else {
            let mounts: String = self.mounts.iter().map(|(from, to)| format!("mount --bind '{}' {to} && ", from.display())).collect();
            let mut command = self.node.command("unshare");
            command.args(["--mount", "sh", "-c", &format!("{mounts}exec \"$0\" \"$@\"")]).arg(agent);
            command
        };
        command.arg("run").arg("--config").arg(self.server_data().join("agent.toml"));
        command.arg("--data").arg(data).args(["--docker", setup.engine.as_deref().unwrap_or(&self.engine.address())]);
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}
