//! Tables and properties of what is fetched when.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use proptest::prelude::*;
use skerry_transfer::{Admission, Budget, Candidate, Opening, Pace, Rules, Spent, UnknownTime, Wait, Windows, admit};
use skerry_wire::Timestamp;
use skerry_wire::job::OnDeltaFailure;

const HOUR: i64 = 3_600_000;
/// 2026-03-02T00:00:00Z, a Monday.
const MONDAY: i64 = 1_772_409_600_000;

fn windows(texts: &[&str], zone: &str, unknown: UnknownTime) -> Windows {
    let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
    Windows::parse(&texts, zone, unknown).unwrap()
}

fn at(hours: i64) -> Option<Timestamp> {
    Some(Timestamp(MONDAY + hours * HOUR))
}

fn open(hours: i64) -> Opening {
    Opening::Open { until: at(hours) }
}

fn closed(hours: i64) -> Opening {
    Opening::Closed { until: at(hours) }
}

#[test]
fn windows_open_and_close() {
    let night: &[&str] = &["22:00-06:00"];
    for (texts, zone, hours, expected) in [
        (night, "UTC", 0, open(6)),
        (night, "UTC", 5, open(6)),
        (night, "UTC", 6, closed(22)),
        (night, "UTC", 21, closed(22)),
        (night, "UTC", 22, open(30)),
        // One hour ahead of UTC in winter.
        (night, "Europe/Berlin", 5, closed(21)),
        (night, "Europe/Berlin", 21, open(29)),
        (&["Mon-Fri 12:00-13:00"], "UTC", 12, open(13)),
        (&["Mon-Fri 12:00-13:00"], "UTC", 4 * 24 + 13, closed(7 * 24 + 12)),
        (&["sat,Sun 00:00-24:00"], "UTC", 0, closed(5 * 24)),
        (&["sat,Sun 00:00-24:00"], "UTC", 5 * 24 + 3, open(7 * 24)),
        // The days name the day of the begin.
        (&["Sun 22:00-06:00"], "UTC", 2, open(6)),
        (&["Mon 22:00-06:00"], "UTC", 2, closed(22)),
        // Windows that meet are one.
        (&["08:00-10:00", "10:00-12:00", "11:00-11:30"], "UTC", 8, open(12)),
        (&["fri-mon 10:00-11:00"], "UTC", 10, open(11)),
    ] {
        assert_eq!(windows(texts, zone, UnknownTime::Closed).at(at(hours)), expected, "{texts:?} {zone} {hours}");
    }
    // Clocks go forward on 2026-03-29 at 01:00 UTC: the night is as long as ever.
    let berlin = windows(night, "Europe/Berlin", UnknownTime::Closed);
    let saturday = 26 * 24 + 21;
    assert_eq!(berlin.at(at(saturday)), open(saturday + 8));
    assert_eq!(windows(night, "UTC", UnknownTime::Open).at(None), Opening::Open { until: None });
    assert_eq!(windows(night, "UTC", UnknownTime::Closed).at(None), Opening::Closed { until: None });
    assert_eq!(windows(&[], "UTC", UnknownTime::Closed).at(None), Opening::Open { until: None });
    // Always open in effect: the end lies ahead, whatever the hour.
    let always = windows(&["00:00-24:00"], "UTC", UnknownTime::Closed);
    assert!(matches!(always.at(at(5)), Opening::Open { until: Some(until) } if until > at(5).unwrap()));
}

#[test]
fn windows_that_are_none() {
    for text in ["", "22:00", "22-06", "25:00-26:00", "24:00-25:00", "22:00-06:60", "Foo 22:00-06:00", "Mon- 1:00-02:00", "9:00-10:00", "é"]
    {
        assert!(Windows::parse(&[text.to_owned()], "UTC", UnknownTime::Open).is_err(), "{text}");
    }
    assert!(Windows::parse(&[], "Mars/Olympus", UnknownTime::Open).is_err());
    assert!(Windows::parse(&vec!["22:00-06:00".to_owned(); 33], "UTC", UnknownTime::Open).is_err());
}

#[test]
fn windows_at_their_bounds() {
    let parses = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        Windows::parse(&texts, "UTC", UnknownTime::Open)
    };
    for (text, good) in [
        ("00:00-24:00", true),
        ("23:59-00:00", true),
        ("22:00-24:01", false),
        ("22:00-25:00", false),
        ("24:00-06:00", false),
        ("22:60-23:00", false),
        ("2:00-3:00", false),
    ] {
        assert_eq!(parses(&[text]).is_ok(), good, "{text}");
    }
    assert!(parses(&["22:00-06:00"; 32]).is_ok(), "as many as there may be");
    assert!(parses(&[]).unwrap().is_always() && !parses(&["22:00-06:00"]).unwrap().is_always());
    // From a time to the same time is a whole day.
    let whole = parses(&["Mon 06:00-06:00"]).unwrap();
    for (hours, is_open) in [(5, false), (6, true), (29, true), (30, false)] {
        assert_eq!(matches!(whole.at(at(hours)), Opening::Open { .. }), is_open, "{hours}");
    }
}

#[test]
fn every_wait_says_what_for() {
    let rows = [
        (Wait::Window, "waits for the download window"),
        (Wait::Time, "the time of day"),
        (Wait::Budget { needs: 7, left: 3 }, "waits for the next month: 7 bytes are needed, 3 are left"),
        (Wait::Held, "`skerry alloc retry`"),
        (Wait::FullNotAllowed { needs: 9 }, "a full bundle of 9 bytes is not allowed"),
    ];
    for (wait, part) in rows {
        assert!(wait.to_string().contains(part), "{wait}");
    }
    assert_eq!(Budget::new(1_000, 10, 90, 1).unwrap().monthly(), 1_000);
}

fn rules(budget: Option<Budget>, texts: &[&str], on_delta_failure: OnDeltaFailure) -> Rules {
    Rules { budget, windows: windows(texts, "UTC", UnknownTime::Closed), on_delta_failure }
}

fn bundle(priority: u8, size: u64, have: u64) -> Candidate {
    Candidate { priority, size, have, full: None, on_delta_failure: None, failed: None }
}

#[test]
fn a_month_is_not_exceeded() {
    // 100 bytes, 20 of them from priority 80 on; the month begins on the 5th.
    let budget = Budget::new(100, 20, 80, 5).unwrap();
    let rules = rules(Some(budget), &[], OnDeltaFailure::Full);
    let march_2 = at(0);
    let spent = |bytes| Spent::default().at(5, march_2).plus(bytes);
    let (fifth, left) = (at(3 * 24), |needs, left| Wait::Budget { needs, left });
    for (bundle, used, expected) in [
        (bundle(50, 80, 0), 0, Ok(80)),
        (bundle(50, 80, 0), 1, Err(left(80, 79))),
        (bundle(50, 80, 1), 1, Ok(79)),
        (bundle(79, 30, 0), 60, Err(left(30, 20))),
        (bundle(80, 30, 0), 60, Ok(30)),
        (bundle(80, 30, 0), 100, Err(left(30, 0))),
        // No month could end it: it takes what is left.
        (bundle(50, 500, 100), 30, Ok(50)),
        (bundle(50, 500, 100), 80, Err(left(400, 0))),
        // All of it is here.
        (bundle(50, 500, 500), 1000, Ok(0)),
    ] {
        let expected = match expected {
            Ok(most) => Admission::Fetch { most, until: None },
            Err(why) => Admission::Wait { why, until: fifth },
        };
        assert_eq!(admit(&rules, &bundle, &spent(used), march_2), expected, "{bundle:?} {used}");
    }
    // On the 5th a new month begins; a clock that is lost, or goes back, begins none.
    assert_eq!(admit(&rules, &bundle(50, 80, 0), &spent(90), fifth), Admission::Fetch { most: 80, until: None });
    assert!(matches!(admit(&rules, &bundle(50, 80, 0), &spent(90), None), Admission::Wait { .. }));
    assert!(matches!(admit(&rules, &bundle(50, 80, 0), &spent(90), Some(Timestamp(0))), Admission::Wait { .. }));
    assert!(Budget::new(5, 5, 80, 1).is_err() && Budget::new(5, 1, 80, 29).is_err());
}

#[test]
fn what_follows_a_failed_patch() {
    let failed = |full, failed| Candidate { full, failed, ..bundle(50, 100, 0) };
    let (fetch, needs) = (Admission::Fetch { most: 100, until: None }, 100);
    let wait = |why| Admission::Wait { why, until: None };
    use OnDeltaFailure::{Full, Hold, Retry};
    for (on, full, fail, expected) in [
        (Hold, Some(true), None, fetch.clone()),
        (Hold, Some(false), Some(true), wait(Wait::Held)),
        (Hold, None, Some(true), wait(Wait::Held)),
        (Hold, Some(false), Some(false), fetch.clone()),
        (Hold, Some(true), Some(false), wait(Wait::FullNotAllowed { needs })),
        (Retry, Some(false), Some(true), fetch.clone()),
        (Retry, None, Some(true), fetch.clone()),
        (Retry, Some(true), Some(true), wait(Wait::FullNotAllowed { needs })),
        (Full, Some(true), Some(true), fetch.clone()),
    ] {
        assert_eq!(admit(&rules(None, &[], on), &failed(full, fail), &Spent::default(), None), expected, "{on:?} {full:?} {fail:?}");
        // What the job says takes the place of what the node says.
        let said = Candidate { on_delta_failure: Some(on), ..failed(full, fail) };
        let other = if on == Full { Hold } else { Full };
        assert_eq!(admit(&rules(None, &[], other), &said, &Spent::default(), None), expected, "{on:?} {full:?} {fail:?}");
    }
}

#[test]
fn windows_bound_a_fetch() {
    let rules = rules(None, &["22:00-06:00"], OnDeltaFailure::Hold);
    let (spent, bundle) = (Spent::default(), bundle(100, 9, 0));
    assert_eq!(admit(&rules, &bundle, &spent, at(1)), Admission::Fetch { most: 9, until: at(6) });
    assert_eq!(admit(&rules, &bundle, &spent, at(7)), Admission::Wait { why: Wait::Window, until: at(22) });
    assert_eq!(admit(&rules, &bundle, &spent, None), Admission::Wait { why: Wait::Time, until: None });
    assert!(matches!(admit(&rules, &Candidate { have: 9, ..bundle }, &spent, at(7)), Admission::Fetch { most: 0, .. }));
}

#[test]
fn a_rate_is_held() {
    let mut pace = Pace::new(1000, 0);
    assert_eq!(pace.took(1000, 0).0, 0);
    assert_eq!(pace.took(500, 0).0, 500);
    assert_eq!(pace.took(0, 500).0, 0);
    assert_eq!(pace.took(2000, 500).0, 2000);
    // An hour of rest gives one second's worth.
    assert_eq!(pace.took(1500, 3_600_000).0, 500);
    assert_eq!(Pace::new(0, 0).took(u64::MAX, 0).0, u64::MAX);
}

proptest! {
    /// Whatever comes in whatever order, a month takes no more than its budget, and jobs that are not urgent leave the reserve alone.
    #[test]
    fn no_month_takes_more_than_its_budget(
        monthly in 2u64..10_000, reserve in 0u64..10_000, day in 1u8..=28,
        steps in prop::collection::vec((0u8..=100, 1u64..20_000, 0i64..40, any::<bool>()), 1..60),
    ) {
        let reserve = reserve % monthly;
        let budget = Budget::new(monthly, reserve, 80, day).unwrap();
        let rules = rules(Some(budget), &[], OnDeltaFailure::Full);
        let (mut spent, mut now) = (Spent::default(), MONDAY);
        for (priority, size, days, known) in steps {
            now += days * 24 * HOUR;
            let wall = known.then_some(Timestamp(now));
            let before = spent.at(day, wall);
            prop_assert!(before.month >= spent.month);
            match admit(&rules, &bundle(priority, size, 0), &before, wall) {
                Admission::Fetch { most, .. } => {
                    spent = before.plus(most);
                    prop_assert!(spent.bytes <= monthly && most <= size);
                    prop_assert!(priority >= 80 || spent.bytes <= monthly - reserve);
                }
                Admission::Wait { until, .. } => {
                    spent = before;
                    prop_assert!(until.is_none_or(|until| until.0 > now || !known));
                }
            }
        }
    }

    /// What is told about a window holds: it is as told right up to `until`, and the other way from then on.
    #[test]
    fn windows_keep_their_word(
        spans in prop::collection::vec((0u32..24, 0u32..60, 1u32..24, 0usize..3), 1..4), minute in 0i64..(400 * 24 * 60),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
    ) {
        let days = ["", "Mon-Wed ", "Sat "];
        let texts: Vec<String> =
            spans.iter().map(|(h, m, length, d)| format!("{}{h:02}:{m:02}-{:02}:{m:02}", days[*d], (h + length) % 24)).collect();
        let windows = Windows::parse(&texts, zone, UnknownTime::Closed).unwrap();
        let now = Timestamp(MONDAY + minute * 60_000);
        let is_open = |t: i64| matches!(windows.at(Some(Timestamp(t))), Opening::Open { .. });
        let (until, opened) = match windows.at(Some(now)) {
            Opening::Open { until } => (until, true),
            Opening::Closed { until } => (until, false),
        };
        let until = until.unwrap().0;
        prop_assert!(until > now.0);
        for t in [now.0, now.0 + (until - now.0) / 2, until - 1] {
            prop_assert_eq!(is_open(t), opened, "{:?} at {}", texts, t);
        }
        // Only what lasts for days is told to a bound, and goes on behind it.
        prop_assert!(is_open(until) != opened || opened && until - now.0 > 24 * HOUR);
    }

    /// Over any time, no more than the rate and one second's worth is taken by whoever waits as told.
    #[test]
    fn who_waits_as_told_holds_the_rate(rate in 1u64..1_000_000, takes in prop::collection::vec((1u64..100_000, 0u64..5_000), 1..100)) {
        let mut pace = Pace::new(rate, 0);
        let (mut now, mut total) = (0u64, 0u64);
        for (bytes, rest) in takes {
            total += bytes;
            now += pace.took(bytes, now).0;
            prop_assert!(u128::from(total) * 1000 <= u128::from(rate) * (u128::from(now) + 1000));
            now += rest;
        }
    }
}
