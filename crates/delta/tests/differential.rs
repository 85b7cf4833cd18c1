//! The tar model beside the programs that write tars: what GNU tar and Python's tarfile write, and what Docker, BuildKit, containerd,
//! Buildah and umoci wrote (`tests/layers`), comes back byte for byte, and names, links and sizes are those that tarfile reads.
//!
//! Needs `tar` and `python3`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::type_complexity, reason = "a closure's type has no shorter name")]

mod support;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use skerry_delta::apply::Applier;
use skerry_delta::make::{Budget, Input, make};
use skerry_delta::source::LayerSource;
use skerry_delta::stream::StreamsReader;
use skerry_delta::tar::{Item, Items, padding};
use skerry_delta::{Silent, TarLayer};
use support::Folder;

/// Writes archives into a folder.
const WRITE: &str = r#"
import io, os, random, subprocess, sys, tarfile
folder = sys.argv[1]
rng = random.Random(20)

def name(length, odd):
    letters = 'abcdefgh/._-0123456789' + ('äß\udcff\n ' if odd else '')
    text = ''.join(rng.choice(letters) for _ in range(length)).strip('/').replace('//', '/x')
    return text or 'x'

def member(odd, long, huge):
    info = tarfile.TarInfo(name(rng.choice([1, 20, 99, 100, 101, 155, 256, 300] if long else [1, 20, 60, 99]), odd))
    info.type = rng.choice([tarfile.REGTYPE] * 6 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE])
    if info.type == tarfile.AREGTYPE and len(os.fsencode(info.name)) > 99:
        info.type = tarfile.REGTYPE                    # tarfile takes one whose name is cut at a slash for a folder
    info.mode, info.mtime = rng.randrange(0o10000), rng.choice([0, 1, 1700000000, 2**33 - 1] + ([2**33, 2**40] if huge else []))
    info.uid, info.gid = (rng.choice([0, 1000, 2**21 - 1] + ([2**21, 2**31] if huge else [])) for _ in 'ug')
    info.uname, info.gname = rng.choice(['', 'root', 'x' * 31]), rng.choice(['', 'wheel'])
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = name(rng.choice([1, 99, 100, 101, 400] if long else [1, 99]), odd)
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = rng.randrange(256), rng.randrange(256)
    content = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000])) if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) else b''
    info.size = len(content)
    return info, content

for number in range(36):
    form = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT][number % 3]
    out = io.BytesIO()
    plain = form == tarfile.USTAR_FORMAT
    extra = {'comment': 'global'} if form == tarfile.PAX_FORMAT and number % 2 else None
    with tarfile.open(fileobj=out, mode='w', format=form, encoding='utf-8', errors='surrogateescape', pax_headers=extra) as tar:
        for _ in range(40):
            info, content = member(number % 4 > 1 and not plain, not plain, not plain)
            if form == tarfile.PAX_FORMAT and rng.random() < 0.3:
                info.pax_headers = {'mtime': '1700000000.123456789', 'SCHILY.xattr.user.note': 'x' * rng.randrange(300)}
            tar.addfile(info, io.BytesIO(content))
    data = out.getvalue()
    # Odd ends: no zeros, one block of them, more than any program writes, bytes after them, a cut within the last block.
    end = number // 3 % 6
    data = [data, data.rstrip(b'\0') + b'\0' * 100, data + b'\0' * 12345, data + b'after the end', data[:-700], data[:len(data) // 2]][end]
    open(f'{folder}/{"cut" if end in (1, 4, 5) else "py"}{number:02}.tar', 'wb').write(data)

tree = folder + '/tree'
os.makedirs(tree + '/' + 'd' * 90 + '/' + 'e' * 90)
for path, content in [('a', b'1'), ('empty', b''), ('d' * 90 + '/' + 'e' * 90 + '/deep', b'deep' * 999), (b'\xff\xfe not utf-8', b'x'), ('new\nline', b'y'), ('block', bytes(512))]:
    with open(os.path.join(os.fsencode(tree), path if isinstance(path, bytes) else os.fsencode(path)), 'wb') as file:
        file.write(content)
os.link(tree + '/a', tree + '/hard')
os.symlink('d' * 120, tree + '/long link')
os.mkfifo(tree + '/fifo')
with open(tree + '/holes', 'wb') as file:
    file.write(b'start'); file.seek(1 << 20); file.write(b'middle'); file.truncate(3 << 20)
try:
    os.setxattr(tree + '/a', 'user.note', b'value\0 with zero')
    os.setxattr(tree + '/empty', 'user.long', b'v' * 900)
except OSError:
    pass                                               # a filesystem without them
def gnu(file, *options):
    subprocess.run(['tar', '-C', tree, '-cf', f'{folder}/{file}.tar', '--sort=name', *options, '.'], check=True, stderr=subprocess.DEVNULL)
for form in 'gnu', 'oldgnu', 'posix':
    gnu(f'gnu-{form}', f'--format={form}')
    gnu(f'gnu-{form}-owner', f'--format={form}', '--owner=someone:3000000', '--group=x:4000000', '-b1')
    gnu(f'sparse-{form}', f'--format={form}', '-S')
gnu('gnu-xattrs', '--format=posix', '--xattrs', '--xattrs-include=*', '-b', '128')
gnu('gnu-times', '--format=posix', '--pax-option=globexthdr.name=/x/%n,delete=atime', '--mtime=2001-01-01 00:00:00.5')
for version in '0.0', '0.1', '1.0':
    gnu(f'sparse-{version}', '--format=posix', '-S', f'--sparse-version={version}')
subprocess.run(['tar', '-C', tree, '-cf', f'{folder}/gnu-append.tar', 'a'], check=True)
subprocess.run(['tar', '-C', tree, '-rf', f'{folder}/gnu-append.tar', 'block', 'hard'], check=True)
"#;

/// Writes beside each archive of a folder what tarfile reads: a line for each member, its name, its link, its bytes of content.
const LIST: &str = r#"
import os, sys, tarfile
folder = sys.argv[1]
for file in sorted(os.listdir(folder)):
    if not file.endswith('.tar'):
        continue
    with open(f'{folder}/{file}.members', 'w') as out:
        try:
            with tarfile.open(f'{folder}/{file}', encoding='utf-8', errors='surrogateescape') as tar:
                for info in tar:
                    code = lambda text: text.rstrip('/').encode('utf-8', 'surrogateescape').hex()
                    out.write(f"{code(info.name)} {code(info.linkname)} {info.size if info.isreg() else 0}\n")
        except tarfile.ReadError:
            pass                                       # cut off: what came before counts
"#;

fn layer(tar: &[u8]) -> TarLayer<impl Fn() -> std::io::Result<Cursor<Vec<u8>>> + Send + Sync, Cursor<Vec<u8>>> {
    let tar = tar.to_vec();
    TarLayer::new(move || Ok(Cursor::new(tar.clone()))).unwrap()
}

/// The bytes that the items of a layer stand for, its members, and how many bytes of it are not modelled, trailing zeros aside.
fn model(tar: &[u8]) -> (Vec<u8>, Vec<String>, usize) {
    let layer = layer(tar);
    let (mut bytes, mut members, mut raw) = (Vec::new(), Vec::new(), 0);
    let read = |file: u32, out: &mut Vec<u8>| std::io::copy(&mut layer.open(file).unwrap(), out).unwrap();
    for item in Items::new(layer.segments().unwrap()) {
        match item.unwrap() {
            Item::Raw(more) => {
                raw += more.iter().filter(|byte| **byte != 0).count();
                bytes.extend(more);
            }
            Item::Bare { file, size } => {
                raw += 1;
                assert_eq!(read(file, &mut bytes), size);
            }
            Item::Member { member, file } => {
                bytes.extend(member.render().unwrap());
                if let Some(file) = file {
                    assert_eq!(read(file, &mut bytes), member.content());
                }
                if member.form.padded {
                    bytes.extend(vec![0; padding(member.content())]);
                }
                // tarfile names a folder without its slash.
                let name = |text: &[u8]| -> String {
                    let end = text.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
                    text[..end].iter().map(|byte| format!("{byte:02x}")).collect()
                };
                members.push(format!("{} {} {}", name(&member.path), name(&member.link), member.content()));
            }
        }
    }
    (bytes, members, raw)
}

fn python(script: &str, folder: &Path) {
    let status = Command::new("python3").arg("-c").arg(script).arg(folder).status().expect("python3 runs");
    assert!(status.success());
}

/// The archives of a folder by name; what tarfile reads is written beside them.
fn archives(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    python(LIST, folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let tars = entries.filter(|path| path.extension().is_some_and(|end| end == "tar"));
    tars.map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn what_real_programs_write() {
    let folder = Folder::new("differential");
    python(WRITE, &folder.0);
    let archives = archives(&folder.0);
    assert!(archives.len() >= 48, "{}", archives.len());
    let mut compared = 0;
    for (name, tar) in &archives {
        let (bytes, members, raw) = model(tar);
        assert!(bytes == *tar, "{name}: another tar came out");
        let said = std::fs::read_to_string(folder.0.join(format!("{name}.tar.members"))).unwrap();
        let said: Vec<_> = said.lines().collect();
        // A sparse member is not modelled, and its size is another thing; what is not modelled is not compared.
        if !name.starts_with("sparse") && raw == 0 {
            // Of what is cut the two may tell the last one differently.
            let (most, least) = (members.len().max(said.len()), members.len().min(said.len()));
            let first = members.iter().zip(&said).position(|(own, said)| own != said);
            assert!(
                first.is_none_or(|at| name.starts_with("cut") && at + 1 >= most),
                "{name}: member {first:?}: {:?} {:?}",
                members.get(first.unwrap_or(0)),
                said.get(first.unwrap_or(0))
            );
            assert!(most - least <= usize::from(name.starts_with("cut")), "{name}: {} members of {}", members.len(), said.len());
            compared += least;
        }
        if name.starts_with("gnu") {
            assert_eq!(raw, 0, "{name}: all of it is modelled");
        }
        if name.starts_with("py") {
            let after = if tar.ends_with(b"after the end") { 13 } else { 0 };
            assert_eq!((members.len(), raw), (40, after), "{name}");
        }
    }
    assert!(compared > 800, "{compared}");
    // And as patches: of each archive from the one before.
    let mut before: Option<&Vec<u8>> = None;
    for (name, tar) in &archives {
        round_trip(name, before.map(Vec::as_slice), tar);
        before = Some(tar);
    }
}

#[test]
fn what_builders_wrote() {
    let folder = Folder::new("builders");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layers");
    for path in std::fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|end| end == "zst") {
            let tar = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
            std::fs::write(folder.0.join(path.file_stem().unwrap()), tar).unwrap();
        }
    }
    let layers = archives(&folder.0);
    assert_eq!(layers.len(), 10);
    for (name, tar) in &layers {
        let (bytes, members, raw) = model(tar);
        assert!(bytes == *tar, "{name}: another tar came out");
        assert_eq!(raw, 0, "{name}: all of it is modelled");
        let said = std::fs::read_to_string(folder.0.join(format!("{name}.tar.members"))).unwrap();
        assert_eq!(members, said.lines().collect::<Vec<_>>(), "{name}");
    }
    // The same files by two programs: what differs is how they write it, and when they did.
    for (name, new) in &layers {
        for (base, old) in layers.iter().filter(|(base, _)| base.split('-').nth(1) == name.split('-').nth(1)) {
            let bytes = round_trip(&format!("{base} to {name}"), Some(old), new);
            assert!(bytes <= 300, "{base} to {name}: {bytes} bytes");
        }
    }
}

/// Makes `new` from `old` by a patch, and gives the patch's bytes.
fn round_trip(name: &str, old: Option<&[u8]>, new: &[u8]) -> usize {
    let old: Vec<Box<dyn LayerSource>> = old.map(|tar| Box::new(layer(tar)) as _).into_iter().collect();
    let target = layer(new);
    let sources: Vec<_> = old.iter().map(|layer| &**layer).collect();
    let input = Input { config: b"{}", base_config: None, known: &[], new: &[&target], old: &sources };
    let patch = make(&input, Budget { make: 64 << 20, apply: 4 << 20, admitted: 24 << 20 }, &Silent, &AtomicBool::new(false)).unwrap();
    let used: Vec<Box<dyn LayerSource>> = old.into_iter().enumerate().filter(|(i, _)| patch.used.contains(i)).map(|(_, old)| old).collect();
    let streams = StreamsReader::open(&patch.written.sections, |i| Ok(Box::new(&patch.written.bytes[i][..]))).unwrap();
    let mut applier = Applier::new(streams, &used, 4 << 20).unwrap();
    assert_eq!(applier.config(None, &[]).unwrap(), b"{}");
    let mut made = Vec::new();
    let mut sink = |bytes: &[u8]| {
        made.extend_from_slice(bytes);
        Ok(())
    };
    applier.layer(new.len() as u64, &mut sink).unwrap();
    applier.finish().unwrap();
    assert!(made == new, "{name}: another tar came out");
    patch.written.bytes.iter().map(Vec::len).sum()
}
