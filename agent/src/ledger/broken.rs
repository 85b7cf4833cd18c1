//! A disk that gives errors, for a while: what was kept is there afterwards, what failed says so, and the ledger is not taken for garbled; nor is one
//! that somebody else holds.

use skerry_testkit::powercut::Watched;

use super::samples::Keys;
use super::*;

fn event(n: u8) -> Event {
    Event::ImagePresent { image: ImageId(Digest::new([n; 32])) }
}

async fn numbers(ledger: &Ledger) -> Vec<u64> {
    ledger.oldest_reports(100).await.unwrap().iter().map(|r| r.seq).collect()
}

#[tokio::test]
async fn errors_of_the_disk_cost_nothing_that_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let watched = Watched::start(folder.path()).unwrap();
    let ledger = Ledger::open(folder.path(), Timestamp(1000)).unwrap();
    ledger.enrolled(NodeId::new([1; 16])).await.unwrap();
    ledger.commit(vec![7; 3000], vec![event(1)]).await.unwrap();
    for round in 0..3 {
        watched.set_broken(true);
        let error = ledger.commit(vec![8; 3000], vec![event(2)]).await.unwrap_err().to_string();
        assert!(error.contains("error"), "{error}");
        assert!(ledger.push_events(vec![event(3)]).await.is_err(), "round {round}");
        let (digest, bytes, content) = Keys::new().specification("till", None);
        assert!(ledger.keep_specifications(vec![(digest, bytes, content)]).await.is_err());
        assert_eq!(ledger.memory(), Some(vec![7; 3000]), "shown although it was not kept");
        watched.set_broken(false);
        assert_eq!(numbers(&ledger).await, (1..=1 + round).collect::<Vec<_>>());
        ledger.push_events(vec![event(4)]).await.unwrap();
    }
    drop(ledger);
    // An agent that starts on it says so, and sets nothing aside.
    for _ in 0..2 {
        watched.set_broken(true);
        let error = Ledger::open(folder.path(), Timestamp(1000)).unwrap_err().to_string();
        assert!(error.contains("error"), "{error}");
        assert!(!folder.path().join("ledger.sqlite.garbled").exists(), "taken for garbled: {error}");
        watched.set_broken(false);
    }
    let ledger = Ledger::open(folder.path(), Timestamp(1000)).unwrap();
    assert_eq!((ledger.node(), ledger.memory()), (Some(NodeId::new([1; 16])), Some(vec![7; 3000])));
    assert_eq!(numbers(&ledger).await, [1, 2, 3, 4]);
    drop(watched);
}

#[tokio::test]
async fn a_ledger_that_somebody_holds_is_not_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), Timestamp(1000)).unwrap();
    ledger.enrolled(NodeId::new([1; 16])).await.unwrap();
    drop(ledger);
    let somebody = rusqlite::Connection::open(folder.path().join("ledger.sqlite")).unwrap();
    somebody.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = Ledger::open(folder.path(), Timestamp(1000)).unwrap_err().to_string();
    assert!(error.contains("locked"), "{error}");
    assert!(!folder.path().join("ledger.sqlite.garbled").exists(), "taken for garbled: {error}");
    drop(somebody);
    let ledger = Ledger::open(folder.path(), Timestamp(1000)).unwrap();
    assert_eq!(ledger.node(), Some(NodeId::new([1; 16])));
}

#[tokio::test]
async fn a_full_disk_leaves_the_ledger_its_own_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut reserve = Reserve::new(folder.path());
    reserve.tend();
    let path = folder.path().join("ledger.reserve");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20, "on a disk with room");
    let mut again = Reserve::new(folder.path());
    again.tend();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
}
