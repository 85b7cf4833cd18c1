//! Spans and sizes as people write them in a configuration: `90s`, `1h30m`, `64MiB`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use skerry_wire::Millis;

/// A span of time: `250ms`, `90s`, `5m`, `1h30m`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Millis);

impl Span {
    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Millis::from_secs(secs))
    }

    /// For timers.
    pub const fn duration(self) -> Duration {
        self.0.duration()
    }

    fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut total) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = match &rest[..end] {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            rest = &rest[end..];
            total = total.checked_add(number.checked_mul(unit)?)?;
        }
        (!text.is_empty()).then_some(Self(Millis(total)))
    }
}

/// A number of bytes: `512`, `64KiB`, `10MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units of [`Size`], largest first.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (digits, factor) = unit.map_or((text, 1), |(name, factor)| (&text[..text.len() - name.len()], *factor));
        digits.trim().parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a span of time: write for example \"90s\" or \"1h30m\"")))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is not a size: write for example \"64KiB\" or \"1GiB\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, ms) in [("250ms", 250), ("90s", 90_000), ("1h30m", 5_400_000), ("30d", 2_592_000_000), ("0s", 0)] {
            assert_eq!(Span::parse(text), Some(Span(Millis(ms))), "{text}");
        }
        for text in ["", "5", "s", "5x", "1h30", "-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64KiB", 65_536), ("1 GiB", 1 << 30)] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "KiB", "1.5GiB", "1GB", "-1", "99999999TiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        assert_eq!(Size(65_536).to_string(), "64KiB");
        assert_eq!(Size(1000).to_string(), "1000");
    }
}
