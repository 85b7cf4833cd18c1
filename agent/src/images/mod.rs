//! Images on their way from the server into the engine: offer, bundle, reconstruct, load, sync, report.
//!
//! In: the images that are needed, most urgent first, and what the server offers for them. Out: the images to ask for, the engine's new
//! inventory, and how far each image is. One image at a time: the link is slow. An image that is more urgent takes the link over; what
//! came of the other stays. Whatever fails is tried again, ever more slowly, and told to the server once per reason.
//!
//! What it promises: an image counts as present only when the engine has it under its id and the engine's disk is synced; the report of
//! it and the end of its bundle are one transaction. Killed at any moment it goes on from what is on the node.

pub(crate) mod admission;
pub(crate) mod child;
mod collect;
mod mend;
mod offer;
mod parent;
mod space;
mod stored;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skerry_engine::Engine;
use skerry_reconcile::NeededImage;
use skerry_transfer::{Admission, Marks};
use skerry_trust::{KeyRing, Role};
use skerry_wire::node::Inventory;
use skerry_wire::poll::{Event, OfferState};
use skerry_wire::{Digest, ImageId};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::engine_facts::EngineFacts;
use crate::fetch::FetchError;
use crate::files;
use crate::ledger::{BundleRow, Ledger, LedgerError};
use crate::needed::Needed;
use crate::status::Progress;
use crate::steps::{self, Step};
use crate::trust::RootStore;
use crate::uplink::Offers;
use crate::uplink::backoff::{after_failures, random};
use crate::uplink::client::Client;
use crate::uplink::reach::counts;
use admission::{Terms, Waits};
use collect::Collector;
use mend::Looked;
use parent::MakeError;
use stored::BasesOf;
use work::{Stage, Verdict, WorkError};

/// The longest wait between two tries of one image.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// The longest wait between two tries when only the link failed.
const RETRY_LINK: Duration = Duration::from_secs(15);
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
    /// Where an offer is struck out that led nowhere.
    pub(crate) struck: watch::Sender<Offers>,
    /// What to ask the server for.
    pub(crate) asking: watch::Sender<Arc<BTreeSet<ImageId>>>,
    /// Asks for a poll now.
    pub(crate) wake: Arc<Notify>,
    /// The engine's images.
    pub(crate) inventory: watch::Sender<Option<Inventory>>,
    /// How far each image is, for people.
    pub(crate) progress: watch::Sender<Progress>,
    /// What the fetching goes by.
    pub(crate) terms: Terms,
    /// How full the engine's disk may be before images go that nobody needs.
    pub(crate) marks: Marks,
    /// Bytes of bundles that are kept after their image is there.
    pub(crate) keep_bundles: u64,
    /// Why none is fetched.
    pub(crate) trouble: watch::Sender<Option<String>>,
}

/// What goes on from turn to turn.
#[derive(Debug, Default)]
struct Carried {
    troubles: BTreeMap<ImageId, Trouble>,
    waits: Waits,
    collector: Collector,
    bases_of: BasesOf,
    looked: Looked,
    come: Come,
}

/// Images that have come, each with the number of bundles that had ended then, until those who need them have looked again.
type Come = Vec<(u64, ImageId)>;

/// What is known of an image that failed.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    /// Of them those that its bundle may be to blame for.
    faults: u32,
    /// Not before this.
    until: Option<Instant>,
    /// Only the link failed.
    link: bool,
    /// Reasons that the server was told.
    told: BTreeSet<String>,
    /// Bytes that must become free on the engine's disk, until that was seen to.
    lacks: Option<u64>,
}

impl<E: Engine> Images<E> {
    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let (mut carried, mut failures) = (Carried::default(), 0);
        let mut opened = self.client.reach().opened();
        loop {
            match self.turn(&mut carried, &mut opened).await {
                Ok(()) => {
                    failures = 0;
                    self.trouble.send_if_modified(|told| told.take().is_some());
                }
                Err(error) => {
                    failures += 1;
                    let text = format!("images are not fetched: {error}");
                    tracing::error!("{text}");
                    self.trouble.send_if_modified(|told| told.replace(text.clone()).as_ref() != Some(&text));
                    tokio::time::sleep(after_failures(failures, RETRY, random())).await;
                }
            }
        }
    }

    /// Chooses an image and works on it until it is done, it fails, or the choice changes; with none to work on, waits.
    async fn turn(&mut self, carried: &mut Carried, opened: &mut watch::Receiver<u64>) -> Result<(), LedgerError> {
        let Carried { troubles, waits, collector, bases_of, looked, come } = carried;
        self.needed.mark_unchanged();
        self.offers.mark_unchanged();
        let told = self.needed.borrow().clone();
        self.terms.spending.keep(false).await?;
        let mut rows = self.ledger.bundles().await?;
        come.retain(|(ended, _)| *ended > told.ended);
        let needed = Needed { images: lacking(&told, come).cloned().collect(), ..Needed::clone(&told) };
        let is_needed = |image: &ImageId| needed.images.iter().any(|n| n.image == *image);
        waits.retain(|image, _| is_needed(image));
        if needed.known {
            self.forget_failed(is_needed).await?;
        }
        self.drop_unneeded(&needed, &mut rows, bases_of).await?;
        let helped = self.take_offers((&needed, come), &mut rows, troubles).await?;
        troubles.retain(|image, _| is_needed(image) || rows.iter().any(|r| r.image == *image));
        self.ask(&needed, &rows, &helped);
        self.collect(&needed, &rows, collector).await?;
        self.mend(&told, looked).await?;
        let now = Instant::now();
        let ready = |image: &ImageId| troubles.get(image).and_then(|t| t.until).is_none_or(|until| until <= now);
        let (mut chosen, mut opens) = (None, None);
        for image in &needed.images {
            let Some(row) = rows.iter().find(|r| r.image == image.image && ready(&r.image)) else { continue };
            match self.admission(image.into(), row) {
                Admission::Fetch { most, until } => {
                    waits.remove(&row.image);
                    chosen = Some((
                        row.clone(),
                        Stage::new(troubles.get(&row.image).is_some_and(|t| t.failures > 0), image.into(), most),
                        until,
                    ));
                    break;
                }
                Admission::Wait { why, until } => {
                    self.waits(row.image, &why, until, waits).await?;
                    opens = opens.into_iter().chain(until).min();
                }
            }
        }
        // What is here already of bases that a needed image is made from.
        let base = || rows.iter().find(|r| !is_needed(&r.image) && ready(&r.image));
        if chosen.is_none()
            && let Some(row) = base()
        {
            chosen = Some((row.clone(), Stage::new(true, Default::default(), 0), None));
        }
        let Some((row, stage, closes)) = chosen else {
            let next = troubles.values().filter_map(|t| t.until).filter(|until| *until > now).min();
            let next = next.into_iter().chain(opens.and_then(|at| self.instant(at))).min();
            let until = next.unwrap_or(now + LOOK).min(now + LOOK);
            // Cancel-safe: a watch keeps its change.
            tokio::select! {
                biased;
                _ = self.needed.changed() => {}
                _ = self.offers.changed() => {}
                // The link may be back: what only it held up is tried at once.
                () = counts(opened) => {
                    for trouble in troubles.values_mut().filter(|t| t.link) {
                        (trouble.until, trouble.failures, trouble.faults) = (None, 1, trouble.faults.min(1));
                    }
                }
                () = sleep_until(until) => {}
            }
            return Ok(());
        };
        let closes = closes.and_then(|at| self.instant(at));
        let image = row.image;
        let worked = self.work_on(row, (&told, come), troubles, (stage, closes)).await;
        // What the try itself learned of the link is no reason for the next one.
        opened.mark_unchanged();
        if worked? {
            come.push((self.ledger.bundles_ended(), image));
        }
        self.terms.spending.keep(true).await?;
        if let Some(bytes) = troubles.values_mut().find_map(|t| t.lacks.take()) {
            self.make_room(&rows, collector, bytes);
        }
        Ok(())
    }

    /// When a time of day comes; none while that is not known.
    fn instant(&self, at: skerry_wire::Timestamp) -> Option<Instant> {
        Some(Instant::now() + at.since(self.terms.spending.wall()?).duration())
    }

    /// Works on one bundle, as long as nothing more urgent comes than when it was chosen. True when its image has come.
    async fn work_on(
        &mut self,
        row: BundleRow,
        (told, come): (&Needed, &Come),
        troubles: &mut BTreeMap<ImageId, Trouble>,
        (stage, closes): (Stage, Option<Instant>),
    ) -> Result<bool, LedgerError> {
        let image = row.image;
        let above =
            |needed: &Needed| -> BTreeSet<ImageId> { lacking(needed, come).take_while(|n| n.image != image).map(|n| n.image).collect() };
        let result = {
            let work = work::work(self, &row, &stage);
            tokio::pin!(work);
            let (mut needed, mut offers, mut before) = (self.needed.clone(), self.offers.clone(), above(told));
            loop {
                tokio::select! {
                    biased;
                    result = &mut work => break Some(result),
                    () = reaches(closes), if stage.is_fetching() => break None,
                    _ = needed.changed() => {
                        let now = needed.borrow_and_update().clone();
                        let wanted = now.images.iter().any(|n| n.image == image);
                        let overtaken = !above(&now).is_subset(&before);
                        // What is fetched stays; a reconstruct is let to its end.
                        if stage.is_fetching() && (!wanted || overtaken) {
                            break None;
                        }
                        before = above(&now);
                    }
                    _ = offers.changed() => {
                        let offered = offers.borrow_and_update().clone();
                        let ready = |i: &ImageId| matches!(offered.get(i), Some(OfferState::Ready { .. }));
                        if stage.is_fetching() && before.iter().any(ready) {
                            break None;
                        }
                    }
                }
            }
        };
        let is_needed = told.images.iter().any(|n| n.image == image);
        match result {
            None => Ok(false),
            Some(result) => self.ended(&row, &stage, is_needed, result, troubles).await,
        }
    }

    /// What follows from a try that came to its end. True when the image has come.
    async fn ended(
        &mut self,
        row: &BundleRow,
        stage: &Stage,
        is_needed: bool,
        result: Result<(), WorkError>,
        troubles: &mut BTreeMap<ImageId, Trouble>,
    ) -> Result<bool, LedgerError> {
        let image = row.image;
        match result {
            Ok(()) => {
                troubles.remove(&image);
                self.show(image, None);
                return Ok(true);
            }
            // What it may fetch, or the window, ended: the next turn says what it waits for.
            Err(WorkError::Waits | WorkError::Fetch(FetchError::Allowance)) if is_needed => {}
            // Of a base nothing may be fetched: its file is not whole, and the next turn would find the same at once.
            Err(WorkError::Waits | WorkError::Fetch(FetchError::Allowance)) => self.ledger.end_bundle(image, vec![]).await?,
            Err(error) => {
                let trouble = troubles.entry(image).or_default();
                if stage.told_transit() {
                    // The server shows it as on its way again: what stops it is news again.
                    trouble.told.clear();
                }
                let full = self.patch_failed(row, stage.asks(), &error, trouble).await?;
                if stage.grew() && !full && error.verdict() != Verdict::Replace {
                    // A link that comes and goes brings something each time, and it stays: waits begin anew.
                    (trouble.failures, trouble.faults) = (0, 0);
                }
                self.failed(image, error, full, trouble).await?;
            }
        }
        Ok(false)
    }

    /// Remembers a failure, tells the server once per reason, and says when to try again.
    async fn failed(&self, image: ImageId, error: WorkError, full: bool, trouble: &mut Trouble) -> Result<(), LedgerError> {
        trouble.failures = trouble.failures.saturating_add(1);
        if error.blames_the_bundle() {
            trouble.faults = trouble.faults.saturating_add(1);
        }
        let verdict = if full { Verdict::Replace } else { error.verdict() };
        trouble.link = verdict == Verdict::Link;
        let longest = if trouble.link { RETRY_LINK } else { RETRY };
        let wait = after_failures(trouble.failures, longest, random()) + error.retry_after();
        trouble.until = Some(Instant::now() + wait);
        if let WorkError::Space(lack) = &error {
            trouble.lacks = Some(lack.wanted_free);
        }
        if let WorkError::Make(MakeError::NoRoom(_)) = &error {
            // On the disk of the bundles, where those go that are kept.
            trouble.lacks = Some(0);
        }
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
                    self.terms.have.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&image);
                }
                // The offer that led here is used up: only a new answer may bring the bundle back.
                self.strike_out(&image);
                self.wake.notify_one();
            }
            Verdict::Link | Verdict::Keep => self.ledger.push_events(events).await?,
        }
        Ok(())
    }

    /// Forgets bundles of images that no specification on the node names any more.
    async fn drop_unneeded(&self, needed: &Needed, rows: &mut Vec<BundleRow>, bases_of: &mut BasesOf) -> Result<(), LedgerError> {
        let named = self.ledger.desired().images();
        let chain = self.with_bases(&needed.pins, bases_of);
        let is_needed = |image: &ImageId| needed.images.iter().any(|n| n.image == *image);
        let keep = |image: &ImageId| named.contains(image) || chain.contains(image) || is_needed(image);
        for row in rows.iter().filter(|r| !keep(&r.image)) {
            self.ledger.end_bundle(row.image, vec![]).await?;
        }
        rows.retain(|r| keep(&r.image));
        // The power may go between the end of a bundle and the end of its file: then the image is here, and the file is of use only to
        // mend it with.
        let present = self.inventory.borrow().clone().unwrap_or_default();
        let on_its_way = |image: &ImageId| rows.iter().any(|r| r.image == *image) || !present.images.contains(image);
        let wanted = named.iter().chain(needed.images.iter().map(|n| &n.image));
        let names: BTreeSet<String> = wanted.filter(|i| on_its_way(i)).map(|i| i.digest().hex()).collect();
        // Until it is known what must stay, all of it may.
        let stays = |image: &ImageId| !needed.known || chain.contains(image);
        let kept = stored::in_folder(&self.folder).filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let (image, _) = stored::parts(&name)?;
            (!names.contains(&image.digest().hex()) && stays(&image)).then_some((name, std::fs::metadata(&path).ok()?.len()))
        });
        let kept = stored::kept(kept.collect(), self.keep_bundles);
        self.remove_files(|name| name.split_once('-').is_none_or(|(image, _)| !names.contains(image) && !kept.contains(name)));
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

    /// Keys that may sign bundles.
    fn bundle_keys(&self) -> KeyRing {
        self.roots.current().keys(Role::Director)
    }

    /// Where the bundle of an image lies. Another bundle of the same image has another name: bytes of the two never mix.
    fn path(&self, image: &ImageId, bundle: &Digest) -> PathBuf {
        self.folder.join(format!("{}-{}.part", image.digest().hex(), bundle.hex()))
    }

    /// Keeps what the server offers, once it is proven. What kept bundles lead to need not be asked for: that is answered.
    async fn take_offers(
        &self,
        (needed, come): (&Needed, &Come),
        rows: &mut Vec<BundleRow>,
        troubles: &mut BTreeMap<ImageId, Trouble>,
    ) -> Result<BTreeSet<ImageId>, LedgerError> {
        let (offers, mut helped) = (self.offers.borrow().clone(), BTreeSet::new());
        for image in needed.images.iter().map(|n| n.image) {
            if rows.iter().any(|r| r.image == image) {
                continue;
            }
            if let Some(row) = self.stored(image, come).await
                && troubles.get(&row.image).is_none_or(|t| t.faults < admission::TRIES)
            {
                helped.insert(image);
                if !rows.iter().any(|r| r.image == row.image) {
                    self.ledger.put_bundle(row.clone()).await?;
                    rows.push(row);
                }
                continue;
            }
            match offers.get(&image) {
                Some(OfferState::Ready { digest, size, capability, release }) => {
                    match offer::check(&self.roots.current(), image, *digest, *size, capability, release) {
                        Ok(row) => {
                            self.ledger.put_bundle(row.clone()).await?;
                            steps::reached(Step::BundleRecorded);
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
        Ok(helped)
    }

    /// What was offered of this image is of no use any more. Left there it would be followed once more, and nothing be asked for.
    fn strike_out(&self, image: &ImageId) {
        self.struck.send_if_modified(|offers| {
            if offers.contains_key(image) {
                let mut next = offers.as_ref().clone();
                next.remove(image);
                *offers = Arc::new(next);
            }
            // Nobody waits for less.
            false
        });
    }

    /// Has the uplink ask for every image of which no bundle is known.
    fn ask(&self, needed: &Needed, rows: &[BundleRow], helped: &BTreeSet<ImageId>) {
        let known = |image: &ImageId| helped.contains(image) || rows.iter().any(|r| r.image == *image);
        let asking: BTreeSet<ImageId> = needed.images.iter().map(|n| n.image).filter(|i| !known(i)).collect();
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

/// The needed images without those that came after those who need them looked. Such an image needs no second bundle; with one it would not
/// count as here.
fn lacking<'a>(needed: &'a Needed, come: &'a Come) -> impl Iterator<Item = &'a NeededImage> {
    let came = |image: ImageId| come.iter().any(|(ended, i)| *i == image && *ended > needed.ended);
    needed.images.iter().filter(move |n| !came(n.image))
}

/// Until this instant; for ever when there is none.
async fn reaches(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
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
