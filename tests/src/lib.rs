//! What the end-to-end tests share: the promised figures, and how a deployment on a bed begins.
//!
//! The tests are in the files beside this folder; each says in its first lines what it needs.

pub mod alone;
pub mod course;
pub mod promise;
pub mod pull;
pub mod stage;
