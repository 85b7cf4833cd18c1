//! The pairs of the workload builder, and what is demanded of each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::peers::Tool;

/// The name of the pair that is a first image: the new image of S1 for a node with nothing.
pub const FIRST: &str = "first";

/// What is demanded of a pair.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// The best peer of those that had been measured for the demand.
    pub peer: Option<Tool>,
    /// Bytes of the bundle to a peer's, at most.
    pub ratio: Option<f64>,
    /// The same, as it should become.
    pub goal: Option<f64>,
    /// Bytes of the bundle, at most.
    pub bytes: u64,
    /// Bytes applied in a second, at least.
    pub speed: f64,
}

const KB: u64 = 1_000;

const fn bar(peer: Tool, ratio: f64, bytes: u64, goal: f64) -> Bar {
    Bar { peer: Some(peer), ratio: Some(ratio), goal: Some(goal), bytes, speed: 40e6 }
}

/// By pair, in the order of the tables.
pub const BARS: [(&str, Bar); 13] = [
    ("S1", bar(Tool::Xdelta3, 0.81, 9_600 * KB, 0.75)),
    ("S2", bar(Tool::Xdelta3, 0.70, 2 * KB, 0.50)),
    ("S3", bar(Tool::Bidiff, 0.63, 580 * KB, 0.52)),
    ("S4", bar(Tool::Bidiff, 0.65, 1_320 * KB, 0.57)),
    ("S5a", bar(Tool::Bidiff, 0.69, 275 * KB, 0.60)),
    ("S5b", bar(Tool::Bidiff, 0.78, 790 * KB, 0.70)),
    ("S6", Bar { speed: 5e6, ..bar(Tool::Xdelta3, 0.055, 850 * KB, 0.04) }),
    ("S6b", bar(Tool::Zstd3, 0.19, 3_600 * KB, 0.16)),
    ("S7", bar(Tool::Bidiff, 0.34, 285 * KB, 0.28)),
    ("S8", bar(Tool::LayersGzip, 0.022, 2 * KB, 0.015)),
    ("S8b", bar(Tool::Xdelta3, 0.07, 20 * KB, 0.03)),
    ("S9", bar(Tool::Bidiff, 0.66, 360 * KB, 0.55)),
    (FIRST, Bar { peer: None, ratio: None, goal: None, bytes: 62_000 * KB, speed: 40e6 }),
];

/// Making takes at most so many seconds, and so many bytes of memory.
pub const MAKE: (f64, u64) = (120.0, 1_000_000 * KB);
/// Making with the old image's index at hand takes at most so many seconds.
pub const INDEXED: f64 = 5.0;
/// Applying takes at most so many bytes of memory.
pub const APPLY: u64 = 24 * KB * KB;

/// Two archives.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// What the node has.
    pub old: Option<PathBuf>,
    /// What it is to have.
    pub new: PathBuf,
    /// What changes.
    pub what: String,
}

/// What is demanded of the pair of this name.
pub fn bar_of(name: &str) -> Option<&'static Bar> {
    BARS.iter().find(|(pair, _)| *pair == name).map(|(_, bar)| bar)
}

/// Its place in the tables.
pub fn place(name: &str) -> usize {
    BARS.iter().position(|(pair, _)| *pair == name).unwrap_or(BARS.len())
}

/// The pairs in the list of the workload builder, and the first image when its archive is there.
pub fn read(folder: &Path) -> Result<Vec<Pair>> {
    let path = folder.join("pairs.tsv");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: `make workloads` builds the pairs", path.display()))?;
    let mut pairs = Vec::new();
    for line in text.lines() {
        let [name, old, new, what] = line.split('\t').collect::<Vec<_>>()[..] else {
            bail!("{}: {line:?} has not four cells", path.display())
        };
        pairs.push(Pair { name: name.to_owned(), old: Some(folder.join(old)), new: folder.join(new), what: what.to_owned() });
    }
    if let Some(another) = pairs.iter().find(|pair| pair.name == "S1") {
        let (new, what) = (another.new.clone(), "a first image: the node has nothing".to_owned());
        pairs.push(Pair { name: FIRST.to_owned(), old: None, new, what });
    }
    pairs.sort_by_key(|pair| place(&pair.name));
    Ok(pairs)
}

/// Those of these names, in their order; all when none is named.
pub fn select(pairs: Vec<Pair>, names: &[String]) -> Result<Vec<Pair>> {
    for name in names {
        if !pairs.iter().any(|pair| pair.name == *name) {
            let there: Vec<_> = pairs.iter().map(|pair| &*pair.name).collect();
            bail!("no pair {name} is built; there are {}", there.join(", "));
        }
    }
    Ok(pairs.into_iter().filter(|pair| names.is_empty() || names.contains(&pair.name)).collect())
}
