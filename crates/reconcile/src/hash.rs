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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fixed values: ports that were chosen, names of instances and ids of runs must be the same after an update of the agent.
    #[test]
    fn the_same_for_ever() {
        let rows: [(&[&[u8]], u64); 4] = [
            (&[], 0xecba_3df2_c338_3c52),
            (&[b"a"], 0x5667_8dc8_7994_7c86),
            (&[b"till", b"web"], 0x7319_f292_6048_53cb),
            (&[b"tillw", b"eb"], 0xfa73_f7bb_7508_f17d),
        ];
        for (parts, expected) in rows {
            assert_eq!(stable(parts), expected, "{parts:?}");
        }
    }
}
