//! The node's mark, which is in four places: two slot files, the ledger, and the manifest with its copy.
//!
//! Any of them may go; what is left fills the others again. A node that has an id has a mark, were it the first of all, so that one with an
//! id and without a mark is known to have lost it: nothing of the root that was in force then is taken any more.

use std::sync::Arc;

use skerry_wire::manifest::Mark;

use super::store::{State, fact};
use super::{Desired, LedgerError};

/// What became of the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// The node never had one.
    None,
    /// One is in at least one of its places.
    Kept,
    /// The node had one, and it is in none of its places.
    Lost,
}

impl State {
    /// Writes the mark to those of its places that do not hold it. The slots last, as when a manifest is accepted: where they are ahead of the
    /// ledger, that has lost something.
    pub(super) fn keep_mark(&mut self, mark: Mark, (slot, row): (Option<Mark>, Option<Mark>)) -> Result<(), LedgerError> {
        if row != Some(mark) {
            self.put_message(fact::MARK, &mark)?;
        }
        if slot != Some(mark) {
            self.mark_slots.write(&mark)?;
        }
        self.marks = Marks::Kept;
        Ok(())
    }

    /// The node had a mark, and all copies of it are lost: the mark of [`Mark::lost`] takes its place. Nothing is done where one is left.
    pub(super) fn lose_mark(&mut self, root: u64) -> Result<(), LedgerError> {
        if self.marks == Marks::Kept {
            return Ok(());
        }
        let mark = Mark::lost(root);
        self.keep_mark(mark, (None, None))?;
        tracing::error!("ledger {}: every copy of the node's mark is lost; {}", self.path.display(), super::MARKS_LOST);
        let desired = Desired { mark, ..self.desired.borrow().as_ref().clone() };
        self.desired.send_replace(Arc::new(desired));
        Ok(())
    }

    /// As [`Self::lose_mark`], when opening found that all copies are lost.
    pub(super) fn settle_mark(&mut self, root: u64) -> Result<(), LedgerError> {
        if self.marks == Marks::Lost { self.lose_mark(root) } else { Ok(()) }
    }
}
