//! Files of bundles that the server's disk garbles, cuts or loses while a node fetches them: nobody gets wrong bytes for long, the bundle is
//! built again by itself, and the node goes on where it was.
//!
//! Needs root, Docker and the built programs.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skerry_testkit::Bed;

use super::kill::{survives, wait_middle};

/// The file of the bundle that is on its way: of those that were sent, the one that was made last.
fn sending(bed: &Bed) -> Result<PathBuf> {
    let metrics = bed.metrics()?;
    let named = metrics.lines().filter(|line| line.starts_with("skerry_object_bytes_sent_total"));
    let digests = named.filter_map(|line| line.split('"').nth(1));
    let files = digests.map(|hex| bed.server_data().join("objects").join(&hex[..2]).join(&hex[2..])).filter(|file| file.is_file());
    let made = |file: &PathBuf| fs::metadata(file).and_then(|found| found.modified()).ok();
    files.max_by_key(made).with_context(|| format!("no object was sent: {metrics}"))
}

fn damaged(cuts: u64, damage: impl Fn(&Bed, &Path) -> Result<()>) -> Result<()> {
    survives(cuts, |bed| {
        wait_middle(bed)?;
        let file = sending(bed)?;
        let whole = fs::read(&file)?;
        damage(bed, &file)?;
        ensure!(fs::read(&file).ok().as_ref() != Some(&whole), "nothing was damaged");
        let again = skerry_testkit::command::until("the bundle to be built again", Duration::from_secs(60), || {
            Ok(fs::read(&file).is_ok_and(|bytes| bytes == whole).then_some(()))
        });
        again.with_context(|| bed.logs())?;
        let metrics = bed.metrics()?;
        ensure!(metrics.lines().any(|line| line == "skerry_objects_damaged_total 1"), "the operator is not told once: {metrics}");
        Ok(())
    })
}

#[test]
fn a_bundle_garbled_on_the_servers_disk() -> Result<()> {
    damaged(2, |_, file| {
        let size = fs::metadata(file)?.len();
        Ok(OpenOptions::new().write(true).open(file)?.write_all_at(&[0xa5; 100], size / 4 * 3)?)
    })
}

#[test]
fn a_bundle_cut_short_on_the_servers_disk() -> Result<()> {
    damaged(2, |_, file| {
        let size = fs::metadata(file)?.len();
        Ok(OpenOptions::new().write(true).open(file)?.set_len(size / 4 * 3)?)
    })
}

#[test]
fn a_bundle_that_the_servers_disk_lost() -> Result<()> {
    damaged(2, |bed, file| {
        // The file that is open is whole: only who asks anew misses it. A body that stands still is given up after 15 s.
        bed.link.cut()?;
        fs::remove_file(file)?;
        std::thread::sleep(Duration::from_secs(20));
        bed.link.heal()
    })
}
