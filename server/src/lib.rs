//! The server.
#![forbid(unsafe_code)]
pub mod secret;
pub mod store;
