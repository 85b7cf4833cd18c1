//! (to be written)
pub mod source;
