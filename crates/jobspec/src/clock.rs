//! Cron expressions and time zones of periodic jobs, as far as they can be judged without a clock.
//!
//! In: an expression, or the name of a zone. Out: what is wrong with it and what to do. [`bad_cron`] and [`bad_zone`] are the only
//! places that say which expressions and zones there are.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use skerry_cron::Schedule;

/// What is wrong, and what to do about it.
type Finding = Option<(String, String)>;

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// The longest month of each, February in a leap year.
const DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
/// The longest step.
const LONGEST_STEP: u8 = 127;
/// The longest expression, bytes.
const LONGEST: usize = 256;

/// Shorthands, and what they mean.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// One place of an expression.
#[derive(Debug)]
struct Field {
    what: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const SECOND: Field = Field { what: "second", least: 0, most: 59, names: &[] };
const FIELDS: [Field; 5] = [
    Field { what: "minute", least: 0, most: 59, names: &[] },
    Field { what: "hour", least: 0, most: 23, names: &[] },
    Field { what: "day", least: 1, most: 31, names: &[] },
    Field { what: "month", least: 1, most: 12, names: &MONTHS },
    // 7 is Sunday too.
    Field { what: "weekday", least: 0, most: 7, names: &WEEKDAYS },
];

/// What is wrong with a cron expression.
pub(crate) fn bad_cron(text: &str) -> Finding {
    let form = || "write five fields: minute hour day month weekday, for example \"30 3 * * *\"".to_owned();
    if text.len() > LONGEST {
        return Some((format!("a cron expression of {} bytes is longer than {LONGEST}", text.len()), form()));
    }
    let whole = text.trim();
    if whole.starts_with('@') {
        let known = SHORTHANDS.iter().any(|(name, _)| *name == whole);
        let names = || SHORTHANDS.map(|(name, _)| name).join(", ");
        return (!known).then(|| (format!("there is no shorthand {whole:?}"), format!("there are: {}", names())));
    }
    let words: Vec<&str> = whole.split_ascii_whitespace().collect();
    let fields: Vec<&Field> = match words.len() {
        5 => FIELDS.iter().collect(),
        6 => std::iter::once(&SECOND).chain(&FIELDS).collect(),
        n => return Some((format!("{text:?} has {n} fields, not five or six"), form())),
    };
    for (field, word) in fields.iter().zip(&words) {
        if let Err(message) = values(field, word) {
            let year = words.len() == 6 && field.what == "weekday" && word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit());
            let help = if year { "six fields start with the second; there is no field for the year".to_owned() } else { form() };
            return Some((format!("{text:?}: {message}"), help));
        }
    }
    // A weekday beside a day means either of them, so only a free weekday lets a day be impossible.
    let at = |i: usize| words.get(words.len() - i).copied().unwrap_or("*");
    let (day, month, weekday) = (at(3), at(2), at(1));
    let comes = || {
        let (days, months) = (values(&FIELDS[2], day).ok()?, values(&FIELDS[3], month).ok()?);
        let first = *days.first()?;
        Some(months.iter().any(|m| DAYS.get(usize::from(*m) - 1).is_some_and(|last| first <= *last)))
    };
    if weekday.starts_with(['*', '?']) && comes() == Some(false) {
        return Some((format!("{text:?} never comes: no such month has day {day}"), "choose a day that there is".to_owned()));
    }
    // The last word is the node's own.
    Schedule::parse(&[text.to_owned()], "UTC").err().map(|error| (error.to_string(), form()))
}

/// The numbers that one place of an expression stands for; never none.
fn values(field: &Field, text: &str) -> Result<BTreeSet<u8>, String> {
    let mut out = BTreeSet::new();
    for part in text.split(',') {
        // The last day of the month, which every month has.
        if field.what == "day" && part.eq_ignore_ascii_case("L") {
            out.insert(field.least);
            continue;
        }
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<u8>().ok().filter(|s| (1..=LONGEST_STEP).contains(s));
                (range, Some(step.ok_or_else(|| format!("{} {part:?} has no step from 1 to {LONGEST_STEP}", field.what))?))
            }
            None => (part, None),
        };
        let (first, last) = if range == "*" || range == "?" {
            (field.least, field.most)
        } else if let Some((first, last)) = range.split_once('-') {
            (value(field, first)?, value(field, last)?)
        } else {
            let first = value(field, range)?;
            // `5/10` is from 5 to the end.
            (first, if step.is_some() { field.most } else { first })
        };
        if first > last {
            return Err(format!("{} {range:?} goes backwards", field.what));
        }
        out.extend((first..=last).step_by(step.unwrap_or(1).into()));
    }
    Ok(out)
}

fn value(field: &Field, text: &str) -> Result<u8, String> {
    let named = field.names.iter().position(|n| n.eq_ignore_ascii_case(text));
    let number = match named {
        Some(i) => u8::try_from(i).ok().map(|i| i + field.least),
        None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        None => None,
    };
    let bad = || format!("{} {text:?} is not from {} to {}", field.what, field.least, field.most);
    number.filter(|n| (field.least..=field.most).contains(n)).ok_or_else(bad)
}

/// Names of the IANA time zone database, version 2025b, links included; sorted by bytes.
static ZONES: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("zones.txt").lines().collect());

/// What is wrong with the name of a time zone.
pub(crate) fn bad_zone(name: &str) -> Finding {
    if ZONES.binary_search(&name).is_ok() {
        return None;
    }
    let shown: String = name.chars().take(64).collect();
    let same = ZONES.iter().find(|z| z.eq_ignore_ascii_case(name) || z.rsplit('/').next().is_some_and(|c| c.eq_ignore_ascii_case(name)));
    let help = match same {
        Some(zone) => format!("write \"{zone}\""),
        None => "write a name of the IANA database, for example \"Europe/Berlin\", or \"UTC\"".to_owned(),
    };
    Some((format!("there is no time zone {shown:?}"), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_are_good() {
        for text in [
            "* * * * *",
            "*/15 * * * *",
            "0 3 * * *",
            "30 2 1,15 * *",
            "0 0 29 2 *",
            "0 8-18/2 * JAN-mar mon-FRI",
            "5/10 * * * 7",
            "0 0 31 2 MON",
            "0/30 * * * * *",
            "  0   4 * * sun ",
            "0 0 31 1,2 *",
            "0 0 L 2 *",
            "0 0 L,15 * ?",
            "? * * * *",
            "@daily",
            " @weekly ",
        ] {
            assert_eq!(bad_cron(text), None, "{text}");
        }
    }

    #[test]
    fn expressions_that_are_wrong() {
        for (text, says) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("* * * * * * *", "7 fields"),
            ("60 * * * *", "minute \"60\" is not from 0 to 59"),
            ("* 24 * * *", "hour \"24\" is not"),
            ("* * 0 * *", "day \"0\" is not from 1 to 31"),
            ("* * * 13 *", "month \"13\""),
            ("* * * * 8", "weekday \"8\""),
            ("* * * * funday", "weekday \"funday\""),
            ("*/0 * * * *", "has no step"),
            ("*/128 * * * *", "has no step"),
            ("0 0 30 2 */2", "never comes"),
            ("+1 * * * *", "minute"),
            ("30-10 * * * *", "goes backwards"),
            ("1,,2 * * * *", "minute"),
            ("L * * * *", "minute"),
            ("0 0 L-1 * *", "day \"L\""),
            ("0 0 * * 5L", "weekday"),
            ("0 0 * * MON#2", "weekday"),
            ("0 0 30 2 *", "never comes"),
            ("0 0 31 feb,apr *", "never comes"),
            ("0 0 0 30 2 *", "never comes"),
            ("0 3 * * * 2030", "weekday \"2030\""),
            ("@reboot", "no shorthand"),
            ("\u{661} * * * *", "minute"),
        ] {
            let (message, help) = bad_cron(text).unwrap_or_else(|| panic!("{text} is taken"));
            assert!(message.contains(says) && !help.is_empty(), "{text}: {message}");
        }
        for (name, meant) in SHORTHANDS {
            assert_eq!((bad_cron(name), bad_cron(meant)), (None, None), "{name}");
        }
        assert!(bad_cron("0 3 * * * 2030").unwrap().1.contains("year"));
        assert!(bad_cron(&"1,".repeat(1000)).is_some());
    }

    #[test]
    fn the_node_knows_every_zone() {
        for zone in ZONES.iter() {
            assert!(Schedule::parse(&["0 0 * * *".to_owned()], zone).is_ok(), "{zone}");
        }
    }

    #[test]
    fn zones() {
        assert!(ZONES.is_sorted() && ZONES.len() > 590);
        for name in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1", "EST5EDT", "Asia/Kolkata"] {
            assert_eq!(bad_zone(name), None, "{name}");
        }
        for (name, help) in [
            ("berlin", "\"Europe/Berlin\""),
            ("utc", "UTC\""),
            ("Local", "IANA"),
            ("CEST", "IANA"),
            ("", "IANA"),
            ("../etc/passwd", "IANA"),
        ] {
            assert!(bad_zone(name).unwrap().1.contains(help), "{name}: {:?}", bad_zone(name));
        }
    }
}
