//! A small stable hash, for choices that must differ between allocations and be the same at every run: jitter, the first port tried.
//! Not for anything that an attacker may choose.

/// FNV-1a over the parts, each followed by a separator, with a final mix so that low bits are usable.
pub(crate) fn stable(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
