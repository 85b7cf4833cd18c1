//! The archive that `docker load` takes: configuration, manifest, and only the layers that the engine lacks.
//!
//! In, in this order: [`LoadArchiveWriter::config`] once, then for each given layer [`LoadArchiveWriter::layer_start`], its bytes,
//! [`LoadArchiveWriter::layer_end`], then [`LoadArchiveWriter::finish`]. Out: a tar, streamed, the same bytes for the same input. Layers
//! that the engine has are named in the manifest and left out of the archive; an engine with graph drivers takes that as long as an image
//! with the same chain of layers is present.

use std::io::{self, Write};

use serde::Serialize;
use skerry_wire::{DiffId, ImageId, limits};

use crate::sha256;
use crate::tarhead::{BLOCK, file_header};

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LoadArchiveError {
    /// The output fails.
    #[error("cannot write the archive for the engine: {0}")]
    Io(#[from] io::Error),
    /// The configuration is not the image's.
    #[error("the configuration's SHA-256 is {actual}, the image id is {expected}")]
    ImageId {
        /// The id asked for.
        expected: ImageId,
        /// The id of the bytes.
        actual: ImageId,
    },
    /// The calls do not fit the archive announced with the configuration.
    #[error("the archive is written out of order: {what}")]
    Order {
        /// What is wrong.
        what: String,
    },
    /// A layer has not the size that was announced.
    #[error("layer {diff_id} has {actual} bytes, {expected} were announced")]
    Size {
        /// The layer.
        diff_id: DiffId,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came, or one more when too many came.
        actual: u64,
    },
}

/// A layer of the image, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLayer {
    /// The layer.
    pub diff_id: DiffId,
    /// Its bytes will be given; else the engine has them.
    pub given: bool,
}

/// Writes the archive.
#[derive(Debug)]
pub struct LoadArchiveWriter<W> {
    out: W,
    layers: Vec<LoadLayer>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing written.
    Empty,
    /// Between layers; the next one to come is at or above this index.
    Between(usize),
    /// Inside a layer.
    Layer { index: usize, size: u64, written: u64 },
}

#[derive(Serialize)]
struct Manifest<'a> {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<&'a [String]>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

impl<W: Write> LoadArchiveWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, layers: Vec::new(), state: State::Empty }
    }

    /// Begins the archive. With no tags the image is loaded without a name.
    pub fn config(&mut self, image_id: &ImageId, bytes: &[u8], layers: &[LoadLayer], repo_tags: &[String]) -> Result<(), LoadArchiveError> {
        if !matches!(self.state, State::Empty) {
            return Err(order("a second configuration"));
        }
        if layers.len() > limits::LAYERS {
            return Err(order(&format!("{} layers, at most {} are allowed", layers.len(), limits::LAYERS)));
        }
        let actual = ImageId(sha256(bytes));
        if actual != *image_id {
            return Err(LoadArchiveError::ImageId { expected: *image_id, actual });
        }
        let config = format!("{}.json", image_id.digest().hex());
        let manifest = Manifest {
            config: config.clone(),
            repo_tags: (!repo_tags.is_empty()).then_some(repo_tags),
            layers: layers.iter().enumerate().map(|(i, layer)| name(i, &layer.diff_id)).collect(),
        };
        let manifest = serde_json::to_vec(&[manifest]).map_err(io::Error::from)?;
        self.member(&config, bytes)?;
        self.member("manifest.json", &manifest)?;
        self.layers = layers.to_vec();
        self.state = State::Between(0);
        Ok(())
    }

    /// Begins the layer at `index` (from 0, in rising order), of `size` bytes uncompressed.
    pub fn layer_start(&mut self, index: usize, diff_id: &DiffId, size: u64) -> Result<(), LoadArchiveError> {
        let State::Between(next) = self.state else { return Err(order("a layer before the last one ended")) };
        match self.layers.get(index) {
            Some(layer) if layer.given && layer.diff_id == *diff_id && index >= next => {}
            _ => return Err(order(&format!("layer {index} ({diff_id}) is not expected now"))),
        }
        if let Some(skipped) = self.given_between(next, index) {
            return Err(order(&format!("layer {skipped} was to be given before layer {index}")));
        }
        self.out.write_all(&file_header(&name(index, diff_id), size))?;
        self.state = State::Layer { index, size, written: 0 };
        Ok(())
    }

    /// More bytes of the layer.
    pub fn layer_bytes(&mut self, bytes: &[u8]) -> Result<(), LoadArchiveError> {
        let State::Layer { index, size, written } = &mut self.state else { return Err(order("bytes outside a layer")) };
        let after = written.saturating_add(bytes.len() as u64);
        if after > *size {
            return Err(LoadArchiveError::Size { diff_id: self.layers[*index].diff_id, expected: *size, actual: after });
        }
        self.out.write_all(bytes)?;
        *written = after;
        Ok(())
    }

    /// Ends the layer.
    pub fn layer_end(&mut self) -> Result<(), LoadArchiveError> {
        let State::Layer { index, size, written } = self.state else { return Err(order("the end of a layer that did not start")) };
        if written != size {
            return Err(LoadArchiveError::Size { diff_id: self.layers[index].diff_id, expected: size, actual: written });
        }
        self.pad(size)?;
        self.state = State::Between(index + 1);
        Ok(())
    }

    /// Ends the archive, flushes the output and gives it back.
    pub fn finish(mut self) -> Result<W, LoadArchiveError> {
        let State::Between(next) = self.state else {
            return Err(order("the end of the archive inside a layer or before the configuration"));
        };
        if let Some(skipped) = self.given_between(next, self.layers.len()) {
            return Err(order(&format!("layer {skipped} was to be given")));
        }
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn given_between(&self, from: usize, to: usize) -> Option<usize> {
        (from..to).find(|i| self.layers[*i].given)
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(&file_header(name, bytes.len() as u64))?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).expect("less than a block");
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

/// A layer with one regular file in it, for images made on the spot. `path` is at most 100 bytes.
pub fn single_file_layer(path: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = file_header(path, content.len() as u64).to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    bytes
}

/// By index too: an image may have the same layer twice, once in a chain that the engine has and once not.
fn name(index: usize, diff_id: &DiffId) -> String {
    format!("{index:03}-{}.tar", diff_id.digest().hex())
}

fn order(what: &str) -> LoadArchiveError {
    LoadArchiveError::Order { what: what.into() }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::archive::{Archive, ArchiveError};

    fn written(given: [bool; 2]) -> Result<Vec<u8>, LoadArchiveError> {
        let layers = [&b"lower"[..], &[7; 1024]];
        let ids = layers.map(|bytes| DiffId(sha256(bytes)));
        let config =
            format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#, ids[0], ids[1]);
        let mut writer = LoadArchiveWriter::new(Vec::new());
        let plan: Vec<_> = ids.iter().zip(given).map(|(diff_id, given)| LoadLayer { diff_id: *diff_id, given }).collect();
        writer.config(&ImageId(sha256(config.as_bytes())), config.as_bytes(), &plan, &["a/b:1".into()])?;
        for (i, bytes) in layers.iter().enumerate().filter(|(i, _)| given[*i]) {
            writer.layer_start(i, &ids[i], bytes.len() as u64)?;
            bytes.chunks(100).try_for_each(|chunk| writer.layer_bytes(chunk))?;
            writer.layer_end()?;
        }
        writer.finish()
    }

    #[test]
    fn reads_back_and_is_deterministic() {
        let bytes = written([true, true]).unwrap();
        assert_eq!(bytes, written([true, true]).unwrap());
        let mut archive = Archive::from_tar(Cursor::new(&bytes), "test").unwrap();
        let image = archive.choose(Some("a/b:1")).unwrap().clone();
        for layer in &image.layers {
            io::copy(&mut archive.layer(layer).unwrap(), &mut io::sink()).unwrap();
        }
    }

    #[test]
    fn absent_layers_are_named() {
        let error = Archive::from_tar(Cursor::new(written([false, true]).unwrap()), "test").unwrap_err();
        assert!(matches!(error, ArchiveError::Missing { role, .. } if role == "layer 1 of 2"));
    }

    #[test]
    fn wrong_calls_are_refused() {
        let (id, layer) = (DiffId(sha256(b"l")), |given| LoadLayer { diff_id: DiffId(sha256(b"l")), given });
        let begun = |layers: &[LoadLayer]| {
            let mut writer = LoadArchiveWriter::new(Vec::new());
            writer.config(&ImageId(sha256(b"c")), b"c", layers, &[]).unwrap();
            writer
        };
        assert!(LoadArchiveWriter::new(Vec::new()).config(&ImageId(sha256(b"other")), b"c", &[], &[]).is_err());
        assert!(begun(&[layer(true)]).finish().is_err(), "a layer is missing");
        assert!(begun(&[layer(false)]).layer_start(0, &id, 1).is_err(), "not to be given");
        assert!(begun(&[layer(true); 2]).layer_start(1, &id, 1).is_err(), "the first one is missing");
        let mut writer = begun(&[layer(true)]);
        writer.layer_start(0, &id, 1).unwrap();
        assert!(matches!(writer.layer_end(), Err(LoadArchiveError::Size { expected: 1, actual: 0, .. })));
        assert!(matches!(writer.layer_bytes(b"ll"), Err(LoadArchiveError::Size { expected: 1, actual: 2, .. })));
    }
}
