//! The tools: how each makes what has to be sent, how many bytes that is, and how it is decoded again.
//!
//! Every result is compared with the target byte for byte: a tool that gives another image has no row.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::engine::{NOTHING, same};
use crate::image::Image;
use crate::measure::{Cost, Run, available, size};
use crate::results::Outcome;

/// A tool with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    /// Ours.
    Skerry,
    /// Ours, with the index of the old image at hand.
    Indexed,
    /// The layers that the node lacks, as registries keep them.
    LayersGzip,
    /// The same with zstd.
    LayersZstd,
    /// Content-defined chunks of the whole archive.
    Casync,
    /// rsync's way.
    Rdiff,
    /// VCDIFF with LZMA.
    Xdelta3,
    /// zstd with the old archive as dictionary.
    Zstd3,
    /// The same at its best level.
    Zstd19,
    /// bsdiff 4.
    Bsdiff,
    /// bidiff over the whole archive.
    Bidiff,
    /// The whole archive, for a first image.
    ZstdWhole,
}

/// A pair to try a tool on.
#[derive(Debug)]
pub struct Case<'a> {
    /// The archive that the node has.
    pub old: Option<&'a Path>,
    /// The archive that it is to have.
    pub new: &'a Path,
    /// An empty folder.
    pub folder: &'a Path,
    /// Indexes of the old archive's layers.
    pub indexes: &'a Path,
    /// Time that making and decoding may take, each.
    pub limit: Duration,
}

type Tried = Result<Option<(u64, Cost, Cost)>>;

impl Tool {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 12] = [
        Self::Skerry,
        Self::Indexed,
        Self::LayersGzip,
        Self::LayersZstd,
        Self::Casync,
        Self::Rdiff,
        Self::Xdelta3,
        Self::Zstd3,
        Self::Zstd19,
        Self::Bsdiff,
        Self::Bidiff,
        Self::ZstdWhole,
    ];

    /// As the tables and the results call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skerry => "Skerry",
            Self::Indexed => "Skerry, old index at hand",
            Self::LayersGzip => "layers, gzip -6",
            Self::LayersZstd => "layers, zstd -3",
            Self::Casync => "casync",
            Self::Rdiff => "rdiff",
            Self::Xdelta3 => "xdelta3 -9",
            Self::Zstd3 => "zstd -3 --patch-from",
            Self::Zstd19 => "zstd -19 --patch-from",
            Self::Bsdiff => "bsdiff",
            Self::Bidiff => "bidiff + zstd",
            Self::ZstdWhole => "zstd -12 --long=27",
        }
    }

    /// Is it one of ours?
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Skerry | Self::Indexed)
    }

    /// Has it a row for this pair?
    pub fn tries(self, pair: &str, first: bool) -> bool {
        match self {
            Self::Skerry | Self::LayersGzip | Self::LayersZstd => true,
            Self::Indexed => matches!(pair, "S2" | "S8"),
            Self::ZstdWhole => first,
            _ => !first,
        }
    }

    /// Its program.
    pub fn program(self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        match self {
            Self::Skerry | Self::Indexed => Ok(own.with_file_name("skerry_pair")),
            Self::Bidiff => Ok(own.with_file_name("bidiff_tar")),
            Self::LayersGzip => find("gzip"),
            Self::LayersZstd | Self::Zstd3 | Self::Zstd19 | Self::ZstdWhole => find("zstd"),
            Self::Casync => find("casync"),
            Self::Rdiff => find("rdiff"),
            Self::Xdelta3 => find("xdelta3"),
            Self::Bsdiff => find("bsdiff"),
        }
    }

    /// Bytes of memory that it needs, when that can be more than a machine has.
    fn memory(self, old: u64, new: u64) -> u64 {
        match self {
            // Two tables of eight bytes for each byte of the old file; the new file and what it writes.
            Self::Bsdiff => old.saturating_mul(17).saturating_add(new.saturating_mul(3)),
            // A table of four bytes for each of the old one, and what is merged.
            Self::Bidiff => old.saturating_mul(6).saturating_add(new.saturating_mul(2)),
            Self::Zstd3 | Self::Zstd19 => old.saturating_add(new).saturating_mul(2),
            _ => 0,
        }
    }

    /// Makes, decodes and compares.
    pub fn run(self, case: &Case<'_>) -> Result<Outcome> {
        let old = case.old.map_or(Ok(0), size)?;
        let needed = self.memory(old, size(case.new)?);
        // Something for the rest of the machine.
        if needed > available() / 10 * 9 {
            return Ok(Outcome::TooBig(needed));
        }
        let tried = match self {
            Self::Skerry | Self::Indexed => self.ours(case),
            Self::LayersGzip | Self::LayersZstd => self.layers(case),
            Self::Casync => self.casync(case),
            _ => self.files(case),
        };
        Ok(match tried.with_context(|| self.name())? {
            Some((bytes, make, apply)) => Outcome::Done { bytes, make, apply },
            None => Outcome::Late,
        })
    }

    fn ours(self, case: &Case<'_>) -> Tried {
        let bundle = case.folder.join("bundle");
        let old = case.old.unwrap_or(Path::new(NOTHING));
        let own = || Ok::<_, anyhow::Error>(Run::new(self.program()?, case.folder));
        let mut make = own()?.arg("make").args([old, case.new, &bundle]);
        if self == Self::Indexed {
            let Some(_) = own()?.arg("index").args([old, case.indexes]).within(case.limit)? else { return Ok(None) };
            make = make.arg("--indexes").arg(case.indexes);
        }
        let Some(made) = make.within(case.limit)? else { return Ok(None) };
        let Some(applied) = own()?.arg("apply").args([old, &bundle]).with_pss().within(case.limit)? else { return Ok(None) };
        // Not measured: comparing reads the target.
        let check = own()?.arg("apply").args([old, &bundle]).arg("--compare").arg(case.new);
        let Some(_) = check.within(case.limit)? else { return Ok(None) };
        Ok(Some((size(&bundle)?, made, applied)))
    }

    fn layers(self, case: &Case<'_>) -> Tried {
        let old = case.old.map(Image::open).transpose()?;
        let there: BTreeSet<_> = old.iter().flat_map(|image| &image.layers).map(|layer| layer.diff_id).collect();
        let level = if self == Self::LayersGzip { &["-6", "-n", "-c"][..] } else { &["-3", "-q", "-c"] };
        let (tar, packed, back) = (case.folder.join("layer.tar"), case.folder.join("packed"), case.folder.join("back"));
        let (mut bytes, mut make, mut apply) = (0, Cost::default(), Cost::default());
        for layer in Image::open(case.new)?.layers.iter().filter(|layer| !there.contains(&layer.diff_id)) {
            io::copy(&mut layer.place.open()?, &mut File::create(&tar)?)?;
            let left = |cost: &Cost| case.limit.saturating_sub(Duration::from_secs_f64(cost.seconds));
            let program = || Ok::<_, anyhow::Error>(Run::new(self.program()?, case.folder));
            let Some(cost) = program()?.args(level).input(&tar)?.to(&packed, left(&make))? else { return Ok(None) };
            make = make.then(cost);
            let Some(cost) = program()?.args(["-d", "-c"]).input(&packed)?.to(&back, left(&apply))? else { return Ok(None) };
            apply = apply.then(cost);
            same(&mut File::open(&tar)?, &mut File::open(&back)?)?;
            bytes += size(&packed)?;
        }
        Ok(Some((bytes, make, apply)))
    }

    fn casync(self, case: &Case<'_>) -> Tried {
        let [store, old_index, new_index, packed, back] =
            ["store", "old.caibx", "new.caibx", "new.caibx.zst", "back"].map(|name| case.folder.join(name));
        let old = case.old.context("casync needs an old archive")?;
        let casync = |verb: &str| -> Result<Run> {
            Ok(Run::new(self.program()?, case.folder).arg(verb).arg(format!("--store={}", store.display())))
        };
        // The chunks that the node has.
        let Some(_) = casync("make")?.args([&old_index, old]).within(case.limit)? else { return Ok(None) };
        let there = size(&store)?;
        let Some(make) = casync("make")?.args([&new_index, case.new]).within(case.limit)? else { return Ok(None) };
        let chunks = size(&store)? - there;
        let index = Run::new(Self::Zstd3.program()?, case.folder).args(["-19", "-q", "-c"]).input(&new_index)?.to(&packed, case.limit)?;
        let Some(index) = index else { return Ok(None) };
        let Some(apply) = casync("extract")?.args([&new_index, &back]).within(case.limit)? else { return Ok(None) };
        same(&mut File::open(case.new)?, &mut File::open(&back)?)?;
        Ok(Some((chunks + size(&packed)?, make.then(index), apply)))
    }

    /// Tools that make a patch of one file.
    fn files(self, case: &Case<'_>) -> Tried {
        let [patch, back, signature, delta, packed] =
            ["patch", "back", "signature", "delta", "delta.gz"].map(|name| case.folder.join(name));
        let (old, new) = (case.old.unwrap_or(case.new), case.new);
        let program = self.program()?;
        let run = || Run::new(&program, case.folder);
        let from = format!("--patch-from={}", old.display());
        let window = size(old)?.next_power_of_two().clamp(1 << 20, 1 << 31).to_string();
        let (make, apply): (Vec<Run>, Vec<Run>) = match self {
            Self::Rdiff => {
                let [gzip, gunzip] = [Run::new(find("gzip")?, case.folder), Run::new(find("gzip")?, case.folder)];
                let make = vec![
                    run().arg("signature").args([old, &signature]),
                    run().arg("delta").args([&signature, new, &delta]),
                    gzip.args(["-9", "-n"]).arg(&delta),
                ];
                let apply = vec![gunzip.args(["-d", "-k"]).arg(&packed), run().arg("patch").args([old, &delta, &back])];
                (make, apply)
            }
            Self::Xdelta3 => (
                vec![run().args(["-e", "-9", "-S", "lzma", "-B", &window, "-s"]).args([old, new, &patch])],
                vec![run().args(["-d", "-B", &window, "-s"]).args([old, &patch, &back])],
            ),
            Self::Zstd3 | Self::Zstd19 => {
                let level = if self == Self::Zstd3 { "-3" } else { "-19" };
                (
                    vec![run().args([level, "--long=31", "-q", &from]).arg(new).arg("-o").arg(&patch)],
                    vec![run().args(["-d", "--long=31", "-q", &from]).arg(&patch).arg("-o").arg(&back)],
                )
            }
            Self::ZstdWhole => (
                vec![run().args(["-12", "--long=27", "-q"]).arg(new).arg("-o").arg(&patch)],
                vec![run().args(["-d", "--long=27", "-q"]).arg(&patch).arg("-o").arg(&back)],
            ),
            Self::Bsdiff => {
                let bspatch = Run::new(find("bspatch")?, case.folder);
                (vec![run().args([old, new, &patch])], vec![bspatch.args([old, &back, &patch])])
            }
            Self::Bidiff => (vec![run().arg("make").args([old, new, &patch])], vec![run().arg("apply").args([old, &patch, &back])]),
            _ => unreachable!("the others are no tools for files"),
        };
        let Some(make) = all(make, case.limit)? else { return Ok(None) };
        let bytes = size(if self == Self::Rdiff { &packed } else { &patch })?;
        let Some(apply) = all(apply, case.limit)? else { return Ok(None) };
        same(&mut File::open(new)?, &mut File::open(&back)?)?;
        Ok(Some((bytes, make, apply)))
    }
}

/// Runs one after the other, all within the limit.
fn all(runs: Vec<Run>, limit: Duration) -> Result<Option<Cost>> {
    let mut sum = Cost::default();
    for run in runs {
        let Some(cost) = run.within(limit.saturating_sub(Duration::from_secs_f64(sum.seconds)))? else { return Ok(None) };
        sum = sum.then(cost);
    }
    Ok(Some(sum))
}

/// A program in the search path.
fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| fs::metadata(file).is_ok_and(|m| m.is_file()));
    found.with_context(|| format!("{name} is not installed: apt-get install casync rdiff xdelta3 bsdiff zstd"))
}
