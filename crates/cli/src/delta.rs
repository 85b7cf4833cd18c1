//! `skerry delta`: patches between images on this machine, without a server.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use skerry_bundle::make::{Base, Layer, Made, MakeOptions, Target, make_spilling};
use skerry_delta::Progress;
use skerry_delta::source::LayerSource;
use skerry_trust::{KeyRing, PublicKey, Role, TrustedRoot};
use skerry_wire::ImageId;
use tempfile::NamedTempFile;

use crate::delta_args::{DeltaCommand, MakeArgs, TrustArgs};
use crate::delta_image::{Check, LocalImage, Temporary, find};
use crate::publish::bar;
use crate::{config, delta_apply, delta_inspect, delta_key, output, stop};

/// `skerry delta ...`
pub(crate) async fn run(command: DeltaCommand, json: bool) -> Result<()> {
    match command {
        DeltaCommand::Make(args) => run_make(args, json).await,
        DeltaCommand::Apply(args) => delta_apply::run(args, json).await,
        DeltaCommand::Inspect(args) => delta_inspect::run(args, json).await,
    }
}

/// Runs blocking work that a signal stops cleanly: its temporary files are gone when it has ended.
pub(crate) async fn interruptible<T: Send + 'static>(work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Result<T> {
    let cancel = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&cancel);
    let mut work = tokio::task::spawn_blocking(move || work(&told));
    tokio::select! {
        done = &mut work => return done.context("the work panicked")?,
        told = stop::told() => told?,
    }
    cancel.store(true, Ordering::Relaxed);
    output::note("Interrupted: cleaning up; once more to end at once.");
    tokio::select! {
        done = work => done.context("the work panicked")?,
        told = stop::told() => {
            told?;
            // As a shell says it of what a Ctrl-C ended.
            std::process::exit(130)
        }
    }
}

/// A temporary file beside `path`, which is put in its place when all of it is written.
pub(crate) fn beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    NamedTempFile::new_in(folder).with_context(|| format!("writing into {}", folder.display()))
}

/// Puts the file in its place, on the disk.
pub(crate) fn keep(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all().with_context(|| format!("writing {}", path.display()))?;
    file.persist(path).map_err(|error| error.error).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

impl TrustArgs {
    /// The keys that were named, or this user's own.
    pub(crate) fn ring(&self) -> Result<KeyRing> {
        if let Some(path) = &self.root {
            if !self.keys.is_empty() {
                bail!("either --root or --trust-key, not both");
            }
            let bytes = std::fs::read(path).with_context(|| format!("root document {}", path.display()))?;
            let root = TrustedRoot::first(&bytes).with_context(|| format!("root document {}", path.display()))?;
            return Ok(root.keys(Role::Director));
        }
        let mut keys = self.keys.iter().map(|key| key.parse::<PublicKey>()).collect::<Result<Vec<_>, _>>().context("--trust-key")?;
        if keys.is_empty() {
            keys.extend(delta_key::known()?);
        }
        if keys.is_empty() {
            bail!(
                "whose bundles are trusted?\n  Name a root document with --root, or a public key with --trust-key: nothing of a bundle is read before its signature holds."
            );
        }
        Ok(KeyRing::new(keys))
    }
}

/// Shows how far making has come.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn stage(&self, name: &'static str, total: u64) {
        self.0.set_message(match name {
            "reading layers" => "Hashing",
            "comparing files" => "Comparing",
            _ => "Packing",
        });
        self.0.set_position(0);
        self.0.set_length(total);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
        // The first stage learns its length on the way.
        if self.0.length().is_none_or(|length| length < self.0.position()) {
            self.0.set_length(self.0.position());
        }
    }
}

async fn run_make(args: MakeArgs, json: bool) -> Result<()> {
    let key = match &args.key {
        Some(path) => config::read_key(path)?,
        None => delta_key::own()?,
    };
    let target = find(&args.target, &args.engine.docker).await?;
    let mut bases = Vec::new();
    for base in &args.bases {
        bases.push(find(base, &args.engine.docker).await?);
    }
    let (out, memory) = (args.out.clone(), args.memory);
    let begun = std::time::Instant::now();
    let (made, id) = interruptible(move |cancel| {
        let bases = bases.into_iter().map(|base| LocalImage::open(base, Check::Layers, cancel)).collect::<Result<Vec<_>>>()?;
        let target = LocalImage::open(target, Check::Layers, cancel)?;
        write_bundle(&target, &bases, &key, memory, &out, cancel).map(|made| (made, target.id))
    })
    .await?;
    if json {
        return output::json(&told(&made, &id));
    }
    let mut text = output::table(
        &["STREAM", "BYTES", "CODED"],
        &["BYTES", "CODED"],
        made.stats.streams.iter().map(|s| vec![format!("{:?}", s.stream), s.raw.to_string(), s.coded.to_string()]),
    );
    text.push('\n');
    let rows = made.stats.layers.iter().flat_map(|(id, layer)| {
        layer
            .codecs
            .iter()
            .map(|(codec, (contents, bytes))| vec![id.digest().short(), format!("{codec:?}"), contents.to_string(), output::bytes(*bytes)])
    });
    text.push_str(&output::table(&["LAYER", "CODEC", "CONTENTS", "SIZE"], &["CONTENTS", "SIZE"], rows));
    output::print(&format!(
        "{text}\nWrote {}: {} for {id}, {} of its layers are in a base, in {:.1} s\n",
        args.out.display(),
        output::bytes(made.size),
        made.stats.known,
        begun.elapsed().as_secs_f64(),
    ))
}

fn write_bundle(
    target: &LocalImage,
    bases: &[LocalImage],
    key: &skerry_trust::SigningKey,
    memory: u64,
    out: &Path,
    cancel: &AtomicBool,
) -> Result<Made> {
    let bases: Vec<_> = bases.iter().map(|base| Base { image_id: base.id, config: &base.config, layers: layer_list(base) }).collect();
    let target = Target { config: &target.config, layers: layer_list(target) };
    let mut file = BufWriter::new(beside(out)?);
    let bar = bar("Hashing", 0);
    let options = MakeOptions { memory: memory << 20, ..MakeOptions::default() };
    let made = make_spilling(&target, &bases, &options, Some(&Temporary), &Bar(bar.clone()), cancel, key, &mut file)?;
    bar.finish_and_clear();
    file.flush().with_context(|| format!("writing {}", out.display()))?;
    keep(file.into_inner().map_err(|e| e.into_error())?, out)?;
    Ok(made)
}

fn layer_list(image: &LocalImage) -> Vec<Layer<'_>> {
    image.layers.iter().map(|(diff_id, layer)| Layer { diff_id: *diff_id, source: layer as &dyn LayerSource }).collect()
}

fn told(made: &Made, target: &ImageId) -> Value {
    let streams: BTreeMap<_, _> =
        made.stats.streams.iter().map(|s| (format!("{:?}", s.stream), json!({ "bytes": s.raw, "coded": s.coded }))).collect();
    let layers: BTreeMap<_, _> = made
        .stats
        .layers
        .iter()
        .map(|(id, layer)| {
            let codecs: BTreeMap<_, _> = layer
                .codecs
                .iter()
                .map(|(codec, (contents, bytes))| (format!("{codec:?}"), json!({ "contents": contents, "bytes": bytes })))
                .collect();
            (id.to_string(), json!({ "size": layer.size, "raw": layer.raw, "codecs": codecs }))
        })
        .collect();
    json!({
        "target": target.to_string(), "size": made.size, "digest": made.digest.to_string(), "table_of_contents": made.stats.toc,
        "layers_known": made.stats.known, "streams": streams, "layers": layers,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};

    use super::interruptible;

    /// How long the work goes on that heeds nothing.
    const LONG: Duration = Duration::from_secs(60);
    /// How long any step of the test may take.
    const STEP: Duration = Duration::from_secs(20);
    /// Tells the test below that it is the process to be ended.
    const AS_CHILD: &str = "SKERRY_TEST_WORK_THAT_GOES_ON";

    /// A process that does not outlive the test.
    struct Kept(Child);

    impl Drop for Kept {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_second_signal_ends_work_that_goes_on() {
        for second in [Signal::INT, Signal::TERM] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "delta::tests::work_that_goes_on", "--nocapture"]).env(AS_CHILD, "1");
            let mut child = Kept(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
            let mut said = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
            let pid = Pid::from_child(&child.0);
            assert!(said.any(|line| line == "at work"));
            kill_process(pid, Signal::INT).unwrap();
            assert!(said.any(|line| line.starts_with("Interrupted: cleaning up;")));
            kill_process(pid, second).unwrap();
            let told = Instant::now();
            let ended = loop {
                if let Some(ended) = child.0.try_wait().unwrap() {
                    break ended;
                }
                assert!(told.elapsed() < STEP, "it goes on");
                std::thread::sleep(Duration::from_millis(10));
            };
            assert_eq!(ended.code(), Some(130));
        }
    }

    /// The process that is ended; no test by itself.
    #[test]
    fn work_that_goes_on() {
        if std::env::var_os(AS_CHILD).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let work = interruptible(|_| {
            let begun = Instant::now();
            while !listens() {
                assert!(begun.elapsed() < STEP, "signals are not listened to");
                std::thread::sleep(Duration::from_millis(1));
            }
            // The kernel knows of a handler a moment before the handler knows whom to tell.
            std::thread::sleep(Duration::from_millis(200));
            eprintln!("at work");
            std::thread::sleep(LONG);
            Ok(())
        });
        runtime.block_on(work).unwrap();
    }

    /// Does this process handle SIGINT and SIGTERM itself?
    fn listens() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let both = [Signal::INT, Signal::TERM].iter().fold(0, |bits, signal| bits | 1 << (signal.as_raw() - 1));
        u64::from_str_radix(caught.trim(), 16).unwrap() & both == both
    }
}
