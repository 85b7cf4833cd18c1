//! The command line of `skerry delta` and `skerry image rank`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// An image on this machine is a `docker save` archive, an OCI layout (folder or tar), or NAME[:TAG] or id in the local engine, also
/// written docker:NAME[:TAG].
#[derive(Debug, Subcommand)]
pub(crate) enum DeltaCommand {
    /// Make a bundle that turns base images into a target image
    Make(MakeArgs),
    /// Make the target image of a bundle from its bases, as an archive for `docker load`
    Apply(ApplyArgs),
    /// Show where every byte of a bundle goes
    Inspect(InspectArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct EngineArgs {
    /// Socket of the local engine, for images that are no file
    #[arg(long, value_name = "SOCKET", default_value = "unix:///var/run/docker.sock", env = "DOCKER_HOST")]
    pub(crate) docker: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MakeArgs {
    /// Image to start from; may be repeated, the likest first. None: a full bundle
    #[arg(long = "base", value_name = "IMAGE")]
    pub(crate) bases: Vec<String>,
    /// Image to make
    #[arg(long, value_name = "IMAGE")]
    pub(crate) target: String,
    /// Bundle to write
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Private key to sign with; a key of this user when none is named, which `skerry delta apply` trusts here. Nodes take bundles of
    /// the director's key only, which the server holds; a key of `skerry key generate` serves where its public half is given to
    /// `skerry delta apply --trust-key`
    #[arg(long, value_name = "FILE", env = "SKERRY_BUNDLE_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Memory for making, in MB
    #[arg(long, value_name = "MB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..1_000_000))]
    pub(crate) memory: u64,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Whose bundles are taken: those of this user's own key when none is named.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrustArgs {
    /// Root document: bundles of its director are taken
    #[arg(long, value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,
    /// Public key, 64 hex digits as `skerry key show` prints them: bundles that it signed are taken; may be repeated
    #[arg(long = "trust-key", value_name = "PUBLIC")]
    pub(crate) keys: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyArgs {
    /// Base image of the bundle; may be repeated. None for a full bundle
    #[arg(long = "base", value_name = "IMAGE")]
    pub(crate) bases: Vec<String>,
    /// The bundle
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: PathBuf,
    /// Archive to write, for `docker load`
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// NAME:TAG of the image in the archive; may be repeated. Without a name it is loaded by its id alone
    #[arg(long = "tag", value_name = "NAME:TAG")]
    pub(crate) tags: Vec<String>,
    /// Memory for windows, buffers and tables, in MB: bundles that need more are refused
    #[arg(long, value_name = "MB", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..1_000_000))]
    pub(crate) memory: u64,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArgs {
    /// The bundle
    pub(crate) bundle: PathBuf,
    /// Base image of the bundle, to see layers, codecs and members too; may be repeated. The bundle is applied for that, and nothing
    /// is kept: exports of an engine go to TMPDIR for the while. Without it the local engine is asked for the bases
    #[arg(long = "base", value_name = "IMAGE")]
    pub(crate) bases: Vec<String>,
    /// Members to show, those that cost most; JSON has all
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub(crate) members: usize,
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RankArgs {
    /// Image to make
    #[arg(long, value_name = "IMAGE")]
    pub(crate) target: String,
    /// Image to start from; may be repeated
    #[arg(long = "base", value_name = "IMAGE", required = true)]
    pub(crate) bases: Vec<String>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
