//! The benchmarks' command: `delta` runs every tool on every pair, `rank` judges the choice of bases.
//!
//! In: folders of workloads, work and pages. Out: pages; what was measured stays in the work folder, so that a run goes on after a cut.

use anyhow::Result;
use clap::Parser;
use skerry_bench::{delta, rank};

/// Bundles beside other tools, and the ranking of bases beside real bundles.
#[derive(Debug, Parser)]
enum Command {
    /// All tools on pairs of images
    Delta(delta::DeltaArgs),
    /// The base that is chosen beside the best one
    Rank(rank::RankArgs),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Delta(args) => delta::run(&args),
        Command::Rank(args) => rank::run(&args),
    }
}
