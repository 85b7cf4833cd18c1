//! The benchmark of bundles: every tool on every pair, in bounded time, and the page of what came out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::image::Image;
use crate::pairs::{self, Pair};
use crate::peers::{Case, Tool};
use crate::results::{Digests, Key, Outcome, Results};
use crate::{page, plot};

/// Time that making and decoding may take, each.
pub const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What to do.
#[derive(Debug, clap::Args)]
pub struct DeltaArgs {
    /// Folder of the workload builder.
    #[arg(long)]
    workloads: PathBuf,
    /// Folder for results and temporary files.
    #[arg(long)]
    work: PathBuf,
    /// Folder of the page and its plot.
    #[arg(long)]
    page: PathBuf,
    /// Tools to run, by words of their names; all when none is given. What others gave before is in the page too.
    #[arg(long)]
    tool: Vec<String>,
    /// Pairs to run; all when none is given.
    pairs: Vec<String>,
}

/// A pair with what is known of it.
#[derive(Debug)]
pub struct Row {
    /// The pair.
    pub pair: Pair,
    /// Bytes of the new image's layers.
    pub image: u64,
    /// Bytes of those that the old one lacks.
    pub made: u64,
    /// What each tool gave.
    pub tools: BTreeMap<Tool, Outcome>,
}

impl Row {
    fn new(pair: Pair) -> Result<Self> {
        let old = pair.old.as_deref().map(Image::open).transpose()?;
        let there = |id| old.iter().flat_map(|image| &image.layers).any(|layer| layer.diff_id == id);
        let new = Image::open(&pair.new)?;
        let made = new.layers.iter().filter(|layer| !there(layer.diff_id)).map(|layer| layer.place.size).sum();
        Ok(Self { image: new.size(), made, pair, tools: BTreeMap::new() })
    }

    /// Bytes, when the tool ended.
    pub fn bytes(&self, tool: Tool) -> Option<u64> {
        match self.tools.get(&tool)? {
            Outcome::Done { bytes, .. } => Some(*bytes),
            _ => None,
        }
    }

    /// The peer with the fewest bytes.
    pub fn best_peer(&self) -> Option<(Tool, u64)> {
        let peers = Tool::ALL.into_iter().filter(|tool| !tool.is_ours());
        peers.filter_map(|tool| Some((tool, self.bytes(tool)?))).min_by_key(|(_, bytes)| *bytes)
    }

    /// Have all tools of this pair been run?
    pub fn complete(&self) -> bool {
        Tool::ALL.into_iter().filter(|tool| tool.tries(&self.pair.name, self.pair.old.is_none())).all(|tool| self.tools.contains_key(&tool))
    }
}

/// Runs what is missing and writes the page.
pub fn run(args: &DeltaArgs) -> Result<()> {
    fs::create_dir_all(&args.work)?;
    let mut results = Results::<Outcome>::open(&args.work.join("delta.jsonl"))?;
    let mut digests = Digests::open(&args.work.join("digests.json"));
    let all = pairs::read(&args.workloads)?;
    let wanted = pairs::select(all.clone(), &args.pairs)?;
    let mut failed = Vec::new();
    for pair in &wanted {
        for tool in Tool::ALL {
            let named = args.tool.is_empty() || args.tool.iter().any(|word| tool.name().contains(word.as_str()));
            if !named || !tool.tries(&pair.name, pair.old.is_none()) {
                continue;
            }
            let key = key(pair, tool, &mut digests)?;
            if results.get(&key).is_some() {
                continue;
            }
            eprintln!("{} {} ...", pair.name, tool.name());
            match one(pair, tool, &args.work) {
                Ok(outcome) => {
                    eprintln!("{} {}: {outcome:?}", pair.name, tool.name());
                    results.put(key, outcome)?;
                }
                // The others go on; it is tried again by the next run.
                Err(error) => {
                    eprintln!("{} {}: {error:#}", pair.name, tool.name());
                    failed.push(format!("{} {}", pair.name, tool.name()));
                }
            }
        }
        // A run takes hours: what is known so far can be read.
        write(&all, &results, &mut digests, &args.page)?;
    }
    println!("{}", write(&all, &results, &mut digests, &args.page)?);
    ensure!(failed.is_empty(), "these failed: {}", failed.join(", "));
    Ok(())
}

/// Writes the page and the plot of all that is known; gives the page.
fn write(pairs: &[Pair], results: &Results<Outcome>, digests: &mut Digests, folder: &Path) -> Result<String> {
    let mut rows = Vec::new();
    for pair in pairs {
        let mut row = Row::new(pair.clone())?;
        for tool in Tool::ALL {
            if let Some(outcome) = results.get(&key(&row.pair, tool, digests)?) {
                row.tools.insert(tool, outcome.clone());
            }
        }
        if !row.tools.is_empty() {
            rows.push(row);
        }
    }
    fs::create_dir_all(folder)?;
    let text = page::text(&rows);
    fs::write(folder.join("delta.md"), &text)?;
    fs::write(folder.join("delta.svg"), plot::svg(&rows))?;
    Ok(text)
}

fn key(pair: &Pair, tool: Tool, digests: &mut Digests) -> Result<Key> {
    let old = pair.old.as_deref().map(|old| digests.of(old)).transpose()?.unwrap_or_default();
    Ok(Key { old, new: digests.of(&pair.new)?, tool: tool.name().to_owned(), program: digests.of(&tool.program()?)? })
}

fn one(pair: &Pair, tool: Tool, work: &Path) -> Result<Outcome> {
    let folder = tempfile::Builder::new().prefix("delta-").tempdir_in(work)?;
    let indexes = work.join("indexes");
    tool.run(&Case { old: pair.old.as_deref(), new: &pair.new, folder: folder.path(), indexes: &indexes, limit: LIMIT })
}
