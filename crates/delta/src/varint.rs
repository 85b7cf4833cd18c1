//! Whole numbers in as few bytes as they need: seven bits to a byte, lowest first, the top bit set on all but the last.

use std::io::{self, Read};

/// Appends `value`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends a signed number, small ones of either sign in one byte.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// Reads a number; `InvalidData` when it does not fit 64 bits.
pub(crate) fn get<R: Read + ?Sized>(from: &mut R) -> io::Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        let bits = u64::from(byte[0] & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number is longer than 64 bits"))
}

/// 0, -1, 1, -2, ... as 0, 1, 2, 3, ...
#[expect(clippy::cast_sign_loss, reason = "the bits are folded, none is lost")]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[expect(clippy::cast_possible_wrap, reason = "the bits are unfolded, none is lost")]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(get(&mut &bytes[..]).unwrap(), value);
            assert_eq!(zigzag(unzigzag(value)), value);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(get(&mut &[0xff; 10][..]).is_err());
        assert!(get(&mut &[0x80; 3][..]).is_err());
        assert!(get(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]).is_err());
    }
}
