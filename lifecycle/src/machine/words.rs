//! The words of the machine: its phases, what happens to it, and what it decides.

/// What starting leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Work will be admitted.
    Running,
    /// Nothing is ever admitted on the way.
    Paused,
}

/// What stopping leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Stay stopped.
    Stopped,
    /// Start again and run.
    Running,
    /// Start again and be paused.
    Paused,
    /// End the process.
    Exit,
}

/// The state with what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing runs.
    Stopped,
    /// Loading.
    Starting(Target),
    /// Admitting.
    Running,
    /// Draining towards paused.
    Pausing,
    /// Nothing runs, nothing starts.
    Paused,
    /// Draining towards an end.
    Stopping(Next),
    /// The process may end with code 0.
    Exited,
}

/// The gate's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateMode {
    /// Executions are admitted.
    Open,
    /// Only executions already admitted get steps.
    Draining,
    /// Nothing is given out.
    Closed,
}

/// Who gives a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Giver {
    /// The operator, with an epoch that is not stale.
    Operator,
    /// A person.
    Person,
}

/// What the table answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// 200: it is so already, or at once.
    Reached,
    /// 202: on the way.
    Accepted,
    /// 409: the verb does not fit the state.
    Conflict,
    /// 409 `terminating`: the process is about to end.
    Terminating,
    /// 409 `held`: the operator's hold is in force.
    Held,
    /// 409 `stale_epoch`: a newer epoch was accepted.
    Stale,
}

/// What a brake is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrakeDecision {
    /// 200: held, and nothing is in flight.
    Reached,
    /// 202: held, and something is in flight or being loaded.
    Accepted,
    /// 409 `stale_epoch`: a higher epoch than the brake's was accepted.
    Stale,
    /// 409 `brakes_full`: there is no room for one more.
    Full,
}

/// What happens inside a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The agent is loaded.
    Ready,
    /// The agent can never be loaded as it is.
    Invalid,
    /// The last permit was given back.
    Idle,
    /// The circuit breaker opened.
    Breaker,
    /// SIGTERM or SIGINT.
    Terminate,
    /// The drain deadline passed under `checkpoint`.
    CheckpointDeadline,
    /// The boot hold ended: the operator confirmed the epoch, or its time ran out.
    BootHoldEnded,
}
