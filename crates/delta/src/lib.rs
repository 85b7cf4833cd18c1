//! Old bytes and new bytes to a patch, and back.
//!
//! In: the layers of a target image and the layers at hand, each a [`source::LayerSource`]. [`make::make`] gives a patch: the streams
//! of [`stream`]. [`apply::Applier`] takes the same old layers and the streams, and gives the new layers as bytes in order.
//!
//! The way of a layer: [`tar`] parses it into members, whose headers are values, and raw bytes; [`matching`] finds for each member
//! the old ones that it comes from; [`codec`] has the ways to carry a changed content, of which the smallest is kept; [`predict`]
//! says what both sides expect of a header, so that only what differs is carried; [`stream`] keeps what belongs together together
//! and codes it.
//!
//! What it promises: what is not understood is carried as bytes, never refused and never wrong. Applying is streaming, in memory
//! that is known before it starts. Foreign bytes never panic and never cost more than the limits; that the result is right is for
//! the caller to check by its digests, for a patch that is made and one that is applied alike.
#![forbid(unsafe_code)]

pub mod apply;
pub mod archive;
pub mod codec;
mod config;
mod content;
mod hashed;
pub mod index;
mod kept;
mod large;
mod leave_out;
pub mod make;
mod matching;
mod old;
mod predict;
mod progress;
mod repeats;
pub mod source;
pub mod stream;
pub mod tar;
mod tar_layer;
mod varint;

pub use progress::{Progress, Silent};
pub use tar_layer::TarLayer;
