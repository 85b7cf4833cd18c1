//! What stays of bundles on the disk. No engine answers here: nothing of this may need one.

use super::*;
use crate::ledger::samples::Keys;
use skerry_engine::DockerEngine;
use skerry_reconcile::NeededImage;
use skerry_transfer::{Budget, Rules, Wait, Windows};
use skerry_trust::envelope;
use skerry_wire::job::OnDeltaFailure;
use skerry_wire::release::Release;
use skerry_wire::{Blob, Timestamp};
use std::path::Path;

use crate::clock::Clock;
use crate::images::admission::Asks;
use crate::spending::Spending;

fn image(n: u8) -> ImageId {
    ImageId(Digest::new([n; 32]))
}

fn needed(n: u8) -> NeededImage {
    NeededImage { image: image(n), reference: "till:1".to_owned(), priority: 50, job: "till".to_owned(), on_delta_failure: None }
}

fn row(image: ImageId, digest: Digest) -> BundleRow {
    BundleRow { image, digest, size: 9, capability: "0af3".to_owned(), release: vec![] }
}

struct Bed {
    images: Images<DockerEngine>,
    keys: Keys,
    offers: watch::Sender<Offers>,
    needed: watch::Sender<Arc<Needed>>,
    _facts: watch::Sender<Option<Arc<EngineFacts>>>,
}

fn bed(folder: &Path) -> Bed {
    let keys = Keys::new();
    let first = folder.join("first.cose");
    std::fs::write(&first, keys.root_file()).unwrap();
    let ledger = Ledger::open(folder, Timestamp(0)).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    let (needed_to, needed) = watch::channel(Arc::default());
    let (offers_to, offers) = watch::channel(Offers::default());
    let (facts_to, engine_facts) = watch::channel(None);
    let bundles = folder.join("bundles");
    files::make_folder(&bundles).unwrap();
    // Nobody listens on it.
    let socket = folder.join("no.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let images = Images {
        engine: DockerEngine::connect(&socket).unwrap(),
        engine_facts,
        client: Client::new("https://127.0.0.1:9", ca.as_bytes(), 65536, ledger.watch_time(), Default::default()).unwrap(),
        ledger: ledger.clone(),
        roots: RootStore::open(folder, &first).unwrap(),
        folder: bundles,
        needed,
        offers,
        struck: offers_to.clone(),
        asking: watch::channel(Arc::default()).0,
        wake: Arc::default(),
        inventory: watch::channel(None).0,
        progress: watch::channel(Progress::default()).0,
        terms: terms(&ledger),
        marks: Marks::default(),
        keep_bundles: 0,
        trouble: watch::channel(None).0,
    };
    Bed { images, keys, offers: offers_to, needed: needed_to, _facts: facts_to }
}

fn terms(ledger: &Ledger) -> Terms {
    let rules = Rules { budget: None, windows: Windows::default(), on_delta_failure: OnDeltaFailure::Hold };
    let spending = Spending::new(ledger.clone(), Clock::new().unwrap(), Default::default(), 1);
    Terms { rules, pace: None, spending, have: Default::default() }
}

fn no_room(free: u64) -> WorkError {
    WorkError::Space(space::Lack { why: format!("{free} MiB free"), wanted_free: 5 })
}

fn files_in(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn files_of_bundles_go_when_their_image_is_here_and_stay_while_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut images = bed(dir.path()).images;
    let digest = Digest::new([9; 32]);
    let folder = images.folder.clone();
    let file = |n: u8| folder.join(format!("{}-{}.part", image(n).digest().hex(), digest.hex()));
    assert_eq!(file(1), images.path(&image(1), &digest));
    for n in 1..=4 {
        std::fs::write(file(n), b"x").unwrap();
    }
    // 1 is here and its bundle ended, 2 is here and its bundle has not ended, 3 is lacking, 4 is of no interest.
    images.inventory.send_replace(Some(Inventory { images: vec![image(1), image(2)], ..Inventory::default() }));
    images.ledger.put_bundle(row(image(2), digest)).await.unwrap();
    let wanted = Needed { images: vec![needed(1), needed(2), needed(3)], ..Needed::default() };
    let mut rows = images.ledger.bundles().await.unwrap();
    images.drop_unneeded(&wanted, &mut rows, &mut BasesOf::new()).await.unwrap();
    assert_eq!([1, 2, 3, 4].map(|n| file(n).exists()), [false, true, true, false]);
    assert_eq!(rows.len(), 1);
    // With room for it, what must stay keeps its bundle, to be mended with.
    images.keep_bundles = 1;
    for n in [1, 4, 5] {
        std::fs::write(file(n), b"x").unwrap();
    }
    std::fs::write(dir.path().join("bundles").join(format!("{}-{}.spool", "01".repeat(32), "09".repeat(32))), b"x").unwrap();
    images.inventory.send_replace(Some(Inventory { images: [1, 2, 4, 5].map(image).to_vec(), ..Inventory::default() }));
    let wanted = Needed { known: true, pins: BTreeSet::from([image(1)]), ..wanted };
    images.drop_unneeded(&wanted, &mut rows, &mut BasesOf::new()).await.unwrap();
    assert_eq!([1, 2, 3, 4, 5].map(|n| file(n).exists()), [true, true, true, false, false]);
    assert_eq!(files_in(&images.folder).len(), 3);
}

/// The offer of a bundle for image 1.
fn offers_of(keys: &Keys, digest: Digest) -> Offers {
    let release = Release {
        name: "till".to_owned(),
        tag: "1".to_owned(),
        image_id: image(1),
        diff_ids: vec![],
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        size: 1,
        signed_at: Timestamp(0),
    };
    let release = Blob(envelope::seal(&keys.release, Release::PURPOSE, &release));
    let offer = OfferState::Ready { digest, size: 9, capability: "0af3".to_owned(), release };
    Arc::new(BTreeMap::from([(image(1), offer)]))
}

#[tokio::test]
async fn another_bundle_for_the_same_image_takes_the_place_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let bed = bed(dir.path());
    let images = &bed.images;
    let (old, new) = (Digest::new([8; 32]), Digest::new([9; 32]));
    for path in [images.path(&image(1), &old), images.path(&image(1), &new), images.path(&image(2), &old)] {
        std::fs::write(path, b"x").unwrap();
    }
    bed.offers.send_replace(offers_of(&bed.keys, new));
    let wanted = Needed { images: vec![needed(1)], ..Needed::default() };
    let (mut rows, mut troubles) = (vec![], BTreeMap::new());
    images.take_offers((&wanted, &vec![]), &mut rows, &mut troubles).await.unwrap();
    assert_eq!(images.ledger.bundles().await.unwrap(), rows);
    let names = |paths: &[PathBuf]| paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let kept: BTreeSet<String> = names(&[images.path(&image(1), &new), images.path(&image(2), &old)]);
    assert_eq!(files_in(&images.folder), kept);
}

/// With a bundle on its way it would count as not yet on the disk, and an engine with containerd's store would be made to load it again.
#[tokio::test]
async fn what_has_just_come_is_not_brought_again_before_those_who_need_it_look() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = bed(dir.path());
    let tell = |bed: &Bed, ended: u64| {
        bed.needed.send_replace(Arc::new(Needed { known: true, ended, images: vec![needed(1), needed(2)], ..Needed::default() }));
    };
    tell(&bed, 0);
    bed.offers.send_replace(offers_of(&bed.keys, Digest::new([9; 32])));
    let mut opened = bed.images.client.reach().opened();
    let mut carried = Carried::default();
    let mut turn = async |bed: &mut Bed, carried: &mut Carried| {
        // With nothing to do it waits.
        let _ = tokio::time::timeout(Duration::from_secs(1), bed.images.turn(carried, &mut opened)).await;
        let rows = bed.images.ledger.bundles().await.unwrap();
        (rows.iter().map(|r| r.image).collect::<Vec<_>>(), bed.images.asking.borrow().iter().copied().collect::<Vec<_>>())
    };
    // Its bundle has ended, and it has come.
    bed.images.ledger.end_bundle(image(1), vec![]).await.unwrap();
    carried.come.push((bed.images.ledger.bundles_ended(), image(1)));
    assert_eq!(turn(&mut bed, &mut carried).await, (vec![], vec![image(2)]));
    // They looked again, and it is lacking all the same: the same offer holds.
    tell(&bed, 1);
    assert_eq!(turn(&mut bed, &mut carried).await, (vec![image(1)], vec![image(2)]));
    assert!(carried.come.is_empty());
}

#[tokio::test]
async fn an_offer_that_led_nowhere_is_followed_again_only_after_another_answer() {
    let dir = tempfile::tempdir().unwrap();
    let bed = bed(dir.path());
    let images = &bed.images;
    let offers = offers_of(&bed.keys, Digest::new([9; 32]));
    let wanted = Needed { images: vec![needed(1)], ..Needed::default() };
    let mut troubles = BTreeMap::new();
    let mut turn = async || {
        let mut rows = vec![];
        let helped = images.take_offers((&wanted, &vec![]), &mut rows, &mut troubles).await.unwrap();
        images.ask(&wanted, &rows, &helped);
        assert_eq!(images.ledger.bundles().await.unwrap(), rows);
        (rows.len(), images.asking.borrow().len())
    };
    bed.offers.send_replace(Arc::clone(&offers));
    assert_eq!(turn().await, (1, 0));
    images.failed(image(1), WorkError::BaseGone(image(7)), false, &mut Trouble::default()).await.unwrap();
    assert_eq!(turn().await, (0, 1), "it is not followed, and another is asked for");
    bed.offers.send_replace(offers);
    assert_eq!(turn().await, (1, 0), "the server has answered, and knows of no other");
}

/// The server shows an image as on its way when a try begins: what stops it is news again then, and only then.
#[tokio::test]
async fn a_failure_is_told_once_unless_the_image_was_on_its_way_again() {
    let dir = tempfile::tempdir().unwrap();
    let images = bed(dir.path()).images;
    let mut trouble = Trouble::default();
    let reports = async || images.ledger.oldest_reports(10).await.unwrap().len();
    for expected in [1, 1] {
        images.failed(image(1), no_room(1), false, &mut trouble).await.unwrap();
        assert_eq!(reports().await, expected);
    }
    images.failed(image(1), WorkError::NoEngine, false, &mut trouble).await.unwrap();
    assert_eq!(reports().await, 1, "the link is no failure of the image");
    for n in 0..100 {
        images.failed(image(1), no_room(n), false, &mut trouble).await.unwrap();
        assert!(trouble.told.len() <= TOLD);
    }
    let stage = Stage::new(true, Asks::default(), 0);
    assert!(stage.is_fetching() && !stage.told_transit());
}

/// Three tries of a kept bundle, and the server is asked: what was killed three times was not tried.
#[tokio::test]
async fn a_killed_reconstruct_does_not_speak_against_its_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let images = bed(dir.path()).images;
    let killed = || WorkError::Make(parent::MakeError::Killed(std::os::unix::process::ExitStatusExt::from_raw(9)));
    let failed = || WorkError::Make(parent::MakeError::Failed("no".to_owned()));
    let full = || WorkError::Make(parent::MakeError::NoRoom("no".to_owned()));
    assert_eq!([killed(), full(), failed()].map(|e| e.verdict()), [Verdict::Keep; 3]);
    let mut trouble = Trouble::default();
    for (error, failures, faults) in [(killed(), 1, 0), (killed(), 2, 0), (failed(), 3, 1), (full(), 4, 1), (failed(), 5, 2)] {
        images.failed(image(1), error, false, &mut trouble).await.unwrap();
        assert_eq!((trouble.failures, trouble.faults), (failures, faults));
        // Kept bundles make room for scratch files.
        assert_eq!(trouble.lacks.take(), (failures == 4).then_some(0));
    }
}

/// Of a base that a needed image is made from nothing is fetched: when its file is not whole, it is let go, and not tried again at once.
#[tokio::test]
async fn a_base_whose_bundle_is_not_whole_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut images = bed(dir.path()).images;
    let row = row(image(1), Digest::new([9; 32]));
    let mut troubles = BTreeMap::new();
    for (error, is_needed, left) in [
        (WorkError::Waits, true, 1),
        (WorkError::Fetch(FetchError::Allowance), true, 1),
        (WorkError::Waits, false, 0),
        (WorkError::Fetch(FetchError::Allowance), false, 0),
    ] {
        images.ledger.put_bundle(row.clone()).await.unwrap();
        let stage = Stage::new(true, Asks::default(), 0);
        images.ended(&row, &stage, is_needed, Err(error), &mut troubles).await.unwrap();
        assert_eq!(images.ledger.bundles().await.unwrap().len(), left);
        assert!(troubles.is_empty());
    }
}

/// The server hashes its file again when it hears of it, so it must.
#[tokio::test]
async fn a_copy_of_the_server_that_is_wrong_is_told_and_keeps_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut images = bed(dir.path()).images;
    let row = row(image(1), Digest::new([9; 32]));
    let (path, mut troubles) = (images.path(&row.image, &row.digest), BTreeMap::new());
    std::fs::write(&path, b"x").unwrap();
    images.ledger.put_bundle(row.clone()).await.unwrap();
    for failures in 1..4 {
        let error = FetchError::Wrong { server: "https://127.0.0.1:9".to_owned(), have: 1, size: 9 };
        images.ended(&row, &Stage::new(true, Asks::default(), 8), true, Err(error.into()), &mut troubles).await.unwrap();
        assert_eq!(troubles[&image(1)].failures, failures, "waits grow");
        assert_eq!(images.ledger.oldest_reports(10).await.unwrap().len(), 1);
        assert!(path.exists() && images.ledger.bundles().await.unwrap().len() == 1);
    }
}

#[tokio::test]
async fn what_waits_is_told_once_and_shown_with_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut images = bed(dir.path()).images;
    images.terms.rules.budget = Some(Budget::new(100, 10, 80, 1).unwrap());
    let row = BundleRow { size: 91, ..row(image(1), Digest::new([9; 32])) };
    let (mut waits, until) = (Waits::new(), Some(Timestamp(1_772_488_859_999)));
    for (priority, left) in [(50, 90), (90, 100)] {
        images.ledger.change_keep(move |keep| keep.spent = skerry_transfer::Spent::default().plus(100 - left)).await.unwrap();
        let admission = images.admission(Asks { priority, on_delta_failure: None }, &row);
        // What no month could end takes what is left of it.
        let most = if priority == 50 { 80 } else { 91 };
        assert!(matches!(admission, Admission::Fetch { most: m, .. } if m == most), "{admission:?}");
    }
    for left in [5, 4] {
        let why = Wait::Budget { needs: 91, left };
        images.waits(image(1), &why, until, &mut waits).await.unwrap();
        let shown = images.progress.borrow().get(&image(1)).cloned().unwrap();
        assert!(shown.contains(&format!("{left} are left")) && shown.ends_with("until 2026-03-02 22:00 UTC"), "{shown}");
    }
    assert_eq!(images.ledger.oldest_reports(10).await.unwrap().len(), 1);
    images.waits(image(1), &Wait::Held, None, &mut waits).await.unwrap();
    // The newest takes the place of the one before.
    let reports = images.ledger.oldest_reports(10).await.unwrap();
    assert!(
        matches!(&reports[..], [r] if matches!(&r.event, Event::ImageWaiting { reason, .. } if reason.contains("held"))),
        "{reports:?}"
    );
}

/// A patch that failed is remembered over restarts, and a full bundle is asked for only where that is allowed.
#[tokio::test]
async fn a_failed_patch_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let images = bed(dir.path()).images;
    images
        .ledger
        .change_keep(|keep| {
            drop(keep.failed.insert(image(1), crate::ledger::FailedPatch { mark: Default::default(), why: "x".into(), full: false }))
        })
        .await
        .unwrap();
    let row = row(image(1), Digest::new([9; 32]));
    assert!(matches!(
        images.admission(Asks { priority: 50, on_delta_failure: None }, &row),
        Admission::Wait { why: Wait::Held, until: None }
    ));
    images.forget_failed(|_| true).await.unwrap();
    assert_eq!(images.ledger.keep().failed.len(), 1);
    images.forget_failed(|_| false).await.unwrap();
    assert!(matches!(images.admission(Asks { priority: 50, on_delta_failure: None }, &row), Admission::Fetch { .. }));
}
