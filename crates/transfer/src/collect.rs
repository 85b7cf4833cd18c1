//! Which image goes next when the disk fills.
//!
//! In: the images that Skerry brought or pinned, in the order in which they fell out of use; what is in use; the bases of bundles on their
//! way; the disk. Out: one image to remove, or the reason why none goes. After each removal the caller measures the disk and asks again.
//!
//! What it promises: an image that is in use, that is a base of a bundle on its way, or that somebody else tagged is never chosen.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use skerry_wire::{ImageId, Timestamp};

/// So full that images go although a bundle on its way has not said yet which of them it is made from.
const URGENT: u8 = 95;

/// An image with a tag of Skerry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Bytes of its files; those that it shares with other images are counted too.
    pub bytes: u64,
    /// It has tags that are not Skerry's: somebody else wants it.
    pub others: bool,
}

/// An image that fell out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// The image.
    pub image: ImageId,
    /// Since when, by the node's lower bound of time.
    pub since: Timestamp,
}

/// The engine's disk, as an ordinary user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes in use.
    pub used: u64,
    /// Bytes free.
    pub free: u64,
}

impl Disk {
    /// How full it is, in percent, rounded down.
    pub fn percent(&self) -> u8 {
        let total = u128::from(self.used) + u128::from(self.free);
        let percent = (u128::from(self.used) * 100).checked_div(total).unwrap_or(0);
        u8::try_from(percent).unwrap_or(100)
    }
}

/// How full the disk may be, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// From here on images go.
    pub high: u8,
    /// Down to here.
    pub low: u8,
}

impl Default for Marks {
    /// An SD card that is nearly full is slow and wears: it has few free blocks to spread its writes over.
    fn default() -> Self {
        Self { high: 80, low: 70 }
    }
}

/// All that the choice looks at.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What fell out of use, oldest first; see [`note_idle`].
    pub idle: &'a [Idle],
    /// Images with a tag of Skerry.
    pub held: &'a BTreeMap<ImageId, Held>,
    /// Images that must stay: current, last good, wanted.
    pub used: &'a BTreeSet<ImageId>,
    /// Bases of bundles that are on their way, or wait.
    pub bases: &'a BTreeSet<ImageId>,
    /// The bases of a bundle that waits are not known yet.
    pub bases_unknown: bool,
    /// Images that the engine did not let go, in this pass.
    pub stuck: &'a BTreeSet<ImageId>,
    /// The engine's disk.
    pub disk: Disk,
    /// The configured marks.
    pub marks: Marks,
    /// Bytes that must become free for an image that is on its way; 0 when nothing lacks room.
    pub wanted_free: u64,
    /// Images already went in this pass: it goes on to the low mark.
    pub begun: bool,
}

/// What goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Nothing need go.
    Enough,
    /// This one, for this reason.
    Remove {
        /// The image.
        image: ImageId,
        /// Why, for people.
        why: String,
    },
    /// Something should go, and nothing may.
    Nothing {
        /// Why, for people.
        why: String,
    },
}

/// Chooses the next image to go.
pub fn choose(now: &Situation<'_>) -> Choice {
    let percent = now.disk.percent();
    let lacks = now.disk.free < now.wanted_free;
    let full = percent >= now.marks.high || now.begun && percent > now.marks.low;
    let need = if lacks {
        format!("{} must be free for an image on its way, {} are", mib(now.wanted_free), mib(now.disk.free))
    } else if full {
        format!("the disk is {percent} % full, images go from {} % down to {} %", now.marks.high, now.marks.low)
    } else {
        return Choice::Enough;
    };
    let may_go = |image: &ImageId| {
        let ours = now.held.get(image).is_some_and(|held| !held.others);
        ours && !now.used.contains(image) && !now.bases.contains(image) && !now.stuck.contains(image)
    };
    if now.bases_unknown && !lacks && percent < URGENT {
        return Choice::Nothing { why: format!("{need}; waits until the bundle on its way says which images it is made from") };
    }
    match now.idle.iter().find(|idle| may_go(&idle.image)) {
        Some(idle) => Choice::Remove { image: idle.image, why: format!("not in use; {need}") },
        None => Choice::Nothing { why: format!("{need}; no image of Skerry is out of use") },
    }
}

/// Brings the list of idle images up to date: what is in use or gone leaves it, what fell out of use joins at its end. True when it changed.
pub fn note_idle(idle: &mut Vec<Idle>, held: &BTreeMap<ImageId, Held>, used: &BTreeSet<ImageId>, now: Timestamp) -> bool {
    let before = idle.len();
    let mut seen = BTreeSet::new();
    idle.retain(|i| held.contains_key(&i.image) && !used.contains(&i.image) && seen.insert(i.image));
    let mut changed = idle.len() != before;
    for image in held.keys().filter(|i| !used.contains(*i) && !seen.contains(*i)) {
        idle.push(Idle { image: *image, since: now });
        changed = true;
    }
    changed
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
