//! The benchmarks: bundles beside what other tools make of the same images ([`delta`]), and the ranking of bases beside real bundles
//! ([`rank`]).
//!
//! In: the archives of the workload builder. Out: pages and a plot under `docs/bench`. Making, applying and indexing are a program of
//! their own (`skerry_pair`), so that each is measured as a process, and what it gave stays valid while only pages or predictions change.
//! `make bench-delta` and `make bench-rank` run it.

pub mod delta;
pub mod engine;
pub mod image;
pub mod measure;
pub mod page;
pub mod pairs;
pub mod peers;
pub mod plot;
pub mod rank;
pub mod results;
pub mod rows;
