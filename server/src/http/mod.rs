//! The HTTP side of the server: routes with the role that each takes, limits, errors, the listener.

pub mod auth;
pub mod body;
mod connection;
pub mod error;
pub mod listen;
mod operators;
mod pace;
mod routes;
mod stall;
mod trace;

pub use error::Failure;
pub use routes::{deadline, router};
