//! Whole lives of a fleet, in virtual time, the same for the same seed: see docs/simulation.md.
//!
//! - [`play`] lives one life; [`Outcome`] is what came of it. [`idle`] lives hours in which nothing happens.
//! - `node`, `host`, `engine`, `link`: a machine and what is on it. `server`: the server. `library`, `jobs`, `keys`: what they work with.
//! - `book`, `check`: what is true, and what must hold. `fault`, `tamper`, `life`: what happens.

mod book;
mod check;
mod clocks;
mod engine;
mod fault;
mod host;
mod jobs;
mod keys;
mod library;
mod life;
mod link;
mod node;
mod server;
mod tamper;

pub use clocks::{Clocks, other_clocks};
pub use life::idle::{Idle, idle};
pub use life::{Outcome, Rules, play};

/// Names of all faults.
pub fn faults() -> Vec<String> {
    fault::Event::ALL.iter().filter(|(e, _)| e.is_fault()).map(|(e, _)| format!("{e:?}")).collect()
}
