//! The rows of a benchmark, kept beside its page, first those of bundles: all tools on one pair take up to an hour and all pairs longer than
//! a machine may be had, and elsewhere the workload builder makes other bytes.
//!
//! What a row says is of the same archives on the same machine; rows may be of different days.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::pairs::{self, Bar};
use crate::peers::Tool;
use crate::results::Outcome;

/// A pair with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the pair.
    pub name: String,
    /// What changes.
    pub what: String,
    /// Bytes of the new image's layers.
    pub image: u64,
    /// Bytes of those that the old one lacks.
    pub made: u64,
    /// The day of its last result, as in `2026-11-28`.
    pub day: String,
    /// What each tool gave.
    pub tools: BTreeMap<Tool, Outcome>,
}

impl Row {
    /// Bytes, when the tool ended.
    pub fn bytes(&self, tool: Tool) -> Option<u64> {
        match self.tools.get(&tool)? {
            Outcome::Done { bytes, .. } => Some(*bytes),
            _ => None,
        }
    }

    /// The peer with the fewest bytes.
    pub fn best_peer(&self) -> Option<(Tool, u64)> {
        let peers = Tool::ALL.into_iter().filter(|tool| !tool.is_ours());
        peers.filter_map(|tool| Some((tool, self.bytes(tool)?))).min_by_key(|(_, bytes)| *bytes)
    }

    /// Does this tool have a result for such a pair?
    pub fn tries(&self, tool: Tool) -> bool {
        tool.tries(&self.name, self.name == pairs::FIRST)
    }

    /// Have all tools of this pair been run?
    pub fn complete(&self) -> bool {
        Tool::ALL.into_iter().filter(|tool| self.tries(*tool)).all(|tool| self.tools.contains_key(&tool))
    }

    /// What is demanded of it.
    pub fn bar(&self) -> Option<&'static Bar> {
        pairs::bar_of(&self.name)
    }

    /// But for the day.
    fn says_the_same_as(&self, kept: &Self) -> bool {
        (self.image, self.made, &self.tools) == (kept.image, kept.made, &kept.tools)
    }
}

/// The rows in a file, of this or of another benchmark; none when there is no file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let row =
        |(number, line): (usize, &str)| serde_json::from_str(line).with_context(|| format!("{}: line {}", path.display(), number + 1));
    text.lines().enumerate().map(row).collect()
}

/// Writes them, a JSON line each.
pub fn write<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let lines = rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n")).collect::<Result<String>>()?;
    fs::write(path, lines).with_context(|| path.display().to_string())
}

/// Makes the folders of results and of pages; an error when they are one: files of the same name are in both.
pub fn apart(work: &Path, page: &Path) -> Result<()> {
    for folder in [work, page] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    ensure!(work.canonicalize()? != page.canonicalize()?, "{}: results and pages need a folder each", page.display());
    Ok(())
}

/// The day that it is now, as in [`Row::day`].
pub fn today() -> String {
    jiff::Timestamp::now().strftime("%F").to_string()
}

/// A row for each pair, in the order of the tables: the fresh one, unless the one that was kept has results of more tools.
pub fn merge(kept: Vec<Row>, fresh: Vec<Row>) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = kept.into_iter().map(|row| (row.name.clone(), row)).collect();
    for row in fresh {
        match rows.get(&row.name) {
            Some(kept) if kept.tools.len() > row.tools.len() || row.says_the_same_as(kept) => {}
            _ => drop(rows.insert(row.name.clone(), row)),
        }
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(|row| pairs::place(&row.name));
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::measure::Cost;

    fn row(name: &str, day: &str, tools: &[(Tool, u64)]) -> Row {
        let done = |&(tool, bytes)| (tool, Outcome::Done { bytes, make: Cost::default(), apply: Cost::default() });
        let tools = tools.iter().map(done).collect();
        Row { name: name.into(), what: "edited".into(), image: 7, made: 3, day: day.into(), tools }
    }

    #[test]
    fn what_says_more_is_kept() {
        let kept = vec![
            row("S9", "old", &[(Tool::Skerry, 1), (Tool::Rdiff, 2)]),
            row("S4", "old", &[(Tool::Skerry, 1), (Tool::Rdiff, 2)]),
            row("S3", "old", &[(Tool::Skerry, 1)]),
            row("first", "old", &[(Tool::Skerry, 1)]),
        ];
        let fresh = vec![
            row("S2", "new", &[(Tool::Skerry, 1)]),
            row("S3", "new", &[(Tool::Skerry, 1)]),
            row("S4", "new", &[(Tool::Skerry, 3), (Tool::Rdiff, 2)]),
            row("S9", "new", &[(Tool::Skerry, 3)]),
        ];
        let names: Vec<_> = merge(kept, fresh).into_iter().map(|row| format!("{} {}", row.name, row.day)).collect();
        assert_eq!(names, ["S2 new", "S3 old", "S4 new", "S9 old", "first old"]);
    }

    #[test]
    fn results_and_pages_are_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (work, page) = (folder.path().join("work"), folder.path().join("page"));
        apart(&work, &page).unwrap();
        assert!(apart(&work, &folder.path().join("page/../work")).unwrap_err().to_string().contains("a folder each"));
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        assert_eq!(read::<Row>(&path).unwrap(), []);
        let mut rows = vec![row("S1", "2026-11-28", &[(Tool::Skerry, 1), (Tool::Zstd19, 2)]), row("S2", "2026-11-29", &[])];
        rows[0].tools.insert(Tool::Bsdiff, Outcome::TooBig(9));
        rows[1].tools.insert(Tool::Bidiff, Outcome::Late);
        write(&path, &rows).unwrap();
        assert_eq!(read::<Row>(&path).unwrap(), rows);
        fs::write(&path, "{}").unwrap();
        assert!(read::<Row>(&path).unwrap_err().to_string().contains("line 1"));
    }
}
