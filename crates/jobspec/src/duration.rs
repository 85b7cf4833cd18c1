//! Durations as Go writes them: `90s`, `1h30m`, `1.5m`, `250ms`; a bare number is nanoseconds.

use skerry_wire::Millis;

/// What is wrong, and what to do about it.
type Wrong = (String, String);

const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration of whole milliseconds.
pub(crate) fn parse(text: &str) -> Result<Millis, Wrong> {
    let help = || "write for example \"30s\", \"1m30s\" or \"250ms\"".to_owned();
    let bad = || (format!("is not a duration: {:?}", text.chars().take(40).collect::<String>()), help());
    if text == "0" {
        return Ok(Millis(0));
    }
    if text.starts_with('-') {
        return Err(("cannot be negative".to_owned(), help()));
    }
    if text.is_empty() || text.len() > 64 {
        return Err(bad());
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let scale = UNITS.iter().find(|(u, _)| *u == unit).map(|(_, n)| u128::from(*n)).ok_or_else(bad)?;
        total = total.saturating_add(scaled(number, scale).ok_or_else(bad)?);
        rest = after;
    }
    whole(total, help)
}

/// `number` times `scale`, to the nanosecond.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || part.contains('.') || whole.len() > 18 {
        return None;
    }
    let read = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let part = &part[..part.len().min(12)];
    let below = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    Some(read(whole)?.checked_mul(scale)? + read(part)?.checked_mul(scale)? / below)
}

/// A bare number of nanoseconds.
pub(crate) fn from_nanos(nanos: Option<u64>) -> Result<Millis, Wrong> {
    let Some(nanos) = nanos else {
        return Err(("as a number is whole nanoseconds from 0".to_owned(), "write text, for example \"30s\"".to_owned()));
    };
    let help = || format!("a bare number is nanoseconds; did you mean \"{nanos}s\"?");
    whole(u128::from(nanos), help)
}

fn whole(nanos: u128, help: impl Fn() -> String) -> Result<Millis, Wrong> {
    if !nanos.is_multiple_of(1_000_000) {
        return Err((format!("of {nanos} ns is not a whole number of milliseconds"), help()));
    }
    u64::try_from(nanos / 1_000_000).map(Millis).map_err(|_| ("is too long".to_owned(), help()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("0", 0), ("0s", 0), ("90s", 90_000), ("1h30m", 5_400_000), ("1.5m", 90_000), ("250ms", 250), ("1s5ms", 1005)] {
            assert_eq!(parse(text), Ok(Millis(ms)), "{text}");
        }
        for text in ["", "s", "1", "-1s", "1d", "1.2.3s", "1ns", "0.1ms", "1 s", ".s", "99999999999999999999h", "1\u{20ac}"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(from_nanos(Some(30_000_000_000)), Ok(Millis(30_000)));
        assert!(from_nanos(Some(30)).unwrap_err().1.contains("\"30s\""));
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for ms in [0, 1, 999, 1000, 61_001, 86_400_000, 3_599_999] {
            assert_eq!(parse(&Millis(ms).to_string()), Ok(Millis(ms)));
        }
    }
}
