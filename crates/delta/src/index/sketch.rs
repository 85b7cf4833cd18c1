//! The sketch of a content: the smallest hashes of its pieces, by which two contents are compared without reading them.
//!
//! A content is cut where a rolling hash of its last bytes says so, so pieces that moved are cut alike. Of the pieces' hashes the
//! smallest are kept (*bottom-k*): what both contents have below the lower of their thresholds is a fair sample of both.

/// The shortest piece, in bytes.
const MIN: usize = 12;
/// The longest.
const MAX: usize = 256;
/// A piece ends with a chance of one in so many per byte.
const CUT: u64 = 48;
/// Hashes kept of the longest contents.
pub(super) const MOST: usize = 256;

/// Some of a content's pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sketch {
    /// Hashes, rising.
    pub(super) hashes: Vec<u32>,
    /// Every piece is here.
    pub(super) whole: bool,
}

impl Sketch {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    fn threshold(&self) -> u32 {
        if self.whole { u32::MAX } else { self.hashes.last().copied().unwrap_or(0) }
    }

    /// Of the pieces of this content that can be judged, how many are not in `old`, and how many there are.
    pub(super) fn missing(&self, old: &Self) -> (usize, usize) {
        let threshold = self.threshold().min(old.threshold());
        let mut others = old.hashes.iter().peekable();
        let (mut missing, mut judged) = (0, 0);
        for hash in self.hashes.iter().take_while(|hash| **hash <= threshold) {
            while others.next_if(|other| *other < hash).is_some() {}
            judged += 1;
            missing += usize::from(others.peek() != Some(&hash));
        }
        (missing, judged)
    }
}

/// Makes a sketch of bytes that come in order.
#[derive(Debug)]
pub(super) struct Sketcher {
    kept: Vec<u32>,
    most: usize,
    threshold: u32,
    whole: bool,
    roll: u64,
    hash: u64,
    len: usize,
}

impl Sketcher {
    /// For a content of this size.
    pub(super) fn new(size: u64) -> Self {
        // The root: an index stays small beside its layer, and large contents, which cost most, are judged best.
        let most = usize::try_from(size.isqrt() / 4).unwrap_or(MOST).clamp(16, MOST);
        Self { kept: Vec::with_capacity(2 * most), most, threshold: u32::MAX, whole: true, roll: 0, hash: 0, len: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.roll = (self.roll << 1).wrapping_add(GEAR[usize::from(byte)]);
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            self.len += 1;
            if (self.len >= MIN && (self.roll >> 32).is_multiple_of(CUT)) || self.len == MAX {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        let mixed = (self.hash ^ self.len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [.., a, b, c, d] = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes();
        let hash = u32::from_le_bytes([a, b, c, d]);
        (self.hash, self.len) = (0, 0);
        if hash > self.threshold {
            return;
        }
        self.kept.push(hash);
        if self.kept.len() >= 2 * self.most {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        self.kept.sort_unstable();
        self.kept.dedup();
        if self.kept.len() > self.most {
            self.kept.truncate(self.most);
            self.whole = false;
            self.threshold = self.kept.last().copied().unwrap_or(u32::MAX);
        }
    }

    pub(super) fn finish(mut self) -> Sketch {
        if self.len > 0 {
            self.cut();
        }
        self.shrink();
        self.kept.shrink_to_fit();
        Sketch { hashes: self.kept, whole: self.whole }
    }
}

/// A number that looks random for each byte (splitmix64).
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0u64;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(bytes: &[u8]) -> Sketch {
        let mut whole = Sketcher::new(bytes.len() as u64);
        whole.push(bytes);
        let mut pieces = Sketcher::new(bytes.len() as u64);
        bytes.chunks(77).for_each(|piece| pieces.push(piece));
        let sketch = whole.finish();
        assert_eq!(pieces.finish(), sketch, "the same however the bytes come");
        sketch
    }

    fn noise(len: u64, seed: u64) -> Vec<u8> {
        (0..len)
            .map(|i| {
                (((i + seed * 1_000_003).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i >> 3).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn says_how_much_is_new() {
        for len in [2_000, 50_000, 3_000_000] {
            let old = noise(len, 1);
            let quarter = usize::try_from(len / 4).unwrap();
            // A quarter is new, the rest has moved.
            let new = [&noise(len / 4, 2)[..], &old[..3 * quarter]].concat();
            let (missing, judged) = sketch(&new).missing(&sketch(&old));
            // Three standard deviations of a sample of this size around a quarter.
            let off = 130 / judged.isqrt();
            assert!(judged >= 12 && (missing * 100 / judged).abs_diff(25) <= off, "{len}: {missing} of {judged}");
            assert_eq!(sketch(&old).missing(&sketch(&old)).0, 0);
            let (missing, judged) = sketch(&noise(len, 3)).missing(&sketch(&old));
            assert_eq!(missing, judged);
        }
    }

    #[test]
    fn a_short_content_in_a_long_one() {
        let long = noise(4_000_000, 1);
        let (missing, judged) = sketch(&long[1_000_000..1_400_000]).missing(&sketch(&long));
        assert!(judged > 5 && missing * 10 <= judged, "{missing} of {judged}");
        assert_eq!(sketch(&[]).missing(&sketch(&long)), (0, 0));
        assert!(sketch(&vec![0; 1 << 20]).len() <= 4, "what repeats counts once, but for its start and end");
    }
}
