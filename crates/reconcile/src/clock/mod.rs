//! Runs by the clock: when one is due ([`due`]), and the places that runs have ([`runs`]).

mod due;
mod runs;
