//! What is kept comes back after a restart, whichever of its two places was lost; what is told of the outbox is what is in it.

use skerry_reconcile::{Order, OrderKind};
use skerry_transfer::Idle;
use skerry_trust::envelope;
use skerry_wire::limits;

use super::keep::{FailedPatch, Removed};
use super::samples::{self, Keys, close, open};
use super::*;

fn image(n: u8) -> ImageId {
    ImageId(Digest::new([n; 32]))
}

fn failed(reason: &str) -> Event {
    Event::ImageFailed { image: image(9), reason: reason.to_owned() }
}

fn accepted(counter: u64) -> Accepted {
    let keys = Keys::new();
    let specification = keys.specification("till", Some(image(7)));
    let manifest = samples::manifest(counter, &[("till", specification.0)]);
    let bytes = envelope::seal(&keys.director, Manifest::PURPOSE, &manifest);
    Accepted { manifest, bytes, specifications: vec![specification] }
}

#[tokio::test]
async fn what_was_said_on_the_node_and_by_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let order = |id| Order { id, alloc: AllocId::new([1; 16]), kind: OrderKind::Retry };
    let confirmed = Confirmed { fingerprint: Some(sha256(b"facts")), inventory: Some(sha256(b"images")) };
    let ledger = open(dir.path());
    assert_eq!((ledger.confirmed().await.unwrap(), ledger.orders().len()), (Confirmed::default(), 0));
    ledger.set_confirmed(confirmed).await.unwrap();
    for id in 1..=3 {
        ledger.order(order(id)).await.unwrap();
    }
    ledger.orders_done(vec![2, 9]).await.unwrap();
    ledger.set_local_meta(LocalMeta::from([("site".into(), Some("pier".into()))])).await.unwrap();
    ledger.set_local_meta(LocalMeta::from([("site".into(), None)])).await.unwrap();
    close(ledger, dir.path()).await;
    let again = open(dir.path());
    assert_eq!(again.confirmed().await.unwrap(), confirmed);
    assert_eq!(*again.orders(), [order(1), order(3)]);
    assert_eq!(again.local_meta().await.unwrap(), LocalMeta::from([("site".into(), None)]));
    // Nobody gives so many: the oldest go.
    for id in 4..=70 {
        again.order(order(id)).await.unwrap();
    }
    assert_eq!(again.orders().iter().map(|o| o.id).collect::<Vec<_>>(), (7..=70).collect::<Vec<_>>());
    // One of the places of the meta is enough.
    close(again, dir.path()).await;
    std::fs::remove_file(dir.path().join("ledger.sqlite")).unwrap();
    let again = open(dir.path());
    assert_eq!(again.local_meta().await.unwrap(), LocalMeta::from([("site".into(), None)]));
}

#[tokio::test]
async fn what_is_remembered_of_images() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let idle = Idle { image: image(1), since: Timestamp(5) };
    let patch = FailedPatch { mark: samples::mark(3), why: "why".to_owned(), full: true };
    let (one, two) = (idle, patch.clone());
    ledger
        .change_keep(move |keep| {
            keep.idle.push(one);
            keep.failed.insert(image(2), two);
            keep.removed.extend((0..20).map(|n| Removed { image: image(n), why: "full".to_owned(), at: Timestamp(n.into()) }));
        })
        .await
        .unwrap();
    let kept = ledger.keep();
    assert_eq!((kept.idle.as_slice(), &kept.failed[&image(2)]), ([idle].as_slice(), &patch));
    assert_eq!(kept.removed.iter().map(|r| r.at.0).collect::<Vec<_>>(), (4..20).collect::<Vec<_>>());
    close(ledger, dir.path()).await;
    assert_eq!(open(dir.path()).keep(), kept);
}

/// The ledger, the slots of the mark and the copies: any two of them may go.
#[tokio::test]
async fn a_mark_in_three_places() {
    let lost: [&[&str]; 3] =
        [&["ledger.sqlite", "copies/manifest"], &["mark.0", "mark.1", "copies/manifest"], &["ledger.sqlite", "mark.0", "mark.1"]];
    for (at, first) in lost.into_iter().enumerate() {
        // The manifest that was lost with its copy comes from nowhere: after the first of these the mark has two places.
        for second in lost.into_iter().take(if at == 0 { 2 } else { 3 }) {
            let dir = tempfile::tempdir().unwrap();
            let ledger = open(dir.path());
            ledger.accept(accepted(5)).await.unwrap();
            close(ledger, dir.path()).await;
            // What is left fills the other places again.
            for names in [first, second] {
                for name in names {
                    let _ = std::fs::remove_file(dir.path().join(name));
                }
                let again = open(dir.path());
                assert_eq!(again.desired().mark, samples::mark(5), "{first:?}, {second:?}");
                close(again, dir.path()).await;
            }
        }
    }
}

#[tokio::test]
async fn an_older_copy_of_the_manifest_is_made_new() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let copy = dir.path().join("copies/manifest");
    ledger.accept(accepted(3)).await.unwrap();
    let older = std::fs::read(&copy).unwrap();
    ledger.accept(accepted(4)).await.unwrap();
    let (newer, desired) = (std::fs::read(&copy).unwrap(), ledger.desired());
    close(ledger, dir.path()).await;
    std::fs::write(&copy, &older).unwrap();
    let again = open(dir.path());
    assert_eq!((again.desired(), std::fs::read(&copy).unwrap()), (desired, newer));
    close(again, dir.path()).await;
}

#[tokio::test]
async fn the_nodes_id_in_two_places() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.enrolled(samples::node()).await.unwrap();
    close(ledger, dir.path()).await;
    for name in ["copies/node", "ledger.sqlite", "copies/node"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let again = open(dir.path());
        assert_eq!(again.node(), Some(samples::node()), "without {name}");
        close(again, dir.path()).await;
        assert!(dir.path().join(name).exists(), "{name} was not made again");
    }
}

#[test]
fn what_is_missing_refused_and_named() {
    let keys = Keys::new();
    let ((held, _, content), (lacking, ..)) = (keys.specification("till", Some(image(7))), keys.specification("sign", None));
    let manifest = samples::manifest(3, &[("till", held), ("sign", lacking)]);
    let ids: Vec<AllocId> = manifest.allocs.iter().map(|a| a.id).collect();
    let mut desired = Desired { manifest: Some(manifest), specifications: BTreeMap::from([(held, content)]), ..Desired::default() };
    assert_eq!((desired.missing(), desired.images()), (BTreeSet::from([lacking]), BTreeSet::from([image(7)])));
    assert_eq!(desired.refused(), BTreeMap::new());
    desired.newer.insert(lacking, "a newer job".to_owned());
    desired.newer_allocs.insert(ids[0], "a newer field".to_owned());
    assert_eq!(desired.refused(), BTreeMap::from([(ids[0], "a newer field".to_owned()), (ids[1], "a newer job".to_owned())]));
}

#[tokio::test]
async fn the_outbox_tells_what_changed_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let mut outbox = ledger.watch_outbox();
    let transit = |have| Event::ImageInTransit { image: image(1), have, size: 100 };
    let mut seen = (0, 0);
    // (what comes, reports that wait, how often one of them was urgent)
    let come = [(vec![transit(1)], 1, 0), (vec![failed("a")], 2, 1), (vec![transit(2), failed("b")], 3, 2), (vec![transit(3)], 3, 2)];
    for (events, pending, urgent) in come {
        ledger.push_events(events.clone()).await.unwrap();
        assert_eq!(outbox.has_changed().unwrap(), seen != (pending, urgent), "{events:?}");
        let state = *outbox.borrow_and_update();
        assert_eq!((state.pending, state.urgent), (pending, urgent), "{events:?}");
        seen = (pending, urgent);
    }
    ledger.push_events(vec![]).await.unwrap();
    assert!(!outbox.has_changed().unwrap(), "nothing came");
    // Every reply acknowledges: the disk is written, and the others told, only when it is news.
    let newest = ledger.oldest_reports(10).await.unwrap().last().unwrap().seq;
    ledger.acknowledged(newest).await.unwrap();
    assert_eq!(outbox.borrow_and_update().pending, 0);
    let journal = dir.path().join("ledger.sqlite-wal");
    let before = std::fs::metadata(&journal).unwrap();
    for seq in 0..=newest {
        ledger.acknowledged(seq).await.unwrap();
    }
    let after = std::fs::metadata(&journal).unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()), "written for nothing");
    assert!(!outbox.has_changed().unwrap());
}

/// A server that has just one more report than the ledger gave numbers to: it is of a ledger before this one.
#[tokio::test]
async fn the_first_number_that_was_never_given() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.push_events(vec![failed("a"), failed("b")]).await.unwrap();
    ledger.acknowledged(3).await.unwrap();
    let reports = ledger.oldest_reports(10).await.unwrap();
    assert_eq!(reports.iter().map(|r| (r.seq, &r.event)).collect::<Vec<_>>(), [(4, &failed("a")), (5, &failed("b"))]);
}

#[tokio::test]
async fn reports_of_one_poll_fit_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.push_events(vec![failed(&"x".repeat(2000)); 600]).await.unwrap();
    let reports = ledger.oldest_reports(10_000).await.unwrap();
    let bytes = skerry_wire::cbor::encode(&reports).len();
    assert!(bytes <= limits::POLL_REQUEST / 2 + 64 * reports.len(), "{bytes} bytes");
    assert!((200..300).contains(&reports.len()), "{} reports", reports.len());
}
