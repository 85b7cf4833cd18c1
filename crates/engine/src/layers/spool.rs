//! Layers out of exported images: for engines whose layers cannot be read in place (vfs, containerd's store, podman, a remote engine).
//!
//! [`spool`] has the engine export an image into a file, as `docker save` does. The file has its name only when it is whole, on the disk
//! and found to hold the image: what a cut leaves has another name and is written anew. [`SpooledImages`] reads such files.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures_util::StreamExt;
use skerry_delta::TarLayer;
use skerry_delta::source::{LayerSource, Sources};
use skerry_image::archive::Archive;
use skerry_wire::{DiffId, ImageId};
use tokio::sync::mpsc;

use crate::{Engine, EngineError};

/// Bytes that must stay free on the spool's disk, and how many are written between two looks.
const SPARE: u64 = 32 << 20;
const LOOK: u64 = 16 << 20;
/// Bytes that a reader of a layer reads ahead, and that are copied at once.
const AHEAD: usize = 16 * 1024;
const PIECE: usize = 64 * 1024;
/// Pieces on their way to the disk.
const PIECES: usize = 4;

/// Exports `image` into the file `path`; nothing is done when that is there. Its size.
pub async fn spool(engine: &impl Engine, image: &ImageId, path: &Path) -> Result<u64, EngineError> {
    let at = |source: io::Error| EngineError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) => return Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(error)),
    }
    if !engine.image_present(image).await? {
        return Err(EngineError::NoImage { reference: image.to_string() });
    }
    let (pieces, received) = mpsc::channel(PIECES);
    let (wanted, file) = (*image, path.to_owned());
    let writer = tokio::task::spawn_blocking(move || write(received, &wanted, &file));
    let exported = send(engine, image, &pieces).await;
    // Without the word that all is sent the writer takes the file away again.
    drop(pieces);
    let written = writer.await.map_err(|error| at(io::Error::other(error)))?;
    match exported {
        Err(error) => Err(error),
        Ok(()) => written.map_err(at),
    }
}

/// Sends the export's pieces, and a `None` when it is whole. A writer that has gone has its own reason.
async fn send(engine: &impl Engine, image: &ImageId, pieces: &mpsc::Sender<Option<Bytes>>) -> Result<(), EngineError> {
    let reference = image.to_string();
    let mut archive = pin!(engine.save(&reference));
    while let Some(piece) = archive.next().await {
        if pieces.send(Some(piece?)).await.is_err() {
            return Ok(());
        }
    }
    let _ = pieces.send(None).await;
    Ok(())
}

fn write(mut pieces: mpsc::Receiver<Option<Bytes>>, image: &ImageId, path: &Path) -> io::Result<u64> {
    let part = beside(path, "part");
    let written = write_part(&mut pieces, &part).and_then(|size| {
        unpack(&part, image, path)?;
        fs::rename(&part, path)?;
        sync_folder(path)?;
        Ok(size)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_part(pieces: &mut mpsc::Receiver<Option<Bytes>>, part: &Path) -> io::Result<u64> {
    let mut file = File::create(part)?;
    let (mut size, mut looked) = (0, 0);
    loop {
        match pieces.blocking_recv() {
            Some(Some(piece)) => {
                if looked == 0 || size - looked >= LOOK {
                    has_room(part)?;
                    looked = size.max(1);
                }
                file.write_all(&piece)?;
                size += piece.len() as u64;
            }
            Some(None) => break,
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the engine's export broke off")),
        }
    }
    file.sync_all()?;
    Ok(size)
}

/// Checks that the export holds the image, and unpacks layers that it holds compressed into files beside it.
fn unpack(part: &Path, image: &ImageId, path: &Path) -> io::Result<()> {
    let mut archive = Archive::open(part).map_err(io::Error::other)?;
    let found = archive.choose(Some(&image.to_string())).map_err(io::Error::other)?.clone();
    for layer in &found.layers {
        if archive.plain(layer).map_err(io::Error::other)?.is_some() {
            continue;
        }
        let (mut reader, mut file) = (archive.layer(layer).map_err(io::Error::other)?, File::create(unpacked(path, &layer.diff_id))?);
        let mut piece = vec![0; PIECE];
        let (mut size, mut looked) = (0, 0);
        loop {
            // The last read fails when the bytes are not the layer's.
            let n = reader.read(&mut piece)?;
            if n == 0 {
                break;
            }
            if looked == 0 || size - looked >= LOOK {
                has_room(part)?;
                looked = size.max(1);
            }
            file.write_all(&piece[..n])?;
            size += n as u64;
        }
        file.sync_all()?;
    }
    Ok(())
}

fn has_room(part: &Path) -> io::Result<()> {
    let disk = rustix::fs::statvfs(part)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) >= SPARE {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::StorageFull,
        "less than 32 MiB are left on its disk: make room there for an export of the base image",
    ))
}

/// The file that a layer is unpacked into. Whole whenever the spool has its name.
fn unpacked(path: &Path, diff_id: &DiffId) -> PathBuf {
    beside(path, &diff_id.digest().hex())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Images that were exported, as old bytes for patches.
#[derive(Debug, Default)]
pub struct SpooledImages {
    configs: Vec<(ImageId, Vec<u8>)>,
    layers: Vec<(DiffId, Place)>,
}

/// Where a layer's tar is.
#[derive(Debug, Clone)]
struct Place {
    file: PathBuf,
    offset: u64,
    size: u64,
}

impl SpooledImages {
    /// The images in these files of [`spool`].
    pub fn open(files: &[PathBuf]) -> io::Result<Self> {
        let mut all = Self::default();
        for file in files {
            let mut archive = Archive::open(file).map_err(io::Error::other)?;
            for image in archive.images().to_vec() {
                for layer in &image.layers {
                    let place = match archive.plain(layer).map_err(io::Error::other)? {
                        Some(plain) => Place { file: plain.file.unwrap_or_else(|| file.clone()), offset: plain.offset, size: plain.size },
                        None => {
                            let file = unpacked(file, &layer.diff_id);
                            let size = fs::metadata(&file).map_err(|error| at(&file, &error))?.len();
                            Place { file, offset: 0, size }
                        }
                    };
                    all.layers.push((layer.diff_id, place));
                }
                all.configs.push((image.image_id, image.config_bytes));
            }
        }
        Ok(all)
    }
}

impl Sources for SpooledImages {
    fn config(&self, image: &ImageId) -> io::Result<Vec<u8>> {
        let found = self.configs.iter().find(|(id, _)| id == image);
        found.map(|(_, config)| config.clone()).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it was not exported"))
    }

    fn layer(&self, diff_id: &DiffId) -> io::Result<Box<dyn LayerSource + '_>> {
        let found = self.layers.iter().find(|(id, _)| id == diff_id);
        let (_, place) = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no exported image has it"))?;
        let place = place.clone();
        Ok(Box::new(TarLayer::new(move || Part::open(&place))?))
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A part of a file.
struct Part {
    file: BufReader<File>,
    place: Place,
    at: u64,
}

impl Part {
    fn open(place: &Place) -> io::Result<Self> {
        let file = File::open(&place.file).map_err(|error| at(&place.file, &error))?;
        let mut file = BufReader::with_capacity(AHEAD, file);
        file.seek(SeekFrom::Start(place.offset))?;
        Ok(Self { file, place: place.clone(), at: 0 })
    }
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(usize::try_from(self.place.size.saturating_sub(self.at)).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buf[..len])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.place.size.checked_add_signed(by),
        };
        let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the start"))?;
        // Within what was read ahead nothing is read again.
        match i64::try_from(i128::from(to) - i128::from(self.at)) {
            Ok(by) => self.file.seek_relative(by)?,
            Err(_) => drop(self.file.seek(SeekFrom::Start(self.place.offset.saturating_add(to)))?),
        }
        self.at = to;
        Ok(to)
    }
}
