//! Files strictly beneath a folder. Names come from images, and so do the links in the folder: neither may lead out of it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2};
use rustix::io::Errno;

/// A folder that files are opened in.
#[derive(Debug)]
pub(super) struct Beneath {
    folder: OwnedFd,
}

/// Only a look: opening a device can do something to it, and an image can have devices.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// Opening must not wait (a fifo) nor follow a link at the end.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Beneath {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder })
    }

    /// The regular file of this name, as a tar names it.
    pub(super) fn file(&self, name: &[u8]) -> io::Result<File> {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("`{}` in the layer: {error}", String::from_utf8_lossy(name)));
        let parts = parts(name).map_err(at)?;
        self.regular(&parts, LOOK).map_err(at)?;
        Ok(File::from(self.regular(&parts, FLAGS).map_err(at)?))
    }

    /// A regular file and nothing else.
    fn regular(&self, parts: &[&[u8]], flags: OFlags) -> io::Result<OwnedFd> {
        let fd = match self.resolve(parts, flags) {
            // An old kernel, or a filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(parts, flags)?,
            found => found?,
        };
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file any more"));
        }
        Ok(fd)
    }

    /// The kernel resolves the whole path.
    fn resolve(&self, parts: &[&[u8]], flags: OFlags) -> Result<OwnedFd, Errno> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.folder, parts.join(&b'/').as_slice(), flags, Mode::empty(), beneath)
    }

    /// Step by step, never through a link.
    fn walk(&self, parts: &[&[u8]], flags: OFlags) -> Result<OwnedFd, Errno> {
        let (last, folders) = parts.split_last().ok_or(Errno::NOENT)?;
        let mut at: Option<OwnedFd> = None;
        for part in folders {
            let from = at.as_ref().unwrap_or(&self.folder);
            at = Some(openat(from, *part, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
        }
        openat(at.as_ref().unwrap_or(&self.folder), *last, flags, Mode::empty())
    }
}

/// The parts of a tar's name; none of them leads up.
fn parts(name: &[u8]) -> io::Result<Vec<&[u8]>> {
    let parts: Vec<_> = name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.is_empty() || parts.iter().any(|part| *part == b".." || part.contains(&0)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a name beneath the layer's folder"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn beneath_only() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        std::fs::create_dir_all(layer.join("a/b")).unwrap();
        std::fs::write(layer.join("a/b/file"), "inside").unwrap();
        std::fs::write(root.path().join("secret"), "outside").unwrap();
        symlink("../secret", layer.join("link")).unwrap();
        symlink("a", layer.join("folder")).unwrap();
        symlink("/", layer.join("root")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, layer.join("fifo"), Mode::RWXU).unwrap();
        let beneath = Beneath::open(&layer).unwrap();
        for name in ["a/b/file", "./a//b/./file", "/a/b/file"] {
            let mut text = String::new();
            beneath.file(name.as_bytes()).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{name}");
            assert!(beneath.walk(&parts(name.as_bytes()).unwrap(), FLAGS).is_ok(), "{name}");
        }
        let refused = ["../secret", "a/../../secret", "link", "folder/b/file", "root/etc/passwd", "fifo", "a", "a/b/none", "", "/", "a\0b"];
        for name in refused {
            assert!(beneath.file(name.as_bytes()).is_err(), "{name}");
        }
        // Opening a socket fails by itself: that the refusal is ours shows that it was not tried, nor would be with a device.
        let _socket = std::os::unix::net::UnixListener::bind(layer.join("socket")).unwrap();
        let error = beneath.file(b"socket").unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        for name in ["link", "folder/b/file", "root/etc/passwd"] {
            assert!(beneath.walk(&parts(name.as_bytes()).unwrap(), FLAGS).is_err(), "{name}");
        }
    }
}
