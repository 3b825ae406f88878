//! Brakes, for servers that say that they know them. The others are held by commands alone, which is allowed.

use super::{CALL, STRANGER, Subject};
use crate::brake::MAX_BRAKES;
use crate::client::{Answer, Error};
use crate::state::{Desired, State, Verb};
use crate::wire::{BrakeCommand, Command};

/// Tries each promise of brakes on a runtime that runs at `epoch`, and lets it run again.
pub(super) async fn run(
    subject: &Subject<'_>,
    epoch: i64,
    note: &mut impl FnMut(&'static str, Result<(), String>) -> bool,
) {
    let brake = |number: usize, epoch| BrakeCommand {
        id: format!("conformance.{epoch}.{number}"),
        state: Desired::Paused,
        epoch,
        ..BrakeCommand::default()
    };
    let first = brake(0, epoch);
    note("a brake is held: paused, listed, and at the epoch of before", held(subject, &first, epoch).await);
    note("the same brake again is answered, and listed once", held(subject, &first, epoch).await);
    note("a brake of an older epoch is refused with 409 stale_epoch", stale(subject, &brake(1, epoch - 1)).await);
    let stranger = BrakeCommand { pod_uid: Some(STRANGER.to_owned()), ..brake(1, epoch) };
    note("a brake for another pod is refused with 421", refused(subject, &stranger, 421).await);
    note(
        "a resume without an epoch is refused with 409 while a brake holds",
        subject.refused(Verb::Resume, &Command::default(), 409).await,
    );
    let unnamed = Command { epoch: Some(epoch + 1), ..Command::default() };
    note("a newer epoch that does not name the brake leaves it", leaves(subject, &unnamed, &first.id).await);
    let second = brake(0, epoch + 1);
    note("a second brake is held beside the first", held(subject, &second, epoch + 1).await);
    let early = Command { releases: vec![second.id.clone()], ..unnamed };
    note(
        "a name in an epoch that is not above the brake's releases nothing",
        leaves(subject, &early, &second.id).await,
    );
    let more: Vec<BrakeCommand> = (3..=MAX_BRAKES).map(|number| brake(number, epoch + 1)).collect();
    note("eight brakes are held at once", all_held(subject, &more, epoch + 1).await);
    let ninth = refused(subject, &brake(MAX_BRAKES + 1, epoch + 1), 409).await;
    note("a ninth is refused with 409 brakes_full", ninth);
    note("a newer epoch that names them all releases them: running", released(subject, epoch + 2).await);
}

async fn set(subject: &Subject<'_>, brake: &BrakeCommand) -> Result<Answer, Error> {
    subject.client.brake(subject.address, brake, CALL).await
}

async fn held(subject: &Subject<'_>, brake: &BrakeCommand, epoch: i64) -> Result<(), String> {
    let answer = set(subject, brake).await.map_err(|error| error.to_string())?;
    let times = answer.status.brake_ids().iter().filter(|id| **id == brake.id).count();
    if times != 1 {
        return Err(format!("its answer lists the brake {times} times"));
    }
    let status = subject.reach(State::Paused).await?;
    if status.epoch == epoch { Ok(()) } else { Err(format!("the epoch is {}, not {epoch}", status.epoch)) }
}

async fn all_held(subject: &Subject<'_>, brakes: &[BrakeCommand], epoch: i64) -> Result<(), String> {
    for brake in brakes {
        held(subject, brake, epoch).await?;
    }
    let count = subject.status(None).await?.brake_ids().len();
    if count == MAX_BRAKES { Ok(()) } else { Err(format!("it lists {count}")) }
}

async fn stale(subject: &Subject<'_>, brake: &BrakeCommand) -> Result<(), String> {
    match set(subject, brake).await {
        Err(Error::Stale { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("it was obeyed: a delayed brake could come after its release".to_owned()),
    }
}

async fn refused(subject: &Subject<'_>, brake: &BrakeCommand, wanted: u16) -> Result<(), String> {
    match set(subject, brake).await {
        Err(Error::Refused { code, .. }) if code == wanted => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(answer) => Err(format!("it was obeyed, and the brakes are {:?}", answer.status.brake_ids())),
    }
}

/// The command is answered, and the brake goes on holding.
async fn leaves(subject: &Subject<'_>, command: &Command, id: &str) -> Result<(), String> {
    let sent = subject.client.send(subject.address, Verb::Resume, command, CALL).await;
    sent.map_err(|error| error.to_string())?;
    let status = subject.status(None).await?;
    if !status.brake_ids().iter().any(|held| held == id) {
        return Err(format!("the brake is gone, and the state is {}", status.state));
    }
    if status.state == State::Running { Err("it runs against a brake".to_owned()) } else { Ok(()) }
}

async fn released(subject: &Subject<'_>, epoch: i64) -> Result<(), String> {
    let releases = subject.status(None).await?.brake_ids().to_vec();
    let command = Command { epoch: Some(epoch), releases, ..Command::default() };
    let sent = subject.client.send(subject.address, Verb::Resume, &command, CALL).await;
    sent.map_err(|error| error.to_string())?;
    let status = subject.reach(State::Running).await?;
    let left = status.brake_ids();
    if left.is_empty() { Ok(()) } else { Err(format!("it still lists {left:?}")) }
}
