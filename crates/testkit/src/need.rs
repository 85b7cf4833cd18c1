//! What a test needs from the machine, and what to say when it is not there.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// May tests that make namespaces and engines run here?
///
/// `Ok(false)` means: skip, the reason was printed. With `CI=true` nothing is skipped.
///
/// # Errors
/// When something is missing and `CI` is `true`.
pub fn bed() -> Result<bool> {
    all(&["ip", "nft", "tc", "nsenter", "docker", "dockerd", "curl"])
}

/// The same for those whose engine is podman.
///
/// # Errors
/// As [`bed`].
pub fn podman_bed() -> Result<bool> {
    Ok(bed()? && all(&["podman", "runc"])?)
}

/// The same for those with a [`crate::Card`].
///
/// # Errors
/// As [`bed`].
pub fn card_bed() -> Result<bool> {
    Ok(bed()? && all(&["mkfs.ext4", "e2fsck", "findmnt"])?)
}

/// The folder that `SKERRY_OTHER_ENGINE` names, with the programs of another version of Docker; none where it has not both.
#[must_use]
pub fn other_engine() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("SKERRY_OTHER_ENGINE")?);
    ["dockerd", "containerd"].iter().all(|program| folder.join(program).is_file()).then_some(folder)
}

/// [`other_engine`] for a bed on containerd's store; none, with the reason said, when tests of this kind are skipped here: also with `CI=true`
/// where that engine could not be fetched.
///
/// # Errors
/// As [`bed`].
pub fn containerd_store_bed() -> Result<Option<PathBuf>> {
    let engine = other_engine();
    if engine.is_none() {
        eprintln!("skipped: SKERRY_OTHER_ENGINE names no folder with another engine; `scripts/other-engine FOLDER` makes one");
    }
    Ok(if bed()? { engine } else { None })
}

fn all(tools: &[&str]) -> Result<bool> {
    let Some(missing) = missing(tools) else { return Ok(true) };
    let what = format!("{missing}; `make setup` as root installs what is needed");
    if std::env::var("CI").is_ok_and(|v| v == "true") {
        bail!("{what}");
    }
    eprintln!("skipped: {what}");
    Ok(false)
}

fn missing(tools: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this test makes network namespaces and needs root".to_owned());
    }
    tools.iter().find(|t| program(t).is_none()).map(|t| format!("the program `{t}` is not in PATH"))
}

/// Where a program is, by PATH and the folders of system programs.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|p| p.is_file())
}

/// A binary of this project: `$SKERRY_BIN_DIR/NAME`, or `target/bin/NAME` as `make build` leaves it.
///
/// # Errors
/// When it is not there; the error says how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("SKERRY_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bin"),
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} is not there; `make build` makes it", path.display());
    }
    Ok(path)
}
