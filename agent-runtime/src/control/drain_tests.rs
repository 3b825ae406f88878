use lifecycle::machine::Target;

use super::*;

const PHASES: [Phase; 10] = [
    Phase::Stopped,
    Phase::Starting(Target::Running),
    Phase::Starting(Target::Paused),
    Phase::Running,
    Phase::Pausing,
    Phase::Paused,
    Phase::Stopping(Next::Stopped),
    Phase::Stopping(Next::Running),
    Phase::Stopping(Next::Paused),
    Phase::Stopping(Next::Exit),
];
const WAIT: OnDrainTimeout = OnDrainTimeout::Wait;
const CHECKPOINT: OnDrainTimeout = OnDrainTimeout::Checkpoint;
/// Seconds of a stop that says none.
const DEFAULT: i64 = 20;

/// A moment from which both later and earlier ones are counted.
fn origin() -> (Instant, Timestamp) {
    (Instant::now() + Duration::from_secs(1000), Timestamp::from_second(1_000_000).unwrap())
}

/// What a deadline is, with its seconds from now.
type Cell = (Of, i64, OnDrainTimeout, bool);

fn drain((of, seconds, on_timeout, passed): Cell, now: (Instant, Timestamp)) -> Drain {
    let length = Duration::from_secs(seconds.unsigned_abs());
    let deadline = if seconds < 0 { now.0 - length } else { now.0 + length };
    Drain { of, deadline, shown: now.1 + SignedDuration::from_secs(seconds), on_timeout, passed }
}

fn cell(drain: Drain, now: (Instant, Timestamp)) -> Cell {
    let seconds = drain.shown.duration_since(now.1).as_secs();
    let length = Duration::from_secs(seconds.unsigned_abs());
    assert_eq!(drain.deadline, if seconds < 0 { now.0 - length } else { now.0 + length }, "both clocks say the same");
    (drain.of, seconds, drain.on_timeout, drain.passed)
}

fn decide(before: Option<Cell>, phase: Phase, verb: Verb, body: (Option<i64>, OnDrainTimeout)) -> Option<Cell> {
    let now = origin();
    let patience = Patience { seconds: body.0, on_timeout: body.1 };
    let set = Set { phase, verb, patience, by_default: DEFAULT, now };
    after(before.map(|before| drain(before, now)), set).map(|drain| cell(drain, now))
}

#[test]
fn every_verb_has_its_own_deadline_in_each_cell_of_the_table() {
    let (pausing, stopping) = (Phase::Pausing, Phase::Stopping(Next::Stopped));
    let (waits, passed) = (Some((Of::Pause, 30, WAIT, false)), Some((Of::Pause, -5, WAIT, true)));
    let (stops, stopped) = (Some((Of::Stop, 30, WAIT, false)), Some((Of::Stop, -5, WAIT, true)));
    let table = [
        // A pause sets its own, and only shortens one under way.
        (None, pausing, Verb::Pause, (None, WAIT), None),
        (None, pausing, Verb::Pause, (Some(10), WAIT), Some((Of::Pause, 10, WAIT, false))),
        (None, pausing, Verb::Pause, (Some(10), CHECKPOINT), Some((Of::Pause, 10, CHECKPOINT, false))),
        (waits, pausing, Verb::Pause, (Some(10), WAIT), Some((Of::Pause, 10, WAIT, false))),
        (waits, pausing, Verb::Pause, (Some(60), WAIT), waits),
        (waits, pausing, Verb::Pause, (None, WAIT), waits),
        (waits, pausing, Verb::Pause, (Some(60), CHECKPOINT), Some((Of::Pause, 30, CHECKPOINT, false))),
        (waits, pausing, Verb::Pause, (None, CHECKPOINT), Some((Of::Pause, 30, CHECKPOINT, false))),
        // What happens at it never becomes less.
        (
            Some((Of::Pause, 30, CHECKPOINT, false)),
            pausing,
            Verb::Pause,
            (Some(10), WAIT),
            Some((Of::Pause, 10, CHECKPOINT, false)),
        ),
        // One that has passed without effect comes at once when it is to have one.
        (passed, pausing, Verb::Pause, (Some(60), WAIT), passed),
        (passed, pausing, Verb::Pause, (Some(60), CHECKPOINT), Some((Of::Pause, -5, CHECKPOINT, false))),
        (passed, pausing, Verb::Pause, (Some(0), CHECKPOINT), Some((Of::Pause, -5, CHECKPOINT, false))),
        // A stop and a restart set their own, whatever a pause had.
        (None, stopping, Verb::Stop, (None, WAIT), Some((Of::Stop, DEFAULT, WAIT, false))),
        (None, stopping, Verb::Stop, (Some(60), WAIT), Some((Of::Stop, 60, WAIT, false))),
        (waits, stopping, Verb::Stop, (Some(60), WAIT), Some((Of::Stop, 60, WAIT, false))),
        (waits, stopping, Verb::Stop, (None, WAIT), Some((Of::Stop, DEFAULT, WAIT, false))),
        (passed, stopping, Verb::Stop, (Some(1), WAIT), Some((Of::Stop, 1, WAIT, false))),
        (passed, Phase::Stopping(Next::Paused), Verb::Restart, (Some(1), WAIT), Some((Of::Stop, 1, WAIT, false))),
        (passed, Phase::Stopping(Next::Running), Verb::Restart, (None, WAIT), Some((Of::Stop, DEFAULT, WAIT, false))),
        // A later stop shortens an earlier one's, and comes although an earlier one has passed.
        (stops, stopping, Verb::Stop, (Some(10), WAIT), Some((Of::Stop, 10, WAIT, false))),
        (stops, stopping, Verb::Stop, (Some(60), WAIT), stops),
        (stopped, stopping, Verb::Stop, (Some(10), WAIT), Some((Of::Stop, 10, WAIT, false))),
        // Another verb on the way out changes where it leads, and not how long it takes.
        (stops, Phase::Stopping(Next::Paused), Verb::Pause, (Some(1), CHECKPOINT), stops),
        (stops, Phase::Stopping(Next::Running), Verb::Start, (Some(1), CHECKPOINT), stops),
        // A shutdown has its own schedule, and keeps the earlier deadline of a stop.
        (stops, Phase::Stopping(Next::Exit), Verb::Stop, (Some(1), WAIT), stops),
        (waits, Phase::Stopping(Next::Exit), Verb::Stop, (Some(1), WAIT), None),
    ];
    for (before, phase, verb, body, expected) in table {
        assert_eq!(decide(before, phase, verb, body), expected, "{before:?} {phase:?} {verb} {body:?}");
    }
}

#[test]
fn no_cell_lets_one_verb_have_the_deadline_of_another() {
    let befores: Vec<Option<Cell>> = [Of::Pause, Of::Stop]
        .into_iter()
        .flat_map(|of| [WAIT, CHECKPOINT].map(|on_timeout| (of, on_timeout)))
        .flat_map(|(of, on_timeout)| [Some((of, 30, on_timeout, false)), Some((of, -5, on_timeout, true))])
        .chain([None])
        .collect();
    let bodies = [None, Some(0), Some(10), Some(60), Some(i64::MAX)];
    for (before, phase) in befores.iter().flat_map(|before| PHASES.map(|phase| (*before, phase))) {
        for (verb, seconds) in Verb::ALL.into_iter().flat_map(|verb| bodies.map(|seconds| (verb, seconds))) {
            for on_timeout in [WAIT, CHECKPOINT] {
                let cell = format!("{before:?} {phase:?} {verb:?} {seconds:?} {on_timeout:?}");
                let seconds = seconds.map(|seconds| seconds.min(i64::try_from(LONGEST.as_secs()).unwrap()));
                let after = decide(before, phase, verb, (seconds, on_timeout));
                let of = match phase {
                    Phase::Pausing => Some(Of::Pause),
                    Phase::Stopping(_) => Some(Of::Stop),
                    _ => None,
                };
                assert!(after.is_none_or(|(whose, ..)| Some(whose) == of), "{cell}: {after:?}");
                let own = before.filter(|(whose, ..)| Some(*whose) == of);
                if let (Some(own), Some(after)) = (own, after) {
                    assert!(after.1 <= own.1 || own.3, "{cell}: it was made longer: {after:?}");
                    assert!(of != Some(Of::Pause) || after.2 >= own.2, "{cell}: it became less severe: {after:?}");
                }
                assert!(own.is_none() || after.is_some(), "{cell}: it was lost");
                let passed = after.is_some_and(|after| after.3);
                assert!(!passed || own.is_some_and(|own| own.3), "{cell}: it passed unseen");
                let stops = matches!(verb, Verb::Stop | Verb::Restart)
                    && matches!(phase, Phase::Stopping(Next::Stopped | Next::Running | Next::Paused));
                if stops {
                    let (_, at, _, passed) = after.unwrap_or_else(|| panic!("{cell}: it never interrupts"));
                    assert!(!passed && at <= seconds.unwrap_or(DEFAULT), "{cell}: {at}");
                }
            }
        }
    }
}
