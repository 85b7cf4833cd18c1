//! Tables and properties of what goes when the disk fills.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skerry_transfer::{Choice, Disk, Held, Idle, Marks, Situation, choose, note_idle};
use skerry_wire::{Digest, ImageId, Timestamp};

fn image(n: u8) -> ImageId {
    ImageId(Digest::new([n; 32]))
}

fn set(all: &[u8]) -> BTreeSet<ImageId> {
    all.iter().map(|n| image(*n)).collect()
}

/// A node with images 1 to 5, of which 5 has a tag of somebody else; oldest unused first: 3, 1, 2, 5, 4.
struct Node {
    idle: Vec<Idle>,
    held: BTreeMap<ImageId, Held>,
    used: BTreeSet<ImageId>,
    bases: BTreeSet<ImageId>,
    stuck: BTreeSet<ImageId>,
    bases_unknown: bool,
    percent: u64,
    wanted_free: u64,
    begun: bool,
}

fn node() -> Node {
    Node {
        idle: [3, 1, 2, 5, 4].map(|n| Idle { image: image(n), since: Timestamp(i64::from(n)) }).to_vec(),
        held: (1..=5).map(|n| (image(n), Held { bytes: 10, others: n == 5 })).collect(),
        used: BTreeSet::new(),
        bases: BTreeSet::new(),
        stuck: BTreeSet::new(),
        bases_unknown: false,
        percent: 85,
        wanted_free: 0,
        begun: false,
    }
}

impl Node {
    fn choose(&self) -> Choice {
        choose(&Situation {
            idle: &self.idle,
            held: &self.held,
            used: &self.used,
            bases: &self.bases,
            bases_unknown: self.bases_unknown,
            stuck: &self.stuck,
            disk: Disk { used: self.percent << 20, free: (100 - self.percent) << 20 },
            marks: Marks::default(),
            wanted_free: self.wanted_free,
            begun: self.begun,
        })
    }

    fn goes(&self) -> Option<ImageId> {
        match self.choose() {
            Choice::Remove { image, .. } => Some(image),
            Choice::Enough | Choice::Nothing { .. } => None,
        }
    }
}

#[test]
fn what_goes() {
    type Change = fn(&mut Node);
    let cases: [(&str, Change, Option<u8>); 14] = [
        ("the oldest", |_| {}, Some(3)),
        ("the disk has room", |n| n.percent = 79, None),
        ("at the high mark", |n| n.percent = 80, Some(3)),
        ("once begun, down to the low mark", |n| (n.percent, n.begun) = (71, true), Some(3)),
        ("and no further", |n| (n.percent, n.begun) = (70, true), None),
        ("what is in use stays", |n| n.used = set(&[3, 1]), Some(2)),
        ("bases stay", |n| n.bases = set(&[3]), Some(1)),
        ("what the engine holds on to is passed over", |n| n.stuck = set(&[3, 1]), Some(2)),
        ("what somebody else tagged stays", |n| n.used = set(&[1, 2, 3]), Some(4)),
        ("nothing is left", |n| n.used = set(&[1, 2, 3, 4]), None),
        ("unknown bases hold everything", |n| n.bases_unknown = true, None),
        ("until it is urgent", |n| (n.bases_unknown, n.percent) = (true, 95), Some(3)),
        ("an image on its way lacks room", |n| (n.percent, n.wanted_free) = (50, 51 << 20), Some(3)),
        ("an image on its way has room", |n| (n.percent, n.wanted_free) = (50, 50 << 20), None),
    ];
    for (name, change, expected) in cases {
        let mut node = node();
        change(&mut node);
        assert_eq!(node.goes(), expected.map(image), "{name}: {:?}", node.choose());
    }
}

#[test]
fn reasons_are_for_people() {
    let Choice::Remove { why, .. } = node().choose() else { panic!() };
    assert_eq!(why, "not in use; the disk is 85 % full, images go from 80 % down to 70 %");
    let Choice::Nothing { why } = (Node { used: set(&[1, 2, 3, 4]), wanted_free: 99 << 20, ..node() }).choose() else { panic!() };
    assert_eq!(why, "99 MiB must be free for an image on its way, 15 MiB are; no image of Skerry is out of use");
    assert_eq!(Disk { used: 0, free: 0 }.percent(), 0);
    assert_eq!(Disk { used: u64::MAX, free: 0 }.percent(), 100);
}

#[test]
fn images_fall_out_of_use_in_order() {
    let held = |all: &[u8]| all.iter().map(|n| (image(*n), Held { bytes: 1, others: false })).collect::<BTreeMap<_, _>>();
    let mut idle = Vec::new();
    let now = Timestamp;
    assert!(!note_idle(&mut idle, &held(&[1, 2]), &set(&[1, 2]), now(1)));
    assert!(note_idle(&mut idle, &held(&[1, 2, 3]), &set(&[1, 3]), now(2)));
    assert!(note_idle(&mut idle, &held(&[1, 2, 3]), &set(&[3]), now(3)));
    assert!(!note_idle(&mut idle, &held(&[1, 2, 3]), &set(&[3]), now(4)));
    assert_eq!(idle.iter().map(|i| (i.image, i.since.0)).collect::<Vec<_>>(), [(image(2), 2), (image(1), 3)]);
    // In use again, and out of it again: it joins at the end.
    note_idle(&mut idle, &held(&[1, 2, 3]), &set(&[2]), now(5));
    note_idle(&mut idle, &held(&[1, 2, 3]), &set(&[]), now(6));
    assert_eq!(idle.iter().map(|i| i.image).collect::<Vec<_>>(), [image(1), image(3), image(2)]);
    // Gone from the engine, gone from the list; garbled doubles too.
    idle.push(idle[0]);
    assert!(note_idle(&mut idle, &held(&[1, 3]), &set(&[]), now(7)));
    assert_eq!(idle.iter().map(|i| i.image).collect::<Vec<_>>(), [image(1), image(3)]);
}

proptest! {
    /// Removing for as long as something is chosen: what is in use, a base, or somebody else's is there at the end, the order is kept, and
    /// at the end either the disk has room or nothing that may go is left.
    #[test]
    fn the_last_good_is_never_collected(
        others in prop::collection::btree_set(0u8..20, 0..5), used in prop::collection::btree_set(0u8..20, 0..10),
        bases in prop::collection::btree_set(0u8..20, 0..5), order in Just((0u8..20).collect::<Vec<_>>()).prop_shuffle(),
        high in 1u8..=100, low in 0u8..=100, start in 0u64..=100, wanted in 0u64..120, unknown in any::<bool>(),
    ) {
        let marks = Marks { high, low: low.min(high) };
        let ids = |all: &BTreeSet<u8>| all.iter().map(|n| image(*n)).collect::<BTreeSet<_>>();
        let mut held: BTreeMap<_, _> = (0..20).map(|n| (image(n), Held { bytes: 1, others: others.contains(&n) })).collect();
        let mut idle: Vec<Idle> = order.iter().map(|n| Idle { image: image(*n), since: Timestamp(0) }).collect();
        let (used, bases, stuck) = (ids(&used), ids(&bases), BTreeSet::new());
        let (mut disk, mut begun, mut gone) = (Disk { used: start, free: 100 - start }, false, vec![]);
        let last = loop {
            note_idle(&mut idle, &held, &used, Timestamp(1));
            let now = Situation { idle: &idle, held: &held, used: &used, bases: &bases, bases_unknown: unknown, stuck: &stuck, disk, marks,
                wanted_free: wanted, begun };
            match choose(&now) {
                Choice::Remove { image, .. } => {
                    prop_assert!(!used.contains(&image) && !bases.contains(&image) && !held[&image].others);
                    held.remove(&image);
                    gone.push(image);
                    let freed = disk.used.min(4);
                    disk = Disk { used: disk.used - freed, free: disk.free + freed };
                    begun = true;
                }
                other => break other,
            }
            prop_assert!(gone.len() <= 20);
        };
        let places: Vec<_> = gone.iter().map(|g| order.iter().position(|n| image(*n) == *g).unwrap()).collect();
        prop_assert!(places.is_sorted());
        for kept in used.iter().chain(&bases) {
            prop_assert!(held.contains_key(kept));
        }
        let left = held.iter().any(|(i, h)| !h.others && !used.contains(i) && !bases.contains(i));
        match last {
            Choice::Enough => prop_assert!(disk.free >= wanted && (disk.percent() < high || begun && disk.percent() <= marks.low)),
            Choice::Nothing { .. } => prop_assert!(!left || unknown),
            Choice::Remove { .. } => unreachable!(),
        }
    }
}
