//! Building a tree with cargo, and what the compiler did not like.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

/// What a build gave.
#[derive(Debug, Default)]
pub struct Built {
    /// Programs of tests.
    pub tests: Vec<PathBuf>,
    /// Places that each error points at, its own first: file and byte.
    pub errors: Vec<Vec<(String, usize)>>,
    /// The errors, for people.
    pub text: String,
    /// Did it succeed?
    pub done: bool,
}

/// `cargo WORDS` in the tree.
pub fn cargo(tree: &Path, words: &[&str]) -> Result<Built> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree).args(words).args(["--locked", "--quiet", "--message-format=json"]);
    let output = command.output().context("cargo")?;
    let mut built = Built { done: output.status.success(), ..Built::default() };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
        if let Some(program) = value["executable"].as_str().filter(|_| value["profile"]["test"].as_bool() == Some(true)) {
            built.tests.push(PathBuf::from(program));
        }
        let message = &value["message"];
        if message["level"].as_str() == Some("error") {
            built.text.push_str(message["rendered"].as_str().unwrap_or_default());
            // The first place is the error's own; the others are what it has to do with.
            let mut spans: Vec<&Value> = message["spans"].as_array().into_iter().flatten().collect();
            spans.sort_by_key(|s| s["is_primary"].as_bool() != Some(true));
            built.errors.push(spans.into_iter().filter_map(place).collect());
        }
    }
    if !built.done && built.text.is_empty() {
        built.text = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Ok(built)
}

fn place(span: &Value) -> Option<(String, usize)> {
    Some((span["file_name"].as_str()?.to_owned(), usize::try_from(span["byte_start"].as_u64()?).ok()?))
}

/// The woven mutants that errors point at; `at` tells which are at a place, and which around it.
pub fn blamed(built: &Built, at: impl Fn(&str, usize) -> (Vec<usize>, Vec<usize>)) -> BTreeSet<usize> {
    let mut blamed = BTreeSet::new();
    for error in &built.errors {
        let places: Vec<_> = error.iter().map(|(file, byte)| at(file, *byte)).collect();
        let inside = places.iter().map(|(inside, _)| inside).find(|list| !list.is_empty());
        blamed.extend(inside.or_else(|| places.first().map(|(_, around)| around)).into_iter().flatten());
    }
    blamed
}
