//! Small disks: file systems that are full at once, read-only, or fail, when a test wants it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
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

/// An ext4 file system in a file, as on a memory card, that becomes read-only at its first error.
#[derive(Debug)]
pub struct Card {
    file: PathBuf,
    at: PathBuf,
}

impl Card {
    /// Makes one of `mib` MiB in the file `file` and mounts it over a folder, which is made when it is not there. It ends with what is
    /// mounted below the folder of a [`crate::Bed`].
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn mount(file: &Path, at: &Path, mib: u32) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
        File::create(file)?.set_len(u64::from(mib) << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(file))?;
        let this = Self { file: file.to_owned(), at: at.to_owned() };
        this.put_in()?;
        Ok(this)
    }

    fn put_in(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&self.file).arg(&self.at)).map(drop)
    }

    /// The file system meets an error, as the kernel sees one when a card is worn: what is open stays open, and every write and sync from
    /// now on is refused.
    ///
    /// # Errors
    /// When the kernel cannot be told.
    pub fn fail(&self) -> Result<()> {
        let device = run(Command::new("findmnt").args(["--noheadings", "--output", "SOURCE", "--mountpoint"]).arg(&self.at))?;
        let name = Path::new(device.trim()).file_name().context("the card has no device")?;
        let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
        fs::write(&trigger, "1").with_context(|| format!("cannot write {}", trigger.display()))
    }

    /// Takes it out, checks it and puts it back, as a reboot does. Nothing may have a file of it open.
    ///
    /// # Errors
    /// When it is in use, or is beyond repair.
    pub fn repair(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.at))?;
        // 1 says that there was something to correct.
        let status = Command::new("e2fsck").args(["-f", "-y"]).arg(&self.file).output()?.status;
        ensure!(matches!(status.code(), Some(0 | 1)), "e2fsck: {status}");
        self.put_in()
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
