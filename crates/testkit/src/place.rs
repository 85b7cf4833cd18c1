//! Places for test beds: how many of them stand on this machine at once.
//!
//! Two: a test waits most of its time, and the server makes bundles at a low priority, so a probe of another bed that asks ten times a second is
//! answered meanwhile. A bed that measures memory stands alone: another agent of the same file would share its pages, and halve what is
//! counted.
//!
//! Goes in: nothing. Comes out: a place, given back when it is dropped. What it promises: over all processes with the same folder for
//! temporary files at most [`PLACES`] beds at once, or one that is alone; a process that dies gives back what it held, and no file stays.

use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::{dockerd, netns, second};

/// Beds at once.
pub const PLACES: usize = 2;
/// Between two looks for a free place.
const LOOK: Duration = Duration::from_millis(200);

/// A place for one bed.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder for temporary files, locked: shared, or by a bed that is alone.
    _line: File,
    /// Bound to the name of the place; none for a bed that is alone.
    _name: Option<UnixListener>,
}

impl Place {
    /// Waits until fewer than [`PLACES`] beds stand, and none that is alone. Where no other stands, what a killed
    /// run left is removed first: two at once would meet in it.
    pub(crate) fn among_others() -> Result<Self> {
        let line = line()?;
        if flock(&line, FlockOperation::NonBlockingLockExclusive).is_ok() {
            sweep()?;
        }
        flock(&line, FlockOperation::LockShared).context("cannot lock the folder for temporary files")?;
        loop {
            for place in 0..PLACES {
                // An abstract name: the kernel forgets it with its holder.
                let name = format!("skerry-bed-{place}-{}", std::env::temp_dir().display());
                let address = SocketAddr::from_abstract_name(name).context("the name of a place for a bed")?;
                if let Ok(held) = UnixListener::bind_addr(&address) {
                    return Ok(Self { _line: line, _name: Some(held) });
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until no other bed stands, and removes what a killed run left.
    pub(crate) fn alone() -> Result<Self> {
        let line = line()?;
        flock(&line, FlockOperation::LockExclusive).context("cannot lock the folder for temporary files")?;
        sweep()?;
        Ok(Self { _line: line, _name: None })
    }
}

/// The folder itself is locked: a lock file would stay behind.
fn line() -> Result<File> {
    let folder = std::env::temp_dir();
    File::open(&folder).with_context(|| format!("cannot open {}", folder.display()))
}

/// Removes what test runs left behind that were themselves killed: namespaces, engines, folders.
fn sweep() -> Result<()> {
    netns::sweep()?;
    let temporary = std::env::temp_dir();
    for entry in fs::read_dir(&temporary).with_context(|| format!("cannot list {}", temporary.display()))? {
        let (path, name) = entry.map(|e| (e.path(), e.file_name().to_string_lossy().into_owned()))?;
        let Some(owner) = name.strip_prefix("skerry-").and_then(|r| r.split('-').next()).and_then(|p| p.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            dockerd::unmount_below(&path);
            for engine in ["engine", second::ENGINE] {
                dockerd::remove_remains(&path.join(engine));
            }
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another process with these files would wait; here, as many as there are places are had at once, and given back.
    #[test]
    fn as_many_as_there_are_places() {
        let held: Vec<Place> = (0..PLACES).map(|_| Place::among_others().unwrap()).collect();
        let (tell, told) = std::sync::mpsc::channel();
        let one_more = std::thread::spawn(move || {
            let place = Place::among_others().unwrap();
            tell.send(()).unwrap();
            drop(place);
        });
        assert!(told.recv_timeout(Duration::from_secs(1)).is_err(), "a bed more than there are places");
        drop(held);
        told.recv_timeout(Duration::from_secs(60)).unwrap();
        one_more.join().unwrap();
    }
}
