//! Where the new image goes.

use std::io;

use skerry_wire::{DiffId, ImageId};

/// A layer of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its digest.
    pub diff_id: DiffId,
    /// Bytes of its tar when it will be sent to the sink; `None` when the engine has it.
    pub new_size: Option<u64>,
}

/// Takes a new image: once the configuration, then each new layer from start to end.
///
/// An image is complete when `layer_end` was called for the last new layer and the reconstruct returned without an error; anything
/// else must be thrown away.
pub trait ImageSink {
    /// The configuration, already checked against the image id, and all layers, lowest first.
    fn config(&mut self, image_id: &ImageId, bytes: &[u8], layers: &[LayerInfo]) -> io::Result<()>;

    /// The layer with this index begins.
    fn layer_start(&mut self, index: usize, diff_id: &DiffId, size: u64) -> io::Result<()>;

    /// Its next bytes. They are not yet checked.
    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The layer is whole and its digest is right.
    fn layer_end(&mut self) -> io::Result<()>;
}
