//! Trust: keys, roles, signed envelopes, and the marks that only go forward.
//!
//! In: bytes from anywhere. Out: a payload with the key that signed it, or an error that says what was wrong. The crate does no I/O
//! and reads no clock; randomness for new keys is passed in.
//!
//! What it promises: a payload comes out only when the signature over the received bytes holds, for the purpose that was asked for,
//! by a key that the trusted root names for the role. Nothing is re-encoded before it is checked. Foreign bytes never panic and cost
//! at most the limit that the caller gives.
#![forbid(unsafe_code)]

pub mod envelope;
mod key;
mod root;
mod slots;
mod time_bound;

pub use envelope::{EnvelopeError, Verified};
pub use key::{KeyError, KeyId, KeyRing, PublicKey, SigningKey};
pub use root::{Role, RoleKeys, Root, RootError, TrustedRoot, sign_root};
pub use slots::{SlotError, decode_slot, encode_slot, newest_slot};
pub use time_bound::TimeBound;
