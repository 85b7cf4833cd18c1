//! Runs the tests on every mutant that cargo-mutants would make, without a build for each.
//!
//! In: a copy of the tree, the list of `cargo mutants --list --json`, a package, which of its tests. Out: one line per mutant in a file of
//! results, and a table. All mutants that the compiler takes are woven into one program ([`weave`]) of which each run has one active; the
//! others are built one by one, as cargo-mutants does. What the results hold already is not done again, so a run that was stopped goes on.

mod build;
mod list;
mod run;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use list::Mutant;
use run::{Tests, Verdict};

/// What the woven program asks.
const QUESTION: &str = r#"
/// Is this mutant active?
#[doc(hidden)]
pub fn mutant(n: usize) -> bool {
    static ACTIVE: std::sync::LazyLock<usize> =
        std::sync::LazyLock::new(|| std::env::var("SKERRY_MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX));
    *ACTIVE == n
}
"#;
/// Builds until nothing is left that the compiler does not like; each takes some mutants out.
const BUILDS: usize = 40;
/// Cases of each property in the first pass; what it misses is tried with as many as the tests ask for.
const FEW: u32 = 24;

struct Options {
    tree: PathBuf,
    list: PathBuf,
    results: PathBuf,
    package: String,
    folder: String,
    filters: Vec<String>,
    limit: Duration,
    shard: (usize, usize),
}

fn options() -> Result<Options> {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    let (mut filters, mut words) = (vec![], std::env::args().skip(1));
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(name) => drop(named.insert(name.to_owned(), words.next().with_context(|| format!("{word} needs a value"))?)),
            None => filters.push(word),
        }
    }
    let take = |name: &str| named.get(name).cloned().with_context(|| format!("--{name} is missing"));
    let shard = named.get("shard").map_or("0/1", String::as_str).split_once('/').context("--shard is K/N")?;
    let shard: (usize, usize) = (shard.0.parse()?, shard.1.parse()?);
    ensure!(shard.0 < shard.1, "--shard is K/N with K from 0 to N - 1");
    Ok(Options {
        tree: fs::canonicalize(take("tree")?)?,
        list: take("list")?.into(),
        results: take("results")?.into(),
        package: take("package")?,
        folder: take("folder")?,
        filters,
        limit: Duration::from_secs(named.get("limit").map_or(Ok(120), |n| n.parse())?),
        shard,
    })
}

fn main() -> Result<()> {
    let options = options()?;
    let mutants = list::read(&fs::read_to_string(&options.list)?)?;
    let mut known = known(&options.results)?;
    let mine: Vec<usize> = (0..mutants.len()).filter(|n| n % options.shard.1 == options.shard.0).collect();
    let open: Vec<usize> = mine.iter().copied().filter(|n| !known.contains_key(&mutants[*n].name)).collect();
    if !open.is_empty() {
        let work = Run::new(&options, &mutants)?;
        let (woven, apart) = work.weave(&open)?;
        println!("{}: {} mutants open, {} of them woven, {} apart", options.package, open.len(), woven.len(), apart.len());
        work.run_woven(&woven, &mut known)?;
        work.run_apart(&apart, &mut known)?;
    }
    let verdicts: Vec<Verdict> = mine.iter().filter_map(|n| known.get(&mutants[*n].name).copied()).collect();
    let count = |v: Verdict| verdicts.iter().filter(|found| **found == v).count();
    let [unviable, caught, timeout, missed] = Verdict::ALL.map(count);
    let built = caught + timeout + missed;
    let percent = if built == 0 { 0.0 } else { 100.0 * (caught + timeout) as f64 / built as f64 };
    println!("| what | mutants | unviable | caught | timeout | missed | caught of those that build |");
    println!("| {} | {} | {unviable} | {caught} | {timeout} | {missed} | {percent:.1} % |", options.folder, verdicts.len());
    for n in mine.iter().filter(|n| known.get(&mutants[**n].name) == Some(&Verdict::Missed)) {
        println!("missed: {}", mutants[*n].name);
    }
    Ok(())
}

/// What is in the file of results: verdicts by name.
fn known(path: &Path) -> Result<BTreeMap<String, Verdict>> {
    let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
    let rows = text.lines().filter_map(|l| l.split_once('\t'));
    Ok(rows.filter_map(|(word, name)| Some((name.to_owned(), Verdict::ALL.into_iter().find(|v| v.word() == word)?))).collect())
}

struct Run<'a> {
    options: &'a Options,
    mutants: &'a [Mutant],
    /// The files as they are without a mutant.
    plain: BTreeMap<String, String>,
    tests: Tests,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options, mutants: &'a [Mutant]) -> Result<Self> {
        let mut plain = BTreeMap::new();
        for file in mutants.iter().map(|m| &m.file).collect::<BTreeSet<_>>() {
            plain.insert(file.clone(), fs::read_to_string(options.tree.join(file)).with_context(|| file.clone())?);
        }
        let tests = Tests { folder: options.tree.join(&options.folder), filters: options.filters.clone(), limit: options.limit };
        Ok(Self { options, mutants, plain, tests })
    }

    fn root(&self) -> String {
        format!("{}/src/lib.rs", self.options.folder)
    }

    /// Writes every file as it is without a mutant, but for those given.
    fn write(&self, changed: &BTreeMap<String, String>) -> Result<()> {
        for (file, text) in self.plain.iter().chain(changed) {
            let (path, text) = (self.options.tree.join(file), changed.get(file).unwrap_or(text));
            if fs::read_to_string(&path)? != *text {
                fs::write(&path, text)?;
            }
        }
        Ok(())
    }

    /// Weaves what the compiler takes. Answers the mutants that are in, and those that are not.
    fn weave(&self, open: &[usize]) -> Result<(Vec<usize>, Vec<usize>)> {
        let mut apart = BTreeSet::new();
        for _ in 0..BUILDS {
            let mut files: BTreeMap<String, String> = BTreeMap::new();
            for (file, text) in &self.plain {
                let own = open.iter().filter(|n| !apart.contains(*n)).map(|n| (*n, &self.mutants[*n]));
                let own: Vec<_> = own.filter(|(_, m)| m.file == *file).collect();
                let (woven, left) = weave::weave(text, &own).with_context(|| file.clone())?;
                apart.extend(left);
                files.insert(file.clone(), woven);
            }
            let root = self.root();
            let plain = match files.get(&root).or_else(|| self.plain.get(&root)) {
                Some(text) => text.clone(),
                None => fs::read_to_string(self.options.tree.join(&root))?.replace(QUESTION, ""),
            };
            files.insert(root, format!("{plain}{QUESTION}"));
            self.write(&files)?;
            let built = build::cargo(&self.options.tree, &["check", "-p", &self.options.package, "--lib"])?;
            if built.done {
                let woven = open.iter().copied().filter(|n| !apart.contains(n)).collect();
                return Ok((woven, apart.into_iter().collect()));
            }
            let at = |file: &str, byte: usize| files.get(file).map(|text| weave::mutants_at(text, byte)).unwrap_or_default();
            let blamed = build::blamed(&built, at);
            ensure!(!blamed.is_empty(), "the woven program does not build, and no mutant is to blame:\n{}", built.text);
            apart.extend(blamed);
        }
        bail!("the woven program does not build after {BUILDS} tries")
    }

    fn programs(&self) -> Result<Option<Vec<PathBuf>>> {
        let built = build::cargo(&self.options.tree, &["test", "--no-run", "-p", &self.options.package, "--tests"])?;
        Ok(built.done.then_some(built.tests))
    }

    fn run_woven(&self, woven: &[usize], known: &mut BTreeMap<String, Verdict>) -> Result<()> {
        if woven.is_empty() {
            return Ok(());
        }
        let programs = self.programs()?.context("the tests of the woven program do not build")?;
        let mut timed = vec![];
        for program in programs {
            let began = Instant::now();
            let verdict = self.tests.run(std::slice::from_ref(&program), None, None)?;
            ensure!(verdict == Verdict::Missed, "without a mutant {} is {}", program.display(), verdict.word());
            timed.push((began.elapsed(), program));
        }
        // Most are caught by the quick ones.
        timed.sort();
        for (time, program) in &timed {
            println!("{}: {} ms without a mutant", program.display(), time.as_millis());
        }
        let programs: Vec<PathBuf> = timed.into_iter().map(|(_, program)| program).collect();
        let mut left = vec![];
        for n in woven {
            match self.tests.run(&programs, Some(*n), Some(FEW))? {
                Verdict::Missed => {
                    left.push(*n);
                    self.write_down("left", &self.mutants[*n].name)?;
                }
                verdict => self.keep(*n, verdict, known)?,
            }
        }
        println!("{} of {} are left for all cases", left.len(), woven.len());
        for n in left {
            let verdict = self.tests.run(&programs, Some(n), None)?;
            self.keep(n, verdict, known)?;
        }
        Ok(())
    }

    fn run_apart(&self, apart: &[usize], known: &mut BTreeMap<String, Verdict>) -> Result<()> {
        for n in apart {
            let mutant = &self.mutants[*n];
            let text = mutant.alone(&self.plain[&mutant.file]).with_context(|| format!("{} is nowhere", mutant.name))?;
            self.write(&[(mutant.file.clone(), text)].into())?;
            let verdict = if !build::cargo(&self.options.tree, &["check", "-p", &self.options.package, "--lib"])?.done {
                Verdict::Unviable
            } else {
                match self.programs()? {
                    None => Verdict::Unviable,
                    Some(programs) => self.tests.run(&programs, None, None)?,
                }
            };
            self.keep(*n, verdict, known)?;
        }
        self.write(&BTreeMap::new())
    }

    fn keep(&self, n: usize, verdict: Verdict, known: &mut BTreeMap<String, Verdict>) -> Result<()> {
        let name = &self.mutants[n].name;
        self.write_down(verdict.word(), name)?;
        known.insert(name.clone(), verdict);
        Ok(())
    }

    /// A line in the file of results. `left` is no verdict: it is tried again, also by another run.
    fn write_down(&self, word: &str, name: &str) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.options.results)?;
        Ok(writeln!(file, "{word}\t{name}")?)
    }
}
