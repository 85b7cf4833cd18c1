//! `skerry-sim [--seeds N] [--first N] [--seed K]`: plays many lives, or one with its story.
//!
//! In: how many lives, or which. Out: each broken promise with its seed, and how often there was each fault; or the story of the one life.
//! It fails when a promise was broken. Many lives are played by as many processes of this program as there are cores: they share nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use skerry_sim::{Clocks, Rules};

struct Args {
    seeds: u64,
    first: u64,
    seed: Option<u64>,
    /// A part of the lives for another process of this program: every so many-th.
    every: Option<u64>,
    processes: Option<u64>,
    /// Every so many-th life is played again with other clocks.
    clocks: u64,
}

fn args() -> Result<Args> {
    let mut args = Args { seeds: 300, first: 0, seed: None, every: None, processes: None, clocks: 10 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).with_context(|| format!("{word} wants a number"));
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--first" => args.first = number()?,
            "--seed" => args.seed = Some(number()?),
            "--every" => args.every = Some(number()?.max(1)),
            "--processes" => args.processes = Some(number()?.max(1)),
            "--clocks" => args.clocks = number()?.max(1),
            other => bail!("`{other}` is not known: --seeds N, --first N, --seed K, --processes N, --clocks N"),
        }
    }
    Ok(args)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn main() -> Result<ExitCode> {
    let args = args()?;
    match (args.seed, args.every) {
        (Some(seed), _) => one(seed),
        (None, Some(every)) => share(&args, every),
        (None, None) => all(&args),
    }
}

/// One life with its story.
fn one(seed: u64) -> Result<ExitCode> {
    // What agents and server say goes to stderr, without the time of day: it would not be the same twice.
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).init();
    let outcome = skerry_sim::play(seed, Rules { tell: true, ..Rules::default() })?;
    say(&outcome.story.unwrap_or_default());
    let mut broken = outcome.broken;
    if broken.is_empty() {
        broken = skerry_sim::other_clocks(seed)?;
    }
    broken.iter().for_each(|b| say(b));
    say(&format!("seed {seed}: {} s of life, {} manifests, digest {:016x}", outcome.lasted / 1000, outcome.manifests, outcome.digest));
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A part of the lives, told line by line to the process that asked.
fn share(args: &Args, every: u64) -> Result<ExitCode> {
    for seed in (args.first..args.first.saturating_add(args.seeds)).step_by(usize::try_from(every)?) {
        say(&format!("begins {seed}"));
        let outcome = skerry_sim::play(seed, Rules::default())?;
        let mut broken = outcome.broken;
        if broken.is_empty() && seed.is_multiple_of(args.clocks) {
            broken = skerry_sim::other_clocks(seed)?;
            say("clocks");
        }
        for how in broken {
            say(&format!("broken {how}"));
        }
        for fault in outcome.faults {
            say(&format!("fault {fault}"));
        }
        say(&format!("lived {} {:016x}", outcome.manifests, outcome.digest));
    }
    Ok(ExitCode::SUCCESS)
}

/// What came of lives.
#[derive(Default)]
struct Tally {
    lives: u64,
    clocks: u64,
    failed: u64,
    fewest: Option<u64>,
    faults: BTreeMap<String, u64>,
}

impl Tally {
    /// Reads what a process tells. Gives the seed of the life that it was in when it ended.
    fn read(&mut self, lines: impl BufRead) -> Result<Option<u64>> {
        let (mut seed, mut broken) = (None, false);
        for line in lines.lines() {
            let line = line?;
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "begins" => (seed, broken) = (rest.parse().ok(), false),
                "clocks" => self.clocks += 1,
                "broken" => {
                    if !broken {
                        self.failed += 1;
                        say(&format!("seed {}: {rest}", seed.unwrap_or(0)));
                    }
                    broken = true;
                }
                "fault" => *self.faults.entry(rest.to_owned()).or_default() += 1,
                "lived" => {
                    let manifests = rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                    self.lives += 1;
                    if !broken {
                        self.fewest = Some(self.fewest.map_or(manifests, |f| f.min(manifests)));
                    }
                    seed = None;
                }
                _ => bail!("a process says what is not known: {line}"),
            }
        }
        Ok(seed)
    }

    fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.clocks += other.clocks;
        self.failed += other.failed;
        self.fewest = [self.fewest, other.fewest].into_iter().flatten().min();
        other.faults.into_iter().for_each(|(fault, count)| *self.faults.entry(fault).or_default() += count);
    }
}

/// Many lives.
fn all(args: &Args) -> Result<ExitCode> {
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processes = args.processes.unwrap_or(u64::try_from(cores)?).min(args.seeds.max(1));
    let program = std::env::current_exe().context("this program's own file")?;
    let part = |number: u64| -> Result<Tally> {
        let numbers = [("--first", args.first + number), ("--seeds", args.seeds.saturating_sub(number)), ("--every", processes)];
        let mut command = Command::new(&program);
        for (word, number) in numbers {
            command.arg(word).arg(number.to_string());
        }
        command.arg("--clocks").arg(args.clocks.to_string());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("another process of this program")?;
        let mut tally = Tally::default();
        let seed = tally.read(BufReader::new(child.stdout.take().context("its output")?));
        let ended = child.wait()?;
        if let Some(seed) = seed? {
            say(&format!("seed {seed}: the process that played it ended with it: {ended}"));
            tally.failed += 1;
        } else {
            ensure!(ended.success(), "a process ended with {ended}");
        }
        Ok(tally)
    };
    let tally = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..processes).map(|number| scope.spawn(move || part(number))).collect();
        parts.into_iter().try_fold(Tally::default(), |mut tally, part| {
            tally.add(part.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
            anyhow::Ok(tally)
        })
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let Tally { lives, clocks, failed, fewest, faults } = tally;
    say(&format!(
        "{lives} lives, {clocks} of them with {} clocks, in {seconds:.1} s by {processes} processes; {failed} broke a promise; manifests in one life: {} or more",
        Clocks::ALL.len(),
        fewest.unwrap_or(0)
    ));
    let mut rare = false;
    for fault in skerry_sim::faults() {
        let seen = faults.get(&fault).copied().unwrap_or(0);
        rare |= lives >= 100 && seen * 100 < lives;
        say(&format!("  {fault:<16} in {:>5.1} % of the lives", 100.0 * seen as f64 / lives.max(1) as f64));
    }
    if failed > 0 {
        say("replay one with: make sim SEED=K");
    }
    Ok(if failed == 0 && !rare { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
