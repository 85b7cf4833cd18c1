//! Which old layers a patch does without, so that whoever applies it can hold the table of the members of the others.
//!
//! A layer counts as a whole: references are numbers over all of its members. Of a base with hundreds of thousands of members rather one
//! layer comes anew than that no node could apply the patch.

/// What a layer is to a patch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Bytes of new contents that come from it, and what headers like its own save.
    pub saves: u64,
    /// Bytes of its table.
    pub table: u64,
}

/// The places of those that go, in order: those that save least for their table, until the rest has at most `limit` bytes. Empty when all
/// stay.
pub(crate) fn leave_out(uses: &[Use], limit: u64) -> Vec<usize> {
    let all: u64 = uses.iter().map(|used| used.table).sum();
    if all <= limit {
        return Vec::new();
    }
    let mut best: Vec<_> = (0..uses.len()).collect();
    let worth = |place: usize| u128::from(uses[place].saves) * (1 << 32) / u128::from(uses[place].table.max(1));
    best.sort_by_key(|&place| (std::cmp::Reverse(worth(place)), place));
    let mut room = limit;
    let mut stay = Vec::new();
    for place in best {
        if let Some(left) = room.checked_sub(uses[place].table) {
            room = left;
            stay.push(place);
        }
    }
    // A long table that is worth more than all the short ones that keep it out.
    let saved = |places: &[usize]| places.iter().fold(0u64, |sum, &place| sum.saturating_add(uses[place].saves));
    let fitting = (0..uses.len()).filter(|&place| uses[place].table <= limit);
    if let Some(single) = fitting.max_by_key(|&place| (uses[place].saves, std::cmp::Reverse(place)))
        && uses[single].saves > saved(&stay)
    {
        stay = vec![single];
    }
    (0..uses.len()).filter(|place| !stay.contains(place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_saves_least_for_its_table_goes() {
        for (uses, limit, out) in [
            (&[(10, 5), (0, 5)][..], 10, &[][..]),
            (&[(10, 5), (0, 5)], 9, &[1]),
            (&[(100, 9), (90, 3), (80, 3)], 9, &[0]),
            (&[(100, 9), (9, 3), (8, 3)], 9, &[1, 2]),
            (&[(100, 9), (9, 3), (8, 3)], 12, &[2]),
            (&[(100, 9), (12, 1), (1, 1)], 9, &[1, 2]),
            (&[(100, 11)], 10, &[0]),
            (&[(u64::MAX, 1), (0, 0)], 0, &[0]),
        ] {
            let uses: Vec<_> = uses.iter().map(|&(saves, table)| Use { saves, table }).collect();
            assert_eq!(leave_out(&uses, limit), out, "{uses:?} {limit}");
        }
    }
}
