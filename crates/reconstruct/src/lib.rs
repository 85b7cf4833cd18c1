//! Bundle and old image to new image, bit for bit.
//!
//! In: a bundle whose table of contents is verified, and the [`Sources`](skerry_delta::source::Sources) at hand. Out: the target's
//! configuration and its new layers, streamed in order into an [`ImageSink`].
//!
//! What it promises: the configuration is checked against the image id before the sink sees it, each layer against its diff_id before
//! the sink is told that it ended; a wrong image is impossible. What the table of contents says is compared with
//! the node's limit before anything is read; streams, tables and buffers stay under that limit whatever it says. Beside them a hostile
//! bundle may have what archives and kept contents take, some megabytes, and its signed sizes of disk; a process that applies bundles has a
//! limit of its own (the agent's child 64 MiB).
#![forbid(unsafe_code)]

mod payload;
mod reconstruct;
mod sink;

pub use reconstruct::{Limits, ReconstructError, Reconstructed, reconstruct, reconstruct_told};
pub use sink::{ImageSink, LayerInfo};
