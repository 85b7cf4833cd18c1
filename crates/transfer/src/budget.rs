//! What a month may take.
//!
//! A month begins on a day of the calendar at 00:00 UTC. While the time is not known, the month goes on that was known last; it never
//! goes back to an earlier one.

use serde::{Deserialize, Serialize};
use skerry_wire::Timestamp;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Why a budget makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Nothing is left beside the reserve.
    #[error("the reserve takes the whole budget: make it smaller")]
    Reserve,
    /// A day that not every month has.
    #[error("the month begins on a day from 1 to 28")]
    Day,
}

/// Bytes that a node may send and receive in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// In all.
    monthly: u64,
    /// Of these, kept for bundles of urgent jobs, and for polls and reports.
    reserve: u64,
    /// Jobs of this priority or a higher one may use the reserve.
    urgent: u8,
    /// Day on which the month begins.
    day: u8,
}

/// What a month took so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The month, counted from year 0; 0 while no time was known yet.
    pub month: u32,
    /// Bytes, both ways.
    pub bytes: u64,
}

impl Budget {
    /// A budget; see the fields.
    pub fn new(monthly: u64, reserve: u64, urgent: u8, day: u8) -> Result<Self, BudgetError> {
        if reserve >= monthly {
            return Err(BudgetError::Reserve);
        }
        if !(1..=28).contains(&day) {
            return Err(BudgetError::Day);
        }
        Ok(Self { monthly, reserve, urgent, day })
    }

    /// Bytes of a month in all.
    pub fn monthly(&self) -> u64 {
        self.monthly
    }

    /// Bytes of a whole month for a job of this priority.
    pub(crate) fn whole(&self, priority: u8) -> u64 {
        if priority >= self.urgent { self.monthly } else { self.monthly - self.reserve }
    }

    /// Bytes that are left for a job of this priority. `spent` is of the present month.
    pub fn left(&self, spent: &Spent, priority: u8) -> u64 {
        self.whole(priority).saturating_sub(spent.bytes)
    }

    /// The day on which months begin.
    pub fn day(&self) -> u8 {
        self.day
    }
}

impl Spent {
    /// What the present month took; nothing when a new one has begun.
    #[must_use]
    pub fn at(self, day: u8, wall: Option<Timestamp>) -> Self {
        let month = wall.map_or(0, |wall| month_of(wall, day));
        match self.month {
            // Before any time was known: it belongs to the month that turns out to be.
            0 => Self { month, ..self },
            before if month > before => Self { month, bytes: 0 },
            _ => self,
        }
    }

    /// With so many bytes more.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self { bytes: self.bytes.saturating_add(bytes), ..self }
    }

    /// When the month after this one begins; none while no time was known yet.
    pub fn next_month(&self, day: u8) -> Option<Timestamp> {
        let next = i64::from(self.month.checked_add(1)?);
        (self.month > 0).then(|| Timestamp(days_of(next.div_euclid(12), next.rem_euclid(12) + 1, i64::from(day)) * DAY_MS))
    }
}

/// The month that a time belongs to: 12 times the year, and the month from 0.
fn month_of(wall: Timestamp, begins: u8) -> u32 {
    let (year, month, day) = date_of(wall.0.div_euclid(DAY_MS));
    let months = year * 12 + month - 1 - i64::from(day < i64::from(begins));
    u32::try_from(months).unwrap_or(0)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn date_of(days: i64) -> (i64, i64, i64) {
    // Years that begin on 1 March, in spans of 400 years: leap days come last.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A time for people, to the minute: `2026-03-02 22:00 UTC`.
pub fn utc(time: Timestamp) -> String {
    let (year, month, day) = date_of(time.0.div_euclid(DAY_MS));
    let minutes = time.0.rem_euclid(DAY_MS) / 60_000;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// The inverse of [`date_of`].
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_there_and_back() {
        assert_eq!(date_of(0), (1970, 1, 1));
        assert_eq!(date_of(19_782), (2024, 2, 29));
        assert_eq!(date_of(-1), (1969, 12, 31));
        assert_eq!(utc(Timestamp(1_772_488_859_999)), "2026-03-02 22:00 UTC");
        for days in -1000..40_000 {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }
}
