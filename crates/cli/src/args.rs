//! The command line: every command, its arguments and what they default to.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::delta_args::{DeltaCommand, RankArgs};

/// Runs jobs on fleets of edge nodes over slow, intermittent links.
#[derive(Debug, Parser)]
#[command(name = "skerry", version, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Configuration: server, CA, token, release key
    #[arg(long, global = true, env = "SKERRY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Images: publish, list, inspect
    #[command(subcommand)]
    Image(ImageCommand),
    /// Patches between images on this machine: make, apply, inspect. Asks no server
    #[command(subcommand)]
    Delta(DeltaCommand),
    /// Jobs: init, validate, plan, run, status, stop
    #[command(subcommand)]
    Job(JobCommand),
    /// Deployment sets: which images go to which nodes, and how far they are
    #[command(subcommand)]
    Deployment(DeploymentCommand),
    /// Nodes: list, status, eligibility, drain, meta
    #[command(subcommand)]
    Node(NodeCommand),
    /// Allocations: list, status, logs, retry, override-lock
    #[command(subcommand)]
    Alloc(AllocCommand),
    /// Variables that jobs read: put, get, list, purge
    #[command(subcommand)]
    Var(VarCommand),
    /// Enrolment tokens: create, list, delete
    #[command(subcommand)]
    Token(TokenCommand),
    /// Bundles and their builds: list
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Release keys: generate, show
    #[command(subcommand)]
    Key(KeyCommand),
    /// What the server is and has
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Sign an image and bring it to the server
    Publish(PublishArgs),
    /// All images
    List,
    /// Which image is the best base of another one, by their indexes. Asks no server
    Rank(RankArgs),
    /// One image, by NAME[:TAG] or id
    Inspect {
        /// NAME[:TAG] or sha256:...
        reference: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// An archive of `docker save`, an OCI layout, or an image of the local engine (NAME[:TAG] or id)
    pub(crate) source: String,
    /// Name to publish as; the one in the archive otherwise
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Tag to publish as; the one in the archive otherwise
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Which image of an archive that holds several: NAME:TAG or id
    #[arg(long, value_name = "IMAGE")]
    pub(crate) select: Option<String>,
    /// Release key to sign with; `release_key` of the configuration otherwise
    #[arg(long, value_name = "FILE", env = "SKERRY_RELEASE_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Socket of the local engine
    #[arg(long, value_name = "SOCKET", default_value = "unix:///var/run/docker.sock", env = "DOCKER_HOST")]
    pub(crate) docker: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Write an example jobspec to start from
    Init {
        /// File to write; must not exist
        #[arg(default_value = "example.hcl")]
        file: PathBuf,
    },
    /// Check a jobspec, offline
    Validate(SpecArgs),
    /// Show what a run would do, and its price
    Plan(SpecArgs),
    /// Sign a jobspec and submit it
    Run(RunArgs),
    /// All jobs, or one with its allocations and deployment sets
    Status {
        /// Job id
        id: Option<String>,
    },
    /// Stop a job on all nodes
    Stop {
        /// Job id
        id: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SpecArgs {
    /// The jobspec; `-` for standard input
    pub(crate) file: PathBuf,
    /// Value of a variable; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<String>,
    /// File with values of variables, NAME = VALUE as in HCL; may be repeated
    #[arg(long = "var-file", value_name = "FILE")]
    pub(crate) variable_files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    /// Release key to sign with; `release_key` of the configuration otherwise
    #[arg(long, value_name = "FILE", env = "SKERRY_RELEASE_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Refuse when all nodes together would fetch more than this many bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    /// Make a new version although nothing changed: batch jobs run once more, everything else is made anew
    #[arg(long)]
    pub(crate) again: bool,
    /// Wait until the deployment set has come to its end
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, in seconds; for ever when not given
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    pub(crate) timeout: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// All deployment sets, newest first
    List,
    /// One deployment set with a row per node and image
    Status {
        /// Id of the set, or the start of it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes
    List,
    /// One node with its facts, images and allocations
    Status {
        /// Id of the node, the start of it, or its name
        id: String,
    },
    /// May new allocations come to a node? What it has it keeps
    Eligibility {
        /// Id of the node, the start of it, or its name
        id: String,
        #[command(flatten)]
        switch: Switch,
    },
    /// Take the work off a node: services move first, system jobs stop last
    Drain {
        /// Id of the node, the start of it, or its name
        id: String,
        #[command(flatten)]
        switch: Switch,
        /// What has not moved after this long is stopped all the same: 90s, 1h, 2d; waits for ever when not given
        #[arg(long, value_name = "TIME", requires = "enable")]
        deadline: Option<String>,
        /// System and sysbatch jobs go on
        #[arg(long, requires = "enable")]
        ignore_system: bool,
    },
    /// Node meta set on the server; it wins over the node's own
    #[command(subcommand)]
    Meta(MetaCommand),
}

/// One of both.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Switch {
    /// Switch it on
    #[arg(long, group = "switch")]
    pub(crate) enable: bool,
    /// Switch it off
    #[arg(long, group = "switch")]
    pub(crate) disable: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MetaCommand {
    /// Set keys (KEY=VALUE) and take keys away (KEY-)
    Apply {
        /// Id of the node, the start of it, or its name
        id: String,
        /// KEY=VALUE to set, KEY- to take away
        #[arg(required = true, value_name = "CHANGE")]
        changes: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum VarCommand {
    /// Set all items of a variable. The server keeps them unencrypted
    Put {
        /// Path: nomad/jobs, nomad/jobs/JOB, nomad/jobs/JOB/GROUP or nomad/jobs/JOB/GROUP/TASK reach the nodes of the job
        path: String,
        /// KEY=VALUE; @FILE as a value is read from the file
        #[arg(required = true, value_name = "KEY=VALUE")]
        items: Vec<String>,
    },
    /// Show one variable with its values
    Get {
        /// Path
        path: String,
    },
    /// All variables, without their values
    List {
        /// Only those whose path starts like this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Remove a variable
    Purge {
        /// Path
        path: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AllocCommand {
    /// All allocations
    List,
    /// One allocation, and why it is as it is
    Status {
        /// Id of the allocation, or the start of it
        id: String,
    },
    /// What a task wrote last: ordered from its node, which sends it with its next poll
    Logs {
        /// Id of the allocation, or the start of it
        #[arg(required_unless_present = "order")]
        id: Option<String>,
        /// The task; may be left out where there is one
        task: Option<String>,
        /// Lines, from the end
        #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(skerry_wire::limits::LOG_LINES)))]
        lines: u32,
        /// How long to wait for the node: 90s, 12h, 30d
        #[arg(long, value_name = "TIME", default_value = "2m")]
        wait: String,
        /// Instead: show what came of this order
        #[arg(long, value_name = "ID", conflicts_with_all = ["id", "task", "lines", "wait"])]
        order: Option<String>,
    },
    /// Try again on its node what failed there
    Retry {
        /// Id of the allocation, or the start of it
        id: String,
    },
    /// Allocations that nodes keep and the server does not know, since it was put back to an older backup
    #[command(subcommand)]
    Unknown(UnknownCommand),
    /// Switch to a new version in spite of the update lock that the old one holds
    OverrideLock {
        /// Id of the new allocation, or the start of it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UnknownCommand {
    /// All of them
    List,
    /// Take up the job of one in its version, with all unknown allocations of it
    Adopt {
        /// Id of the allocation, or the start of it
        id: String,
    },
    /// Have one stopped
    Bury {
        /// Id of the allocation, or the start of it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an enrolment token; its secret is shown once
    Create {
        /// Node pool of the nodes that enrol with it
        #[arg(long, default_value = "default")]
        pool: String,
        /// How many nodes may use it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it lives: 90s, 12h, 30d; for ever when not given
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
    },
    /// All enrolment tokens
    List,
    /// End an enrolment token; nodes that used it stay
    Delete {
        /// Id of the token, or the start of it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// All bundles and the state of their builds
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a release key; its public half goes into the root document
    Generate {
        /// File to write; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show the public half of a key file
    Show {
        /// The key file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
