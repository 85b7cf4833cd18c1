//! The real image pairs: old deployed in full, new as a patch, with what other ways would have sent.
//!
//! Needs root, Docker, the built programs, and the archives of `make workloads` in `$SKERRY_WORKLOADS`. `make bench` runs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skerry_testkit::Bed;
use skerry_testkit::command::{run, until};
use skerry_testkit::memory::ChildrenPeak;
use skerry_tests::promise::hold;
use skerry_tests::stage;

/// An image of 400 MB is published, built, sent and loaded within this time.
const LONG: Duration = Duration::from_secs(1200);

#[test]
#[ignore = "builds images of 400 MB; `make bench` runs it"]
fn application_edited() -> Result<()> {
    pair("S2", "bundle-s2")
}

#[test]
#[ignore = "builds images of 400 MB; `make bench` runs it"]
fn requirements_bumped() -> Result<()> {
    pair("S3", "bundle-s3")
}

/// What the agent's own process takes to make each new image, whose old one the engine has already.
#[test]
#[ignore = "builds images of up to 1.4 GB; `make bench-reconstruct` runs it"]
fn every_pair_in_the_agent() -> Result<()> {
    let wanted = std::env::var("SKERRY_PAIRS").unwrap_or_default();
    let wanted: Vec<_> = wanted.split_whitespace().collect();
    let mut rows = String::new();
    let mut most = 0;
    let built = scenarios()?;
    let unknown: Vec<_> = wanted.iter().filter(|name| !built.iter().any(|scenario| scenario == *name)).collect();
    ensure!(unknown.is_empty(), "these pairs are not built: {unknown:?}");
    for scenario in built.iter().filter(|scenario| wanted.is_empty() || wanted.contains(&scenario.as_str())) {
        let (old, new) = archives(scenario)?;
        let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
        bed.engine.load(&old)?;
        bed.publish(&old, "workload:old")?;
        bed.publish(&new, "workload:new")?;
        let new_id = Image::open(&bed, &new)?.id;
        let peak = ChildrenPeak::watch(bed.agent()?.pid());
        bed.run_job("workload", "workload:new")?;
        bed.wait_deployed("workload", LONG)?;
        until("the image in the engine", LONG, || Ok(bed.engine.images()?.contains(&new_id).then_some(()))).with_context(|| bed.logs())?;
        let (sent, peak) = (bed.object_bytes_sent()?, peak.kib() * 1024);
        ensure!(peak > 0, "no reconstruct process was seen");
        most = most.max(peak);
        let row = format!("| {scenario} | {sent} | {}.{} MB |\n", peak / 1_000_000, peak / 100_000 % 10);
        println!("{row}");
        rows.push_str(&row);
    }
    ensure!(most > 0, "no pair is built");
    if wanted.is_empty() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bench/reconstruct.md");
        fs::write(&page, format!("{EVERY}{rows}")).with_context(|| format!("cannot write {}", page.display()))?;
    }
    hold("reconstruct-peak", most)
}

/// The head of the page of all pairs.
const EVERY: &str = "# The reconstruct process on every pair

Made by `make bench-reconstruct`, through server and agent, with the engine of the tests: the engine has the old image, the job asks for the new one. *Sent* is what the
node fetched: the bundle. *Memory* is the highest Pss of the agent's process that made the new image, looked at every 5 ms; 24 MB are promised (`reconstruct-peak`).

| pair | sent, bytes | memory |
|---|---:|---:|
";

fn pair(scenario: &str, promise: &str) -> Result<()> {
    let (old, new) = archives(scenario)?;
    let Some(mut bed) = stage::enrolled()? else { return Ok(()) };
    let (old_id, new_id) = (Image::open(&bed, &old)?, Image::open(&bed, &new)?);
    send(&bed, &old, "old")?;
    ensure!(bed.engine.images()?.contains(&old_id.id), "the node has not {}", old_id.id);
    let full = bed.object_bytes_sent()?;
    let agent = bed.agent()?.pid();
    let peak = ChildrenPeak::watch(agent);
    send(&bed, &new, "new")?;
    let patch = bed.object_bytes_sent()? - full;
    let inspect = run(bed.engine.docker().args(["image", "inspect", "--format", "{{.Id}}", &new_id.id]))?;
    ensure!(inspect.trim() == new_id.id, "docker image inspect says {inspect}, published was {}", new_id.id);

    let gzip = new_id.layers_gzip(&old_id)?;
    let zstd = patch_from(&bed, &old, &new)?;
    let rows = [
        ("Skerry, first image in full", full),
        ("Skerry, patch", patch),
        ("gzip -6 of the layers that the node lacks", gzip),
        ("zstd -3 --patch-from", zstd),
    ];
    let table = table(scenario, new_id.size, &rows, patch, gzip.min(zstd));
    println!("\n{table}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/bench/{}.md", scenario.to_lowercase()));
    fs::write(&page, table).with_context(|| format!("cannot write {}", page.display()))?;
    if scenario == "S3" {
        hold("reconstruct-peak", peak.kib() * 1024)?;
    }
    ensure!(peak.kib() > 0, "no reconstruct process was seen");
    hold(promise, patch)
}

/// The page of `docs/bench/` for a pair.
fn table(scenario: &str, image: u64, rows: &[(&str, u64)], patch: u64, best_peer: u64) -> String {
    let millionths = |part: u64, whole: u64| format!("{}.{:04}", part * 100 / whole, part * 1_000_000 / whole % 10_000);
    let mut page =
        format!("# Pair {scenario}\n\nMade by `make bench`, through server and agent, all ways on the same files in one run.\n\n");
    page.push_str(&format!("The new image has {image} bytes of layers.\n\n| way | bytes | % of the image |\n|---|---:|---:|\n"));
    for (way, bytes) in rows {
        page.push_str(&format!("| {way} | {bytes} | {} |\n", millionths(*bytes, image)));
    }
    page.push_str(&format!("\nThe patch is {} % of the best other way's bytes.\n", millionths(patch, best_peer)));
    page
}

/// Publishes an archive and waits until its image is on the node, whether or not its program goes on running.
fn send(bed: &Bed, archive: &Path, tag: &str) -> Result<()> {
    let reference = format!("workload:{tag}");
    bed.publish(archive, &reference)?;
    bed.run_job("workload", &reference)?;
    bed.wait_deployed("workload", LONG)?;
    let id = bed.ask(&["image", "inspect", &reference])?["image_id"].as_str().context("no image id")?.to_owned();
    until("the image in the engine", LONG, || Ok(bed.engine.images()?.iter().any(|i| i.ends_with(&id)).then_some(())))
        .with_context(|| bed.logs())
}

/// The list of the workload builder, and the folder that it is in.
fn list() -> Result<(PathBuf, String)> {
    let folder = std::env::var_os("SKERRY_WORKLOADS").map(PathBuf::from).context("SKERRY_WORKLOADS is not set; run `make bench`")?;
    let path = folder.join("pairs.tsv");
    let table = fs::read_to_string(&path).with_context(|| format!("cannot read {}; run `make workloads`", path.display()))?;
    Ok((folder, table))
}

/// The pairs that were built.
fn scenarios() -> Result<Vec<String>> {
    Ok(list()?.1.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect())
}

fn archives(scenario: &str) -> Result<(PathBuf, PathBuf)> {
    let (folder, table) = list()?;
    let row = table.lines().find(|l| l.split('\t').next() == Some(scenario));
    let row = row.with_context(|| format!("no {scenario} in {}", folder.join("pairs.tsv").display()))?;
    let mut cells = row.split('\t').skip(1).map(|name| folder.join(name));
    Ok((cells.next().context("no old archive")?, cells.next().context("no new archive")?))
}

/// An archive, unpacked.
struct Image {
    id: String,
    /// (diff_id, layer file), lowest first.
    layers: Vec<(String, PathBuf)>,
    size: u64,
}

impl Image {
    fn open(bed: &Bed, archive: &Path) -> Result<Self> {
        let folder = bed.folder().join(archive.file_stem().context("no name")?);
        fs::create_dir_all(&folder)?;
        run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&folder))?;
        let read = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(folder.join(name))?)?) };
        let manifest = read("manifest.json")?;
        let config_name = manifest[0]["Config"].as_str().context("no Config in manifest.json")?.to_owned();
        let config = read(&config_name)?;
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let files = strings(&manifest[0]["Layers"]).into_iter().map(|f| folder.join(f));
        let layers: Vec<_> = strings(&config["rootfs"]["diff_ids"]).into_iter().zip(files).collect();
        let mut size = 0;
        for (_, file) in &layers {
            size += fs::metadata(file)?.len();
        }
        let hex = config_name.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        Ok(Self { id: format!("sha256:{hex}"), layers, size })
    }

    /// Bytes of the layers that `old` lacks, as a registry sends them.
    fn layers_gzip(&self, old: &Self) -> Result<u64> {
        let there: BTreeSet<_> = old.layers.iter().map(|(id, _)| id).collect();
        let mut bytes = 0;
        for (_, file) in self.layers.iter().filter(|(id, _)| !there.contains(id)) {
            let packed = file.with_extension("gz");
            run(Command::new("sh").args(["-c", "gzip -6 -n < \"$1\" > \"$2\"", "sh"]).arg(file).arg(&packed))?;
            bytes += fs::metadata(&packed)?.len();
        }
        Ok(bytes)
    }
}

fn patch_from(bed: &Bed, old: &Path, new: &Path) -> Result<u64> {
    let out = bed.folder().join("patch.zst");
    run(Command::new("zstd").args(["-3", "--long=31", "--quiet", "--force", "--patch-from"]).arg(old).arg(new).arg("-o").arg(&out))?;
    Ok(fs::metadata(out)?.len())
}
