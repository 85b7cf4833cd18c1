//! The bundle: one signed file with everything to make one target image from what a node has.
//!
//! A bundle is a short head, a signed table of contents and a payload. Whoever downloads learns from the first bytes how long the
//! table is ([`head`]), verifies it ([`VerifiedToc`]), and then can check every chunk of the payload by itself, in any order, over
//! any number of cuts. [`make`] makes bundles; what is done with them is the matter of `skerry-reconstruct`.
//!
//! What it promises: nothing of a bundle is used before its signature holds; the payload's chunks are checked by digests in the
//! signed table; every length is bounded before memory is taken for it. `docs/formats/bundle.md` is the format.
#![forbid(unsafe_code)]

pub mod head;
pub mod make;
mod toc;

pub use toc::{BASE_LAYERS, LayerPlace, TargetLayer, Toc, TocError, VerifiedToc};

/// What a table of contents is signed for.
pub const PURPOSE: &str = "skerry/bundle/1";
