//! P10: the server's power is cut at every write of a scripted life: database and objects, every kind of act that is acknowledged to an
//! operator or a node. Whatever it had acknowledged is there afterwards; the one act that was under way is there as a whole, or not at all.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use skerry_server::housekeeping::check_objects;
use skerry_server::objects::Objects;
use skerry_server::store::{BuildStore, By, OperatorStore, SqliteStore, database_path};
use skerry_testkit::powercut::{Chance, Recording, Step, Trace};
use skerry_wire::Timestamp;

#[path = "power/life.rs"]
mod life;
mod support;

use life::{Act, Life, OBJECT_KEY, SCRIPT};

/// Ways in which each cut is tried.
const WAYS: u64 = 2;

/// Lives once, and gives what happened to the files and what was to be seen after each act.
async fn live(folder: &Path) -> (Trace, Vec<String>) {
    let recording = Recording::start(folder).unwrap();
    let mut life = Life::begin(folder);
    let mut seen = vec![life.seen().await];
    recording.mark(0);
    for (number, act) in SCRIPT.iter().enumerate() {
        life.act(*act, number).await;
        recording.mark(u64::try_from(number).unwrap() + 1);
        seen.push(life.seen().await);
    }
    assert!(life.reports > 5);
    drop(life);
    (recording.finish(), seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_lost_at_every_write() {
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let (trace, seen) = live(folder.path()).await;
    assert!(trace.steps.len() > 400, "the recording saw {} steps only", trace.steps.len());
    let renamed = trace.steps.iter().filter(|step| matches!(step, Step::Rename(_, to) if to.starts_with("objects"))).count();
    assert!(renamed >= 6, "the recording saw {renamed} objects come to their place");
    let key_kept = SCRIPT.iter().position(|act| matches!(act, Act::ObjectKey)).unwrap();
    for cut in 0..=trace.steps.len() {
        // Acts that were acknowledged.
        let done = usize::try_from(trace.mark_before(cut).unwrap_or(0)).unwrap();
        for way in 0..WAYS {
            let place = tempfile::tempdir_in(memory()).unwrap();
            trace.after_cut(cut, &mut Chance::new(cut as u64 * WAYS + way)).write_to(place.path()).unwrap();
            let when = format!("cut {cut}, way {way}, {:?} under way", SCRIPT.get(done));
            let store = SqliteStore::open(&database_path(place.path())).unwrap_or_else(|e| panic!("{when}: does not open: {e}"));
            let objects = Objects::open(place.path()).unwrap();
            let found = life::seen(&store, &objects).await;
            if found != seen[done] && seen.get(done + 1) != Some(&found) {
                panic!("{when}: neither what was before it nor what is after it:\n{}", difference(&seen[done], &found));
            }
            if way > 0 {
                continue;
            }
            // It goes on as any start does: nothing that counts is swept, and it takes what comes.
            check_objects(&store, &objects, Timestamp(1000)).await.unwrap();
            assert_eq!(life::seen(&store, &objects).await, found, "{when}: the start changed what was there");
            let key = store.object_key([9; 32]).await.unwrap();
            assert!(key == OBJECT_KEY || done <= key_kept, "{when}: the capabilities that nodes hold are worth nothing any more");
            let removed = store.remove_operator("bob".to_owned(), By { who: "eve".to_owned(), at: Timestamp(1000) }).await;
            assert_eq!(removed.unwrap(), found.contains("\"bob\""), "{when}");
        }
    }
}

/// The lines that are in one text only, some of them.
fn difference(before: &str, found: &str) -> String {
    let only = |sign, a: &str, b: &str| {
        a.lines().filter(|line| !b.contains(line)).take(40).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    only('-', before, found) + &only('+', found, before)
}

/// A file system in memory, when there is one: a cut is tried some thousand times.
fn memory() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}
