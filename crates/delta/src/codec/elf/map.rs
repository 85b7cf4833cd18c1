//! Where the bytes of an old content went in the new one, as its runs say.

/// A run of old bytes that became new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub old: u32,
    pub new: u32,
    pub len: u32,
}

/// The runs of a content in the order of their old places.
#[derive(Debug)]
pub(super) struct Map {
    order: Vec<u32>,
}

/// How many runs before a place are looked at for one that covers it.
const BACK: usize = 12;

impl Map {
    /// Orders runs that end before 2^32.
    pub(super) fn new(runs: &[Run]) -> Self {
        let mut order: Vec<u32> = (0..).zip(runs).filter(|(_, run)| run.len > 0).map(|(index, _)| index).collect();
        order.sort_unstable_by_key(|&index| (runs[index as usize].old, index));
        Self { order }
    }

    /// The new place of an old byte, and whether a run has it; otherwise it goes with the nearest run.
    pub(super) fn place(&self, runs: &[Run], old: u32) -> (i64, bool) {
        let run = |&index: &u32| runs[index as usize];
        let after = self.order.partition_point(|index| run(index).old <= old);
        let before = self.order[after.saturating_sub(BACK)..after].iter().map(run);
        let went = |run: Run| i64::from(run.new) + i64::from(old) - i64::from(run.old);
        if let Some(run) = before.clone().filter(|run| old - run.old < run.len).max_by_key(|run| run.len) {
            return (went(run), true);
        }
        let nearest_before = before.min_by_key(|run| old - run.old - run.len);
        let nearest = match (nearest_before, self.order.get(after).map(run)) {
            (Some(before), Some(next)) if next.old - old < old - before.old - before.len => Some(next),
            (None, next) => next,
            (before, _) => before,
        };
        (nearest.map_or(i64::from(old), went), false)
    }
}
