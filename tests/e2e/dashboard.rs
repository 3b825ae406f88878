//! The dashboard in a real browser: what a person sees, and what happens when they press something.

use serde_json::json;

use crate::browser::Browser;
use crate::space::{RELEASE, SYSTEM, Space, attempt, eventually, kubectl, runtime};

const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (500, 900);

fn row(space: &Space, name: &str, column: &str) -> String {
    format!("#row-{}--{name} [data-label='{column}']", space.name)
}

#[test]
fn a_pause_with_work_in_flight_is_asked_for_watched_and_undone() {
    let space = Space::new("dashboard");
    space.start(&runtime("demo", 12, &json!({})));
    space.start(&runtime("other", 1, &json!({ "desiredState": "paused" })));
    let Some(browser) = Browser::open(&space.name, DESKTOP) else { return };
    browser.shows("#connection", "live");
    browser.shows(&row(&space, "demo", "State"), "running");
    let colours = |name: &str| {
        let script =
            format!("return getComputedStyle(document.querySelector(\"{} .state\")).color", row(&space, name, "State"));
        browser.run(&script)
    };
    assert_ne!(colours("demo"), colours("other"), "what is paused is never green");
    browser.picture("dashboard.png");
    let id = space.work(&space.pod("demo"), "slow");
    browser.click(&format!("#row-{}--demo a", space.name));
    browser.shows("h1", "demo");
    browser.press("pause");
    browser.write("#dialog input[name=reason]", "bad <model>");
    browser.press("pause 1");
    browser.shows("#dialog", "Asked for: 1");
    browser.press("Close");
    browser.shows("#detail", "pausing");
    browser.shows("#detail", &id);
    browser.shows("#detail [data-label='Until'] time", "in ");
    browser.shows("#detail", "bad <model>");
    browser.shows("#executions", &id);
    browser.press("Follow the log");
    browser.shows("#log", &id);
    browser.run("window.scrollTo(0, 0)");
    browser.picture("dashboard-detail.png");
    browser.shows("#detail .state", "paused");
    assert_eq!(space.ready("demo")["status"]["state"], "paused");
    let refused = browser.text("#why-pause");
    assert_eq!(refused, "its spec says paused already", "a button that does nothing says why");
    browser.press("resume");
    browser.press("resume 1");
    browser.shows("#dialog", "Asked for: 1");
    space.wait("demo", "running", |status| status["state"] == "running");
}

#[test]
fn many_are_changed_only_with_their_number_confirmed_and_a_freeze_is_made_and_taken_away() {
    let space = Space::new("dashboard-many");
    for name in ["a", "b"] {
        space.start(&runtime(name, 1, &json!({})));
    }
    let Some(browser) = Browser::open(&space.name, DESKTOP) else { return };
    browser.shows("#shown", "2");
    browser.write("input[name=q]", "nothing is called so");
    browser.press("Filter");
    browser.shows("#empty", "No runtime fits");
    browser.visit("/");
    browser.shows("#connection", "live");
    browser.click("#all");
    browser.shows("#selected", "2 selected");
    browser.press("pause");
    browser.write("#dialog input[name=count]", "2");
    browser.press("pause 2");
    browser.shows("#dialog", "Asked for: 2");
    browser.press("Close");
    for name in ["a", "b"] {
        browser.shows(&row(&space, name, "State"), "paused");
        assert_eq!(space.ready(name)["status"]["state"], "paused");
    }
    let freeze = format!("page-{}", space.name);
    browser.visit("/freezes");
    browser.write("form.stack input[name=name]", &freeze);
    browser.click("form.stack select[name=namespace] option:nth-of-type(2)");
    browser.write("form.stack input[name=reason]", "wrong answers");
    browser.press("Freeze");
    eventually("the freeze holds", || attempt(&["get", "agentfreeze", &freeze], None).is_ok(), String::new);
    space.wait("a", "frozen", |status| status["source"] == json!(format!("Freeze {freeze}")));
    browser.visit("/");
    browser.shows(&row(&space, "a", "Why"), "wrong answers");
    browser.visit("/freezes");
    browser.click(&format!("form[action='/freezes/{freeze}/delete'] button"));
    eventually("it is gone", || attempt(&["get", "agentfreeze", &freeze], None).is_err(), String::new);
}

#[test]
fn it_fits_a_phone_and_works_by_keyboard() {
    let space = Space::new("dashboard-phone");
    space.start(&runtime("demo", 1, &json!({})));
    let Some(browser) = Browser::open(&space.name, PHONE) else { return };
    browser.shows("#connection", "live");
    let wide = browser.run("return document.documentElement.scrollWidth - window.innerWidth");
    assert!(wide.as_i64().unwrap() <= 0, "it scrolls sideways by {wide}");
    browser.picture("dashboard-phone.png");
    let reached = browser.run(
        "const all = [...document.querySelectorAll('a, button, input, select')].filter((e) => !e.disabled && e.checkVisibility()); \
         return all.every((e) => { e.focus(); return document.activeElement === e; })",
    );
    assert_eq!(reached, true, "everything that can be used can have the focus");
    browser.visit(&format!("/runtimes/{}/demo", space.name));
    browser.shows("#detail", "running");
    let wide = browser.run("return document.documentElement.scrollWidth - window.innerWidth");
    assert!(wide.as_i64().unwrap() <= 0, "the detail scrolls sideways by {wide}");
}

#[test]
fn a_thousand_runtimes_do_not_make_it_slow() {
    // Their Events and statuses would hold up those of every other test.
    let space = Space::alone("dashboard-thousand");
    // The operator leaves them alone, so that the page is what is measured.
    let object = |number: usize| {
        json!({ "apiVersion": "agents.hive.dev/v1alpha1", "kind": "AgentRuntime",
            "metadata": { "name": format!("r{number:04}"), "annotations": { "agents.hive.dev/reconcile": "disabled" } },
            "spec": { "replicas": 0, "desiredState": "paused", "agent": { "inline": { "graph": {} } } } })
    };
    let all: Vec<_> = (0..1000).map(object).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": all }).to_string();
    attempt(&["--namespace", &space.name, "create", "-f", "-"], Some(&list)).unwrap();
    let Some(browser) = Browser::open(&space.name, DESKTOP) else { return };
    browser.shows("#shown", "1000");
    browser.shows("#connection", "live");
    browser.run("window.longest = 0; new PerformanceObserver((list) => { for (const e of list.getEntries()) window.longest = Math.max(window.longest, e.duration); }).observe({ type: 'longtask' });");
    space.kubectl(&["annotate", "agentruntime", "r0500", "agents.hive.dev/reason=it changes"]);
    let shown = browser.shows(&row(&space, "r0500", "Why"), "it changes").as_millis();
    let longest = browser.run("return window.longest").as_f64().unwrap();
    println!("1,000 runtimes: a change is shown within {shown} ms; the longest task of the page took {longest:.0} ms");
    assert!(shown < 5_000, "{shown} ms");
    assert!(longest < 1_000.0, "the page stood still for {longest} ms");
}

#[test]
fn without_an_operator_it_says_so() {
    let space = Space::alone("dashboard-away");
    let Some(browser) = Browser::open(&space.name, DESKTOP) else { return };
    browser.shows("#connection", "live");
    let operator = format!("deployment/{RELEASE}");
    let before = kubectl(&["-n", SYSTEM, "get", &operator, "-o", "jsonpath={.spec.replicas}"]);
    kubectl(&["-n", SYSTEM, "scale", &operator, "--replicas=0"]);
    browser.shows("#troubles", "no operator is ready");
    kubectl(&["-n", SYSTEM, "scale", &operator, &format!("--replicas={before}")]);
    kubectl(&["-n", SYSTEM, "rollout", "status", &operator, "--timeout=120s"]);
    let begun = std::time::Instant::now();
    while !browser.text("#troubles").is_empty() {
        assert!(begun.elapsed() < crate::space::PATIENCE, "the trouble never goes");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
