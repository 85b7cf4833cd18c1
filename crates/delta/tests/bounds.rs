//! What making may cost: memory within its budget, archives included, and an end soon after it is cancelled.
//!
//! Needs `python3`, whose zipfile writes the archives. The peak of memory is the process's, so that there is one test of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::codec::Codec;
use skerry_delta::make::{Budget, Input, Patch, make_spilling};
use skerry_delta::source::LayerSource;
use skerry_delta::{Progress, TarLayer};
use support::Folder;

/// Writes two layers with an archive each, of which every entry changed a little: a long one, some of a megabyte, one in an archive in
/// it, and one that is a thousand times as long as it is in the archive.
const WRITE: &str = r#"
import io, random, sys, tarfile, zipfile
folder = sys.argv[1]
def text(seed, size, edit):
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(2, 9)).hex().encode() for _ in range(5000)]
    lines = [b' '.join(rng.choices(words, k=8)) for _ in range(2000)]
    out = bytearray(b'\n'.join(rng.choices(lines, k=size // 60)))[:size]
    for at in range(0, len(out), 300_000):
        out[at:at + 5] = edit
    return bytes(out)
def archive(entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as zip:
        for name, content in entries:
            zip.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 6)
    return out.getvalue()
for name, edit in ('old', b'first'), ('new', b'other'):
    inner = archive([('inner', text(9, 2 << 20, edit))])
    whole = archive([('long', text(1, 16 << 20, edit))] + [(f'part{i}', text(2 + i, 1 << 20, edit)) for i in range(5)] + [('inner.jar', inner), ('dump', edit + bytes(96 << 20))])
    with tarfile.open(f'{folder}/{name}.tar', 'w') as tar:
        info = tarfile.TarInfo('app/application.jar')
        info.size = len(whole)
        tar.addfile(info, io.BytesIO(whole))
"#;

struct Files<'a>(&'a Path);

impl Scratch for Files<'_> {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = self.0.join(format!("scratch{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(path)?;
        Ok(Box::new(file))
    }
}

fn make(folder: &Path, budget: u64, progress: &dyn Progress, cancel: &AtomicBool) -> io::Result<Patch> {
    let open = |name: &str| {
        let path = folder.join(name);
        Box::new(TarLayer::new(move || File::open(&path)).unwrap()) as Box<dyn LayerSource>
    };
    let (old, new) = (open("old.tar"), open("new.tar"));
    let input = Input { config: b"{}", base_config: None, known: &[], new: &[&*new], old: &[&*old] };
    make_spilling(&input, Budget { make: budget, apply: 8 << 20, admitted: 24 << 20 }, Some(&Files(folder)), progress, cancel)
}

/// The most memory that this process has had since the last [`forget_peak`], in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Cancels at the n-th news of a stage.
struct Canceller<'a> {
    stage: &'static str,
    left: AtomicU64,
    now: AtomicBool,
    cancel: &'a AtomicBool,
}

impl Progress for Canceller<'_> {
    fn stage(&self, name: &'static str, _: u64) {
        self.now.store(name == self.stage, Ordering::Relaxed);
        self.advance(0);
    }

    fn advance(&self, _: u64) {
        if self.now.load(Ordering::Relaxed) && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

/// Counts bytes told of, by stage.
#[derive(Default)]
struct Counter(std::sync::Mutex<Vec<(&'static str, u64, u64)>>);

impl Progress for Counter {
    fn stage(&self, name: &'static str, total: u64) {
        self.0.lock().unwrap().push((name, total, 0));
    }

    fn advance(&self, bytes: u64) {
        self.0.lock().unwrap().last_mut().unwrap().2 += bytes;
    }
}

#[test]
fn an_archive_is_made_within_the_budget_and_can_be_cancelled() {
    let folder = Folder::new("bounds");
    let status = Command::new("python3").args(["-c", WRITE]).arg(&folder.0).status().expect("python3 runs");
    assert!(status.success());
    let size = std::fs::metadata(folder.0.join("new.tar")).unwrap().len();
    let bytes = |patch: &Patch| patch.written.sections.iter().map(|section| section.len).sum::<u64>();
    let never = AtomicBool::new(false);
    for (budget, opened, most) in [(40 << 20, false, size), (128 << 20, true, 2_000_000), (512 << 20, true, 2000)] {
        forget_peak();
        let before = peak();
        let counter = Counter::default();
        let patch = make(&folder.0, budget, &counter, &never).unwrap();
        let took = peak() - before;
        println!("{budget}: {took} of memory, {} of {size} bytes", bytes(&patch));
        assert!(took <= budget, "{took} bytes of memory of {budget}");
        assert!(bytes(&patch) <= most, "{budget}: {} bytes", bytes(&patch));
        assert_eq!(patch.layers[0].codecs.contains_key(&Codec::Archive), opened, "{budget}");
        for &(stage, total, told) in counter.0.lock().unwrap().iter() {
            assert!(total == 0 || told <= total, "{stage}: {told} of {total}");
        }
    }
    for (stage, news) in [("reading layers", 1), ("comparing files", 1), ("comparing files", 3), ("comparing files", 6), ("compressing", 1)]
    {
        let cancel = AtomicBool::new(false);
        let canceller = Canceller { stage, left: AtomicU64::new(news), now: AtomicBool::new(false), cancel: &cancel };
        let error = make(&folder.0, 512 << 20, &canceller, &cancel).err().map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::Interrupted), "{stage}, {news}");
    }
}
