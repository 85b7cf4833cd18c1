//! Each rule by itself, on a node with one job.

mod bed;
mod blind;
mod clock;
mod ends;
mod gate;
mod handover;
mod life;
mod making;
mod plans;
mod ports;
mod switch;
