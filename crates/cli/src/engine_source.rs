//! An image of the local engine as an archive in a temporary file.

use std::io::Write;
use std::path::Path;
use std::pin::pin;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use skerry_engine::{DockerEngine, Engine};
use tempfile::NamedTempFile;

use crate::publish::bar;

/// Exports `reference` from the engine at `socket`. The file is gone when the value is dropped; `TMPDIR` says where it is meanwhile.
pub(crate) async fn export(socket: &str, reference: &str) -> Result<NamedTempFile> {
    let Some(path) = socket.strip_prefix("unix://") else {
        bail!(
            "`{socket}` is not the address of a local engine\n  Expected unix:///path/to/docker.sock; save the image with `docker save` and give the file otherwise."
        );
    };
    let engine = DockerEngine::connect(Path::new(path))?;
    let id = engine.resolve(reference).await.with_context(|| format!("`{reference}` is neither a file here nor an image of the engine"))?;
    let mut file = NamedTempFile::new().context("a temporary file for the image; TMPDIR says where")?;
    // The tag is kept when the image was asked for by name.
    let asked = if reference.starts_with("sha256:") { id.to_string() } else { reference.to_owned() };
    let mut archive = pin!(engine.save(&asked));
    let bar = bar("Exporting", 0);
    while let Some(piece) = archive.next().await {
        let piece = piece?;
        file.write_all(&piece).with_context(|| format!("writing {}", file.path().display()))?;
        bar.inc(piece.len() as u64);
        bar.set_length(bar.position());
    }
    bar.finish_and_clear();
    file.flush()?;
    Ok(file)
}
