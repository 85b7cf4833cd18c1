//! What the house forbids in any file of the tree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const LONGEST: usize = 600;
/// Kinds of files that people write.
const WRITTEN: [&str; 9] = ["rs", "md", "py", "toml", "hcl", "sh", "yml", "yaml", "sql"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of the tree that is written by hand, with its text.
fn files(folder: &Path, found: &mut Vec<(PathBuf, String)>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", ".work"].contains(&name.as_str()) {
                files(&path, found)?;
            }
        } else if path.extension().is_some_and(|e| WRITTEN.iter().any(|w| e == *w)) || name == "Makefile" {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))?;
            found.push((path, text));
        }
    }
    Ok(())
}

/// Is the word in the line, other than as the end of a longer name (`skerry/root/v1`)?
fn stands_alone(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "_-.}".contains(c)))
}

fn complain(complaints: &[String]) -> Result<()> {
    if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("\n")) }
}

#[test]
fn no_holes_and_no_paths_of_one_machine() -> Result<()> {
    let mut found = Vec::new();
    files(&root(), &mut found)?;
    // Put together here, or this file would find itself.
    let forbidden =
        [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let mut complaints = Vec::new();
    for (path, text) in &found {
        for (number, line) in text.lines().enumerate() {
            for word in forbidden.iter().filter(|w| stands_alone(line, w)) {
                complaints.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    complain(&complaints)
}

#[test]
fn no_file_is_too_long_to_read() -> Result<()> {
    let mut found = Vec::new();
    files(&root(), &mut found)?;
    let long = found.iter().map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > LONGEST);
    complain(&long.map(|(path, lines)| format!("{} has {lines} lines; the limit is {LONGEST}", path.display())).collect::<Vec<_>>())
}

#[test]
fn pure_crates_forbid_unsafe_code() -> Result<()> {
    let mut complaints = Vec::new();
    for name in ["wire", "trust", "image", "jobspec", "plan", "delta", "bundle", "reconstruct", "template", "cron", "reconcile"] {
        let path = root().join("crates").join(name).join("src/lib.rs");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{} does not forbid unsafe code", path.display()));
        }
    }
    complain(&complaints)
}

#[test]
fn every_crate_says_what_it_is() -> Result<()> {
    let mut found = Vec::new();
    files(&root(), &mut found)?;
    let roots = found.iter().filter(|(p, _)| p.ends_with("src/lib.rs") || p.ends_with("src/main.rs"));
    let silent = roots.filter(|(_, text)| text.lines().take_while(|l| l.starts_with("//!")).count() < 3);
    complain(&silent.map(|(path, _)| format!("{} has no module doc worth the name", path.display())).collect::<Vec<_>>())
}
