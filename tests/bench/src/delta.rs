//! The benchmark of bundles: every tool on every pair, in bounded time, and the page of what came out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::image::Image;
use crate::pairs::{self, Pair};
use crate::peers::{Case, Tool};
use crate::results::{Digests, Key, Outcome, Results};
use crate::rows::Row;
use crate::{page, plot, rows};

/// Time that making and decoding may take, each.
pub const LIMIT: Duration = Duration::from_secs(15 * 60);

/// The rows beside the page.
const ROWS: &str = "delta.jsonl";

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

/// Runs what is missing and writes the page.
pub fn run(args: &DeltaArgs) -> Result<()> {
    let known = |word: &&String| Tool::ALL.iter().any(|tool| tool.name().contains(word.as_str()));
    if let Some(word) = args.tool.iter().find(|word| !known(word)) {
        bail!("no tool has `{word}` in its name; there are: {}", Tool::ALL.map(Tool::name).join("; "));
    }
    rows::apart(&args.work, &args.page)?;
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
    let rows = rows::read::<Row>(&args.page.join(ROWS))?;
    let wanted = |row: &&Row| wanted.iter().any(|pair| pair.name == row.name);
    let missed = rows.iter().filter(wanted).flat_map(|row| page::missed(row).into_iter().map(|what| format!("{}: {what}", row.name)));
    let missed: Vec<_> = missed.collect();
    ensure!(missed.is_empty(), "these bars are missed: {}", missed.join(", "));
    Ok(())
}

/// Writes the rows, the page and the plot of all that is known, here and of before; gives the page.
fn write(pairs: &[Pair], results: &Results<Outcome>, digests: &mut Digests, folder: &Path) -> Result<String> {
    let mut fresh = Vec::new();
    for pair in pairs {
        let mut tools = BTreeMap::new();
        for tool in Tool::ALL {
            if let Some(outcome) = results.get(&key(pair, tool, digests)?) {
                tools.insert(tool, outcome.clone());
            }
        }
        if !tools.is_empty() {
            fresh.push(row(pair, tools)?);
        }
    }
    fs::create_dir_all(folder)?;
    let kept = folder.join(ROWS);
    let rows = rows::merge(rows::read(&kept)?, fresh);
    rows::write(&kept, &rows)?;
    let text = page::text(&rows);
    fs::write(folder.join("delta.md"), &text)?;
    fs::write(folder.join("delta.svg"), plot::svg(&rows))?;
    Ok(text)
}

fn row(pair: &Pair, tools: BTreeMap<Tool, Outcome>) -> Result<Row> {
    let old = pair.old.as_deref().map(Image::open).transpose()?;
    let there = |id| old.iter().flat_map(|image| &image.layers).any(|layer| layer.diff_id == id);
    let new = Image::open(&pair.new)?;
    let made = new.layers.iter().filter(|layer| !there(layer.diff_id)).map(|layer| layer.place.size).sum();
    let day = rows::today();
    Ok(Row { name: pair.name.clone(), what: pair.what.clone(), image: new.size(), made, day, tools })
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
