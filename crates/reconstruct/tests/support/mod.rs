//! What several test programs of this crate need.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use skerry_bundle::{PURPOSE, head};
use skerry_trust::{KeyRing, SigningKey, envelope};

/// The bundle with a table of contents that tells another need of memory, signed again. Both in bytes; the table must not be compressed.
pub(crate) fn telling_memory(bundle: &[u8], key: &SigningKey, told: u64, instead: u64) -> Vec<u8> {
    let range = head::toc_range(bundle).unwrap();
    let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
    let mut payload = envelope::verify(&bundle[start..end], PURPOSE, &KeyRing::from(key.public()), 1 << 20).unwrap().payload;
    assert_eq!(payload[0], 0, "not compressed");
    let number = |bytes: u64| {
        let [high, low] = u16::try_from(bytes.div_ceil(1024)).unwrap().to_be_bytes();
        [0x19, high, low]
    };
    let places: Vec<_> = payload.windows(3).enumerate().filter(|(_, bytes)| **bytes == number(told)).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 1);
    payload[places[0]..places[0] + 3].copy_from_slice(&number(instead));
    // Both numbers have two bytes, and so the envelope its length.
    [&bundle[..start], &envelope::sign(key, PURPOSE, &payload), &bundle[end..]].concat()
}
