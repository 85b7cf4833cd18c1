//! The whole way, on real engines, links and processes: a server, nodes, and what may happen to them.
//!
//! Needs root, Docker and the programs of `make build`. One program for all of them, which is linked once;
//! `cargo test -p skerry-tests --test e2e kill::` runs those of one file.

mod alone;
mod alone_bad_input;
mod alone_changes;
mod alone_reboot;
mod bad_input;
mod card;
mod deploy;
mod engine;
mod files;
mod forgot;
mod full;
mod garbled;
mod keep;
mod kill;
mod network;
mod objects;
mod peak;
mod podman;
mod reconstruct;
mod spool;
mod store;
mod transfer;
mod two_nodes;
