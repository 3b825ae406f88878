//! The dashboard when what serves it goes away: it says so, and comes back by itself.

use serde_json::json;

use crate::browser::Browser;
use crate::space::{Space, runtime};

const SIZE: (u32, u32) = (1280, 900);

#[test]
fn a_page_says_that_it_is_offline_and_comes_back_by_itself_with_what_has_changed() {
    let space = Space::new("dashboard-back");
    space.start(&runtime("demo", 1, &json!({})));
    let Some(mut browser) = Browser::open_to_look(&space.name, SIZE) else { return };
    let state = format!("#row-{}--demo [data-label='State']", space.name);
    browser.shows("#connection", "live");
    browser.shows(&state, "running");
    browser.end_server();
    browser.shows("#connection", "offline");
    space.patch("demo", &json!({ "desiredState": "paused" }));
    space.ready("demo");
    assert_eq!(browser.text(&state), "running", "nobody has told it");
    browser.serve_again(&space.name, &["--read-only"]);
    browser.shows("#connection", "live");
    browser.shows(&state, "paused");
    // The same for a page of one runtime.
    browser.visit(&format!("/runtimes/{}/demo", space.name));
    browser.shows("#connection", "live");
    browser.end_server();
    browser.shows("#connection", "offline");
    space.patch("demo", &json!({ "desiredState": "running" }));
    space.ready("demo");
    browser.serve_again(&space.name, &["--read-only"]);
    browser.shows("#detail .state", "running");
    browser.shows("#connection", "live");
}

#[test]
fn a_server_that_hangs_with_its_connections_open_is_noticed() {
    let space = Space::new("dashboard-hangs");
    space.start(&runtime("demo", 1, &json!({})));
    let Some(browser) = Browser::open_to_look(&space.name, SIZE) else { return };
    browser.shows("#connection", "live");
    browser.signal_server("STOP");
    let noticed = browser.shows("#connection", "offline");
    println!("a server that hangs is noticed after {} s", noticed.as_secs());
    assert!(noticed.as_secs() < 40, "{noticed:?}");
    browser.signal_server("CONT");
    browser.shows("#connection", "live");
}

#[test]
fn a_page_of_a_server_that_has_begun_anew_says_which_address_to_open() {
    let space = Space::new("dashboard-anew");
    let Some(mut browser) = Browser::open(&space.name, SIZE) else { return };
    browser.shows("#connection", "live");
    browser.end_server();
    browser.shows("#connection", "offline");
    browser.serve_again(&space.name, &[]);
    browser.shows("#connection", "open the address that kubectl hive dashboard printed");
}
