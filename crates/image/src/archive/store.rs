//! Members by name: of a tar that was walked once, or of a folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::ArchiveError;
use crate::tarhead::{Kind, TarError, Walk};

/// Members an archive may have: far above any image, far below what fills the memory.
const MEMBERS: usize = 200_000;
/// Bytes of the names of all members together, links included.
const NAMES: usize = 32 * 1024 * 1024;
/// Links followed from one member to another.
const LINKS: usize = 8;

/// Where members are.
#[derive(Debug)]
pub(super) enum Store<R> {
    Tar { label: String, reader: R, members: BTreeMap<String, Place> },
    Folder { path: PathBuf },
}

/// A member of a tar.
#[derive(Debug)]
pub(super) enum Place {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A member's bytes.
pub(super) struct Member<'a> {
    pub(super) size: u64,
    pub(super) reader: Box<dyn Read + 'a>,
}

impl<R: Read + Seek> Store<R> {
    pub(super) fn folder(path: PathBuf) -> Self {
        Self::Folder { path }
    }

    pub(super) fn tar(mut reader: R, label: &str) -> Result<Self, ArchiveError> {
        let archive = label.to_string();
        let io = |source| ArchiveError::Io { archive: archive.clone(), source };
        let mut magic = Vec::with_capacity(6);
        reader.by_ref().take(6).read_to_end(&mut magic).map_err(io)?;
        for (start, how, tool) in [
            (&[0x1f, 0x8b][..], "gzip", "gunzip -k"),
            (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "zstd -d"),
            (&[0xfd, b'7', b'z', b'X', b'Z'], "xz", "unxz -k"),
            (b"BZh", "bzip2", "bunzip2 -k"),
        ] {
            if magic.starts_with(start) {
                return Err(ArchiveError::Compressed { archive, how, tool });
            }
        }
        let walked = |error| match error {
            TarError::Io { source, .. } => ArchiveError::Io { archive: archive.clone(), source },
            TarError::Truncated { name, need, have } => ArchiveError::Truncated { archive: archive.clone(), member: name, need, have },
            other => ArchiveError::Tar { archive: archive.clone(), what: other.to_string() },
        };
        let (mut members, mut names) = (BTreeMap::new(), 0usize);
        let mut walk = Walk::new(BufReader::with_capacity(512, &mut reader)).map_err(walked)?;
        while let Some(member) = walk.next().map_err(walked)? {
            let Some(name) = clean(&member.name) else { continue };
            let place = match member.kind {
                Kind::File => Place::File { offset: member.offset, size: member.size },
                Kind::Hardlink(target) => match clean(&target) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                Kind::Symlink(target) => match clean(&beside(&name, &target)) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                Kind::Other => continue,
            };
            names += name.len() + if let Place::Link(target) = &place { target.len() } else { 0 };
            members.insert(name, place);
            if members.len() > MEMBERS {
                return Err(ArchiveError::Tar { archive, what: format!("it has more than {MEMBERS} members") });
            }
            if names > NAMES {
                return Err(ArchiveError::Tar { archive, what: format!("the names of its members have more than {NAMES} bytes") });
            }
        }
        Ok(Self::Tar { label: label.into(), reader, members })
    }

    /// The archive's name for people.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Tar { label, .. } => label.clone(),
            Self::Folder { path } => path.display().to_string(),
        }
    }

    /// Is this member there? Its size, when it is.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        match self {
            Self::Tar { members, .. } => place(members, name).map(|(_, size)| size),
            Self::Folder { path } => std::fs::metadata(path.join(clean(name)?)).ok().filter(|m| m.is_file()).map(|m| m.len()),
        }
    }

    /// A member's bytes. `role` and `named_by` go into the error when it is not there.
    pub(super) fn open(&mut self, name: &str, role: &str, named_by: &str) -> Result<Member<'_>, ArchiveError> {
        let archive = self.label();
        let io = |source| ArchiveError::Io { archive: format!("{archive}, member `{name}`"), source };
        let missing =
            || ArchiveError::Missing { archive: archive.clone(), member: name.into(), role: role.into(), named_by: named_by.into() };
        match self {
            Self::Tar { reader, members, .. } => {
                let (offset, size) = place(members, name).ok_or_else(missing)?;
                reader.seek(SeekFrom::Start(offset)).map_err(io)?;
                Ok(Member { size, reader: Box::new(reader.take(size)) })
            }
            Self::Folder { path } => {
                let file = match File::open(path.join(clean(name).ok_or_else(missing)?)) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                    Err(error) => return Err(io(error)),
                };
                let size = file.metadata().map_err(io)?.len();
                Ok(Member { size, reader: Box::new(file.take(size)) })
            }
        }
    }

    /// A small member as a whole.
    pub(super) fn read(&mut self, name: &str, role: &str, named_by: &str, limit: usize) -> Result<Vec<u8>, ArchiveError> {
        let archive = self.label();
        let member = self.open(name, role, named_by)?;
        if member.size > limit as u64 {
            return Err(ArchiveError::TooLarge { archive, member: name.into(), limit: limit as u64 });
        }
        let (size, mut bytes) = (member.size, Vec::new());
        member.reader.take(size).read_to_end(&mut bytes).map_err(|source| ArchiveError::Io { archive: archive.clone(), source })?;
        if (bytes.len() as u64) < size {
            return Err(ArchiveError::Truncated { archive, member: name.into(), need: size, have: bytes.len() as u64 });
        }
        Ok(bytes)
    }
}

/// Where a file is, through links.
pub(super) fn place(members: &BTreeMap<String, Place>, name: &str) -> Option<(u64, u64)> {
    let mut name = clean(name)?;
    for _ in 0..LINKS {
        match members.get(&name)? {
            Place::File { offset, size } => return Some((*offset, *size)),
            Place::Link(target) => name = target.clone(),
        }
    }
    None
}

/// A symbolic link's target as a name of the archive.
fn beside(name: &str, target: &str) -> String {
    match name.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{target}"),
        None => target.into(),
    }
}

/// A name without `.` and `..`; none when it leads out of the archive or is empty.
fn clean(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
