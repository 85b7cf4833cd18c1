//! Running tests, and what they say of a mutant.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It does not build.
    Unviable,
    /// A test failed.
    Caught,
    /// The tests did not end in time.
    Timeout,
    /// All tests passed.
    Missed,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unviable, Self::Caught, Self::Timeout, Self::Missed];

    /// Its word in the file of results.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unviable => "unviable",
            Self::Caught => "caught",
            Self::Timeout => "timeout",
            Self::Missed => "missed",
        }
    }
}

/// Tests of a program that run beside each other: the quick ones are not to wait for the long ones, for one that fails ends them all.
const THREADS: &str = "--test-threads=8";

/// How the tests are run.
#[derive(Debug, Clone)]
pub struct Tests {
    /// Folder that they are run in: that of the package.
    pub folder: PathBuf,
    /// Only tests whose names contain one of these; all when empty.
    pub filters: Vec<String>,
    /// The longest that one program may take.
    pub limit: Duration,
}

impl Tests {
    /// Runs the programs one after the other until one fails, with `mutant` active and so many cases of each property.
    pub fn run(&self, programs: &[PathBuf], mutant: Option<usize>, cases: Option<u32>) -> Result<Verdict> {
        for program in programs {
            match self.one(program, mutant, cases)? {
                Verdict::Missed => {}
                other => return Ok(other),
            }
        }
        Ok(Verdict::Missed)
    }

    fn one(&self, program: &Path, mutant: Option<usize>, cases: Option<u32>) -> Result<Verdict> {
        let mut command = Command::new(program);
        command.args(&self.filters).arg(THREADS).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // What fails is not kept: the next mutant's first case would be one that another mutant failed at.
        command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1").env("RUST_BACKTRACE", "0");
        command.env("CARGO_MANIFEST_DIR", &self.folder);
        match mutant {
            Some(n) => command.env("SKERRY_MUTANT", n.to_string()),
            None => command.env_remove("SKERRY_MUTANT"),
        };
        if let Some(cases) = cases {
            command.env("PROPTEST_CASES", cases.to_string());
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let failed = Arc::new(AtomicBool::new(false));
        let (tells, out) = (Arc::clone(&failed), child.stdout.take().context("its output")?);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.starts_with("test ") && line.ends_with(" FAILED") {
                    tells.store(true, Ordering::Relaxed);
                }
            }
        });
        self.wait(&mut child, &failed)
    }

    /// Waits until the program ends, one of its tests fails, or its time is over.
    fn wait(&self, child: &mut Child, failed: &AtomicBool) -> Result<Verdict> {
        let end = Instant::now() + self.limit;
        let mut wait = Duration::from_millis(2);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(if status.success() { Verdict::Missed } else { Verdict::Caught });
            }
            let failed = failed.load(Ordering::Relaxed);
            if failed || Instant::now() >= end {
                // Its group too: what it started is not to live on.
                let group = i32::try_from(child.id()).context("its number")?;
                let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
                let _ = child.kill();
                child.wait()?;
                return Ok(if failed { Verdict::Caught } else { Verdict::Timeout });
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_millis(50));
        }
    }
}
