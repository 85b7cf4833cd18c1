//! The words of the system: every type that crosses a boundary between the operator, the server and a node.
//!
//! What is here: ids, digests, timestamps, the job as it is signed, the messages of every endpoint, and the limits that both
//! sides enforce. Nothing here does I/O, reads a clock or knows a transport.
//!
//! Two encodings of the same types: CBOR inside signed envelopes and on the agent's endpoints ([`cbor`]), JSON on the operator's
//! API. Ids and digests are bytes in CBOR and lower-case hex in JSON.
//!
//! What it promises: decoding is bounded by the limits in [`limits`], never panics, and ignores fields that it does not know, so a
//! newer peer can add fields. A change of a message follows the checklist in `CONTRIBUTING.md`.
#![forbid(unsafe_code)]

pub mod api;
pub mod cbor;
mod digest;
pub mod enrol;
mod id;
pub mod job;
pub mod limits;
pub mod logs;
pub mod manifest;
pub mod node;
pub mod poll;
pub mod release;
mod time;

pub use cbor::Blob;
pub use digest::{DiffId, Digest, DigestError, ImageId};
pub use id::{AllocId, BootId, IdError, LogOrderId, NodeId, SetId, TokenId};
pub use time::{Millis, Timestamp};
