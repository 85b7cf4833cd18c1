//! What stays of bundles on the disk. No engine answers here: nothing of this may need one.

use super::*;
use crate::ledger::samples::Keys;
use skerry_engine::DockerEngine;
use skerry_reconcile::NeededImage;
use skerry_trust::envelope;
use skerry_wire::release::Release;
use skerry_wire::{Blob, Timestamp};
use std::path::Path;

fn image(n: u8) -> ImageId {
    ImageId(Digest::new([n; 32]))
}

fn needed(n: u8) -> NeededImage {
    NeededImage { image: image(n), reference: "till:1".to_owned(), priority: 50, job: "till".to_owned() }
}

fn row(image: ImageId, digest: Digest) -> BundleRow {
    BundleRow { image, digest, size: 9, capability: "0af3".to_owned(), release: vec![] }
}

struct Bed {
    images: Images<DockerEngine>,
    keys: Keys,
    offers: watch::Sender<Offers>,
    _needed: watch::Sender<Arc<Needed>>,
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
        client: Client::new("https://127.0.0.1:9", ca.as_bytes(), 65536, ledger.watch_time()).unwrap(),
        ledger,
        roots: RootStore::open(folder, &first).unwrap(),
        folder: bundles,
        needed,
        offers,
        asking: watch::channel(Arc::default()).0,
        wake: Arc::default(),
        inventory: watch::channel(None).0,
        progress: watch::channel(Progress::default()).0,
    };
    Bed { images, keys, offers: offers_to, _needed: needed_to, _facts: facts_to }
}

fn files_in(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn files_of_bundles_go_when_their_image_is_here_and_stay_while_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let images = bed(dir.path()).images;
    let digest = Digest::new([9; 32]);
    let file = |n| images.path(&image(n), &digest);
    for n in 1..=4 {
        std::fs::write(file(n), b"x").unwrap();
    }
    // 1 is here and its bundle ended, 2 is here and its bundle has not ended, 3 is lacking, 4 is of no interest.
    images.inventory.send_replace(Some(Inventory { images: vec![image(1), image(2)] }));
    images.ledger.put_bundle(row(image(2), digest)).await.unwrap();
    let wanted = Needed { images: vec![needed(1), needed(2), needed(3)], ..Needed::default() };
    let mut rows = images.ledger.bundles().await.unwrap();
    images.drop_unneeded(&wanted, &mut rows).await.unwrap();
    assert_eq!([1, 2, 3, 4].map(|n| file(n).exists()), [false, true, true, false]);
    assert_eq!(rows.len(), 1);
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
    let release = Blob(envelope::seal(&bed.keys.release, Release::PURPOSE, &release));
    let offer = OfferState::Ready { digest: new, size: 9, capability: "0af3".to_owned(), release };
    bed.offers.send_replace(Arc::new(BTreeMap::from([(image(1), offer)])));
    let wanted = Needed { images: vec![needed(1)], ..Needed::default() };
    let (mut rows, mut troubles) = (vec![], BTreeMap::new());
    images.take_offers(&wanted, &mut rows, &mut troubles).await.unwrap();
    assert_eq!(images.ledger.bundles().await.unwrap(), rows);
    let names = |paths: &[PathBuf]| paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let kept: BTreeSet<String> = names(&[images.path(&image(1), &new), images.path(&image(2), &old)]);
    assert_eq!(files_in(&images.folder), kept);
}

/// The server shows an image as on its way when a try begins: what stops it is news again then, and only then.
#[tokio::test]
async fn a_failure_is_told_once_unless_the_image_was_on_its_way_again() {
    let dir = tempfile::tempdir().unwrap();
    let images = bed(dir.path()).images;
    let mut trouble = Trouble::default();
    let reports = async || images.ledger.oldest_reports(10).await.unwrap().len();
    for expected in [1, 1] {
        images.failed(image(1), WorkError::Space("no room".to_owned()), &mut trouble).await.unwrap();
        assert_eq!(reports().await, expected);
    }
    images.failed(image(1), WorkError::NoEngine, &mut trouble).await.unwrap();
    assert_eq!(reports().await, 1, "the link is no failure of the image");
    for n in 0..100 {
        images.failed(image(1), WorkError::Space(format!("{n} MiB free")), &mut trouble).await.unwrap();
        assert!(trouble.told.len() <= TOLD);
    }
    let stage = Stage::new(true);
    assert!(stage.is_fetching() && !stage.told_transit());
}
