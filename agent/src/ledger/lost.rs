//! Every copy of the mark is lost: nothing of the root that was in force then is taken any more.

use std::path::Path;

use rusqlite::Connection;
use skerry_trust::envelope;

use super::samples::{self, Keys, close, open};
use super::*;

/// The places of a mark.
const PLACES: [&str; 4] = ["ledger.sqlite", "mark.0", "mark.1", "copies/manifest"];

fn accepted(mark: Mark) -> Accepted {
    let keys = Keys::new();
    let specification = keys.specification("till", None);
    let manifest = Manifest { mark, ..samples::manifest(mark.counter, &[("till", specification.0)]) };
    let bytes = envelope::seal(&keys.director, Manifest::PURPOSE, &manifest);
    Accepted { manifest, bytes, specifications: vec![specification] }
}

/// Garbles files, or takes them away.
fn lose(folder: &Path, names: &[&str], garble: bool) {
    for path in names.iter().map(|name| folder.join(name)).filter(|path| path.exists()) {
        match garble {
            true => std::fs::write(&path, b"garbled").unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
    }
}

#[tokio::test]
async fn only_a_newer_root_ends_it() {
    for garble in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        ledger.enrolled(samples::node()).await.unwrap();
        ledger.accept(accepted(samples::mark(5))).await.unwrap();
        close(ledger, dir.path()).await;
        lose(dir.path(), &PLACES, garble);
        // An agent that was cut off before it settled the matter.
        close(open(dir.path()), dir.path()).await;
        let ledger = open(dir.path());
        ledger.settle_mark(1).await.unwrap();
        assert_eq!((ledger.node(), ledger.desired().mark), (Some(samples::node()), Mark::lost(1)));
        // The order of marks alone decides, and it is on the disk.
        for counter in [6, 1 << 40] {
            ledger.accept(accepted(samples::mark(counter))).await.unwrap();
        }
        close(ledger, dir.path()).await;
        let ledger = open(dir.path());
        ledger.settle_mark(1).await.unwrap();
        assert_eq!((ledger.desired().mark, &ledger.desired().manifest), (Mark::lost(1), &None));
        let next = Mark { root: 2, epoch: 2, counter: 1 };
        ledger.accept(accepted(next)).await.unwrap();
        close(ledger, dir.path()).await;
        let ledger = open(dir.path());
        ledger.settle_mark(2).await.unwrap();
        assert_eq!(ledger.desired().mark, next);
    }
}

#[tokio::test]
async fn a_node_that_had_no_manifest_has_a_mark_all_the_same() {
    let first = Mark::default();
    for (lost, expected) in
        [(&["ledger.sqlite"][..], first), (&["mark.0", "mark.1"], first), (&["ledger.sqlite", "mark.0", "mark.1"], Mark::lost(3))]
    {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        // Before it has enrolled there is nothing to lose.
        ledger.settle_mark(3).await.unwrap();
        assert_eq!(ledger.desired().mark, first);
        ledger.enrolled(samples::node()).await.unwrap();
        close(ledger, dir.path()).await;
        lose(dir.path(), lost, true);
        let ledger = open(dir.path());
        ledger.settle_mark(3).await.unwrap();
        assert_eq!(ledger.desired().mark, expected, "{lost:?}");
    }
}

/// Its id was lost with everything else, and the server says that it knew the node.
#[tokio::test]
async fn a_node_that_enrols_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.lose_mark(1).await.unwrap();
    ledger.enrolled(samples::node()).await.unwrap();
    assert_eq!(ledger.desired().mark, Mark::lost(1));
    // One that has a mark keeps it, whatever the server says.
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.accept(accepted(samples::mark(5))).await.unwrap();
    ledger.lose_mark(1).await.unwrap();
    assert_eq!(ledger.desired().mark, samples::mark(5));
}

/// Agents before this one kept no mark before the first manifest.
#[tokio::test]
async fn a_folder_of_an_older_agent() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    ledger.enrolled(samples::node()).await.unwrap();
    close(ledger, dir.path()).await;
    lose(dir.path(), &PLACES[1..], false);
    Connection::open(dir.path().join("ledger.sqlite")).unwrap().execute("DELETE FROM fact WHERE name = 'mark'", []).unwrap();
    let ledger = open(dir.path());
    ledger.settle_mark(1).await.unwrap();
    assert_eq!(ledger.desired().mark, Mark::default());
    close(ledger, dir.path()).await;
    assert!(dir.path().join("mark.0").exists(), "from now on it has one");
}
