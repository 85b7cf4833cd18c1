//! Images: layers come in, releases are checked, files are indexed.

pub mod publish;
pub mod upload;
