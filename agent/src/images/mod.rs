//! Images on their way from the server into the engine: offer, bundle, reconstruct, load, sync, report.
//!
//! In: the images that are needed, most urgent first, and what the server offers for them. Out: the images to ask for, the engine's new
//! inventory, and how far each image is. One image at a time: the link is slow. An image that is more urgent takes the link over; what
//! came of the other stays. Whatever fails is tried again, ever more slowly, and told to the server once per reason.
//!
//! What it promises: an image counts as present only when the engine has it under its id and the engine's disk is synced; the report of
//! it and the end of its bundle are one transaction. Killed at any moment it goes on from what is on the node.

pub(crate) mod child;
mod offer;
mod parent;
mod space;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skerry_engine::Engine;
use skerry_wire::node::Inventory;
use skerry_wire::poll::{Event, OfferState};
use skerry_wire::{Digest, ImageId};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::engine_facts::EngineFacts;
use crate::files;
use crate::ledger::{BundleRow, Ledger, LedgerError};
use crate::needed::Needed;
use crate::status::Progress;
use crate::trust::RootStore;
use crate::uplink::Offers;
use crate::uplink::backoff::{after_failures, random};
use crate::uplink::client::Client;
use work::{Stage, Verdict, WorkError};

/// The longest wait between two tries of one image.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// The longest wait between two tries when only the link failed.
const RETRY_LINK: Duration = Duration::from_secs(30);
/// Reasons remembered as told, of one image.
const TOLD: usize = 16;
/// Look again without any reason.
const LOOK: Duration = Duration::from_secs(60);

/// What brings images into the engine.
#[derive(Debug)]
pub(crate) struct Images<E> {
    /// The engine.
    pub(crate) engine: E,
    /// What it is and can do; none until it answered.
    pub(crate) engine_facts: watch::Receiver<Option<Arc<EngineFacts>>>,
    /// What is remembered.
    pub(crate) ledger: Ledger,
    /// What is trusted.
    pub(crate) roots: RootStore,
    /// The way to the server.
    pub(crate) client: Client,
    /// Folder of the bundles.
    pub(crate) folder: PathBuf,
    /// What is needed and lacking.
    pub(crate) needed: watch::Receiver<Arc<Needed>>,
    /// What the server offers.
    pub(crate) offers: watch::Receiver<Offers>,
    /// What to ask the server for.
    pub(crate) asking: watch::Sender<Arc<BTreeSet<ImageId>>>,
    /// Asks for a poll now.
    pub(crate) wake: Arc<Notify>,
    /// The engine's images.
    pub(crate) inventory: watch::Sender<Option<Inventory>>,
    /// How far each image is, for people.
    pub(crate) progress: watch::Sender<Progress>,
}

/// What is known of an image that failed.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    /// Not before this.
    until: Option<Instant>,
    /// Reasons that the server was told.
    told: BTreeSet<String>,
}

impl<E: Engine> Images<E> {
    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let mut troubles = BTreeMap::new();
        let mut failures = 0;
        loop {
            match self.turn(&mut troubles).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::error!("images are not fetched: {error}");
                    tokio::time::sleep(after_failures(failures, RETRY, random())).await;
                }
            }
        }
    }

    /// Chooses an image and works on it until it is done, it fails, or the choice changes; with none to work on, waits.
    async fn turn(&mut self, troubles: &mut BTreeMap<ImageId, Trouble>) -> Result<(), LedgerError> {
        self.needed.mark_unchanged();
        self.offers.mark_unchanged();
        let needed = self.needed.borrow().clone();
        troubles.retain(|image, _| needed.images.iter().any(|n| n.image == *image));
        let mut rows = self.ledger.bundles().await?;
        self.drop_unneeded(&needed, &mut rows).await?;
        self.take_offers(&needed, &mut rows, troubles).await?;
        self.ask(&needed, &rows);
        let now = Instant::now();
        let ready = |image: &ImageId| troubles.get(image).and_then(|t| t.until).is_none_or(|until| until <= now);
        let chosen = needed.images.iter().find_map(|n| rows.iter().find(|r| r.image == n.image && ready(&r.image)));
        let Some(row) = chosen.cloned() else {
            let next = troubles.values().filter_map(|t| t.until).filter(|until| *until > now).min();
            let until = next.unwrap_or(now + LOOK).min(now + LOOK);
            // Cancel-safe: a watch keeps its change.
            tokio::select! {
                biased;
                _ = self.needed.changed() => {}
                _ = self.offers.changed() => {}
                () = sleep_until(until) => {}
            }
            return Ok(());
        };
        self.work_on(row, &needed, troubles).await
    }

    async fn work_on(&mut self, row: BundleRow, needed: &Needed, troubles: &mut BTreeMap<ImageId, Trouble>) -> Result<(), LedgerError> {
        let image = row.image;
        let above: BTreeSet<ImageId> = needed.images.iter().map(|n| n.image).take_while(|i| *i != image).collect();
        let stage = Stage::new(troubles.get(&image).is_some_and(|t| t.failures > 0));
        let result = {
            let work = work::work(self, &row, &stage);
            tokio::pin!(work);
            let (mut needed, mut offers) = (self.needed.clone(), self.offers.clone());
            loop {
                tokio::select! {
                    biased;
                    result = &mut work => break Some(result),
                    _ = needed.changed() => {
                        let now = needed.borrow_and_update().clone();
                        let wanted = now.images.iter().any(|n| n.image == image);
                        let overtaken = now.images.iter().map(|n| n.image).take_while(|i| *i != image).any(|i| !above.contains(&i));
                        // What is fetched stays; a reconstruct is let to its end.
                        if stage.is_fetching() && (!wanted || overtaken) {
                            break None;
                        }
                    }
                    _ = offers.changed() => {
                        let offered = offers.borrow_and_update().clone();
                        let ready = |i: &ImageId| matches!(offered.get(i), Some(OfferState::Ready { .. }));
                        if stage.is_fetching() && above.iter().any(ready) {
                            break None;
                        }
                    }
                }
            }
        };
        match result {
            None => Ok(()),
            Some(Ok(())) => {
                troubles.remove(&image);
                self.show(image, None);
                Ok(())
            }
            Some(Err(error)) => {
                let trouble = troubles.entry(image).or_default();
                if stage.told_transit() {
                    // The server shows it as on its way again: what stops it is news again.
                    trouble.told.clear();
                }
                self.failed(image, error, trouble).await
            }
        }
    }

    /// Remembers a failure, tells the server once per reason, and says when to try again.
    async fn failed(&self, image: ImageId, error: WorkError, trouble: &mut Trouble) -> Result<(), LedgerError> {
        trouble.failures = trouble.failures.saturating_add(1);
        let verdict = error.verdict();
        let longest = if verdict == Verdict::Link { RETRY_LINK } else { RETRY };
        let wait = after_failures(trouble.failures, longest, random());
        trouble.until = Some(Instant::now() + wait);
        let reason = error.to_string();
        tracing::warn!("image {}: {reason}; trying again in {} s", image.digest().short(), wait.as_secs());
        self.show(image, Some(format!("{reason}; tries again")));
        if trouble.told.len() >= TOLD {
            trouble.told.clear();
        }
        let news = verdict != Verdict::Link && verdict != Verdict::Renew && trouble.told.insert(reason.clone());
        let events = if news { vec![Event::ImageFailed { image, reason }] } else { vec![] };
        match verdict {
            Verdict::Renew | Verdict::Replace => {
                self.ledger.end_bundle(image, events).await?;
                if verdict == Verdict::Replace {
                    self.remove_files(|name| name.starts_with(&image.digest().hex()));
                }
                // The offer that led here is used up: only a new answer may bring the bundle back.
                self.wake.notify_one();
            }
            Verdict::Link | Verdict::Keep => self.ledger.push_events(events).await?,
        }
        Ok(())
    }

    /// Forgets bundles of images that no specification on the node names any more.
    async fn drop_unneeded(&self, needed: &Needed, rows: &mut Vec<BundleRow>) -> Result<(), LedgerError> {
        let named = self.ledger.desired().images();
        let keep = |image: &ImageId| named.contains(image) || needed.images.iter().any(|n| n.image == *image);
        for row in rows.iter().filter(|r| !keep(&r.image)) {
            self.ledger.end_bundle(row.image, vec![]).await?;
        }
        rows.retain(|r| keep(&r.image));
        // The power may go between the end of a bundle and the end of its file: then the image is here and the file of no use.
        let present = self.inventory.borrow().clone().unwrap_or_default();
        let used = |image: &ImageId| rows.iter().any(|r| r.image == *image) || !present.images.contains(image);
        let wanted = named.iter().chain(needed.images.iter().map(|n| &n.image));
        let names: BTreeSet<String> = wanted.filter(|i| used(i)).map(|i| i.digest().hex()).collect();
        self.remove_files(|name| name.split_once('-').is_none_or(|(image, _)| !names.contains(image)));
        Ok(())
    }

    fn remove_files(&self, unneeded: impl Fn(&str) -> bool) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_none_or(&unneeded)
                && let Err(error) = files::remove(&entry.path())
            {
                tracing::warn!("a bundle that nobody needs stays: {error}");
            }
        }
    }

    /// Where the bundle of an image lies. Another bundle of the same image has another name: bytes of the two never mix.
    fn path(&self, image: &ImageId, bundle: &Digest) -> PathBuf {
        self.folder.join(format!("{}-{}.part", image.digest().hex(), bundle.hex()))
    }

    /// Keeps what the server offers, once it is proven.
    async fn take_offers(
        &self,
        needed: &Needed,
        rows: &mut Vec<BundleRow>,
        troubles: &mut BTreeMap<ImageId, Trouble>,
    ) -> Result<(), LedgerError> {
        let offers = self.offers.borrow().clone();
        for image in needed.images.iter().map(|n| n.image) {
            if rows.iter().any(|r| r.image == image) {
                continue;
            }
            match offers.get(&image) {
                Some(OfferState::Ready { digest, size, capability, release }) => {
                    match offer::check(&self.roots.current(), image, *digest, *size, capability, release) {
                        Ok(row) => {
                            self.ledger.put_bundle(row.clone()).await?;
                            // Of another bundle for the same image nothing can be used any more.
                            let (image, file) = (image.digest().hex(), self.path(&row.image, &row.digest));
                            self.remove_files(|name| name.starts_with(&image) && file.file_name().is_none_or(|f| f != name));
                            rows.push(row);
                        }
                        Err(reason) => {
                            self.show(image, Some(reason.clone()));
                            if troubles.entry(image).or_default().told.insert(reason.clone()) {
                                tracing::error!("image {}: {reason}", image.digest().short());
                                self.ledger.push_events(vec![Event::ImageFailed { image, reason }]).await?;
                            }
                        }
                    }
                }
                Some(OfferState::Building) => self.show(image, Some("the server makes its bundle".to_owned())),
                Some(OfferState::Failed { reason }) => self.show(image, Some(format!("the server cannot make its bundle: {reason}"))),
                Some(OfferState::Unknown) => self.show(image, Some("the server says something that only a newer agent reads".to_owned())),
                None => self.show(image, Some("asks the server for it".to_owned())),
            }
        }
        Ok(())
    }

    /// Has the uplink ask for every image of which no bundle is known.
    fn ask(&self, needed: &Needed, rows: &[BundleRow]) {
        let asking: BTreeSet<ImageId> = needed.images.iter().map(|n| n.image).filter(|i| !rows.iter().any(|r| r.image == *i)).collect();
        self.asking.send_if_modified(|old| {
            let changed = **old != asking;
            if changed {
                *old = Arc::new(asking);
            }
            changed
        });
    }

    /// Shows how far an image is; done when none.
    fn show(&self, image: ImageId, state: Option<String>) {
        show(&self.progress, image, state);
    }
}

fn show(progress: &watch::Sender<Progress>, image: ImageId, state: Option<String>) {
    progress.send_if_modified(|all| {
        if all.get(&image) == state.as_ref() {
            return false;
        }
        let mut next = all.as_ref().clone();
        match state {
            Some(state) => drop(next.insert(image, state)),
            None => drop(next.remove(&image)),
        }
        *all = Arc::new(next);
        true
    });
}

#[cfg(test)]
mod tests;
