//! Daily windows in a time zone: is one open, and until when does that hold?
//!
//! Written `[DAYS ]HH:MM-HH:MM`: `22:00-06:00`, `Mon-Fri 12:00-13:00`, `Sat,Sun 00:00-24:00`. A window whose end is not after its begin ends
//! on the next day; its days name the day on which it begins. A window is always as long as it is written: on a day on which clocks are
//! put forward or back it ends an hour later or earlier by the wall.

use skerry_cron::Schedule;
use skerry_wire::{Millis, Timestamp};

/// Names of the days, from 0, as cron counts them.
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Minutes of a day.
const DAY: u32 = 24 * 60;
/// Windows that a list may have.
const MOST: usize = 32;

/// What holds while the time of day is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownTime {
    /// Every window counts as open.
    Open,
    /// Every window counts as closed.
    #[default]
    Closed,
}

/// Why a list of windows is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It cannot be read.
    #[error("`{text}` is no window: write `HH:MM-HH:MM`, with days in front if need be: `Mon-Fri 22:00-06:00`")]
    Form {
        /// As written.
        text: String,
    },
    /// There is no such zone.
    #[error("there is no time zone `{zone}`: write an IANA name such as `Europe/Lisbon`, or `UTC`")]
    Zone {
        /// As written.
        zone: String,
    },
    /// Too many.
    #[error("there are {found} windows; at most {MOST} can be given")]
    Many {
        /// How many.
        found: usize,
    },
}

/// When something may be done. With no window it always may.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    /// When they begin, and how long they are.
    all: Vec<(Schedule, Millis)>,
    unknown: UnknownTime,
}

/// Is a window open?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Yes, until then; none: for ever, or not known.
    Open {
        /// When it closes.
        until: Option<Timestamp>,
    },
    /// No, until then; none while the time is not known.
    Closed {
        /// When the next one opens.
        until: Option<Timestamp>,
    },
}

impl Windows {
    /// Reads windows and the zone that they are written in.
    pub fn parse(texts: &[String], zone: &str, unknown: UnknownTime) -> Result<Self, WindowError> {
        if texts.len() > MOST {
            return Err(WindowError::Many { found: texts.len() });
        }
        if Schedule::parse(&["0 0 * * *".to_owned()], zone).is_err() {
            return Err(WindowError::Zone { zone: zone.to_owned() });
        }
        let window = |text: &String| {
            let form = || WindowError::Form { text: text.chars().take(100).collect() };
            let (begin, length) = read(text).ok_or_else(form)?;
            Ok((Schedule::parse(&[begin], zone).map_err(|_| form())?, length))
        };
        Ok(Self { all: texts.iter().map(window).collect::<Result<_, _>>()?, unknown })
    }

    /// Are there none, so that everything may always be done?
    pub fn is_always(&self) -> bool {
        self.all.is_empty()
    }

    /// Is one open at this time of day?
    pub fn at(&self, wall: Option<Timestamp>) -> Opening {
        if self.all.is_empty() {
            return Opening::Open { until: None };
        }
        let Some(wall) = wall else {
            return match self.unknown {
                UnknownTime::Open => Opening::Open { until: None },
                UnknownTime::Closed => Opening::Closed { until: None },
            };
        };
        match self.open_until(wall) {
            None => Opening::Closed { until: self.all.iter().filter_map(|(begin, _)| begin.after(wall)).min() },
            Some(mut until) => {
                // Windows that meet or overlap are one; of those that never close a bound is told.
                for _ in 0..2 * MOST {
                    match self.open_until(until) {
                        Some(later) if later > until => until = later,
                        _ => break,
                    }
                }
                Opening::Open { until: Some(until) }
            }
        }
    }

    /// The last end of the windows that are open.
    fn open_until(&self, wall: Timestamp) -> Option<Timestamp> {
        let end = |(begin, length): &(Schedule, Millis)| {
            let begun = begin.after(Timestamp(wall.0.saturating_sub_unsigned(length.0)))?;
            (begun <= wall).then(|| begun.after(*length))
        };
        self.all.iter().filter_map(end).max()
    }
}

/// The cron expression of the begin, and the length.
fn read(text: &str) -> Option<(String, Millis)> {
    let text = text.trim();
    let (days, times) = match text.rsplit_once(char::is_whitespace) {
        Some((days, times)) => (self::days(days)?, times),
        None => ([true; 7], text),
    };
    let (begin, end) = times.split_once('-')?;
    let (begin, end) = (minutes(begin)?, minutes(end)?);
    if begin == DAY {
        return None;
    }
    let length = if end > begin { end - begin } else { end + DAY - begin };
    let named: Vec<&str> = DAYS.iter().zip(days).filter_map(|(name, on)| on.then_some(*name)).collect();
    let days = if named.len() == DAYS.len() { "*".to_owned() } else { named.join(",") };
    Some((format!("{} {} * * {days}", begin % 60, begin / 60), Millis::from_secs(u64::from(length) * 60)))
}

/// Minutes of the day in `HH:MM`.
fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u32>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && (hours < 24 || hours == 24 && minutes == 0)).then_some(hours * 60 + minutes)
}

/// The days in `Mon-Fri,Sun`.
fn days(text: &str) -> Option<[bool; 7]> {
    let number = |t: &str| DAYS.iter().position(|d| d.eq_ignore_ascii_case(t.trim()));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        let length = (last + 7 - first) % 7;
        for day in first..=first + length {
            days[day % 7] = true;
        }
    }
    Some(days)
}
