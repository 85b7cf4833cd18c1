//! What is remembered of images and transfers: which images fell out of use, which were removed and why, what the month took, and which
//! patches failed. Losing it costs no promise: images count as just fallen out of use, the month as begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skerry_transfer::{Idle, Spent};
use skerry_wire::manifest::Mark;
use skerry_wire::{ImageId, Timestamp};

use super::store::State;
use super::{Ledger, LedgerError};

/// Name of the row of `fact`.
const KEEP: &str = "keep";
/// Removals that are remembered for people.
const REMOVED: usize = 16;

/// What is remembered of images and transfers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Keep {
    /// Images that fell out of use, oldest first.
    pub(crate) idle: Vec<Idle>,
    /// The last removals, oldest first.
    pub(crate) removed: Vec<Removed>,
    /// What the month took.
    pub(crate) spent: Spent,
    /// Images whose patch failed here, under which manifest and why.
    pub(crate) failed: BTreeMap<ImageId, FailedPatch>,
}

/// An image that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// It.
    pub(crate) image: ImageId,
    /// Why, for people.
    pub(crate) why: String,
    /// When, by the node's lower bound of time.
    pub(crate) at: Timestamp,
}

/// A patch that did not lead to its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedPatch {
    /// Mark of the manifest that was in force.
    pub(crate) mark: Mark,
    /// Why, for people.
    pub(crate) why: String,
    /// A full bundle is wanted for it.
    #[serde(default)]
    pub(crate) full: bool,
}

impl Ledger {
    /// What is remembered of images and transfers.
    pub(crate) fn keep(&self) -> Arc<Keep> {
        self.views.keep.borrow().clone()
    }

    /// Changes it; on the disk on return. Nothing is written when nothing changed.
    pub(crate) async fn change_keep(&self, change: impl FnOnce(&mut Keep) + Send + 'static) -> Result<(), LedgerError> {
        self.change_keep_and(change, || ()).await
    }

    /// The same, and does `then` once it is on the disk, before any other change; both also when nobody waits for them any more.
    pub(crate) async fn change_keep_and(
        &self,
        change: impl FnOnce(&mut Keep) + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), LedgerError> {
        self.ask(move |s| s.change_keep(change).map(|()| then())).await
    }
}

impl State {
    pub(super) fn load_keep(&mut self) -> Result<(), LedgerError> {
        let keep = self.message::<Keep>(KEEP)?.unwrap_or_default();
        self.keep.send_replace(Arc::new(keep));
        Ok(())
    }

    fn change_keep(&mut self, change: impl FnOnce(&mut Keep)) -> Result<(), LedgerError> {
        let before = self.keep.borrow().clone();
        let mut keep = before.as_ref().clone();
        change(&mut keep);
        keep.removed.drain(..keep.removed.len().saturating_sub(REMOVED));
        if keep != *before {
            self.put_message(KEEP, &keep)?;
            self.keep.send_replace(Arc::new(keep));
        }
        Ok(())
    }
}
