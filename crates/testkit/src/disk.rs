//! Small disks: file systems in memory that are full at once, or read-only, when a test wants it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::command::run;

/// What takes the room.
const FILLER: &str = "filler";

/// A small file system in memory, below the folder of a [`crate::Bed`], with which it ends.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `mib` MiB over a folder, which is made when it is not there. What the folder had is hidden.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount(at: &Path, mib: u32) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"]).arg(at))?;
        Ok(Self(at.to_owned()))
    }

    /// The same, with a copy of what the folder has.
    ///
    /// # Errors
    /// When it cannot be mounted or has too little room.
    pub fn mount_with_content(at: &Path, mib: u32) -> Result<Self> {
        let aside = at.with_extension("aside");
        fs::rename(at, &aside).with_context(|| format!("cannot move {}", at.display()))?;
        let disk = Self::mount(at, mib)?;
        run(Command::new("cp").arg("-a").arg(format!("{}/.", aside.display())).arg(at))?;
        Ok(disk)
    }

    /// Bytes free.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn free(&self) -> Result<u64> {
        let stat = statvfs(&self.0)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Takes all room but so many bytes.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub fn fill_but(&self, left: u64) -> Result<()> {
        let file = File::options().create(true).append(true).open(self.0.join(FILLER))?;
        // Others may be faster.
        for _ in 0..10 {
            let (length, free) = (file.metadata()?.len(), self.free()?);
            if free <= left {
                break;
            }
            let _ = fallocate(&file, FallocateFlags::empty(), length, free - left);
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When it was not taken.
    pub fn clear(&self) -> Result<()> {
        fs::remove_file(self.0.join(FILLER)).context("the disk was not full")
    }

    /// Makes it read-only, or writable again.
    ///
    /// # Errors
    /// When something has a file open for writing.
    pub fn read_only(&self, yes: bool) -> Result<()> {
        self.remount(if yes { "remount,ro" } else { "remount,rw" })
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// When it holds more.
    pub fn resize(&self, mib: u32) -> Result<()> {
        self.remount(&format!("remount,size={mib}m"))
    }

    fn remount(&self, options: &str) -> Result<()> {
        run(Command::new("mount").args(["-o", options]).arg(&self.0)).map(drop)
    }
}

/// A file or folder that cannot be written by its name, by nobody; ends when dropped.
#[derive(Debug)]
pub struct ReadOnly(PathBuf);

impl ReadOnly {
    /// Mounts it read-only over itself. What has it open for writing goes on writing.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn make(path: &Path) -> Result<Self> {
        run(Command::new("mount").arg("--bind").arg(path).arg(path))?;
        let this = Self(path.to_owned());
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(path))?;
        Ok(this)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
