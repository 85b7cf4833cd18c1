//! Power-safe marks: a value kept in two slots that are written in turn.
//!
//! A slot is `magic (8) | generation u64 LE | length u32 LE | payload | SHA-256 of all before`. The writer puts generation N+1 into the
//! slot that does not hold N and syncs it; whatever a power cut leaves of it, the other slot still holds N.

use skerry_wire::cbor::DecodeError;

const MAGIC: &[u8; 8] = b"SKSLOT\x00\x01";
const HEAD: usize = 8 + 8 + 4;
const SUM: usize = 32;

/// Why a slot has no value.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Torn, garbled or not a slot.
    #[error("the slot is torn or garbled")]
    Garbled,
    /// Whole, but its payload is not the value.
    #[error("the slot's value cannot be read: {0}")]
    Payload(#[from] DecodeError),
}

/// The bytes of a slot.
pub fn encode_slot(generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + payload.len() + SUM);
    out.extend(MAGIC);
    out.extend(generation.to_le_bytes());
    out.extend(u32::try_from(payload.len()).expect("a mark is a few bytes").to_le_bytes());
    out.extend(payload);
    let sum = ring::digest::digest(&ring::digest::SHA256, &out);
    out.extend(sum.as_ref());
    out
}

/// Generation and payload of a slot; bytes after its end are ignored, since a shorter value may follow a longer one in place.
pub fn decode_slot(bytes: &[u8]) -> Result<(u64, &[u8]), SlotError> {
    let head = bytes.get(..HEAD).ok_or(SlotError::Garbled)?;
    let (magic, rest) = head.split_at(8);
    let (generation, length) = rest.split_at(8);
    let length = usize::try_from(u32::from_le_bytes(length.try_into().map_err(|_| SlotError::Garbled)?)).map_err(|_| SlotError::Garbled)?;
    let end = HEAD.checked_add(length).ok_or(SlotError::Garbled)?;
    let sum = end.checked_add(SUM).and_then(|e| bytes.get(end..e)).ok_or(SlotError::Garbled)?;
    if magic != MAGIC || ring::digest::digest(&ring::digest::SHA256, &bytes[..end]).as_ref() != sum {
        return Err(SlotError::Garbled);
    }
    Ok((u64::from_le_bytes(generation.try_into().map_err(|_| SlotError::Garbled)?), &bytes[HEAD..end]))
}

/// Generation and payload of the newer whole slot of the two, and whether it is the second; `None` when neither is whole.
pub fn newest_slot<'a>(a: &'a [u8], b: &'a [u8]) -> Option<(u64, &'a [u8], bool)> {
    match (decode_slot(a), decode_slot(b)) {
        (Ok((ga, pa)), Ok((gb, pb))) => Some(if gb > ga { (gb, pb, true) } else { (ga, pa, false) }),
        (Ok((g, p)), Err(_)) => Some((g, p, false)),
        (Err(_), Ok((g, p))) => Some((g, p, true)),
        (Err(_), Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_whole_slot_wins() {
        let (one, two) = (encode_slot(1, b"one"), encode_slot(2, b"two"));
        assert_eq!(newest_slot(&one, &two), Some((2, &b"two"[..], true)));
        assert_eq!(newest_slot(&two, &one), Some((2, &b"two"[..], false)));
        assert_eq!(newest_slot(&one, b""), Some((1, &b"one"[..], false)));
        assert_eq!(newest_slot(b"", b""), None);
    }

    #[test]
    fn a_slot_cut_or_garbled_anywhere_leaves_the_other() {
        let (one, two) = (encode_slot(1, b"one"), encode_slot(2, b"two"));
        for cut in 0..two.len() {
            assert_eq!(newest_slot(&one, &two[..cut]), Some((1, &b"one"[..], false)), "cut at {cut}");
            let mut garbled = two.clone();
            garbled[cut] ^= 0x40;
            assert_eq!(newest_slot(&one, &garbled), Some((1, &b"one"[..], false)), "garbled at {cut}");
        }
    }

    #[test]
    fn a_shorter_value_over_a_longer_one() {
        let mut file = encode_slot(1, b"a longer value");
        let short = encode_slot(3, b"short");
        file[..short.len()].copy_from_slice(&short);
        assert_eq!(decode_slot(&file).unwrap(), (3, &b"short"[..]));
    }
}
