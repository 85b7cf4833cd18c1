//! Power cuts between any two writes, under code that knows nothing of it.
//!
//! Goes in: a folder, and a program's own work on it while a [`Recording`] runs. The C library's calls that change files are taken
//! over ([`hooks`]), passed on to the kernel as they are, and written down. Comes out: a [`Trace`] of steps, from which the folder as
//! a power cut at any step may have left it can be made again and again ([`Trace::after_cut`]), without running the program again.
//!
//! The model of a disk ([`disk`]) is the strict one: what was not synced may be there, or not, or in part, sector by sector; a name
//! is there for certain only once its folder was synced; names change in the order in which they were changed. What was synced stays.
//!
//! A [`Watched`] folder goes the other way round: the model is kept beside the program as it runs, the power goes while it runs, and what
//! the program does from then on reaches no disk any more. It may also be killed, and its disk be full, or give errors.
//!
//! Not seen: memory maps (SQLite's `-shm` is one; it holds nothing that must last) and system calls that go around the C library.

mod disk;
mod hooks;
mod live;
mod trace;

pub use disk::{Chance, Disk};
pub use live::Watched;
pub use trace::{Recording, Step, Trace};
