//! Each rule by itself, on a node with one job.

mod bed;
mod clock;
mod life;
mod making;
mod plans;
mod switch;
