//! Power cuts under plain files: what was promised stays, what was not may go.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use skerry_testkit::powercut::{Chance, Recording, Step, Watched};

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

#[test]
fn the_power_goes_while_the_program_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let watched = Watched::start(folder.path()).unwrap();
    fs::write(&path, b"unsynced").unwrap();
    // Killed: what it did stays in the folder, what it does is lost.
    watched.kill();
    fs::write(&path, b"from the grave").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"unsynced");
    watched.revive();
    // Full: no byte more, but bytes that have their place.
    watched.set_full(true);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"UN", 0).unwrap();
    let error = file.write_all_at(b"more", 100).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    watched.set_full(false);
    file.sync_all().unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
    // The power goes with the second change; the third is never made.
    watched.cut_after(2, Chance::new(1));
    file.write_all_at(b"12", 0).unwrap();
    assert!(!watched.is_cut());
    file.write_all_at(b"34", 2).unwrap();
    assert!(watched.is_cut());
    file.write_all_at(b"56", 4).unwrap();
    let left = watched.end().unwrap();
    let bytes = &left.files[Path::new("a")];
    assert!(matches!(&bytes[..4], b"UNsy" | b"12sy" | b"1234" | b"UN34") && &bytes[4..] == b"nced", "{bytes:?}");
    left.replace(folder.path()).unwrap();
    assert_eq!(&fs::read(&path).unwrap(), bytes);
}
