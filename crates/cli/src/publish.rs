//! Publishing: an archive is checked whole, its release is signed here, and only the layers that the server lacks travel.
//!
//! Memory is bounded whatever the image's size: layers are streamed, compressed on the way. Cut off or interrupted, the command is
//! simply given again: layers that arrived are not sent twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use indicatif::{ProgressBar, ProgressStyle};
use skerry_client::Client;
use skerry_image::archive::{Archive, ArchiveImage, ArchiveLayer};
use skerry_image::frames::FrameWriter;
use skerry_trust::envelope;
use skerry_wire::api::{ImageSummary, PrepareRequest, PublishRequest};
use skerry_wire::release::Release;
use skerry_wire::{DiffId, limits};
use tokio::sync::mpsc;

use crate::args::PublishArgs;
use crate::config::Config;
use crate::{engine_source, output};

/// Of a layer on its way: fast, since it is made while it is sent; the server does not compress it again.
const LEVEL: i32 = 3;
/// Pieces handed from the compressor to the connection.
const PIECE: usize = 64 * 1024;
/// Pieces waiting for the connection.
const QUEUE: usize = 16;

/// What was done.
#[derive(Debug)]
pub(crate) struct Published {
    /// As the server has it now.
    pub(crate) image: ImageSummary,
    /// Bytes of uncompressed layers that were sent.
    pub(crate) uploaded: u64,
    /// Layers that were sent.
    pub(crate) layers_uploaded: usize,
}

/// Checks, signs, uploads.
pub(crate) async fn publish(config: &Config, client: &Client, args: PublishArgs) -> Result<Published> {
    let key = config.release_key(args.key.as_deref())?;
    config.check_release_key(&key)?;
    let path = Path::new(&args.source);
    // An image of the local engine goes through a temporary file, since an archive is read more than once.
    let (archive_path, spool, reference) = if path.exists() {
        (path.to_owned(), None, None)
    } else {
        let (spool, named) = engine_source::export(&args.docker, &args.source).await?;
        (spool.path().to_owned(), Some(spool), named)
    };
    let (select, path) = (args.select.clone(), archive_path.clone());
    let checked = tokio::task::spawn_blocking(move || check(&path, select.as_deref())).await.context("checking the archive")??;
    let image = &checked.image;
    let (name, tag) = name_and_tag(&args, image, reference.as_deref())?;
    let release = Release {
        name,
        tag,
        image_id: image.image_id,
        diff_ids: image.layers.iter().map(|l| l.diff_id).collect(),
        architecture: image.config.architecture.clone(),
        os: image.config.os.clone(),
        size: checked.sizes.iter().sum(),
        signed_at: output::now(),
    };
    let envelope = envelope::seal(&key, Release::PURPOSE, &release);
    anyhow::ensure!(envelope.len() <= limits::RELEASE, "the release of {} layers is too long", release.diff_ids.len());

    let missing: BTreeSet<DiffId> =
        client.prepare_image(&PrepareRequest { diff_ids: release.diff_ids.clone() }).await?.missing.into_iter().collect();
    let mut todo: Vec<(ArchiveLayer, u64)> = Vec::new();
    for (layer, size) in image.layers.iter().zip(&checked.sizes) {
        if missing.contains(&layer.diff_id) && todo.iter().all(|(t, _)| t.diff_id != layer.diff_id) {
            todo.push((layer.clone(), *size));
        }
    }
    let uploaded = todo.iter().map(|(_, size)| size).sum();
    let bar = bar("Uploading", uploaded);
    let layers_uploaded = todo.len();
    for (layer, _) in todo {
        upload(client, &archive_path, layer, bar.clone()).await?;
    }
    bar.finish_and_clear();
    let image = client.publish_image(&PublishRequest { release: envelope.into(), config: image.config_bytes.clone().into() }).await?;
    drop(spool);
    Ok(Published { image, uploaded, layers_uploaded })
}

/// An image whose every layer was read and gave its diff_id.
#[derive(Debug)]
struct Checked {
    image: ArchiveImage,
    /// Uncompressed bytes of each layer.
    sizes: Vec<u64>,
}

fn check(path: &Path, select: Option<&str>) -> Result<Checked> {
    let mut archive = Archive::open(path)?;
    let image = archive.choose(select)?.clone();
    let bar = bar("Checking", image.layers.iter().map(|l| l.stored).sum());
    let mut sizes = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        let mut reader = archive.layer(layer)?;
        let mut piece = vec![0; PIECE];
        // The reader's own error names archive and layer, and is the one that matters.
        while reader.read(&mut piece)? > 0 {}
        sizes.push(reader.size());
        bar.inc(layer.stored);
    }
    bar.finish_and_clear();
    Ok(Checked { image, sizes })
}

/// What to publish as: what was asked for, else what the image was chosen by, else its first name in the archive.
fn name_and_tag(args: &PublishArgs, image: &ArchiveImage, reference: Option<&str>) -> Result<(String, String)> {
    let chosen = reference.or(args.select.as_deref()).filter(|chosen| image.repo_tags.iter().any(|tag| same_name(tag, chosen)));
    let own = chosen.or(image.repo_tags.first().map(String::as_str)).or(reference).map(familiar).unwrap_or_default();
    let (own_name, own_tag) = match split_reference(own) {
        // An OCI layout may give a tag alone; what it is a tag of, nobody says.
        (tag, None) if !tag.contains('/') && chosen.is_none() && reference.is_none() => ("", Some(tag).filter(|tag| !tag.is_empty())),
        split => split,
    };
    let name = args.name.clone().unwrap_or_else(|| own_name.to_owned());
    if name.is_empty() {
        bail!("{} does not say the image's name\n  Give one with --name (and --tag).", args.source);
    }
    let (name, in_name) = match split_reference(&name) {
        (name, Some(tag)) => (name.to_owned(), Some(tag.to_owned())),
        (name, None) => (name.to_owned(), None),
    };
    let tag = args.tag.clone().or(in_name).or_else(|| own_tag.map(str::to_owned)).unwrap_or_else(|| "latest".to_owned());
    if let Some((fault, _)) = skerry_jobspec::bad_image(&format!("{name}:{tag}")) {
        bail!("{fault}\n  Give one with --name and --tag: lower-case letters, digits, `.`, `_`, `-` and `/`, as in shop/till:2.1");
    }
    Ok((name, tag))
}

/// Do two references name the same image, a tag that is left out being `latest`?
fn same_name(a: &str, b: &str) -> bool {
    let ((a, a_tag), (b, b_tag)) = (split_reference(familiar(a)), split_reference(familiar(b)));
    a == b && a_tag.unwrap_or("latest") == b_tag.unwrap_or("latest")
}

/// A reference as Docker shows it: some tools write out the registry that is meant when none is given.
fn familiar(reference: &str) -> &str {
    let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
    short.strip_prefix("library/").filter(|_| short.len() < reference.len()).unwrap_or(short)
}

/// `name:tag` at the last colon that is not part of a registry's port.
pub(crate) fn split_reference(reference: &str) -> (&str, Option<&str>) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !tag.is_empty() => (name, Some(tag)),
        _ => (reference, None),
    }
}

async fn upload(client: &Client, archive: &Path, layer: ArchiveLayer, bar: ProgressBar) -> Result<()> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (archive, diff_id) = (archive.to_owned(), layer.diff_id);
    let compress = tokio::task::spawn_blocking(move || {
        let result = compress(archive, &layer, Pieces { sender: sender.clone(), piece: Vec::with_capacity(PIECE) }, &bar);
        if let Err(error) = &result {
            // The body must not end as if it were whole. When the connection is gone already, that error is the one to show.
            let _ = sender.blocking_send(Err(io::Error::other(format!("{error:#}"))));
        }
        result
    });
    let frames = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece: io::Result<Bytes>| (piece.map(Frame::data), receiver))
    });
    let sent = client.put_layer(&diff_id, BodyExt::boxed(StreamBody::new(frames))).await;
    let compressed = compress.await.context("compressing a layer")?;
    match (sent, compressed) {
        (Ok(()), result) => result,
        (Err(error), Ok(())) => Err(error).with_context(|| format!("uploading layer {diff_id}")),
        // The reader failed first unless it only noticed that the connection had gone.
        (Err(error), Err(cause)) if cause.is::<ConnectionGone>() => Err(error).with_context(|| format!("uploading layer {diff_id}")),
        (Err(_), Err(cause)) => Err(cause),
    }
}

fn compress(archive: PathBuf, layer: &ArchiveLayer, out: Pieces, bar: &ProgressBar) -> Result<()> {
    let mut archive = Archive::<File>::open(&archive)?;
    let mut reader = archive.layer(layer)?;
    let mut writer = FrameWriter::new(out, LEVEL)?;
    let mut piece = vec![0; PIECE];
    loop {
        let n = reader.read(&mut piece)?;
        if n == 0 {
            break;
        }
        writer
            .write_all(&piece[..n])
            .map_err(|e| if e.kind() == io::ErrorKind::BrokenPipe { ConnectionGone.into() } else { anyhow::Error::from(e) })?;
        bar.inc(n as u64);
    }
    let (mut pieces, _) = writer.finish()?;
    pieces.flush().map_err(|_| ConnectionGone)?;
    Ok(())
}

/// The upload ended before the layer did.
#[derive(Debug, Clone, Copy)]
struct ConnectionGone;

impl std::fmt::Display for ConnectionGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection to the server is gone")
    }
}

impl std::error::Error for ConnectionGone {}

/// Gathers what is written into pieces for the connection.
#[derive(Debug)]
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buf[..n]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

/// A bar of bytes; hidden when nobody watches.
pub(crate) fn bar(what: &str, total: u64) -> ProgressBar {
    let bar = if output::interactive() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{msg:10} {bar:30} {bytes:>10} of {total_bytes:>10}  {bytes_per_sec}  {eta}");
    bar.set_style(style.expect("a template of ours"));
    bar.set_message(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, ImageCommand};

    fn published(source: &str, options: &[&str], tags: &[&str], reference: Option<&str>) -> Option<String> {
        let line = ["skerry", "image", "publish", source].into_iter().chain(options.iter().copied());
        let Command::Image(ImageCommand::Publish(args)) = Cli::parse_from(line).command else { panic!("not a publish") };
        let config = r#"{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.as_bytes();
        let image = ArchiveImage {
            image_id: skerry_wire::ImageId(skerry_image::sha256(config)),
            config_bytes: config.to_vec(),
            config: skerry_image::config::ImageConfig::parse(config).unwrap(),
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            layers: Vec::new(),
        };
        name_and_tag(&args, &image, reference).ok().map(|(name, tag)| format!("{name}:{tag}"))
    }

    #[test]
    fn names_to_publish_as() {
        let two = ["shop/till:1", "shop/till:2"];
        for (options, tags, reference, expected) in [
            (&[][..], &two[..], None, Some("shop/till:1")),
            (&["--select", "shop/till:2"], &two, None, Some("shop/till:2")),
            (&["--select", "shop/till:2", "--tag", "3"], &two, None, Some("shop/till:3")),
            (&[], &two, Some("shop/till:2"), Some("shop/till:2")),
            (&[], &["till:latest"], Some("till:latest"), Some("till:latest")),
            (&["--select", "till"], &["a:1", "till:latest"], None, Some("till:latest")),
            // From the engine by id, without and with a name of its own.
            (&[], &[], None, None),
            (&[], &["till:4"], None, Some("till:4")),
            (&["--name", "till"], &[], None, Some("till:latest")),
            (&["--name", "host:5000/till:7"], &two, None, Some("host:5000/till:7")),
            // As OCI layouts name images.
            (&[], &["2.1"], None, None),
            // Names that no jobspec can ask for.
            (&["--name", "Shop till"], &two, None, None),
            (&["--tag", "a/b"], &two, None, None),
            (&["--name", "sha256"], &["till:1"], None, None),
            (&["--name", "till"], &["2.1"], None, Some("till:2.1")),
            (&[], &["docker.io/library/till:2"], None, Some("till:2")),
            (&[], &["docker.io/shop/till:2"], None, Some("shop/till:2")),
            (&[], &["library/till:2"], None, Some("library/till:2")),
        ] {
            assert_eq!(published("till.tar", options, tags, reference).as_deref(), expected, "{options:?} {tags:?} {reference:?}");
        }
    }

    #[test]
    fn references() {
        for (text, name, tag) in [
            ("shop/till:2.1", "shop/till", Some("2.1")),
            ("shop/till", "shop/till", None),
            ("host:5000/till", "host:5000/till", None),
            ("host:5000/till:1", "host:5000/till", Some("1")),
            ("till:", "till:", None),
        ] {
            assert_eq!(split_reference(text), (name, tag), "{text}");
        }
    }
}
