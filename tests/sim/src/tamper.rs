//! One file of an agent, cut short or garbled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use skerry_testkit::powercut::Chance;

/// Garbles one file below the folder, and says what it did; none when there is none.
pub(crate) fn garble(data: &Path, chance: &mut Chance) -> io::Result<Option<String>> {
    let mut files = Vec::new();
    walk(data, &mut files)?;
    files.sort();
    let Some(path) = files.get(chance.below(files.len())) else { return Ok(None) };
    let mut bytes = fs::read(path)?;
    let name = path.strip_prefix(data).unwrap_or(path).display().to_string();
    let at = chance.below(bytes.len().max(1));
    let what = match chance.below(3) {
        0 => {
            bytes.truncate(at);
            format!("{name} is cut to {at} bytes")
        }
        1 => {
            let end = bytes.len().min(at + 1 + chance.below(64));
            bytes[at.min(end)..end].iter_mut().for_each(|b| *b ^= 0x55);
            format!("{name} is garbled from byte {at} on")
        }
        _ => {
            bytes.iter_mut().for_each(|b| *b = 0);
            format!("{name} is all zeros")
        }
    };
    fs::write(path, bytes)?;
    Ok(Some(what))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if !path.to_string_lossy().ends_with("-shm") {
            files.push(path);
        }
    }
    Ok(())
}
