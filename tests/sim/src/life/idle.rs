//! Hours in which nothing happens: what an idle node writes to its disk all the same.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use skerry_testkit::powercut::Watched;

use super::{Life, Rules};
use crate::book::Book;
use crate::clocks::Clocks;

/// Jobs that go on for ever, of which every node has some.
const JOBS: [u8; 5] = [0, 1, 2, 3, 6];
/// Between two of them, in milliseconds.
const APART: u64 = 60_000;
/// What a deployment still has to say is said after so many minutes of rest.
const SETTLED: u64 = 60;

/// One node's hours.
#[derive(Debug)]
pub struct Idle {
    /// Its name.
    pub node: String,
    /// Allocations that ran all the time.
    pub allocs: usize,
    /// Bytes that were given to its disk, in whole pages.
    pub written: u64,
}

/// Lets a fleet run what goes on for ever, and gives what every node writes in so many minutes after that.
///
/// # Errors
/// When the machine that plays it fails, or a promise is broken.
pub fn idle(minutes: u64) -> Result<Vec<Idle>> {
    let shared = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(if shared.is_dir() { shared } else { Path::new("/tmp") })?;
    let book = Arc::new(Book::default());
    let rules = Rules { clocks: Clocks::Right, untimed: true, ..Rules::default() };
    let mut life = Life::new(0, rules, folder.path(), &book)?;
    life.pass(APART)?;
    for number in JOBS {
        life.submit(number, number, 0)?;
        life.pass(APART)?;
    }
    life.rest()?;
    life.minutes(SETTLED)?;
    let before = life.written();
    life.minutes(minutes)?;
    let broken = book.pages().broken.clone();
    ensure!(broken.is_empty(), "{broken:?}");
    let nodes = life.nodes.iter().zip(life.written()).zip(before);
    Ok(nodes
        .map(|((node, after), before)| {
            let manifest = node.host.view().as_ref().and_then(|v| v.manifest());
            Idle { node: node.host.name.clone(), allocs: manifest.map_or(0, |m| m.allocs.len()), written: after - before }
        })
        .collect())
}

impl Life {
    fn minutes(&mut self, minutes: u64) -> Result<()> {
        (0..minutes).try_for_each(|_| self.pass(60_000))
    }

    /// Bytes that were given to each node's disk so far.
    fn written(&self) -> Vec<u64> {
        self.nodes.iter().map(|n| n.host.watched().as_ref().map_or(0, Watched::written)).collect()
    }
}
