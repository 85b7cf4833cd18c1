//! The rules of what a node fetches when, and which images it keeps.
//!
//! In: what is configured, what is there, what was spent, and the time. Out: may this bundle be fetched now, how many bytes of it, or what
//! does it wait for and until when ([`admit`]); may a newer version be switched to now ([`Windows`]); which image goes next when the disk
//! fills ([`choose`]).
//!
//! What it promises: pure and total; no clock, no disk, no network. An image that is in use is never chosen to go. What a month may
//! take is never exceeded by what is admitted, and a full bundle never takes the place of a failed patch without leave.
#![forbid(unsafe_code)]

mod admit;
mod budget;
mod collect;
mod pace;
mod window;

pub use admit::{Admission, Candidate, Rules, Wait, admit};
pub use budget::{Budget, BudgetError, Spent, utc};
pub use collect::{Choice, Disk, Held, Idle, Marks, Situation, choose, note_idle};
pub use pace::Pace;
pub use window::{Opening, UnknownTime, WindowError, Windows};
