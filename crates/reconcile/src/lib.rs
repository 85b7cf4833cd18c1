//! The agent's reconciler: what a node should do next, and why.
//!
//! In: what is wanted ([`Desired`]), what is there ([`Observed`]), what was decided before ([`Memory`]) and the time since boot
//! ([`Now`]). Out: a [`Decision`]: actions in order, the new memory, when to look again, what to report, which images are needed.
//!
//! What it promises: [`reconcile`] is pure, total and deterministic; when its actions are done and nothing else changed it asks for
//! no more. The caller keeps the decision's memory on disk *before* it acts. Every action may be repeated. What failed comes back as
//! a [`Failure`] in the next observation.
//!
//! - A group switches to a newer version only when every image that the job's new version needs on this node is there, and never
//!   runs two versions at once: all instances of the new one are created, then the old ones stop, then the new ones start.
//! - What was switched to keeps running, or runs again after a reboot, until a newer version is ready or a tombstone stops it. That
//!   an allocation is absent from the manifest stops nothing.
//! - A version that is not healthy in time is left for the last good one, and not tried again by itself.
//! - No decision to accept, switch or revert uses a wall clock; only runs by the clock look at it, and say what they do without.
//!
//! The way of a decision: [`facts`] go in; what the manifest wants passes the gate ([`want`]); each place approaches it, switches, and
//! clears away what left ([`place`]); the current version lives ([`life`]), by the clock if it says so ([`clock`]); what instances are made
//! of comes from [`make`]; [`memory`] is what is kept; a [`decision`] comes out.
#![forbid(unsafe_code)]

mod clock;
mod decide;
mod decision;
mod facts;
mod hash;
mod life;
mod make;
mod memory;
mod place;
mod want;

pub use decide::reconcile;
pub use decision::{Action, ActionKind, AllocView, CheckPlan, CheckRun, Decision, NeededImage, Step};
pub use facts::{
    CheckId, CheckState, Closed, Desired, Failure, Instance, Node, Now, Observed, Order, OrderKind, Policy, Refusal, Slot, State,
};
pub use make::{
    Bind, BindKind, CommonPlan, ContainerPlan, DYNAMIC_PORTS, File, InstancePlan, LabelError, Labels, NetworkPlan, NoPortFree, ProcessPlan,
    PublishedPort, TaskEnv, assign_ports, instance_name, interpolate, label, node_label, task_env,
};
pub use memory::{
    Again, Backoff, DECISIONS, End, Leaving, Life, LockMemory, Memory, Next, OVER, Over, Reported, ScheduleMemory, SlotMemory, TaskMemory,
    Told, Version,
};
