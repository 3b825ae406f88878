//! How the dashboard looks: dark where the person prefers it and readable in both, and what happened before it was opened.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::space::{Space, eventually, runtime};

const SIZE: (u32, u32) = (1280, 900);

/// The luminance of the ground, and the lowest contrast of any text with what it stands on, as WCAG 2 defines both.
const MEASURE: &str = "
  const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = (e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const faded = (e) => e.closest('[disabled], [aria-disabled=true]');
  const all = [...document.querySelectorAll('body *')].filter((e) => own(e) && e.checkVisibility() && !faded(e));
  const worst = all.map((e) => [contrast(e), `${e.tagName} ${e.className} ${e.textContent}`]).sort((a, b) => a[0] - b[0])[0];
  return { ground: light(ground(document.body)), count: all.length, contrast: worst[0], of: worst[1] };
";

#[test]
fn it_is_dark_where_that_is_preferred_and_every_word_is_readable_in_both() {
    let space = Space::new("dashboard-dark");
    space.start(&runtime("runs", 1, &json!({})));
    space.start(&runtime("rests", 1, &json!({ "desiredState": "paused" })));
    // In trouble, so that every tone is there.
    let lost = json!({ "agent": { "inline": null, "configMapRef": { "name": "nobody", "key": "agent.yaml" } } });
    let mut stray = runtime("stray", 1, &lost);
    stray["spec"]["agent"].as_object_mut().unwrap().remove("inline");
    space.apply(&stray).unwrap();
    space.wait("stray", "in trouble", |status| status["reason"] == "AgentNotFound");
    let Some(browser) = Browser::open(&space.name, SIZE) else { return };
    for path in ["/".to_owned(), format!("/runtimes/{}/rests", space.name), "/freezes".to_owned()] {
        for (scheme, dark) in [("light", false), ("dark", true)] {
            browser.prefer(scheme);
            browser.visit(&path);
            if path != "/freezes" {
                browser.shows("#connection", "live");
            }
            let seen: Value = browser.run(MEASURE);
            let number = |name: &str| seen[name].as_f64().unwrap();
            assert!(number("count") > 5.0, "{path}: {seen}");
            let ground = number("ground");
            assert!(if dark { ground < 0.05 } else { ground > 0.9 }, "{path} {scheme}: {seen}");
            assert!(number("contrast") >= 4.5, "{path} {scheme}: {seen}");
        }
    }
    browser.prefer("dark");
    browser.visit("/");
    browser.shows("#connection", "live");
    browser.picture("dashboard-dark.png");
}

#[test]
fn a_page_tells_what_happened_before_it_was_opened() {
    let space = Space::new("dashboard-past");
    space.start(&runtime("demo", 1, &json!({})));
    space.patch("demo", &json!({ "desiredState": "paused" }));
    let paused = space.ready("demo")["status"]["reason"].as_str().unwrap().to_owned();
    space.patch("demo", &json!({ "desiredState": "running" }));
    space.ready("demo");
    // Events are written beside the status.
    let told = || -> Vec<Value> {
        let selector = "--field-selector=involvedObject.kind=AgentRuntime,involvedObject.name=demo";
        let list: Value = serde_json::from_str(&space.kubectl(&["get", "events", selector, "-o", "json"])).unwrap();
        list["items"].as_array().unwrap().clone()
    };
    let is_told = |events: &[Value], reason: &str| events.iter().any(|event| event["reason"] == reason);
    eventually("the pause is told", || is_told(&told(), &paused), || format!("{:?}", told()));
    let Some(browser) = Browser::open(&space.name, SIZE) else { return };
    browser.visit(&format!("/runtimes/{}/demo", space.name));
    for event in told() {
        browser.shows("#timeline", event["reason"].as_str().unwrap());
        browser.shows("#timeline", event["message"].as_str().unwrap());
    }
    let times =
        browser.run("return [...document.querySelectorAll('#timeline tbody time')].map((time) => time.dateTime)");
    let times: Vec<String> = serde_json::from_value(times).unwrap();
    let mut sorted = times.clone();
    sorted.sort();
    sorted.reverse();
    assert!(times.len() >= 2, "{times:?}");
    assert_eq!(times, sorted, "the newest first");
}
