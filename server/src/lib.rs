//! The server: one process that keeps jobs, manifests and deployment sets in SQLite and images and bundles in a folder, and answers
//! operators and nodes over HTTPS.
//!
//! - [`config`], [`dev`], [`run`], [`descriptors`]: how it starts and stops. [`admin`]: what is done on its machine.
//! - [`http`]: addresses, roles, limits, errors. [`images`]: layers and releases come in.
//! - [`agent_api`]: what agents speak. [`fleet`]: jobs, plans and what operators look at. [`builds`]: bundles are made. [`indexes`]: layers are indexed.
//!   [`background`]: the threads for both.
//! - [`store`]: the database, the only place with SQL. [`objects`]: the folder.
//! - [`housekeeping`]: what is done by the clock. [`metrics`]: what is counted. `unpack`: what nodes send packed.
//!
//! What it promises: whatever it acknowledged is on the disk; killed at any instant it starts again with nothing acknowledged lost.
//! Every request has a limit in bytes and in time; memory does not grow with images.
#![forbid(unsafe_code)]

pub mod admin;
pub mod agent_api;
pub mod app;
pub mod background;
pub mod builds;
pub mod checked;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod dev;
pub mod director;
pub mod fleet;
pub mod housekeeping;
pub mod http;
pub mod images;
pub mod indexes;
pub mod metrics;
pub mod objects;
pub mod run;
pub mod secret;
pub mod store;
pub mod tls;
mod unpack;
