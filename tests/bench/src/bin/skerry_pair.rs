//! Makes and applies bundles between `docker save` archives, and indexes their layers: what the benchmarks measure.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use skerry_bench::engine;

/// Bundles between two archives.
#[derive(Debug, Parser)]
enum Command {
    /// Make a bundle; its public key is written beside it
    Make {
        /// Archive of the base, or `-`
        old: PathBuf,
        /// Archive of the target
        new: PathBuf,
        /// The bundle
        bundle: PathBuf,
        /// Folder of indexes of the base's layers
        #[arg(long)]
        indexes: Option<PathBuf>,
    },
    /// Apply a bundle; every digest is checked
    Apply {
        /// Archive of the base, or `-`
        old: PathBuf,
        /// The bundle
        bundle: PathBuf,
        /// Compare every byte with this archive's
        #[arg(long)]
        compare: Option<PathBuf>,
    },
    /// Index the layers of an image
    Index {
        /// Archive
        archive: PathBuf,
        /// Folder for the indexes
        folder: PathBuf,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Make { old, new, bundle, indexes } => engine::make(&old, &new, &bundle, indexes.as_deref()),
        Command::Apply { old, bundle, compare } => engine::apply(&old, &bundle, compare.as_deref()),
        Command::Index { archive, folder } => engine::index(&archive, &folder),
    }
}
