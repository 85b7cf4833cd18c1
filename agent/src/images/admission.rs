//! The shell of the rule that says what may be fetched now: gathers what it looks at, and tells the server and people what waits.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, PoisonError};

use skerry_engine::Engine;
use skerry_reconcile::NeededImage;
use skerry_transfer::{Admission, Candidate, Pace, Rules, Wait, admit, utc};
use skerry_wire::job::OnDeltaFailure;
use skerry_wire::poll::Event;
use skerry_wire::{ImageId, Timestamp};

use super::work::WorkError;
use super::{Images, Trouble};
use crate::fetch;
use crate::images::parent::MakeError;
use crate::ledger::{BundleRow, FailedPatch, LedgerError};
use crate::spending::Spending;

/// Tries of one patch before a full bundle is asked for, where that is allowed; and of a base from its kept bundle before the server is asked.
pub(super) const TRIES: u32 = 3;

/// What the fetching goes by.
#[derive(Debug)]
pub(crate) struct Terms {
    /// What is configured.
    pub(crate) rules: Rules,
    /// The rate, when there is one.
    pub(crate) pace: Option<Arc<Mutex<Pace>>>,
    /// What the month took.
    pub(crate) spending: Spending,
    /// Bytes of each bundle that are here and hold, as far as it was opened.
    pub(crate) have: Arc<Mutex<BTreeMap<ImageId, u64>>>,
}

/// What the jobs say of an image that they need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asks {
    /// The highest priority.
    pub(super) priority: u8,
    /// What follows a failed patch.
    pub(super) on_delta_failure: Option<OnDeltaFailure>,
}

impl From<&NeededImage> for Asks {
    fn from(image: &NeededImage) -> Self {
        Self { priority: image.priority, on_delta_failure: image.on_delta_failure }
    }
}

/// What waits, and for what: the server is told once.
pub(super) type Waits = BTreeMap<ImageId, Discriminant<Wait>>;

impl<E: Engine> Images<E> {
    /// May the bundle be fetched now?
    pub(super) fn admission(&self, asks: Asks, row: &BundleRow) -> Admission {
        let path = self.path(&row.image, &row.digest);
        let known = self.terms.have.lock().unwrap_or_else(PoisonError::into_inner).get(&row.image).copied();
        let have = known.unwrap_or_else(|| std::fs::metadata(&path).map_or(0, |m| m.len())).min(row.size);
        let keep = self.ledger.keep();
        let failed = keep.failed.get(&row.image).map(|f| f.mark == self.ledger.desired().mark);
        let full = fetch::table_in(&path, &self.bundle_keys()).map(|table| table.toc().bases.is_empty());
        let bundle = Candidate { priority: asks.priority, size: row.size, have, full, on_delta_failure: asks.on_delta_failure, failed };
        admit(&self.terms.rules, &bundle, &self.terms.spending.spent(), self.terms.spending.wall())
    }

    /// Shows what a bundle waits for; tells the server when that is news.
    pub(super) async fn waits(&self, image: ImageId, why: &Wait, until: Option<Timestamp>, waits: &mut Waits) -> Result<(), LedgerError> {
        let reason = until.map_or_else(|| why.to_string(), |until| format!("{why}, until {}", utc(until)));
        self.show(image, Some(reason.clone()));
        if waits.insert(image, discriminant(why)) != Some(discriminant(why)) {
            tracing::info!("image {}: {reason}", image.digest().short());
            self.ledger.push_events(vec![Event::ImageWaiting { image, reason }]).await?;
        }
        Ok(())
    }

    /// Remembers that a patch did not lead to its image. True when a full bundle is to be asked for now.
    pub(super) async fn patch_failed(
        &self,
        row: &BundleRow,
        asks: Asks,
        error: &WorkError,
        trouble: &Trouble,
    ) -> Result<bool, LedgerError> {
        let table = fetch::table_in(&self.path(&row.image, &row.digest), &self.bundle_keys());
        let patch = table.is_some_and(|t| !t.toc().bases.is_empty());
        let fails = matches!(error, WorkError::Make(MakeError::Failed(_)) | WorkError::BaseGone(_) | WorkError::CannotApply(_));
        if !patch || !fails {
            return Ok(false);
        }
        // Where a base went away, the server chooses anew among those that are there.
        let tried = !matches!(error, WorkError::BaseGone(_)) && trouble.faults + 1 >= TRIES;
        let full = tried && asks.on_delta_failure.unwrap_or(self.terms.rules.on_delta_failure) == OnDeltaFailure::Full;
        if full {
            tracing::warn!("image {}: its patch failed, a full bundle is asked for", row.image.digest().short());
        }
        let (image, mark, why) = (row.image, self.ledger.desired().mark, error.to_string());
        self.ledger.change_keep(move |keep| drop(keep.failed.insert(image, FailedPatch { mark, why, full }))).await?;
        Ok(full)
    }

    /// Forgets failed patches of images that are here, or that nobody asks for any more.
    pub(super) async fn forget_failed(&self, keeps: impl Fn(&ImageId) -> bool) -> Result<(), LedgerError> {
        let old: Vec<ImageId> = self.ledger.keep().failed.keys().filter(|i| !keeps(i)).copied().collect();
        if old.is_empty() {
            return Ok(());
        }
        self.ledger.change_keep(move |keep| keep.failed.retain(|image, _| !old.contains(image))).await
    }
}
