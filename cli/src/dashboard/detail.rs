//! One runtime in full: the rules that hold, its pods, its past and a plot of what it had to do.

use std::collections::VecDeque;

use askama::Template;

use super::board::{Board, Sample, Seen};
use super::past::{Id, Transition};
use super::rows::{Row, Tone};
use crate::verb::Verb;
use crate::{explain, show, verb};

/// Transitions that are shown.
const SHOWN: usize = 50;
/// Width and height of the plot, in its own units.
const PLOT: (f64, f64) = (600.0, 120.0);

#[derive(Template)]
#[template(path = "fragment.html")]
pub(super) struct Detail {
    row: Row,
    headline: String,
    rules: Vec<String>,
    pods: Vec<Pod>,
    more_pods: usize,
    transitions: Vec<Transition>,
    /// Why the time before the page was opened is missing.
    past_unknown: Option<String>,
    plot: Option<Plot>,
    actions: Vec<Action>,
    acts: bool,
}

struct Pod {
    name: String,
    state: &'static str,
    tone: &'static str,
    epoch: i64,
    behind: bool,
    in_flight: String,
    held_by: Vec<String>,
    message: String,
    /// When its drain is to end, as long as it holds one up.
    until: Option<String>,
}

/// A button; one that cannot be used says why.
struct Action {
    verb: &'static str,
    refused: Option<String>,
}

struct Plot {
    in_flight: String,
    queued: String,
    most: i64,
    from: String,
    until: String,
}

impl Detail {
    pub(super) fn of(board: &Board, id: &Id, acts: bool) -> Option<Self> {
        let seen = board.runtimes.get(id)?;
        let runtime = &seen.runtime;
        let status = runtime.status.clone().unwrap_or_default();
        let text = explain::text(runtime);
        let mut lines = text.lines();
        let headline = lines.next().unwrap_or_default().to_owned();
        let pods: Vec<Pod> = status.pods.iter().map(|pod| Self::pod(pod, &status)).collect();
        Some(Self {
            row: Row::of(runtime, board, false),
            headline,
            rules: lines.map(|line| line.trim_start_matches("- ").to_owned()).collect(),
            more_pods: usize::try_from(status.replicas).unwrap_or(0).saturating_sub(pods.len()),
            pods,
            transitions: timeline(board, id, seen),
            past_unknown: board.past.unknown.clone(),
            plot: Plot::of(&seen.samples),
            actions: Verb::ALL.into_iter().map(|verb| Self::action(verb, seen)).collect(),
            acts,
        })
    }

    fn pod(pod: &crds::PodReport, status: &crds::AgentRuntimeStatus) -> Pod {
        let tone = match pod.state {
            crds::RuntimeState::Running => Tone::Good,
            crds::RuntimeState::Paused | crds::RuntimeState::Stopped => Tone::Held,
            crds::RuntimeState::Unknown => Tone::Bad,
            _ => Tone::Moving,
        };
        Pod {
            name: pod.name.clone(),
            state: pod.state.as_str(),
            tone: tone.as_str(),
            epoch: pod.acknowledged_epoch,
            behind: pod.acknowledged_epoch < status.epoch,
            in_flight: show::number(pod.in_flight),
            held_by: pod.held_by.clone(),
            message: pod.message.clone().unwrap_or_default(),
            until: status.drain_deadline.clone().filter(|_| !has_drained(pod, status)),
        }
    }

    fn action(verb: Verb, seen: &Seen) -> Action {
        let refused = verb::plan(verb, &seen.runtime, &verb::Wish::default()).err().map(|error| error.to_string());
        let redundant = || verb::redundant(verb, &seen.runtime).map(str::to_owned);
        Action { verb: verb.word(), refused: refused.or_else(redundant) }
    }
}

/// Whether a pod no longer holds a drain up: it has acknowledged the newest command and nothing runs in it.
fn has_drained(pod: &crds::PodReport, status: &crds::AgentRuntimeStatus) -> bool {
    let is_held = matches!(pod.state, crds::RuntimeState::Paused | crds::RuntimeState::Stopped);
    is_held && pod.acknowledged_epoch >= status.epoch && pod.in_flight == Some(0)
}

/// What it did, newest first: from Events until the page was opened, and as the page has seen it from then on.
fn timeline(board: &Board, id: &Id, seen: &Seen) -> Vec<Transition> {
    let Some(opened) = seen.transitions.front() else { return Vec::new() };
    let uid = seen.runtime.metadata.uid.as_deref().unwrap_or_default();
    let before = board.past.before(id, uid, opened.at);
    // What it was found doing began with the last of the Events.
    let known = before.last().is_some_and(|last| last.reason == opened.reason);
    let mut all: Vec<Transition> = before;
    if let Some(last) = all.last_mut().filter(|_| known) {
        (last.state, last.source) = (opened.state.clone(), opened.source.clone());
    }
    all.extend(seen.transitions.iter().skip(usize::from(known)).cloned());
    all.into_iter().rev().take(SHOWN).collect()
}

impl Plot {
    /// Steps: a value holds until the next one is known.
    fn of(samples: &VecDeque<Sample>) -> Option<Self> {
        let (first, last) = (samples.front()?, samples.back()?);
        let most = samples.iter().map(|sample| sample.in_flight.max(sample.queued)).max().unwrap_or(0).max(1);
        let span = (last.at.as_millisecond() - first.at.as_millisecond()).max(1);
        let line = |value: fn(&Sample) -> i64| {
            let mut points = String::new();
            let mut height = None;
            for sample in samples {
                let x = share(sample.at.as_millisecond() - first.at.as_millisecond(), span) * PLOT.0;
                let y = PLOT.1 - share(value(sample), most) * PLOT.1;
                if let Some(before) = height {
                    points.push_str(&format!("{x:.1},{before:.1} "));
                }
                points.push_str(&format!("{x:.1},{y:.1} "));
                height = Some(y);
            }
            points
        };
        let clock = |sample: &Sample| sample.at.strftime("%H:%M:%S UTC").to_string();
        Some(Self {
            in_flight: line(|sample| sample.in_flight),
            queued: line(|sample| sample.queued),
            most,
            from: clock(first),
            until: clock(last),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place on a plot of some hundred points")]
fn share(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::pausing;

    fn sample(second: i64, in_flight: i64) -> Sample {
        Sample { at: jiff::Timestamp::from_second(second).unwrap(), in_flight, queued: 0 }
    }

    #[test]
    fn a_pod_counts_down_until_it_holds_nothing_up() {
        let mut runtime = pausing();
        let status = runtime.status.as_mut().unwrap();
        status.drain_deadline = Some("2026-01-01T00:00:30Z".to_owned());
        let until = |status: &crds::AgentRuntimeStatus| Detail::pod(&status.pods[0], status).until;
        assert_eq!(until(status), status.drain_deadline, "it is at work");
        let epoch = status.epoch;
        let pod = &mut status.pods[0];
        (pod.state, pod.acknowledged_epoch, pod.in_flight) = (crds::RuntimeState::Paused, epoch, Some(0));
        assert_eq!(until(status), None);
        status.pods[0].acknowledged_epoch -= 1;
        assert_eq!(until(status), status.drain_deadline, "it holds an older command");
    }

    #[test]
    fn the_time_before_the_page_was_opened_is_told_by_events() {
        let mut board = Board::default();
        let transition = |second: i64, reason: &str| Transition {
            at: jiff::Timestamp::from_second(second).unwrap(),
            state: "paused".to_owned(),
            source: "Spec".to_owned(),
            reason: reason.to_owned(),
            says: String::new(),
        };
        let mut runtime = pausing();
        runtime.metadata.uid = Some("u".to_owned());
        let seen = Seen {
            runtime,
            transitions: VecDeque::from([transition(100, "Paused"), transition(110, "Running")]),
            samples: VecDeque::new(),
        };
        let id = ("shop".to_owned(), "site-watch".to_owned());
        let shown = |board: &Board| -> Vec<(i64, String, String)> {
            let all = timeline(board, &id, &seen);
            all.into_iter().map(|one| (one.at.as_second(), one.state, one.reason)).collect()
        };
        let said = |second: i64, state: &str, reason: &str| (second, state.to_owned(), reason.to_owned());
        assert_eq!(shown(&board), [said(110, "paused", "Running"), said(100, "paused", "Paused")]);
        for (second, reason) in [(50, "Pausing"), (90, "Paused"), (110, "Running")] {
            let event = serde_json::json!({
                "metadata": { "name": reason },
                "involvedObject": { "namespace": "shop", "name": "site-watch", "uid": "u" },
                "reason": reason, "eventTime": jiff::Timestamp::from_second(second).unwrap().to_string(),
            });
            let event = serde_json::from_str(&event.to_string()).unwrap();
            board.past.take(Ok(kube::runtime::watcher::Event::Apply(event)));
        }
        let whole = [said(110, "paused", "Running"), said(90, "paused", "Paused"), said(50, "", "Pausing")];
        assert_eq!(shown(&board), whole, "what it was found doing began with its Event");
    }

    #[test]
    fn a_plot_is_of_steps_and_keeps_to_its_frame() {
        let plot = Plot::of(&VecDeque::from([sample(0, 0), sample(10, 4), sample(20, 2)])).unwrap();
        assert_eq!(plot.in_flight.trim(), "0.0,120.0 300.0,120.0 300.0,0.0 600.0,0.0 600.0,60.0");
        assert_eq!((plot.most, plot.from.as_str(), plot.until.as_str()), (4, "00:00:00 UTC", "00:00:20 UTC"));
        assert!(Plot::of(&VecDeque::new()).is_none());
        assert_eq!(Plot::of(&VecDeque::from([sample(5, 0)])).unwrap().in_flight.trim(), "0.0,120.0");
    }
}
