//! An image of the local engine as an archive in a temporary file.

use std::io::Write;
use std::path::Path;
use std::pin::pin;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::StreamExt;
use skerry_engine::{DockerEngine, Engine};
use tempfile::NamedTempFile;

use crate::publish::{bar, split_reference};

/// Exports `reference` from the engine at `socket`, and gives its `name:tag` when it was asked for by one. The file is gone when the
/// value is dropped; `TMPDIR` says where it is meanwhile.
pub(crate) async fn export(socket: &str, reference: &str) -> Result<(NamedTempFile, Option<String>)> {
    let Some(path) = socket.strip_prefix("unix://") else {
        bail!(
            "`{socket}` is not the address of a local engine\n  Expected unix:///path/to/docker.sock; save the image with `docker save` and give the file otherwise."
        );
    };
    let engine = DockerEngine::connect(Path::new(path))?;
    let id = engine.resolve(reference).await.map_err(|error| match error.is_not_found() {
        true => anyhow!("`{reference}` is neither a file here nor an image of the engine\n  `docker image ls` lists its images."),
        false => anyhow!("`{reference}` is no file here, and the engine cannot be asked: {error}"),
    })?;
    let mut file = NamedTempFile::new().context("a temporary file for the image; TMPDIR says where")?;
    let mut named = None;
    if let Some(full) = full_name(reference)
        && engine.resolve(&full).await.is_ok_and(|found| found == id)
    {
        named = Some(full);
    }
    // By a name without a tag the engine would give every image of that name.
    let asked = named.clone().unwrap_or_else(|| id.to_string());
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
    Ok((file, named))
}

/// `name:tag` of a reference that can be one; an id, or a registry's digest, has none. A word of hexadecimal digits may still be either.
fn full_name(reference: &str) -> Option<String> {
    if reference.starts_with("sha256:") || reference.contains('@') {
        return None;
    }
    let (name, tag) = split_reference(reference);
    Some(format!("{name}:{}", tag.unwrap_or("latest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_full() {
        for (reference, full) in [
            ("till", Some("till:latest")),
            ("shop/till:2", Some("shop/till:2")),
            ("host:5000/till", Some("host:5000/till:latest")),
            ("sha256:0f", None),
            ("till@sha256:0f", None),
        ] {
            assert_eq!(full_name(reference).as_deref(), full, "{reference}");
        }
    }
}
