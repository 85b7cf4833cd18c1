//! Where the bytes of an old content went in the new one, as its runs say.

/// A run of old bytes that became new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub old: u32,
    pub new: u32,
    pub len: u32,
}

/// The runs of a content in the order of their old places, apart by value: a search touches few lines of memory.
#[derive(Debug)]
pub(super) struct Map {
    old: Vec<u32>,
    new: Vec<u32>,
    len: Vec<u32>,
    /// For each stretch of old bytes, two to `shift` of them, how many runs begin before it: a search starts from there.
    first: Vec<u32>,
    shift: u32,
}

/// Bytes of memory of each run in a map.
pub(super) const MEMORY: usize = 12;
/// Stretches of old bytes, as a power of two.
const STRETCHES: u32 = 12;

/// How many runs before a place are looked at for one that covers it.
const BACK: usize = 12;

impl Map {
    /// Orders runs that end before 2^32.
    pub(super) fn new(runs: &[Run]) -> Self {
        let mut order: Vec<u32> = (0..).zip(runs).filter(|(_, run)| run.len > 0).map(|(index, _)| index).collect();
        order.sort_unstable_by_key(|&index| (runs[index as usize].old, index));
        let of = |value: fn(&Run) -> u32| order.iter().map(|&index| value(&runs[index as usize])).collect();
        let old: Vec<u32> = of(|run| run.old);
        let shift = (32 - old.last().map_or(32, |last| last.leading_zeros())).saturating_sub(STRETCHES);
        let mut first = vec![0; (1 << STRETCHES) + 2];
        for start in &old {
            first[(start >> shift) as usize + 1] += 1;
        }
        for i in 1..first.len() {
            first[i] += first[i - 1];
        }
        Self { old, new: of(|run| run.new), len: of(|run| run.len), first, shift }
    }

    fn run(&self, index: usize) -> Run {
        Run { old: self.old[index], new: self.new[index], len: self.len[index] }
    }

    /// The new place of an old byte, and whether a run has it; otherwise it goes with the nearest run.
    pub(super) fn place(&self, old: u32) -> (i64, bool) {
        let stretch = (old >> self.shift) as usize;
        let (low, high) = match self.first.get(stretch..stretch + 2) {
            Some(ends) => (ends[0] as usize, ends[1] as usize),
            None => (self.old.len(), self.old.len()),
        };
        let after = low + self.old[low..high].partition_point(|start| *start <= old);
        let before = after.saturating_sub(BACK)..after;
        let went = |run: Run| i64::from(run.new) + i64::from(old) - i64::from(run.old);
        let covering = before.clone().filter(|&index| old - self.old[index] < self.len[index]).max_by_key(|&index| self.len[index]);
        if let Some(index) = covering {
            return (went(self.run(index)), true);
        }
        let nearest_before = before.map(|index| self.run(index)).min_by_key(|run| old - run.old - run.len);
        let next = (after < self.old.len()).then(|| self.run(after));
        let nearest = match (nearest_before, next) {
            (Some(before), Some(next)) if next.old - old < old - before.old - before.len => Some(next),
            (None, next) => next,
            (before, _) => before,
        };
        (nearest.map_or(i64::from(old), went), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_search_finds_the_last_run_that_begins_before(starts in proptest::collection::vec(0u32..1 << 31, 0..60), scale in 0u32..31, old in any::<u32>()) {
            let runs: Vec<_> = starts.iter().map(|start| Run { old: start >> scale, new: start >> scale, len: 1 }).collect();
            let map = Map::new(&runs);
            // Runs that leave every byte where it was: so does the map, and it knows just their bytes.
            for old in runs.iter().map(|run| run.old).chain([old, old >> scale]) {
                prop_assert_eq!(map.place(old), (i64::from(old), runs.iter().any(|run| run.old == old)));
            }
        }
    }
}
