//! Maintenance windows on a real cluster: open, over, and refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::space::{Space, condition, runtime};

/// A moment so many seconds from now, as a window writes it.
fn from_now(seconds: u64) -> String {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(seconds);
    let text = std::process::Command::new("date")
        .args(["--utc", "--date", &format!("@{}", unix.as_secs()), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(text.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_window_holds_the_runtime_for_its_time_and_no_longer() {
    let space = Space::new("window");
    let started = space.start(&runtime("demo", 1, &json!({})));
    let window = json!({ "name": "move", "start": from_now(4), "durationSeconds": 12, "reason": "moving house" });
    space.patch("demo", &json!({ "maintenanceWindows": [window] }));
    let held =
        space.wait("demo", "held", |status| condition(status, "Ready") == ("True".to_owned(), "Window".to_owned()));
    let status = &held["status"];
    assert_eq!((&status["state"], &status["source"]), (&json!("paused"), &json!("Window move")));
    assert!(status["conditions"].to_string().contains("moving house"));
    let over = space.wait("demo", "over", |status| status["source"] == "Spec" && status["state"] == "running");
    assert_eq!(over["spec"]["desiredState"], started["spec"]["desiredState"], "the spec is the user's");
    // One that is always open, in a zone whose rules the image brings along.
    let always =
        json!({ "name": "always", "cron": "* * * * *", "timeZone": "Australia/Lord_Howe", "durationSeconds": 600 });
    space.patch("demo", &json!({ "maintenanceWindows": [always] }));
    space
        .wait("demo", "held by the other", |status| status["source"] == "Window always" && status["state"] == "paused");
    space.patch("demo", &json!({ "maintenanceWindows": null }));
    assert_eq!(space.ready("demo")["status"]["state"], "running");
}

#[test]
fn a_zone_that_there_is_not_is_stalled_with_its_field() {
    let space = Space::new("window-zone");
    space.start(&runtime("demo", 1, &json!({})));
    let window = json!({ "name": "odd", "cron": "0 2 * * *", "timeZone": "Mars/Olympus", "durationSeconds": 60 });
    space.patch("demo", &json!({ "maintenanceWindows": [window], "desiredState": "paused" }));
    let stalled = space.wait("demo", "Stalled", |status| {
        condition(status, "Stalled").1 == "InvalidWindow" && status["state"] == "paused"
    });
    assert!(stalled["status"]["conditions"].to_string().contains("spec.maintenanceWindows[odd].timeZone"));
}

#[test]
fn an_invalid_window_is_refused_with_the_fields_name() {
    let space = Space::new("window-refused");
    let window = |over: Value| {
        let mut window = json!({ "name": "w", "cron": "0 2 * * *", "durationSeconds": 60 });
        crate::space::merge(&mut window, &over);
        window.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        window
    };
    let once = |start: &str, zone: Option<&str>| window(json!({ "cron": null, "start": start, "timeZone": zone }));
    let apply = |windows: Value| space.apply(&runtime("demo", 1, &json!({ "maintenanceWindows": windows })));
    for (windows, said) in [
        (json!([window(json!({ "start": "2027-01-31T22:00:00Z" }))]), "give exactly one of cron and start"),
        (json!([window(json!({ "cron": null }))]), "give exactly one of cron and start"),
        (json!([window(json!({ "cron": "0 0 2 * * *" }))]), "five fields"),
        (json!([window(json!({ "name": "Not A Name" }))]), "lower-case letters, digits and hyphens"),
        (json!([once("next Tuesday, please", None)]), "write 2027-01-31T22:00:00Z"),
        (json!([once("2027-01-31T22:00:00Z", Some("Europe/Berlin"))]), "start has an offset already"),
        (json!([window(json!({ "durationSeconds": 0 }))]), "durationSeconds"),
        (json!([window(json!({ "state": "running" }))]), "state"),
        (json!([window(json!({})), window(json!({}))]), "Duplicate value"),
    ] {
        let refused = apply(windows).expect_err(said);
        assert!(refused.contains(said), "{said}: {refused}");
    }
    for good in [once("2027-01-31T22:00", Some("Europe/Berlin")), once("2027-01-31T22:00:00+05:30", None)] {
        apply(json!([good])).unwrap();
    }
}
