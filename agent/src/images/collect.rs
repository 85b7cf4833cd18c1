//! Images that nobody needs any more go when the disk fills; which, and why, [`skerry_transfer::choose`] says.
//!
//! The reason is in the ledger before an image goes, and each step may be repeated: tags that are gone are fine. What the engine holds on
//! to stays, and is not tried again until something else changes or an hour has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skerry_engine::{Engine, EngineError, PinnedImage};
use skerry_transfer::{Choice, Disk, Held, Situation, choose, note_idle};
use skerry_wire::ImageId;
use tokio::time::Instant;

use super::{Images, stored};
use crate::fetch;
use crate::ledger::{BundleRow, LedgerError, Removed};
use crate::needed::Needed;

/// Until what the engine held on to is tried again.
const AGAIN: Duration = Duration::from_secs(3600);

/// What goes on from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// What was looked at last: needed and present.
    seen: Option<(Needed, BTreeSet<ImageId>)>,
    /// What the engine held on to, and when that is forgotten.
    stuck: BTreeSet<ImageId>,
    forget: Option<Instant>,
    /// Bytes that an image on its way lacks.
    pub(super) wanted_free: u64,
    /// What was said last when something should go and nothing may.
    said: Option<String>,
}

/// How a pass ended.
enum Pass {
    /// One went, or was tried: measure again.
    Again,
    /// Nothing more to do now.
    Done,
}

impl<E: Engine> Images<E> {
    /// Lets images go until the disk has room, or none may go.
    pub(super) async fn collect(&self, needed: &Needed, rows: &[BundleRow], collector: &mut Collector) -> Result<(), LedgerError> {
        // What is in use is not known before the engine's containers were seen, nor while a specification is missing.
        let (Some(facts), true) = (self.engine_facts.borrow().clone(), needed.known && self.ledger.desired().missing().is_empty()) else {
            return Ok(());
        };
        let Ok(disk) = disk(&facts.info.data_root) else { return Ok(()) };
        let now = (needed.clone(), self.inventory.borrow().iter().flat_map(|i| i.images.iter().copied()).collect());
        let changed = collector.seen.as_ref() != Some(&now);
        if changed || collector.forget.is_none_or(|at| at <= Instant::now()) {
            collector.stuck.clear();
            collector.forget = Some(Instant::now() + AGAIN);
        }
        if !changed && disk.percent() < self.marks.high && disk.free >= collector.wanted_free {
            return Ok(());
        }
        let used: BTreeSet<ImageId> =
            needed.pins.iter().copied().chain(needed.images.iter().map(|n| n.image)).chain(rows.iter().map(|r| r.image)).collect();
        let (bases, bases_unknown) = self.bases(rows);
        let mut begun = false;
        loop {
            match self.pass((&used, &bases, bases_unknown), &mut begun, &facts.info.data_root, collector).await {
                Ok(Pass::Again) => {}
                Ok(Pass::Done) => {
                    collector.seen = Some(now);
                    return Ok(());
                }
                Err(CollectError::Ledger(error)) => return Err(error),
                // It is asked again with the next look.
                Err(CollectError::Engine(error)) => {
                    tracing::debug!("images that nobody needs stay for now: {error}");
                    return Ok(());
                }
            }
        }
    }

    async fn pass(
        &self,
        (used, bases, bases_unknown): (&BTreeSet<ImageId>, &BTreeSet<ImageId>, bool),
        begun: &mut bool,
        root: &std::path::Path,
        collector: &mut Collector,
    ) -> Result<Pass, CollectError> {
        let pinned = self.engine.pinned().await?;
        let held: BTreeMap<ImageId, Held> = pinned.iter().map(|p| (p.id, Held { bytes: p.bytes, others: p.others })).collect();
        let mut idle = self.ledger.keep().idle.clone();
        if note_idle(&mut idle, &held, used, self.ledger.time().at()) {
            let idle = idle.clone();
            self.ledger.change_keep(move |keep| keep.idle = idle).await?;
        }
        let Ok(disk) = disk(root) else { return Ok(Pass::Done) };
        let choice = choose(&Situation {
            idle: &idle,
            held: &held,
            used,
            bases,
            bases_unknown,
            stuck: &collector.stuck,
            disk,
            marks: self.marks,
            wanted_free: collector.wanted_free,
            begun: *begun,
        });
        let (image, why) = match choice {
            Choice::Enough => {
                collector.said = None;
                collector.wanted_free = 0;
                return Ok(Pass::Done);
            }
            Choice::Nothing { why } => {
                if collector.said.as_ref() != Some(&why) {
                    tracing::warn!("{why}");
                }
                collector.said = Some(why);
                // Whoever lacks room says so again with the next try.
                collector.wanted_free = 0;
                return Ok(Pass::Done);
            }
            Choice::Remove { image, why } => (image, why),
        };
        *begun = true;
        let names = pinned.into_iter().find(|p| p.id == image);
        let names = names.map_or(vec![], |p: PinnedImage| p.names);
        tracing::info!("image {} goes: {why}", image.digest().short());
        let removed = Removed { image, why, at: self.ledger.time().at() };
        self.ledger.change_keep(move |keep| keep.removed.push(removed)).await?;
        for name in names {
            match self.engine.unpin(&name).await {
                Ok(()) => {}
                Err(EngineError::InUse { message, .. }) => {
                    tracing::info!("image {} stays: {message}", image.digest().short());
                    collector.stuck.insert(image);
                    self.ledger.change_keep(move |keep| drop(keep.removed.pop_if(|r| r.image == image))).await?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Pass::Again)
    }

    /// The bases of the bundles that are on their way, or wait; true when some bundle has not said yet.
    fn bases(&self, rows: &[BundleRow]) -> (BTreeSet<ImageId>, bool) {
        let keys = self.bundle_keys();
        let (mut bases, mut unknown) = (BTreeSet::new(), false);
        for row in rows {
            match fetch::table_in(&self.path(&row.image, &row.digest), &keys) {
                Some(table) => bases.extend(&table.toc().bases),
                None => unknown = true,
            }
        }
        (bases, unknown)
    }

    /// An image on its way lacks room: kept bundles go at once, images with the next pass.
    pub(super) fn make_room(&self, rows: &[BundleRow], collector: &mut Collector, bytes: u64) {
        collector.wanted_free = bytes;
        collector.seen = None;
        let on_their_way: BTreeSet<_> = rows.iter().map(|r| self.path(&r.image, &r.digest)).collect();
        for kept in stored::in_folder(&self.folder).filter(|path| !on_their_way.contains(path)) {
            match crate::files::remove(&kept) {
                Ok(()) => tracing::info!("kept bundle {} goes: an image on its way lacks room", kept.display()),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The engine's disk.
fn disk(root: &std::path::Path) -> std::io::Result<Disk> {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        return Ok(Disk { used: machine.disk_used(), free: machine.disk_free() });
    }
    let stat = rustix::fs::statvfs(root)?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
    Ok(Disk { used, free: stat.f_bavail.saturating_mul(stat.f_frsize) })
}
