//! The power is cut at every write of a scripted life of the ledger. It opens again, and everything that it was asked to keep is there;
//! what one step was about to change is there as it was or as it became.

use std::path::Path;

use skerry_testkit::powercut::{Chance, Recording, Trace};
use skerry_trust::envelope;

use super::samples::{self, Keys};
use super::*;

/// Ways in which each cut is tried.
const WAYS: u64 = 2;
/// Steps of the life.
const STEPS: u64 = 40;

/// Everything that the ledger answers, part by part.
type Seen = Vec<(&'static str, String)>;

async fn seen(ledger: &Ledger) -> Seen {
    let desired = ledger.desired();
    vec![
        ("mark", desired.mark.to_string()),
        ("manifest", format!("{:?}", desired.manifest)),
        // More than what the manifest names may be held; nothing of it may be lacking.
        ("lacking", format!("{:?}", desired.missing())),
        ("memory", format!("{:?}", ledger.memory())),
        ("node", format!("{:?}", ledger.node())),
        ("time", format!("{:?}", ledger.time().at())),
        ("reports", format!("{:?}", ledger.oldest_reports(1000).await.unwrap())),
        ("bundles", format!("{:?}", ledger.bundles().await.unwrap())),
        ("confirmed", format!("{:?}", ledger.confirmed().await.unwrap())),
    ]
}

fn image(n: u64) -> ImageId {
    ImageId(Digest::new([u8::try_from(n).unwrap(); 32]))
}

async fn step(ledger: &Ledger, keys: &Keys, step: u64) {
    let done = match step % 10 {
        0 if step == 0 => ledger.enrolled(NodeId::new([1; 16])).await,
        1 | 6 => {
            let names: &[&str] = if step % 4 == 1 { &["till"] } else { &["till", "signage"] };
            let specifications: Vec<_> = names.iter().map(|n| keys.specification(&format!("{n}-{}", step / 20), None)).collect();
            let named: Vec<_> = names.iter().copied().zip(specifications.iter().map(|s| s.0)).collect();
            let manifest = samples::manifest(step, &named);
            let bytes = envelope::seal(&keys.director, Manifest::PURPOSE, &manifest);
            ledger.accept(Accepted { manifest, bytes, specifications }).await
        }
        2 => ledger.commit(vec![u8::try_from(step).unwrap(); 3000], vec![Event::ImagePresent { image: image(step) }]).await,
        3 => ledger.saw_time(Timestamp(2000 + i64::try_from(step).unwrap()), Timestamp(i64::MAX), true).await,
        4 => {
            let row = BundleRow { image: image(step), digest: Digest::new([9; 32]), size: step, capability: "c".into(), release: vec![1] };
            ledger.put_bundle(row).await
        }
        5 => {
            let newest = ledger.oldest_reports(1000).await.unwrap().iter().map(|r| r.seq).max();
            ledger.acknowledged(newest.unwrap_or(0)).await
        }
        7 => ledger.end_bundle(image(step - 3), vec![Event::ImageFailed { image: image(step), reason: "x".repeat(700) }]).await,
        8 => {
            let needed = ledger.desired().manifest.iter().flat_map(|m| &m.allocs).map(|a| a.specification).collect();
            ledger.retain(needed).await
        }
        _ => ledger.set_confirmed(Confirmed { fingerprint: Some(Digest::new([3; 32])), inventory: Some(image(step).0) }).await,
    };
    done.unwrap_or_else(|e| panic!("step {step}: {e}"));
}

/// Lives once, and gives what happened to the files and what was to be seen after each step.
async fn live(folder: &Path) -> (Trace, Vec<Seen>) {
    let recording = Recording::start(folder).unwrap();
    let ledger = Ledger::open(folder, Timestamp(1000)).unwrap();
    let keys = Keys::new();
    let mut all = vec![seen(&ledger).await];
    recording.mark(0);
    for n in 0..STEPS {
        step(&ledger, &keys, n).await;
        recording.mark(n + 1);
        all.push(seen(&ledger).await);
    }
    (recording.finish(), all)
}

#[tokio::test]
async fn power_lost_at_every_write() {
    let folder = tempfile::tempdir_in(memory()).unwrap();
    let (trace, all) = live(folder.path()).await;
    assert!(trace.steps.len() > 300, "the recording saw {} steps only", trace.steps.len());
    for cut in 0..=trace.steps.len() {
        let mark = usize::try_from(trace.mark_before(cut).unwrap_or(0)).unwrap();
        for way in 0..WAYS {
            let place = tempfile::tempdir_in(memory()).unwrap();
            trace.after_cut(cut, &mut Chance::new(cut as u64 * WAYS + way)).write_to(place.path()).unwrap();
            let ledger = Ledger::open(place.path(), Timestamp(1000));
            let ledger = ledger.unwrap_or_else(|e| panic!("cut {cut}, way {way}, after step {mark}: does not open: {e}"));
            for (index, (part, found)) in seen(&ledger).await.into_iter().enumerate() {
                let possible = [all.get(mark), all.get(mark + 1)];
                let fits = possible.iter().flatten().any(|seen| seen[index].1 == found);
                assert!(
                    fits,
                    "cut {cut}, way {way}: after step {mark}, `{part}` is neither as it was nor as it became:\n{found}\n{:?}\n{:?}",
                    possible[0].map(|s| &s[index].1),
                    possible[1].map(|s| &s[index].1)
                );
            }
        }
    }
}

/// A file system in memory, when there is one: a cut is tried some thousand times.
fn memory() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}
