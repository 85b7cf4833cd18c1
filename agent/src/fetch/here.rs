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

/// What a node asks for next is reckoned from what it has. Were more counted than is found again, the next request would be too short to
/// end a chunk, and so would each after it.
#[test]
fn what_is_here_is_what_is_found_again() {
    let bench = Bench::new(200_000);
    // As it comes, cut anywhere.
    for at in [1, 1000, 65_536, 65_537, 100_000, 131_072 + bench.start, 180_000] {
        let mut part = bench.open();
        let from = usize::try_from(part.have()).unwrap();
        part.push(from as u64, &bench.file[from..at.max(from)]).unwrap();
        bench.found_again(part, &format!("cut at {at}"));
    }
    // A chunk in the middle is garbled, and comes again in pieces, from its first byte as from a server that passes over the range.
    for garbled in [bench.start + 65_535, bench.start + 2 * 65_536 - 1] {
        let mut bytes = bench.file.clone();
        bytes[garbled] ^= 1;
        std::fs::write(&bench.path, &bytes).unwrap();
        let mut part = bench.open();
        let chunk = bench.start + (garbled - bench.start) / 65_536 * 65_536;
        assert_eq!(part.have(), (bench.file.len() - 65_536) as u64);
        for end in [chunk + 20_000, chunk + 65_535] {
            part.push(chunk as u64, &bench.file[chunk..end]).unwrap();
            part = bench.found_again(part, &format!("a chunk at {chunk} up to {end}"));
        }
        part.push(chunk as u64, &bench.file[chunk..chunk + 65_536]).unwrap();
        assert!(bench.found_again(part, "all of it").wanted().is_none());
    }
}

/// Over a link that never carries a chunk between two cuts, each of which has the file opened anew.
#[test]
#[expect(clippy::single_range_in_vec_init, reason = "each case lists ranges, most of them one")]
fn a_chunk_garbled_within_the_file_is_gone_on_with() {
    let bench = Bench::new(400_000);
    let chunk = bench.start + 2 * 65_536;
    let cases: [(&str, &[std::ops::Range<usize>], usize); 7] = [
        ("its first byte", &[0..1], 65_536),
        ("its last byte", &[65_535..65_536], 65_536),
        ("a page in its middle", &[8192..12_288], 65_536),
        // What comes before the zeros holds.
        ("the pages at its end", &[40_000..65_536], 65_536 - 40_000),
        ("all of it", &[0..65_536], 65_536),
        // What comes before the zeros does not hold, which only the hash of the whole shows.
        ("its first byte and the pages at its end", &[0..1, 40_000..65_536], 2 * 65_536 - 40_000),
        ("it and the next", &[100..101, 65_636..65_637], 2 * 65_536),
    ];
    for (what, garbled, needs) in cases {
        let mut bytes = bench.file.clone();
        for range in garbled {
            bytes[chunk + range.start..chunk + range.end].iter_mut().for_each(|byte| *byte = if range.len() == 1 { !*byte } else { 0 });
        }
        // The last chunk was under way.
        bytes.truncate(bench.file.len() - 1000);
        std::fs::write(&bench.path, &bytes).unwrap();
        let (mut sent, needs) = (0, needs + 1000);
        while let Some((part, carried)) = bench.carry(5000) {
            bench.found_again(part, what);
            sent += carried;
            assert!(sent < needs + 100, "{what}: {sent} bytes were sent, {needs} are needed");
        }
        assert!(sent + 100 > needs, "{what}: {sent} bytes were sent, {needs} are needed");
        assert_eq!(std::fs::read(&bench.path).unwrap(), bench.file, "{what}");
    }
}

/// A server whose copy is wrong: its chunk begins anew each time, from its first byte.
#[test]
fn a_chunk_that_comes_wrong_begins_anew() {
    let bench = Bench::new(400_000);
    let chunk = bench.start + 65_536;
    let mut wrong = bench.file.clone();
    wrong[chunk + 70] ^= 1;
    // At the end of the file and within it; its last bytes zeros, as what is not yet here looks.
    for (held, last) in [(chunk, 1), (chunk + 10, 1), (bench.file.len(), 1), (bench.file.len(), 0)] {
        let mut bytes = bench.file[..held].to_vec();
        if held > chunk + 10 {
            bytes[chunk + 5] ^= 1;
            bytes[chunk + 65_535] = last;
        }
        wrong[chunk + 65_535] = last;
        std::fs::write(&bench.path, &bytes).unwrap();
        let mut part = bench.open();
        // The first time the ten bytes that the file held may be to blame as well.
        let forgiven = u32::from(held == chunk + 10);
        for times in 1..=3 {
            part.push(chunk as u64, &wrong[chunk..chunk + 65_536]).unwrap();
            assert_eq!((part.bad_chunks(), part.setbacks()), (times - forgiven, u64::from(times)), "{held} {last}");
            assert_eq!(part.wanted().unwrap().start, chunk as u64, "{held} {last}");
        }
        part = bench.found_again(part, "it came wrong");
        assert_eq!(part.wanted().unwrap().start, chunk as u64, "{held} {last}");
        part.push(chunk as u64, &bench.file[chunk..]).unwrap();
        part.sync().unwrap();
        assert_eq!(std::fs::read(&bench.path).unwrap(), bench.file, "{held} {last}");
    }
}

/// A wrong chunk, the rest of them as it should be, and more than there is of the bundle.
#[test]
fn what_comes_past_its_end_is_passed_over() {
    let bench = Bench::new(200_000);
    let mut sent = bench.file.clone();
    sent[bench.start + 70_000] ^= 1;
    sent.extend_from_slice(b"more");
    let mut part = bench.open();
    part.push(0, &sent).unwrap();
    assert_eq!((part.bad_chunks(), part.wanted().unwrap().start), (1, (bench.start + 65_536) as u64));
    part.push(0, &[&bench.file[..], b"more"].concat()).unwrap();
    part = bench.found_again(part, "more came than there is");
    assert_eq!(part.wanted(), None);
}

/// A server that offers fewer bytes than the table alone takes: told as such, as it comes and when it is found in the file.
#[test]
fn a_table_longer_than_what_was_offered_is_refused() {
    let bench = Bench::new(200_000);
    let offered = &bench.file[..bench.start - 1];
    let open = || Part::open(&bench.path, offered.len() as u64, bench.key.public().into());
    let refused = |error: Result<(), super::part::PartError>| error.unwrap_err().to_string().contains("its table takes");
    assert!(refused(open().unwrap().push(0, offered)));
    std::fs::write(&bench.path, offered).unwrap();
    assert!(refused(open().map(drop)));
    assert_eq!(std::fs::metadata(&bench.path).unwrap().len(), 0);
}

/// A power cut garbled many chunks: their first byte, and the pages at their end, so that each looks like one that is begun.
#[test]
fn what_comes_wins_over_what_the_file_held() {
    let bench = Bench::new(2_000_000);
    let garbled = |every: usize| {
        let mut bytes = bench.file.clone();
        for chunk in bytes[bench.start..].chunks_exact_mut(65_536).step_by(every) {
            chunk[0] ^= 1;
            chunk[40_000..].fill(0);
        }
        std::fs::write(&bench.path, &bytes).unwrap();
    };
    // One after the other they come in one run: but for the first, of which the rest is asked for, each from its first byte.
    garbled(1);
    let (mut part, mut sent) = (bench.open(), 0);
    while let Some(wanted) = part.wanted() {
        let (from, to) = (usize::try_from(wanted.start).unwrap(), usize::try_from(wanted.end).unwrap());
        for (i, frame) in bench.file[from..to].chunks(7000).enumerate() {
            part.push((from + i * 7000) as u64, frame).unwrap();
        }
        sent += to - from;
    }
    assert_eq!((part.bad_chunks(), part.setbacks()), (0, 1));
    assert!(sent < bench.file.len() + 65_536, "{sent}");
    drop(part);
    assert_eq!(std::fs::read(&bench.path).unwrap(), bench.file);
    // With whole chunks between them the rest of each is asked for, and then all of it. The server is not to blame.
    garbled(2);
    let mut part = bench.open();
    for _ in 0..100 {
        let Some(wanted) = part.wanted() else { break };
        part.push(wanted.start, &bench.file[usize::try_from(wanted.start).unwrap()..usize::try_from(wanted.end).unwrap()]).unwrap();
    }
    assert_eq!((part.bad_chunks(), part.setbacks(), part.wanted()), (0, 15, None));
    drop(part);
    assert_eq!(std::fs::read(&bench.path).unwrap(), bench.file);
    // A garbled piece of the chunk that the file ends with.
    let end = bench.start + 3 * 65_536 + 50_000;
    for wrong in [0, 9000, 49_999] {
        let mut bytes = bench.file[..end].to_vec();
        bytes[end - 50_000 + wrong] ^= 1;
        std::fs::write(&bench.path, &bytes).unwrap();
        let mut part = bench.open();
        assert_eq!(part.have(), end as u64);
        let from = end - 60_000;
        part.push(from as u64, &bench.file[from..end + 100]).unwrap();
        part = bench.found_again(part, "overlapping what was garbled");
        let next = usize::try_from(part.wanted().unwrap().start).unwrap();
        assert!((end + 50..=end + 100).contains(&next), "{next}");
        part.push(next as u64, &bench.file[next..]).unwrap();
        assert_eq!((part.setbacks(), part.wanted()), (0, None));
    }
}

/// The power goes between any two writes, while a garbled chunk comes again in pieces. What was synced is kept, unless the piece that was
/// being written was torn: then the chunk begins anew, once.
#[test]
fn a_power_cut_costs_at_most_once_more_what_came_of_a_garbled_chunk() {
    let bench = Bench::new(200_000);
    let chunk = bench.start + 65_536;
    let mut bytes = bench.file.clone();
    bytes[chunk + 9] ^= 1;
    std::fs::write(&bench.path, &bytes).unwrap();
    let recording = skerry_testkit::powercut::Recording::start(bench.dir.path()).unwrap();
    let mut part = bench.open();
    for piece in (chunk..chunk + 65_536).collect::<Vec<_>>().chunks(9000) {
        part.push(piece[0] as u64, &bench.file[piece[0]..=piece[piece.len() - 1]]).unwrap();
        part.sync().unwrap();
        recording.mark(part.have());
    }
    drop(part);
    let trace = recording.finish();
    assert!(trace.steps.len() > 8, "{}", trace.steps.len());
    let mut just_synced = 0;
    for cut in 0..=trace.steps.len() {
        for seed in 0..10 {
            trace.after_cut(cut, &mut skerry_testkit::powercut::Chance::new(seed)).replace(bench.dir.path()).unwrap();
            let part = bench.open();
            let mark = |steps: usize| trace.mark_before(steps).and_then(|mark| usize::try_from(mark).ok()).unwrap_or(0);
            let (synced, have) = (mark(cut), usize::try_from(part.have()).unwrap());
            let nothing_unsynced = cut > 0 && synced != mark(cut - 1);
            assert!(have == synced || !nothing_unsynced, "cut at {cut}, seed {seed}: {have} of {synced} bytes are here");
            just_synced += u32::from(nothing_unsynced);
            drop(part);
            let mut sent = 0;
            while let Some((_, carried)) = bench.carry(20_000) {
                sent += carried;
                assert!(
                    sent <= bench.file.len() - have + 65_536 + 100,
                    "cut at {cut}, seed {seed}: {sent} bytes were sent, {have} were here"
                );
            }
            assert_eq!(std::fs::read(&bench.path).unwrap(), bench.file, "cut at {cut}, seed {seed}");
        }
    }
    assert_eq!(just_synced, 8 * 10);
}

/// A bundle, and the file that it is fetched into.
struct Bench {
    key: skerry_trust::SigningKey,
    dir: tempfile::TempDir,
    path: std::path::PathBuf,
    file: Vec<u8>,
    /// Where its chunks begin.
    start: usize,
}

impl Bench {
    fn new(size: usize) -> Self {
        let (key, dir) = (samples::key(), tempfile::tempdir().unwrap());
        let file = bundle(&key, size);
        let start = usize::try_from(skerry_bundle::head::toc_range(&file).unwrap().end).unwrap();
        Self { key, path: dir.path().join("b.part"), dir, file, start }
    }

    fn open(&self) -> Part {
        Part::open(&self.path, self.file.len() as u64, self.key.public().into()).unwrap()
    }

    /// A try over a link that carries at most so many bytes: the file, and what came. None when all is here.
    fn carry(&self, most: usize) -> Option<(Part, usize)> {
        let mut part = self.open();
        let wanted = part.wanted()?;
        let from = usize::try_from(wanted.start).unwrap();
        let to = usize::try_from(wanted.end).unwrap().min(from + most);
        part.push(wanted.start, &self.file[from..to]).unwrap();
        Some((part, to - from))
    }

    /// The file opened anew, in which there is what was counted before.
    fn found_again(&self, mut part: Part, why: &str) -> Part {
        part.sync().unwrap();
        let (have, wanted) = (part.have(), part.wanted().map(|w| w.end));
        drop(part);
        let again = self.open();
        assert_eq!((have, wanted), (again.have(), again.wanted().map(|w| w.end)), "{why}");
        again
    }
}
