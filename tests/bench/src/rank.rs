//! The benchmark of ranking: for each image the base that the indexes choose out of some, beside the base whose bundle is really smallest.
//!
//! A hundred bundles take more than an hour. What is known of a target is kept beside the page, so that some of them can be done at a time;
//! targets may be of different days, and so of images that were built anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use skerry_delta::index::{IndexedLayer, Target};

use crate::engine::read_index;
use crate::image::Image;
use crate::measure::{Run, size};
use crate::page::{float, grouped};
use crate::pairs;
use crate::results::{Digests, Key, Results};
use crate::rows;

/// Bases that each target is compared with.
const BASES: usize = 6;
/// Of them those most like it by layers and size; the others are spread over the rest.
const LIKELY: usize = 4;
/// Targets of the bar, and how many of them may be missed.
const TARGETS: usize = 17;
const MISSES: usize = 1;
/// The chosen base's bundle may have so many bytes more than the best one's, or a twentieth.
const SLACK: u64 = 2_000;
/// Time for one bundle: it is the truth, not a promise.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// Bases ranked in a second.
const MANY: usize = 100;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct RankArgs {
    /// Folder of the workload builder.
    #[arg(long)]
    workloads: PathBuf,
    /// Folder for results, indexes and temporary files.
    #[arg(long)]
    work: PathBuf,
    /// Folder of the page, and of the rows that it is made of.
    #[arg(long)]
    page: PathBuf,
    /// Make no bundle: judge by those that are known.
    #[arg(long)]
    known: bool,
    /// Archives to rank bases for, without `.tar`; all when none is given.
    targets: Vec<String>,
}

/// An image with its indexes.
struct Candidate {
    name: String,
    path: PathBuf,
    size: u64,
    layers: Vec<IndexedLayer>,
}

/// A base of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tried {
    name: String,
    predicted: u64,
    bytes: Option<u64>,
}

/// A target with its bases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    target: String,
    day: String,
    bases: Vec<Tried>,
}

impl Row {
    /// How many of its bundles are made?
    fn made(&self) -> usize {
        self.bases.iter().filter(|base| base.bytes.is_some()).count()
    }

    /// Are all?
    fn complete(&self) -> bool {
        self.made() == self.bases.len()
    }
}

/// Makes the bundles that are missing, ranks, and writes the page.
pub fn run(args: &RankArgs) -> Result<()> {
    rows::apart(&args.work, &args.page)?;
    let program = std::env::current_exe()?.with_file_name("skerry_pair");
    let mut digests = Digests::open(&args.work.join("digests.json"));
    let mut results = Results::<u64>::open(&args.work.join("rank.jsonl"))?;
    let images = images(args, &program)?;
    ensure!(images.len() > BASES, "{} images are built: {BASES} bases and a target are needed", images.len());
    let mut fresh = Vec::new();
    for target in images.iter().filter(|image| args.targets.is_empty() || args.targets.contains(&image.name)) {
        let prepared = Target::new(target.layers.clone());
        let mut tried = Vec::new();
        for base in bases(target, &images) {
            let predicted = prepared.estimate(&base.layers);
            let key = Key {
                old: digests.of(&base.path)?,
                new: digests.of(&target.path)?,
                tool: "bundle".to_owned(),
                program: digests.of(&program)?,
            };
            if results.get(&key).is_none() && !args.known {
                let bytes = make(&program, base, target, &args.work)?;
                eprintln!("{} from {}: {bytes}, predicted {predicted}", target.name, base.name);
                results.put(key.clone(), bytes)?;
            }
            tried.push(Tried { name: base.name.clone(), predicted, bytes: results.get(&key).copied() });
        }
        fresh.push(Row { target: target.name.clone(), day: rows::today(), bases: tried });
    }
    let (seconds, slowest) = speed(&images);
    let kept = args.page.join("rank.jsonl");
    let targets = merge(rows::read(&kept)?, fresh);
    rows::write(&kept, &targets)?;
    let text = text(&targets, seconds, &slowest);
    fs::write(args.page.join("rank.md"), &text)?;
    println!("{text}");
    Ok(())
}

/// All images of the pairs, indexed.
fn images(args: &RankArgs, program: &Path) -> Result<Vec<Candidate>> {
    let paths: BTreeSet<PathBuf> =
        pairs::read(&args.workloads)?.into_iter().flat_map(|pair| pair.old.into_iter().chain([pair.new])).collect();
    let indexes = args.work.join("indexes");
    let mut images = Vec::new();
    for path in paths {
        Run::new(program, &args.work).arg("index").args([&path, &indexes]).within(LIMIT)?.context("indexing took too long")?;
        let image = Image::open(&path)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(IndexedLayer { diff_id: layer.diff_id, index: Arc::new(read_index(&indexes, layer)?) });
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        images.push(Candidate { name, path, size: image.size(), layers });
    }
    Ok(images)
}

/// The bases for a target: the likeliest by layers and size, which are hard to tell apart, and some of the others.
fn bases<'a>(target: &Candidate, images: &'a [Candidate]) -> Vec<&'a Candidate> {
    let shared = |image: &Candidate| -> u64 {
        let there = image.layers.iter().filter(|layer| target.layers.iter().any(|own| own.diff_id == layer.diff_id));
        there.map(|layer| layer.index.size()).sum()
    };
    let mut ranked: Vec<_> = images.iter().filter(|image| image.name != target.name).collect();
    ranked.sort_by_key(|image| (std::cmp::Reverse(shared(image)), image.size.abs_diff(target.size), image.name.clone()));
    let others = ranked.split_off(LIKELY.min(ranked.len()));
    let step = (others.len() / (BASES - LIKELY)).max(1);
    ranked.into_iter().chain(others.into_iter().step_by(step)).take(BASES).collect()
}

fn make(program: &Path, base: &Candidate, target: &Candidate, work: &Path) -> Result<u64> {
    let folder = tempfile::Builder::new().prefix("rank-").tempdir_in(work)?;
    let bundle = folder.path().join("bundle");
    let run = Run::new(program, folder.path()).arg("make").args([&base.path, &target.path, &bundle]);
    run.within(LIMIT)?.with_context(|| format!("{} from {} took too long", target.name, base.name))?;
    size(&bundle)
}

/// Seconds that it takes to rank a hundred bases for the target that takes longest, and its name.
fn speed(images: &[Candidate]) -> (f64, String) {
    let mut slowest = (0.0, String::new());
    for target in images {
        let begun = Instant::now();
        let prepared = Target::new(target.layers.clone());
        let _ = images.iter().cycle().take(MANY).map(|base| prepared.estimate(&base.layers)).min();
        let seconds = begun.elapsed().as_secs_f64();
        if seconds > slowest.0 {
            slowest = (seconds, target.name.clone());
        }
    }
    slowest
}

/// A row for each target: the fresh one, unless the one that was kept knows more of its bundles, or says the same.
fn merge(kept: Vec<Row>, fresh: Vec<Row>) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = kept.into_iter().map(|row| (row.target.clone(), row)).collect();
    for row in fresh {
        match rows.get(&row.target) {
            Some(kept) if kept.made() > row.made() || kept.bases == row.bases => {}
            _ => drop(rows.insert(row.target.clone(), row)),
        }
    }
    rows.into_values().collect()
}

/// The base that is chosen, and the best one, when all bundles are known.
fn judge(row: &Row) -> Option<(&Tried, &Tried)> {
    let chosen = row.bases.iter().min_by_key(|base| base.predicted)?;
    let best = row.bases.iter().min_by_key(|base| base.bytes)?;
    row.complete().then_some((chosen, best))
}

fn good(chosen: u64, best: u64) -> bool {
    chosen <= best.saturating_add(SLACK.max(best / 20))
}

fn text(targets: &[Row], seconds: f64, slowest: &str) -> String {
    let judged: Vec<_> = targets.iter().filter_map(judge).collect();
    let hits = judged.iter().filter(|(chosen, best)| good(chosen.bytes.unwrap_or(0), best.bytes.unwrap_or(0))).count();
    let mut page = format!(
        "# Ranking of bases\n\nMade by `make bench-rank`. For each image of the workloads {BASES} others as bases: what the indexes predict, beside the whole bundle \
         that was really made.\n\nThe bundle of the chosen base is within 5 % or {SLACK} bytes of the smallest one in {hits} of {} targets (bar: {} of {TARGETS}). \
         Ranking {MANY} bases took {seconds:.2} s for the slowest target, {slowest} (bar: under 1 s).\n\n| target | chosen | its bundle | best | its bundle | within | day |\n|---|---|---:|---|---:|---|---|\n",
        judged.len(),
        TARGETS - MISSES
    );
    for row in targets {
        let Row { target, day, bases } = row;
        match judge(row) {
            Some((chosen, best)) => {
                let (mine, least) = (chosen.bytes.unwrap_or(0), best.bytes.unwrap_or(0));
                let word = if good(mine, least) { "yes" } else { "**no**" };
                let _ = writeln!(
                    page,
                    "| {target} | {} | {} | {} | {} | {word} | {day} |",
                    chosen.name,
                    grouped(mine),
                    best.name,
                    grouped(least)
                );
            }
            None => {
                let missing = bases.len() - row.made();
                let _ = writeln!(page, "| {target} | | | | | {missing} of {} bundles are not made yet | |", bases.len());
            }
        }
    }
    page.push_str("\n## Every bundle\n\n| target | base | predicted | bundle | predicted to bundle |\n|---|---|---:|---:|---:|\n");
    for Row { target, bases, .. } in targets {
        let mut bases: Vec<_> = bases.iter().collect();
        bases.sort_by_key(|base| base.predicted);
        for base in bases {
            let (bytes, ratio) = match base.bytes {
                Some(bytes) => (grouped(bytes), format!("{:.2}", float(base.predicted) / float(bytes.max(1)))),
                None => ("not made yet".to_owned(), String::new()),
            };
            let _ = writeln!(page, "| {target} | {} | {} | {bytes} | {ratio} |", base.name, grouped(base.predicted));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn row(target: &str, day: &str, bases: &[(&str, u64, Option<u64>)]) -> Row {
        let bases = bases.iter().map(|&(name, predicted, bytes)| Tried { name: name.into(), predicted, bytes }).collect();
        Row { target: target.into(), day: day.into(), bases }
    }

    #[test]
    fn what_knows_more_is_kept() {
        let all = [("x", 5, Some(6)), ("y", 7, Some(8))];
        let some = [("x", 5, Some(6)), ("y", 7, None)];
        let kept = vec![row("a", "old", &all), row("b", "old", &some), row("c", "old", &all), row("e", "old", &all)];
        let other = [("x", 5, Some(9)), ("y", 7, Some(8))];
        let fresh =
            vec![row("a", "new", &some), row("b", "new", &all), row("c", "new", &all), row("d", "new", &some), row("e", "new", &other)];
        let days: Vec<_> = merge(kept, fresh).into_iter().map(|row| format!("{} {}", row.target, row.day)).collect();
        assert_eq!(days, ["a old", "b new", "c old", "d new", "e new"]);
    }

    #[test]
    fn a_choice_is_judged_by_bundles_that_are_all_made() {
        let rows = [
            row("near", "today", &[("x", 100_000, Some(104_900)), ("y", 110_000, Some(100_000))]),
            row("small", "today", &[("x", 10, Some(2_100)), ("y", 20, Some(100))]),
            row("far", "today", &[("x", 100_000, Some(105_100)), ("y", 110_000, Some(100_000))]),
            row("open", "today", &[("x", 5, Some(6)), ("y", 7, None)]),
        ];
        let text = text(&rows, 0.25, "near");
        assert!(text.contains("in 2 of 3 targets"), "{text}");
        assert!(text.contains("| near | x | 104,900 | y | 100,000 | yes | today |"), "{text}");
        assert!(text.contains("| far | x | 105,100 | y | 100,000 | **no** | today |"), "{text}");
        assert!(text.contains("| open | | | | | 1 of 2 bundles are not made yet | |"), "{text}");
    }
}
