//! The list of mutants, as `cargo mutants --list --json` prints it.

use anyhow::{Context, Result};
use serde_json::Value;

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Genre {
    /// The body of a function becomes a value.
    Body,
    /// An operator between two operands becomes another.
    Binary,
    /// `!` or `-` goes.
    Unary,
    /// An arm of a match goes.
    Arm,
    /// The guard of an arm becomes true, or false.
    Guard,
    /// A field of a struct expression with a base goes.
    Field,
}

/// One mutant.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// Its name, which says where it is and what it changes.
    pub name: String,
    /// Path of the file, from the root of the tree.
    pub file: String,
    /// What kind of change it is.
    pub genre: Genre,
    /// Line and column where the replaced text begins, both counted from 1.
    pub start: (usize, usize),
    /// Where it ends.
    pub end: (usize, usize),
    /// What comes in its place.
    pub replacement: String,
}

/// Reads the list.
pub fn read(text: &str) -> Result<Vec<Mutant>> {
    let all: Vec<Value> = serde_json::from_str(text).context("the list of mutants")?;
    all.iter().map(|v| one(v).with_context(|| format!("mutant {v}"))).collect()
}

fn one(value: &Value) -> Result<Mutant> {
    let text = |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("no `{key}`"));
    let place = |end: &str| {
        let number = |key: &str| value["span"][end][key].as_u64().and_then(|n| usize::try_from(n).ok());
        number("line").zip(number("column")).with_context(|| format!("no `{end}`"))
    };
    let genre = match text("genre")?.as_str() {
        "FnValue" => Genre::Body,
        "BinaryOperator" => Genre::Binary,
        "UnaryOperator" => Genre::Unary,
        "MatchArm" => Genre::Arm,
        "MatchArmGuard" => Genre::Guard,
        "StructField" => Genre::Field,
        other => anyhow::bail!("a genre that is not known: {other}"),
    };
    let (start, end) = (place("start")?, place("end")?);
    Ok(Mutant { name: text("name")?, file: text("file")?, genre, start, end, replacement: text("replacement")? })
}

/// Where a line and column are in the text.
pub fn offset(text: &str, (line, column): (usize, usize)) -> Option<usize> {
    let begin = if line == 1 { 0 } else { text.match_indices('\n').nth(line - 2)?.0 + 1 };
    let rest = &text[begin..];
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(column - 1).map(|at| begin + at)
}

impl Mutant {
    /// The file with this change alone.
    pub fn alone(&self, text: &str) -> Option<String> {
        let (start, end) = (offset(text, self.start)?, offset(text, self.end)?);
        Some(format!("{}{}{}", &text[..start], self.replacement, &text[end..]))
    }
}
