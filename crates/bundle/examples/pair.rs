//! Makes the bundle from one `docker save` archive to another, applies it, compares, and prints sizes, times and memory.
//!
//!     cargo run --release -p skerry-bundle --example pair -- OLD.tar NEW.tar [BUNDLE]
//!     cargo run --release -p skerry-bundle --example pair -- apply OLD.tar BUNDLE [TIMES]
//!
//! OLD may be `-` for a full bundle. PAIR_MEMORY_MIB is the memory for making. With BUNDLE, the bundle is written there, and the key that
//! signed it beside it. `apply` only applies it, in a process that has done nothing else: so its memory and the time on a core are those
//! of a node.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use skerry_bundle::VerifiedToc;
use skerry_bundle::make::{Base, Layer, MakeOptions, Target, make_spilling};
use skerry_delta::archive::{Scratch, ScratchFile};
use skerry_delta::source::{LayerSource, Sources};
use skerry_delta::{Silent, TarLayer};
use skerry_image::config::ImageConfig;
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, reconstruct};
use skerry_trust::{KeyRing, SigningKey};
use skerry_wire::{DiffId, Digest, ImageId};

/// A part of a file.
struct Window {
    file: File,
    start: u64,
    size: u64,
    at: u64,
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(usize::try_from(self.size - self.at.min(self.size)).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buf[..len])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            SeekFrom::End(by) => self.size.saturating_add_signed(by),
        };
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        Ok(self.at)
    }
}

/// An image in an archive.
struct Image {
    id: ImageId,
    config: Vec<u8>,
    layers: Vec<(DiffId, Box<dyn LayerSource>)>,
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().expect("32 bytes"))
}

fn read_image(path: &Path) -> Result<Image> {
    let mut places = BTreeMap::new();
    for entry in tar::Archive::new(File::open(path).with_context(|| path.display().to_string())?).entries_with_seek()? {
        let entry = entry?;
        places.insert(entry.path()?.display().to_string(), (entry.raw_file_position(), entry.size()));
    }
    let open =
        |name: &str| -> Result<(u64, u64)> { places.get(name).copied().with_context(|| format!("{} has no {name}", path.display())) };
    let whole = |name: &str| -> Result<Vec<u8>> {
        let (start, size) = open(name)?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(size).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let manifest: serde_json::Value = serde_json::from_slice(&whole("manifest.json")?)?;
    let config = whole(manifest[0]["Config"].as_str().context("no config")?)?;
    let diff_ids = ImageConfig::parse(&config)?.diff_ids;
    let mut layers = Vec::new();
    for (diff_id, name) in diff_ids.into_iter().zip(manifest[0]["Layers"].as_array().context("no layers")?) {
        let (start, size) = open(name.as_str().context("a layer without a name")?)?;
        let path: PathBuf = path.to_owned();
        let reader = move || -> io::Result<Window> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(start))?;
            Ok(Window { file, start, size, at: 0 })
        };
        layers.push((diff_id, Box::new(TarLayer::new(reader)?) as Box<dyn LayerSource>));
    }
    Ok(Image { id: ImageId(sha256(&config)), config, layers })
}

struct Old<'a>(&'a [Image]);

impl Sources for Old<'_> {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        self.0.iter().find(|i| i.id == *image).map(|i| i.config.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let layer = self.0.iter().flat_map(|i| &i.layers).find(|(id, _)| id == diff_id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Borrowed(&*layer.1)))
    }

    fn scratch(&self) -> Option<&dyn Scratch> {
        Some(&Temporary)
    }
}

/// Scratch files without a name in the folder for temporary files.
struct Temporary;

impl Scratch for Temporary {
    fn file(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(tempfile::tempfile()?))
    }
}

struct Borrowed<'a>(&'a dyn LayerSource);

impl LayerSource for Borrowed<'_> {
    fn segments(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<skerry_delta::source::Segment>> + Send + '_>> {
        self.0.segments()
    }

    fn open(&self, file: u32) -> io::Result<Box<dyn skerry_delta::source::ReadSeek + '_>> {
        self.0.open(file)
    }
}

/// Counts; the digests are checked by the reconstruct.
#[derive(Default)]
struct Counter {
    layers: usize,
    bytes: u64,
    /// Of memory, in KiB, when last looked at: now and then.
    share: u64,
}

impl ImageSink for Counter {
    fn config(&mut self, _: &ImageId, _: &[u8], _: &[LayerInfo]) -> io::Result<()> {
        Ok(())
    }
    fn layer_start(&mut self, _: usize, _: &DiffId, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let step = |bytes: u64| bytes >> 24;
        if step(self.bytes) != step(self.bytes + bytes.len() as u64) {
            self.share = self.share.max(share().unwrap_or(0));
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }
    fn layer_end(&mut self) -> io::Result<()> {
        self.layers += 1;
        self.share = self.share.max(share().unwrap_or(0));
        Ok(())
    }
}

/// Seconds that this thread ran on a core: unlike the time of the clock, about the same on a busy machine.
fn on_core() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split_whitespace().next().context("no time on a core")?.parse::<f64>()? / 1e9)
}

/// Proportional share of memory of this process, in KiB.
fn share() -> Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).context("no Pss")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

/// Applies a bundle and prints how it went.
fn apply(bundle: &mut (impl Read + Seek + Send), keys: &KeyRing, bases: &[Image], target: Option<ImageId>) -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let before = peak()?;
    let (start, core) = (Instant::now(), on_core()?);
    let toc = VerifiedToc::read(bundle, keys)?;
    let mut counter = Counter::default();
    let limits = Limits { memory: 64 << 20, ..Limits::default() };
    let done = reconstruct(bundle, &toc, &Old(bases), &mut counter, &limits)?;
    let same = target.is_none_or(|target| target == done.image_id);
    ensure!(same && counter.layers == done.new_layers && counter.bytes == done.new_bytes, "another image came out");
    let (seconds, core) = (start.elapsed().as_secs_f64(), on_core()? - core);
    let speed = |seconds: f64| counter.bytes as f64 / 1e6 / seconds;
    println!(
        "applied {} bytes in {seconds:.2} s ({:.0} MB/s), {core:.2} s on a core ({:.0} MB/s), said memory {} KiB, peak grew by {} KiB, share most {} KiB",
        counter.bytes,
        speed(seconds),
        speed(core),
        toc.toc().memory / 1024,
        peak()? - before,
        counter.share,
    );
    Ok(())
}

/// Peak resident memory of this process since the last reset, in KiB.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

fn main() -> Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(args.len() >= 2, "usage: pair OLD.tar NEW.tar [BUNDLE] | pair apply OLD.tar BUNDLE [TIMES]");
    let bases = |path: &Path| -> Result<_> { if path.as_os_str() == "-" { Ok(Vec::new()) } else { Ok(vec![read_image(path)?]) } };
    if let ("apply", Some(bundle)) = (&*args[0].to_string_lossy(), args.get(2)) {
        let key = SigningKey::from_text(&std::fs::read_to_string(bundle.with_extension("key"))?)?;
        let bases = bases(&args[1])?;
        let times = args.get(3).map_or(Ok(1), |times| times.to_string_lossy().parse())?;
        return (0..times).try_for_each(|_: u32| apply(&mut File::open(bundle)?, &KeyRing::from(key.public()), &bases, None));
    }
    let pkcs8 = SigningKey::generate(&ring::rand::SystemRandom::new())?;
    let key = SigningKey::from_pkcs8(&pkcs8)?;
    let keys = KeyRing::from(key.public());
    let bases = bases(&args[0])?;
    let target = read_image(&args[1])?;

    let start = Instant::now();
    let layers = |image: &'static Image| image.layers.iter().map(|(id, source)| Layer { diff_id: *id, source: &**source }).collect();
    let target: &'static Image = Box::leak(Box::new(target));
    let bases: &'static [Image] = Box::leak(bases.into_boxed_slice());
    let mut options = MakeOptions::default();
    if let Ok(memory) = std::env::var("PAIR_MEMORY_MIB") {
        options.memory = memory.parse::<u64>()? << 20;
    }
    let mut bundle = Vec::new();
    let base_list: Vec<_> = bases.iter().map(|b| Base { image_id: b.id, config: &b.config, layers: layers(b) }).collect();
    let made = make_spilling(
        &Target { config: &target.config, layers: layers(target) },
        &base_list,
        &options,
        Some(&Temporary),
        &Silent,
        &AtomicBool::new(false),
        &key,
        &mut bundle,
    )?;
    println!("bundle {} bytes, table of contents {}, {} layers known", made.size, made.stats.toc, made.stats.known);
    println!("made in {:.1} s, peak {} KiB", start.elapsed().as_secs_f64(), peak()?);
    for stream in &made.stats.streams {
        println!("  {:<12} {:>12} -> {:>10}", format!("{:?}", stream.stream), stream.raw, stream.coded);
    }
    for (id, layer) in &made.stats.layers {
        println!("  layer {} {} bytes, raw {}", id.digest().short(), layer.size, layer.raw);
        for (codec, (count, bytes)) in &layer.codecs {
            println!("    {:<12} {:>8} contents {:>12} bytes", format!("{codec:?}"), count, bytes);
        }
    }
    if let Some(path) = args.get(2) {
        std::fs::write(path, &bundle)?;
        std::fs::write(path.with_extension("key"), SigningKey::to_text(&pkcs8))?;
    }
    apply(&mut Cursor::new(bundle), &keys, bases, Some(target.id))
}
