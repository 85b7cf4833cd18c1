//! The longest match of some bytes anywhere in others: a suffix array, and a table of its first two bytes to enter it by.

/// The sorted suffixes of some bytes.
pub(super) struct Suffixes<'a> {
    text: &'a [u8],
    order: Vec<i32>,
    /// Where the suffixes that start with two given bytes begin.
    buckets: Vec<u32>,
}

impl<'a> Suffixes<'a> {
    /// Sorts the suffixes of fewer than 2 GiB: four bytes of memory per byte of text.
    pub(super) fn new(text: &'a [u8]) -> Self {
        let mut order = vec![0; text.len()];
        divsufsort::sort_in_place(text, &mut order);
        let mut buckets = vec![0u32; (1 << 16) + 1];
        for pair in text.windows(2) {
            buckets[(usize::from(pair[0]) << 8 | usize::from(pair[1])) + 1] += 1;
        }
        // The last byte alone sorts before all that start with it.
        if let Some(&last) = text.last() {
            buckets[(usize::from(last) << 8) + 1] += 1;
        }
        for i in 1..buckets.len() {
            buckets[i] += buckets[i - 1];
        }
        Self { text, order, buckets }
    }

    /// Where the longest match of a start of `wanted` is, and its length; length 0 when it is shorter than two bytes.
    pub(super) fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        let [first, second, ..] = wanted else { return (0, 0) };
        let bucket = usize::from(*first) << 8 | usize::from(*second);
        let (mut low, mut high) = (self.buckets[bucket] as usize, self.buckets[bucket + 1] as usize);
        if low == high {
            return (0, 0);
        }
        // The suffixes at the ends of the interval share this many bytes with what is wanted.
        let (mut low_len, mut high_len) = (0, 0);
        let mut best = (0, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.at(middle);
            let suffix = &self.text[at..];
            let known = low_len.min(high_len);
            let len = known + common(&suffix[known..], &wanted[known..]);
            if len > best.1 {
                best = (at, len);
            }
            if len == wanted.len() {
                break;
            }
            if suffix.get(len).is_none_or(|byte| *byte < wanted[len]) {
                (low, low_len) = (middle + 1, len);
            } else {
                (high, high_len) = (middle, len);
            }
        }
        if best.1 < 2 { (0, 0) } else { best }
    }

    fn at(&self, index: usize) -> usize {
        // Positions are never negative.
        self.order[index].unsigned_abs() as usize
    }
}

/// How many bytes two slices have in common at their start.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    let mut len = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let a = u64::from_le_bytes(a.try_into().expect("eight bytes"));
        let b = u64::from_le_bytes(b.try_into().expect("eight bytes"));
        if a != b {
            return len + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    len + a[len.min(a.len())..].iter().zip(&b[len.min(b.len())..]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(text: &[u8], wanted: &[u8]) -> usize {
        (0..text.len()).map(|at| text[at..].iter().zip(wanted).take_while(|(a, b)| a == b).count()).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn finds_the_longest(text in proptest::collection::vec(0u8..4, 0..200), wanted in proptest::collection::vec(0u8..4, 0..40)) {
            let (at, len) = Suffixes::new(&text).longest(&wanted);
            let expected = slow(&text, &wanted);
            prop_assert_eq!(len, if expected < 2 { 0 } else { expected });
            prop_assert_eq!(&text[at..at + len], &wanted[..len]);
        }

        #[test]
        fn counts_in_common(a in proptest::collection::vec(0u8..2, 0..40), b in proptest::collection::vec(0u8..2, 0..40)) {
            prop_assert_eq!(common(&a, &b), a.iter().zip(&b).take_while(|(a, b)| a == b).count());
        }
    }
}
