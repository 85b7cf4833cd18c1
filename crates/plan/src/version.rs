//! Versions and conditions on them: `>= 1.2, < 2`, `~> 3.1`.

use std::cmp::Ordering;

/// Numbers, then what follows `-`. A version without a suffix is above the same one with a suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    numbers: Vec<u64>,
    suffix: Vec<Part>,
}

/// A dotted part of a suffix; numbers are below words, as in semantic versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(before, _)| before);
        let (numbers, suffix) = text.split_once('-').map_or((text, None), |(n, s)| (n, Some(s)));
        let numbers = numbers.split('.').map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let part = |p: &str| p.parse().map_or_else(|_| Part::Word(p.to_owned()), Part::Number);
        Some(Self { numbers, suffix: suffix.map(|s| s.split('.').map(part).collect()).unwrap_or_default() })
    }

    fn number(&self, at: usize) -> u64 {
        self.numbers.get(at).copied().unwrap_or(0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let longest = self.numbers.len().max(other.numbers.len());
        let numbers = (0..longest).map(|i| self.number(i).cmp(&other.number(i))).find(|o| o.is_ne());
        numbers.unwrap_or_else(|| match (self.suffix.is_empty(), other.suffix.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.suffix.cmp(&other.suffix),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Does the version meet every part of the condition? `None` when the condition itself cannot be read.
pub(crate) fn meets(version: &str, condition: &str) -> Option<bool> {
    let conditions = condition.split(',').map(parse_condition).collect::<Option<Vec<_>>>()?;
    let Some(version) = Version::parse(version) else { return Some(false) };
    Some(conditions.iter().all(|(operator, wanted)| {
        let order = version.cmp(wanted);
        match *operator {
            "!=" => order.is_ne(),
            ">=" => order.is_ge(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            "<" => order.is_lt(),
            "~>" => order.is_ge() && same_but_last(&version, wanted),
            _ => order.is_eq(),
        }
    }))
}

fn parse_condition(text: &str) -> Option<(&'static str, Version)> {
    let text = text.trim();
    let operator = ["!=", ">=", "<=", "~>", ">", "<", "="].into_iter().find(|o| text.starts_with(o));
    Some((operator.unwrap_or("="), Version::parse(&text[operator.map_or(0, str::len)..])?))
}

/// `~> 1.2.3` lets the last written number rise and nothing before it.
fn same_but_last(version: &Version, wanted: &Version) -> bool {
    let fixed = wanted.numbers.len().saturating_sub(1).max(1);
    (0..fixed).all(|i| version.number(i) == wanted.number(i))
}

#[cfg(test)]
mod tests {
    use super::meets;

    #[test]
    fn table() {
        for (version, condition, expected) in [
            ("1.2.3", ">= 1.2, < 2", Some(true)),
            ("2.0.0", ">= 1.2, < 2", Some(false)),
            ("v1.2", "1.2.0", Some(true)),
            ("1.2.3-beta.2", "< 1.2.3", Some(true)),
            ("1.2.3-beta.10", "> 1.2.3-beta.9", Some(true)),
            ("1.2.3+build7", "= 1.2.3", Some(true)),
            ("20.10.24", "!= 20.10.24", Some(false)),
            ("1.9", "~> 1.2", Some(true)),
            ("2.0", "~> 1.2", Some(false)),
            ("1.2.9", "~> 1.2.3", Some(true)),
            ("1.3.0", "~> 1.2.3", Some(false)),
            ("not a version", ">= 1", Some(false)),
            ("1.0", ">= one", None),
            ("1.0", "", None),
        ] {
            assert_eq!(meets(version, condition), expected, "{version} {condition}");
        }
    }
}
