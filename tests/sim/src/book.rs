//! What is true in a life, whatever nodes and server believe: which jobs were ordered and stopped, what went wrong, what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use skerry_wire::Digest;
use skerry_wire::job::Job;

/// The book of one life.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Pages>);

/// What is in it.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Every specification that was ever submitted.
    pub(crate) specifications: BTreeMap<Digest, Job>,
    /// Specifications of jobs that an operator stopped after they were submitted.
    pub(crate) stopped: BTreeSet<Digest>,
    /// Was a node ever drained? Then allocations move.
    pub(crate) drained: bool,
    /// What must not be: the promise, and how it was broken.
    pub(crate) broken: Vec<String>,
    /// What happened, when somebody wants to read it.
    pub(crate) story: Option<String>,
    /// After each step, what became of each node: see [`crate::Outcome`].
    pub(crate) course: Vec<String>,
    /// Digest of all that happened: two lives of one seed have the same.
    pub(crate) digest: u64,
}

impl Book {
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happened.
    pub(crate) fn tell(&self, at: u64, text: &str) {
        let mut pages = self.pages();
        // FNV-1a.
        for byte in at.to_le_bytes().iter().chain(text.as_bytes()) {
            pages.digest = (pages.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(story) = &mut pages.story {
            let _ = writeln!(story, "{:>9}.{:03} {text}", at / 1000, at % 1000);
        }
    }

    /// A promise was broken.
    pub(crate) fn broken(&self, at: u64, promise: &str, how: &str) {
        let text = format!("{promise} broken at {}.{:03}: {how}", at / 1000, at % 1000);
        self.tell(at, &text);
        self.pages().broken.push(text);
    }
}
