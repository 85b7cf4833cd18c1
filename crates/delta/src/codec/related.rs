//! Have two contents anything in common that a difference could use?
//!
//! In: both. Out: no, when no run of [`SPAN`] bytes is in both, as far as a sample of all runs tells. The sample is chosen by what is in the
//! runs, so the same ones are looked at on both sides wherever they are: of every [`EVERY`] runs in common one is found, about. It costs a pass
//! over both, where finding out by suffixes costs a search for every byte.

/// Bytes of a run.
const SPAN: usize = 16;
/// One run of so many is looked at.
const EVERY: u32 = 16;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Is there a run that both have?
pub(crate) fn related(old: &[u8], new: &[u8]) -> bool {
    let mut known = Vec::with_capacity(old.len() / EVERY as usize);
    sample(old, &mut |hash| {
        // A run that repeats itself is known once.
        if known.last() != Some(&hash) {
            known.push(hash);
        }
        false
    });
    known.sort_unstable();
    known.dedup();
    sample(new, &mut |hash| known.binary_search(&hash).is_ok())
}

/// Gives the hashes of the runs that are looked at, until one is taken; was one?
fn sample(bytes: &[u8], take: &mut impl FnMut(u64) -> bool) -> bool {
    let oldest = (1..SPAN).fold(FACTOR, |power, _| power.wrapping_mul(FACTOR));
    let mut hash = 0u64;
    for (at, &byte) in bytes.iter().enumerate() {
        // A polynomial over the run: the newest byte has the factor once.
        hash = hash.wrapping_add(u64::from(byte) + 1).wrapping_mul(FACTOR);
        if at >= SPAN {
            hash = hash.wrapping_sub((u64::from(bytes[at - SPAN]) + 1).wrapping_mul(oldest).wrapping_mul(FACTOR));
        }
        // The low bits know only the low bits of the bytes: the high ones of a product choose.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(FACTOR);
        if at + 1 >= SPAN && mixed >> (64 - EVERY.ilog2()) == 0 && take(hash) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn what_is_in_both_is_found_wherever_it_is() {
        let (old, new) = (noise(1, 200_000), noise(2, 200_000));
        assert!(!related(&old, &new));
        assert!(related(&old, &old) && !related(&old, &[]) && !related(&[], &new));
        for (from, to, len) in [(0, 150_001, 400), (77_777, 3, 400), (199_000, 199_600, 400)] {
            let mut shared = new.clone();
            shared[to..to + len].copy_from_slice(&old[from..from + len]);
            assert!(related(&old, &shared), "{from} {to}");
        }
    }

    /// The sum over a run is that of the run alone, whatever came before.
    #[test]
    fn a_hash_knows_its_run_alone() {
        let mut hashes = Vec::new();
        let run = noise(3, 64);
        for before in [noise(4, 5), noise(5, 1000), Vec::new()] {
            let mut found = Vec::new();
            sample(&[&before[..], &run].concat(), &mut |hash| {
                found.push(hash);
                false
            });
            let mut own = Vec::new();
            sample(&run, &mut |hash| {
                own.push(hash);
                false
            });
            assert!(found.ends_with(&own), "{found:x?} {own:x?}");
            hashes.push(own);
        }
        assert!(!hashes[0].is_empty());
    }
}
