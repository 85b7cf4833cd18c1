//! What the tests and the demo are made of: network namespaces, private engines (Docker, podman), processes that can be killed at any
//! instant, a probe that notices every missed answer, and images that are built in seconds without a registry.
//!
//! Goes in: a Linux machine, root, installed engines. Comes out: a [`Bed`] with a server's and a node's side, joined by a
//! link that can be cut and slowed.
//!
//! What it promises: every value cleans up after itself when it is dropped, and kills only processes that it started, by their id.
//! What a test run that was itself killed left behind is removed by the next one (the place of its bed, see [`place`]).
//!
//! For tests only: nothing that ships depends on it.

pub mod app;
pub mod bed;
pub mod command;
pub mod disk;
pub mod dns;
pub mod dockerd;
pub mod foreign;
pub mod http;
pub mod image;
pub mod liar;
pub mod memory;
pub mod nat;
pub mod need;
pub mod netns;
pub mod place;
pub mod podman;
pub mod powercut;
pub mod probe;
pub mod process;
pub mod relay;
pub mod second;
pub mod wire;

pub use bed::Bed;
pub use disk::{Card, ReadOnly, SmallDisk};
pub use dns::{Names, Resolver};
pub use dockerd::Dockerd;
pub use foreign::Foreign;
pub use liar::Liar;
pub use nat::Nat;
pub use netns::Netns;
pub use probe::Probe;
pub use process::Process;
pub use relay::Relay;
pub use second::SecondNode;
pub use wire::{Way, Wire};
