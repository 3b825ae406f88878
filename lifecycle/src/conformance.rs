//! Whether a server speaks the contract: each promise that the operator relies on, tried on a runtime that stands alone.

mod brakes;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{Client, Error};
use crate::state::{State, Verb};
use crate::wire::{Command, Status};

/// Seconds that a call may take on top of what it waits for.
const CALL: Duration = Duration::from_secs(5);
/// Seconds of one long poll.
const POLL: Duration = Duration::from_secs(1);
/// A pod that cannot be the one that is asked.
const STRANGER: &str = "00000000-0000-0000-0000-000000000000";

/// What stands for the promises of brakes on a server that knows none.
const NO_BRAKES: &str = "brakes: not supported";

/// One promise, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The promise, as a sentence.
    pub promise: &'static str,
    /// What happened instead.
    pub outcome: Result<(), String>,
    /// It is of a part of the contract that this server does not announce, and need not. Nothing was tried.
    pub is_skipped: bool,
}

/// Tries every promise in order and gives all outcomes. The runtime is paused, stopped and started on the way
/// and runs again at the end; `patience` bounds each change of state. It must be idle and take commands without
/// a signature or token. Work in flight cannot be tried from here, as only its own agent can begin some.
pub async fn run(client: &Client, address: SocketAddr, patience: Duration, mut tell: impl FnMut(&Check)) -> Vec<Check> {
    let subject = Subject { client, address, patience };
    let mut all = Vec::new();
    let mut note = |promise: &'static str, outcome: Result<(), String>| {
        let check = Check { promise, outcome, is_skipped: promise == NO_BRAKES };
        tell(&check);
        let kept = check.outcome.is_ok();
        all.push(check);
        kept
    };
    let known = subject.reach(State::Running).await;
    let before = known.as_ref().ok().cloned();
    if !note("GET /api/v1/status answers the fields of the contract, and it runs", known.map(drop)) {
        return all;
    }
    note("GET /health/live answers 200", subject.probe("/health/live", 200).await);
    note("GET /health/ready answers 200 while it runs", subject.probe("/health/ready", 200).await);
    note("a long poll waits for another version and then answers", subject.long_poll().await);
    note("pause is reached: paused, and nothing in flight", subject.change(Verb::Pause, State::Paused, None).await);
    note("GET /health/ready answers 503 while it is paused", subject.probe("/health/ready", 503).await);
    note("GET /health/live answers 200 while it is paused", subject.probe("/health/live", 200).await);
    note("pause of a paused one is answered 200", subject.again(Verb::Pause, None).await);
    note("resume is reached: running", subject.change(Verb::Resume, State::Running, None).await);
    note("stop is reached: stopped", subject.change(Verb::Stop, State::Stopped, None).await);
    note("resume of a stopped one is refused with 409", subject.refused(Verb::Resume, &Command::default(), 409).await);
    note("start is reached: running", subject.change(Verb::Start, State::Running, None).await);
    let knows_brakes = before.as_ref().is_some_and(Status::knows_brakes);
    let epoch = before.map_or(0, |status| status.epoch) + 2;
    note("pause with a new epoch is reached", subject.change(Verb::Pause, State::Paused, Some(epoch)).await);
    note("the status says the epoch that was accepted", subject.says(epoch).await);
    note("the same epoch again is answered, not refused", subject.again(Verb::Pause, Some(epoch)).await);
    note("an older epoch is refused with 409 stale_epoch and changes nothing", subject.stale(epoch - 1).await);
    let stranger = Command { epoch: Some(epoch + 1), pod_uid: Some(STRANGER.to_owned()), ..Command::default() };
    note("a command for another pod is refused with 421", subject.refused(Verb::Resume, &stranger, 421).await);
    note("the refused commands have let nothing start", subject.says(epoch).await);
    note("resume with a newer epoch is reached", subject.change(Verb::Resume, State::Running, Some(epoch + 1)).await);
    if knows_brakes {
        brakes::run(&subject, epoch + 1, &mut note).await;
    } else {
        note(NO_BRAKES, Ok(()));
    }
    all
}

struct Subject<'a> {
    client: &'a Client,
    address: SocketAddr,
    patience: Duration,
}

impl Subject<'_> {
    async fn probe(&self, path: &str, wanted: u16) -> Result<(), String> {
        match self.client.probe(self.address, path, CALL).await {
            Ok(code) if code == wanted => Ok(()),
            Ok(code) => Err(format!("{path} answered {code}")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn status(&self, after: Option<&str>) -> Result<Status, String> {
        let after = after.map(|version| (version, POLL));
        self.client.status(self.address, after, CALL).await.map_err(|error| error.to_string())
    }

    /// Waits for a state. Paused is only believed with nothing in flight.
    async fn reach(&self, wanted: State) -> Result<Status, String> {
        let begun = Instant::now();
        let mut status = self.status(None).await?;
        loop {
            if status.state == wanted && (wanted == State::Running || status.in_flight.unwrap_or(0) == 0) {
                return Ok(status);
            }
            if begun.elapsed() > self.patience {
                let seconds = self.patience.as_secs();
                return Err(format!(
                    "after {seconds} s it is {} with {:?} in flight, not {wanted}",
                    status.state, status.in_flight
                ));
            }
            let version = status.version.clone();
            status = self.status(Some(&version)).await?;
        }
    }

    async fn change(&self, verb: Verb, wanted: State, epoch: Option<i64>) -> Result<(), String> {
        let command = Command { epoch, ..Command::default() };
        let answer = self.client.send(self.address, verb, &command, CALL).await.map_err(|error| error.to_string())?;
        if answer.reached && answer.status.state != wanted {
            return Err(format!("{verb} was answered 200, which is reached, with the state {}", answer.status.state));
        }
        self.reach(wanted).await.map(drop)
    }

    async fn again(&self, verb: Verb, epoch: Option<i64>) -> Result<(), String> {
        let command = Command { epoch, ..Command::default() };
        let answer = self.client.send(self.address, verb, &command, CALL).await.map_err(|error| error.to_string())?;
        if answer.reached {
            Ok(())
        } else {
            Err("it was answered 202, as if there were something left to do".to_owned())
        }
    }

    async fn refused(&self, verb: Verb, command: &Command, wanted: u16) -> Result<(), String> {
        match self.client.send(self.address, verb, command, CALL).await {
            Err(Error::Refused { code, .. }) if code == wanted => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(answer) => Err(format!("it was obeyed, and the state is {}", answer.status.state)),
        }
    }

    async fn stale(&self, epoch: i64) -> Result<(), String> {
        let command = Command { epoch: Some(epoch), ..Command::default() };
        match self.client.send(self.address, Verb::Resume, &command, CALL).await {
            Err(Error::Stale { status, .. }) if status.state == State::Paused => Ok(()),
            Err(Error::Stale { status, .. }) => Err(format!("it was refused, but the state is {}", status.state)),
            Err(error) => Err(error.to_string()),
            Ok(_) => Err("it was obeyed: a delayed command could undo a newer one".to_owned()),
        }
    }

    async fn says(&self, epoch: i64) -> Result<(), String> {
        let status = self.status(None).await?;
        if status.epoch == epoch && status.state == State::Paused {
            return Ok(());
        }
        Err(format!("it says epoch {} and {}, not epoch {epoch} and paused", status.epoch, status.state))
    }

    async fn long_poll(&self) -> Result<(), String> {
        let known = self.status(None).await?;
        let begun = Instant::now();
        let later = self.status(Some(&known.version)).await?;
        // Answered at once with the version that is known already, it would be asked again and again.
        if later.version == known.version && begun.elapsed() < POLL / 2 {
            return Err("it answered at once although nothing had changed".to_owned());
        }
        Ok(())
    }
}
