//! The power is cut at every write of a scripted life of the ledger, which uses every kind of thing that it keeps. It opens again, and
//! everything that it was asked to keep is there; what one step was about to change is there as it was or as it became. Cut once more
//! while it opens, the same holds.

use std::path::Path;

use skerry_reconcile::OrderKind;
use skerry_testkit::powercut::{Chance, Recording, Trace};
use skerry_transfer::{Idle, Spent};
use skerry_trust::envelope;

use super::samples::{self, Keys};
use super::*;

/// Ways in which each cut is tried.
const WAYS: u64 = 2;
/// Kinds of steps: each call of the ledger that keeps something.
const KINDS: u64 = 18;
/// Steps of the life: each kind three times, so that it finds what it kept before, and what took that place.
const STEPS: u64 = 3 * KINDS;
/// Of the first cuts, one in so many is followed by cuts of the opening: each of those is an opening more.
const AGAIN: usize = 37;

/// Which of the parts is the manifest.
const MANIFEST: usize = 1;

/// What there is to be seen of a ledger.
struct Seen {
    /// Everything that it answers, part by part.
    parts: Vec<(&'static str, String)>,
    /// The specifications that it holds.
    held: BTreeMap<Digest, Specification>,
    /// The highest sequence that a report of its outbox has, or had before.
    used: u64,
}

async fn seen(ledger: &Ledger, used_before: u64) -> Seen {
    let desired = ledger.desired();
    let reports = ledger.oldest_reports(1000).await.unwrap();
    let used = reports.iter().map(|r| r.seq).max().unwrap_or(0).max(used_before);
    let parts = vec![
        ("mark", desired.mark.to_string()),
        ("manifest", format!("{:?}", desired.manifest)),
        ("memory", format!("{:?}", ledger.memory())),
        ("node", format!("{:?}", ledger.node())),
        ("time", format!("{:?}", ledger.time().at())),
        ("reports", format!("{reports:?}")),
        ("bundles", format!("{:?}", ledger.bundles().await.unwrap())),
        ("confirmed", format!("{:?}", ledger.confirmed().await.unwrap())),
        ("orders", format!("{:?}", ledger.orders())),
        ("meta", format!("{:?}", ledger.local_meta().await.unwrap())),
        ("keep", format!("{:?}", ledger.keep())),
    ];
    Seen { parts, held: desired.specifications.clone(), used }
}

fn image(n: u64) -> ImageId {
    ImageId(Digest::new([u8::try_from(n).unwrap(); 32]))
}

/// A manifest that names these jobs, with the specifications of all but those in `lost`; gives what is lost, too.
fn accepted(keys: &Keys, step: u64, names: &[&str], lost: &[&str]) -> (Accepted, Vec<(Digest, Vec<u8>, Specification)>) {
    let all: Vec<_> = names.iter().map(|n| (*n, keys.specification(&format!("{n}-{step}"), None))).collect();
    let named: Vec<_> = all.iter().map(|(name, s)| (*name, s.0)).collect();
    let manifest = samples::manifest(step, &named);
    let bytes = envelope::seal(&keys.director, Manifest::PURPOSE, &manifest);
    let (lost, given): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| lost.contains(name));
    let plain = |some: Vec<(&str, _)>| some.into_iter().map(|(_, s)| s).collect();
    (Accepted { manifest, bytes, specifications: plain(given) }, plain(lost))
}

/// Lives step by step; `lost` are specifications that a manifest names and that were not given yet.
async fn step(ledger: &Ledger, keys: &Keys, step: u64, lost: &mut Vec<(Digest, Vec<u8>, Specification)>) {
    let done = match step % KINDS {
        0 => ledger.enrolled(NodeId::new([u8::try_from(step).unwrap(); 16])).await,
        1 => ledger.accept(accepted(keys, step, &["till", "signage"], &[]).0).await,
        2 => ledger.commit(vec![u8::try_from(step).unwrap(); 3000], vec![Event::ImagePresent { image: image(step) }]).await,
        3 => ledger.order(Order { id: step, alloc: AllocId::new([1; 16]), kind: OrderKind::Retry }).await,
        4 => ledger.saw_time(Timestamp(2000 + i64::try_from(step).unwrap()), Timestamp(i64::MAX), true).await,
        5 => {
            let site = format!("pier {step}");
            ledger.set_local_meta(LocalMeta::from([("site".to_owned(), Some(site)), ("old".to_owned(), None)])).await
        }
        6 => {
            let row = BundleRow { image: image(step), digest: Digest::new([9; 32]), size: step, capability: "c".into(), release: vec![1] };
            ledger.put_bundle(row).await
        }
        7 => {
            let failed = FailedPatch { mark: samples::mark(step), why: "why".to_owned(), full: true };
            let change = move |keep: &mut Keep| {
                keep.idle.push(Idle { image: image(step), since: Timestamp(5) });
                keep.failed.insert(image(step), failed);
                keep.spent = Spent { month: 24_000, bytes: step };
            };
            ledger.change_keep(change).await
        }
        8 => {
            let (accepted, missing) = accepted(keys, step, &["till", "lamp"], &["lamp"]);
            *lost = missing;
            ledger.accept(accepted).await
        }
        9 => ledger.order(Order { id: step, alloc: AllocId::new([2; 16]), kind: OrderKind::OverrideLock }).await,
        10 => ledger.keep_specifications(std::mem::take(lost)).await,
        11 => ledger.push_events(vec![Event::ImageInTransit { image: image(1), have: step, size: 100 }]).await,
        12 => {
            let newest = ledger.oldest_reports(1000).await.unwrap().iter().map(|r| r.seq).max();
            ledger.acknowledged(newest.unwrap_or(0)).await
        }
        13 => ledger.end_bundle(image(step - 7), vec![Event::ImageFailed { image: image(step), reason: "x".repeat(700) }]).await,
        14 => {
            // Of those that the manifest does not name, one is needed by what runs.
            let desired = ledger.desired();
            let named: BTreeSet<_> = desired.manifest.iter().flat_map(|m| &m.allocs).map(|a| a.specification).collect();
            let runs = desired.specifications.keys().find(|d| !named.contains(*d)).copied();
            ledger.retain(runs.into_iter().collect()).await
        }
        15 => ledger.orders_done(vec![step - 12]).await,
        16 => {
            let change = move |keep: &mut Keep| {
                keep.idle.clear();
                keep.removed.push(Removed { image: image(step), why: "full".to_owned(), at: Timestamp(7) });
            };
            ledger.change_keep(change).await
        }
        _ => ledger.set_confirmed(Confirmed { fingerprint: Some(Digest::new([3; 32])), inventory: Some(image(step).0) }).await,
    };
    done.unwrap_or_else(|e| panic!("step {step}: {e}"));
}

/// Lives once, and gives what happened to the files and what was to be seen after each step.
async fn live(folder: &Path) -> (Trace, Vec<Seen>) {
    let recording = Recording::start(folder).unwrap();
    let ledger = Ledger::open(folder, Timestamp(1000)).unwrap();
    let (keys, mut lost) = (Keys::new(), Vec::new());
    let mut all = vec![seen(&ledger, 0).await];
    recording.mark(0);
    for n in 0..STEPS {
        step(&ledger, &keys, n, &mut lost).await;
        recording.mark(n + 1);
        let now = seen(&ledger, all[all.len() - 1].used).await;
        let before = &all[all.len() - 1];
        let changed = now.parts != before.parts || now.held != before.held;
        assert!(changed, "step {n} kept nothing: no cut of it shows anything");
        all.push(now);
    }
    (recording.finish(), all)
}

/// The ledger in this folder opens and has what `all` says it had after `mark` steps, or what the step after that made of it.
async fn opens_whole(folder: &Path, all: &[Seen], mark: usize, when: &str) {
    let ledger = Ledger::open(folder, Timestamp(1000)).unwrap_or_else(|e| panic!("{when}: does not open: {e}"));
    let now = seen(&ledger, 0).await;
    let possible: Vec<&Seen> = all[mark..].iter().take(2).collect();
    for (index, (part, found)) in now.parts.iter().enumerate() {
        let fits = possible.iter().any(|seen| seen.parts[index].1 == *found);
        let either: Vec<_> = possible.iter().map(|s| &s.parts[index].1).collect();
        assert!(fits, "{when}: `{part}` is neither as it was nor as it became:\n{found}\n{either:#?}");
    }
    // More may be held than is needed: what was being given up, or came with a manifest that was not accepted. Nothing may be lacking.
    let needed = all[mark].held.iter().filter(|(digest, _)| possible.iter().all(|seen| seen.held.contains_key(digest)));
    for (digest, specification) in needed {
        assert_eq!(now.held.get(digest), Some(specification), "{when}: a specification is lost");
    }
    // A manifest never comes without the specifications that came with it.
    if let [before, after] = possible[..]
        && now.parts[MANIFEST] == after.parts[MANIFEST]
        && before.parts[MANIFEST] != after.parts[MANIFEST]
    {
        let lacking: Vec<_> = ledger.desired().missing().into_iter().filter(|d| after.held.contains_key(d)).collect();
        assert!(lacking.is_empty(), "{when}: the manifest came without its specifications {lacking:?}");
    }
    // The server passes over a sequence that it knows: none may be used twice, those of reports that left the outbox neither.
    ledger.push_events(vec![Event::ImagePresent { image: image(255) }]).await.unwrap();
    let newest = ledger.oldest_reports(1000).await.unwrap().iter().map(|r| r.seq).max().unwrap();
    assert!(newest > all[mark].used, "{when}: sequence {newest} was used before: {} was", all[mark].used);
}

#[tokio::test]
async fn power_lost_at_every_write() {
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let (trace, all) = live(folder.path()).await;
    assert!(trace.steps.len() > 400, "the recording saw {} steps only", trace.steps.len());
    for cut in 0..=trace.steps.len() {
        let mark = usize::try_from(trace.mark_before(cut).unwrap_or(0)).unwrap();
        for way in 0..WAYS {
            let place = tempfile::tempdir_in(memory()).unwrap();
            trace.after_cut(cut, &mut Chance::new(cut as u64 * WAYS + way)).write_to(place.path()).unwrap();
            opens_whole(place.path(), &all, mark, &format!("cut {cut}, way {way}, after step {mark}")).await;
        }
    }
}

/// What a cut left is mended when the ledger opens: the power may go in the middle of that.
#[tokio::test]
async fn power_lost_again_while_it_opens() {
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let (trace, all) = live(folder.path()).await;
    let mut cuts = 0;
    for first in (0..=trace.steps.len()).step_by(AGAIN) {
        let mark = usize::try_from(trace.mark_before(first).unwrap_or(0)).unwrap();
        let place = tempfile::tempdir_in(memory()).unwrap();
        trace.after_cut(first, &mut Chance::new(first as u64)).write_to(place.path()).unwrap();
        let recording = Recording::start(place.path()).unwrap();
        let ledger = Ledger::open(place.path(), Timestamp(1000)).unwrap();
        // Asked something, so that all of the opening is over.
        ledger.confirmed().await.unwrap();
        let opening = recording.finish();
        drop(ledger);
        for second in 0..=opening.steps.len() {
            let other = tempfile::tempdir_in(memory()).unwrap();
            opening.after_cut(second, &mut Chance::new(second as u64)).write_to(other.path()).unwrap();
            opens_whole(other.path(), &all, mark, &format!("cuts {first} and, while it opened, {second}; after step {mark}")).await;
            cuts += 1;
        }
    }
    assert!(cuts > 100, "{cuts} cuts of openings only");
}

/// A file system in memory, when there is one: a cut is tried some thousand times.
fn memory() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}
