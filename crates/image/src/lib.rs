//! Images as bytes: archives that come in, layers as they are kept, archives that go into an engine.
//!
//! - [`archive`] reads what a publisher has: a `docker save` archive (either layout) or an OCI layout (folder or tar), and says which
//!   images are in it and where each layer's bytes are.
//! - [`config`] is the part of an image configuration that Skerry looks at.
//! - [`frames`] is the form in which layers are uploaded and kept: compressed, readable from the middle.
//! - [`part`] reads a layer's tar where it stands in a file.
//! - [`load`] writes the archive that `docker load` takes, with only the layers that the engine lacks.
//!
//! Everything works over `Read`, `Write` and `Seek`, in memory that does not grow with the image. Nothing here opens a socket or reads
//! a clock. Bytes from outside never cause a panic, and every length in them is checked against a bound before memory is taken for it.
#![forbid(unsafe_code)]

pub mod archive;
pub mod config;
pub mod frames;
mod hash;
pub mod load;
pub mod part;
mod tarhead;

pub use hash::{Sha256, sha256};
