//! How far a long piece of work has come, and whether it is to go on.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::hashed::cancelled;

/// Is told of progress. Called from several threads.
pub trait Progress: Sync {
    /// A new stage begins, of `total` bytes in all.
    fn stage(&self, name: &'static str, total: u64);

    /// So many more bytes of the stage are done.
    fn advance(&self, bytes: u64);
}

/// Nobody is told.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &'static str, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// Who is told of progress, and who may end the work.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub progress: &'a dyn Progress,
    pub cancel: &'a AtomicBool,
}

impl Watch<'_> {
    /// An error once the work is to end.
    pub(crate) fn go_on(&self) -> io::Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(cancelled()) } else { Ok(()) }
    }

    /// Writes all of `bytes`, which may take long, unless the work is to end.
    pub(crate) fn feed(&self, bytes: &[u8], to: &mut dyn Write) -> io::Result<()> {
        for piece in bytes.chunks(64 << 10) {
            self.go_on()?;
            to.write_all(piece)?;
        }
        Ok(())
    }
}

impl Default for Watch<'static> {
    /// Nobody.
    fn default() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { progress: &Silent, cancel: &NEVER }
    }
}
