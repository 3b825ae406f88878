//! Windows across the days on which clocks change, and against a search by brute force.

use crds::HeldState;
use proptest::prelude::*;

use super::*;

fn window(cron: Option<&str>, start: Option<&str>, zone: Option<&str>, seconds: i32) -> MaintenanceWindow {
    MaintenanceWindow {
        name: "nightly".to_owned(),
        cron: cron.map(str::to_owned),
        start: start.map(str::to_owned),
        time_zone: zone.map(str::to_owned),
        duration_seconds: seconds,
        state: HeldState::Paused,
        reason: String::new(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Whether it is open, and the next edge, at a moment.
fn looked(window: &MaintenanceWindow, now: &str) -> (bool, Option<String>) {
    let opening = look(window, at(now)).unwrap();
    (opening.open, opening.edge.map(|edge| edge.to_string()))
}

#[test]
fn a_window_is_open_from_its_beginning_and_not_at_its_end() {
    let nightly = window(Some("0 22 * * *"), None, Some("Europe/Berlin"), 7200);
    let edge = |text: &str| Some(text.to_owned());
    assert_eq!(looked(&nightly, "2026-11-25T20:59:59.9Z"), (false, edge("2026-11-25T21:00:00Z")));
    assert_eq!(looked(&nightly, "2026-11-25T21:00:00Z"), (true, edge("2026-11-25T23:00:00Z")));
    assert_eq!(looked(&nightly, "2026-11-25T22:59:59.9Z"), (true, edge("2026-11-25T23:00:00Z")));
    assert_eq!(looked(&nightly, "2026-11-25T23:00:00Z"), (false, edge("2026-11-26T21:00:00Z")));
}

#[test]
fn a_window_whose_time_the_clocks_leave_out_begins_right_after_the_gap() {
    // On 29 March 2026 the clocks of Berlin go from 02:00 to 03:00, which is 01:00 in UTC.
    let nightly = window(Some("30 2 * * *"), None, Some("Europe/Berlin"), 3600);
    assert!(!looked(&nightly, "2026-03-29T00:59:59Z").0);
    assert_eq!(looked(&nightly, "2026-03-29T01:00:00Z"), (true, Some("2026-03-29T02:00:00Z".to_owned())));
    assert!(!looked(&nightly, "2026-03-29T02:00:00Z").0);
    // The next day it is 02:30 again, which is 00:30 in UTC.
    assert!(looked(&nightly, "2026-03-30T00:30:00Z").0);
}

#[test]
fn a_window_over_a_gap_lasts_as_long_as_any_other() {
    let nightly = window(Some("0 1 * * *"), None, Some("Europe/Berlin"), 4 * 3600);
    assert_eq!(looked(&nightly, "2026-03-29T00:00:00Z"), (true, Some("2026-03-29T04:00:00Z".to_owned())));
}

#[test]
fn a_window_whose_time_comes_twice_begins_once() {
    // On 25 October 2026 the clocks of Berlin go from 03:00 back to 02:00, which is 01:00 in UTC.
    let nightly = window(Some("30 2 * * *"), None, Some("Europe/Berlin"), 1800);
    assert_eq!(looked(&nightly, "2026-10-25T00:30:00Z"), (true, Some("2026-10-25T01:00:00Z".to_owned())));
    assert!(!looked(&nightly, "2026-10-25T01:30:00Z").0, "02:30 comes again, and counts once");
}

#[test]
fn a_start_without_an_offset_is_on_the_clocks_of_its_zone() {
    let edge = |window: &MaintenanceWindow| looked(window, "2026-01-01T00:00:00Z").1.unwrap();
    let once = |start, zone| window(None, Some(start), zone, 3600);
    assert_eq!(edge(&once("2026-07-01T02:00", Some("Europe/Berlin"))), "2026-07-01T00:00:00Z");
    assert_eq!(edge(&once("2026-07-01T02:00", None)), "2026-07-01T02:00:00Z");
    assert_eq!(edge(&once("2026-07-01T02:00:00+05:30", None)), "2026-06-30T20:30:00Z");
    assert_eq!(edge(&once("2026-07-01T02:00Z", None)), "2026-07-01T02:00:00Z");
    // In the gap it is as much later; of the two it is the first.
    assert_eq!(edge(&once("2026-03-29T02:30", Some("Europe/Berlin"))), "2026-03-29T01:30:00Z");
    assert_eq!(edge(&once("2026-10-25T02:30", Some("Europe/Berlin"))), "2026-10-25T00:30:00Z");
}

#[test]
fn a_window_of_once_does_not_come_again() {
    let once = window(None, Some("2026-07-01T02:00:00Z"), None, 60);
    assert!(looked(&once, "2026-07-01T02:00:59Z").0);
    assert_eq!(looked(&once, "2026-07-01T02:01:00Z"), (false, None));
}

#[test]
fn what_cannot_be_used_is_named_with_its_field() {
    let wrong = |window: MaintenanceWindow| look(&window, at("2026-01-01T00:00:00Z")).unwrap_err();
    for (window, field) in [
        (window(Some("0 2 * * *"), None, Some("Europe/Berlín"), 60), "[nightly].timeZone: there is no time zone"),
        (window(Some("0 25 * * *"), None, None, 60), "[nightly].cron: "),
        (window(Some("0 0 30 2 *"), None, None, 60), "[nightly].cron: it never comes due"),
        (window(None, Some("2026-02-31T00:00:00Z"), None, 60), "[nightly].start: "),
    ] {
        let said = wrong(window);
        assert!(said.starts_with("spec.maintenanceWindows") && said.contains(field), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However it is computed: open exactly when some beginning is at most its length ago.
    #[test]
    fn it_is_open_exactly_when_it_began_less_than_its_length_ago(
        cron in prop::sample::select(vec!["0 2 * * *", "30 2 * * *", "*/15 1-3 * * *", "0 * * * 0", "0 0 29 3,10 *"]),
        zone in prop::sample::select(vec!["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
        seconds in 1i32..20_000,
        // Around the changes of the clocks in March and October 2026.
        day in prop::sample::select(vec![1_774_656_000i64, 1_792_800_000, 1_775_260_800, 1_793_404_800]),
        offset in 0i64..172_800,
    ) {
        let window = window(Some(cron), None, Some(zone), seconds);
        let now = Timestamp::from_second(day + offset).unwrap();
        let opening = look(&window, now).unwrap();
        let lasts = SignedDuration::from_secs(i64::from(seconds));
        let from = (now - lasts).to_zoned(super::zone(Some(zone)).unwrap());
        let began = Cron::from_str(cron).unwrap().find_next_occurrence(&from, false).unwrap().timestamp();
        prop_assert_eq!(opening.open, began <= now, "began {}", began);
        let edge = opening.edge.unwrap();
        prop_assert!(edge > now);
        if !opening.open {
            prop_assert!(look(&window, edge).unwrap().open, "what is closed opens at its edge");
        }
    }
}

/// Each field of an expression that is valid and never comes due, in zones with and without changes of their clocks.
#[test]
fn an_expression_that_never_comes_due_is_found_out_at_once() {
    for (cron, zone) in [
        ("0 0 30 2 *", None),
        ("0 0 31 2 *", Some("Europe/Berlin")),
        ("* * 31 4,6,9,11 *", Some("America/New_York")),
        ("0 0 30,31 2 *", Some("Australia/Lord_Howe")),
    ] {
        let never = window(Some(cron), None, zone, 60);
        let best = (0..5)
            .map(|_| {
                let begun = std::time::Instant::now();
                let outcome = look(&never, at("2026-11-25T21:00:00Z"));
                assert_eq!(outcome, Err("spec.maintenanceWindows[nightly].cron: it never comes due".to_owned()));
                begun.elapsed()
            })
            .min()
            .unwrap();
        // Without a bound it is forty times as much.
        let most = if cfg!(debug_assertions) { 50 } else { 5 };
        assert!(best < std::time::Duration::from_millis(most), "{cron}: {best:?}");
    }
}

#[test]
fn a_rare_expression_is_found_however_far_it_lies_ahead() {
    let edge = |cron: &str, now: &str| looked(&window(Some(cron), None, None, 60), now);
    assert_eq!(edge("0 0 29 2 *", "2096-03-01T00:00:00Z"), (false, Some("2104-02-29T00:00:00Z".to_owned())));
    assert_eq!(edge("0 0 29 2 *", "2026-01-01T00:00:00Z"), (false, Some("2028-02-29T00:00:00Z".to_owned())));
    // One that began in the year before is still open in the next.
    let long = window(Some("0 0 31 12 *"), None, None, 31 * 86_400);
    assert!(looked(&long, "2027-01-30T23:59:59Z").0 && !looked(&long, "2027-01-31T00:00:00Z").0);
}
