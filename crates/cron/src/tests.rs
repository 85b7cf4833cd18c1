use proptest::prelude::*;

use super::*;

fn schedule(crons: &[&str], zone: &str) -> Schedule {
    Schedule::parse(&crons.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>(), zone).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<Instant>().unwrap().as_millisecond())
}

fn show(t: Timestamp) -> String {
    Instant::from_millisecond(t.0).unwrap().to_string()
}

#[test]
fn the_times_after_a_time() {
    let rows: &[(&[&str], &str, &str, &[&str])] = &[
        (&["*/15 * * * *"], "UTC", "2026-01-01T00:07:00Z", &["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]),
        (&["0 3 * * *"], "UTC", "2026-01-01T03:00:00Z", &["2026-01-02T03:00:00Z"]),
        (&["0 3 * * *"], "UTC", "2026-01-01T02:59:59.999Z", &["2026-01-01T03:00:00Z"]),
        (&["30 5 3 * * *"], "", "2026-01-01T00:00:00Z", &["2026-01-01T03:05:30Z"]),
        (&["0 0 * * mon-fri"], "UTC", "2026-01-02T00:00:00Z", &["2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z"]),
        (&["0 0 * * 7"], "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T00:00:00Z"]),
        (&["0 0 13 * fri"], "UTC", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"]),
        (&["0 0 */10 * *"], "UTC", "2026-01-01T00:00:00Z", &["2026-01-11T00:00:00Z", "2026-01-21T00:00:00Z", "2026-01-31T00:00:00Z"]),
        (&["0 0 L * *"], "UTC", "2026-01-31T00:00:00Z", &["2026-02-28T00:00:00Z"]),
        (&["0 0 15,L * ?"], "UTC", "2026-01-31T00:00:00Z", &["2026-02-15T00:00:00Z", "2026-02-28T00:00:00Z"]),
        (&["0 0 29 2 *"], "UTC", "2096-03-01T00:00:00Z", &["2104-02-29T00:00:00Z"]),
        (&["@hourly", "20 * * * *"], "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T00:20:00Z", "2026-01-01T01:00:00Z"]),
        (&["5/20 8-9 * jan,Feb *"], "UTC", "2026-02-28T09:26:00Z", &["2026-02-28T09:45:00Z", "2027-01-01T08:05:00Z"]),
        // Lisbon: UTC in winter, an hour ahead in summer; forward at 01:00 on 29 March, back at 02:00 on 25 October 2026.
        (&["0 12 * * *"], "Europe/Lisbon", "2026-03-28T13:00:00Z", &["2026-03-29T11:00:00Z"]),
        (&["30 1 * * *"], "Europe/Lisbon", "2026-03-28T02:00:00Z", &["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]),
        (&["30 * * * *"], "Europe/Lisbon", "2026-03-29T00:00:00Z", &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]),
        (&["30 1 * * *"], "Europe/Lisbon", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        (
            &["*/30 * * * *"],
            "Europe/Lisbon",
            "2026-10-25T00:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"],
        ),
        // Samoa left out 30 December 2011.
        (&["0 0 30 12 *"], "Pacific/Apia", "2011-12-29T00:00:00Z", &["2011-12-30T10:00:00Z", "2012-12-29T10:00:00Z"]),
        // Half an hour, and a zone far ahead.
        (&["15 2 * * *"], "Australia/Lord_Howe", "2026-10-03T16:00:00Z", &["2026-10-04T15:15:00Z"]),
        (&["0 0 * * *"], "Pacific/Kiritimati", "2026-01-01T00:00:00Z", &["2026-01-01T10:00:00Z"]),
    ];
    for (crons, zone, from, expected) in rows {
        let (schedule, mut now) = (schedule(crons, zone), at(from));
        for want in *expected {
            now = schedule.after(now).unwrap();
            assert_eq!(show(now), *want, "{crons:?} in {zone} after {from}");
        }
    }
}

#[test]
fn what_is_none() {
    let rows = [
        (&["* * * *"][..], "UTC", "4 fields"),
        (&["60 * * * *"], "UTC", "`60` is no minute"),
        (&["* 24 * * *"], "UTC", "hour"),
        (&["* * 0 * *"], "UTC", "day of the month"),
        (&["* * * foo *"], "UTC", "month"),
        (&["* * * * mon-sun"], "UTC", "ends before"),
        (&["*/0 * * * *"], "UTC", "above 0"),
        (&["+5 * * * *"], "UTC", "`+5`"),
        (&["0 0 31 2 *"], "UTC", "never comes"),
        (&["@reboot"], "UTC", "1 fields"),
        (&["0 0 * * *"], "Mars/Olympus", "no time zone"),
        (&[], "UTC", "no time is given"),
    ];
    for (crons, zone, expected) in rows {
        let crons: Vec<String> = crons.iter().map(|c| (*c).to_owned()).collect();
        let error = Schedule::parse(&crons, zone).unwrap_err().to_string();
        assert!(error.contains(expected), "{crons:?}: {error}");
    }
}

#[test]
fn the_shortest_interval() {
    let rows: [(&[&str], u64); 6] = [
        (&["*/15 * * * *"], 900),
        (&["0 3 * * *"], 86_400),
        (&["0 0 1 * *"], 28 * 86_400),
        (&["0,10 * * * *"], 600),
        (&["* * * * * *"], 1),
        (&["0 3 * * *", "30 3 * * *"], 1800),
    ];
    for (crons, secs) in rows {
        assert_eq!(schedule(crons, "Europe/Lisbon").shortest_interval(), Millis::from_secs(secs), "{crons:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Times rise, and none is left out between: what comes after anything in between is the same.
    #[test]
    fn times_rise(
        minute in prop_oneof![Just("*".to_owned()), Just("*/7".to_owned()), (0..60_u8).prop_map(|n| n.to_string())],
        hour in prop_oneof![Just("*".to_owned()), (0..24_u8).prop_map(|n| n.to_string())],
        zone in prop_oneof![Just("UTC"), Just("Europe/Lisbon"), Just("America/Sao_Paulo"), Just("Australia/Lord_Howe"), Just("Pacific/Apia")],
        from in 0_i64..4_000_000_000_000, part in 0_i64..1000,
    ) {
        let schedule = schedule(&[&format!("{minute} {hour} * * *")], zone);
        let first = schedule.after(Timestamp(from)).unwrap();
        prop_assert!(first > Timestamp(from) && first.since(Timestamp(from)).0 <= 3 * 86_400_000);
        let between = Timestamp(from + (first.0 - from - 1) * part / 1000);
        prop_assert_eq!(schedule.after(between), Some(first));
        prop_assert!(schedule.after(first).unwrap() > first);
    }

    #[test]
    fn no_text_panics(text in "[-*/,0-9a-zL?@ ]{0,30}") {
        let _ = Schedule::parse(&[text], "UTC");
    }
}
