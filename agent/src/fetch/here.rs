//! What is here of a bundle: asked of a file, and told while it comes.

use super::part::Part;
use super::tests::{bundle, order, serve};
use super::*;
use crate::ledger::samples;

#[test]
fn a_file_is_asked_for_its_table_and_whether_it_is_whole() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let (keys, others): (KeyRing, KeyRing) = (key.public().into(), samples::key().public().into());
    let path = dir.path().join("b.part");
    for file in [bundle(&key, 300_000), bundle(&key, 100)] {
        let needs = usize::try_from(skerry_bundle::head::toc_range(&file).unwrap().end).unwrap();
        let is = |bytes: &[u8], keys: &KeyRing| {
            std::fs::write(&path, bytes).unwrap();
            (table_in(&path, keys).map(|table| table.size()), is_whole(&path, keys))
        };
        let size = Some(file.len() as u64);
        assert_eq!(is(&file, &keys), (size, true));
        assert_eq!(is(&file, &others), (None, false), "signed by another key");
        assert_eq!(is(&file[..file.len() - 1], &keys), (size, false));
        assert_eq!(is(&file[..needs], &keys), (size, false), "the table alone");
        assert_eq!(is(&file[..needs - 1], &keys), (None, false), "not even that");
        let mut garbled = file.clone();
        *garbled.last_mut().unwrap() ^= 1;
        assert_eq!(is(&garbled, &keys), (size, false));
        garbled[needs - 1] ^= 1;
        assert_eq!(is(&garbled, &keys), (None, false));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(table_in(&path, &keys).is_none() && !is_whole(&path, &keys));
}

/// Bytes that come twice, or from before the place where the next ones belong, as from a server that passes over the range.
#[test]
fn bytes_that_are_here_are_passed_over() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 200_000);
    for (at, again) in [(1000, 500), (70_000, 69_000), (70_000, 0), (150_000, 149_999)] {
        let path = dir.path().join(format!("{at}-{again}.part"));
        let mut part = Part::open(&path, file.len() as u64, key.public().into()).unwrap();
        part.push(0, &file[..at]).unwrap();
        assert_eq!(part.have(), at as u64);
        for piece in [again..at, again..at + 10, again..file.len()] {
            part.push(piece.start as u64, &file[piece]).unwrap();
        }
        assert!(part.wanted().is_none() && part.bad_chunks() == 0, "from {again} again at {at}");
        part.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), file);
    }
}

#[tokio::test]
async fn who_looks_on_hears_what_is_here() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let file = bundle(&key, 300_000);
    let server = serve(file.clone(), vec![]).await;
    let order = order(dir.path().join("b.part"), &file, &key);
    std::fs::write(&order.path, &file[..100_000]).unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let hears = Arc::clone(&told);
    let mut fetch = Fetch::open(&server.client, order, Arc::new(move |now| hears.store(now, Ordering::Relaxed))).await.unwrap();
    let watch = fetch.have_watch();
    assert_eq!([fetch.have(), watch.load(Ordering::Relaxed), told.load(Ordering::Relaxed)], [100_000; 3]);
    fetch.rest().await.unwrap();
    assert_eq!([fetch.have(), watch.load(Ordering::Relaxed), told.load(Ordering::Relaxed)], [file.len() as u64; 3]);
}

/// What a node asks for next is reckoned from what it has. Of a chunk that a power cut garbled in the middle of the file nothing outlives a
/// cut: counted all the same, the next request was too short to end the chunk, and so was each after it.
#[test]
fn what_is_here_is_what_is_found_again() {
    let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
    let (file, path) = (bundle(&key, 200_000), dir.path().join("b.part"));
    let open = || Part::open(&path, file.len() as u64, key.public().into()).unwrap();
    let start = usize::try_from(skerry_bundle::head::toc_range(&file).unwrap().end).unwrap();
    let found_again = |mut part: Part, why: &str| {
        part.sync().unwrap();
        let (have, wanted) = (part.have(), part.wanted().map(|w| w.end));
        drop(part);
        let again = open();
        assert_eq!((have, wanted), (again.have(), again.wanted().map(|w| w.end)), "{why}");
        again
    };
    // As it comes, cut anywhere.
    for at in [1, 1000, 65_536, 65_537, 100_000, 131_072 + start, 180_000] {
        let mut part = open();
        let from = usize::try_from(part.have()).unwrap();
        part.push(from as u64, &file[from..at.max(from)]).unwrap();
        found_again(part, &format!("cut at {at}"));
    }
    // A chunk in the middle is garbled, and comes again in pieces.
    for garbled in [start + 65_535, start + 2 * 65_536 - 1] {
        let mut bytes = file.clone();
        bytes[garbled] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut part = open();
        let chunk = start + (garbled - start) / 65_536 * 65_536;
        assert_eq!(part.have(), (file.len() - 65_536) as u64);
        for end in [chunk + 20_000, chunk + 65_535] {
            part.push(chunk as u64, &file[chunk..end]).unwrap();
            part = found_again(part, &format!("a chunk at {chunk} up to {end}"));
        }
        part.push(chunk as u64, &file[chunk..chunk + 65_536]).unwrap();
        assert!(found_again(part, "all of it").wanted().is_none());
    }
}
