//! Image archives as `docker save` writes them, made from folders and bytes: no engine, no registry, a second or so.
//!
//! The same input gives the same bytes, so an image id can be known before.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ring::digest::{Context as Hasher, SHA256, digest};
use serde_json::json;
use tar::{Builder, EntryType, Header};

/// What an image is to hold.
#[derive(Debug, Clone, Default)]
pub struct ImageSpec {
    /// `name:tag`
    pub reference: String,
    /// The layers, lowest first.
    pub layers: Vec<LayerSpec>,
    /// Entrypoint and arguments.
    pub command: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    /// The signal that ends the program; the engine's default when none.
    pub stop_signal: Option<String>,
}

/// One layer.
#[derive(Debug, Clone, Default)]
pub struct LayerSpec {
    /// Modification time of every member, in seconds since 1970: a rebuilt layer has a newer one.
    pub mtime: u64,
    /// The members, in this order.
    pub members: Vec<Member>,
}

/// One file, folder or link of a layer.
#[derive(Debug, Clone)]
pub struct Member {
    /// Path without a leading slash.
    pub path: String,
    /// What it is.
    pub content: Content,
    /// Permission bits.
    pub mode: u32,
}

/// What a member is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A folder.
    Folder,
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A file with the bytes of a file of this machine.
    Copy(PathBuf),
    /// A file of this many bytes that do not compress, the same for the same seed.
    Noise {
        /// Which bytes.
        seed: u64,
        /// How many.
        size: u64,
    },
    /// A symbolic link to this path.
    Link(PathBuf),
}

/// An archive that was written.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    /// `name:tag`
    pub reference: String,
    /// `sha256:...`, as the engine will say it.
    pub image_id: String,
    /// Bytes of all layers, uncompressed.
    pub size: u64,
}

impl Member {
    /// A folder that everybody may read.
    #[must_use]
    pub fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), content: Content::Folder, mode: 0o755 }
    }

    /// A file that everybody may read.
    #[must_use]
    pub fn file(path: &str, content: Content) -> Self {
        Self { path: path.to_owned(), content, mode: 0o644 }
    }

    /// A program.
    #[must_use]
    pub fn program(path: &str, content: Content) -> Self {
        Self { path: path.to_owned(), content, mode: 0o755 }
    }
}

impl ImageSpec {
    /// Writes the archive into `folder` and returns what it holds.
    ///
    /// # Errors
    /// When a source cannot be read or the archive not be written.
    pub fn write(&self, folder: &Path) -> Result<Archive> {
        let path = folder.join(format!("{}.tar", self.reference.replace([':', '/'], "_")));
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut archive = Builder::new(io::BufWriter::new(file));
        let (mut diff_ids, mut names, mut size) = (Vec::new(), Vec::new(), 0);
        for layer in &self.layers {
            let spool = tempfile::tempfile_in(folder)?;
            let bytes = layer.write(&spool)?;
            let diff_id = digest_of(&spool)?;
            let name = format!("{diff_id}/layer.tar");
            let mut header = header(EntryType::Regular, 0o644, layer.mtime);
            header.set_size(bytes);
            let mut reader = rewound(&spool)?;
            archive.append_data(&mut header, &name, &mut reader)?;
            diff_ids.push(format!("sha256:{diff_id}"));
            names.push(name);
            size += bytes;
        }
        let config = serde_json::to_vec(&self.config(&diff_ids))?;
        let id = hex(digest(&SHA256, &config).as_ref());
        let manifest = json!([{ "Config": format!("{id}.json"), "RepoTags": [self.reference], "Layers": names }]);
        for (name, body) in [(format!("{id}.json"), config), ("manifest.json".to_owned(), serde_json::to_vec(&manifest)?)] {
            let mut header = header(EntryType::Regular, 0o644, 0);
            header.set_size(body.len() as u64);
            archive.append_data(&mut header, &name, body.as_slice())?;
        }
        archive.into_inner()?.flush()?;
        Ok(Archive { path, reference: self.reference.clone(), image_id: format!("sha256:{id}"), size })
    }

    fn config(&self, diff_ids: &[String]) -> serde_json::Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let history: Vec<_> = diff_ids.iter().map(|_| json!({ "created": "2024-01-01T00:00:00Z", "created_by": "layer" })).collect();
        let mut run = json!({ "Env": self.env, "Cmd": self.command });
        if let Some(signal) = &self.stop_signal {
            run["StopSignal"] = json!(signal);
        }
        json!({
            "architecture": architecture, "os": "linux", "created": "2024-01-01T00:00:00Z", "config": run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
        })
    }
}

impl LayerSpec {
    /// Writes the layer's tar and returns its length.
    fn write(&self, spool: &File) -> Result<u64> {
        let mut tar = Builder::new(io::BufWriter::new(spool));
        for member in &self.members {
            let kind = match member.content {
                Content::Folder => EntryType::Directory,
                Content::Link(_) => EntryType::Symlink,
                Content::Bytes(_) | Content::Copy(_) | Content::Noise { .. } => EntryType::Regular,
            };
            let mut header = header(kind, member.mode, self.mtime);
            match &member.content {
                Content::Folder => tar.append_data(&mut header, format!("{}/", member.path), io::empty())?,
                Content::Link(to) => tar.append_link(&mut header, &member.path, to)?,
                Content::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, &member.path, bytes.as_slice())?;
                }
                Content::Copy(from) => {
                    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
                    header.set_size(file.metadata()?.len());
                    tar.append_data(&mut header, &member.path, file)?;
                }
                Content::Noise { seed, size } => {
                    header.set_size(*size);
                    tar.append_data(&mut header, &member.path, Noise::new(*seed).take(*size))?;
                }
            }
        }
        tar.into_inner()?.flush()?;
        Ok(spool.metadata()?.len())
    }
}

/// Copies an archive without its first member, which is its first layer. (`tar --delete` spoils some archives.)
///
/// # Errors
/// When an archive cannot be read or written.
pub fn without_first_layer(from: &Path, to: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(File::open(from)?);
    let mut out = Builder::new(File::create(to)?);
    for entry in archive.entries()?.skip(1) {
        let entry = entry?;
        let header = entry.header().clone();
        out.append(&header, entry)?;
    }
    out.into_inner()?.sync_all().with_context(|| format!("cannot write {}", to.display()))
}

/// Members for a folder of this machine and all that is in it, sorted, below `to`; `keep` says which paths.
///
/// # Errors
/// When the folder cannot be read.
pub fn copy_tree(from: &Path, to: &str, keep: &dyn Fn(&Path) -> bool) -> Result<Vec<Member>> {
    let mut members = vec![Member::folder(to)];
    let mut entries: Vec<_> = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.iter().filter(|e| keep(&e.path())) {
        let (path, name) = (entry.path(), entry.file_name());
        let inside = format!("{to}/{}", name.to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            members.extend(copy_tree(&path, &inside, keep)?);
        } else if kind.is_symlink() {
            members.push(Member::file(&inside, Content::Link(fs::read_link(&path)?)));
        } else if kind.is_file() {
            members.push(Member::file(&inside, Content::Copy(path)));
        }
    }
    Ok(members)
}

fn header(kind: EntryType, mode: u32, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

fn rewound(file: &File) -> Result<File> {
    let mut copy = file.try_clone()?;
    io::Seek::rewind(&mut copy)?;
    Ok(copy)
}

fn digest_of(file: &File) -> Result<String> {
    let mut hasher = Hasher::new(&SHA256);
    let mut reader = rewound(file)?;
    let mut part = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut part)? {
            0 => return Ok(hex(hasher.finish().as_ref())),
            n => hasher.update(&part[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An endless stream of bytes that do not compress (xorshift64*).
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
}

impl Read for Noise {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        for part in out.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bytes = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
        Ok(out.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ImageSpec {
        let noise = Member::file("bulk", Content::Noise { seed: 7, size: 100_000 });
        let layers = vec![LayerSpec { mtime: 1, members: vec![Member::folder("a"), noise] }];
        ImageSpec { reference: "t:1".into(), layers, command: vec!["/x".into()], ..ImageSpec::default() }
    }

    #[test]
    fn the_same_input_gives_the_same_archive() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (spec().write(a.path()).unwrap(), spec().write(b.path()).unwrap());
        assert_eq!(one.image_id, two.image_id);
        assert_eq!(fs::read(one.path).unwrap(), fs::read(two.path).unwrap());
    }

    #[test]
    fn another_time_gives_another_image() {
        let folder = tempfile::tempdir().unwrap();
        let one = spec().write(folder.path()).unwrap();
        let mut later = spec();
        later.layers[0].mtime = 2;
        assert_ne!(one.image_id, later.write(folder.path()).unwrap().image_id);
    }
}
