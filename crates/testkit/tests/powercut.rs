//! Power cuts under plain files: what was promised stays, what was not may go.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use skerry_testkit::powercut::{Chance, Recording, Step};

#[test]
fn what_was_synced_stays_and_what_was_not_may_go() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("before"), b"old").unwrap();
    let recording = Recording::start(folder.path()).unwrap();
    let path = folder.path().join("new");
    let mut file = File::create(&path).unwrap();
    file.write_all(&[1; 2000]).unwrap();
    file.sync_all().unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
    recording.mark(1);
    file.write_all_at(&[2; 2000], 0).unwrap();
    fs::rename(&path, folder.path().join("renamed")).unwrap();
    fs::remove_file(folder.path().join("before")).unwrap();
    let trace = recording.finish();

    let all = trace.steps.len();
    assert!(matches!(&trace.steps[0], Step::Create(name, _) if name == Path::new("new")), "{:?}", trace.steps);
    assert_eq!(trace.mark_before(all), Some(1));
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = trace.after_cut(all, &mut Chance::new(seed));
        let (new, renamed) = (disk.files.get(Path::new("new")), disk.files.get(Path::new("renamed")));
        let content = new.or(renamed).expect("one of its names is there");
        assert!(new.is_none() || renamed.is_none());
        assert_eq!(content.len(), 2000, "its length was synced");
        for sector in content.chunks(512) {
            assert!(sector.iter().all(|b| *b == sector[0]), "a sector is whole");
        }
        seen.insert((renamed.is_some(), disk.files.contains_key(Path::new("before")), content[0], content[1999]));
        let place = tempfile::tempdir().unwrap();
        disk.write_to(place.path()).unwrap();
        assert_eq!(&fs::read(place.path().join(if new.is_some() { "new" } else { "renamed" })).unwrap(), content);
    }
    // Names survive in their order; bytes in any mix.
    let expected = [(false, true), (true, true), (true, false)]
        .into_iter()
        .flat_map(|(r, b)| [(1, 1), (2, 2), (1, 2), (2, 1)].map(|(first, last)| (r, b, first, last)));
    assert_eq!(seen, expected.collect());

    let nothing = trace.steps.iter().position(|s| matches!(s, Step::Sync(_))).unwrap();
    let lengths: BTreeSet<usize> =
        (0..100).filter_map(|seed| trace.after_cut(nothing, &mut Chance::new(seed)).files.get(Path::new("new")).map(Vec::len)).collect();
    assert!(lengths.contains(&0) && lengths.contains(&2000), "{lengths:?}");
}
