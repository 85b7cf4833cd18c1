//! The key of the bundles that `skerry delta make` makes for this user: made when it is first needed, in the user's configuration
//! folder. `skerry delta apply` and `inspect` trust it where no other key is named; no node does.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ring::rand::SystemRandom;
use skerry_trust::{PublicKey, SigningKey};
use tempfile::NamedTempFile;

use crate::{config, output};

fn path() -> Result<PathBuf> {
    Ok(config::folder("name a key with --key, --root or --trust-key")?.join("delta.key"))
}

/// The key, made when there is none.
pub(crate) fn own() -> Result<SigningKey> {
    let path = path()?;
    if !path.exists() {
        make(&path).with_context(|| format!("making a key for bundles of this user in {}", path.display()))?;
    }
    config::read_key(&path)
}

/// The public half of the key, if there is one.
pub(crate) fn known() -> Result<Option<PublicKey>> {
    // Without a home folder there is none either.
    let Ok(path) = path() else { return Ok(None) };
    if path.exists() { Ok(Some(config::read_key(&path)?.public())) } else { Ok(None) }
}

/// Puts a new key there, whole and on the disk; one that another process put there meanwhile stays.
fn make(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Readable by its owner alone, as such files are made.
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(SigningKey::to_text(&SigningKey::generate(&SystemRandom::new())?).as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => output::note(&format!("Made {}, the key of this user's own bundles.", path.display())),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error.into()),
    }
    File::open(folder)?.sync_all()?;
    Ok(())
}
