//! One run of one execution, from its admission until it rests or has ended. Whatever becomes of it, its place, its
//! claim and its permit are given back, and it is taken up again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::Receiver;

use super::order::Order;
use super::queue::Waits;
use super::walk::Walked;
use super::{Engine, plan};
use crate::gate::ExecutionPermit;
use crate::store::{Error, Execution, State};

/// The pause before one is taken up again whose run ended by a fault.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// What a run begins with.
#[derive(Debug)]
pub(super) enum Begins {
    /// What waited in this process, to be read now.
    Waits(Waits),
    /// What was claimed from a shared store, under a claim of this number.
    Claimed(Box<Execution>, i64),
}

/// What came of a run.
enum Came {
    /// It has ended, or is not to be run.
    Ended,
    /// It waits.
    Rests(Waits),
    /// It is not known how far it came; the store says.
    Lost,
}

impl Engine {
    /// `run` is the number of the run in the queue.
    pub(super) async fn run(
        self: Arc<Self>,
        begins: Begins,
        permit: ExecutionPermit,
        mut orders: Receiver<Order>,
        run: u64,
    ) {
        let (entry_point, id, claim, waited) = match &begins {
            Begins::Waits(waits) => (waits.entry_point.clone(), waits.id.clone(), None, Some(waits.clone())),
            Begins::Claimed(one, claim) => (one.entry_point.clone(), one.id.clone(), Some(*claim), None),
        };
        let walked = AssertUnwindSafe(self.walk_from(begins, &permit, &mut orders)).catch_unwind().await;
        let came = walked.unwrap_or_else(|_| {
            tracing::error!(execution = id, "its run panicked: it is taken up again, and fails if that goes on");
            Came::Lost
        });
        if let (Some(shared), Some(claim)) = (self.store.shared(), claim) {
            shared.let_go(&id, claim).await;
        }
        // The permit goes back only now, when the last effect has ended and its outcome is on disk.
        drop(permit);
        let mut queue = self.queue();
        queue.ended(&entry_point, &id, run);
        match (came, waited) {
            (Came::Rests(waits), Some(_)) => queue.put(waits),
            // Whoever takes it up again counts that, so that what never works does not go on for ever.
            (Came::Lost, Some(waits)) => {
                queue.put(waits.not_before(Timestamp::now().saturating_add(AGAIN_AFTER).unwrap_or(Timestamp::MAX)));
            }
            // In a shared store it rests there.
            (Came::Ended, _) | (Came::Rests(_) | Came::Lost, None) => {}
        }
        drop(queue);
        self.changed.notify_one();
        self.moved.notify_waiters();
    }

    async fn walk_from(&self, begins: Begins, permit: &ExecutionPermit, orders: &mut Receiver<Order>) -> Came {
        let mut execution = match begins {
            Begins::Claimed(execution, _) => *execution,
            Begins::Waits(waits) => match self.store.get(&waits.id).await {
                Ok(Some(execution)) if !execution.state.is_terminal() => execution,
                Ok(_) | Err(Error::Foreign { .. }) => return Came::Ended,
                Err(error) => {
                    tracing::error!(execution = waits.id, %error, "it cannot be begun now");
                    return Came::Lost;
                }
            },
        };
        let walked = match self.walk(&mut execution, permit, orders).await {
            Ok(walked) => walked,
            Err(error @ (Error::Foreign { .. } | Error::Unstorable { .. })) => {
                self.give_up(&execution.id, &error).await
            }
            Err(_) => Walked::Lost,
        };
        if walked == Walked::Ended && execution.state == State::Failed {
            self.note_failure();
        }
        match walked {
            Walked::Ended => Came::Ended,
            Walked::Rests => Came::Rests(self.waits(&execution)),
            Walked::Lost => Came::Lost,
        }
    }

    /// Fails an execution that can never go on: something of it cannot be read, or what it wrote could not be. It
    /// stays as it was written last.
    async fn give_up(&self, id: &str, why: &Error) -> Walked {
        let given_up = async {
            let Some(mut execution) = self.store.get(id).await?.filter(|one| !one.state.is_terminal()) else {
                return Ok(());
            };
            let planned = plan::give_up(&mut execution, "record", why.to_string(), Timestamp::now());
            let tokens = std::sync::atomic::AtomicI64::new(execution.tokens);
            self.keep(&mut execution, planned, &tokens, Vec::new()).await?;
            self.telemetry.ended(execution.state);
            self.note_failure();
            Ok::<_, Error>(())
        };
        match given_up.await {
            Ok(()) => Walked::Ended,
            Err(error) => {
                tracing::error!(execution = id, %error, "an execution that cannot go on could not be ended");
                Walked::Lost
            }
        }
    }
}
