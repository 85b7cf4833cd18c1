//! `skerry-sim [--seeds N] [--first N] [--seed K] [--clocks N]`: plays many lives, or one with its story.
//!
//! In: how many lives, or which. Out: each broken promise with its seed, and how often there was each fault; or the story of the one life.
//! It fails when a promise was broken.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Manifests that every life has at least.
const MANIFESTS: u64 = 20;
/// Lives between two words of how far it is.
const TOLD: u64 = 500;

struct Args {
    seeds: u64,
    first: u64,
    seed: Option<u64>,
    /// Every so many-th life is played again with other clocks.
    clocks: u64,
}

fn args() -> Result<Args> {
    let mut args = Args { seeds: 300, first: 0, seed: None, clocks: 10 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).with_context(|| format!("{word} wants a number"));
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--first" => args.first = number()?,
            "--seed" => args.seed = Some(number()?),
            "--clocks" => args.clocks = number()?.max(1),
            other => bail!("`{other}` is not known: --seeds N, --first N, --seed K, --clocks N"),
        }
    }
    Ok(args)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn main() -> Result<ExitCode> {
    let args = args()?;
    if let Some(seed) = args.seed {
        // What agents and server say goes to stderr, without the time of day: it would not be the same twice.
        tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).init();
        let outcome = skerry_sim::play(seed, skerry_sim::Rules { tell: true, ..Default::default() })?;
        say(&outcome.story.unwrap_or_default());
        let mut broken = outcome.broken;
        if broken.is_empty() && seed.is_multiple_of(args.clocks) {
            broken = skerry_sim::other_clocks(seed, skerry_sim::Clocks::wrong_for(seed / args.clocks))?;
        }
        broken.iter().for_each(|b| say(b));
        say(&format!("seed {seed}: {} s of life, {} manifests, digest {:016x}", outcome.lasted / 1000, outcome.manifests, outcome.digest));
        return Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    // Panics of an agent's tasks are its own; they are told as broken promises.
    let began = Instant::now();
    let next = AtomicU64::new(args.first);
    let count: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let (lives, failed, fewest) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let twins = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= args.first + args.seeds {
                    return Ok(());
                }
                let mut outcome = skerry_sim::play(seed, skerry_sim::Rules::default())?;
                if outcome.broken.is_empty() && seed.is_multiple_of(args.clocks) {
                    outcome.broken = skerry_sim::other_clocks(seed, skerry_sim::Clocks::wrong_for(seed / args.clocks))?;
                    twins.fetch_add(1, Ordering::Relaxed);
                }
                let played = lives.fetch_add(1, Ordering::Relaxed) + 1;
                if played.is_multiple_of(TOLD) {
                    let _ = writeln!(std::io::stderr(), "{played} of {} lives, {:.0} s", args.seeds, began.elapsed().as_secs_f64());
                }
                if let Some(first) = outcome.broken.first() {
                    failed.fetch_add(1, Ordering::Relaxed);
                    say(&format!("seed {seed}: {first}"));
                } else {
                    fewest.fetch_min(outcome.manifests, Ordering::Relaxed);
                }
                let mut count = count.lock().expect("nobody panics with it");
                outcome.faults.into_iter().for_each(|fault| *count.entry(fault).or_default() += 1);
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    let (lives, failed, fewest) = (lives.into_inner(), failed.into_inner(), fewest.into_inner());
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "{lives} lives in {seconds:.1} s on {threads} threads, {} of them again with right and with wrong clocks; {failed} broke a promise; manifests in one life: {fewest} or more",
        twins.into_inner()
    ));
    let few = failed < lives && fewest < MANIFESTS;
    let count = count.into_inner().expect("nobody panicked with it");
    let mut rare = false;
    for fault in skerry_sim::faults() {
        let seen = count.get(&fault).copied().unwrap_or(0);
        rare |= lives >= 100 && seen * 100 < lives;
        say(&format!("  {fault:<16} in {:>5.1} % of the lives", 100.0 * seen as f64 / lives.max(1) as f64));
    }
    if failed > 0 {
        say("replay one with: make sim SEED=K");
    }
    Ok(if failed == 0 && !rare && !few { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
