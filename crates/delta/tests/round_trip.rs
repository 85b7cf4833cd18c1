//! Layers made and edited at random come back bit for bit, whatever wrote them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{self, Cursor, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use skerry_delta::apply::Applier;
use skerry_delta::make::{Budget, Input, make};
use skerry_delta::source::{LayerSource, Segment};
use skerry_delta::stream::StreamsReader;
use skerry_delta::tar::{Item, Items};
use skerry_delta::{Silent, TarLayer};
use support::Folder;

fn layer(tar: &[u8]) -> impl LayerSource {
    let tar = tar.to_vec();
    TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap()
}

/// The bytes of a patch with its table, after it was applied and compared.
fn round_trip(old: &[Vec<u8>], new: &[Vec<u8>]) -> usize {
    let old_layers: Vec<Box<dyn LayerSource>> = old.iter().map(|tar| Box::new(layer(tar)) as Box<dyn LayerSource>).collect();
    let new_layers: Vec<_> = new.iter().map(|tar| layer(tar)).collect();
    let input = Input {
        config: b"{\"new\":1}",
        base_config: Some(b"{\"old\":1}"),
        known: &[[7; 32]],
        new: &new_layers.iter().map(|layer| layer as &dyn LayerSource).collect::<Vec<_>>(),
        old: &old_layers.iter().map(|layer| &**layer).collect::<Vec<_>>(),
    };
    let patch = make(&input, Budget { make: 64 << 20, apply: 4 << 20, admitted: 24 << 20 }, &Silent, &AtomicBool::new(false)).unwrap();
    let used: Vec<Box<dyn LayerSource>> = patch.used.iter().map(|&i| Box::new(layer(&old[i])) as Box<dyn LayerSource>).collect();
    let streams = StreamsReader::open(&patch.written.sections, |i| Ok(Box::new(&patch.written.bytes[i][..]))).unwrap();
    let mut applier = Applier::new(streams, &used, 1 << 20).unwrap();
    assert_eq!(applier.config(Some(b"{\"old\":1}"), &[[7; 32]]).unwrap(), b"{\"new\":1}");
    for (tar, stats) in new.iter().zip(&patch.layers) {
        assert_eq!(stats.size, tar.len() as u64);
        let mut made = Vec::new();
        applier
            .layer(tar.len() as u64, &mut |bytes| {
                made.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        assert!(made == *tar, "another tar came out");
    }
    applier.finish().unwrap();
    patch.written.bytes.iter().map(Vec::len).sum()
}

/// How many members of a tar are modelled, and how many bytes are not.
fn modelled(tar: &[u8]) -> (usize, usize) {
    let layer = layer(tar);
    let mut result = (0, 0);
    for item in Items::new(layer.segments().unwrap()) {
        match item.unwrap() {
            Item::Member { .. } => result.0 += 1,
            Item::Bare { .. } => panic!("a content without a header"),
            Item::Raw(bytes) => result.1 += bytes.iter().filter(|&&b| b != 0).count(),
        }
    }
    result
}

#[derive(Debug, Clone)]
struct Entry {
    path: String,
    mode: u32,
    mtime: u64,
    kind: u8,
    content: Vec<u8>,
}

fn entry() -> impl Strategy<Value = Entry> {
    let part = "[.]?[a-z0-9_é-][a-z0-9._é-]{0,38}";
    let path = proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"));
    let content =
        prop_oneof![Just(Vec::new()), proptest::collection::vec(any::<u8>(), 0..2000), "[a-z \n]{0,3000}".prop_map(String::into_bytes),];
    (path, 0u32..0o7777, 0u64..1 << 34, 0u8..6, content).prop_map(|(path, mode, mtime, kind, content)| Entry {
        path,
        mode,
        mtime,
        kind,
        content,
    })
}

fn write_tar(entries: &[Entry], gnu: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = if gnu { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.set_mode(entry.mode);
        header.set_mtime(entry.mtime);
        let result = match entry.kind {
            0 => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, format!("{}/", entry.path), io::empty())
            }
            1 => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, &entry.path, format!("../{}", entry.path))
            }
            2 => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                builder.append_link(&mut header, &entry.path, "target")
            }
            _ => {
                header.set_size(entry.content.len() as u64);
                builder.append_data(&mut header, &entry.path, &entry.content[..])
            }
        };
        // A path may be too long for the old format: then there is no such member.
        assert!(result.is_ok() || !gnu, "{result:?}");
    }
    builder.into_inner().unwrap()
}

fn edit(mut entries: Vec<Entry>, edits: &[(prop::sample::Index, u8, Entry)]) -> Vec<Entry> {
    for (at, what, other) in edits {
        if entries.is_empty() {
            entries.push(other.clone());
            continue;
        }
        let at = at.index(entries.len());
        match what % 6 {
            0 => entries[at].mtime = other.mtime,
            1 => entries[at].path.clone_from(&other.path),
            2 => {
                let middle = entries[at].content.len() / 2;
                entries[at].content.splice(middle..middle, other.content.iter().copied().take(20));
            }
            3 => entries.insert(at, other.clone()),
            4 => drop(entries.remove(at)),
            _ => entries[at].mode = other.mode,
        }
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn trees(
        base in proptest::collection::vec(entry(), 0..12),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), entry()), 0..8),
        gnu in any::<bool>(),
    ) {
        let old = write_tar(&base, gnu);
        let new = write_tar(&edit(base, &edits), gnu);
        round_trip(std::slice::from_ref(&old), std::slice::from_ref(&new));
        round_trip(&[], std::slice::from_ref(&new));
        round_trip(&[new.clone(), old.clone()], &[old, new]);
    }

    #[test]
    fn garbled_tars(
        base in proptest::collection::vec(entry(), 1..6),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let old = write_tar(&base, true);
        let mut new = old.clone();
        for (at, byte) in damage {
            let at = at.index(new.len());
            new[at] = byte;
        }
        round_trip(std::slice::from_ref(&old), std::slice::from_ref(&new));
        new.truncate(cut.index(new.len()));
        round_trip(&[old], &[new]);
    }

    #[test]
    fn no_tar_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        round_trip(&[], &[bytes]);
    }

    /// However a source cuts its bytes, the items are the same.
    #[test]
    fn cuts_do_not_matter(base in proptest::collection::vec(entry(), 0..6), step in 1usize..700) {
        let tar = write_tar(&base, true);
        let layer = layer(&tar);
        let whole: Vec<_> = layer.segments().unwrap().collect::<io::Result<_>>().unwrap();
        let cut = whole.iter().flat_map(|segment| match segment {
            Segment::Raw(bytes) => bytes.chunks(step).map(|part| Segment::Raw(part.to_vec())).collect(),
            file => vec![file.clone()],
        });
        let cut: Vec<_> = Items::new(cut.map(Ok)).collect::<io::Result<_>>().unwrap();
        let whole: Vec<_> = Items::new(whole.into_iter().map(Ok)).collect::<io::Result<_>>().unwrap();
        prop_assert_eq!(cut, whole);
    }
}

fn tree(folder: &Folder) {
    let long = format!("{}/{}/{}", "a".repeat(80), "b".repeat(80), "c".repeat(80));
    for (path, content) in
        [("etc/passwd", "root:x:0:0\n"), ("usr/lib/libfoo.so.1.2.3", "\x7fELF\0\0"), ("empty", ""), (&long, "deep"), ("umlaut-ä/ß", "ß")]
    {
        let path = folder.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::os::unix::fs::symlink("../etc/passwd", folder.0.join("usr/link")).unwrap();
    std::os::unix::fs::symlink(&long, folder.0.join("usr/long-link")).unwrap();
    std::fs::hard_link(folder.0.join("etc/passwd"), folder.0.join("etc/shadow")).unwrap();
    let sparse = std::fs::File::create(folder.0.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
}

fn output(command: &mut Command) -> Vec<u8> {
    let out = command.stderr(Stdio::inherit()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(out.status.success(), "{command:?}");
    out.stdout
}

#[test]
fn what_gnu_tar_writes() {
    let folder = Folder::new("round-trip-gnu");
    tree(&folder);
    let mut all = Vec::new();
    for format in ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"] {
        let exclude = if matches!(format, "ustar" | "v7") { "--exclude=*bbb*" } else { "--exclude=nothing" };
        let tar = output(Command::new("tar").arg("-C").arg(&folder.0).args([
            "-cf",
            "-",
            "--format",
            format,
            "--sort=name",
            exclude,
            "--exclude=long-link",
            ".",
        ]));
        let (members, raw) = modelled(&tar);
        assert!(members >= 10 && raw == 0, "{format}: {members} members, {raw} bytes raw");
        all.push(tar);
    }
    // A sparse member is not modelled, and not wrong.
    all.push(output(Command::new("tar").arg("-C").arg(&folder.0).args(["-Scf", "-", "--format=gnu", "sparse", "etc"])));
    all.push(output(Command::new("tar").arg("-C").arg(&folder.0).args(["-Scf", "-", "--format=pax", "sparse", "etc", "usr"])));
    for old in &all {
        for new in &all {
            round_trip(std::slice::from_ref(old), std::slice::from_ref(new));
        }
    }
}

#[test]
fn what_python_writes() {
    let folder = Folder::new("round-trip-python");
    tree(&folder);
    let script = "
import sys, tarfile
out = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=getattr(tarfile, sys.argv[2]))
def visit(info):
    info.mtime += 0.25 if sys.argv[2] == 'PAX_FORMAT' else 0
    info.uid, info.uname = 3000000 if sys.argv[2] != 'USTAR_FORMAT' else 7, 'someone'
    if len(info.name) > 100 and sys.argv[2] == 'USTAR_FORMAT': return None
    if len(info.linkname) > 100 and sys.argv[2] == 'USTAR_FORMAT': return None
    return info
out.add(sys.argv[1], arcname='', filter=visit)
out.close()
";
    let mut all = Vec::new();
    for format in ["GNU_FORMAT", "PAX_FORMAT", "USTAR_FORMAT"] {
        let mut child = Command::new("python3")
            .args(["-", folder.0.to_str().unwrap(), format])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let mut tar = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut tar).unwrap();
        assert!(child.wait().unwrap().success());
        let (members, raw) = modelled(&tar);
        assert!(members >= 10 && raw == 0, "{format}: {members} members, {raw} bytes raw");
        all.push(tar);
    }
    for old in &all {
        for new in &all {
            round_trip(std::slice::from_ref(old), std::slice::from_ref(new));
        }
    }
}

#[test]
fn a_rebuilt_layer_costs_next_to_nothing() {
    let entries: Vec<_> = (0..3000u32)
        .map(|i| Entry {
            path: format!("opt/app/module{}/file{i}.py", i / 50),
            mode: 0o644,
            mtime: 1_700_000_000 + u64::from(i / 100),
            kind: 5,
            content: format!("content of {i}").repeat(10).into_bytes(),
        })
        .collect();
    let later = entries.iter().map(|entry| Entry { mtime: entry.mtime + 90_000, ..entry.clone() }).collect::<Vec<_>>();
    assert!(round_trip(&[write_tar(&entries, true)], &[write_tar(&later, true)]) < 120);
}

/// A layer whose hashes are known and whose contents cannot be read.
struct Indexed<L> {
    layer: L,
    hashes: Vec<u64>,
}

impl<L: LayerSource> LayerSource for Indexed<L> {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Segment>> + Send + '_>> {
        self.layer.segments()
    }

    fn open(&self, _: u32) -> io::Result<Box<dyn skerry_delta::source::ReadSeek + '_>> {
        Err(io::Error::other("an old content was read"))
    }

    fn hashes(&self) -> Option<Vec<u64>> {
        Some(self.hashes.clone())
    }
}

#[test]
fn known_hashes_spare_reading() {
    let tar = |mtime: u64| {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in [("a", "first"), ("b/c", "second"), ("b/d", "third")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mtime(mtime);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let (old_tar, new_tar) = (tar(1), tar(2));
    let (old, new) = (layer(&old_tar), layer(&new_tar));
    let first = |content: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
        u64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap())
    };
    let known = ["first", "second", "third"].map(first).to_vec();
    let run = |hashes: Vec<u64>| {
        let old = Indexed { layer: layer(&old_tar), hashes };
        let input = Input { config: b"{}", base_config: None, known: &[], new: &[&new], old: &[&old] };
        make(&input, Budget { make: 64 << 20, apply: 4 << 20, admitted: 24 << 20 }, &Silent, &AtomicBool::new(false))
    };
    let indexed = run(known).unwrap();
    let input = Input { config: b"{}", base_config: None, known: &[], new: &[&new], old: &[&old] };
    let read = make(&input, Budget { make: 64 << 20, apply: 4 << 20, admitted: 24 << 20 }, &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(indexed.written.bytes, read.written.bytes);
    // An index that does not fit is not believed: its contents are read, which fails here.
    assert!(run(Vec::new()).is_err());
}
