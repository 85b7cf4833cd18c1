//! Cron expressions in a time zone: when is the next time?
//!
//! In: expressions of five fields (minute hour day month weekday) or six (second first), the IANA name of a zone. Out: the first time
//! after another. The rules of the zones are compiled in: no file of the node is read.
//!
//! What it promises: pure and total; a time comes once. Where clocks are put forward, a time that is left out comes as much later as they
//! were put; where they are put back, a time comes at its first passing. An expression whose hour is `*` or `*/n` goes by what passes
//! instead: it leaves out what is left out, and comes at both passings.
#![forbid(unsafe_code)]

mod field;

use jiff::civil::{Date, DateTime, time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp as Instant};
use skerry_wire::{Millis, Timestamp};

use field::Fields;

/// No expression waits for longer than this many days, or it never comes: 29 February may be 8 years away.
const FAR_DAYS: u32 = 366 * 9;

/// Why an expression or a zone is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The number of fields is wrong.
    #[error("`{expression}` has {found} fields: write five (minute hour day month weekday), or six with seconds first")]
    Fields {
        /// As written.
        expression: String,
        /// How many.
        found: usize,
    },
    /// A field is wrong.
    #[error("`{text}` is no {field} in `{expression}`: {why}")]
    Field {
        /// The expression.
        expression: String,
        /// Which field.
        field: &'static str,
        /// As written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// There is no such time.
    #[error("`{expression}` never comes")]
    Never {
        /// As written.
        expression: String,
    },
    /// There is no expression.
    #[error("no time is given: write at least one expression in `crons`")]
    Empty,
    /// There is no such zone.
    #[error("there is no time zone `{zone}`: write an IANA name such as `Europe/Lisbon`, or `UTC`")]
    Zone {
        /// As written.
        zone: String,
    },
}

/// When something runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    all: Vec<Fields>,
    zone: TimeZone,
}

impl Schedule {
    /// Reads expressions and a zone; the earliest of the expressions counts.
    pub fn parse(crons: &[String], zone: &str) -> Result<Self, CronError> {
        if crons.is_empty() {
            return Err(CronError::Empty);
        }
        let zone = match zone {
            "" | "UTC" => TimeZone::UTC,
            name => TimeZoneDatabase::bundled().get(name).map_err(|_| CronError::Zone { zone: name.to_owned() })?,
        };
        let all = crons.iter().map(|c| Fields::parse(c)).collect::<Result<Vec<_>, _>>()?;
        for (fields, cron) in all.iter().zip(crons) {
            if next(fields, &TimeZone::UTC, Timestamp(0)).is_none() {
                return Err(CronError::Never { expression: cron.clone() });
            }
        }
        Ok(Self { all, zone })
    }

    /// The first time after `from`. None when time itself ends before.
    pub fn after(&self, from: Timestamp) -> Option<Timestamp> {
        self.all.iter().filter_map(|f| next(f, &self.zone, from)).min()
    }

    /// The shortest span between two times, by the look of 64 of them in UTC.
    pub fn shortest_interval(&self) -> Millis {
        // 2024 began on a Monday and has a 29 February.
        let mut at = Timestamp(1_704_067_199_000);
        let (mut shortest, mut before) = (u64::MAX, None);
        for _ in 0..64 {
            let Some(found) = self.all.iter().filter_map(|f| next(f, &TimeZone::UTC, at)).min() else { break };
            if let Some(before) = before {
                shortest = shortest.min(found.since(before).0);
            }
            (before, at) = (Some(found), found);
        }
        Millis(shortest)
    }
}

/// The first time of one expression after `from`.
fn next(fields: &Fields, zone: &TimeZone, from: Timestamp) -> Option<Timestamp> {
    let from = Instant::from_millisecond(from.0).ok()?;
    // A clock put back by hours may bring yesterday's date again.
    let mut date = zone.to_datetime(from).date().yesterday().ok()?;
    for _ in 0..FAR_DAYS {
        if fields.has_day(date)
            && let Some(found) = in_day(fields, zone, date, from)
        {
            return Some(Timestamp(found.as_millisecond()));
        }
        date = date.tomorrow().ok()?;
    }
    None
}

/// The first time after `from` among those that a day's date and clock name.
fn in_day(fields: &Fields, zone: &TimeZone, date: Date, from: Instant) -> Option<Instant> {
    let noon = |d: Date| zone.to_ambiguous_timestamp(d.at(12, 0, 0, 0)).later().ok();
    // What the day names may come at most a day and some hours after its noon.
    if noon(date)?.checked_add(Span::new().hours(40)).ok()? < from {
        return None;
    }
    let steady =
        match (zone.to_ambiguous_timestamp(date.at(0, 0, 0, 0)).offset(), zone.to_ambiguous_timestamp(date.at(23, 59, 59, 0)).offset()) {
            (AmbiguousOffset::Unambiguous { offset: a }, AmbiguousOffset::Unambiguous { offset: b }) if a == b => Some(a),
            _ => None,
        };
    let mut best: Option<Instant> = None;
    for hour in fields.hours() {
        // The hour, and the quarters of an hour that zones move by, are over before `from`.
        if let Some(offset) = steady
            && offset.to_timestamp(date.at(hour, 59, 59, 0)).ok()? <= from
        {
            continue;
        }
        for minute in fields.minutes() {
            for second in fields.seconds() {
                let at = DateTime::from_parts(date, time(hour, minute, second, 0));
                if let Some(offset) = steady {
                    let found = offset.to_timestamp(at).ok()?;
                    if found > from {
                        return Some(found);
                    }
                    continue;
                }
                let ambiguous = zone.to_ambiguous_timestamp(at);
                let passings = match ambiguous.offset() {
                    AmbiguousOffset::Unambiguous { .. } => [ambiguous.compatible().ok(), None],
                    AmbiguousOffset::Gap { .. } if fields.every_hour => [None, None],
                    AmbiguousOffset::Gap { .. } => [ambiguous.compatible().ok(), None],
                    AmbiguousOffset::Fold { .. } if fields.every_hour => [ambiguous.earlier().ok(), ambiguous.later().ok()],
                    AmbiguousOffset::Fold { .. } => [ambiguous.earlier().ok(), None],
                };
                for found in passings.into_iter().flatten().filter(|f| *f > from) {
                    best = Some(best.map_or(found, |b| b.min(found)));
                }
            }
        }
    }
    best
}

#[cfg(test)]
mod tests;
