//! The planner: jobs, nodes, allocations and images to placements, manifests, bases and deployment sets.
//!
//! In: a [`Fleet`], everything that the store knows. Out: a [`Plan`], the changes to allocations with the reason for every group that
//! could not be placed; from the allocations that follow, [`manifest::content`] lists what each node runs, [`set::rows`] what each
//! deployment set brings where, and [`base::choose`] what each missing image is patched from and costs.
//!
//! [`presence`] judges silence, [`values`] chooses the variables that a node is given.
//!
//! What it promises: it is pure, total and deterministic, whatever the order of its inputs; planning again once a plan was applied
//! changes nothing; nothing is stopped because a node is silent, because the server forgot something, or because a node's facts
//! changed under a version that it runs already. A service moves to another node only where its job or a drain says so, or where it
//! asked for a replacement; the old allocation is stopped once the new one runs, never before.
#![forbid(unsafe_code)]

mod alloc_id;
pub mod base;
mod constraint;
mod feasible;
mod glob;
mod leaving;
pub mod manifest;
mod model;
mod place;
pub mod presence;
mod price;
pub mod set;
mod survivor;
pub mod values;
mod version;

pub use alloc_id::alloc_id;
pub use feasible::{Ruling, architectures, claim};
pub use model::{Alloc, Claim, Drain, Fleet, Image, JobVersion, Node, Order, State};
pub use place::{Plan, Start, Stop, plan};
pub use price::price;
