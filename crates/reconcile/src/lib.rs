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
//!   runs two versions at once: all containers of the new one are created, then the old ones stop, then the new ones start.
//! - What was switched to keeps running, or runs again after a reboot, until a newer version is ready or a tombstone stops it. That
//!   an allocation is absent from the manifest stops nothing.
//! - No decision uses a wall clock.
#![forbid(unsafe_code)]

mod decision;
mod env;
mod facts;
mod gate;
mod hash;
mod instance;
mod interpolate;
mod making;
mod memory;
mod plan;
mod policy;
mod ports;
mod rebuild;
mod reconcile;
mod restart;
mod slot;
mod supervise;

pub use decision::{Action, ActionKind, AllocView, CheckPlan, CheckRun, Decision, NeededImage, Step};
pub use env::{TaskEnv, task_env};
pub use facts::{CheckId, CheckState, Desired, Failure, Instance, Node, Now, Observed, Order, OrderKind, Slot, State};
pub use instance::{LabelError, Labels, instance_name, label, node_label};
pub use interpolate::interpolate;
pub use memory::{Backoff, Leaving, Memory, Next, Reported, SlotMemory, TaskMemory, Version};
pub use plan::{Bind, BindKind, CommonPlan, ContainerPlan, File, InstancePlan, NetworkPlan, ProcessPlan, PublishedPort};
pub use policy::{Policy, Refusal};
pub use ports::{DYNAMIC_PORTS, NoPortFree, assign_ports};
pub use reconcile::{MIN_HEALTHY_MS, reconcile};
