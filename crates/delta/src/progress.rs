//! How far a long piece of work has come.

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
