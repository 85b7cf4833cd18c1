//! Is a run due?
//!
//! With a trusted time of day, the times of the schedule count; everything up to `until` was run or left out, so that a clock that jumps
//! back brings no time twice. Without one, the shortest interval of the schedule counts, since boot or the last run.

use skerry_cron::Schedule;
use skerry_wire::job::{MissedRun, Periodic, UnknownTime};
use skerry_wire::{Millis, Timestamp};

use crate::memory::ScheduleMemory;

/// A run that is as late as this was missed.
const LATE: Millis = Millis::from_secs(60);
/// A clock that is put back by more than this was wrong before: what it brought then is forgotten. Zones move by a few hours at most.
const WRONG: Millis = Millis::from_secs(25 * 3600);

/// What the look at the clock gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// A run is due, and why.
    pub(super) run: Option<String>,
    /// Times were left out, and why.
    pub(super) missed: Option<&'static str>,
    /// The next look, in milliseconds of the boot.
    pub(super) next: Option<u64>,
}

/// Looks at the clock. `now`: milliseconds of the boot.
pub(super) fn look(schedule: &Schedule, periodic: &Periodic, memory: &mut ScheduleMemory, now: u64, wall: Option<Timestamp>) -> Due {
    let Some(wall) = wall else { return by_interval(schedule, periodic, memory, now) };
    let mut due = Due::default();
    let until = match memory.until {
        Some(until) if until > wall.after(WRONG) => wall,
        Some(until) => until,
        None => wall,
    };
    if memory.until != Some(until) {
        memory.until = Some(until);
    }
    if schedule.after(until).is_some_and(|t| t <= wall) {
        // Of all the times that passed, is the last one just now?
        let recent = Timestamp(wall.0.saturating_sub_unsigned(LATE.0)).max(until);
        let just_now = schedule.after(recent).is_some_and(|t| t <= wall);
        let first = schedule.after(until);
        let missed = first.is_some_and(|t| t.after(LATE) <= wall);
        if just_now {
            due.run = Some("its time has come".to_owned());
        } else if periodic.missed == MissedRun::Once {
            due.run = Some("its time was missed".to_owned());
        }
        if missed && due.run.is_none() {
            due.missed = Some("its time was missed");
        }
        memory.until = Some(wall);
    }
    due.next = schedule.after(memory.until.unwrap_or(wall)).map(|t| now.saturating_add(t.since(wall).0));
    due
}

/// While the time of day is not known.
fn by_interval(schedule: &Schedule, periodic: &Periodic, memory: &mut ScheduleMemory, now: u64) -> Due {
    if periodic.unknown_time == UnknownTime::Closed {
        return Due::default();
    }
    let interval = schedule.shortest_interval().0;
    let at = memory.last_ms.unwrap_or(0).saturating_add(interval);
    if now < at {
        return Due { next: Some(at), ..Due::default() };
    }
    // When the time becomes known, the next run is the next by the clock.
    memory.until = None;
    let run = format!("the time is not known, and {} have passed", Millis(interval));
    Due { run: Some(run), missed: None, next: Some(now.saturating_add(interval)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    /// 2026-01-01T00:00:00Z
    const NEW_YEAR: i64 = 1_767_225_600_000;

    fn periodic(missed: MissedRun, unknown_time: UnknownTime) -> Periodic {
        Periodic { crons: vec!["0 * * * *".into()], time_zone: "UTC".into(), prohibit_overlap: true, enabled: true, missed, unknown_time }
    }

    /// Time of day in hours since the new year, or none, and whether a run is due then.
    #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds are meant")]
    fn play(missed: MissedRun, steps: &[(Option<f64>, bool)]) {
        let periodic = periodic(missed, UnknownTime::Interval);
        let schedule = Schedule::parse(&periodic.crons, &periodic.time_zone).unwrap();
        let mut memory = ScheduleMemory::default();
        for (n, (hours, expected)) in steps.iter().enumerate() {
            let wall = hours.map(|h| Timestamp(NEW_YEAR + (h * HOUR as f64) as i64));
            let due = look(&schedule, &periodic, &mut memory, 10_000, wall);
            assert_eq!(due.run.is_some(), *expected, "step {n} of {steps:?}: {due:?}");
            assert!(due.run.is_none() || due.missed.is_none(), "step {n} of {steps:?}: {due:?}");
            let again = look(&schedule, &periodic, &mut memory, 10_000, wall);
            assert!(again.run.is_none() && again.missed.is_none(), "step {n} of {steps:?}: twice");
        }
    }

    #[test]
    fn times_come_once_whatever_the_clock_does() {
        let (skip, once) = (MissedRun::Skip, MissedRun::Once);
        // On time, a little late, and nothing between.
        play(skip, &[(Some(0.5), false), (Some(0.99), false), (Some(1.0), true), (Some(1.5), false), (Some(2.01), true)]);
        // The first look runs nothing.
        play(skip, &[(Some(1.0), false), (Some(1.001), false)]);
        // Missed by hours.
        play(skip, &[(Some(0.5), false), (Some(5.5), false), (Some(6.0), true)]);
        play(once, &[(Some(0.5), false), (Some(5.5), true), (Some(5.6), false), (Some(6.0), true)]);
        // Missed, and one just now.
        play(skip, &[(Some(0.5), false), (Some(5.0), true)]);
        play(once, &[(Some(0.5), false), (Some(5.0), true), (Some(5.01), false)]);
        // Put back by less than an hour and by three: not twice.
        play(skip, &[(Some(0.5), false), (Some(1.0), true), (Some(0.5), false), (Some(1.0), false), (Some(2.0), true)]);
        play(once, &[(Some(4.5), false), (Some(5.0), true), (Some(2.0), false), (Some(4.0), false), (Some(5.0), false), (Some(6.0), true)]);
        // Ahead by ten years and back: goes on.
        play(skip, &[(Some(0.5), false), (Some(87_600.5), false), (Some(1.1), false), (Some(2.0), true)]);
        play(once, &[(Some(0.5), false), (Some(87_600.5), true), (Some(1.1), false), (Some(2.0), true)]);
    }

    #[test]
    fn without_a_time_the_interval_counts_from_boot() {
        let interval = periodic(MissedRun::Once, UnknownTime::Interval);
        let schedule = Schedule::parse(&interval.crons, "UTC").unwrap();
        let mut memory = ScheduleMemory { until: Some(Timestamp(NEW_YEAR)), ..ScheduleMemory::default() };
        assert_eq!(look(&schedule, &interval, &mut memory, 5, None), Due { next: Some(HOUR), ..Due::default() });
        assert_eq!(look(&schedule, &interval, &mut memory, HOUR - 1, None).run, None);
        let due = look(&schedule, &interval, &mut memory, HOUR, None);
        assert!(due.run.is_some() && due.next == Some(2 * HOUR));
        memory.last_ms = Some(HOUR);
        assert_eq!(look(&schedule, &interval, &mut memory, HOUR + 5, None).next, Some(2 * HOUR));
        // The time becomes known: what passed before was run by the interval.
        let due = look(&schedule, &interval, &mut memory, HOUR + 10, Some(Timestamp(NEW_YEAR + 90 * 60_000)));
        assert_eq!(due, Due { next: Some(HOUR + 10 + 30 * 60_000), ..Due::default() });

        let closed = periodic(MissedRun::Skip, UnknownTime::Closed);
        assert_eq!(look(&schedule, &closed, &mut ScheduleMemory::default(), 9 * HOUR, None), Due::default());
    }

    /// Whatever the minute: a time that passed is run, or said to be missed.
    #[test]
    fn no_time_is_left_out_without_a_word() {
        let periodic = periodic(MissedRun::Skip, UnknownTime::Closed);
        let schedule = Schedule::parse(&periodic.crons, "UTC").unwrap();
        for (late, runs) in [(0, true), (59_999, true), (60_000, false), (60_001, false)] {
            let mut memory = ScheduleMemory { until: Some(Timestamp(NEW_YEAR)), ..ScheduleMemory::default() };
            let due = look(&schedule, &periodic, &mut memory, 7, Some(Timestamp(NEW_YEAR + 3_600_000 + late)));
            assert_eq!((due.run.is_some(), due.missed.is_some()), (runs, !runs), "{late} ms late");
        }
        // Put back by what zones move by: everything up to there was run. By more: that clock was wrong.
        for (hours, kept) in [(25, true), (26, false)] {
            let mut memory = ScheduleMemory { until: Some(Timestamp(NEW_YEAR + hours * 3_600_000)), ..ScheduleMemory::default() };
            let before = memory.until;
            look(&schedule, &periodic, &mut memory, 7, Some(Timestamp(NEW_YEAR)));
            assert_eq!(memory.until == before, kept, "{hours} hours");
        }
    }

    #[test]
    fn what_is_missed_is_said_once() {
        let periodic = periodic(MissedRun::Skip, UnknownTime::Closed);
        let schedule = Schedule::parse(&periodic.crons, "UTC").unwrap();
        let mut memory = ScheduleMemory { until: Some(Timestamp(NEW_YEAR)), ..ScheduleMemory::default() };
        let wall = Some(Timestamp(NEW_YEAR + 90 * 60_000));
        assert_eq!(look(&schedule, &periodic, &mut memory, 7, wall).missed, Some("its time was missed"));
        assert_eq!(look(&schedule, &periodic, &mut memory, 7, wall), Due { next: Some(7 + 30 * 60_000), ..Due::default() });
    }
}
