//! The fields of one expression, as sets of numbers.

use jiff::civil::Date;

use crate::CronError;

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fields {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// `L`: the last day of the month.
    last_day: bool,
    /// Days and weekdays are both restricted: either will do, as in every cron.
    either: bool,
    /// The hour is not restricted, or is a step over the whole day.
    pub(crate) every_hour: bool,
}

/// Name, least, most, names of the values from the least on.
type Field = (&'static str, i8, i8, &'static [&'static str]);

const SECOND: Field = ("second", 0, 59, &[]);
const MINUTE: Field = ("minute", 0, 59, &[]);
const HOUR: Field = ("hour", 0, 23, &[]);
const DAY: Field = ("day of the month", 1, 31, &[]);
const MONTH: Field = ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]);
/// 7 is Sunday again.
const WEEKDAY: Field = ("weekday", 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]);

impl Fields {
    pub(crate) fn parse(expression: &str) -> Result<Self, CronError> {
        let plain = match expression.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let words: Vec<&str> = plain.split_whitespace().collect();
        let (second, rest) = match words.len() {
            5 => ("0", &words[..]),
            6 => (words[0], &words[1..]),
            found => return Err(CronError::Fields { expression: expression.to_owned(), found }),
        };
        let set = |field: Field, text: &str| {
            set(field, text).map_err(|why| CronError::Field {
                expression: expression.to_owned(),
                field: field.0,
                text: text.to_owned(),
                why,
            })
        };
        let last_day = rest[2].split(',').any(|p| p.eq_ignore_ascii_case("l"));
        let days: Vec<&str> = rest[2].split(',').filter(|p| !p.eq_ignore_ascii_case("l")).collect();
        let free = |text: &str| text.starts_with(['*', '?']);
        let weekdays = set(WEEKDAY, rest[4])?;
        Ok(Self {
            seconds: set(SECOND, second)?,
            minutes: set(MINUTE, rest[0])?,
            hours: set(HOUR, rest[1])?,
            days: if days.is_empty() { 0 } else { set(DAY, &days.join(","))? },
            months: set(MONTH, rest[3])?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            last_day,
            either: !free(rest[2]) && !free(rest[4]),
            every_hour: free(rest[1]),
        })
    }

    /// Is it one of the days?
    pub(crate) fn has_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day()) || self.last_day && date.day() == date.days_in_month();
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either { day || weekday } else { day && weekday }
    }

    pub(crate) fn hours(&self) -> impl Iterator<Item = i8> {
        members(self.hours)
    }

    pub(crate) fn minutes(&self) -> impl Iterator<Item = i8> {
        members(self.minutes)
    }

    pub(crate) fn seconds(&self) -> impl Iterator<Item = i8> {
        members(self.seconds)
    }
}

fn has(set: u64, n: i8) -> bool {
    set >> n & 1 == 1
}

fn members(set: u64) -> impl Iterator<Item = i8> {
    (0..60).filter(move |n| has(set, *n))
}

/// The set that a field's text names: `*`, `?`, `n`, `a-b`, each with `/step`, and lists of them.
fn set((_, least, most, names): Field, text: &str) -> Result<u64, String> {
    let number = |word: &str| -> Result<i8, String> {
        let lower = word.to_ascii_lowercase();
        let named = names.iter().zip(least..).find(|(name, _)| **name == lower).map(|(_, n)| n);
        let n = named.or_else(|| word.parse().ok().filter(|_| word.bytes().all(|b| b.is_ascii_digit())));
        let n = n.ok_or_else(|| format!("`{word}` is not a number from {least} to {most}"))?;
        if (least..=most).contains(&n) { Ok(n) } else { Err(format!("`{word}` is not from {least} to {most}")) }
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
        let step: i8 = match step.map(str::parse) {
            None => 1,
            Some(Ok(n)) if n > 0 => n,
            Some(_) => return Err("a step is a number above 0".to_owned()),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (least, most),
            Some((a, b)) => (number(a)?, number(b)?),
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(format!("`{range}` ends before it begins"));
        }
        let mut n = from;
        while n <= to {
            set |= 1 << n;
            n = n.saturating_add(step);
        }
    }
    Ok(set)
}
