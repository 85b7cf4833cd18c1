//! Reopening after kills, garbled files, marks that never go back, reports delivered once.

use super::*;
use skerry_trust::envelope;
use skerry_wire::limits;

use samples::{Keys, close, open};

fn accepted(counter: u64, names: &[&str]) -> Accepted {
    let keys = Keys::new();
    let specifications: Vec<_> = names.iter().map(|n| keys.specification(n, None)).collect();
    let named: Vec<_> = names.iter().copied().zip(specifications.iter().map(|s| s.0)).collect();
    let manifest = samples::manifest(counter, &named);
    let bytes = envelope::seal(&keys.director, Manifest::PURPOSE, &manifest);
    Accepted { manifest, bytes, specifications }
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.enrolled(NodeId::new([1; 16])).await.unwrap();
    ledger.accept(accepted(3, &["till"])).await.unwrap();
    ledger.commit(b"memory".to_vec(), vec![Event::ImagePresent { image: ImageId(Digest::new([1; 32])) }]).await.unwrap();
    ledger.saw_time(Timestamp(9000), Timestamp(i64::MAX), true).await.unwrap();
    let (desired, reports) = (ledger.desired(), ledger.oldest_reports(10).await.unwrap());
    assert_eq!(reports.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2]);
    // No orderly end: the file and its journal are taken as a kill leaves them.
    let other = tempfile::tempdir().unwrap();
    copy_folder(dir.path(), other.path());
    let again = open(other.path());
    assert_eq!(again.desired(), desired);
    assert_eq!(again.memory().unwrap(), b"memory");
    assert_eq!(again.node(), Some(NodeId::new([1; 16])));
    assert_eq!(again.time().at(), Timestamp(9000));
    assert_eq!(again.oldest_reports(10).await.unwrap(), reports);
    assert_eq!(again.watch_outbox().borrow().pending, 2);
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Each file of the data folder in turn cut short or garbled: what must run, the mark, the memory and the node's id survive.
#[tokio::test]
async fn any_one_file_garbled_loses_nothing_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.enrolled(NodeId::new([1; 16])).await.unwrap();
    ledger.accept(accepted(3, &["till"])).await.unwrap();
    ledger.accept(accepted(4, &["till", "signage"])).await.unwrap();
    ledger.commit(b"memory".to_vec(), vec![]).await.unwrap();
    let desired = ledger.desired();
    close(ledger, dir.path()).await;

    let mut files = Vec::new();
    list(dir.path(), Path::new(""), &mut files);
    assert!(files.len() >= 8, "{files:?}");
    for file in &files {
        let whole = std::fs::read(dir.path().join(file)).unwrap();
        let damages: Vec<Vec<u8>> = [0, 1, whole.len() / 2, whole.len().saturating_sub(1)]
            .iter()
            .flat_map(|&at| {
                let mut flipped = whole.clone();
                if let Some(byte) = flipped.get_mut(at) {
                    *byte ^= 0x55;
                }
                [whole[..at.min(whole.len())].to_vec(), flipped]
            })
            .collect();
        for damage in damages {
            let other = tempfile::tempdir().unwrap();
            copy_folder(dir.path(), other.path());
            std::fs::write(other.path().join(file), &damage).unwrap();
            for _ in 0..2 {
                // The second time everything has been mended and is read from the other copy.
                let again = open(other.path());
                assert_eq!(again.desired(), desired, "{}", file.display());
                assert_eq!(again.memory().as_deref(), Some(&b"memory"[..]), "{}", file.display());
                assert_eq!(again.node(), Some(NodeId::new([1; 16])), "{}", file.display());
                close(again, other.path()).await;
            }
        }
    }
}

/// SQLite passes over what is garbled in its journal and goes on from before. The copies are then newer than the ledger, and count.
#[tokio::test]
async fn a_garbled_journal_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let meta = |value: &str| LocalMeta::from([("site".to_owned(), Some(value.to_owned()))]);
    for (counter, memory) in [(3, "one"), (4, "two")] {
        ledger.accept(accepted(counter, &["till"])).await.unwrap();
        ledger.set_local_meta(meta(memory)).await.unwrap();
        ledger.set_confirmed(Confirmed { fingerprint: Some(sha256(memory.as_bytes())), inventory: None }).await.unwrap();
        ledger.commit(memory.into(), vec![failed(memory)]).await.unwrap();
    }
    let (desired, used) = (ledger.desired(), ledger.oldest_reports(100).await.unwrap().last().unwrap().seq);
    // As a kill leaves them: the journal is not folded into the ledger.
    let killed = tempfile::tempdir().unwrap();
    copy_folder(dir.path(), killed.path());
    let whole = std::fs::read(killed.path().join("ledger.sqlite-wal")).unwrap();
    let mut went_back = 0;
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut garbled = whole.clone();
        garbled[at] ^= 0x55;
        for damage in [garbled, whole[..at].to_vec()] {
            let other = tempfile::tempdir().unwrap();
            copy_folder(killed.path(), other.path());
            std::fs::write(other.path().join("ledger.sqlite-wal"), &damage).unwrap();
            for _ in 0..2 {
                let again = open(other.path());
                assert_eq!(again.desired(), desired, "at {at}");
                assert_eq!(again.memory().as_deref(), Some(&b"two"[..]), "at {at}");
                assert_eq!(again.local_meta().await.unwrap(), meta("two"), "at {at}");
                let confirmed = again.confirmed().await.unwrap().fingerprint;
                assert!([None, Some(sha256(b"two"))].contains(&confirmed), "at {at}: it would not tell the server what changed");
                went_back += usize::from(confirmed.is_none());
                again.push_events(vec![failed("new")]).await.unwrap();
                let seq = again.oldest_reports(100).await.unwrap().last().unwrap().seq;
                assert!(seq > used, "at {at}: report {seq} was used for another before");
                close(again, other.path()).await;
            }
        }
    }
    assert!(went_back > 60, "the journal held nothing");
}

/// A commit is cut off between its row and its copy: the row counts, and its copy is made anew.
#[tokio::test]
async fn of_two_memories_the_newer_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.commit(b"one".to_vec(), vec![]).await.unwrap();
    let before = std::fs::read(dir.path().join("copies/memory")).unwrap();
    ledger.commit(b"two".to_vec(), vec![]).await.unwrap();
    close(ledger, dir.path()).await;
    let newest = std::fs::read(dir.path().join("copies/memory")).unwrap();
    std::fs::write(dir.path().join("copies/memory"), &before).unwrap();
    let again = open(dir.path());
    assert_eq!(again.memory().as_deref(), Some(&b"two"[..]));
    assert_eq!(std::fs::read(dir.path().join("copies/memory")).unwrap(), newest);
    // Numbers go on: what is committed now is newer than both.
    again.commit(b"three".to_vec(), vec![]).await.unwrap();
    close(again, dir.path()).await;
    std::fs::write(dir.path().join("copies/memory"), &newest).unwrap();
    assert_eq!(open(dir.path()).memory().as_deref(), Some(&b"three"[..]));
}

fn list(folder: &Path, below: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() { list(folder, &path, files) } else { files.push(path) }
    }
}

/// Pages inside the ledger that hold the values are garbled too, not only its ends.
#[tokio::test]
async fn a_ledger_garbled_anywhere_is_mended_or_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.accept(accepted(4, &["till"])).await.unwrap();
    ledger.commit(b"memory".to_vec(), vec![]).await.unwrap();
    let desired = ledger.desired();
    close(ledger, dir.path()).await;
    let whole = std::fs::read(dir.path().join("ledger.sqlite")).unwrap();
    for at in (0..whole.len()).step_by(509) {
        let other = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), other.path());
        let mut garbled = whole.clone();
        for byte in garbled.iter_mut().skip(at).take(64) {
            *byte = !*byte;
        }
        std::fs::write(other.path().join("ledger.sqlite"), &garbled).unwrap();
        let again = open(other.path());
        assert_eq!(again.desired(), desired, "at {at}");
        assert_eq!(again.memory().as_deref(), Some(&b"memory"[..]), "at {at}");
        again.push_events(vec![Event::ManifestAccepted { mark: Mark::default() }]).await.unwrap();
        assert!(!again.oldest_reports(100).await.unwrap().is_empty(), "at {at}");
        close(again, other.path()).await;
    }
}

/// Cut short at many bytes, at the ends of pages too, as it was closed and as a kill leaves it, with a journal that says more than the ledger has.
#[tokio::test]
async fn a_ledger_cut_anywhere_is_mended_or_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    // Over several pages, which SQLite reads past its cache.
    let memory = vec![7; 20_000];
    let ledger = open(dir.path());
    ledger.accept(accepted(3, &["till"])).await.unwrap();
    ledger.commit(vec![6; 20_000], vec![]).await.unwrap();
    close(ledger, dir.path()).await;
    let ledger = open(dir.path());
    ledger.accept(accepted(4, &["till"])).await.unwrap();
    ledger.commit(memory.clone(), vec![]).await.unwrap();
    let desired = ledger.desired();
    let killed = tempfile::tempdir().unwrap();
    copy_folder(dir.path(), killed.path());
    assert!(std::fs::metadata(killed.path().join("ledger.sqlite-wal")).unwrap().len() > 0);
    close(ledger, dir.path()).await;
    for from in [dir.path(), killed.path()] {
        let whole = std::fs::read(from.join("ledger.sqlite")).unwrap();
        for at in (0..whole.len()).step_by(509).chain((0..whole.len()).step_by(4096)) {
            let other = tempfile::tempdir().unwrap();
            copy_folder(from, other.path());
            std::fs::write(other.path().join("ledger.sqlite"), &whole[..at]).unwrap();
            let again = open(other.path());
            assert_eq!(again.desired(), desired, "at {at}");
            assert_eq!(again.memory().as_ref(), Some(&memory), "at {at}");
            close(again, other.path()).await;
        }
    }
}

/// The head of the file says how to read it, and of which version it is: one wrong byte there must not keep the agent from starting.
#[tokio::test]
async fn any_byte_of_the_ledgers_head_may_be_garbled() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.accept(accepted(4, &["till"])).await.unwrap();
    ledger.commit(b"memory".to_vec(), vec![]).await.unwrap();
    let desired = ledger.desired();
    close(ledger, dir.path()).await;
    let whole = std::fs::read(dir.path().join("ledger.sqlite")).unwrap();
    for (at, mask) in (0..100).flat_map(|at| [1, 0xff].map(|mask| (at, mask))) {
        let other = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), other.path());
        let mut garbled = whole.clone();
        garbled[at] ^= mask;
        std::fs::write(other.path().join("ledger.sqlite"), &garbled).unwrap();
        let again = open(other.path());
        assert_eq!(again.desired(), desired, "at {at}");
        assert_eq!(again.memory().as_deref(), Some(&b"memory"[..]), "at {at}");
        close(again, other.path()).await;
    }
}

/// The numbers of reports that say that others may be lost.
fn given_up(reports: &[Report]) -> Vec<u64> {
    let told = |report: &&Report| matches!(&report.event, Event::Dropped { count: 0, reason } if reason == super::store::LOST_REPORTS);
    reports.iter().filter(told).map(|report| report.seq).collect()
}

/// P8: reports that are lost with the ledger are told as given up, under a number of their own.
#[tokio::test]
async fn reports_lost_with_the_ledger_are_told_as_given_up() {
    // A memory has a copy of its own that tells of the loss; before the first one the mark does.
    for with_memory in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        ledger.accept(accepted(4, &["till"])).await.unwrap();
        if with_memory {
            ledger.commit(b"memory".to_vec(), vec![Event::ManifestAccepted { mark: Mark::default() }]).await.unwrap();
        }
        let before = ledger.oldest_reports(100).await.unwrap();
        close(ledger, dir.path()).await;
        let path = dir.path().join("ledger.sqlite");
        let whole = std::fs::read(&path).unwrap();

        let again = open(dir.path());
        assert_eq!(again.oldest_reports(100).await.unwrap(), before, "nothing was damaged");
        close(again, dir.path()).await;

        for damaged in [&whole[..0], &whole[..whole.len() / 2], &[7; 100]] {
            let when = format!("{} bytes, with a memory: {with_memory}", damaged.len());
            std::fs::write(&path, damaged).unwrap();
            let again = open(dir.path());
            let told = given_up(&again.oldest_reports(100).await.unwrap());
            assert!(told.len() == 1 && told[0] > before.last().unwrap().seq, "{when}: {told:?}");
            close(again, dir.path()).await;
            let again = open(dir.path());
            assert_eq!(given_up(&again.oldest_reports(100).await.unwrap()), told, "{when}: once");
            close(again, dir.path()).await;
        }
    }
}

/// The same for a ledger that went back to before it accepted something: the mark beside it tells.
#[tokio::test]
async fn a_ledger_that_went_back_tells_that_reports_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let ledger = open(dir.path());
    ledger.accept(accepted(4, &["till"])).await.unwrap();
    close(ledger, dir.path()).await;
    let older = std::fs::read(&path).unwrap();
    let ledger = open(dir.path());
    ledger.accept(accepted(5, &["till"])).await.unwrap();
    let last = ledger.oldest_reports(100).await.unwrap().last().map_or(0, |report| report.seq);
    close(ledger, dir.path()).await;
    std::fs::write(&path, older).unwrap();
    for start in ["first", "second"] {
        let ledger = open(dir.path());
        let told = given_up(&ledger.oldest_reports(100).await.unwrap());
        assert!(told.len() == 1 && told[0] > last, "{start} start: {told:?}");
        assert_eq!(ledger.desired().mark.counter, 5);
        close(ledger, dir.path()).await;
    }
}

#[tokio::test]
async fn marks_never_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.accept(accepted(5, &["till"])).await.unwrap();
    let desired = ledger.desired();
    for counter in [5, 4, 0] {
        ledger.accept(accepted(counter, &["other"])).await.unwrap();
        assert_eq!(ledger.desired(), desired);
    }
    close(ledger, dir.path()).await;
    // The ledger and the manifest's copies are lost; the slots still know the mark.
    for name in ["ledger.sqlite", "copies/manifest"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let again = open(dir.path());
    assert_eq!((again.desired().mark.counter, again.desired().manifest.is_none()), (5, true));
    again.accept(accepted(5, &["other"])).await.unwrap();
    assert!(again.desired().manifest.is_none());
    again.accept(accepted(6, &["other"])).await.unwrap();
    assert_eq!(again.desired().manifest.as_ref().unwrap().mark.counter, 6);
}

#[tokio::test]
async fn specifications_that_nobody_needs_go() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let old = accepted(1, &["old", "older"]);
    let (kept, gone) = (old.specifications[0].0, old.specifications[1].0);
    ledger.accept(old).await.unwrap();
    let new = accepted(2, &["new"]);
    let named = new.specifications[0].0;
    ledger.accept(new).await.unwrap();
    assert_eq!(ledger.desired().specifications.len(), 3);
    ledger.retain(BTreeSet::from([kept])).await.unwrap();
    let held: BTreeSet<_> = ledger.desired().specifications.keys().copied().collect();
    assert_eq!(held, BTreeSet::from([kept, named]));
    assert!(!dir.path().join("copies/specifications").join(gone.hex()).exists());
    close(ledger, dir.path()).await;
    assert_eq!(open(dir.path()).desired().specifications.len(), 2);
}

fn in_transit(image: u8, have: u64) -> Event {
    Event::ImageInTransit { image: ImageId(Digest::new([image; 32])), have, size: 100 }
}

fn failed(reason: &str) -> Event {
    Event::ImageFailed { image: ImageId(Digest::new([9; 32])), reason: reason.to_owned() }
}

#[tokio::test]
async fn reports_leave_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let waits = Event::ImageWaiting { image: ImageId(Digest::new([1; 32])), reason: "waits".to_owned() };
    // Nights come and go while the server is away: of what an image waits for only the newest is kept.
    ledger.push_events(vec![in_transit(1, 0), failed("a"), waits, in_transit(1, 50), in_transit(2, 1)]).await.unwrap();
    let reports = ledger.oldest_reports(10).await.unwrap();
    // The first reports of image 1 gave their place to the third.
    assert_eq!(reports.iter().map(|r| r.event.clone()).collect::<Vec<_>>(), [failed("a"), in_transit(1, 50), in_transit(2, 1)]);
    assert_eq!(reports.iter().map(|r| r.seq).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(reports.iter().all(|r| r.at == Timestamp(1000)));
    ledger.acknowledged(4).await.unwrap();
    assert_eq!(ledger.oldest_reports(10).await.unwrap(), reports[2..]);
    ledger.acknowledged(5).await.unwrap();
    assert_eq!(ledger.watch_outbox().borrow().pending, 0);
    close(ledger, dir.path()).await;
    // Sequences go on after a restart with an empty outbox.
    let again = open(dir.path());
    again.push_events(vec![failed("b")]).await.unwrap();
    assert_eq!(again.oldest_reports(10).await.unwrap()[0].seq, 6);
}

#[tokio::test]
async fn a_server_that_knows_more_reports_gets_new_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.push_events(vec![failed("a"), failed("b")]).await.unwrap();
    ledger.acknowledged(500).await.unwrap();
    let reports = ledger.oldest_reports(10).await.unwrap();
    assert_eq!(reports.iter().map(|r| (r.seq, &r.event)).collect::<Vec<_>>(), [(501, &failed("a")), (502, &failed("b"))]);
    ledger.push_events(vec![failed("c")]).await.unwrap();
    assert_eq!(ledger.oldest_reports(10).await.unwrap()[2].seq, 503);
    ledger.acknowledged(600).await.unwrap();
    assert_eq!(ledger.oldest_reports(10).await.unwrap()[0].seq, 1101);
}

#[tokio::test]
async fn no_number_that_the_server_has_is_used_where_nothing_waits() {
    // By how much it is above the next number: not at all, and by some.
    for above in [0, 1, 40] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        ledger.push_events(vec![failed("a")]).await.unwrap();
        ledger.acknowledged(1).await.unwrap();
        assert_eq!(ledger.oldest_reports(10).await.unwrap(), []);
        ledger.acknowledged(2 + above).await.unwrap();
        ledger.push_events(vec![failed("b")]).await.unwrap();
        let seq = ledger.oldest_reports(10).await.unwrap()[0].seq;
        assert!(seq > 2 + above, "{seq} with the server at {}", 2 + above);
    }
}

#[tokio::test]
async fn a_full_outbox_counts_what_it_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.push_events(vec![Event::Dropped { count: 0, reason: super::store::LOST_REPORTS.to_owned() }]).await.unwrap();
    ledger.push_events((0..200).map(|n| in_transit(n, 1)).collect()).await.unwrap();
    let many = 10_000u64;
    for _ in 0..many / 100 {
        ledger.push_events(vec![failed("x"); 100]).await.unwrap();
    }
    let reports = ledger.oldest_reports(usize::MAX >> 1).await.unwrap();
    let kept = u64::try_from(reports.len()).unwrap();
    assert!((outbox::ROWS - 200..=outbox::ROWS).contains(&kept), "{kept} kept: no more is given up than must be");
    let dropped: u64 = reports.iter().map(|r| if let Event::Dropped { count, .. } = &r.event { *count } else { 0 }).sum();
    let told = reports.iter().filter(|r| r.event == failed("x")).count();
    assert_eq!(dropped + u64::try_from(told).unwrap(), many + 200, "every report is told or counted");
    assert!(!reports.iter().any(|r| matches!(r.event, Event::ImageInTransit { .. })), "progress goes first");
    assert!(reports.windows(2).all(|w| w[0].seq < w[1].seq));
    let why = |words: &str| reports.iter().any(|r| matches!(&r.event, Event::Dropped { reason, .. } if reason.contains(words)));
    assert!(why("outbox was full") && why(super::store::LOST_REPORTS), "a reason is given up with what it is of");
}

#[tokio::test]
async fn long_reasons_are_cut_and_polls_stay_within_their_limit() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.push_events(vec![failed(&"ä".repeat(100_000))]).await.unwrap();
    let reports = ledger.oldest_reports(limits::REPORTS_PER_POLL).await.unwrap();
    assert!(skerry_wire::cbor::encode(&reports).len() < 2200);
}

#[tokio::test]
async fn bundles_end_with_their_report() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let image = ImageId(Digest::new([3; 32]));
    let row = BundleRow { image, digest: Digest::new([4; 32]), size: 10, capability: "ab".to_owned(), release: vec![1, 2] };
    ledger.put_bundle(row.clone()).await.unwrap();
    ledger.put_bundle(BundleRow { capability: "cd".to_owned(), ..row.clone() }).await.unwrap();
    assert_eq!(ledger.bundles().await.unwrap(), [BundleRow { capability: "cd".to_owned(), ..row }]);
    ledger.end_bundle(image, vec![Event::ImagePresent { image }]).await.unwrap();
    assert_eq!(ledger.bundles().await.unwrap(), []);
    assert_eq!(ledger.oldest_reports(5).await.unwrap().len(), 1);
}

#[test]
fn a_newer_ledger_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(dir.path().join("ledger.sqlite")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Ledger::open(dir.path(), Timestamp(0)).unwrap_err().to_string();
    assert!(error.contains("version 99"), "{error}");
}

/// A commit that fails half-way has done nothing: tried again, it reports once.
#[tokio::test]
async fn a_commit_whose_copy_cannot_be_written_reports_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let events = vec![Event::ImagePresent { image: ImageId(Digest::new([1; 32])) }];
    let obstacle = dir.path().join("copies/memory.new");
    std::fs::create_dir(&obstacle).unwrap();
    assert!(ledger.commit(b"one".to_vec(), events.clone()).await.is_err());
    std::fs::remove_dir(&obstacle).unwrap();
    ledger.commit(b"one".to_vec(), events).await.unwrap();
    assert_eq!(ledger.oldest_reports(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_acknowledgement_of_what_was_never_sent_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.push_events(vec![Event::ImagePresent { image: ImageId(Digest::new([1; 32])) }]).await.unwrap();
    for seq in [u64::MAX, i64::MAX as u64] {
        ledger.acknowledged(seq).await.unwrap();
        assert_eq!(ledger.oldest_reports(10).await.unwrap()[0].seq, 1);
    }
}

#[tokio::test]
async fn nobody_else_reads_the_ledger() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ledger.sqlite"), b"").unwrap();
    std::fs::set_permissions(dir.path().join("ledger.sqlite"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let ledger = open(dir.path());
    ledger.accept(accepted(3, &["till"])).await.unwrap();
    for name in ["ledger.sqlite", "ledger.sqlite-wal"] {
        assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
}

/// The index of the journal is worth nothing after a power cut: as a mapped file its pages would wear the disk all the same.
#[tokio::test]
async fn no_index_of_the_journal_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.commit(b"one".to_vec(), vec![failed("a")]).await.unwrap();
    assert!(dir.path().join("ledger.sqlite-wal").exists() && !dir.path().join("ledger.sqlite-shm").exists());
    let killed = tempfile::tempdir().unwrap();
    copy_folder(dir.path(), killed.path());
    close(ledger, dir.path()).await;
    // An agent before this one, killed, has left one.
    let left = vec![0x55; 32 * 1024];
    std::fs::write(killed.path().join("ledger.sqlite-shm"), &left).unwrap();
    let again = open(killed.path());
    assert_eq!(again.memory().as_deref(), Some(&b"one"[..]), "what it left counts for nothing");
    again.commit(b"two".to_vec(), vec![]).await.unwrap();
    assert_eq!(std::fs::read(killed.path().join("ledger.sqlite-shm")).unwrap(), left);
}

/// The bound of time moves on a disk that is full, and without a new name in its folder.
#[tokio::test]
async fn the_bound_of_time_has_its_room_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let slots = ["time.0", "time.1"].map(|name| dir.path().join(name));
    let lengths = || slots.each_ref().map(|slot| std::fs::metadata(slot).map_or(0, |m| m.len()));
    let ledger = open(dir.path());
    assert_eq!(lengths(), [512, 512]);
    for ms in [5_000, 6_000, 7_000] {
        ledger.saw_time(Timestamp(ms), Timestamp(i64::MAX), true).await.unwrap();
        assert_eq!(lengths(), [512, 512]);
    }
    close(ledger, dir.path()).await;
    // A slot that was lost is made again, and what the other holds is there.
    std::fs::remove_file(&slots[1]).unwrap();
    let again = open(dir.path());
    assert_eq!((again.time().at(), lengths()), (Timestamp(7_000), [512, 512]));
}
